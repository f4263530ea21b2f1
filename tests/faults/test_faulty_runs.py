"""Runs whose checkpoint, disk or terminal fails."""

import os
import random
from typing import Any

import jax
import numpy as np
import pytest
import test_damaged_checkpoints as damage
import tiny_run
from run_records import untimed

from fer_jax.errors import UserError
from fer_jax.training import train_loop
from fer_jax.training.logging import metric_writer

pytestmark = pytest.mark.usefixtures("tiny_model")


def records(workdir) -> list[dict[str, Any]]:
  return [r for r in untimed(workdir) if r["kind"] != "warning"]


def test_a_run_with_a_damaged_checkpoint_ends_like_any_other(
  tmp_path, prepared, capsys
):
  config = tiny_run.config(prepared, checkpoint__every_steps=2)
  whole, hurt = tmp_path / "whole", tmp_path / "hurt"
  train_loop.train_and_evaluate(config, whole)

  class Stop(Exception):
    pass

  def stop(metrics: Any) -> None:
    raise Stop

  with pytest.raises(Stop):
    train_loop.train_and_evaluate(config, hurt, after_epoch=stop)
  latest = hurt / "checkpoints" / str(tiny_run.STEPS_PER_EPOCH)
  rng = random.Random(0)
  damage.flip(damage.pick(latest, rng), rng)
  train_loop.train_and_evaluate(config, hurt)
  assert "is damaged (wrong checksum): resuming from step 4" in (
    capsys.readouterr().err
  )
  warning, best = [
    r for r in metric_writer.read(hurt) if r["kind"] == "warning"
  ]
  assert "best/5 is newer" in best["message"]
  assert warning["step"] == 4 and "is damaged" in warning["message"]
  assert records(whole) == records(hurt)
  jax.tree.map(
    np.testing.assert_array_equal,
    tiny_run.final_state(config, whole),
    tiny_run.final_state(config, hurt),
  )


@pytest.mark.filterwarnings("default::FutureWarning")
def test_what_cannot_be_drawn_or_logged_only_warns(tmp_path, prepared, capsys):
  (tmp_path / "run" / "curves.png").mkdir(parents=True)
  (tmp_path / "run" / "tensorboard").write_text("")
  config = tiny_run.config(prepared, num_epochs=1)
  with pytest.warns(FutureWarning, match="no TensorBoard: cannot write"):
    result = train_loop.train_and_evaluate(config, tmp_path / "run")
  assert [epoch["epoch"] for epoch in result.epochs] == [1]
  assert "warning: cannot write" in capsys.readouterr().err


def test_a_terminal_that_is_gone_ends_nothing(tmp_path, prepared, monkeypatch):
  read, write = os.pipe()
  os.close(read)
  with open(write, "w", buffering=1) as broken:
    monkeypatch.setattr("sys.stderr", broken)
    config = tiny_run.config(prepared, num_epochs=1)
    result = train_loop.train_and_evaluate(config, tmp_path)
    monkeypatch.undo()
    assert result.num_epochs == 1
    with pytest.raises(BrokenPipeError):
      broken.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), write)


def test_metrics_that_cannot_be_written_are_kept_for_later(
  tmp_path, monkeypatch
):
  writer = metric_writer.MetricWriter(tmp_path, None)
  assert writer._lines
  real = writer._lines._file

  class Full:
    fileno = real.fileno

    def write(self, data: bytes) -> int:
      if len(data) > 5:
        return real.write(data[:5]) or 0
      raise OSError(28, "No space left on device")

  monkeypatch.setattr(writer._lines, "_file", Full())
  with pytest.raises(UserError, match="No space left"):
    writer.append({"kind": "train", "step": 1, "epoch": 1})
  monkeypatch.setattr(writer._lines, "_file", real)
  writer.append({"kind": "train", "step": 2, "epoch": 1})
  writer.close()
  assert [r["step"] for r in metric_writer.read(tmp_path)] == [1, 2]
