#!/bin/bash
# Trains on all GPUs of a node under Slurm.
#
#   sbatch examples/slurm.sh
#
# Prints, in slurm-JOBID.out, the lines of `fer-jax train`. When the time limit
# nears, Slurm sends SIGTERM: the run saves and exits; submit again to resume.
#SBATCH --job-name=fer_jax
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=4
#SBATCH --cpus-per-task=16
#SBATCH --time=02:00:00
#SBATCH --signal=TERM@120

set -euo pipefail
workdir=${WORKDIR:-$SLURM_SUBMIT_DIR/runs/resnet50-fer2013}
source "${VENV:-$SLURM_SUBMIT_DIR/.venv}/bin/activate"

srun fer-jax train --config=resnet50 --workdir="$workdir" \
  --config.batch_size=256 --config.dtype=bfloat16
