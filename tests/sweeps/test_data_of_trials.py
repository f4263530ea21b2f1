"""A sweep whose data change is refused: its trials could not be ranked."""

import shutil

import numpy as np
import pytest
import tiny_sweep
from PIL import Image

from fer_jax.errors import UserError
from fer_jax.sweeps import trials, worker
from fer_jax.sweeps.space import Integer
from fer_jax.sweeps.trial_store import TrialStore
from fer_jax.training import run_data, train_loop


@pytest.fixture
def plan(tmp_path, monkeypatch):
  """A sweep of two trials on a folder of images; none can be trained."""
  monkeypatch.setattr(
    train_loop, "train_and_evaluate", lambda *_, **__: pytest.fail("trained")
  )
  for label, name in enumerate(("happy", "sad")):
    (tmp_path / "faces" / name).mkdir(parents=True)
    for i in range(20):
      pixels = np.full((8, 8), 40 * label + i, np.uint8)
      Image.fromarray(pixels).save(tmp_path / "faces" / name / f"{i:02}.png")
  config = tiny_sweep.config(tmp_path)
  with config.unlocked():
    for split in ("train", "validation", "test"):
      del config.dataset[f"num_{split}"]
    config.dataset.name = "folder"
    config.dataset.manual_dir = str(tmp_path / "faces")
    config.dataset.holdout_validation = 0.2
  return tiny_sweep.plan(tmp_path, {"seed": Integer(0, 1)}, config=config)


def test_trials_on_other_data_are_refused(plan, tmp_path, monkeypatch):
  store = TrialStore(plan)
  claim = store.claim()
  assert claim
  config = plan.configure(claim.trial.point)
  data = run_data.describe(config)
  assert data
  store.check_data(config, data)
  store.finish(claim, trials.COMPLETE, score=0.5, best_epoch=1, seconds=1.0)
  store.check_data_of_trials()
  for i in range(20, 23):
    shutil.copy(
      tmp_path / "faces/sad/00.png", tmp_path / f"faces/sad/{i:02}.png"
    )
  changed = "sweep started with .train: 32 -> 34 ex.*; validation: 8 -> 9 exa"
  with pytest.raises(UserError, match=changed):
    worker.work(plan)
  assert len(store.trials()) == 1  # The second is not claimed.
  monkeypatch.setattr(TrialStore, "check_data_of_trials", lambda self: None)
  with pytest.raises(UserError, match=changed):  # changed during the sweep
    worker.work(plan)
