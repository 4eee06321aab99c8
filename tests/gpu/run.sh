#!/usr/bin/env bash
# Verifies everything on one GPU, in at most five minutes on an H100: `tests/gpu/run.sh --help`; tests/README.md says more.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$root:$root/tests${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -m gpu.run "$@"
