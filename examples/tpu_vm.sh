#!/bin/bash
# Trains on a TPU VM of eight chips: creates it, installs the package, trains.
#
#   PROJECT=my-project ZONE=us-west4-a REPOSITORY=URL bash examples/tpu_vm.sh
#
# Prints the lines of `fer-jax train`. Run it again to resume, while the VM exists.
# Its image has Python 3.10, so uv installs a newer one.
set -euo pipefail
name=${NAME:-fer-jax}
zone=${ZONE:?a zone with TPUs, such as us-west4-a}
project=${PROJECT:?a Google Cloud project}
repository=${REPOSITORY:?a git URL of this repository}
tpu() { gcloud compute tpus tpu-vm "$@" --project="$project" --zone="$zone"; }

tpu describe "$name" >/dev/null 2>&1 || tpu create "$name" \
  --accelerator-type=v5litepod-8 --version=v2-alpha-tpuv5-lite

tpu ssh "$name" --command="
  test -d fer_jax || git clone $repository fer_jax
  python3 -m pip install -q --user uv && cd fer_jax &&
  { test -d .venv || ~/.local/bin/uv venv -q --python 3.12; } &&
  ~/.local/bin/uv pip install -q -e '.[tpu]'"

tpu ssh "$name" --command="
  cd fer_jax && . .venv/bin/activate &&
  fer-jax train --config=resnet50 --config.dataset.name=synthetic_faces \
    --config.batch_size=1024 \
    --config.dtype=bfloat16"
