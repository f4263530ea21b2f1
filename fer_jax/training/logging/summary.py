"""What a run says at its start and at its end."""

import datetime
from typing import Any

import jax

from fer_jax import __version__
from fer_jax.models.summary import summarize
from fer_jax.ops import cpu_kernels
from fer_jax.training import overfit_check
from fer_jax.training.loop_state import Position
from fer_jax.training.train_setup import Setup


def opening(setup: Setup, workdir: str, step: int) -> str:
  """Says what is trained, on what, and where it goes.

  Args:
    setup: the parts of the run.
    workdir: as the user knows it.
    step: 0, or the step the run is resumed at.
  """
  config, spread = setup.config, setup.spread
  device = jax.local_devices()[0]
  rows = ", ".join(
    f"{name} {len(split):,}" for name, split in setup.dataset.splits.items()
  )
  missing = [
    name
    for name in ("train", "validation", "test")
    if name not in setup.dataset.splits
  ]
  if missing:
    rows += f" (no rows in {', '.join(missing)})"
  resumed, chosen = "", []
  if step:
    epoch, step_in_epoch = divmod(step, setup.order.steps_per_epoch)
    resumed = f", resumed in epoch {epoch + 1} at step {step_in_epoch}"
  elif setup.start:
    chosen.append(setup.start.description)
  if setup.freezing.units:
    epoch = step // setup.order.steps_per_epoch
    chosen.append(setup.freezing.describe(epoch))
  if config.overfit:
    chosen.append(overfit_check.ANNOUNCEMENT)
  return "\n".join(
    (
      str(summarize(setup.model, setup.input_shape)),
      f"fer_jax {__version__}, jax {jax.__version__}, {spread.num_devices} x"
      f" {device.device_kind} ({spread.mode}),"
      f" {config.dtype}{_kernels(config.dtype)}",
      f"{setup.dataset.name}: {rows}; {setup.dataset.num_classes} classes,"
      f" data_loader={config.data_loader}",
      *chosen,
      f"workdir {workdir}{resumed}",
    )
  )


def _kernels(dtype: str) -> str:
  """Says by whose kernels a CPU computes, since it decides how fast."""
  if jax.default_backend() != "cpu" or dtype != "float32":
    return ""
  missing = cpu_kernels.why_not()
  return f", XLA's kernels only: {missing}" if missing else ", own kernels"


def interrupted(position: Position, workdir: str) -> str:
  """Says where a run was left, and how to go on."""
  return (
    f"interrupted in epoch {position.epoch + 1} at step {position.step}; saved"
    f" in {workdir}: the same command goes on from there"
  )


def closing(summary: dict[str, Any], workdir: str) -> str:
  """Says how the best epoch did."""
  lines = [
    f"best epoch {summary['best_epoch']} of {summary['epoch']}:"
    f" validation loss {summary['validation_loss']:.4f},"
    f" accuracy {summary['validation_accuracy']:.2%}"
  ]
  if "test_loss" in summary:
    lines[0] += (
      f"; test loss {summary['test_loss']:.4f},"
      f" accuracy {summary['test_accuracy']:.2%}"
    )
  else:
    lines[0] += "; no test rows"
  time = datetime.timedelta(seconds=round(summary["seconds"]))
  speed = summary["images_per_second"]
  rate = f", {speed:,.0f} images/s" if speed else ""
  lines.append(f"{time} of training{rate}; {workdir}/curves.png")
  if "overfit" in summary:
    lines.append(overfit_check.verdict(summary))
  return "\n".join(lines)
