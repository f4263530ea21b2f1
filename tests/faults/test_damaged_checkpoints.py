"""Checkpoints with flipped bits, missing ends and missing files."""

import pathlib
import random
import shutil

import grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from fer_jax.checksums import FILE
from fer_jax.errors import UserError
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.train_state import TrainState

STEPS = (1, 2)
# orbax reads no content of them, so that damage there changes nothing.
HARMLESS = ("_CHECKPOINT_METADATA", "commit_success.txt")


def params(step: int) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(step)
  return {
    "kernel": rng.normal(size=(64, 32)).astype(np.float32),
    "bias": rng.normal(size=7).astype(np.float32),
  }


def state(step: int) -> TrainState:
  return TrainState(
    step=jnp.array(step, jnp.int32),
    params=params(step),
    batch_stats={},
    opt_state=(np.array(step, np.float32), ()),
    ema={},
  )


def iterator(step: int) -> grain.DatasetIterator:
  batches = iter(grain.MapDataset.range(10).to_iter_dataset())
  for _ in range(step):
    next(batches)
  return batches


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> pathlib.Path:
  workdir = tmp_path_factory.mktemp("saved")
  checkpoints = Checkpoints(workdir)
  for step in STEPS:
    checkpoints.save(step, state(step), iterator(step), {"step": step})
    checkpoints.save_best(step, {"params": params(step)}, {"step": step})
  checkpoints.close()
  return workdir


@pytest.fixture
def workdir(saved, tmp_path) -> pathlib.Path:
  shutil.copytree(saved, tmp_path / "run")
  return tmp_path / "run"


def files(folder: pathlib.Path) -> list[pathlib.Path]:
  found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
  assert len(found) > 10 and folder / FILE in found
  return [path for path in found if path.stat().st_size]


def flip(path: pathlib.Path, rng: random.Random) -> None:
  data = bytearray(path.read_bytes())
  data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  path.write_bytes(data)


def truncate(path: pathlib.Path, rng: random.Random) -> None:
  path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def remove(path: pathlib.Path, rng: random.Random) -> None:
  del rng
  path.unlink()


INJECTIONS = (
  [(flip, seed) for seed in range(12)]
  + [(truncate, seed) for seed in range(4)]
  + [(remove, seed) for seed in range(2)]
  + [pytest.param(flip, s, marks=pytest.mark.slow) for s in range(12, 250)]
  + [pytest.param(truncate, s, marks=pytest.mark.slow) for s in range(4, 50)]
)


def pick(folder: pathlib.Path, rng: random.Random) -> pathlib.Path:
  names = [path for path in files(folder) if path.name not in (*HARMLESS, FILE)]
  return rng.choice(names)


@pytest.mark.parametrize(("injure", "seed"), INJECTIONS)
def test_the_checkpoint_before_a_damaged_one_is_used(workdir, injure, seed):
  rng = random.Random(seed)
  file = pick(workdir / "checkpoints" / "2", rng)
  injure(file, rng)
  checkpoints = Checkpoints(workdir)
  message, of_best = checkpoints.set_aside_damaged()
  assert str(file) in message and "resuming from step 1" in message
  assert "best/2 is newer" in of_best and checkpoints.best_step is None
  assert checkpoints.latest_step == 1
  batches = iterator(0)
  restored, info = checkpoints.restore(state(0), batches)
  jax.tree.map(np.testing.assert_array_equal, restored.params, params(1))
  assert info == {"step": 1} and next(batches) == 1
  assert list((workdir / "checkpoints").glob("damaged-best-2-*"))
  (aside,) = (workdir / "checkpoints").glob("damaged-2-*")
  assert "checksum" in aside.name or "missing" in aside.name
  # The step can be saved again, and nothing is damaged then.
  checkpoints.save(2, state(2), iterator(2), {"step": 2})
  checkpoints.close()
  again = Checkpoints(workdir)
  assert again.set_aside_damaged() == [] and again.latest_step == 2


@pytest.mark.parametrize(("injure", "seed"), INJECTIONS)
def test_a_damaged_best_is_refused(workdir, injure, seed):
  rng = random.Random(seed)
  file = pick(workdir / "checkpoints" / "best" / "2", rng)
  injure(file, rng)
  with pytest.raises(UserError, match="is damaged") as error:
    Checkpoints(workdir, read_only=True).restore_variables("best")
  assert str(file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("injure", [flip, truncate])
@pytest.mark.parametrize("name", HARMLESS)
def test_files_without_content_do_not_matter(workdir, injure, name):
  folder = workdir / "checkpoints" / "best" / "2"
  if not (folder / name).exists():
    pytest.skip(f"this version of orbax does not write {name}")
  injure(folder / name, random.Random(0))
  variables, info = Checkpoints(workdir).restore_variables("best")
  jax.tree.map(np.testing.assert_array_equal, variables["params"], params(2))
  assert info == {"step": 2}


@pytest.mark.parametrize("injure", [flip, truncate])
def test_damaged_checksums_are_damage(workdir, injure):
  injure(workdir / "checkpoints" / "2" / FILE, random.Random(1))
  checkpoints = Checkpoints(workdir)
  assert checkpoints.set_aside_damaged()
  assert checkpoints.latest_step == 1


def test_without_a_whole_checkpoint_nothing_is_renamed(workdir):
  for step in STEPS:
    truncate(
      pick(workdir / "checkpoints" / str(step), random.Random(0)),
      random.Random(0),
    )
  before = sorted((workdir / "checkpoints").iterdir())
  with pytest.raises(UserError, match="no earlier checkpoint is whole"):
    Checkpoints(workdir).set_aside_damaged()
  assert sorted((workdir / "checkpoints").iterdir()) == before


def test_old_checkpoints_without_checksums_are_read(workdir):
  for path in workdir.rglob(FILE):
    path.unlink()
  checkpoints = Checkpoints(workdir)
  assert checkpoints.set_aside_damaged() == []
  assert checkpoints.restore(state(0), iterator(0))[1] == {"step": 2}
  assert checkpoints.restore_variables("best")[1] == {"step": 2}


def test_an_old_checkpoint_that_cannot_be_read_is_set_aside(workdir):
  folder = workdir / "checkpoints" / "2"
  (folder / FILE).unlink()
  (folder / "info" / "metadata").write_bytes(b"{")
  checkpoints = Checkpoints(workdir)
  assert "unreadable" in checkpoints.set_aside_damaged()[0]
  assert checkpoints.latest_step == 1


def test_a_checkpoint_whose_deletion_was_interrupted_is_set_aside(workdir):
  (workdir / "checkpoints" / "2" / FILE).unlink()
  shutil.rmtree(workdir / "checkpoints" / "2" / "iterator")
  checkpoints = Checkpoints(workdir)
  assert "missing file" in checkpoints.set_aside_damaged()[0]
  assert checkpoints.latest_step == 1


def test_a_checkpoint_deleted_while_they_are_listed(workdir, monkeypatch):
  manager, errors = ocp.CheckpointManager, [FileNotFoundError("deleted")]

  def listed(*args, **options):
    if errors:
      raise errors.pop()
    return manager(*args, **options)

  monkeypatch.setattr(ocp, "CheckpointManager", listed)
  reader = Checkpoints(workdir, read_only=True)
  assert reader.latest_step == 2 and not errors


def test_a_best_replaced_while_it_is_read_is_read_again(workdir):
  reader = Checkpoints(workdir, read_only=True)
  writer = Checkpoints(workdir)
  writer.save_best(3, {"params": params(3)}, {"step": 3})
  writer.save(3, state(3), iterator(3), {"step": 3})
  writer.close()
  assert reader.restore_variables("best")[1] == {"step": 3}
