"""Training with several processes, in short; see test_distributed_*.py."""

import os
import subprocess
import sys

import process_runs
import pytest

from fer_jax.errors import UserError
from fer_jax.training.runtime.distributed import Processes


def test_two_processes_train_and_one_of_them_reports(tmp_path, prepared):
  fields = ["--config.num_epochs=1"]
  run = process_runs.train(tmp_path / "run", prepared, 2, fields)
  assert "2 x cpu (shard_map), 2 processes" in run.stderr(0)
  assert "best epoch 1 of 1" in run.stdout(0)
  assert run.stderr(1) == run.stdout(1) == "" and "Gloo" not in run.stdout(0)
  (epoch,) = process_runs.epochs(run.workdir)
  assert epoch["step"] == process_runs.STEPS_PER_EPOCH
  assert process_runs.saved_steps(run.workdir) == [8]


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (("127.0.0.1:80", None, None), "num_processes= is missing"),
    ((None, 2, None), "coordinator_address= is missing"),
    ((None, 2, 1), "coordinator_address= is missing"),
    (("localhost", 2, 1), "must be HOST:PORT"),
    (("localhost:70000", 2, 1), "must be HOST:PORT"),
    (("localhost:7000", 2, 2), "process_id=2 must be"),
    (("localhost:7000", 0, 0), "process_id=0 must be"),
  ],
)
def test_wrong_flags_are_one_line(given, message):
  with pytest.raises(UserError, match=message):
    Processes(*given)


# Of a job with one process on each node.
SLURM = {
  "SLURM_JOB_ID": "1",
  "SLURM_STEP_NODELIST": "127.0.0.1",
  "SLURM_NTASKS": "1",
  "SLURM_PROCID": "0",
  "SLURM_LOCALID": "0",
}


def test_given_addresses_leave_all_gpus_to_a_process():
  address = f"127.0.0.1:{process_runs.free_port()}"
  code = (
    "from jax._src.xla_bridge import CUDA_VISIBLE_DEVICES as gpus\n"
    "from fer_jax.training.runtime import distributed as d\n"
    f"with d.connected(d.Processes({address!r}, 1, 0)):"
    " print(gpus.value)"
  )
  done = subprocess.run(
    [sys.executable, "-c", code],
    env=os.environ | SLURM,
    capture_output=True,
    text=True,
  )
  assert done.stdout.strip() == "all", done.stderr
