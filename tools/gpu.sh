#!/usr/bin/env bash
# Right first, then fast: what a person with an NVIDIA GPU runs.
#
#     tools/gpu.sh              # all of it, at most eight minutes; PYTHON=... for another python than python3
#     tools/gpu.sh --headline   # only what has a target
#     tools/gpu.sh --sweep      # the tiles of every kernel beside those that are chosen
#     tools/gpu.sh --profile    # Nsight Compute on the three kernels that are furthest from their floors
#     tools/gpu.sh --dry        # a rehearsal that needs no GPU, measures nothing and leaves no rows
#
# Needs torch, triton and pytest, and no network. Logs and rows go to the folder that OUT names, rows else to
# bench/results and logs to a temporary folder, each line as soon as it is known. A stage that fails or takes too
# long loses nothing of the others; the exit status says at the end whether any did.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
mode=${1:-all}
budget=480  # seconds for all stages together
rehearse=()
case $mode in
  all | --sweep | --profile) unset TRITON_INTERPRET ;;
  --headline)
    unset TRITON_INTERPRET
    budget=200
    ;;
  --dry)
    rehearse=(--rehearse)
    unset TRITON_INTERPRET
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    budget=${BUDGET:-1800}
    export OUT=$scratch GPUZIP_LOOPS=0  # nothing is timed, so numba need not compile
    ;;
  *)
    sed -n '2,/^set/p' "$0" | grep '^#'
    exit 2
    ;;
esac
logs=${OUT:-$(mktemp -d)}
mkdir -p "$logs"
failed=()

# stage NAME SECONDS COMMAND...: run it for so long, or for what is left; what it says is kept line by line.
stage() {
  local name=$1 seconds=$2 left=$((budget - SECONDS)) status
  shift 2
  if [ "$left" -lt 5 ]; then
    echo "== $name: left out, since $budget s are over"
    failed+=("$name")
    return
  fi
  [ "$seconds" -le "$left" ] || seconds=$left
  echo "== $name, $SECONDS s in"
  timeout --kill-after=10 "$seconds" "$@" 2>&1 | tee "$logs/$name.log"
  status=${PIPESTATUS[0]}
  if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
    echo "== $name: stopped after $seconds s; what it printed until then holds" | tee -a "$logs/$name.log"
  elif [ "$status" -ne 0 ]; then
    echo "== $name: exit status $status" | tee -a "$logs/$name.log"
  fi
  [ "$status" -eq 0 ] || failed+=("$name")
}

"$python" - "$mode" <<'PYTHON' || exit 1
import importlib.util, sys

missing = [name for name in ("torch", "triton", "safetensors", "pytest") if not importlib.util.find_spec(name)]
if missing:
    sys.exit(f"tools/gpu.sh needs {', '.join(missing)}: pip install {' '.join(missing)}")
import torch, triton

if sys.argv[1] != "--dry" and not torch.cuda.is_available():
    sys.exit("tools/gpu.sh measures on an NVIDIA GPU, and torch sees none here. Nothing was measured.")
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
print(f"{gpu}, torch {torch.__version__}, triton {triton.__version__}, python {sys.version.split()[0]}")
PYTHON
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || true

# Warnings of newer versions are no wrong answers. Compiling takes most of the time, so processes share it.
tests=(-m pytest tests/test_ops.py -q -W default -p no:cacheprovider --maxfail=50)
if "$python" -c 'import xdist' 2>/dev/null; then tests+=(-p xdist -n 12); fi

case $mode in
  --dry)
    stage precompile 300 "$python" -m tools.roof.precompile --few --jobs 2
    stage ops 120 "$python" -m pytest tests/test_ops.py -q -W default -p no:cacheprovider --maxfail=50 \
      -m "" -k "matches_its_reference and topk"
    stage headline 600 "$python" -m tools.roofline --headline --rehearse --kernel decode hamming_scan "PQ search"
    stage check 300 "$python" -m tools.gpu_check --rehearse
    stage rest 300 "$python" -m tools.roofline --rest --rehearse --kernel pack_bits
    stage sweep 300 "$python" -m tools.roofline --sweep --rehearse --kernel lloyd
    stage peers 60 "$python" -m tools.gpu_peers --rehearse
    stage profile 60 "$python" -m tools.roof.profile --rehearse
    echo "== a rehearsal: nothing was measured"
    ;;
  --sweep) stage sweep 300 "$python" -m tools.roofline --sweep ;;
  --profile) stage profile 300 "$python" -m tools.roof.profile ;;
  --headline)
    stage precompile 90 "$python" -m tools.roof.precompile
    stage headline 120 "$python" -m tools.roofline --headline
    ;;
  all)
    stage precompile 90 "$python" -m tools.roof.precompile
    stage ops 120 "$python" "${tests[@]}" -k "a_gpu or cuda"
    stage headline 120 "$python" -m tools.roofline --headline
    stage check 120 "$python" -m tools.gpu_check
    stage rest 150 "$python" -m tools.roofline --rest
    stage peers 60 "$python" -m tools.gpu_peers
    ;;
esac

if [ "${#failed[@]}" -gt 0 ]; then
  echo "== done in $SECONDS s; not clean: ${failed[*]}"
  exit 1
fi
echo "== done in $SECONDS s; every stage is clean"
