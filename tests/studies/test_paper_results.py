"""Results of the papers' rows: files of several machines are put together."""

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.studies import paper_results

RESULT = {
  "paper": "pan",
  "row": "ResNet-18",
  "seed": 0,
  "epochs": 1,
  "finished": False,
}


def test_later_results_of_a_row_replace_earlier_ones(tmp_path):
  file = tmp_path / "results.jsonl"
  paper_results.save(file, [RESULT])
  paper_results.save(file, [RESULT | {"epochs": 2}, RESULT | {"seed": 1}])
  assert [r["epochs"] for r in paper_results.read([file])] == [2, 1]


def test_of_several_machines_the_furthest_result_counts(tmp_path):
  files = [tmp_path / f"{i}.jsonl" for i in range(3)]
  finished = {"epochs": 4, "finished": True}
  for file, fields in zip(
    files, ({"epochs": 9}, finished, {"epochs": 5}), strict=True
  ):
    paper_results.save(file, [RESULT | fields])
  assert paper_results.read(files) == [RESULT | finished]
  assert paper_results.read(files[::2])[0]["epochs"] == 9


def test_all_images_may_be_in_the_training_split():
  epoch = {"epoch": 1, "validation_loss": 1.0, "train_loss": 1.0, "seconds": 9}
  epoch |= {"train_accuracy": 0.5, "validation_accuracy": 0.5}
  records = [{"kind": "epoch", "best": True, **epoch}]
  labels, leaks = np.array([0, 1]), np.ones(2, bool)
  scores = paper_results.scores_of_run(
    records, "ab", labels, np.zeros(2, int), leaks
  )
  assert scores["accuracy_without_leaks"] == scores["accuracy"] == 0.5


def test_files_of_results_must_exist(tmp_path):
  with pytest.raises(UserError, match="cannot read results of .*nope.jsonl"):
    paper_results.read([tmp_path / "nope.jsonl"])


def test_broken_results_are_one_line(tmp_path):
  (tmp_path / "results.jsonl").write_text("{")
  with pytest.raises(UserError, match="cannot read results of"):
    paper_results.read([tmp_path / "results.jsonl"])
