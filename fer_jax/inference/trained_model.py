"""A trained model with its preprocessing, ready for images."""

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
from fer_jax.errors import UserError, choose, require
from fer_jax.evaluation import tta as views
from fer_jax.object_stores import local_copies, urls
from fer_jax.ops import dispatch
from fer_jax.training import losses
from fer_jax.training.loop_state import saved_fields
from fer_jax.training.train_state import Tree

CHECKPOINTS = ("best", "latest")
Info = dict[str, Any]  # what a checkpoint says beside its arrays


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
  """A model with its weights and the preprocessing it was trained with.

  Attributes:
    workdir: folder of the run that trained it, or its URL.
    checkpoint: "best" or "latest".
    config: configuration of that run.
    class_names: names of the outputs.
    image_shape: height, width and channels of the images it was trained on.
    info: other contents of the checkpoint: `loop_state` and so on.
    model: the Flax module, from normalized images to logits.
    variables: `params` and `batch_stats`.
    batch_size: images per compiled call.
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
      workdir: folder of the run, or its URL on an object store.
      checkpoint: "best", by the run's `best_metric`, or "latest".
      batch_size: images per compiled call, over all local devices; 0 is the
        run's `eval_batch_size`.

    Raises:
      UserError: there is no such checkpoint, it cannot be read, or it is wrong.
    """
    # Slow to import, and not needed for a released model.
    from fer_jax.training.checkpoints import read_variables

    choose("checkpoint", checkpoint, CHECKPOINTS)
    workdir = urls.to_path(workdir)
    with local_copies.checkpoint(workdir, checkpoint) as folder:
      if not (folder / "checkpoints").is_dir():
        raise UserError(
          f"no trained model in {workdir}: give the folder of a run"
        )
      variables, info = read_variables(folder, checkpoint)
    return cls.from_variables(variables, info, workdir, checkpoint, batch_size)

  @classmethod
  def from_variables(
    cls,
    variables: Tree,
    info: Info,
    workdir: pathlib.Path,
    checkpoint: str,
    batch_size: int = 0,
  ) -> Self:
    """Creates a model from its variables and their description.

    Args:
      variables: `params` and `batch_stats`.
      info: the configuration as JSON, `class_names` and `image_shape`.
      workdir: folder of the run, or the name of a released model.
      checkpoint: "best" or "latest".
      batch_size: as for `load`.

    Raises:
      UserError: the batch size is negative, or the parameters are not finite.
    """
    require(batch_size >= 0, "batch_size", batch_size, "be at least 0")
    _check_finite(variables, f"checkpoint={checkpoint} in {workdir}")
    config = configs.from_json(info["config"])
    options = config.model.to_dict()
    model = models.create(
      options.pop("name"),
      len(info["class_names"]),
      **options,
      dtype=dispatch.compute_dtype(config.dtype),
    )
    height, width, channels = info["image_shape"]
    size = batch_size or config.eval_batch_size
    return cls(
      workdir=workdir,
      checkpoint=checkpoint,
      config=config,
      class_names=tuple(info["class_names"]),
      image_shape=(height, width, channels),
      info=info,
      model=model,
      variables=variables,
      batch_size=size + -size % jax.local_device_count(),
    )

  def __repr__(self) -> str:
    return (
      f"TrainedModel({self.config.model.name} of {self.workdir}, checkpoint"
      f" {self.checkpoint!r}, {len(self.class_names)} classes)"
    )

  def __getstate__(self) -> dict[str, Any]:
    """Leaves out what is compiled or on a device, so that it can be pickled."""
    return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

  @property
  def epoch(self) -> int:
    """Epochs that the model was trained for."""
    return int(saved_fields(self.info)["epoch"])

  def logits(
    self, images: UInt8[Array, "b h w c"], variables: Tree | None = None
  ) -> Float32[Array, "b k"]:
    """Returns logits; pure, to be compiled or differentiated.

    Args:
      images: as the dataset stores them.
      variables: others than the model's own.
    """
    images = normalization.prepare(images, **self.config.input)
    return self.prepared_logits(images, variables)

  def prepared_logits(
    self, images: Float[Array, "b h w c"], variables: Tree | None = None
  ) -> Float32[Array, "b k"]:
    """Returns logits of images that are normalized already."""
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
    """Returns the probability of each class for each image.

    Args:
      images: as the dataset stores them; n may be 0.
      tta: test-time augmentation, one of `views.VIEWS`.
      progress: called with the number of images that each batch finished.

    Raises:
      UserError: a probability is not finite (NaN or Inf).
    """
    choose("tta", tta, views.VIEWS)
    return self._in_batches(self._step(tta), images, progress)

  def embed(
    self, images: UInt8[np.ndarray, "n h w c"]
  ) -> Float32[np.ndarray, "n d"]:
    """Returns each image's features before the classifier.

    They are the inputs of the model's last dense layer.

    Args:
      images: as the dataset stores them; n may be 0.

    Raises:
      UserError: a feature is not finite (NaN or Inf).
    """
    if "embed" not in self.programs:
      self.programs["embed"] = jax.jit(self._features)
    return self._in_batches(self.programs["embed"], images)

  def _features(
    self, variables: Tree, images: UInt8[Array, "b h w c"]
  ) -> Float32[Array, "b d"]:
    inputs: list[Array] = []

    def note(next_fn: Any, args: Any, kwargs: Any, context: Any) -> Any:
      if isinstance(context.module, nn.Dense) and args:
        inputs.append(args[0])
      return next_fn(*args, **kwargs)

    with nn.intercept_methods(note):
      self.logits(images, variables)
    return inputs[-1].astype(jnp.float32)

  def _in_batches(
    self,
    step: Callable[[Tree, Array], Array],
    images: UInt8[np.ndarray, "n h w c"],
    progress: Callable[[int], None] = lambda count: None,
  ) -> Float32[np.ndarray, "n d"]:
    """Returns what a compiled function makes of all images.

    Batches have one size, the last one padded, so one program serves any
    number of images; they are sharded over all local devices.
    """
    size, parts = self.batch_size, []
    pending: tuple[Array, int] | None = None
    for start in range(0, max(len(images), 1), size):
      batch = images[start : start + size]
      count = len(batch)
      if count < size:
        batch = np.pad(batch, ((0, size - count), (0, 0), (0, 0), (0, 0)))
      on_device = jax.device_put(batch, self._placement("batch"))
      computed = step(self.device_variables, on_device)
      if pending:  # Fetched one late, so that the devices never wait.
        parts.append(np.asarray(pending[0]))
        progress(pending[1])
      pending = computed, count
    if pending:
      parts.append(np.asarray(pending[0]))
      progress(pending[1])
    out = np.concatenate(parts)[: len(images)]
    if not np.isfinite(out).all():
      raise UserError(
        f"the model in {self.workdir} computes NaN or Inf: its weights are"
        " damaged, or its training diverged; use another checkpoint"
      )
    return out

  def _step(self, tta: str) -> Callable[[Tree, Array], Array]:
    if tta not in self.programs:

      def step(variables: Tree, images: Array) -> Array:
        inputs = self.config.input
        images = normalization.to_float(images, inputs.channels)
        probabilities = [
          jax.nn.softmax(
            self.prepared_logits(
              normalization.normalize(
                view, inputs.normalization, inputs.mean, inputs.std
              ),
              variables,
            )
          )
          for view in views.VIEWS[tta](images, inputs.image_size)
        ]
        return jnp.mean(jnp.stack(probabilities), axis=0)

      self.programs[tta] = jax.jit(step)
    return self.programs[tta]

  @functools.cached_property
  def programs(self) -> dict[str, Any]:
    """Compiled functions of this model, by name, kept as long as it is."""
    return {}

  def _placement(self, *axes: str) -> NamedSharding:
    mesh = Mesh(np.array(jax.local_devices()), ("batch",))
    return NamedSharding(mesh, PartitionSpec(*axes))

  @functools.cached_property
  def device_variables(self) -> Tree:
    """`variables` on all local devices, kept as long as the model is."""
    return jax.device_put(self.variables, self._placement())


def _check_finite(variables: Tree, source: str) -> None:
  for path, value in jax.tree_util.tree_leaves_with_path(variables):
    if not np.isfinite(np.asarray(value, np.float32)).all():
      name = jax.tree_util.keystr(path, simple=True, separator="/")
      raise UserError(
        f"{source} holds NaN or Inf in {name}: it is damaged, or training"
        " diverged; use another checkpoint"
      )
