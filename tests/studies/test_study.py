"""A whole study: planned, trained, taken up again, compared, written."""

import csv
import dataclasses
import errno
import json
import pathlib
import shutil
import types

import headless
import numpy as np
import pytest
import tiny_run
from ml_collections import ConfigDict

from fer_jax.data.datasets import registry
from fer_jax.data.splits import Dataset
from fer_jax.errors import Interrupted, UserError
from fer_jax.evaluation import predictions
from fer_jax.output_folder import OutputFolder
from fer_jax.recipes import get_config
from fer_jax.studies import (
  comparison,
  plan,
  run_results,
  run_study,
  same_data,
  study_report,
  training,
)
from fer_jax.training import train_loop
from fer_jax.training.logging import metric_writer
from fer_jax.training.runtime import signals

RECIPE = """
import pathlib
import tiny_run

def get_config(rate="0.001"):
  folder = pathlib.Path(__file__).parent / "prepared"
  return tiny_run.config(folder, optimizer__learning_rate=float(rate))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("study")


@pytest.fixture(autouse=True)
def known(monkeypatch):
  tiny_run.register(monkeypatch)


@pytest.fixture(scope="module")
def recipe(folder):
  (folder / "tiny.py").write_text(RECIPE)
  return str(folder / "tiny.py")


@pytest.fixture
def runs(folder, recipe):
  """Two recipes, trained when they are first asked for."""
  names = [recipe, f"{recipe}:0.01"]
  found = plan.plan(names, [0], {"num_epochs": 1}, folder)
  training.train(found)
  return found


def test_every_recipe_is_planned_with_every_seed(folder, recipe):
  runs = plan.plan(
    [recipe, f"{recipe}:0.01"], [3, 5], {"ema_decay": 0.5}, folder
  )
  assert [str(run) for run in runs] == [
    "tiny, seed 3",
    "tiny, seed 5",
    "tiny:0.01, seed 3",
    "tiny:0.01, seed 5",
  ]
  assert [run.config.seed for run in runs] == [3, 5, 3, 5]
  assert [run.config.optimizer.learning_rate for run in runs][::2] == [
    1e-3,
    0.01,
  ]
  assert all(run.config.ema_decay == 0.5 for run in runs)
  assert runs[2].workdir == folder / "runs" / "tiny-0.01-seed3"


def test_recipes_are_planned_on_another_dataset(folder):
  fields = {"dataset.name": "synthetic_faces"}
  runs = plan.plan(["jiang_ri", "ferplus_resnet18"], [0, 1], fields, folder)
  assert {run.config.dataset.name for run in runs} == {"synthetic_faces"}
  assert [run.config.seed for run in runs] == [0, 1, 0, 1]


@pytest.mark.parametrize(
  ("recipes", "seeds", "message"),
  [
    ([], [0], "configs= must name one or more"),
    (["a", "a"], [0], "configs=a,a must name one or more, each once"),
    (["tiny"], [0, 0], "seeds=0,0 must name one or more, each once"),
    (["nowhere.py"], [0], "unknown config=nowhere.py"),
    (["README.md"], [0], "unknown config=README.md"),
    (["configs/__init__.py"], [0], "failed: AttributeError: module '__init__'"),
    (["configs/sutton_alexnet.py:Z"], [0], "run of sutton_alexnet 'Z'"),
    (["configs/resnet18.py:x"], [0], "takes no choice after a colon"),
  ],
)
def test_what_cannot_be_planned_is_said(
  recipes, seeds, message, tmp_path, monkeypatch
):
  monkeypatch.chdir(pathlib.Path(__file__).parents[2])
  with pytest.raises(UserError, match=message):
    plan.plan(recipes, seeds, {}, tmp_path)


def test_a_wrong_field_is_said_before_anything_trains(recipe, tmp_path):
  with pytest.raises(UserError, match="^batch_size=0"):
    plan.plan([recipe], [0], {"batch_size": 0}, tmp_path)


@pytest.mark.parametrize(
  ("split", "message"),
  [
    ("tset", "unknown split 'tset'"),
    ("test+test", "split=test.test must name each split once"),
    ("validation+test", "dataset bars has no examples in split 'test'"),
  ],
)
def test_the_split_is_checked_before_anything_trains(
  recipe, tmp_path, monkeypatch, split, message
):
  monkeypatch.setattr(
    training, "train", lambda *_: pytest.fail("trained first")
  )
  without_test = Dataset("bars", ("a", "b"), (8, 8, 1), {})
  monkeypatch.setattr(registry, "load", lambda *_, **__: without_test)
  with pytest.raises(UserError, match=message):
    run_study.run_study([recipe], workdir=tmp_path, split=split)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"processes": -1}, "processes=-1 must be at least 0"),
    ({"seeds": 3}, "seeds=3 must be a list of integers"),
    ({"workdir": "~nouser/study"}, "~nouser/study: .*without ~"),
  ],
)
def test_wrong_arguments_of_a_study_are_one_line(recipe, arguments, message):
  with pytest.raises(UserError, match=message):
    run_study.run_study(recipe, **arguments)


def test_recipes_may_be_paths(recipe, tmp_path):
  path = pathlib.Path(recipe)
  for recipes in (path, [path], (path, recipe + ":0.1")):
    with pytest.raises(UserError, match="split 'tset'"):
      run_study.run_study(recipes, workdir=tmp_path, split="tset")


@pytest.mark.parametrize("kind", [int, ConfigDict])
def test_what_is_no_recipe_is_refused(kind):
  for recipes in (kind(), [kind()]):
    with pytest.raises(UserError, match=f"config must.*, not {kind.__name__}"):
      run_study.run_study(recipes)
  with pytest.raises(UserError, match=f"config must.*, not {kind.__name__}"):
    get_config(kind())


@pytest.mark.parametrize("seeds", [np.arange(2), iter([0, 1])])
def test_seeds_may_be_any_iterable(recipe, seeds, tmp_path):
  with pytest.raises(UserError, match="split 'tset'"):
    run_study.run_study(recipe, seeds, tmp_path, split="tset")


def test_folds_need_a_dataset_that_has_them(recipe, tmp_path):
  with pytest.raises(UserError, match="dataset bars has no folds"):
    plan.plan([recipe], [0], {}, tmp_path, all_folds=True)
  of_ckplus = pathlib.Path(__file__).parents[2] / "configs/jiang_ri.py:ckplus"
  runs = plan.plan([str(of_ckplus)], [0], {}, tmp_path, all_folds=True)
  assert [run.config.dataset.fold for run in runs] == list(range(10))
  assert runs[9].workdir.name == "jiang_ri-ckplus-seed0-fold9"


def test_folds_are_compared_on_one_split(tmp_path):
  with pytest.raises(UserError, match=r"split=validation\+test must be one"):
    run_study.run_study(
      "jiang_ri:ckplus",
      workdir=tmp_path,
      split="validation+test",
      all_folds=True,
    )


def test_what_is_done_is_not_trained_again(runs, monkeypatch):
  monkeypatch.setattr(
    train_loop, "train_and_evaluate", lambda *_: pytest.fail("trained again")
  )
  training.train(runs)


def test_a_run_of_another_configuration_is_refused(runs, folder, recipe):
  changed = plan.plan(
    [recipe], [0], {"num_epochs": 1, "ema_decay": 0.9}, folder
  )
  with pytest.raises(UserError, match="ema_decay: 0.0 -> 0.9"):
    training.train(changed)


def test_a_seed_is_not_added_on_other_data(
  runs, folder, recipe, tmp_path, monkeypatch
):
  monkeypatch.setattr(
    train_loop, "train_and_evaluate", lambda *_: pytest.fail("trained")
  )
  monkeypatch.setattr(tiny_run, "NUM_TRAIN", 128)  # in another folder
  fields = {"num_epochs": 1, "dataset.data_dir": str(tmp_path)}
  more = plan.plan([recipe], [0, 1], fields, folder)
  with pytest.raises(UserError) as error:
    training.train(more)
  assert str(error.value).startswith(
    "tiny, seed 0 was trained on other data than there are now (train: 160 ->"
    " 128 examples): use the same data,"
  )
  training.train(more[:1])  # Nothing is left to train, so nothing is opened.


def test_runs_on_other_data_are_not_compared(runs, folder, recipe):
  other = plan.plan([recipe], [1], {"num_epochs": 1}, folder / "other")[0]
  shutil.copytree(runs[0].workdir, other.workdir)
  (info,) = other.workdir.glob("checkpoints/[0-9]*/info/metadata")
  changed = json.loads(info.read_text())
  changed["data"]["num_examples"]["validation"] -= 1
  info.write_text(json.dumps(changed))
  with pytest.raises(UserError, match="1 was .* other data than tiny, seed 0"):
    same_data.check([*runs, other])
  same_data.check(runs)


def test_outcomes_are_those_of_the_runs(runs):
  found = run_results.gather(runs, "validation")
  assert [(one.recipe, one.seed) for one in found] == [
    ("tiny", 0),
    ("tiny:0.01", 0),
  ]
  for run, one in zip(runs, found, strict=True):
    summary = metric_writer.read(run.workdir)[-1]
    assert one.scores.accuracy == pytest.approx(summary["validation_accuracy"])
    assert one.scores.loss == pytest.approx(
      summary["validation_loss"], rel=1e-4
    )
    assert one.at_best("validation_loss") == pytest.approx(
      summary["validation_loss"]
    )
    assert len(one.correct) == tiny_run.NUM_VALIDATION
    metrics = json.loads((run.workdir / "report/metrics.json").read_text())
    assert metrics["validation"]["accuracy"] == one.scores.accuracy


def test_predictions_are_computed_once(runs, monkeypatch):
  first = run_results.gather(runs[:1], "validation")
  monkeypatch.setattr(
    run_results.TrainedModel, "load", lambda *_: pytest.fail("computed again")
  )
  second = run_results.gather(runs[:1], "validation")
  np.testing.assert_array_equal(first[0].probabilities, second[0].probabilities)


def test_damaged_predictions_are_computed_again(runs, folder, monkeypatch):
  class Computed(Exception):
    pass

  def compute(workdir):
    raise Computed

  run = dataclasses.replace(runs[0], workdir=folder / "damaged")
  shutil.copytree(runs[0].workdir, run.workdir)
  monkeypatch.setattr(run_results.TrainedModel, "load", compute)
  path = run.workdir / "report" / "validation_predictions.npz"
  path.parent.mkdir(exist_ok=True)
  path.write_bytes(b"")
  with pytest.raises(Computed):
    run_results.gather([run], "validation")


def test_predictions_on_a_full_disk_are_a_one_line_error(
  runs, folder, monkeypatch
):
  def fail(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")

  run = dataclasses.replace(runs[0], workdir=folder / "full")
  shutil.copytree(runs[0].workdir, run.workdir)
  path = run.workdir / "report" / "validation_predictions.npz"
  path.unlink(missing_ok=True)
  monkeypatch.setattr(run_results.np, "savez", fail)
  message = f"^cannot write {path}: No space left on device; free"
  with pytest.raises(UserError, match=message):
    run_results.gather([run], "validation")


def test_runs_share_a_time_limit(recipe, tmp_path, monkeypatch):
  now, deadlines = [0.0], []

  def train(config, workdir, *, deadline):
    deadlines.append(deadline)
    now[0] += 60

  clock = types.SimpleNamespace(monotonic=lambda: now[0])
  monkeypatch.setattr(signals, "time", clock)
  monkeypatch.setattr(train_loop, "train_and_evaluate", train)
  with pytest.raises(Interrupted, match="time limit") as stopped:
    run_study.run_study(recipe, range(4), tmp_path, {"max_minutes": 1.5})
  assert stopped.value.exit_code == 142
  assert deadlines == [90, 90]


def test_examples_are_named_by_their_images():
  def named(pixel):
    found = predictions.Predictions(
      split="validation",
      class_names=("a", "b"),
      images=np.array([[[[1]]], [[[pixel]]]], np.uint8),
      targets=np.zeros(2, int),
      rows=np.array([0, 3]),
      splits=["validation"] * 2,
      probabilities=np.full((2, 2), 0.5, np.float32),
      leaks=np.zeros(2, bool),
    )
    return run_results._example_ids(found)

  assert named(2)[0] == named(5)[0] and named(2)[1] != named(5)[1]
  assert named(2)[1].startswith("validation 3 ") and named(2) == named(2)


def test_the_report_holds_tables_pictures_and_a_page(runs, folder):
  """Class names of any script: Matplotlib warns of those it cannot draw."""
  names = ("高兴", "难过", "生气", "害怕", "惊讶", "厌恶", "中性")
  outcomes = [
    dataclasses.replace(one, class_names=names)
    for one in run_results.gather(runs, "validation")
  ]
  recipes = comparison.compare(outcomes)
  page = study_report.write(recipes, "validation", folder / "report")
  with open(folder / "report/comparison.csv") as f:
    rows = list(csv.DictReader(f))
  assert [row["recipe"] for row in rows] == ["tiny", "tiny:0.01"]
  mean = 100 * recipes[1].figure(lambda one: one.scores.accuracy).mean
  assert rows[1]["accuracy"] == f"{mean:.2f}"
  assert rows[0]["vs tiny"] == ""
  assert float(rows[1]["p (images)"].removeprefix("< ")) <= 1
  assert rows[1]["p (seeds)"] == "-"
  text = page.read_text()
  for name in ("losses", "scores", "comparison", "per_class"):
    assert f'id="{name}"' in text
  assert text.count("data:image/png;base64,") == 2 * 6
  assert 'href="../runs/tiny-seed0/report/index.html"' in text
  assert "http" not in text.replace("http-equiv", "")
  for link in ("runs/tiny-seed0", "runs/tiny-0.01-seed0"):
    assert (folder / link / "report/index.html").is_file()
  assert "Loss of the best epoch" in (folder / "report/tables.md").read_text()


def test_a_report_replaces_only_its_own_files(recipe, tmp_path, monkeypatch):
  monkeypatch.setattr(training, "train", pytest.fail)
  mine = tmp_path / "report" / "index.html"
  mine.parent.mkdir()
  mine.write_text("mine")
  with pytest.raises(UserError, match="report holds other files"):
    run_study.run_study([recipe], workdir=tmp_path)
  with pytest.raises(UserError, match="report holds other files"):
    study_report.write([], "validation", mine.parent)
  assert mine.read_text() == "mine"


def test_an_edited_report_is_refused_before_training(
  recipe, tmp_path, monkeypatch
):
  monkeypatch.setattr(training, "train", pytest.fail)
  report = OutputFolder(tmp_path / "report", kind=study_report.KIND)
  for name in ("index.html", "tables.md"):
    with report.write(name) as temporary:
      temporary.write_text("made")
  (tmp_path / "report" / "tables.md").write_text("edited")
  with pytest.raises(UserError, match="tables.md .*was changed since"):
    run_study.run_study([recipe], workdir=tmp_path)


def test_the_page_in_a_browser(runs, folder):
  recipes = comparison.compare(run_results.gather(runs, "validation"))
  page = study_report.write(recipes, "validation", folder / "report")
  headless.check_file(page, "A study of tiny, tiny:0.01")
