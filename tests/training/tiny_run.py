"""A run small enough for a test: 160 images, a network of one block."""

import contextlib
import functools
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.configs import default
from fer_jax.data.datasets import registry as datasets
from fer_jax.data.datasets.builder import Example, FaceBuilder
from fer_jax.models import registry, resnet
from fer_jax.training import resuming
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.train_batches import TrainBatches
from fer_jax.training.train_state import TrainState

NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 160, 50, 30
BATCH_SIZE = 32
STEPS_PER_EPOCH = NUM_TRAIN // BATCH_SIZE


class Bars(FaceBuilder):
  """Noise with a bright bar, as wide as its class says: learned at once."""

  VERSION = tfds.core.Version("1.0.0")
  classes = tuple("abcdefg")

  def read_examples(self) -> Mapping[str, Iterator[Example]]:
    """Draws the splits."""
    sizes = {
      "train": NUM_TRAIN,
      "validation": NUM_VALIDATION,
      "test": NUM_TEST,
    }
    return {split: bars(num) for split, num in sizes.items()}


def bars(num: int) -> Iterator[Example]:
  """Yields images of random classes."""
  rng = np.random.default_rng(num)
  for index, target in enumerate(rng.integers(7, size=num)):
    image = rng.integers(60, size=(48, 48, 1), dtype=np.uint8)
    image[:, : 6 * (target + 1)] += 150
    yield image, int(target), index


def config(folder: pathlib.Path, **fields: object) -> ConfigDict:
  """A configuration of `tiny`; `fields` are dotted with two underscores.

  Args:
    folder: where the images are prepared, once.
    **fields: such as `optimizer__name="sgd"`.
  """
  tiny = default.get_config()
  tiny.model.name = "tiny"
  tiny.dataset.name = "bars"
  tiny.dataset.data_dir = str(folder)
  tiny.input.image_size, tiny.input.channels = 24, 1
  tiny.parallel = "jit"
  tiny.batch_size = BATCH_SIZE
  tiny.eval_batch_size = BATCH_SIZE
  tiny.num_epochs = 2
  tiny.log_every_steps = 2
  for name, value in fields.items():
    tiny.update_from_flattened_dict({name.replace("__", "."): value})
  return configs.lock(tiny)


def final_state(config: ConfigDict, workdir: pathlib.Path) -> TrainState:
  """Returns the arrays of the latest checkpoint."""
  with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
    parts = create_experiment(config)
    return resuming.restore(parts, checkpoints, TrainBatches(parts))[1]


def register(monkeypatch: pytest.MonkeyPatch) -> None:
  """Makes known the model "tiny", a ResNet of one block, and the set "bars"."""
  monkeypatch.setitem(datasets.DATASETS, "bars", "tiny_run:Bars")
  make = functools.partial(
    resnet.ResNet, stage_sizes=(1,), block=resnet.BasicBlock
  )
  monkeypatch.setitem(registry.MODELS, "tiny", make)
