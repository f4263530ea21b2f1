"""Runs trained together are the runs that they are alone."""

import contextlib
import pathlib
import shutil
import signal
from typing import Any

import jax
import numpy as np
import pytest
import tiny_run
from ml_collections import ConfigDict

from fer_jax.data.datasets import registry
from fer_jax.errors import UserError
from fer_jax.inference.trained_model import Trained
from fer_jax.models import leaky_cnn
from fer_jax.training import train_loop, train_setup
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.logging import curves, metric_writer, progress
from fer_jax.training.runtime.signals import Interrupted
from fer_jax.training.together import train_together

STEPS = tiny_run.STEPS_PER_EPOCH
SPEEDS = ("seconds", "images_per_second")

# What the runs differ in.
RUNS: tuple[dict[str, Any], ...] = (
  {"seed": 0, "optimizer__learning_rate": 0.05},
  {"seed": 1, "optimizer__weight_decay": 0.01, "schedule__name": "cosine"},
  {
    "seed": 2,
    "schedule__name": "plateau",
    "schedule__plateau_patience": 1,
    "schedule__plateau_min_delta": 100.0,
  },
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  return tmp_path_factory.mktemp("prepared")


def prepare(monkeypatch: pytest.MonkeyPatch) -> None:
  """Makes the tiny set known, and curves quick to draw."""
  tiny_run.register(monkeypatch)
  monkeypatch.setattr(curves, "draw", lambda told, path, title: path.touch())


@pytest.fixture(autouse=True)
def prepared_names(monkeypatch: pytest.MonkeyPatch) -> None:
  prepare(monkeypatch)


def configure(prepared: pathlib.Path, **fields: Any) -> ConfigDict:
  common = {
    "optimizer__name": "sgd",
    "optimizer__learning_rate": 0.02,
    "augment__flip": True,
    "model__name": "leaky_cnn",
    "model__widths": (4,),
    "model__dense": 16,
    "input__image_size": 12,
    "model__dropout": 0.2,
    "ema_decay": 0.5,
  }
  return tiny_run.config(prepared, **{**common, **fields})


@pytest.fixture(scope="module")
def alone(prepared, tmp_path_factory):
  """The workdirs of the runs, trained one by one."""
  folder = tmp_path_factory.mktemp("alone")
  with pytest.MonkeyPatch.context() as monkeypatch:
    prepare(monkeypatch)
    for i, fields in enumerate(RUNS):
      train_loop.train(configure(prepared, **fields), folder / str(i))
  return [folder / str(i) for i in range(len(RUNS))]


def arrays(workdir: pathlib.Path) -> tuple[Any, ...]:
  """What a run's checkpoints hold for evaluation, the best and the latest."""
  saved = Checkpoints(workdir, read_only=True)
  with contextlib.closing(saved):
    return tuple(
      saved.restore_variables(name)[0] for name in ("best", "latest")
    )


def files(workdir: pathlib.Path) -> set[str]:
  """What there is, but for events and arrays, whose names are drawn."""
  found = (path.relative_to(workdir) for path in workdir.rglob("*"))
  return {
    str(path)
    for path in found
    if path.parts[0] != "tensorboard" and not {"d", "ocdbt"} & {*path.parts}
    if not any("ocdbt.process" in part for part in path.parts)
  }


def assert_same_run(
  config: ConfigDict, one: pathlib.Path, other: pathlib.Path
) -> None:
  """Two workdirs hold the same run, but for rounding."""
  # With several steps a call, others are the steps at which is told of them.
  kinds = {"epoch", "summary"} | (
    {"train"} if config.steps_per_call < 2 else set()
  )
  mine, others = (
    [r for r in metric_writer.read(workdir) if r["kind"] in kinds]
    for workdir in (one, other)
  )
  assert [r["kind"] for r in mine] == [r["kind"] for r in others]
  for a, b in zip(mine, others, strict=True):
    assert a.keys() == b.keys()
    for name in a.keys() - {"kind", *SPEEDS}:
      # One image of 50 may be on the other side of a tie.
      within = 0.021 if "accuracy" in name else 2e-3 * abs(a[name])
      assert abs(a[name] - b[name]) <= within, (name, a, b)

  def assert_changed_alike(first: Any, a: Any, b: Any) -> None:
    # As in test_parallel: not element by element.
    assert np.linalg.norm(a - b) <= 1e-2 * np.linalg.norm(b - first) + 1e-6

  start = jax.device_get(
    train_setup.build(config).first_state().eval_variables()
  )
  for tree, expected in zip(arrays(one), arrays(other), strict=True):
    jax.tree.map(assert_changed_alike, start, tree, expected)


# One step a call, as on CPU, and several, as on accelerators; both feeds.
@pytest.mark.parametrize(
  ("steps_per_call", "feed"), [(1, "in_memory"), (STEPS, "streaming")]
)
def test_runs_are_those_that_they_are_alone(
  tmp_path, prepared, alone, monkeypatch, capsys, steps_per_call, feed
):
  loaded, load = [], registry.load

  def count(*args, **options):
    loaded.append(args)
    return load(*args, **options)

  monkeypatch.setattr(registry, "load", count)
  placed, resident = [], train_setup.Setup.resident

  def place(self, split):
    placed.append(split.name)
    return resident(self, split)

  monkeypatch.setattr(train_setup.Setup, "resident", place)
  more = {"steps_per_call": steps_per_call, "data_loader": feed}
  configs = [configure(prepared, **fields, **more) for fields in RUNS]
  workdirs = [tmp_path / name for name in ("a", "b", "c")]
  told = []
  outcomes = train_together(configs, workdirs, lambda i, m: told.append((i, m)))
  assert len(loaded) == 1
  assert placed == ["train", "validation", "test"]
  for config, workdir, before in zip(configs, workdirs, alone, strict=True):
    assert_same_run(config, workdir, before)
    assert files(workdir) == files(before)
  summaries = [metric_writer.read(workdir)[-1] for workdir in workdirs]
  assert outcomes == summaries
  assert [(i, m["epoch"]) for i, m in told] == [
    (i, epoch) for epoch in (1, 2) for i in range(3)
  ]
  epochs = [r for r in metric_writer.read(workdirs[2]) if r["kind"] == "epoch"]
  assert told[-1][1] == {name: epochs[-1][name] for name in told[-1][1]}
  shown = capsys.readouterr().err
  for name in "abc":
    assert f"{name}  epoch 2/2" in shown
  assert shown.count("epoch 2/2 step 5/5") == 1
  assert "(3 runs together)" in shown and shown.count("compiled in") == 1
  assert Trained.load(workdirs[1]).class_names == tuple("abcdefg")


def interrupt_after(monkeypatch, num_calls):
  """Sends a signal after so many calls of the step."""
  update, calls = progress.Progress.update, []

  def interrupt(self, steps):
    update(self, steps)
    calls.append(steps)
    if len(calls) == num_calls:
      signal.raise_signal(signal.SIGTERM)

  monkeypatch.setattr(progress.Progress, "update", interrupt)


def test_runs_go_on_from_where_each_stands(tmp_path, prepared, alone):
  """Begun together or alone, gone on with alone or together."""
  configs = [configure(prepared, **fields) for fields in RUNS]
  workdirs = [tmp_path / str(i) for i in range(3)]
  with pytest.MonkeyPatch.context() as monkeypatch:
    interrupt_after(monkeypatch, STEPS + 3)
    with pytest.raises(Interrupted, match="epoch 2 at step 8") as stopped:
      train_together(configs[:2], workdirs[:2])
  assert stopped.value.exit_code == 128 + signal.SIGTERM
  with pytest.MonkeyPatch.context() as monkeypatch:
    interrupt_after(monkeypatch, 2)
    with pytest.raises(Interrupted, match="epoch 1 at step 2"):
      train_loop.train(configs[2], workdirs[2])
  train_loop.train(configs[0], workdirs[0])
  # The first is done; the last is six steps and an epoch's end behind.
  train_together(configs, workdirs)
  for config, workdir, before in zip(configs, workdirs, alone, strict=True):
    assert_same_run(config, workdir, before)


def test_those_that_leave_do_the_others_no_harm(
  tmp_path, prepared, alone, monkeypatch
):
  traced, call = [], leaky_cnn.LeakyCNN.__call__

  def counted(self, x, train=False):
    traced.append(train)
    return call(self, x, train)

  monkeypatch.setattr(leaky_cnn.LeakyCNN, "__call__", counted)

  def prune(run, metrics):
    if run == 3 and metrics["epoch"] == 1:
      raise LookupError("pruned")

  wild = {"optimizer__learning_rate": 1e30, "seed": 7}
  fields = [RUNS[0], wild, RUNS[1], RUNS[2] | {"seed": 5}, RUNS[2]]
  configs = [configure(prepared, **one) for one in fields]
  workdirs = [tmp_path / str(i) for i in range(5)]
  outcomes = train_together(configs, workdirs, prune)
  assert isinstance(outcomes[1], UserError)
  assert "loss is nan" in str(outcomes[1]) or "loss is inf" in str(outcomes[1])
  assert isinstance(outcomes[3], LookupError)
  for run, before in zip((0, 2, 4), alone, strict=True):
    assert_same_run(configs[run], workdirs[run], before)
  assert not any(r["kind"] == "epoch" for r in metric_writer.read(workdirs[1]))
  assert [
    r["epoch"] for r in metric_writer.read(workdirs[3]) if "best" in r
  ] == [1]
  assert traced.count(True) == 1  # Three are left in the places of five.
  with pytest.raises(UserError, match="loss is"):
    train_loop.train(configs[1], workdirs[1])
  train_loop.train(
    configs[3], workdirs[3]
  )  # What was pruned can be gone on with.
  assert metric_writer.read(workdirs[3])[-1]["kind"] == "summary"


def test_layers_thaw(tmp_path, prepared):
  frozen = {"freeze__patterns": "conv1", "freeze__unfreeze_epochs": (1,)}
  more = frozen | {"ema_decay": 0.0}
  configs = [configure(prepared, **fields, **more) for fields in RUNS[:2]]
  workdirs = [tmp_path / "a", tmp_path / "b"]
  train_together(configs, workdirs)
  for config, workdir in zip(configs, workdirs, strict=True):
    start = train_setup.build(config).first_state().params["conv1"]["kernel"]
    _, latest = arrays(workdir)
    assert np.linalg.norm(latest["params"]["conv1"]["kernel"] - start) > 0
    shutil.rmtree(workdir / f"checkpoints/{2 * STEPS}")
    _, before = arrays(workdir)
    np.testing.assert_array_equal(before["params"]["conv1"]["kernel"], start)


def test_each_stops_early_by_itself(tmp_path, prepared):
  stop = {"early_stopping__patience": 1, "early_stopping__min_delta": 0.01}
  fields = stop | {"num_epochs": 5, "best_metric": "validation_accuracy"}
  configs = [
    configure(prepared, **fields, optimizer__learning_rate=rate)
    for rate in (0.05, 1e-9, 1e-10)
  ]
  workdirs = [tmp_path / str(i) for i in range(3)]
  outcomes = train_together(configs, workdirs)
  assert outcomes == [metric_writer.read(workdir)[-1] for workdir in workdirs]
  last = [metric_writer.read(workdir)[-1]["epoch"] for workdir in workdirs]
  alone = [
    train_loop.train(config, tmp_path / f"alone{i}")["epoch"]
    for i, config in enumerate(configs[:2])
  ]
  assert last[:2] == alone
  assert last[0] != last[1]


def test_when_none_is_left_the_epoch_is_not_ended(tmp_path, prepared):
  configs = [
    configure(
      prepared,
      seed=seed,
      optimizer__learning_rate=1e30,
      schedule__name="cosine",
      num_epochs=1000,
    )
    for seed in (0, 1)
  ]
  outcomes = train_together(configs, [tmp_path / "a", tmp_path / "b"])
  assert all(isinstance(outcome, UserError) for outcome in outcomes)
