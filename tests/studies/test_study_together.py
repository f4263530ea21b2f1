"""A study whose runs are trained at once."""

import pytest
import tiny_run

from fer_jax.errors import UserError
from fer_jax.studies import plan, training


@pytest.fixture(autouse=True)
def known(monkeypatch):
  tiny_run.register(monkeypatch)


def test_runs_together(tmp_path, capsys):
  """In groups, by what has to be the same; failures are said at the end."""
  (tmp_path / "few.py").write_text("""
import pathlib
import tiny_run

def get_config(rate="0.01"):
  folder = pathlib.Path(__file__).parent / "prepared"
  small = {"model__widths": (2,), "model__dense": 4, "input__image_size": 8}
  return tiny_run.config(
    folder,
    model__name="leaky_cnn",
    optimizer__name="sgd",
    optimizer__learning_rate=float(rate),
    **small,
  )
""")
  few = str(tmp_path / "few.py")
  runs = plan.plan([few, f"{few}:1e38"], [0, 1], {"num_epochs": 1}, tmp_path)
  runs += plan.plan([few], [2], {"num_epochs": 2}, tmp_path)
  with pytest.raises(UserError, match="2 of 5 runs failed.*few:1e38, seed 0"):
    training.train(runs, together=True)
  done = [training.is_done(run) for run in runs]
  assert done == [True, True, False, False, True]
  shown = capsys.readouterr().out
  assert "4 at once: few, seed 0; few, seed 1; few:1e38, seed 0" in shown
  assert "1 at once: few, seed 2" in shown
