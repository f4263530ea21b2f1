"""What can be trained together, and what is said of what cannot."""

import pathlib

import pytest
import tiny_run

from fer_jax.errors import UserError
from fer_jax.training import alike
from fer_jax.training.together import train_together


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  return tmp_path_factory.mktemp("prepared")


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
  tiny_run.register(monkeypatch)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"batch_size": 16}, "batch_size is 32 in the first and 16 in run 2"),
    ({"optimizer__momentum": 0.5}, "optimizer.momentum is 0.9 in the first"),
    ({"schedule__step_epochs": (1.0,)}, r"step_epochs \(number\) is 2 in"),
  ],
)
def test_runs_that_differ_in_more_are_refused(
  tmp_path, prepared, fields, message
):
  configs = [tiny_run.config(prepared), tiny_run.config(prepared, **fields)]
  with pytest.raises(UserError, match=f"{message}.*train that one apart"):
    train_together(configs, [tmp_path / "a", tmp_path / "b"])
  assert not list(tmp_path.iterdir())


def test_what_cannot_be_trained_together_is_said(tmp_path, prepared):
  config = tiny_run.config(prepared)
  with pytest.raises(UserError, match="2 configurations need as many workdirs"):
    train_together([config] * 2, [tmp_path / "a"] * 2)
  spread = tiny_run.config(prepared, parallel="auto")
  with pytest.raises(UserError, match="over 4 devices.*--config.parallel=jit"):
    train_together([spread] * 2, [tmp_path / "a", tmp_path / "b"])
  assert not list(tmp_path.iterdir())


def test_runs_are_sorted_into_groups(prepared):
  fields = (
    {"seed": 0, "optimizer__learning_rate": 0.05},
    {"seed": 1, "optimizer__weight_decay": 0.01},
    {"seed": 2, "schedule__name": "plateau"},
    {"model__stem": "imagenet"},
    {"overfit": 8},
    {"overfit": 8, "seed": 1},
    {"overfit": 8, "optimizer__learning_rate": 0.5},
    {"model__stem": "imagenet", "seed": 4},
  )
  configs = [tiny_run.config(prepared, **one) for one in fields]
  assert alike.groups(configs) == [[0, 1, 2], [3, 7], [4, 6], [5]]
