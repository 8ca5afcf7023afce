#!/usr/bin/env bash
# Everything worth doing on a GPU, in under 9 minutes: CUDA tests, benchmarks, the gpu tier.
#
#     tests/gpu/run.sh OUT
#
# At most 5 files go to the folder OUT, packed again after every part: summary.txt, results.tar.gz (logs, tables, JSON),
# study.tar.gz (records of the gpu tier), bench.md and report.md. A part that fails, hangs or runs out of time does not
# stop the others. The exit code is then 1, except for the gpu tier, which does as much as the time allows. docs/gpu_testing.md describes the parts.
# The tier asks the questions of AXES (nine) with SHARING workers (4) on the card.
# Other settings from the environment: ONLY (the names of some parts, such as "gpu_tier report"; all by default), PYTHON,
# DEADLINE (seconds for all, 530), GRACE (seconds from SIGINT to SIGKILL, 10), REPORT (seconds kept for the report of
# the tier, 25), WORKERS (processes of the tests, 12).
set -uo pipefail
SECONDS=0
axes=${AXES:-width,depth,batch,duration,activated_experts,capacity,granularity,shared_experts,routing_hybrids}
sharing=${SHARING:-4} deadline=${DEADLINE:-530} grace=${GRACE:-10} workers=${WORKERS:-12} report=${REPORT:-25} python=${PYTHON:-python3}
out=${1:?usage: tests/gpu/run.sh OUT}
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/../.." || exit 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/results"
# where installed packages cannot be written to, each process would compile all of torch again
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 PYTHONPYCACHEPREFIX=$work/pycache
failed=0

left() { echo $((deadline - SECONDS - grace - 3)); } # seconds that a part may still take; packing takes the 3

pack() { # each file appears in OUT whole
  cp "$work/summary.txt" "$work/pack"; mv "$work/pack" "$out/summary.txt"
  tar -C "$work" -czf "$work/pack" results && mv "$work/pack" "$out/results.tar.gz"
  [ ! -d "$work/study" ] || { tar -C "$work" --exclude locks -czf "$work/pack" study && mv "$work/pack" "$out/study.tar.gz"; }
  for file in "$work/results/bench.md" "$work/study/report.md"; do
    [ ! -f "$file" ] || { cp "$file" "$work/pack"; mv "$work/pack" "$out/$(basename "$file")"; }
  done
}

part() { # part SECONDS NAME COMMAND...: run with a time limit, keep the log, pack everything so far
  local limit=$1 name=$2 began=$SECONDS code=skipped
  shift 2
  [[ -z ${ONLY:-} || " $ONLY device " = *" $name "* ]] || return 0
  ((limit <= $(left))) || limit=$(left)
  if ((limit > 0)); then
    echo "== $name (at $began s, limit $limit s)"
    # a shell that was started in the background ignores SIGINT, and so would Python
    timeout -s INT -k "$grace" "$limit" env --default-signal=INT "$@" >"$work/results/$name.log" 2>&1
    code=$?
    tail -n 12 "$work/results/$name.log"
  fi
  [ "$code" = 0 ] || [[ $code =~ ^(${accepts:-0})$ ]] || failed=1
  echo "$name: exit $code after $((SECONDS - began)) s" | tee -a "$work/summary.txt"
  pack
}

tests() { part "$1" "$2" "$python" -m pytest -p no:cacheprovider "${@:3}"; }
tier() { # may be stopped, and a second call goes on from there
  local limit=$(($(left) - report - grace))
  accepts='124|skipped' part $((limit < $1 ? limit : $1)) "$2" "$python" -m pytest -p no:cacheprovider \
    suites/ --axes "$axes" --gpus 1 --workers-per-gpu "$sharing" --durations 60 --study "$work/study"
}
report() { accepts=3 part "$report" "$1" "$python" -m mue_check report "$work/study"; }
bench() { part "$1" bench "$python" -m mue_check bench --device cuda --deadline "$2" --json "$work/results/bench.json" "${@:3}"; }

part 30 device "$python" -c \
  'import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device")'
cat "$work/results/device.log" >>"$work/summary.txt"
part 85 kernels "$python" bench/triton_kernels.py "$work/results/kernels" --until 62
tests 100 test_cuda -n "$workers" --dist worksteal tests/gpu/test_cuda.py
tests 30 test_memory -v tests/gpu/test_memory.py
bench 130 110 --only headline
tier 300 gpu_tier
report report
tests 110 test_others -v -n "$workers" --dist worksteal tests/gpu --ignore tests/gpu/test_cuda.py --ignore tests/gpu/test_memory.py
part 35 launches "$python" bench/launches.py --out "$work/results"
tier "$deadline" gpu_tier_continued
report report_of_all
exit $failed
