"""Workdirs, or files in them, that are removed under a run."""

import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable

import jax
import numpy as np
import pytest
import tiny_run
from ml_collections import ConfigDict
from test_faulty_runs import records
from waiting import wait_until

from fer_jax.errors import UserError
from fer_jax.training import train_loop
from fer_jax.training.logging import metric_writer

pytestmark = pytest.mark.usefixtures("tiny_model")
Removal = Callable[[pathlib.Path], object]


def rename(workdir: pathlib.Path) -> None:
  workdir.rename(workdir.with_name("elsewhere"))


def remove_checkpoints(workdir: pathlib.Path) -> None:
  (workdir / "checkpoints").rename(workdir / "other")


def replace_parent(workdir: pathlib.Path) -> None:
  workdir.parent.rename(workdir.parent.with_name("moved"))
  workdir.parent.write_text("a file")


def rescue(
  config: ConfigDict, workdir: pathlib.Path, remove: Removal
) -> tuple[str, pathlib.Path]:
  """Trains, removes something after the first epoch, and resumes elsewhere."""

  def after_epoch(metrics):
    if metrics["epoch"] == 1:
      saved = workdir / "checkpoints" / str(tiny_run.STEPS_PER_EPOCH)
      wait_until(saved.exists, 60)  # It is written in the background.
      remove(workdir)

  with pytest.raises(UserError, match="was removed or renamed") as error:
    train_loop.train_and_evaluate(config, workdir, after_epoch)
  message = str(error.value)
  found = re.search(r"rerun the command with workdir=(\S+) to resume", message)
  assert found and "\n" not in message
  return message, pathlib.Path(found[1])


@pytest.mark.parametrize(
  ("remove", "every_steps", "step"),
  [
    (rename, 2, 6),
    (rename, 0, 10),
    pytest.param(remove_checkpoints, 2, 6, marks=pytest.mark.slow),
  ],
)
def test_a_removed_workdir_is_saved_elsewhere(
  tmp_path, prepared, trained_workdir, remove, every_steps, step
):
  config = tiny_run.config(prepared, checkpoint__every_steps=every_steps)
  message, folder = rescue(config, tmp_path / "run", remove)
  assert folder == tmp_path / "run-rescued" and f"up to step {step} " in message
  # Within an epoch, the best one's variables were in the workdir only.
  assert ("but not epoch 1, the best so far" in message) == (step == 6)
  result = train_loop.train_and_evaluate(config, folder)
  assert [epoch["epoch"] for epoch in result.epochs] == [1, 2]
  assert result.best_epoch == 2
  assert records(folder) == records(trained_workdir)
  jax.tree.map(
    np.testing.assert_array_equal,
    tiny_run.final_state(config, trained_workdir),
    tiny_run.final_state(config, folder),
  )


def test_without_a_place_beside_the_workdir_it_is_the_temporary_folder(
  tmp_path, prepared, monkeypatch
):
  temporary = tmp_path / "temporary"
  monkeypatch.setattr(tempfile, "tempdir", str(temporary))
  (temporary / "run-rescued").mkdir(parents=True)
  config = tiny_run.config(prepared, checkpoint__every_steps=2)
  workdir = tmp_path / "runs" / "run"
  _, folder = rescue(config, workdir, replace_parent)
  assert folder == temporary / "run-rescued-2"
  assert {path.name for path in folder.iterdir()} >= {
    "config.json",
    "metrics.jsonl",
    "checkpoints",
  }


def test_removed_metrics_are_written_again(tmp_path, prepared, trained_workdir):
  def remove(metrics):
    if metrics["epoch"] == 1:
      (tmp_path / metric_writer.FILE).unlink()

  config = tiny_run.config(prepared)
  with pytest.warns(FutureWarning, match=r"metrics\.jsonl was removed"):
    result = train_loop.train_and_evaluate(config, tmp_path, remove)
  assert result.num_epochs == len(result.epochs) == 2
  assert records(tmp_path) == records(trained_workdir)


def test_metrics_replaced_by_another_program_are_appended_to(tmp_path):
  writer = metric_writer.MetricWriter(tmp_path, None)
  writer.append({"kind": "train", "step": 1, "epoch": 1})
  path = tmp_path / metric_writer.FILE
  shutil.copy(path, tmp_path / "edited")
  (tmp_path / "edited").rename(path)
  writer.append({"kind": "train", "step": 2, "epoch": 1})
  writer.close()
  assert [r["step"] for r in metric_writer.read(tmp_path)] == [1, 2]
