#!/usr/bin/env bash
# The C core's tests under address, undefined-behaviour and thread sanitizers, then the binding's tests under ASan with the
# interpreter. Usage: sanitize.sh BUILD_FOLDER; cmake, ctest, ninja and the Python to use come from PATH.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build}
python -m pip install -q --disable-pip-version-check cmake ninja

for kind in address,undefined thread; do
  folder="$build/sanitize-${kind%%,*}"
  cmake -S native -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo "-DTIDEGATE_SANITIZE=$kind" >/dev/null
  cmake --build "$folder"
  echo "the C core under $kind:"
  ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1 \
    TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 ctest --test-dir "$folder" --output-on-failure -j 2
done

echo "the binding under address, with the interpreter:"
PYTHON=python BUILD_DIR="$PWD/$build/sanitize-binding" tests/native/asan.sh
