#!/usr/bin/env bash
# Pack a study as it is committed: report, a few figures, and the records in one file that `tar xzf` unpacks.
#     reports/pack.sh STUDY TARGET
set -euo pipefail
study=${1:?usage: reports/pack.sh STUDY TARGET} target=${2:?usage: reports/pack.sh STUDY TARGET}
mkdir -p "$target/figures"
[ -e "$study/compare.md" ] && grep -v "(compare.svg)" "$study/compare.md" >"$target/compare.md"
for figure in sensitivity exponents trend speedup routing controls sigma0; do
  for file in "$study/figures/$figure"*.svg; do
    [ -e "$file" ] && cp "$file" "$target/figures/"
  done
done
# the report, without the lines of figures that are not packed, and without folds that are then empty
grep -oE "figures/[^)]*\.svg" "$study/report.md" | sort -u | while read -r figure; do
  [ -e "$target/$figure" ] || echo "($figure)"
done | grep -vFf - "$study/report.md" | sed -zE 's#<details><summary>[^<]*</summary>\n+</details>\n+##g' >"$target/report.md"
[ -e "$study/sigma0_calibration.json" ] && cp "$study/sigma0_calibration.json" "$target/"
# of the cells, those that an answer uses
grep -rohE '"[0-9a-f]{20}"' "$study/comparisons" | tr -d '"' | sort -u | while read -r key; do
  [ -e "$study/cells/$key.json" ] && printf '%s\n' "cells/$key.json" "costs/$key.json"
done | tar -C "$study" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - asked comparisons -T - |
  xz -9 >"$target/records.tar.xz"
