"""The papers' rows are trained within a budget, resumed, and kept."""

import dataclasses
import signal
import types
from pathlib import Path

import pytest
import tiny_run

from fer_jax import reproduce
from fer_jax.errors import UserError
from fer_jax.studies import paper_page, paper_results, reproduction
from fer_jax.studies.papers import PAPERS, Paper, Row, Table
from fer_jax.training import train_loop
from fer_jax.training.logging import metric_writer, progress
from fer_jax.training.runtime import signals
from fer_jax.training.runtime.signals import Interrupted

RECIPE = """
import pathlib
import tiny_run

def get_config():
  return tiny_run.config(pathlib.Path(__file__).parent / "data")
"""


@pytest.fixture
def recipe(monkeypatch, tmp_path):
  """A recipe of two epochs."""
  tiny_run.register(monkeypatch)
  recipe = tmp_path / "tiny_recipe.py"
  recipe.write_text(RECIPE)
  return str(recipe)


@pytest.fixture
def paper(monkeypatch, recipe):
  """A paper "tiny" of one row."""
  row = Row("Tiny, run A", recipe, {"accuracy": "18%", "loss": "1.7599"})
  table = Table("Table 1", ("accuracy", "loss"), (row.name,))
  paper = Paper("Tiny", "No protocol.", (row,), (table,))
  monkeypatch.setitem(PAPERS, "tiny", paper)
  return ["tiny"]


def test_rows_stop_with_the_budget_and_are_resumed(paper, tmp_path):
  folder = tmp_path / "papers"
  (first,) = reproduction.reproduce(paper, folder, 1e-3, {})
  assert (first["epochs"], first["finished"]) == (1, False)
  assert "| 1 of 2 |" in paper_page.render([first])

  (second,) = reproduction.reproduce(paper, folder, 600, {})
  assert (second["epochs"], second["finished"]) == (2, True)
  records = metric_writer.read(folder / "runs" / "tiny-tiny-run-a")
  epochs = [r for r in records if r["kind"] == "epoch"]
  assert [r["epoch"] for r in epochs] == [1, 2]
  best = records[-1]  # The summary is of the best epoch.
  assert second["loss"] == pytest.approx(best["validation_loss"])
  assert second["accuracy"] == pytest.approx(best["validation_accuracy"])
  assert second["curves"]["train_loss"] == [r["train_loss"] for r in epochs]
  assert sum(map(sum, second["confusion"])) == tiny_run.NUM_VALIDATION

  page = paper_page.render([second])
  ours = f"{second['accuracy']:.2%}".replace("%", " %")
  assert f"| Tiny, run A |            18 % | {ours} |" in page
  assert "1.7599" in page

  warned: list[tuple[str, str]] = []
  runtime = {"log_every_steps": 1, "dataset.manual_dir": str(tmp_path)}
  for fields in (runtime, {"num_epochs": 1, "batch_size": 16}):
    kept = reproduction.reproduce(
      paper, folder, 600, fields, warn=lambda *row: warned.append(row)
    )
    assert kept == [second]
  ((row, warning),) = warned
  assert row == "tiny, Tiny, run A"
  assert "batch_size: " in warning and "num_epochs: 2 -> 1" in warning


def test_a_row_with_other_settings_is_not_the_papers(paper, tmp_path):
  fields = {"num_epochs": "1", "log_every_steps": "1", "seed": "0"}
  (other,) = reproduction.reproduce(paper, tmp_path / "other", 600, fields)
  assert other["finished"] and other["overrides"] == {"num_epochs": 1}
  assert reproduction.plan(paper, fields, [other]) == []
  (job,) = reproduction.plan(paper, {}, [other])
  assert job.config.num_epochs == 2
  page = paper_page.render([other])
  assert "| 1 of 2 |" in page and "| Tiny, run A, `num_epochs=1` |" in page

  (own,) = reproduction.reproduce(paper, tmp_path / "own", 600, {}, [other])
  assert own["finished"] and own["overrides"] == {}
  assert reproduction.plan(paper, {"num_epochs": 2}, [own, other]) == []
  page = paper_page.render([other, own])
  table, _, training = page.partition("### Training")
  assert table.count("| Tiny, run A ") == 2 and "1 of 2" not in table
  assert "| Tiny, run A  " in training and "`num_epochs=1` |" in training


def test_a_row_that_is_stopped_is_resumed(paper, tmp_path, monkeypatch):
  update = progress.Progress.update

  def interrupt(self, *args, **kwargs):
    update(self, *args, **kwargs)
    if self._epoch == 2:
      signal.raise_signal(signal.SIGTERM)

  folder, page = tmp_path / "stopped", tmp_path / "page.md"
  with monkeypatch.context() as patch:
    patch.setattr(progress.Progress, "update", interrupt)
    given = {"paper": paper, "row": [], "budget": "600s", "results": []}
    given |= {"workdir": str(folder), "page": str(page)}
    FLAGS = types.SimpleNamespace(**given)
    patch.setattr(reproduce, "flags", types.SimpleNamespace(FLAGS=FLAGS))
    patch.setattr(reproduce.model_flags, "start", lambda: None)
    patch.setattr(reproduce.config_overrides, "texts", lambda _: {})
    with pytest.raises(Interrupted):
      reproduce.main([])
  assert "| 1 of 2 |" in page.read_text()
  # As after SIGKILL, which leaves no time to record what was trained.
  (folder / reproduction.RESULTS).unlink()
  # A run of other settings is not taken for this one.
  assert reproduction.reproduce(paper, folder, 0, {"batch_size": 16}) == []
  warned: list[str] = []
  reproduction.reproduce(
    paper, folder, 600, {"batch_size": 16}, warn=lambda _, x: warned.append(x)
  )
  assert "another configuration (batch_size: 32 -> 16)" in warned[0]
  (recorded,) = reproduction.reproduce(paper, folder, 0, {})
  assert (recorded["epochs"], recorded["finished"]) == (1, False)
  (stopped,) = reproduction.reproduce(paper, folder, 600, {})
  (whole,) = reproduction.reproduce(paper, tmp_path / "whole", 600, {})
  assert stopped["finished"] and whole["finished"]
  for field in ("curves", "confusion", "best_epoch", "loss"):
    assert stopped[field] == whole[field]


def test_rows_that_start_from_others_come_after_them(
  monkeypatch, recipe, tmp_path
):
  """And a row that cannot be trained does not stop the others."""
  rows = (
    Row("transfer", recipe, overrides={"num_epochs": 1}, init_from="source"),
    Row("wrong weights", recipe, overrides={"init_from": str(tmp_path)}),
    Row("source", recipe),
  )
  monkeypatch.setitem(PAPERS, "tiny", Paper("Tiny", "", rows, ()))
  names = [job.row.name for job in reproduction.plan(["tiny"], {})]
  assert names == ["source", "wrong weights", "transfer"]
  only = reproduction.plan(["tiny"], {}, only=["transfer"])
  assert [job.row.name for job in only] == ["source", "transfer"]
  # It has one epoch anyway, but starts from weights of one epoch, too.
  *_, transfer = reproduction.plan(["tiny"], {"num_epochs": 1})
  assert transfer.row.name == "transfer"
  assert transfer.description["overrides"] == {"num_epochs": 1}

  failures: list[tuple[str, str]] = []
  folder = tmp_path / "papers"

  def reproduce(budget):
    return reproduction.reproduce(
      ["tiny"], folder, budget, {}, warn=lambda *row: failures.append(row)
    )

  reproduce(1e-3)
  found = reproduce(600)
  ((row, reason),) = failures
  assert row == "tiny, wrong weights" and reason.startswith("init_from=")
  assert {r["row"]: r["epochs"] for r in found} == {"source": 2, "transfer": 1}
  accuracy = {r["row"]: r["curves"]["train_accuracy"][0] for r in found}
  assert accuracy["transfer"] > accuracy["source"]

  # Its weights are needed here, although another machine has finished it.
  source = [r for r in found if r["row"] == "source"]
  jobs = reproduction.plan(["tiny"], {}, others=source)
  assert [job.row.name for job in jobs] == names
  (left,) = reproduction.plan(["tiny"], {}, others=found)
  assert left.row.name == "wrong weights"


def test_rows_share_a_time_limit(paper, tmp_path, monkeypatch):
  now, deadlines = [0.0], []

  def train(config, workdir, after_epoch, *, deadline, evaluate_test):
    deadlines.append(deadline)
    now[0] += 60

  clock = types.SimpleNamespace(monotonic=lambda: now[0])
  monkeypatch.setattr(signals, "time", clock)
  monkeypatch.setattr(train_loop, "train_and_evaluate", train)
  monkeypatch.setattr(paper_results, "result_of", lambda *_: {})
  row = PAPERS["tiny"].rows[0]
  rows = tuple(dataclasses.replace(row, name=str(i)) for i in range(4))
  monkeypatch.setitem(PAPERS, "tiny", Paper("Tiny", "", rows, ()))
  with pytest.raises(Interrupted, match="time limit"):
    reproduction.reproduce(paper, tmp_path / "p", 600, {"max_minutes": 1.5})
  assert deadlines == [90, 90]


def test_no_budget_trains_nothing(paper, tmp_path):
  assert reproduction.reproduce(paper, tmp_path / "papers", 0, {}) == []


def test_other_seeds_have_folders_of_their_own(paper):
  folders = {
    reproduction.plan(paper, {"seed": seed})[0].folder for seed in (0, 1)
  }
  assert folders == {"tiny-tiny-run-a", "tiny-tiny-run-a-seed1"}


@pytest.mark.parametrize("paper", PAPERS)
def test_every_row_has_a_recipe(paper):
  rows = PAPERS[paper].rows
  for row in rows:
    config = reproduction.load_recipe(row, {"seed": 3})
    assert config.seed == 3
  assert len({row.slug for row in rows}) == len(rows)


def test_unknown_papers_list_the_known(tmp_path):
  with pytest.raises(
    UserError, match="chang, jiang, lewis, pan, recipes, sutton"
  ):
    reproduction.reproduce(["he"], tmp_path, 1, {})


def test_unknown_rows_list_the_known(paper):
  with pytest.raises(UserError, match=r"unknown row 'Tiny, run B' .*run A\?"):
    reproduction.plan(paper, {}, only=["Tiny, run B"])


def test_a_row_is_of_one_paper():
  five = [name for name in PAPERS if name != "recipes"]
  with pytest.raises(
    UserError, match="ResNet-50 is .* papers: add paper=pan or paper=jiang$"
  ):
    reproduction.plan(five, {}, only=["ResNet-50"])
  (job,) = reproduction.plan(["jiang"], {}, only=["ResNet-50"])
  assert job.paper == "jiang"
  with pytest.raises(
    UserError, match=r"row 'ReLu' \(did you mean ReLU\?\): paper=NAME"
  ) as caught:
    reproduction.plan(five, {}, only=["ReLu"])
  assert len(str(caught.value)) < 160


def test_an_object_store_is_refused():
  with pytest.raises(UserError, match="workdir=s3:/.* is not a path of this"):
    reproduction.reproduce(["chang"], Path("s3://bucket/run"), 1, {})


@pytest.mark.parametrize(
  ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("7", 7)]
)
def test_budget(text, seconds):
  assert reproduce.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "8 hours", "-1h", "h"])
def test_wrong_budget(text):
  with pytest.raises(UserError, match="must be a time"):
    reproduce.seconds(text)
