"""A trained model, ready for images: what evaluate and predict stand on."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32, UInt8
from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax import models
from fer_jax.data import normalization
from fer_jax.errors import UserError, choose
from fer_jax.evaluation import tta as views
from fer_jax.training import losses
from fer_jax.training.checkpoints import Checkpoints, Info
from fer_jax.training.train_state import Tree

CHECKPOINTS = ("best", "latest")


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
  """A model with its weights and the preprocessing it was trained with.

  Attributes:
    workdir: where it was trained.
    checkpoint: "best" or "latest".
    config: what it was trained by.
    class_names: what its outputs stand for.
    image_shape: height, width and channels of the images it was trained on.
    info: what else the checkpoint says: `position` and so on.
    model: maps prepared images to logits.
    variables: `params` and `batch_stats`.
    batch_size: images a compiled call takes.
  """

  workdir: pathlib.Path
  checkpoint: str
  config: ConfigDict
  class_names: tuple[str, ...]
  image_shape: tuple[int, int, int]
  info: Info
  model: nn.Module
  variables: Tree
  batch_size: int

  @classmethod
  def load(
    cls,
    workdir: str | os.PathLike[str],
    checkpoint: str = "best",
    batch_size: int = 0,
  ) -> Self:
    """Loads a checkpoint of a run; nothing but the workdir is needed.

    Args:
      workdir: of the run.
      checkpoint: "best", by the run's `best_metric`, or "latest".
      batch_size: images a compiled call takes, over all local devices; 0 is
        the run's `eval_batch_size`.

    Raises:
      UserError: there is no such checkpoint, or it cannot be read.
    """
    choose("--checkpoint", checkpoint, CHECKPOINTS)
    workdir = pathlib.Path(workdir).expanduser()
    if not (workdir / "checkpoints").is_dir():
      raise UserError(
        f"no trained model in --workdir={workdir}: give a folder that"
        " python -m fer_jax.train has written"
      )
    checkpoints = Checkpoints(workdir, read_only=True)
    try:
      variables, info = checkpoints.restore_variables(checkpoint)
    finally:
      checkpoints.close()
    config = configs.from_json(info["config"])
    class_names = tuple(info["class_names"])
    options = config.model.to_dict()
    model = models.create(
      options.pop("name"),
      len(class_names),
      **options,
      dtype=jnp.dtype(config.dtype),
    )
    height, width, channels = info["image_shape"]
    return cls(
      workdir=workdir,
      checkpoint=checkpoint,
      config=config,
      class_names=class_names,
      image_shape=(height, width, channels),
      info=info,
      model=model,
      variables=variables,
      batch_size=_whole(batch_size or config.eval_batch_size),
    )

  @property
  def epoch(self) -> int:
    """Epochs that the checkpoint has seen."""
    return int(self.info["position"]["epoch"])

  def logits(
    self, images: UInt8[Array, "b h w c"], variables: Tree | None = None
  ) -> Float32[Array, "b k"]:
    """What the softmax is taken of; pure, to be compiled or differentiated.

    Args:
      images: as the data set stores them.
      variables: others than the model's own.
    """
    return self.prepared_logits(
      normalization.prepare(images, **self.config.input), variables
    )

  def prepared_logits(
    self, images: Float[Array, "b h w c"], variables: Tree | None = None
  ) -> Float32[Array, "b k"]:
    """As `logits`, of images that are normalised already."""
    variables = self.variables if variables is None else variables
    logits = self.model.apply(variables, images, train=False)
    assert isinstance(logits, jax.Array)
    return losses.to_output(logits, self.config.loss.output)

  def probabilities(
    self,
    images: UInt8[np.ndarray, "n h w c"],
    tta: str = "none",
    progress: Callable[[int], None] = lambda count: None,
  ) -> Float32[np.ndarray, "n k"]:
    """The probability of each class for each image.

    Batches have one size, the last one padded, so one program serves any
    number of images; they are spread over all local devices.

    Args:
      images: as the data set stores them; n may be 0.
      tta: test-time augmentation, one of `views.VIEWS`.
      progress: told how many images each batch finished.
    """
    choose("--tta", tta, views.VIEWS)
    num_images, size = len(images), self.batch_size
    out = np.empty((num_images, len(self.class_names)), np.float32)
    step = self._step(tta)
    pending: tuple[int, Array] | None = None
    for start in range(0, num_images, size):
      batch = images[start : start + size]
      padding = size - len(batch)
      if padding:
        batch = np.pad(batch, ((0, padding), (0, 0), (0, 0), (0, 0)))
      on_device = jax.device_put(batch, self._placement("batch"))
      computed = step(self._on_device, on_device)
      if pending:  # Fetched one late, so that the devices never wait.
        progress(_fetch(out, *pending))
      pending = start, computed
    if pending:
      progress(_fetch(out, *pending))
    return out

  def _step(self, tta: str) -> Callable[[Tree, Array], Array]:
    if tta not in self._steps:

      def step(variables: Tree, images: Array) -> Array:
        inputs = self.config.input
        images = normalization.to_float(images, inputs.channels)
        seen = views.VIEWS[tta](images, inputs.image_size)
        probabilities = [
          jax.nn.softmax(
            self.prepared_logits(
              normalization.normalize(
                view, inputs.normalization, inputs.mean, inputs.std
              ),
              variables,
            )
          )
          for view in seen
        ]
        return jnp.mean(jnp.stack(probabilities), axis=0)

      self._steps[tta] = jax.jit(step)
    return self._steps[tta]

  @functools.cached_property
  def _steps(self) -> dict[str, Any]:
    return {}

  @functools.cached_property
  def _mesh(self) -> Mesh:
    return Mesh(np.array(jax.local_devices()), ("batch",))

  def _placement(self, *axes: str) -> NamedSharding:
    return NamedSharding(self._mesh, PartitionSpec(*axes))

  @functools.cached_property
  def _on_device(self) -> Tree:
    return jax.device_put(self.variables, self._placement())


def _whole(batch_size: int) -> int:
  """The batch size, made a multiple of the local devices."""
  devices = len(jax.local_devices())
  return -(-batch_size // devices) * devices


def _fetch(out: np.ndarray, start: int, computed: Array) -> int:
  """Writes a batch's rows where they belong; says how many."""
  rows = np.asarray(computed)[: len(out) - start]
  out[start : start + len(rows)] = rows
  return len(rows)
