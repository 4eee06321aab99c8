#!/usr/bin/env bash
# Trains a small teacher on CIFAR-10, distils it and compares both, in at most three minutes: `tests/gpu/cifar.sh --help`.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$root:$root/tests${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
exec "${PYTHON:-python3}" -m gpu.cifar "$@"
