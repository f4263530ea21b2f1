"""Checkpoints, also on a disk that fails."""

import errno

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.train_state import TrainState


def state(value: float) -> TrainState:
  params = {"kernel": np.full((3, 2), value, np.float32)}
  return TrainState(
    step=jnp.array(value, jnp.int32),
    params=params,
    batch_stats={},
    opt_state=(np.array(value, np.float32), ()),
    ema={},
  )


def batches() -> grain.DatasetIterator:
  return iter(grain.MapDataset.range(10).to_iter_dataset())


def test_state_iterator_and_info_come_back(tmp_path):
  iterator = batches()
  assert [next(iterator) for _ in range(3)] == [0, 1, 2]
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(3, state(3), iterator, {"loss": 1 / 3, "names": ["a"]})
  checkpoints.close()

  again, fresh = Checkpoints(tmp_path), batches()
  assert again.latest_step == 3
  restored, info = again.restore(state(0), fresh)
  assert isinstance(restored, TrainState)
  np.testing.assert_array_equal(restored.params["kernel"], np.full((3, 2), 3.0))
  assert info == {"loss": 1 / 3, "names": ["a"]}
  assert next(fresh) == 3


def test_the_latest_are_kept_and_one_best(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=2)
  for step in (1, 2, 3):
    checkpoints.save(step, state(step), batches(), {})
    checkpoints.save_best(step, {"params": state(step).params}, {})
  checkpoints.close()
  folders = {p.name for p in checkpoints.directory.iterdir() if p.is_dir()}
  assert folders == {"2", "3", "best"}
  assert Checkpoints(tmp_path).best_step == 3


def test_the_best_before_stays_until_the_run_knows_the_new_one(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  for step in (1, 2):
    checkpoints.save_best(step, {"params": state(step).params}, {})
    checkpoints.save(step, state(step), batches(), {})
  checkpoints.save_best(3, {"params": state(3).params}, {})
  checkpoints.close()  # The run is cut off here.
  best = checkpoints.directory / "best"
  assert {p.name for p in best.iterdir()} == {"2", "3"}
  again = Checkpoints(tmp_path)
  assert again.set_aside_damaged() == []
  assert again.best_step == 2 and {p.name for p in best.iterdir()} == {"2"}


def test_a_best_without_its_run_is_kept(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save_best(3, {"params": state(3).params}, {})
  (message,) = checkpoints.set_aside_damaged()
  assert "best/3 is newer than the rest of the run" in message
  (aside,) = checkpoints.directory.glob("damaged-best-3-*")
  assert checkpoints.best_step is None and (aside / "variables").is_dir()


def test_a_best_that_would_not_be_saved_is_an_error(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save_best(5, {"params": state(5).params}, {})
  with pytest.raises(UserError, match="step 4 is not after step 5"):
    checkpoints.save_best(4, {"params": state(4).params}, {})


def test_a_best_of_a_killed_run_is_written_again(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save_best(5, {"params": state(1).params}, {})
  checkpoints.save_best(5, {"params": state(2).params}, {})
  restored, _ = checkpoints.restore_variables("best")
  assert restored["params"]["kernel"][0, 0] == 2.0


def ended(epoch):
  return {"loop_state": {"epoch": epoch}}


def test_a_step_is_replaced_when_its_epoch_has_ended(tmp_path, monkeypatch):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(5, state(1), batches(), ended(0))
  checkpoints.save(5, state(2), batches(), ended(0))  # not needed
  assert checkpoints.restore(state(0), None)[0].params["kernel"][0, 0] == 1.0

  def killed(*_, **__):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(checkpoints._latest, "save", killed)
    checkpoints.save(5, state(3), batches(), ended(1))
  assert Checkpoints(tmp_path, read_only=True).latest_step is None
  checkpoints = Checkpoints(tmp_path)
  restored, info = checkpoints.restore(state(0), None)
  assert restored.params["kernel"][0, 0] == 1.0 and info == ended(0)
  checkpoints.save(5, state(3), batches(), ended(1))
  checkpoints.close()
  restored, info = Checkpoints(tmp_path).restore(state(0), None)
  assert restored.params["kernel"][0, 0] == 3.0 and info == ended(1)
  folders = {p.name for p in checkpoints.directory.iterdir() if p.is_dir()}
  assert folders == {"5", "best"}


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, state(1), batches(), {})
  checkpoints.close()
  checkpoints = Checkpoints(tmp_path)

  def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(checkpoints._latest, "save", full)
  with pytest.raises(
    UserError, match="No space left.*rerun the command"
  ) as error:
    checkpoints.save(2, state(2), batches(), {})
  assert "\n" not in str(error.value)
  restored, _ = Checkpoints(tmp_path).restore(state(0), batches())
  assert restored.step == 1


def test_a_broken_checkpoint_is_one_line(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, state(1), batches(), {})
  checkpoints.close()
  for file in (tmp_path / "checkpoints" / "1" / "state").rglob("*"):
    if file.is_file():
      file.write_bytes(b"")
  broken = Checkpoints(tmp_path)
  message = f"^checkpoint in {broken.directory}: .*rerun the command"
  with pytest.raises(UserError, match=message) as error:
    broken.restore(state(0), batches())
  assert "\n" not in str(error.value)


def test_half_precision_and_scalars_survive(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  tree = {"a": np.asarray(jnp.ones(3, jnp.bfloat16)), "b": np.array(7)}
  checkpoints.save_best(1, {"params": tree}, {})
  restored = checkpoints.restore_variables("best")[0]["params"]
  assert restored["a"].dtype == jnp.bfloat16 and restored["b"] == 7


def test_averages_of_parameters_only_are_completed(tmp_path):
  """Checkpoints before version 0.2 have no averages of batch statistics."""
  stats = {"mean": np.ones(2, np.float32)}
  old = state(1).replace(batch_stats=stats, ema=state(2).params)
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, old, batches(), {})
  checkpoints.close()
  expected = {"params": state(2).params, "batch_stats": stats}

  like = old.replace(ema=old.variables())
  checkpoints = Checkpoints(tmp_path)
  restored, _ = checkpoints.restore(like, batches())
  jax.tree.map(np.testing.assert_array_equal, restored.ema, expected)
  variables, _ = checkpoints.restore_variables("latest")
  jax.tree.map(np.testing.assert_array_equal, variables, expected)

  checkpoints.save(2, restored, batches(), {})
  checkpoints.close()
  checkpoints = Checkpoints(tmp_path)
  again, _ = checkpoints.restore(like, batches())
  jax.tree.map(np.testing.assert_array_equal, again.ema, expected)
  variables, _ = checkpoints.restore_variables("latest")
  jax.tree.map(np.testing.assert_array_equal, variables, expected)
