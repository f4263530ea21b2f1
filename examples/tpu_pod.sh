#!/bin/bash
# Trains on a TPU pod slice: creates it, installs the package on every host, runs
# the same command on all of them.
#
#   PROJECT=my-project ZONE=us-west4-a BUCKET=gs://my-bucket bash examples/tpu_pod.sh
#
# Prints the lines of `fer-jax train` from process 0. The workdir is in a bucket,
# since the hosts of a pod share no disk. Run it again after a preemption to resume.
set -euo pipefail
name=${NAME:-fer-jax}
zone=${ZONE:?a zone with TPUs, such as us-west4-a}
project=${PROJECT:?a Google Cloud project}
bucket=${BUCKET:?a bucket, such as gs://my-bucket}
repository=${REPOSITORY:?a git URL of this repository}
tpu() { gcloud compute tpus tpu-vm "$@" --project="$project" --zone="$zone"; }

tpu describe "$name" >/dev/null 2>&1 || tpu create "$name" \
  --accelerator-type=v5litepod-64 --version=v2-alpha-tpuv5-lite

tpu ssh "$name" --worker=all --command="
  test -d fer_jax || git clone $repository fer_jax
  cd fer_jax && python3 -m venv .venv && . .venv/bin/activate &&
  pip install -q -e '.[tpu]'"

tpu ssh "$name" --worker=all --command="
  cd fer_jax && . .venv/bin/activate &&
  fer-jax train --distributed --config=resnet50 \
    --workdir=$bucket/runs/resnet50 --config.batch_size=1024 \
    --config.dtype=bfloat16"
