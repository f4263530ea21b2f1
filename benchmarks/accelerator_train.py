"""Training as a user starts it, timed from outside: for accelerator.py."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def measure(
  name: str, case: Mapping[str, Any], limit: float, environment: dict[str, str]
) -> dict[str, Any]:
  """Runs `fer_jax.train`, and reads how fast it was from its metrics.

  Args:
    name: of the task; the workdir's, too. A name that ends with "cold" has an
      empty cache of compiled programs, which "cached" then finds full.
    case: `model` (the recipe), `dtype`, `batch_size` if it is to be set,
      `manual_dir` (of FER2013; "" trains on synthetic faces), `scratch` (a
      folder) and `tiny`.
    limit: seconds; then the run is asked to save and stop.
    environment: of the process.

  Returns:
    `first_step_s` (from the start of the command until the metrics of the first
    step are written), `epoch_s` of the last epoch, `images_per_second` and
    `validation_accuracy`, as far as the run came.
  """
  scratch = Path(case["scratch"])
  workdir = scratch / name
  command = [sys.executable, "-m", "fer_jax.train"]
  recipe = "chang_cnn" if case["model"] == "leaky_cnn" else case["model"]
  fields = {
    "compilation_cache": scratch / "compiled",
    "dataset.data_dir": scratch / "prepared",
    "dtype": case["dtype"],
  }
  if case["manual_dir"]:
    fields["dataset.manual_dir"] = case["manual_dir"]
  else:
    fields |= {"dataset.name": "synthetic_faces", "dataset.classes": ""}
    if case["tiny"]:
      fields |= {
        "dataset.num_train": 64,
        "dataset.num_validation": 32,
        "dataset.num_test": 32,
      }
  if name.startswith("train_"):
    fields |= {"num_epochs": 2, "log_every_steps": 1}
  elif case["tiny"]:
    fields |= {"num_epochs": 1, "model.stem": "imagenet", "dtype": "float32"}
  if "batch_size" in case:
    fields["batch_size"] = case["batch_size"]
  command += [f"--config={recipe}", f"--workdir={workdir}"]
  command += [f"--config.{field}={value}" for field, value in fields.items()]
  started = time.time()
  log = scratch / f"{name}.log"
  with open(log, "w") as output:
    process = subprocess.Popen(
      command, env=environment, stdout=output, stderr=subprocess.STDOUT
    )
    first = _wait(process, workdir / "metrics.jsonl", started, limit)
  row: dict[str, Any] = {}
  if first:
    row["first_step_s"] = round(first, 2)
  epochs = [r for r in _records(workdir) if r.get("kind") == "epoch"]
  if epochs:
    before = epochs[-2]["seconds"] if len(epochs) > 1 else 0.0
    row["epoch_s"] = round(epochs[-1]["seconds"] - before, 3)
    row["images_per_second"] = round(epochs[-1]["images_per_second"], 1)
    accuracies = [r.get("validation_accuracy") or 0.0 for r in epochs]
    row["validation_accuracy"] = round(max(accuracies), 4)
    row["note"] = f"{len(epochs)} epochs"
  if process.returncode and not epochs:
    row["note"] = _last_line(log) or f"status {process.returncode}"
  return row


def _wait(
  process: subprocess.Popen[bytes], metrics: Path, started: float, limit: float
) -> float | None:
  """Waits for the end; returns when the first metrics came, in seconds."""
  first = None
  while process.poll() is None:
    if first is None and metrics.is_file() and metrics.stat().st_size:
      first = time.time() - started
    if time.time() - started > limit:
      process.send_signal(signal.SIGTERM)
      try:
        process.wait(20)
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    time.sleep(0.02)
  return first


def _last_line(log: Path) -> str:
  """Returns the last line of a log, shortened; "" if it is empty."""
  lines = log.read_text(errors="replace").strip().splitlines()
  return lines[-1][:200] if lines else ""


def _records(workdir: Path) -> list[dict[str, Any]]:
  """Returns the metrics of a run, up to a line that is not complete."""
  path = workdir / "metrics.jsonl"
  records: list[dict[str, Any]] = []
  if path.is_file():
    for line in path.read_text(errors="replace").splitlines():
      try:
        records.append(json.loads(line))
      except ValueError:  # The process ended while it wrote this line.
        break
  return records
