"""Loss and accuracy of a whole split: every image once, on any devices."""

import dataclasses
import functools
import json
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from fer_jax.data import normalization, pipeline
from fer_jax.ops import dispatch
from fer_jax.training import flat_params, losses
from fer_jax.training.batch_preparation import Batch, gather
from fer_jax.training.data_parallel import DataParallel
from fer_jax.training.experiment import Experiment
from fer_jax.training.metrics import Metrics
from fer_jax.training.runtime.compilation import ParallelCompiler
from fer_jax.training.runtime.signals import StopNow
from fer_jax.training.train_state import Tree


@dataclasses.dataclass(frozen=True, eq=False)
class EvalStep:
  """The evaluation step of one device, a pure function.

  Two instances are equal if they compile to the same program.

  Attributes:
    config: the whole configuration.
    model: maps images to logits.
    num_classes: outputs of the model.
    axis_name: the axis to sum metrics over; None on one device.
  """

  config: ConfigDict
  model: nn.Module
  num_classes: int
  axis_name: str | None = None

  def __call__(
    self, variables: Tree, metrics: Metrics, data: Tree, batch: Batch
  ) -> Metrics:
    """Adds the loss and accuracy of a batch.

    Args:
      variables: `params` and `batch_stats`.
      metrics: sums over the batches before.
      data: the split's arrays on the device; {} if batches hold images.
      batch: this device's part, with `mask`: False for padding.
    """
    images, labels = gather(data, batch)
    images = normalization.prepare(images, **self.config.input)
    variables = flat_params.to_tree(variables)
    logits = self.model.apply(variables, images, train=False)
    assert isinstance(logits, jax.Array)
    logits = losses.to_output(logits, self.config.loss.output)
    targets = losses.one_hot_targets(labels, self.num_classes)
    per_example: Float[Array, " b"] = losses.per_example(
      logits, targets, name=self.config.loss.name
    )
    seen = Metrics.from_batch(logits, targets, per_example, batch["mask"])
    if self.axis_name:
      seen = seen.psum(self.axis_name)
    return metrics.add(seen)

  @functools.cached_property
  def _key(self) -> tuple[Any, ...]:
    """Everything that is compiled into the step."""
    sections = {name: self.config[name].to_dict() for name in ("input", "loss")}
    fields = json.dumps(sections, sort_keys=True)
    platform = dispatch.platform()
    return platform, fields, self.model, self.num_classes, self.axis_name

  def __eq__(self, other: object) -> bool:
    return isinstance(other, EvalStep) and self._key == other._key

  def __hash__(self) -> int:
    return hash(self._key)


@functools.lru_cache(maxsize=4)  # Runs in one process share it.
def make_eval_step(parallel: DataParallel, step: EvalStep) -> Any:
  """Returns `(variables, metrics, data, batch) -> metrics`, jitted."""
  return parallel.jit(step.__call__, 3)


class Evaluator:
  """Evaluates splits of an experiment's dataset."""

  def __init__(self, experiment: Experiment):
    """Compiles nothing yet.

    Args:
      experiment: its dataset, model and devices.
    """
    self._experiment = experiment
    step = EvalStep(
      experiment.config,
      experiment.model,
      experiment.dataset.num_classes,
      experiment.parallel.axis_name,
    )
    self._step = make_eval_step(experiment.parallel, step)
    self._data: dict[str, Tree] = {}
    self._programs: dict[Any, Future[Any]] = {}

  def compile(
    self, compiler: ParallelCompiler, variables: Tree, split_name: str
  ) -> None:
    """Starts to compile the program that evaluates a split.

    Args:
      compiler: compiles in threads.
      variables: as in a call, or their shapes.
      split_name: the split.
    """
    parallel, data = self._experiment.parallel, self._device_data(split_name)
    batch = parallel.shard(next(self._batches(split_name)))
    metrics = parallel.replicate(Metrics.zeros())
    lowered = self._step.lower(variables, metrics, data, batch)
    self._programs[_shapes(data)] = compiler.add("evaluation", lowered)

  def __call__(
    self,
    variables: Tree,
    split_name: str,
    stops: Callable[[], bool] = lambda: False,
  ) -> dict[str, float]:
    """Evaluates a split.

    Args:
      variables: `params` and `batch_stats` as `DataParallel.replicate` places
        them.
      split_name: the split.
      stops: is called before every batch, and returns whether to stop there.

    Returns:
      `loss` and `accuracy`; the loss without smoothing or class weights.

    Raises:
      UserError: the split has no examples.
      StopNow: `stops` returned True.
    """
    parallel, data = self._experiment.parallel, self._device_data(split_name)
    if _shapes(data) not in self._programs:
      with ParallelCompiler() as compiler:
        self.compile(compiler, variables, split_name)
    program = self._programs[_shapes(data)].result()
    metrics = parallel.replicate(Metrics.zeros())
    for batch in self._batches(split_name):
      if stops():
        raise StopNow
      metrics = program(variables, metrics, data, parallel.shard(batch))
    return parallel.fetch(metrics).compute()

  def _batches(self, split_name: str) -> Any:
    config = self._experiment.config
    return pipeline.evaluation_batches(
      self._experiment.dataset.split(split_name),
      config.eval_batch_size,
      config.data_loader,
      jax.process_index(),
      jax.process_count(),
    )

  def _device_data(self, split_name: str) -> Tree:
    if split_name not in self._data:
      split = self._experiment.dataset.split(split_name)
      self._data[split_name] = self._experiment.device_data(split)
    return self._data[split_name]


def _shapes(data: Tree) -> tuple[tuple[int, ...], ...]:
  """Returns the shapes of a split's arrays: each needs its own program."""
  return tuple(x.shape for x in jax.tree.leaves(data))
