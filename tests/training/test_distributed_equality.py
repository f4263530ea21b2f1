"""Processes and devices of one process give the same training."""

import numpy as np
import process_runs
import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("loader", ["in_memory", "streaming"])
@pytest.mark.parametrize("layout", [(2, 1), (4, 1), (2, 2)])
def test_processes_equal_devices_of_one_process(
  tmp_path, prepared, layout, loader
):
  processes, devices = layout
  fields = [
    f"--config.data_loader={loader}",
    "--config.parallel=shard_map",
    "--config.augment.shift=0.1",
    "--config.augment.flip=True",
    "--config.augment.mixup=0.2",
  ]
  one, several = tmp_path / "one", tmp_path / "several"
  total = processes * devices
  process_runs.train(one, prepared, 1, fields, devices=total)
  process_runs.train(several, prepared, processes, fields, devices=devices)
  assert len(process_runs.epochs(one)) == 2
  for mine, theirs in zip(
    process_runs.epochs(one), process_runs.epochs(several), strict=True
  ):
    for name in ("train_accuracy", "validation_accuracy", "step"):
      assert mine[name] == theirs[name]
    for name in ("train_loss", "validation_loss"):
      np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-4)
  a, b = map(process_runs.parameters, (one, several))
  difference = np.linalg.norm(a - b) / np.linalg.norm(b)
  print(f"{layout} {loader}: relative difference {difference:.1e}")
  assert difference < 1e-4
