"""Whole runs: their files, how they stop and how they resume."""

import json
import pathlib
import re
import signal
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from ml_collections import ConfigDict
from run_records import untimed

from fer_jax import config as configs
from fer_jax.data import normalization
from fer_jax.errors import UserError
from fer_jax.models import resnet
from fer_jax.training import train_loop
from fer_jax.training.checkpoints import Checkpoints, read_variables
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.logging import curves, metric_writer, progress
from fer_jax.training.runtime.signals import Interrupted, StopNow
from fer_jax.training.split_evaluation import Evaluator
from fer_jax.training.workdir import claim

pytestmark = pytest.mark.usefixtures("tiny_model")

BACKEND_COMPILE = "backend_compile_duration"


def assert_same_run(
  config: ConfigDict, one: pathlib.Path, other: pathlib.Path
) -> None:
  """Two workdirs hold the same run to the last bit."""
  assert untimed(one) == untimed(other)
  jax.tree.map(
    np.testing.assert_array_equal,
    tiny_run.final_state(config, one),
    tiny_run.final_state(config, other),
  )


def test_a_run_leaves_a_whole_workdir(tmp_path, prepared, capsys):
  config = tiny_run.config(prepared)
  result = train_loop.train_and_evaluate(config, tmp_path / "run")
  workdir = tmp_path / "run"

  written = configs.from_json(json.loads((workdir / "config.json").read_text()))
  assert written == config
  assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
  assert list((workdir / "tensorboard").iterdir())
  kinds = [record["kind"] for record in metric_writer.read(workdir)]
  assert kinds == ["train"] * 2 + ["epoch"] + ["train"] * 3 + [
    "epoch",
    "summary",
  ]
  for split in (result.validation, result.test):
    assert split
    assert 0 <= split.accuracy <= 1 and np.isfinite(split.loss)
  assert result.images_per_second > 0
  assert [epoch["epoch"] for epoch in result.epochs] == [1, 2]
  assert result.best_checkpoint.is_dir() and result.metrics_file.is_file()
  assert "validation=SplitMetrics(loss=" in repr(result)
  assert str(result).startswith(f"best epoch {result.best_epoch} of 2: ")
  shown = capsys.readouterr().err
  assert "epoch 2/2" in shown and "images/s" in shown
  assert "train 160, validation 50, test 30" in shown


def test_curves_are_drawn_now_and_then_and_at_the_end(
  tmp_path, prepared, monkeypatch
):
  drawn = []

  def draw(records, path, title):
    time.sleep(0.3)  # A hundredth of the time that passes until the next.
    drawn.append([r["epoch"] for r in records if r["kind"] == "epoch"])

  monkeypatch.setattr(curves, "draw", draw)
  train_loop.train_and_evaluate(
    tiny_run.config(prepared, num_epochs=4), tmp_path
  )
  assert drawn == [[1], [1, 2, 3, 4]]


def test_checkpoints_explain_themselves(tmp_path, prepared):
  config = tiny_run.config(prepared, num_epochs=1)
  train_loop.train_and_evaluate(config, tmp_path)
  info = Checkpoints(tmp_path).info()
  assert configs.from_json(info["config"]) == config
  assert info["class_names"] == list("abcdefg")
  assert info["image_shape"] == [48, 48, 1]
  best = Checkpoints(tmp_path)
  assert best.best_step == tiny_run.STEPS_PER_EPOCH


def test_predictions_match_the_labels_of_their_images(tmp_path, prepared):
  """The reported accuracy is that of predictions with their own labels.

  A loader that shuffled labels apart from images, or an evaluation that
  compared predictions with another order of labels, would be at chance.
  """
  config = tiny_run.config(
    prepared, num_epochs=8, optimizer__learning_rate=1e-2
  )
  train_loop.train_and_evaluate(config, tmp_path)
  state = tiny_run.final_state(config, tmp_path)
  parts = create_experiment(config)
  reported = Evaluator(parts)(
    parts.parallel.replicate(state.eval_variables()), "train"
  )["accuracy"]

  train = parts.dataset.split("train").arrays()
  images = normalization.prepare(jnp.asarray(train["image"]), **config.input)
  logits = parts.model.apply(state.eval_variables(), images, train=False)
  predicted = np.argmax(np.asarray(logits), axis=-1)
  assert reported == pytest.approx(np.mean(predicted == train["target"]))
  assert reported > 0.8
  shuffled = np.random.default_rng(0).permutation(train["target"])
  assert np.mean(predicted == shuffled) < 0.4


def test_a_finished_run_is_not_run_again(tmp_path, prepared, monkeypatch):
  config = tiny_run.config(prepared)
  first = train_loop.train_and_evaluate(config, tmp_path)
  before = untimed(tmp_path)

  def fail(*_: object) -> None:
    raise AssertionError("trained again")

  monkeypatch.setattr(train_loop, "train_epoch", fail)
  monkeypatch.setattr(train_loop, "compile_programs", fail)
  second = train_loop.train_and_evaluate(config, tmp_path)
  assert untimed(tmp_path) == before
  assert first == second


@pytest.mark.parametrize("feed", ["in_memory", "streaming"])
def test_an_interrupted_run_resumes_exactly(
  tmp_path, prepared, monkeypatch, feed
):
  config = tiny_run.config(
    prepared, data_loader=feed, augment__shift=0.1, augment__flip=True
  )
  train_loop.train_and_evaluate(config, tmp_path / "whole")

  update, calls = progress.Progress.update, []

  def interrupt(self: progress.Progress, steps: int) -> None:
    update(self, steps)
    calls.append(steps)
    if len(calls) == tiny_run.STEPS_PER_EPOCH + 3:
      signal.raise_signal(signal.SIGTERM)

  monkeypatch.setattr(progress.Progress, "update", interrupt)
  with pytest.raises(Interrupted, match="epoch 2 after 8 steps") as stopped:
    train_loop.train_and_evaluate(config, tmp_path / "stopped")
  assert stopped.value.exit_code == 128 + signal.SIGTERM
  monkeypatch.undo()
  tiny_run.register(monkeypatch)
  train_loop.train_and_evaluate(config, tmp_path / "stopped")
  assert_same_run(config, tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize("epoch", [2, 3])  # the last one, too
def test_a_run_interrupted_while_it_evaluates_resumes_exactly(
  tmp_path, prepared, monkeypatch, epoch
):
  config = tiny_run.config(prepared, num_epochs=3, eval_batch_size=16)
  train_loop.train_and_evaluate(config, tmp_path / "whole")
  batches, epochs = Evaluator._batches, []

  def interrupt(self: Evaluator, split_name: str) -> Iterator[Any]:
    first, *others = batches(self, split_name)
    yield first
    epochs.append(split_name)
    if len(epochs) == epoch:
      signal.raise_signal(signal.SIGTERM)
    yield from others

  with monkeypatch.context() as patch:
    patch.setattr(Evaluator, "_batches", interrupt)
    with pytest.raises(Interrupted, match=f"in epoch {epoch} after") as stopped:
      train_loop.train_and_evaluate(config, tmp_path / "stopped")
  assert stopped.value.exit_code == 128 + signal.SIGTERM
  steps = epoch * tiny_run.STEPS_PER_EPOCH
  assert Checkpoints(tmp_path / "stopped").latest_step == steps
  train_loop.train_and_evaluate(config, tmp_path / "stopped")
  assert_same_run(config, tmp_path / "whole", tmp_path / "stopped")
  assert not [*(tmp_path / "stopped/checkpoints").glob("replaced-*")]


def test_a_run_killed_after_an_evaluation_records_it_once(
  tmp_path, prepared, monkeypatch
):
  config = tiny_run.config(prepared, num_epochs=2)
  train_loop.train_and_evaluate(config, tmp_path / "whole")
  with monkeypatch.context() as patch:
    patch.setattr(Evaluator, "__call__", _stop_now)
    with pytest.raises(Interrupted):
      train_loop.train_and_evaluate(config, tmp_path / "killed")
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(Checkpoints, "save_best", _kill)
    train_loop.train_and_evaluate(config, tmp_path / "killed")
  train_loop.train_and_evaluate(config, tmp_path / "killed")
  assert_same_run(config, tmp_path / "whole", tmp_path / "killed")


def _stop_now(*_: object) -> NoReturn:
  raise StopNow


def _kill(*_: object) -> NoReturn:
  raise KeyboardInterrupt


def test_a_signal_in_the_final_evaluation_loses_nothing(
  tmp_path, prepared, monkeypatch
):
  config = tiny_run.config(prepared, num_epochs=1)
  call = Evaluator.__call__

  def interrupt(
    self: Evaluator, variables: Any, split_name: str, stops: Any
  ) -> dict[str, float]:
    if split_name == "test":
      signal.raise_signal(signal.SIGTERM)
    return call(self, variables, split_name, stops)

  with monkeypatch.context() as patch:
    patch.setattr(Evaluator, "__call__", interrupt)
    with pytest.raises(Interrupted, match="after epoch 1 and 5 steps"):
      train_loop.train_and_evaluate(config, tmp_path)
  result = train_loop.train_and_evaluate(config, tmp_path)
  assert result.num_epochs == 1 and result.test is not None


def test_checkpoints_by_steps_need_no_evaluation(
  tmp_path, prepared, monkeypatch
):
  steps = tiny_run.STEPS_PER_EPOCH
  config = tiny_run.config(
    prepared,
    num_epochs=4,
    eval_every_epochs=4,
    checkpoint__every_steps=2 * steps,
  )
  saved = []
  save = Checkpoints.save

  def note(self: Checkpoints, step: int, *args: Any) -> None:
    saved.append(step)
    save(self, step, *args)

  monkeypatch.setattr(Checkpoints, "save", note)
  train_loop.train_and_evaluate(config, tmp_path)
  assert saved == [2 * steps, 4 * steps]


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "curves.png"])
def test_files_of_other_programs_stay(tmp_path, prepared, name):
  (tmp_path / name).write_text('{"mine": 1}')
  config = tiny_run.config(prepared, num_epochs=1)
  with pytest.raises(UserError, match=f"{name} .*use another workdir"):
    train_loop.train_and_evaluate(config, tmp_path)
  assert (tmp_path / name).read_text() == '{"mine": 1}'


def test_a_workdir_is_checked_before_data_are_prepared(tmp_path):
  (tmp_path / "mine").write_text("")
  config = tiny_run.config(tmp_path / "data")
  with pytest.raises(UserError, match="mine is not a folder that may be"):
    train_loop.train_and_evaluate(config, tmp_path / "mine/run")
  assert not (tmp_path / "data").exists()


def test_another_configuration_is_refused(tmp_path, prepared):
  config = tiny_run.config(prepared, num_epochs=1)
  train_loop.train_and_evaluate(config, tmp_path)
  other = tiny_run.config(prepared, num_epochs=1, seed=16)
  with pytest.raises(UserError, match="seed: 0 -> 16.*workdir"):
    train_loop.train_and_evaluate(other, tmp_path)
  (tmp_path / "config.json").unlink()
  with pytest.raises(UserError, match="seed: 0 -> 16.*workdir"):
    train_loop.train_and_evaluate(other, tmp_path)
  assert not (tmp_path / "config.json").exists()
  runtime = tiny_run.config(
    prepared, num_epochs=1, log_every_steps=1, eval_batch_size=16
  )
  train_loop.train_and_evaluate(runtime, tmp_path)


@pytest.mark.parametrize("width", [1e5, 1e9, 1e300, 1e307])
def test_a_model_of_too_many_parameters_is_refused(tmp_path, prepared, width):
  config = tiny_run.config(prepared, model__width=width)
  message = re.escape(f"model.width={width}: the model has more than 2,147,")
  with pytest.raises(UserError, match=message):
    train_loop.train_and_evaluate(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_one_process_at_a_time_uses_a_workdir(tmp_path, prepared):
  config = tiny_run.config(prepared, num_epochs=1)
  with claim(tmp_path, config):
    with pytest.raises(UserError, match="another process is training in"):
      train_loop.train_and_evaluate(config, tmp_path)
  train_loop.train_and_evaluate(config, tmp_path)


def test_a_non_finite_loss_ends_the_run(tmp_path, prepared):
  config = tiny_run.config(
    prepared,
    optimizer__name="sgd",
    optimizer__learning_rate=1e3,
    schedule__name="step",
    schedule__step_epochs=(1.0,),
    num_epochs=3,
  )
  with pytest.raises(UserError, match="non-finite.*loss.*learning_rate below"):
    train_loop.train_and_evaluate(config, tmp_path)
  assert all(np.isfinite(r["loss"]) for r in untimed(tmp_path) if "loss" in r)


def test_early_stopping_stops(tmp_path, prepared):
  config = tiny_run.config(
    prepared,
    num_epochs=20,
    early_stopping__patience=1,
    early_stopping__min_delta=100.0,
  )
  result = train_loop.train_and_evaluate(config, tmp_path)
  assert result.num_epochs == 2


def test_the_averages_are_evaluated_and_saved_as_the_best(tmp_path, prepared):
  config = tiny_run.config(prepared, ema_decay=0.9, num_epochs=1)
  result = train_loop.train_and_evaluate(config, tmp_path)
  state = tiny_run.final_state(config, tmp_path)
  evaluate = Evaluator(create_experiment(config))
  averages = evaluate(state.eval_variables(), "validation")["loss"]
  current = evaluate(state.variables(), "validation")["loss"]
  assert result.validation.loss == pytest.approx(averages, rel=1e-6)
  assert abs(averages - current) > 1e-3
  best, _ = read_variables(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, best, state.eval_variables())


def test_the_best_epoch_is_kept(tmp_path, prepared, monkeypatch):
  """The second of three epochs has the lowest loss."""
  losses = iter((2.0, 1.0, 1.5))
  evaluate = Evaluator.__call__

  def judged(self, variables, split, *stops):
    return evaluate(self, variables, split, *stops) | {
      "loss": next(losses, 1.0)
    }

  config = tiny_run.config(prepared, num_epochs=3)
  with monkeypatch.context() as patch:
    patch.setattr(Evaluator, "__call__", judged)
    result = train_loop.train_and_evaluate(
      config, tmp_path, evaluate_test=False
    )
  assert result.best_epoch == 2
  assert result.test is None and " test " not in str(result)
  with Checkpoints(tmp_path, read_only=True) as checkpoints:
    assert checkpoints.best_step == 2 * tiny_run.STEPS_PER_EPOCH
    assert checkpoints.latest_step == 3 * tiny_run.STEPS_PER_EPOCH


def test_evaluates_every_few_epochs_and_after_the_last(tmp_path, prepared):
  config = tiny_run.config(prepared, num_epochs=5, eval_every_epochs=2)
  seen: list[dict[str, Any]] = []
  result = train_loop.train_and_evaluate(config, tmp_path, seen.append)
  assert [metrics["epoch"] for metrics in seen] == [2, 4, 5]
  epochs = [r for r in untimed(tmp_path) if r["kind"] == "epoch"]
  assert [record["epoch"] for record in epochs] == [2, 4, 5]
  assert result.num_epochs == 5
  assert result.best_epoch in (2, 4, 5)
  # What is learned does not depend on how often it is evaluated.
  every = tiny_run.config(prepared, num_epochs=5)
  train_loop.train_and_evaluate(every, tmp_path / "every")
  last = [r for r in untimed(tmp_path / "every") if r["kind"] == "epoch"][-1]
  assert last["validation_loss"] == epochs[-1]["validation_loss"]
  # Patience is in epochs, however often they are evaluated.
  patient = tiny_run.config(
    prepared,
    num_epochs=9,
    eval_every_epochs=2,
    early_stopping__patience=2,
    early_stopping__min_delta=100.0,
  )
  stopped = train_loop.train_and_evaluate(patient, tmp_path / "patient")
  assert stopped.num_epochs == 4


def test_plateau_lowers_the_learning_rate_and_survives(tmp_path, prepared):
  fields = {
    "schedule__name": "plateau",
    "schedule__plateau_patience": 1,
    "schedule__plateau_min_delta": 100.0,
    "num_epochs": 4,
  }
  config = tiny_run.config(prepared, **fields)
  train_loop.train_and_evaluate(config, tmp_path)
  epochs = [r for r in untimed(tmp_path) if r["kind"] == "epoch"]
  rates = [record["learning_rate"] for record in epochs]
  np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4, 1e-5], rtol=1e-5)


def test_several_steps_a_call_train_the_same(tmp_path, prepared):
  params = []
  for steps_per_call in (1, 3):
    config = tiny_run.config(prepared, steps_per_call=steps_per_call)
    workdir = tmp_path / str(steps_per_call)
    train_loop.train_and_evaluate(config, workdir)
    params.append(jax.tree.leaves(tiny_run.final_state(config, workdir).params))
  for x, y in zip(*params, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", ["jit", "pmap", "shard_map"])
def test_nothing_compiles_between_the_first_step_and_the_last_epoch(
  tmp_path, prepared, monkeypatch, mode
):
  """Also with a rest of an epoch, a plateau and a checkpoint in mid-epoch."""
  compiled: list[float] = []

  def listen(event: str, duration_secs: float, **_: str | int) -> None:
    if event.endswith(BACKEND_COMPILE):
      compiled.append(duration_secs)

  jax.monitoring.register_event_duration_secs_listener(listen)
  counts = []
  config = tiny_run.config(
    prepared,
    parallel=mode,
    steps_per_call=2,  # of 5
    num_epochs=3,
    checkpoint__every_steps=4,
    schedule__name="plateau",
    schedule__plateau_patience=1,
    schedule__plateau_min_delta=100.0,
  )
  train_epoch = train_loop.train_epoch

  def counted(*args):
    counts.append(len(compiled))
    return train_epoch(*args)

  monkeypatch.setattr(train_loop, "train_epoch", counted)
  train_loop.train_and_evaluate(
    config, tmp_path, lambda metrics: counts.append(len(compiled))
  )
  start, first_end, *later = counts
  assert start > 0 or mode == "jit"
  # Setting the factor of the learning rate is a program of one operation.
  assert first_end - start <= 1
  assert set(later) == {first_end}


def test_an_interrupted_run_of_several_steps_a_call_resumes_exactly(
  tmp_path, prepared, monkeypatch
):
  config = tiny_run.config(prepared, steps_per_call=2)
  train_loop.train_and_evaluate(config, tmp_path / "whole")
  update = progress.Progress.update

  def interrupt(self: progress.Progress, steps: int) -> None:
    update(self, steps)
    if self._epoch == 2 and self._step == 2:
      signal.raise_signal(signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(progress.Progress, "update", interrupt)
    with pytest.raises(Interrupted, match="epoch 2 after 7 steps"):
      train_loop.train_and_evaluate(config, tmp_path / "stopped")
  train_loop.train_and_evaluate(config, tmp_path / "stopped")
  assert_same_run(config, tmp_path / "whole", tmp_path / "stopped")


def test_a_run_is_interrupted_after_an_epoch_without_evaluation(
  tmp_path, prepared, monkeypatch
):
  config = tiny_run.config(prepared, num_epochs=4, eval_every_epochs=2)
  train_loop.train_and_evaluate(config, tmp_path / "whole")
  update = progress.Progress.update

  def interrupt(self: progress.Progress, steps: int) -> None:
    update(self, steps)
    if self._epoch == 3 and self._step == tiny_run.STEPS_PER_EPOCH:
      signal.raise_signal(signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(progress.Progress, "update", interrupt)
    with pytest.raises(Interrupted, match="after epoch 3 and 15 steps"):
      train_loop.train_and_evaluate(config, tmp_path / "stopped")
  train_loop.train_and_evaluate(config, tmp_path / "stopped")
  assert_same_run(config, tmp_path / "whole", tmp_path / "stopped")


def test_a_step_compiles_once(tmp_path, prepared, monkeypatch):
  traced = []
  call = resnet.ResNet.__call__

  def counted(self, x, train=False):
    traced.append(train)
    return call(self, x, train)

  monkeypatch.setattr(resnet.ResNet, "__call__", counted)
  fields: dict[str, Any] = {"num_epochs": 3, "optimizer__b2": 0.95}
  # Programs that no other test has compiled in this process.
  fields |= {"input__normalization": "mean_std", "input__std": (0.3,)}
  train_loop.train_and_evaluate(
    tiny_run.config(prepared, **fields), tmp_path / "one"
  )
  assert traced.count(True) == 1
  # Initialization, the summary, and evaluation of splits of two sizes.
  assert traced.count(False) == 4
  fields |= {"optimizer__learning_rate": 0.01, "seed": 1}
  train_loop.train_and_evaluate(
    tiny_run.config(prepared, **fields), tmp_path / "two"
  )
  assert traced.count(True) == 1
  assert traced.count(False) == 6  # Initialization and the summary.


@pytest.mark.parametrize(
  "fields",
  [
    {"dtype": "bfloat16", "ema_decay": 0.9},
    {"optimizer__accumulate_steps": 2, "optimizer__clip_norm": 1.0},
    {"loss__class_weights": "balanced", "loss__label_smoothing": 0.1},
    {"augment__mixup": 0.2, "augment__cutmix": 1.0, "input__channels": 3},
    {"optimizer__name": "adafactor", "input__image_size": 48},
    {"profile": True, "num_epochs": 4},
  ],
  ids=lambda fields: next(iter(fields)),
)
def test_options_train(tmp_path, prepared, fields):
  config = tiny_run.config(prepared, **fields)
  result = train_loop.train_and_evaluate(config, tmp_path)
  assert np.isfinite(result.validation.loss)
  if config.profile:
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
