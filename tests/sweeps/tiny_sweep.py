"""A sweep small enough for a test: a network of one convolution, few faces."""

import pathlib
from typing import Any

from ml_collections import ConfigDict

from fer_jax.configs import default
from fer_jax.sweeps.plan import Plan
from fer_jax.sweeps.space import Choice, Space

RECIPE = """
import pathlib

import tiny_sweep

def get_config():
  return tiny_sweep.config(pathlib.Path(__file__).parent)
"""
RATES = Choice((1e-3, 1e-2))


def config(folder: pathlib.Path) -> ConfigDict:
  """A configuration; its images are prepared in the folder, once."""
  tiny = default.get_config()
  tiny.model.name = "leaky_cnn"
  tiny.model.widths = (2,)
  tiny.model.dense = 4
  tiny.dataset.name = "synthetic_faces"
  tiny.dataset.num_train = tiny.dataset.num_validation = 28
  tiny.dataset.num_test = 7
  tiny.dataset.prepared_dir = str(folder / "prepared")
  tiny.input.image_size = 8
  tiny.parallel = "jit"
  tiny.batch_size = tiny.eval_batch_size = 14
  tiny.num_epochs = 2
  tiny.best_metric = "validation_accuracy"
  return tiny.lock()


def plan(folder: pathlib.Path, fields: dict[str, Any], **options: Any) -> Plan:
  """A plan in FOLDER/sweep, not checked; `options` are attributes of it."""
  workdir = folder / "sweep"
  values: dict[str, Any] = {
    "config": config(folder),
    "space": Space.of(fields, {}),
    "workdir": workdir,
    "storage": str(workdir / "trials.journal"),
    "sampler": "tpe",
    "pruner": "none",
    "num_trials": None,
  }
  return Plan(**values | options)
