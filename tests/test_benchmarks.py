"""Every benchmark's real code at the smallest size; times do not matter."""

import csv
import functools
import re
from pathlib import Path

import depth_timing
import depth_worker
import host_overhead
import host_overhead_report
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

from fer_jax.data.datasets import registry as datasets
from fer_jax.errors import UserError
from fer_jax.models import registry, resnet
from fer_jax.ops import dispatch
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
    host_overhead_report.COLUMNS,
    host_overhead_report.picture,
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


def test_plain_flax_is_not_packed_for_an_accelerator(tiny, tmp_path):
  case = {
    "library": "flax",
    "model": tiny,
    "batch_size": 2,
    "image_size": 32,
    "dtype": "float32",
    "weights": str(tmp_path / "weights"),
  }
  with dispatch.tracing_for("gpu"):
    peer = peer_jax.create(case)
    peer.start(peer_worker.TRAINING)
  run = peer._call.__self__
  trees = peer._variables()["params"], run.state.params
  assert len({len(jax.tree.leaves(tree)) for tree in trees}) == 1
  assert isinstance(run.data["image"], jax.Array)


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
