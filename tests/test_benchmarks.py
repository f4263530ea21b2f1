"""Every benchmark's real code at the smallest size; times do not matter."""

import csv
import functools
from pathlib import Path

import host_overhead
import input_pipeline
import ops
import peer_worker
import peers
import pytest
import reporting
import scaling
import workers

from fer_jax.errors import UserError
from fer_jax.models import registry, resnet

MACHINE = {"date", "machine", "python", "fer_jax", "jax", "jaxlib", "flax"}
TIMES = {"ms", "ms_low", "ms_high", "num_turns"}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
  """A model of one block."""
  make = functools.partial(
    resnet.ResNet, stage_sizes=(1,), block=resnet.BasicBlock
  )
  monkeypatch.setitem(registry.MODELS, "tiny", make)
  return "tiny"


def assert_table(rows, figure, columns, folder: Path, more: set[str]) -> None:
  """Rows can be shown, written and drawn, and have the columns."""
  reporting.write(rows, folder, "table", figure)
  with open(folder / "table.csv", newline="") as f:
    written = list(csv.DictReader(f))
  assert len(written) == len(rows)
  assert MACHINE | more <= set(written[0])
  assert all(row["machine"] and row["date"] for row in written)
  assert (folder / "table.png").stat().st_size > 1000
  heads = reporting.header(columns).split()
  assert heads[0] == columns[0].title.split()[0]
  for row in rows:
    assert reporting.line(columns, row)


def test_host_overhead(tmp_path):
  rows = host_overhead.measure([1, 2], steps=4, batch_size=1, turns=1)
  assert [row["steps_per_call"] for row in rows] == [1, 2]
  assert_table(
    rows,
    host_overhead.picture(rows),
    host_overhead.COLUMNS,
    tmp_path,
    {"loop_us", "bare_us", "overhead_us", "target_us", "met"},
  )
  with pytest.raises(UserError, match="--steps=5 must be a multiple"):
    host_overhead.measure([2], steps=5, batch_size=1, turns=1)


def test_ops(tiny, tmp_path):
  found = ops.collect([tiny], 32, 1)
  kinds = {op.kind: op for op in found}
  assert set(kinds) == {"conv 7x7", "max pool 3x3", "conv 3x3"}
  assert found[kinds["conv 3x3"]] == {tiny: 2}
  assert kinds["conv 3x3"].flops == 2 * 8 * 8 * 3 * 3 * 64 * 64
  rows = [
    row
    for kind in ("conv 3x3", "max pool 3x3")
    for row in ops.measure(kinds[kind], found[kinds[kind]], "float32", 1, 1)
  ]
  # Three directions by three lowerings, two by two.
  assert len(rows) == 13
  assert sum(row["chosen"] for row in rows) == 5
  assert sum(row["best"] for row in rows) == 5
  assert_table(
    rows,
    ops.picture(rows),
    ops.COLUMNS,
    tmp_path,
    TIMES | {"direction", "lowering", "chosen", "best", "gflops_per_second"},
  )


def test_input_pipeline(tiny, tmp_path, monkeypatch):
  kept = {k: input_pipeline.AUGMENTATIONS[k] for k in ("flip", "blur")}
  monkeypatch.setattr(input_pipeline, "AUGMENTATIONS", kept)
  split = input_pipeline.open_split("synthetic_faces", "", str(tmp_path), 8)
  rows = input_pipeline.measure(split, tiny, "float32", 2, 1, 1)
  assert [row["what"] for row in rows] == [
    "training step",
    "read one by one",
    "read by batch",
    "stream feed",
    "resident feed",
    "augment: flip",
    "augment: blur",
  ]
  assert all(0 <= row["share_waited"] < 1 for row in rows[1:])
  assert_table(
    rows,
    input_pipeline.picture(rows),
    input_pipeline.COLUMNS,
    tmp_path,
    TIMES | {"images_per_second", "share_waited", "met"},
  )


def test_scaling(tmp_path):
  case = {
    "model": "leaky_cnn",
    "batch_size": 4,
    "image_size": 48,
    "parallel": "auto",
  }
  rows = scaling.measure(case, [(1, 1), (1, 2), (2, 1)], 1, 1, 1)
  assert [row["devices"] for row in rows] == [1, 2, 2]
  assert rows[0]["relative_difference"] == 0
  assert all(row["same"] for row in rows)
  assert_table(
    rows,
    scaling.picture(rows),
    scaling.COLUMNS,
    tmp_path,
    TIMES | {"processes", "max_difference", "overhead"},
  )


def test_peers(tmp_path, capsys, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "")  # One device, as peers have.
  case = {
    "model": "mobilenet_v2",
    "batch_size": 2,
    "image_size": 32,
    "dtypes": ["float32"],
    "torch_dtypes": ["float32"],
    "modes": ["eager"],
    "works": [peer_worker.TRAINING, "inference 1"],
    "turns": 1,
    "seconds": 0.0,
  }
  rows = list(peers.measure(case))
  of = {(row["library"], row["work"]) for row in rows}
  for work in case["works"]:
    assert {("fer_jax", work), ("flax", work)} <= of
  if ("pytorch", "training") in of:
    assert len(rows) == 8  # PyTorch has two layouts.
    assert all(row["times_best_float32_pytorch"] > 0 for row in rows)
  else:
    assert "mobilenet_v2: pytorch is left out" in capsys.readouterr().out
  assert_table(
    rows,
    peers.picture(rows),
    peers.COLUMNS,
    tmp_path,
    TIMES | {"library", "variant", "num_parameters", "times_best_peer"},
  )


def test_unequal_work_is_refused():
  about = {
    "fer_jax": {"num_parameters": 5, "loss": 1.0},
    "pytorch": {"num_parameters": 5, "loss": 1.01},
  }
  with pytest.raises(UserError, match="not be equal work"):
    peers._check_equal("resnet18", about)
  about["pytorch"]["loss"] = 1.00005
  peers._check_equal("resnet18", about)


@pytest.mark.parametrize(
  ("check", "message"),
  [
    (lambda: reporting.whole_numbers("devices", ["0"]), "--devices=0 must be"),
    (lambda: reporting.chosen("modes", ["fast"], peers.MODES), "compiled"),
    (lambda: reporting.named_models(["no_such*"]), "resnet18"),
  ],
)
def test_wrong_flags_are_one_line(check, message):
  with pytest.raises(UserError, match=message) as raised:
    check()
  assert "\n" not in str(raised.value)


def test_a_worker_tells_why_it_ended(tmp_path):
  script = tmp_path / "script.py"
  script.write_text("raise SystemExit('no such library')")
  with workers.ended([workers.Worker(script, {})]) as started:
    with pytest.raises(workers.WorkerError, match="no such library"):
      started[0].ask("prepare")
