"""Signals while a run compiles, and with a terminal that is gone."""

import os
import signal
import threading
import time
import types

import jax
import pytest
import tiny_run

from fer_jax.training import run_setup, train_loop
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.runtime import compilation, signals
from fer_jax.training.runtime.signals import Interrupted, StopNow, StopRequest


@pytest.mark.usefixtures("hangups_end_processes")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_is_noted_with_a_broken_pipe(name, monkeypatch):
  read, write = os.pipe()
  os.close(read)
  with open(write, "w", buffering=1) as broken:
    monkeypatch.setattr("sys.stderr", broken)
    with StopRequest() as stop:
      assert not stop
      os.kill(os.getpid(), getattr(signal, name))
    monkeypatch.undo()
    os.dup2(os.open(os.devnull, os.O_WRONLY), write)
  assert stop and stop.cause == getattr(signal, name)


def test_a_second_interrupt_stops_at_once():
  with StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
  assert stop.cause == signal.SIGINT


def test_a_process_that_ignores_hangups_goes_on_ignoring_them():
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with StopRequest() as stop:
      os.kill(os.getpid(), signal.SIGHUP)
    assert not stop
  finally:
    signal.signal(signal.SIGHUP, before)


def test_a_signal_before_or_inside_of_what_may_be_left():
  with StopRequest() as stop, pytest.raises(StopNow), stop.immediate():
    os.kill(os.getpid(), signal.SIGTERM)
  with pytest.raises(StopNow), stop.immediate():
    raise AssertionError("not reached")


def test_a_signal_while_compiling_ends_within_two_seconds(
  tmp_path, prepared, monkeypatch, tiny_model
):
  release = threading.Event()
  sent: list[float] = []

  def compile_forever(lowered: jax.stages.Lowered) -> None:
    if not sent:
      sent.append(time.monotonic())
      os.kill(os.getpid(), signal.SIGINT)
    release.wait(60)

  class Slow(compilation.ParallelCompiler):
    def add(self, name, lowered):
      monkeypatch.setattr(type(lowered), "compile", compile_forever)
      return super().add(name, lowered)

  monkeypatch.setattr(train_loop, "ParallelCompiler", Slow)
  try:
    with pytest.raises(Interrupted, match="before the first step") as stopped:
      train_loop.train_and_evaluate(tiny_run.config(prepared), tmp_path)
    assert time.monotonic() - sent[0] < 2
    assert stopped.value.exit_code == 130
  finally:
    release.set()


def test_a_time_limit_saves_and_the_run_resumes(tmp_path, prepared, tiny_model):
  config = tiny_run.config(prepared, num_epochs=1, max_minutes=1e-9)
  with pytest.raises(Interrupted, match="saved in") as stopped:
    train_loop.train_and_evaluate(config, tmp_path)
  assert stopped.value.exit_code == 128 + 14
  step = Checkpoints(tmp_path).latest_step
  assert step and step < tiny_run.STEPS_PER_EPOCH
  config = tiny_run.config(prepared, num_epochs=1)
  assert train_loop.train_and_evaluate(config, tmp_path).num_epochs == 1


def test_a_time_limit_includes_the_preparation_of_data(
  tmp_path, prepared, tiny_model, monkeypatch
):
  now, create = [0.0], run_setup.create_experiment

  def create_slowly(config):
    now[0] += 60
    return create(config)

  clock = types.SimpleNamespace(monotonic=lambda: now[0])
  monkeypatch.setattr(signals, "time", clock)
  monkeypatch.setattr(run_setup, "create_experiment", create_slowly)
  config = tiny_run.config(prepared, num_epochs=1, max_minutes=1.0)
  with pytest.raises(Interrupted, match="saved in"):
    train_loop.train_and_evaluate(config, tmp_path)
