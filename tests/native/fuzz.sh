#!/usr/bin/env bash
# Feeds mutated bytes to the readers of the crash journal, of the outcome log and of histograms, under address and undefined-behaviour sanitizers.
# Usage: FUZZ_S=seconds fuzz.sh BUILD_FOLDER. What fails is left in BUILD_FOLDER/fuzz/crash-input.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build}/fuzz
root=$PWD
python -m pip install -q --disable-pip-version-check cmake ninja
cmake -S native -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTIDEGATE_SANITIZE=address,undefined >/dev/null
cmake --build "$build"
cd "$build"
for target in journal outlog histogram; do
  ends=$((SECONDS + ${FUZZ_S:-30}))
  rounds=0
  while [ $SECONDS -lt $ends ]; do
    ./fuzz/fuzz_$target --rounds 100000 --seed $RANDOM$RANDOM "$root/native/fuzz/corpus/$target" >/dev/null
    rounds=$((rounds + 100000))
  done
  echo "fuzz_$target: $rounds inputs, none failed"
done
