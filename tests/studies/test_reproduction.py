"""The papers' tables: rows are trained within a budget, resumed and written."""

import pytest
import tiny_run

from fer_jax import reproduce
from fer_jax.errors import UserError
from fer_jax.studies import reproduction
from fer_jax.studies.papers import PAPERS, Paper, Row
from fer_jax.training.logging import metric_writer

RECIPE = """
import pathlib
import tiny_run

def get_config():
  return tiny_run.config(pathlib.Path(__file__).parent / "data")
"""


@pytest.fixture
def paper(monkeypatch, tmp_path):
  """A paper "tiny" of one row and two epochs."""
  tiny_run.register(monkeypatch)
  recipe = tmp_path / "tiny_recipe.py"
  recipe.write_text(RECIPE)
  row = Row("Tiny, run A", str(recipe), accuracy=0.18, loss=1.7599)
  monkeypatch.setitem(PAPERS, "tiny", Paper("Tiny", "No protocol.", (row,)))
  return ["tiny"]


def test_rows_stop_with_the_budget_and_are_resumed(paper, tmp_path):
  folder = tmp_path / "papers"
  (first,) = reproduction.reproduce(paper, folder, 1e-3, {})
  assert (first["epochs"], first["finished"]) == (1, False)
  assert "| 1 of 2 |" in reproduction.render([first])

  (second,) = reproduction.reproduce(paper, folder, 600, {})
  assert (second["epochs"], second["finished"]) == (2, True)
  records = metric_writer.read(folder / "runs" / "tiny-tiny-run-a")
  epochs = [r["epoch"] for r in records if r["kind"] == "epoch"]
  assert epochs == [1, 2]
  best = records[-1]  # The summary is of the best epoch.
  assert second["loss"] == pytest.approx(best["validation_loss"])
  assert second["accuracy"] == pytest.approx(best["validation_accuracy"])

  page = reproduction.render([second])
  assert "| Tiny, run A | 18.0 % |" in page and "| 2 |" in page
  assert "1.760" in page


def test_no_budget_trains_nothing(paper, tmp_path):
  assert reproduction.reproduce(paper, tmp_path / "papers", 0, {}) == []


def test_later_results_of_a_row_count(tmp_path):
  file = tmp_path / "results.jsonl"
  result = {"paper": "pan", "row": "ResNet-18", "seed": 0, "epochs": 1}
  reproduction.save(file, [result])
  reproduction.save(file, [result | {"epochs": 2}, result | {"seed": 1}])
  assert [r["epochs"] for r in reproduction.read([file])] == [2, 1]


def test_broken_results_are_one_line(tmp_path):
  (tmp_path / "results.jsonl").write_text("{")
  with pytest.raises(UserError, match="cannot read results of"):
    reproduction.read([tmp_path / "results.jsonl"])


@pytest.mark.parametrize("paper", PAPERS)
def test_every_row_has_a_recipe(paper):
  for row in PAPERS[paper].rows:
    config = reproduction.load_recipe(row, {"seed": 3})
    assert config.seed == 3
    assert row.name and reproduction.slug(row.name)


def test_unknown_papers_list_the_known(tmp_path):
  with pytest.raises(UserError, match="chang, jiang, lewis, pan, sutton"):
    reproduction.reproduce(["he"], tmp_path, 1, {})


@pytest.mark.parametrize(
  ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("7", 7)]
)
def test_budget(text, seconds):
  assert reproduce.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "8 hours", "-1h", "h"])
def test_wrong_budget(text):
  with pytest.raises(UserError, match="must be a time"):
    reproduce.seconds(text)
