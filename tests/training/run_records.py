"""The records of a run, to compare runs by."""

import pathlib
from typing import Any

from fer_jax.training.logging import metric_writer

TIMINGS = ("seconds", "images_per_second")


def untimed(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the records of a run, without what a clock says."""
  return [
    {k: v for k, v in record.items() if k not in TIMINGS}
    for record in metric_writer.read(workdir)
  ]
