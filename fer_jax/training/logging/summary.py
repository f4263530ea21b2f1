"""Messages at the start of a run and when it is interrupted."""

import pathlib

import jax

from fer_jax import __version__
from fer_jax.ops import cpu_library, dispatch
from fer_jax.training import overfit_check
from fer_jax.training.experiment import Experiment
from fer_jax.training.initial_weights import InitialWeights
from fer_jax.training.loop_state import LoopState


def opening(
  experiment: Experiment,
  workdir: str,
  loop: LoopState,
  weights: InitialWeights | None,
) -> str:
  """Describes the model, the devices, the dataset and the workdir.

  Args:
    experiment: the run's.
    workdir: where the run is written.
    loop: the state of the training loop.
    weights: the weights that a new run starts from; None for random ones.
  """
  config, dataset = experiment.config, experiment.dataset
  parallel, device = experiment.parallel, jax.local_devices()[0]
  sizes = ", ".join(
    f"{name} {len(split):,}" for name, split in dataset.splits.items()
  )
  if "test" not in dataset.splits:
    sizes += " (no test split)"
  resumed = ""
  notes = []
  if loop.step:
    epoch, step = divmod(loop.next_batch, experiment.steps_per_epoch)
    resumed = f", resumed in epoch {epoch + 1} at step {step}"
    if loop.is_finished(config.num_epochs):
      resumed = f", finished after {loop.epoch} epochs"
  elif weights:
    notes.append(weights.description)
  if experiment.freezing.groups:
    notes.append(experiment.freezing.describe(loop.epoch))
  if config.overfit:
    notes.append(overfit_check.ANNOUNCEMENT)
  return "\n".join(
    (
      str(experiment.model_summary),
      f"fer_jax {__version__}, jax {jax.__version__},"
      f" {parallel.num_devices} x {device.device_kind} ({parallel.mode}),"
      f"{_processes()}"
      f" {config.dtype}{_computation(config.dtype, device)}",
      f"{dataset.name}: {sizes}; {dataset.num_classes} classes,"
      f" data_loader={config.data_loader}",
      *notes,
      f"workdir {workdir}{resumed}",
    )
  )


def _processes() -> str:
  return f" {jax.process_count()} processes," if jax.process_count() > 1 else ""


def _computation(dtype: str, device: jax.Device) -> str:
  """Says how a device computes `dtype`, since that decides the speed."""
  if device.platform != "cpu":
    if dtype == "float32" or not dispatch.lacks_bfloat16(device):
      return ""
    return " computed as float32: this GPU has no arithmetic for bfloat16"
  missing = cpu_library.unavailable_reason()
  kernels = f"XLA's kernels only: {missing}" if missing else "own kernels"
  if dtype == "float32":
    return f", {kernels}"
  if cpu_library.multiplies_bfloat16():
    return f" products of float32, {kernels}"
  return f" computed as float32, for which this processor is faster, {kernels}"


def interrupted(loop: LoopState, workdir: pathlib.Path) -> str:
  """Says where a run was interrupted, and how to resume it."""
  if not loop.step:
    return "interrupted before the first step: there is nothing to resume"
  if loop.metrics.count:
    where = f"in epoch {loop.epoch + 1} after"
  else:
    where = f"after epoch {loop.epoch} and"
  return (
    f"interrupted {where} {loop.step} steps; saved in"
    f" {workdir}: run the same command again to resume"
  )
