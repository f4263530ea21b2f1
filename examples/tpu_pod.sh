#!/bin/bash
# Trains on a TPU pod slice of several hosts: creates it, installs the package
# on every host, trains on all chips.
#
#   PROJECT=my-project ZONE=us-west4-a REPOSITORY=URL BUCKET=my-bucket \
#     bash examples/tpu_pod.sh
#
# Prints the lines of `fer-jax train`, from the first host. The workdir is in the
# bucket, which all hosts can reach. Run it again to resume, also on a slice of
# another size (TYPE) if 2,048 images a step divide over its chips. The image of
# the hosts has Python 3.10, so uv installs a newer one.
set -euo pipefail
name=${NAME:-fer-jax-pod}
type=${TYPE:-v5litepod-64}
zone=${ZONE:?a zone with TPUs, such as us-west4-a}
project=${PROJECT:?a Google Cloud project}
repository=${REPOSITORY:?a git URL of this repository}
bucket=${BUCKET:?a bucket of Google Cloud Storage}
tpu() { gcloud compute tpus tpu-vm "$@" --project="$project" --zone="$zone"; }

tpu describe "$name" >/dev/null 2>&1 || tpu create "$name" \
  --accelerator-type="$type" --version=v2-alpha-tpuv5-lite

tpu ssh "$name" --worker=all --command="
  test -d fer_jax || git clone $repository fer_jax
  python3 -m pip install -q --user uv && cd fer_jax &&
  { test -d .venv || ~/.local/bin/uv venv -q --python 3.12; } &&
  ~/.local/bin/uv pip install -q -e '.[tpu,gcs]'"

tpu ssh "$name" --worker=all --command="
  cd fer_jax && . .venv/bin/activate &&
  fer-jax train --config=resnet50 --distributed \
    --config.dataset.name=synthetic_faces --config.batch_size=2048 \
    --config.dtype=bfloat16 --workdir=gs://$bucket/runs/resnet50-pod"
