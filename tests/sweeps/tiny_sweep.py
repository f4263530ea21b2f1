"""A sweep small enough for a test: a network of one convolution, few faces."""

import os
import pathlib
import signal
import time
from typing import Any

from ml_collections import ConfigDict

from fer_jax.configs import default
from fer_jax.sweeps.plan import Plan
from fer_jax.sweeps.space import Space
from fer_jax.training.runtime.signals import Interrupted, StopRequest


def config(folder: pathlib.Path) -> ConfigDict:
  """A configuration; its images are prepared in the folder, once."""
  tiny = default.get_config()
  tiny.model.name = "leaky_cnn"
  tiny.model.widths = (2,)
  tiny.model.dense = 4
  tiny.dataset.name = "synthetic_faces"
  tiny.dataset.num_train = tiny.dataset.num_validation = 28
  tiny.dataset.num_test = 7
  tiny.dataset.data_dir = str(folder / "prepared")
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


def wait(plan: Plan) -> None:
  """What a process may do: waits for a signal, and notes that it came."""
  with StopRequest() as stop_request:
    (plan.workdir / "waiting").touch()
    while not stop_request.signal_number:
      time.sleep(0.02)
  (plan.workdir / "left").touch()
  raise Interrupted("saved", stop_request.signal_number)


def stop(plan: Plan) -> None:
  """Ends as a training does whose `max_minutes` are over."""
  raise Interrupted("saved", signal.SIGALRM)


def fail(plan: Plan) -> None:
  """Raises what nobody expects."""
  raise ValueError(f"{plan.goal} trials\nare too many")


def die(plan: Plan) -> None:
  """Ends the process as the system does for want of memory."""
  os.kill(os.getpid(), signal.SIGKILL)
