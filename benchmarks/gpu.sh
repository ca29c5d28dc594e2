#!/usr/bin/env bash
# Everything that a GPU has to show, in one command on a machine with PyTorch and no network: bash benchmarks/gpu.sh OUT [SECONDS [ARGUMENTS OF gpu.py]]
# Packages that the machine lacks may lie as wheels in .whl/ (pip download --no-deps ... -d .whl); they are put beside the others for this call.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:?usage: bash benchmarks/gpu.sh OUT [SECONDS [ARGUMENTS]]}"
if compgen -G ".whl/*.whl" >/dev/null; then
  site="$(mktemp -d)"
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" .whl/*.whl
  export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
exec python3 benchmarks/gpu.py --out "$out" --budget "${2:-540}" "${@:3}"
