#!/bin/bash
# Trains on two nodes of four GPUs under Slurm, one process for each GPU.
#
#   sbatch examples/slurm.sh
#
# Prints, in slurm-JOBID.out, the lines of `fer-jax train`. When the time limit
# nears, Slurm sends SIGTERM: the run saves and exits; submit again to resume.
#
# All GPUs of a node are visible to each of its processes, which take the one of
# their number on that node: not --gpus-per-task, which hides the others. With one
# process for each node, set JAX_LOCAL_DEVICE_IDS=0,1,2,3, or GPU 0 trains alone.
# The nodes share the home, and so the cache of compiled programs in it; if they do
# not, add --config.compilation_cache=off.
#SBATCH --job-name=fer_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=02:00:00
#SBATCH --signal=TERM@120

set -euo pipefail
workdir=${WORKDIR:-$SLURM_SUBMIT_DIR/runs/resnet50-fer2013}
source "${VENV:-$SLURM_SUBMIT_DIR/.venv}/bin/activate"

srun fer-jax train --config=resnet50 --distributed --workdir="$workdir" \
  --config.batch_size=512 --config.dtype=bfloat16
