"""Every benchmark's real code at the smallest size; times do not matter."""

import csv
import functools
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import accelerator
import accelerator_table
import accelerator_train
import depth_timing
import depth_worker
import host_overhead
import input_pipeline
import jax
import op_shapes
import ops
import peer_jax
import peer_report
import peer_variants
import peer_worker
import peers
import pytest
import reporting
import scaling
import scaling_model
import streaming
import workers
from waiting import wait_until

from fer_jax.data.datasets import registry as datasets
from fer_jax.errors import UserError
from fer_jax.models import registry, resnet
from fer_jax.ops import convolution
from fer_jax.training.runtime import startup

MACHINE = {"date", "machine", "python", "fer_jax", "jax", "jaxlib", "flax"}
TIMES = {"ms", "ms_low", "ms_high", "num_turns"}
FOLDER = Path(depth_timing.__file__).parent


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
  """A model of one block."""
  make = functools.partial(
    resnet.ResNet, stage_sizes=(1,), block=resnet.BasicBlock
  )
  monkeypatch.setitem(registry.MODELS, "tiny", make)
  return "tiny"


@pytest.fixture
def make_table(tmp_path, capsys):
  """Shows, writes and draws rows; tells what was printed."""

  def make(rows, columns, picture, more: set[str]) -> str:
    table = reporting.Table(columns, str(tmp_path / "out"), "table")
    table.add(rows)
    table.finish(picture)
    with open(tmp_path / "out" / "table.csv", newline="") as f:
      written = list(csv.DictReader(f))
    assert len(written) == len(rows)
    assert MACHINE | more <= set(written[0])
    assert all(row["machine"] and row["date"] for row in written)
    assert (tmp_path / "out" / "table.png").stat().st_size > 1000
    return capsys.readouterr().out

  return make


def test_depth_timing(make_table, tmp_path):
  case = {
    "model": "leaky_cnn",
    "batch_size": 2,
    "dtype": "float32",
    "image_size": 16,
    "channels": 1,
    "devices": 1,
    "turns": 1,
    "steps": 1,
    "dump_hlo": str(tmp_path / "hlo"),
  }
  row = depth_timing.measure(case)
  assert row["num_devices"] == 1
  # XLA counts what is no product, too, and not what padding is multiplied by.
  assert 0.5 < row["xla_gflop_per_image"] / row["training_gflop_per_image"] < 2
  assert 0 < row["share_of_peak"] < 1
  names = {path.name for path in (tmp_path / "hlo").iterdir()}
  stem = "leaky_cnn_2_float32_16px"
  assert names == {f"{stem}.hlo.txt", f"{stem}.stablehlo.txt"}
  printed = make_table(
    [row], depth_timing.COLUMNS, depth_timing.picture, {"compile_cold_s"}
  )
  assert "leaky_cnn" in printed
  half = row | {"images_per_second": 50 * 28_709 / 60, "model": "half"}
  (line,) = depth_timing.study_minutes([half])
  assert line.endswith("batch 2, float32, 16 px, 1 device: half 1.0")
  with pytest.raises(workers.WorkerError, match="batch_sizes=3 must be"):
    depth_timing.measure(case | {"batch_size": 3, "devices": 2})


def test_malloc_is_configured_before_jax_starts(monkeypatch):
  done: list[str] = []

  def device_count() -> int:
    done.append("JAX has started")
    return 1

  monkeypatch.setattr(startup, "start", done.append)
  monkeypatch.setattr(jax, "device_count", device_count)
  with pytest.raises(UserError, match="devices=9 are not available"):
    depth_worker.measure({"devices": 9, "cache": "configured"})
  assert done[0] == "configured"


def test_host_overhead(make_table):
  rows = host_overhead.measure([1, 2], steps=4, batch_size=1, turns=1)
  assert [row["steps_per_call"] for row in rows] == [1, 2]
  make_table(
    rows,
    host_overhead.COLUMNS,
    host_overhead.picture,
    {"loop_us", "bare_us", "overhead_us", "target_us", "met"},
  )
  with pytest.raises(UserError, match="steps=5 must be a multiple"):
    host_overhead.measure([2], steps=5, batch_size=1, turns=1)


def test_ops(tiny, make_table):
  found = op_shapes.collect([tiny], 32, 1)
  kinds = {op.kind: op for op in found}
  assert set(kinds) == {"conv 7x7", "max pool 3x3", "conv 3x3"}
  assert found[kinds["conv 3x3"]] == {tiny: 2}
  assert kinds["conv 3x3"].flops == 2 * 8 * 8 * 3 * 3 * 64 * 64
  rows = [
    row
    for kind in ("conv 3x3", "max pool 3x3")
    for row in ops.measure(kinds[kind], found[kinds[kind]], "float32", 1, 1)
  ]
  for kind in ("conv 3x3", "max pool 3x3"):
    directions = {row["direction"] for row in rows if row["kind"] == kind}
    assert len(directions) == (3 if kind == "conv 3x3" else 2)
    for direction in directions:
      of = [r for r in rows if (r["kind"], r["direction"]) == (kind, direction)]
      assert len(of) > 1
      assert [sum(row[k] for row in of) for k in ("chosen", "best")] == [1, 1]
  make_table(
    rows,
    ops.COLUMNS,
    ops.picture,
    TIMES | {"direction", "lowering", "chosen", "best", "gflops_per_second"},
  )


def test_input_pipeline(tiny, make_table, tmp_path, monkeypatch):
  kept = {"flip": input_pipeline.AUGMENTATIONS["flip"]}
  monkeypatch.setattr(input_pipeline, "AUGMENTATIONS", kept)
  split = input_pipeline.open_split("synthetic_faces", "", str(tmp_path), 8)
  rows = input_pipeline.measure(split, tiny, "float32", 2, 1, 1)
  assert [row["what"] for row in rows] == [
    "training step",
    "read one by one",
    "read by batch",
    "streaming loader",
    "in-memory loader",
    "augment: flip",
  ]
  assert all(0 <= row["share_waited"] < 1 for row in rows)
  make_table(
    rows,
    input_pipeline.COLUMNS,
    input_pipeline.picture,
    TIMES | {"images_per_second", "share_waited", "met"},
  )


def test_what_was_measured_on_this_device_is_not_measured_again(
  tmp_path, capsys
):
  case = {"model": "resnet18", "dtype": "bfloat16", "batch_size": 256}
  task = accelerator_table.Task("step", case, 10)
  other = accelerator_table.Task("step", case | {"model": "leaky_cnn"}, 10)
  row = {
    "step_ms": 2.0,
    "step_ms_low": 1.9,
    "step_ms_high": 2.1,
    "images_per_second": 128000.0,
  }
  table = accelerator_table.Results(tmp_path, "A")
  table.add(task, {"note": "RESOURCE_EXHAUSTED"})
  assert not accelerator_table.Results(tmp_path, "A").has(task)
  table.add(task, row)
  table.finish()
  table = accelerator_table.Results(tmp_path, "A")
  assert len(table.rows) == 1 and table.has(task) and not table.has(other)
  second = accelerator_table.Results(tmp_path, "B")
  assert not second.has(task)
  second.add(task, row)
  second.finish()
  shown = capsys.readouterr().out.rpartition("1st step")[2]
  assert shown.count("step ") == 1 and len(second.rows) == 2


def test_tpus_are_spared_what_is_for_gpus():
  every = list(accelerator.tasks(False, "", ""))
  left = [t.name for t in every if accelerator.is_useful(t, "TPU v5 lite")]
  assert all(accelerator.is_useful(t, "NVIDIA H100 80GB HBM3") for t in every)
  assert {"train_resnet50_cold", "step_resnet18"} < set(left)
  assert not {"step_resnet18_graphs", "peers_resnet18_float32"} & set(left)
  assert len(left) < len(every)


def test_what_shares_a_cache_is_measured_in_one_call(
  tmp_path, monkeypatch, capsys
):
  def run(task, limit, output):
    ran.append(task.name)
    return {"note": "failed"} if task.name in failing else {"epoch_s": 1.0}

  def call(*names):
    ran.clear()
    failing[:] = names
    accelerator.main([])
    return list(ran)

  ran: list[str] = []
  failing: list[str] = []
  pair = [
    accelerator.Task(name, {}, 10, cache="train") for name in ("cold", "cached")
  ]
  monkeypatch.setattr(accelerator, "tasks", lambda *args: iter(pair))
  monkeypatch.setattr(accelerator, "run", run)
  monkeypatch.setattr(accelerator, "device_kind", lambda: "A")
  given = types.SimpleNamespace(
    minutes=1, output=str(tmp_path), tiny=True, manual_dir=""
  )
  monkeypatch.setattr(accelerator.flags, "FLAGS", given)
  assert call("cold") == ["cold"]
  assert "cold left it no cache" in capsys.readouterr().out
  assert call("cached") == ["cold", "cached"]
  assert call() == ["cold", "cached"]
  assert call() == []


def test_streaming(tiny, make_table, tmp_path, monkeypatch):
  monkeypatch.setattr(datasets, "DATASETS", dict(datasets.DATASETS))
  config = streaming.noise_config(tiny, 32, 1024, str(tmp_path))
  rows = streaming.loader_alone(config, 20)
  assert rows[-1]["what"] == "loader alone, step 20"
  rows += streaming.training(config, 1, 1)
  assert [row["what"] for row in rows[-2:]] == [
    "training, streaming",
    "training, in_memory",
  ]
  make_table(
    rows,
    streaming.COLUMNS,
    streaming.picture,
    TIMES | {"images_per_second", "resident_mb"},
  )


def test_scaling(make_table):
  case = {
    "model": "leaky_cnn",
    "batch_size": 4,
    "image_size": 16,
    "parallel": "auto",
  }
  rows = scaling.measure(case, [(1, 1), (1, 2), (2, 1)], 1, 1, 1)
  assert [row["devices"] for row in rows] == [1, 2, 2]
  assert rows[0]["relative_difference"] == 0
  assert all(row["same"] for row in rows)
  make_table(
    rows,
    scaling.COLUMNS,
    scaling.picture,
    TIMES | {"processes", "max_difference", "overhead"},
  )


def test_peers(make_table, capsys):
  keys = [("fer_jax", "", "float32"), ("pytorch", "eager x", "float32")]
  keys += [("flax", "", "float32")]
  works = ["inference 1", peer_worker.TRAINING]
  case = {
    "model": "leaky_cnn",
    "batch_size": 2,
    "image_size": 32,
    "works": works,
    "turns": 2,
    "seconds": 0.0,
  }
  rows = [row for of in peers.measure(case, keys) for row in of]
  # There is no such layout, and where there is no PyTorch, not even that.
  skipped = "leaky_cnn: pytorch( eager x float32)? is skipped: "
  assert re.search(skipped, capsys.readouterr().out)
  assert [(row["work"], row["library"]) for row in rows] == [
    (work, library) for work in works for library in ("fer_jax", "flax")
  ]
  ours, flax = rows[2:]
  assert ours["times_flax_low"] <= ours["times_flax"] <= ours["times_flax_high"]
  assert flax["times_flax"] == 1
  assert ours["times_best_pytorch"] is None
  assert ours["loss"] == pytest.approx(flax["loss"], rel=1e-4)
  make_table(
    rows,
    peer_report.COLUMNS,
    peer_report.picture,
    TIMES | {"library", "variant", "num_parameters", "platform", "device"},
  )


def test_unequal_work_is_refused():
  ours = {"num_parameters": 5, "loss": 1.0, "gradient": 2.0, "platform": "gpu"}
  key = ("pytorch", "eager contiguous", "float32")
  for change in ({"loss": 1.01}, {"gradient": 2.1}, {"num_parameters": 6}):
    about = {("fer_jax", "", "float32"): ours, key: ours | change}
    with pytest.raises(UserError, match="the models differ"):
      peer_variants.check_equal("resnet18", about)
  about[key] = ours | {"platform": "cpu"}
  with pytest.raises(UserError, match="pytorch runs on cpu, but fer_jax on g"):
    peer_variants.check_equal("resnet18", about)
  about[key] = ours | {"loss": 1.00005, "gradient": 2.001}
  peer_variants.check_equal("resnet18", about)


def test_plain_flax_is_not_packed_for_an_accelerator(tiny, tmp_path):
  case = {
    "library": "flax",
    "model": tiny,
    "batch_size": 2,
    "image_size": 32,
    "dtype": "float32",
    "weights": str(tmp_path / "weights"),
  }
  with convolution.tracing_for("gpu"):
    peer = peer_jax.create(case)
    peer.start(peer_worker.TRAINING)
  run = peer._call.__self__
  trees = peer._variables()["params"], run.state.params
  assert len({len(jax.tree.leaves(tree)) for tree in trees}) == 1
  assert isinstance(run.data["image"], jax.Array)


def test_a_variant_that_fails_leaves_the_others(monkeypatch, capsys):
  class Worker:
    def __init__(self, script, case, environment):
      self.case = case

    def ask(self, what):
      if self.case["variant"] == "graph x":
        raise workers.WorkerError("no CUDA device")
      if self.case["library"] == "flax":
        raise workers.NotInstalled("flax is not installed")
      return {}

  monkeypatch.setattr(peers, "Worker", Worker)
  keys = [("fer_jax", "", "float32"), ("pytorch", "graph x", "float32")]
  keys += [("pytorch", "eager x", "float32"), ("flax", "", "float32")]
  keys += [("flax", "", "bfloat16")]
  _, about = peers._start({"model": "m"}, keys, "", [])
  assert list(about) == [keys[0], keys[2]]
  printed = capsys.readouterr().out
  assert "m: pytorch graph x float32 is skipped: no CUDA device" in printed
  assert printed.count("m: flax is skipped") == 1


def test_a_training_that_was_killed_is_a_note(tmp_path):
  (tmp_path / "log").write_text("")
  assert accelerator_train._last_line(tmp_path / "log") == ""
  (tmp_path / "metrics.jsonl").write_text('{"kind": "epoch"}\n{"kind": "ep')
  assert accelerator_train._records(tmp_path) == [{"kind": "epoch"}]


@pytest.mark.parametrize(
  ("check", "message"),
  [
    (lambda: reporting.whole_numbers("devices", ["0"]), "devices=0 must be"),
    (
      lambda: reporting.chosen("modes", ["fast"], peer_variants.MODES),
      "compiled",
    ),
    (lambda: reporting.named_models(["no_such*"]), "resnet18"),
    (
      lambda: scaling_model._row("h100_steps", model="alexnet"),
      "h100_steps.csv has no row with dtype=bfloat16, model=alexnet",
    ),
    (lambda: reporting.Table((), "/proc/no", "table"), "output=/proc/no"),
    (
      lambda: reporting.Table((), "/tmp", "table").finish(ops.picture),
      "nothing could be measured",
    ),
  ],
)
def test_wrong_flags_are_one_line(check, message):
  with pytest.raises(UserError, match=message) as raised:
    check()
  assert "\n" not in str(raised.value)


SLEEPER = """
import sys, time
sys.path.insert(0, {folder!r})
import workers
workers.serve({{"sleep": lambda: time.sleep(60), "say": lambda: "yes"}})
"""


@pytest.fixture
def sleeper(tmp_path) -> Path:
  """A worker's script that sleeps when it is asked to."""
  script = tmp_path / "sleeper.py"
  script.write_text(SLEEPER.format(folder=str(FOLDER)))
  return script


def test_a_worker_tells_why_it_ended(tmp_path):
  script = tmp_path / "script.py"
  script.write_text("raise SystemExit('no such library')")
  with workers.ended([workers.Worker(script, {})]) as started:
    with pytest.raises(workers.WorkerError, match="no such library"):
      started[0].ask("prepare")


def test_a_worker_that_takes_too_long_is_ended(sleeper):
  with workers.ended([workers.Worker(sleeper, {}, timeout=0.1)]) as started:
    with pytest.raises(workers.WorkerError, match="no response in 0.1 s"):
      started[0].ask("sleep")


@pytest.mark.skipif(not workers.LINUX, reason="only Linux ends children")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_workers_end_with_who_started_them(sleeper, tmp_path, number):
  parent = tmp_path / "parent.py"
  parent.write_text(
    f"""
import pathlib, sys, time
sys.path.insert(0, {str(FOLDER)!r})
import workers
worker = workers.Worker(pathlib.Path({str(sleeper)!r}), {{}})
with workers.ended([worker]):
  worker.ask("say")
  print(worker.pid, flush=True)
  time.sleep(60)
"""
  )
  process = subprocess.Popen(
    [sys.executable, str(parent)], stdout=subprocess.PIPE, text=True
  )
  assert process.stdout
  with process.stdout:
    child = int(process.stdout.readline())
    wait_until(lambda: state(child) == "T")  # stopped
    process.send_signal(number)
    process.wait()
  wait_until(lambda: state(child) in ("", "Z"))


def state(pid: int) -> str:
  """A process's state on Linux, "" if there is none."""
  try:
    text = Path(f"/proc/{pid}/stat").read_text()
  except OSError:
    return ""
  return text.rpartition(")")[2].split()[0]
