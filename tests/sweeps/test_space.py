"""Spaces: what they say, and what is said of wrong ones."""

import pathlib
from typing import Any

import pytest
import tiny_sweep

from fer_jax.configs import default
from fer_jax.errors import UserError
from fer_jax.sweeps import plan, run_sweep
from fer_jax.sweeps.space import Choice, Integer, LogUniform, Space, Uniform

SWEEPS = pathlib.Path(__file__).parents[2] / "configs" / "sweeps"


def write(folder: pathlib.Path, fields: str) -> str:
  path = folder / "space.py"
  path.write_text(
    f"from fer_jax.sweeps.space import *\ndef get_space():\n  return {fields}\n"
  )
  return str(path)


def read(folder, fields, given=(), **options):
  config = tiny_sweep.config(folder)
  space = write(folder, fields)
  return plan.plan(config, space, dict(given), folder / "sweep", **options)


def test_a_space_is_fields_and_values(tmp_path):
  planned = read(
    tmp_path,
    """{
      "optimizer.name": Choice(("sgd", "adamw")),
      "optimizer.weight_decay": Choice((0, 1e-4)),
      "model.widths": Choice(((2,), (2, 4))),
      "augment.flip": Choice((True, False)),
      "model.slope": Choice((None,)),
      "batch_size": Integer(8, 14, step=4),
      "num_epochs": 1,
    }""",
  )
  assert planned.space.num_points == planned.goal == 2 * 2 * 2 * 2 * 2
  points = list(planned.space.points())
  assert len(points) == 32
  assert points[-1] == {
    "optimizer.name": "adamw",
    "optimizer.weight_decay": 1e-4,
    "model.widths": (2, 4),
    "augment.flip": False,
    "batch_size": 12,
  }
  config = planned.configure(points[-1])
  assert (config.batch_size, config.num_epochs) == (12, 1)
  assert config.model.widths == (2, 4) and "slope" not in config.model


def test_a_field_on_the_command_line_is_not_searched(tmp_path):
  fields = '{"num_epochs": 7, "seed": Integer(0, 4), "ema_decay": Choice((0,))}'
  given = {"num_epochs": 2, "seed": 9}
  planned = read(tmp_path, fields, given)
  assert planned.space == Space({}, {"ema_decay": 0})
  assert planned.space.num_points == 1 and planned.max_epochs == 2
  assert planned.configure({}).seed == 9


@pytest.mark.parametrize("argument", [{"workers": 0}, {"num_trials": -1}])
def test_numbers_of_a_sweep_are_checked(tmp_path, argument):
  with pytest.raises(UserError, match="must be at least"):
    run_sweep.run_sweep(
      tiny_sweep.config(tmp_path), "lewis", tmp_path, **argument
    )


def test_fixed_fields_must_exist(tmp_path):
  fields = '{"seed": Integer(0, 4)}'
  with pytest.raises(UserError, match="num_epohcs .did you mean num_epochs"):
    read(tmp_path, fields, {"num_epohcs": 3})


@pytest.mark.parametrize(
  ("fields", "options", "message"),
  [
    ("{}", {}, "must return a mapping"),
    ("[1]", {}, r"must return a mapping of fields to values, not \[1\]"),
    ("Choice(())", {}, "name at least one value"),
    ("1 +", {}, "SyntaxError: invalid syntax"),
    (
      '{"optimizer.lr": Choice((1, 2))}',
      {},
      "the search space: unknown field optimizer.lr.*mean optimizer",
    ),
    ('{"optimizer": Choice((1, 2))}', {}, "optimizer is a section"),
    ("{3: Choice((1, 2))}", {}, "unknown field 3"),
    (
      '{"batch_size": Choice((8, 2.5))}',
      {},
      "batch_size=2.5 must be an integer",
    ),
    ('{"seed": LogUniform(1, 9)}', {}, "seed=1.0 must be an integer"),
    ('{"augment.flip": 1}', {}, "augment.flip=1 must be true or false"),
    ('{"optimizer.name": None}', {}, "optimizer.name=None must be a string"),
    ('{"batch_size": Choice((8, 0))}', {}, "^batch_size=0 must be"),
    ('{"model.name": "resnet20"}', {}, "unknown model 'resnet20'"),
    ('{"seed": Choice((1, 1))}', {}, "name each value once"),
    ('{"ema_decay": Choice((0, 0.0))}', {}, "name each value once"),
    ('{"seed": Choice("ab")}', {}, "name at least one value, as a tuple"),
    ('{"ema_decay": Uniform(0.5, 0.1)}', {}, "low < high"),
    ('{"ema_decay": LogUniform(0, 0.1)}', {}, "a low above 0"),
    ('{"seed": Integer(0, 2.5)}', {}, "be integers"),
    (
      '{"ema_decay": Uniform(0.1, 0.5)}',
      {"sampler": "grid", "num_trials": 3},
      "sampler=grid cannot enumerate ema_decay",
    ),
    (
      '{"ema_decay": Uniform(0.1, 0.5)}',
      {},
      "the number of trials is missing: ema",
    ),
  ],
)
def test_a_wrong_space_is_one_line(tmp_path, fields, options, message):
  with pytest.raises(UserError, match=message) as raised:
    read(tmp_path, fields, **options)
  assert "\n" not in str(raised.value)


def test_a_space_may_be_a_path_or_its_fields(tmp_path):
  config = tiny_sweep.config(tmp_path)
  fields = {"seed": Integer(0, 3), "num_epochs": 1}
  file = write(tmp_path, repr(fields))
  spaces = [
    plan.plan(config, space, {}, tmp_path / "sweep").space
    for space in (file, pathlib.Path(file), fields)
  ]
  assert spaces[0] == spaces[1] == spaces[2]
  assert spaces[2].describe() == {
    "seed": repr(fields["seed"]),
    "num_epochs": "1",
  }
  wrong: Any
  for wrong, message in (
    (5, "space must be a name, such as lewis:grid, or a Python file, not int"),
    ({}, "space={} must have at least one field"),
  ):
    with pytest.raises(UserError, match=message):
      plan.plan(config, wrong, {}, tmp_path)


def test_a_space_must_be_there(tmp_path):
  config = default.get_config().lock()
  with pytest.raises(UserError, match="unknown space=none.py: give a name"):
    plan.plan(config, "none.py", {}, tmp_path)
  with pytest.raises(UserError, match="default.py failed: AttributeError"):
    plan.plan(config, str(SWEEPS.parent / "default.py"), {}, tmp_path)


@pytest.mark.parametrize(
  ("space", "num_points"),
  [("lewis.py", 10), ("lewis.py:grid", 20), ("optimizers.py", 3)],
)
def test_lewis_spaces_are_the_papers(space, num_points, tmp_path):
  config = default.get_config().lock()
  planned = plan.plan(config, str(SWEEPS / space), {}, tmp_path)
  assert planned.goal == num_points
  fixed: dict[str, Any] = {"num_epochs": 15, "best_metric": "validation_loss"}
  if "optimizers" in space:
    fixed = {
      "optimizer.learning_rate": 5e-4,
      "schedule.name": "fixed",
      "batch_size": 64,
      "num_epochs": 10,
    }
  assert planned.space.fixed == fixed


def test_every_space_says_how_to_search_it():
  for path in SWEEPS.glob("[a-z]*.py"):
    text = path.read_text()
    assert f"--space=configs/sweeps/{path.name}" in text


def test_other_stages_of_lewis_search_are_refused(tmp_path):
  config = default.get_config().lock()
  with pytest.raises(UserError, match="unknown stage.*'x': .* bayesian, grid"):
    plan.plan(config, str(SWEEPS / "lewis.py:x"), {}, tmp_path)


def test_ranges_are_within_their_ends():
  assert LogUniform(1e-4, 1).ends == Uniform(1e-4, 1).ends == (1e-4, 1.0)
  assert Integer(2, 9, step=3).ends == (2, 8)
  assert Choice((3, "a")).ends == (3, "a")


def test_the_metric_of_a_space_counts(tmp_path):
  fields = {"seed": Integer(1, 2), "best_metric": "validation_loss"}
  planned = tiny_sweep.plan(tmp_path, fields)
  assert planned.config.best_metric == "validation_accuracy"
  assert planned.metric == "validation_loss"
  assert planned.direction == "minimize"
  searched = '{"best_metric": Choice(("validation_loss", "train_loss"))}'
  with pytest.raises(UserError, match="best_metric cannot be searched"):
    read(tmp_path, searched)
