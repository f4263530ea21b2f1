"""The papers' tables and figures, theirs beside ours."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from fer_jax.errors import UserError
from fer_jax.evaluation.scores import score
from fer_jax.studies import (
  paper_notes,
  paper_overview,
  paper_page,
  paper_results,
  paper_scores,
)
from fer_jax.studies.papers import PAPERS

CLASSES = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]


def result(paper, row, seed=0, **fields):
  """A result of a run of two epochs, with random predictions."""
  rng = np.random.default_rng(seed)
  confusion = rng.integers(1, 20, (7, 7)) + 40 * np.eye(7, dtype=int)
  return {
    "paper": paper,
    "row": row,
    "seed": seed,
    "epochs": 2,
    "planned_epochs": 50,
    "finished": False,
    "best_epoch": 2,
    "class_names": CLASSES,
    "confusion": confusion.tolist(),
    "accuracy_without_leaks": 0.5,
    "loss": 1.25,
    "train_loss": 1.5,
    "minutes": 3.0,
    "machine": "a GPU",
    "curves": {
      "epoch": [1, 2],
      "train_loss": [2.0, 1.5],
      "train_accuracy": [0.2, 0.4],
      "validation_loss": [1.9, 1.25],
      "validation_accuracy": [0.3, 0.5],
    },
  } | fields


def cells(page, row, number=0):
  """The cells of the n-th line of a table that begins with a name."""
  lines = [x for x in page.splitlines() if x.startswith(f"| {row} ")]
  return [cell.strip() for cell in lines[number].strip("|").split("|")]


@pytest.mark.parametrize(
  ("row", "accuracy"),
  [  # Correct images over all, summed from the printed matrices.
    ("AlexNet, run A", 0.5836),
    ("ResNet-34, run A", 0.5894),
    ("ResNet-34, run B", 0.5984),
    ("AlexNet, run B", 0.5933),
    ("AlexNet, run C", 0.5768),
    ("CBAM-ResNet-34, 20 epochs", 0.5743),
    ("CBAM-ResNet-34, 50 epochs", 0.5974),
  ],
)
def test_suttons_matrices_are_of_all_images(row, accuracy):
  matrix = paper_scores.printed_confusion(PAPERS["sutton"].row(row))
  # Images of each class in PublicTest and PrivateTest, one sad one fewer.
  of_class = [958, 111, 1024, 1774, 1233, 1247, 831]
  assert abs(matrix.sum(axis=1) - of_class).max() <= 1
  scores = paper_scores.printed_scores(PAPERS["sutton"].row(row))
  assert scores["accuracy"] == pytest.approx(accuracy, abs=5e-5)


def test_scores_of_a_matrix_are_those_of_its_examples():
  rng = np.random.default_rng(0)
  labels, predicted = rng.integers(5, size=(2, 400))
  labels[labels == 4] = 0  # One class has no examples.
  expected = score(np.eye(5)[predicted], labels, list("abcde"), num_bootstrap=0)
  found = paper_scores.scores_of_confusion(expected.confusion)
  assert found["accuracy"] == pytest.approx(expected.accuracy)
  for kind in ("macro", "weighted"):
    for name in ("precision", "recall", "f1"):
      value = getattr(getattr(expected, kind), name)
      assert found[f"{kind}_{name}"] == pytest.approx(value), (kind, name)
  accuracies = [one.accuracy for one in expected.per_class]
  np.testing.assert_allclose(found["one_vs_rest"], accuracies)


def test_shuffled_scores_are_those_of_shuffled_labels():
  rng = np.random.default_rng(1)
  labels = rng.choice(4, p=[0.4, 0.3, 0.2, 0.1], size=2000)
  predicted = np.where(rng.random(2000) < 0.7, labels, 3 - labels)
  probabilities = np.eye(4)[predicted]

  def of(labels):
    return score(probabilities, labels, list("abcd"), num_bootstrap=0)

  many = [of(rng.permutation(labels)) for _ in range(40)]
  found = paper_scores.scores_of_confusion(of(labels).confusion)
  assert found["accuracy"] > 0.7
  accuracy = np.mean([one.accuracy for one in many])
  assert found["shuffled_accuracy"] == pytest.approx(accuracy, abs=0.01)
  f1 = np.mean([one.macro.f1 for one in many])
  assert found["shuffled_macro_f1"] == pytest.approx(f1, abs=0.01)


def test_the_overview_has_what_is_printed_or_trained():
  whole = result("sutton", "ResNet-34, run C", finished=True)
  results = [result("pan", "ResNet-18"), whole, result("chang", "ReLU")]
  shown = {line.name: line for line in paper_overview.lines(results)}
  assert shown["ResNet-101"].printed == pytest.approx(0.19)
  assert shown["ResNet-101"].ours is None
  assert shown["ResNet-18"].printed is None and not shown["ResNet-18"].finished
  one = shown["ResNet-34, run C"]  # The paper prints no matrix of it.
  confusion = np.array(whole["confusion"])
  assert one.ours == pytest.approx(np.trace(confusion) / confusion.sum())
  assert one.printed == pytest.approx(0.6093) and one.finished
  assert shown["AlexNet, run A"].printed == pytest.approx(0.5836, abs=5e-5)
  assert not {"ReLU", "ResNet-34"} & shown.keys()
  # The caption says FER+ with ten classes; this row's dataset is FER2013.
  source = result("jiang", "MobileNet on FER2013")
  assert source["row"] not in {
    line.name for line in paper_overview.lines([*results, source])
  }
  assert paper_overview.NAME in paper_page.render(results)
  assert paper_overview.NAME not in paper_page.render([results[-1]])


def test_tables_have_the_paper_and_ours():
  row = result("pan", "ResNet-101")
  page = paper_page.render([row])
  losses = cells(page, "ResNet-101")
  assert losses == [
    *("ResNet-101", "1.7495", "1.5000", "1.7232", "1.2500", "2 of 50")
  ]
  confusion = np.array(row["confusion"])
  accuracy = np.trace(confusion) / confusion.sum()
  scores = cells(page, "ResNet-101", 1)
  assert scores[1:4] == ["19 %", f"{100 * accuracy:.2f} %", "0.27"]
  shuffled = cells(page, "ResNet-101", 2)
  assert shuffled[1] == "19 %" and float(shuffled[2][:-1]) < 20
  assert cells(page, "ResNet-18") == ["ResNet-18", *5 * "-"]


def test_seeds_are_averaged():
  rows = [result("pan", "ResNet-18", seed, loss=1.0 + seed) for seed in (0, 1)]
  page = paper_page.render(rows)
  assert cells(page, "ResNet-18")[2] == "1.5000"
  assert cells(page, "ResNet-18", 4)[6] == "2"  # seeds


def test_an_unfinished_seed_is_not_averaged_with_a_finished_one():
  whole = result("pan", "ResNet-18", 0, epochs=26, finished=True)
  rows = [whole, result("pan", "ResNet-18", 1, loss=9.0)]
  page = paper_page.render(rows)
  assert cells(page, "ResNet-18")[4:] == ["1.2500", "26"]
  training = cells(page, "ResNet-18", 4)
  assert (training[4], training[6]) == ("26", "1")
  line = next(x for x in paper_overview.lines(rows) if x.name == "ResNet-18")
  assert line.finished
  assert line.ours == paper_scores.our_scores([whole])["accuracy"]
  more = result("pan", "ResNet-18", 2, epochs=30, finished=True)
  assert cells(paper_page.render([*rows, more]), "ResNet-18", 4)[6] == "2"


def test_the_machine_is_named_with_its_dtype():
  half = result("pan", "ResNet-18", dtype="bfloat16", machine="an Intel")
  page = paper_page.render([half, result("pan", "ResNet-18", 1)])
  assert cells(page, "ResNet-18", 4)[-1] == "a GPU, an Intel, bfloat16"


def test_classes_are_in_alphabetical_order():
  row = result("sutton", "AlexNet, run C")
  page = paper_page.render([row])
  header = next(x for x in page.splitlines() if "| neutral |" in x)
  assert "disgust |" in header and header.index("neutral") < header.index("sad")
  recalls = np.diag(row["confusion"]) / np.sum(row["confusion"], axis=1)
  neutral = cells(page, "AlexNet, run C", 1)[5]
  assert neutral == f"47 / {100 * recalls[6]:.0f}"  # 580 of 1,233


def test_the_page_and_its_pictures_are_written(tmp_path):
  page = tmp_path / "docs" / "papers.md"
  rows = [
    result("pan", "ResNet-18"),
    result("pan", "ResNet-34", seed=1),
    result("sutton", "AlexNet, run C"),
  ]
  paper_page.write(rows, page)
  names = [
    part.split(")")[0] for part in page.read_text().split("](images/")[1:]
  ]
  files = {file.name: file for file in (page.parent / "images").iterdir()}
  assert sorted(names) == sorted(files) and len(files) == 5
  for file in files.values():
    assert file.stat().st_size < 200_000
    assert Image.open(io.BytesIO(file.read_bytes())).width > 800


def test_a_page_of_the_users_stays_as_it_is(tmp_path):
  page = tmp_path / "mine.md"
  page.write_text("# Mine\n")
  with pytest.raises(UserError, match="mine.md exists and was not made by"):
    paper_page.write([], page)
  assert page.read_text() == "# Mine\n"
  with pytest.raises(UserError, match="page=.*Is a directory"):
    paper_page.write([], tmp_path)
  page.write_text(paper_page.render([]))
  paper_page.write([], page)
  with pytest.raises(UserError, match="cannot write .*mine.md"):
    paper_page.write([], page / "papers.md")
  paper_page.check_output(pathlib.Path(__file__).parents[2] / "docs/papers.md")


def test_a_page_without_results_has_the_settings_of_all_rows():
  page = paper_page.render([])
  lines = page.splitlines()
  for paper in PAPERS.values():
    assert paper.reference in lines
    for row in paper.rows:
      mine = [x for x in lines if x.startswith(f"| {row.name} ")]
      assert any(f"`{row.recipe}`" in x for x in mine), row.name
  rate = cells(page, "learning rate 0.01", 1)
  assert rate[1:] == ["`chang_cnn`", "979,427", "adam", "0.01", "32", "8"]
  transfer = cells(page, "MobileNet, transfer", 1)
  # Ten outputs, not the thousand of the 4,231,976 parameters for ImageNet.
  classifier = 1024 * (1000 - 10) + (1000 - 10)
  stem = 2 * 3 * 3 * 32  # gray images
  assert transfer[1:3] == [
    "`jiang_mobilenet`, from MobileNet on FER2013",
    f"{4_231_976 - classifier - stem:,}",
  ]


def test_notes_are_shown_with_their_results_only(tmp_path):
  ours, other = tmp_path / "ours.jsonl", tmp_path / "other.jsonl"
  paper_results.save(
    ours, [result("pan", "ResNet-18"), result("chang", "ReLU")]
  )
  notes = tmp_path / "ours.notes.md"
  notes.write_text(
    "# Notes\n\n## pan\n\nDepth\nhelps.\n\n## chang\n\nToo few.\n"
  )

  def page(*files):
    results = paper_results.read(files, missing_ok=True)
    return paper_page.render(results, paper_notes.read(files, results))

  assert "\nDepth helps.\n" in page(ours, other) and "Too few." in page(ours)
  paper_results.save(other, [result("pan", "ResNet-34")])
  assert "Depth" not in page(ours, other) and "Too few." in page(other, ours)
  assert "Too few." not in page(other)
  notes.write_text("# Notes\n\n## Pan\n\nDepth helps.\n")
  with pytest.raises(UserError, match="unknown paper of .*ours.notes.md 'Pan'"):
    page(ours)


def test_the_committed_notes_are_on_the_committed_page():
  root = pathlib.Path(__file__).parents[2]
  files = [root / "benchmarks" / "results" / "papers.jsonl"]
  results = paper_results.read(files)
  page = (root / "docs" / "papers.md").read_text(encoding="utf-8")
  notes = paper_notes.read(files, results)
  assert notes and page == paper_page.render(results, notes)
