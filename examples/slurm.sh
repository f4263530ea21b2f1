#!/bin/bash
# Trains on the GPUs of two nodes under Slurm: one process per GPU.
#
#   sbatch examples/slurm.sh
#
# Prints, in slurm-JOBID.out, the lines of `fer-jax train` from process 0. When the
# time limit nears, Slurm sends SIGTERM: the run saves and exits; submit again to
# resume.
#SBATCH --job-name=fer_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=4
#SBATCH --time=02:00:00
#SBATCH --signal=TERM@120

set -euo pipefail
# A folder that every node sees.
workdir=${WORKDIR:-$SLURM_SUBMIT_DIR/runs/resnet50-fer2013}
source "${VENV:-$SLURM_SUBMIT_DIR/.venv}/bin/activate"

srun fer-jax train --distributed --config=resnet50 --workdir="$workdir" \
  --config.batch_size=256 --config.dtype=bfloat16
