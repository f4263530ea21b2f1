"""A run small enough for a test: 160 drawn faces, a network of one block."""

import functools
import pathlib

import pytest
from fer_jax.configs import default
from ml_collections import ConfigDict

from fer_jax.models import registry, resnet

NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 160, 50, 30
BATCH_SIZE = 32
STEPS_PER_EPOCH = NUM_TRAIN // BATCH_SIZE


def config(folder: pathlib.Path, **fields: object) -> ConfigDict:
  """A configuration of `tiny`; `fields` are dotted with two underscores.

  Args:
    folder: where the drawn faces are prepared, once.
    **fields: such as `optimizer__name="sgd"`.
  """
  tiny = default.get_config()
  tiny.model.name = "tiny"
  tiny.dataset = ConfigDict(
    {
      "name": "synthetic_faces",
      "prepared_dir": str(folder),
      "num_train": NUM_TRAIN,
      "num_validation": NUM_VALIDATION,
      "num_test": NUM_TEST,
    }
  )
  tiny.input.image_size = 24
  tiny.parallel = "jit"
  tiny.batch_size = BATCH_SIZE
  tiny.eval_batch_size = BATCH_SIZE
  tiny.num_epochs = 2
  tiny.log_every_steps = 2
  for name, value in fields.items():
    tiny.update_from_flattened_dict({name.replace("__", "."): value})
  return tiny.lock()


def register(monkeypatch: pytest.MonkeyPatch) -> None:
  """Makes the model "tiny" known: a ResNet of one block."""
  make = functools.partial(
    resnet.ResNet, stage_sizes=(1,), block=resnet.BasicBlock
  )
  monkeypatch.setitem(registry.MODELS, "tiny", make)
