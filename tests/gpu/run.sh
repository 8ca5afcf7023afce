#!/usr/bin/env bash
# All that is worth doing on a GPU, in under 10 minutes: CUDA tests, benchmarks, the gpu tier.
#     tests/gpu/run.sh OUT
# Results go to the folder OUT. Every part runs even when one before it failed; the exit code says whether any did.
set -uo pipefail
out=${1:?usage: tests/gpu/run.sh OUT}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/../.."
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
failed=0

part() { # part SECONDS NAME COMMAND...: run with a time limit and keep the log
  local limit=$1 name=$2
  shift 2
  echo "== $name"
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  local code=$?
  tail -n 15 "$out/$name.log"
  [ $code -eq 0 ] || { echo "$name: exit $code"; failed=1; }
}

"$python" - >"$out/device.txt" <<'PY'
import torch
print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device")
PY
cat "$out/device.txt"
part 120 tests "$python" -m pytest tests/gpu -p no:cacheprovider
part 150 bench "$python" -m mue_check bench --device cuda --json "$out/bench_cuda.json"
part 40 expert_product "$python" bench/expert_product.py --device cuda --json "$out/expert_product.json"
part 280 gpu_tier "$python" -m pytest suites/ --gpus 1 --corpus markov --study "$out/gpu" -p no:cacheprovider
tar -C "$out" --exclude locks -czf "$out/gpu.tar.gz" gpu 2>/dev/null
exit $failed
