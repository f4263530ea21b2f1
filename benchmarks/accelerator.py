r"""Measures what is worth knowing on a machine with a GPU or TPU.

python benchmarks/accelerator.py [--minutes=12] [--output=benchmarks/out] \
  [--tiny] [--manual_dir=FOLDER]

In order of worth: training as a user starts it, cold and cached; the step of
ResNet-18 and ResNet-50; XLA's flags for GPUs, steps per call and the persistent
cache, one at a time; several seeds in one program; PyTorch beside it, where it
is installed and the device is no TPU; every model in float32 and bfloat16 at
batch 64 and 256; then a recipe for the minutes that are left. Each is a process
with a limit of its own; rows are written to accelerator.csv as they come, and
what was measured on the same device with the same version of JAX is not
measured again; what failed is. --tiny rehearses it on a CPU, into a folder
`tiny` of its own.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import accelerator_peers
import accelerator_train
import reporting
from absl import flags
from accelerator_table import Results, Task, device_kind
from reporting import Row

from fer_jax import models
from fer_jax.cli import app

HERE = Path(__file__).resolve().parent
GRAPHS = "--xla_gpu_enable_command_buffer=+CONVOLUTION"
NO_TRITON = "--xla_gpu_enable_triton_gemm=false"
# A faster start, if it counts: XLA's autotuning without checks of the results,
# and without a choice between two compilers for each fusion.
UNCHECKED = "--xla_gpu_autotune_level=2"
ONE_EMITTER = "--xla_gpu_experimental_enable_fusion_autotuner=false"


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_float("minutes", 12.0, "Time for everything.", lower_bound=0.1)
  reporting.define_output()
  flags.DEFINE_string("manual_dir", "", "Where fer2013.csv is, for training.")
  flags.DEFINE_bool("tiny", False, "Rehearse with the smallest settings.")


def main(argv: Sequence[str]) -> None:
  """Measures until the time is over."""
  del argv
  given = flags.FLAGS
  deadline = time.monotonic() + 60 * given.minutes
  output = Path(given.output, "tiny" if given.tiny else "")
  device = device_kind()
  table = Results(output, device)
  with tempfile.TemporaryDirectory(prefix="accelerator_") as scratch:
    every = tasks(given.tiny, given.manual_dir, scratch)
    listed = [task for task in every if is_useful(task, device)]
    for task in listed:
      left = deadline - time.monotonic()
      group = [each for each in listed if each.group == task.group]
      if all(map(table.has, group)):
        print(f"{task.name}: measured before")
      elif task != group[0] and not table.has(group[0]):
        reporting.skip(task.name, f"{group[0].name} left it no cache")
      elif left < min(task.limit, 20):
        reporting.skip(task.name, "no time left")
      else:
        reporting.progress(f"{task.name} ({left:.0f} s left) ...")
        row = run(task, min(task.limit, left), output)
        reporting.progress("")
        table.add(task, row)
  table.finish()


def is_useful(task: Task, device: str) -> bool:
  """Returns whether a measurement tells something about a kind of device.

  XLA's flags for GPUs have no effect on a TPU, and PyTorch would run on the CPU
  beside it.
  """
  for_gpus = task.kind == "peers" or "xla_gpu" in task.xla_flags
  return not (for_gpus and device.startswith("TPU"))


def tasks(tiny: bool, manual_dir: str, scratch: str) -> Iterator[Task]:
  """Yields all measurements, the most useful first."""
  data = {"manual_dir": manual_dir, "scratch": scratch, "tiny": tiny}
  first = "leaky_cnn" if tiny else "resnet50"
  for cache in ("cold", "cached"):
    case = {"model": first, "batch_size": 32, "dtype": "float32", **data}
    name = f"train_{first}_{cache}"
    yield Task(name, case, 150, kind="train", cache="train")

  def step(
    name: str,
    model: str,
    dtype: str = "bfloat16",
    batch: int = 256,
    **more: Any,
  ) -> Task:
    case: dict[str, Any] = {
      "model": "leaky_cnn" if tiny else model,
      "dtype": "float32" if tiny else dtype,
      "batch_size": 16 if tiny else batch,
      "steps_per_call": more.get("steps_per_call", 1),
      "turns": 2 if tiny else 7,
      "steps": 2 if tiny else 50,
      "cache": more.get("cache", "off"),
      "seeds": more.get("seeds", 1),
    }
    flags = "" if tiny else more.get("xla_flags", "")
    limit = more.get("limit", 75)
    return Task(name, case, limit, flags, cache=more.get("cache", ""))

  yield step("step_resnet18", "resnet18")
  yield step("step_resnet50", "resnet50", limit=120)
  for model in ("resnet18", "resnet50"):
    name = f"step_{model}_one_emitter"
    yield step(name, model, xla_flags=ONE_EMITTER, limit=120)
  yield step("step_resnet18_graphs", "resnet18", xla_flags=GRAPHS)
  yield step("step_resnet18_no_triton", "resnet18", xla_flags=NO_TRITON)
  both = f"{GRAPHS} {NO_TRITON}"
  yield step("step_resnet18_graphs_no_triton", "resnet18", xla_flags=both)
  yield step("step_resnet50_graphs_no_triton", "resnet50", xla_flags=both)
  yield step("step_resnet18_unchecked", "resnet18", xla_flags=UNCHECKED)
  yield step("step_resnet18_scan10", "resnet18", steps_per_call=10)
  cache = f"{scratch}/steps"
  yield step("step_resnet18_cache_written", "resnet18", cache=cache)
  yield step("step_resnet18_cache_read", "resnet18", cache=cache)
  yield step("step_leaky_cnn", "leaky_cnn", batch=32)
  yield step("step_leaky_cnn_scan10", "leaky_cnn", batch=32, steps_per_call=10)
  yield step("step_leaky_cnn_8_seeds", "leaky_cnn", batch=32, seeds=8)
  for model in ("resnet18", "resnet50", "mobilenet_v2"):
    case = {"model": "leaky_cnn" if tiny else model}
    for dtype in ("float32",) if tiny else ("bfloat16", "float32"):
      variant = {**case, "dtype": dtype, "tiny": tiny}
      yield Task(f"peers_{model}_{dtype}", variant, 180, kind="peers")
  every = ["leaky_cnn"] if tiny else models.list_models()
  for batch in (256, 64):
    for dtype in ("bfloat16", "float32"):
      for model in every:
        name = f"every_{model}_{dtype}_{batch}"
        yield step(name, model, dtype, batch, limit=120)
  case = {"model": "fer2013_resnet18", "dtype": "bfloat16", **data}
  yield Task("recipe_fer2013_resnet18", case, 1e9, kind="train")


def run(task: Task, limit: float, output: Path) -> Row:
  """Runs a task in a process, within so many seconds.

  Returns:
    The row, with `note` where something went wrong.
  """
  environment = dict(os.environ)
  if task.xla_flags:
    set_before = environment.get("XLA_FLAGS", "")
    environment["XLA_FLAGS"] = f"{set_before} {task.xla_flags}".strip()
  if task.kind == "train":
    return accelerator_train.measure(task.name, task.case, limit, environment)
  command = [sys.executable, str(HERE / "accelerator_step.py")]
  command.append(json.dumps(task.case))
  if task.kind == "peers":
    command = accelerator_peers.command(task.case, output / task.name)
  try:
    done = subprocess.run(
      command, env=environment, capture_output=True, text=True, timeout=limit
    )
  except subprocess.TimeoutExpired:
    return {"note": f"not done in {limit:.0f} s"}
  if done.returncode:
    lines = (done.stderr.strip() or f"status {done.returncode}").splitlines()
    return {"note": " ".join(lines[-1].split())[:200]}
  if task.kind == "peers":
    return {"note": f"see {task.name}/peers.csv"}
  return dict(json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
  define_flags()
  app.run(main)
