#!/usr/bin/env bash
# Right first, then fast: what a person with an NVIDIA GPU runs, in at most ten minutes.
#
#     bench/gpu.sh              # PYTHON=... for another python than python3
#
# Needs torch, triton and pytest, and no network. Stops at the first wrong answer. Rows are appended to
# bench/results/*.csv; when OUT names a folder, they and the logs are copied there. Anything that is not measured is
# not written.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
unset TRITON_INTERPRET
logs=$(mktemp -d)
trap keep EXIT

keep() {
  if [ -n "${OUT:-}" ]; then
    mkdir -p "$OUT"
    cp "$logs"/*.log "$OUT"/ 2>/dev/null || true
    cp bench/results/roofline.csv bench/results/gpu_peers.csv "$OUT"/ 2>/dev/null || true
  fi
  rm -rf "$logs"
}

# stage NAME SECONDS COMMAND...: run it with a limit, and keep what it says.
stage() {
  local name=$1 seconds=$2 status=0
  shift 2
  echo "== $name"
  timeout --kill-after=10 "$seconds" "$@" 2>&1 | tee "$logs/$name.log" || status=$?
  if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
    echo "== $name: stopped after $seconds s" | tee -a "$logs/$name.log"
  elif [ "$status" -ne 0 ]; then
    echo "== $name: failed, exit status $status. Nothing after it was run." | tee -a "$logs/$name.log"
  fi
  return "$status"
}

"$python" - <<'PYTHON'
import importlib.util, sys

missing = [name for name in ("torch", "triton", "safetensors", "pytest") if not importlib.util.find_spec(name)]
if missing:
    sys.exit(f"bench/gpu.sh needs {', '.join(missing)}: pip install {' '.join(missing)}")
import torch

if not torch.cuda.is_available():
    sys.exit("bench/gpu.sh measures on an NVIDIA GPU, and torch sees none here. Nothing was measured.")
PYTHON

nvidia-smi --query-gpu=name,driver_version,clocks.sm,memory.total --format=csv,noheader || true

# A kernel that falls back to its simpler form warns; that is no wrong answer.
# Compiling takes most of its time, so several processes share it where pytest-xdist is there.
workers=()
if "$python" -c 'import xdist' 2>/dev/null; then workers=(-n 8); fi
stage ops 240 "$python" -m pytest tests/test_ops.py -q -x -k cuda ${workers[@]+"${workers[@]}"} \
  -W default::UserWarning -p no:cacheprovider
stage check 100 "$python" -m bench.gpu_check
stage roofline 180 "$python" -m bench.roofline || test $? -eq 124  # rows up to there are written
stage peers 60 "$python" -m bench.gpu_peers || test $? -eq 124
echo "== done in $SECONDS s"
