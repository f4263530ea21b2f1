"""A teacher's probabilities become a part of the training targets."""

import json
import shutil

import numpy as np
import pytest
import tiny_run

from fer_jax.data.datasets import registry
from fer_jax.errors import UserError
from fer_jax.pretrained import released
from fer_jax.training import distillation, train_loop
from fer_jax.training.create_experiment import create_experiment

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture
def caches(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  return tmp_path / "cache" / "fer_jax" / "teachers"


@pytest.fixture
def teacher(tmp_path, prepared, caches):
  """The workdir of a run of one epoch."""
  workdir = tmp_path / "teacher"
  train_loop.train_and_evaluate(
    tiny_run.config(prepared, num_epochs=1), workdir
  )
  return str(workdir)


def targets(prepared, teacher, weight=0.25):
  fields = {"loss__teacher": teacher, "loss__teacher_weight": weight}
  config = tiny_run.config(prepared, **fields)
  parts = create_experiment(config)
  return parts.train_split.targets(), parts.dataset.split("train")


def test_targets_are_mixed_with_the_mean_over_an_image_and_its_mirror_image(
  prepared, teacher
):
  mixed, split = targets(prepared, teacher)
  images = split.arrays()["image"]
  model = released.load_model(teacher)
  views = [model.probabilities(x) for x in (images, images[:, :, ::-1])]
  expected = 0.75 * np.eye(7)[split.targets()] + 0.25 * np.mean(views, axis=0)
  np.testing.assert_allclose(mixed, expected, atol=1e-6)
  assert split.targets().ndim == 1  # The dataset's own stay.


def test_several_teachers_teach_the_mean_of_their_probabilities(
  tmp_path, prepared, teacher, caches
):
  other = tmp_path / "other"
  train_loop.train_and_evaluate(
    tiny_run.config(prepared, num_epochs=1, seed=1), other
  )
  one, two = (targets(prepared, name)[0] for name in (teacher, str(other)))
  both, _ = targets(prepared, f"{teacher},{other}")
  np.testing.assert_allclose(both, (one + two) / 2, atol=1e-6)
  assert np.abs(one - two).max() > 1e-3
  assert len(list(caches.iterdir())) == 2  # Those of each alone are reused.
  loss = tiny_run.config(prepared, loss__teacher=f"{teacher},nobody").loss
  with pytest.raises(UserError, match="loss.teacher=nobody cannot be used"):
    distillation.load_teacher(loss)


def test_a_teacher_whose_path_has_a_comma_is_one_teacher(tmp_path, prepared):
  (tmp_path / "a,b" / "checkpoints").mkdir(parents=True)
  loss = tiny_run.config(prepared, loss__teacher=f"{tmp_path}/a,b").loss
  with pytest.raises(UserError, match="a,b cannot be used: no best checkpoint"):
    distillation.load_teacher(loss)


def test_probabilities_are_computed_once_and_again_when_damaged(
  prepared, teacher, caches, monkeypatch
):
  predict, asked = distillation._predict, []

  def counted(*arguments):
    asked.append(arguments)
    return predict(*arguments)

  monkeypatch.setattr(distillation, "_predict", counted)
  first, _ = targets(prepared, teacher)
  (file,) = caches.iterdir()
  np.testing.assert_array_equal(targets(prepared, teacher)[0], first)
  assert len(asked) == 1
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  for damaged in (bytes(data), data[:200], b""):
    file.write_bytes(damaged)
    np.testing.assert_array_equal(targets(prepared, teacher)[0], first)
  assert len(asked) == 4


def test_loaders_and_a_resumed_run_agree(tmp_path, prepared, teacher):
  records = []
  for name, fields in (
    ("memory", {"num_epochs": 2}),
    ("stream", {"num_epochs": 2, "data_loader": "streaming"}),
    ("resumed", {"num_epochs": 1}),
    ("resumed", {"num_epochs": 2}),
  ):
    config = tiny_run.config(prepared, loss__teacher=teacher, **fields)
    result = train_loop.train_and_evaluate(config, tmp_path / name)
    records.append([epoch["train_loss"] for epoch in result.epochs])
  assert records[0] == records[1] == records[3]
  plain = train_loop.train_and_evaluate(
    tiny_run.config(prepared, num_epochs=2), tmp_path / "plain"
  )
  assert plain.epochs[0]["train_loss"] != records[0][0]


def test_a_teacher_for_other_data_is_refused(prepared, teacher):
  faces = registry.load("synthetic_faces", num_train=70, data_dir=str(prepared))
  loss = tiny_run.config(prepared, loss__teacher=teacher).loss
  model = distillation.load_teacher(loss)
  assert model
  with pytest.raises(UserError, match="has the classes a, b, c, d, e, f, g"):
    model.check_fits(faces)
  bars = registry.load("bars", data_dir=str(prepared))
  with pytest.raises(UserError, match="48 x 48 x 1.* are 64 x 48 x 1"):
    model.check_fits(bars.replace(image_shape=(64, 48, 1)))


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"loss__teacher": "nobody"}, "loss.teacher=nobody cannot be used"),
    ({"loss__teacher": "nobody"}, "released model: ferplus-resnet18"),
    ({"loss__teacher_weight": 0.0}, "loss.teacher_weight=0.0"),
    ({"loss__teacher_weight": 1.5}, "loss.teacher_weight=1.5"),
    (
      {"loss__teacher": "ferplus-small", "loss__name": "multi_target"},
      "loss.teacher=ferplus-small must be empty",
    ),
  ],
)
def test_wrong_fields_are_found_before_data_are_prepared(
  tmp_path, fields, message
):
  data = tmp_path / "data"
  with pytest.raises(UserError) as error:
    create_experiment(tiny_run.config(data, **fields))
  assert message in str(error.value) and "\n" not in str(error.value)
  assert not data.exists()


def test_checkpoints_describe_the_data_without_the_teacher(
  tmp_path, prepared, teacher
):
  config = tiny_run.config(prepared, num_epochs=1, loss__teacher=teacher)
  train_loop.train_and_evaluate(config, tmp_path / "run")
  written = json.loads((tmp_path / "run" / "config.json").read_text())
  assert written["loss"]["teacher"] == teacher
  parts = create_experiment(config)
  plain = create_experiment(tiny_run.config(prepared))
  assert parts.info()["data"] == plain.info()["data"]


def test_a_teacher_that_was_trained_further_does_not_resume_a_run(
  tmp_path, prepared, teacher
):
  def train(num_epochs):
    config = tiny_run.config(
      prepared, num_epochs=num_epochs, loss__teacher=teacher
    )
    return train_loop.train_and_evaluate(config, tmp_path / "run")

  train(1)
  config = tiny_run.config(prepared, num_epochs=3)
  train_loop.train_and_evaluate(config, teacher)
  with pytest.raises(UserError, match=r"loss.teacher=.* is not the model that"):
    train(2)


def test_a_run_is_resumed_with_its_teacher_in_another_place(
  tmp_path, prepared, teacher, capsys
):
  def train(num_epochs, teacher):
    config = tiny_run.config(
      prepared, num_epochs=num_epochs, loss__teacher=teacher
    )
    return train_loop.train_and_evaluate(config, tmp_path / "run")

  train(1, teacher)
  moved = shutil.move(teacher, tmp_path / "moved")
  assert train(2, str(moved)).num_epochs == 2
  assert train(2, str(moved)).num_epochs == 2
  capsys.readouterr()
  for other in ("ferplus-small", ""):
    with pytest.raises(UserError, match=f"loss.teacher={other} "):
      train(3, other)
  assert "teaches" not in capsys.readouterr().out


def test_a_wrong_field_is_found_before_the_teacher_predicts(
  tmp_path, prepared, teacher, caches, capsys
):
  fields = {"loss__teacher": teacher, "optimizer__learning_rate": -1.0}
  config = tiny_run.config(prepared, **fields)
  with pytest.raises(UserError, match=r"optimizer.learning_rate=-1.0 must"):
    train_loop.train_and_evaluate(config, tmp_path / "run")
  assert "teaches" not in capsys.readouterr().out
