#!/bin/sh
# Runs the binding's tests with the module and the core inside it built for AddressSanitizer and UndefinedBehaviorSanitizer.
#
#   tests/native/asan.sh [pytest arguments]
#
# The interpreter is not built for it: the runtime is preloaded, pymalloc is switched off, and leaks are looked for by other
# tests (memory slopes in test_binding.py), because the interpreter itself leaves memory behind. PYTHON names the interpreter,
# BUILD_DIR the place for the build (default build/asan). CPython's own task tests are left out: one of them waits for a
# collection that the sanitizer's allocator delays by minutes. So are tests that start interpreters without the runtime, and
# one that relies on an address being used again, which this allocator avoids on purpose; and those of the beat, which starts
# at a rate of ends that a sanitized build does not reach.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
build=${BUILD_DIR:-$root/build/asan}

cmake -S "$root/native/python" -B "$build/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Debug \
    -DPython_EXECUTABLE="$(command -v "$python")" -DTIDEGATE_SANITIZE="address,undefined" >/dev/null
cmake --build "$build/cmake" >/dev/null

# A copy of the package with the sanitized module: the one in the tree is left alone.
rm -rf "$build/package"
mkdir -p "$build/package"
cp -R "$root/workers/tidegate" "$build/package/tidegate"
rm -f "$build/package/tidegate/executor/"_native*.so
cp "$build/cmake/"_native*.so "$build/package/tidegate/executor/"

if [ $# -eq 0 ]; then
    set -- tests/unit/executor tests/property/executor tests/native/test_binding.py tests/native/driver \
        --ignore tests/native/driver/test_cpython_tasks.py --ignore tests/native/driver/test_beat.py -q \
        -m "not slow" -k "not exit and not interpreter and not shares_one_current_task"
fi
cd "$root"
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
PYTHONPATH="$build/package" PYTHONMALLOC=malloc PYTHONDEVMODE=1 SANITIZED_BUILD=1 \
ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:halt_on_error=1:strict_string_checks=1:detect_stack_use_after_return=0:allocator_may_return_null=1 \
UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    exec "$python" -X dev -m pytest -p no:cacheprovider --timeout 600 "$@"
