#!/usr/bin/env bash
# Builds the native core with its tests three times and runs them: as released, under the address and undefined-behaviour
# sanitizers, and under the thread sanitizer. Object files stay in the folder that is given, for the next time.
# The released objects are those of the installation's own build, where its folder is given and Ninja finds it new. The
# sanitized builds leave out instruction sets that this machine has not, which could not be run. With --build these are
# only built: they need no installation. With --arm it is one build for 64-bit ARM, run by QEMU.
#
# The thread sanitizer does not see how libgomp synchronises and would report every exchange between its threads. In that
# build the same kernels, with the same barrier, therefore run on threads of the C++ library, which it does see.
set -euo pipefail

folder=${1:?usage: native/tests/run.sh FOLDER [FOLDER OF A FINISHED BUILD | --build | --arm]}
installed=${2:-}
source_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=${JOBS:-2}

for tool in cmake ctest; do
  command -v "$tool" >/dev/null || { echo "test-native: expected $tool, got none. Install CMake 3.18 or newer."; exit 1; }
done
command -v "${CXX:-c++}" >/dev/null || { echo "test-native: expected a C++ compiler, got none. Install GCC or Clang."; exit 1; }

build() {
  local name=$1
  shift
  cmake -S "$source_folder" -B "$folder/$name" -DCELLWEAVE_NATIVE_TESTS=ON "$@" >/dev/null
  cmake --build "$folder/$name" --target cellweave_tests --parallel "$jobs" >"$folder/$name.log" 2>&1 || { tail -n 60 "$folder/$name.log"; exit 1; }
}

run() {
  echo "test-native: $1"
  (cd "$folder/$1" && OMP_NUM_THREADS=4 OMP_WAIT_POLICY=passive "${@:3}" ctest --parallel "$jobs" --output-on-failure -R "$2" | grep -vE '^( +Start|Test project|$)')
}

# Sanitized kernels are compiled with little optimisation: with -O3 the compiler would take minutes.
sanitized=(-DCMAKE_BUILD_TYPE=None)

kernels="portable;avx2"
if grep -qw avx512vl /proc/cpuinfo 2>/dev/null; then kernels+=";avx512"; fi
sanitized+=("-DCELLWEAVE_KERNELS=$kernels")

# Whether the build in this folder is that of the sources as they are, by the compiler that would be used here.
is_fresh() {
  [ -z "${CXX:-}" ] && [ -f "$1/build.ninja" ] && cmake --build "$1" --target cellweave -- -n 2>/dev/null | grep -q "no work to do"
}

build_sanitized() {
  # Undefined behaviour ends the program with an illegal instruction, which compiles in half the time that a report takes;
  # the address sanitizer then says where it was.
  build addresses "${sanitized[@]}" "-DCMAKE_CXX_FLAGS=-Og -g1 -fsanitize-undefined-trap-on-error" \
    -DCELLWEAVE_KERNEL_FLAGS=-Og -DCELLWEAVE_SANITIZE=address,undefined
  # How threads meet is the same code on every instruction set: the newest one shows it.
  build threads "${sanitized[@]}" "-DCMAKE_CXX_FLAGS=-O1 -g1" -DCELLWEAVE_KERNEL_FLAGS=-O1 \
    -DCELLWEAVE_SANITIZE=thread -DCELLWEAVE_STD_THREADS=ON "-DCELLWEAVE_KERNELS=${kernels##*;}"
}

mkdir -p "$folder"
if [ "$installed" = --build ]; then
  build_sanitized
  exit
fi
if [ "$installed" = --arm ]; then
  for tool in aarch64-linux-gnu-g++ qemu-aarch64-static; do
    command -v "$tool" >/dev/null || { echo "test-arm: expected $tool, got none. Debian: apt-get install g++-aarch64-linux-gnu qemu-user-static"; exit 1; }
  done
  build arm -DCMAKE_BUILD_TYPE=Release "-DCMAKE_TOOLCHAIN_FILE=$source_folder/tests/aarch64.cmake"
  run arm .
  exit
fi
core=""
if [ -n "$installed" ] && is_fresh "$installed"; then core=$(cd "$installed" && pwd); fi
build released -DCMAKE_BUILD_TYPE=Release "-DCELLWEAVE_CORE_OBJECTS=$core"
run released .
build_sanitized
run addresses . env ASAN_OPTIONS=handle_sigill=1
# Where addresses are random in more bits than GCC's sanitizer expects, it refuses to start.
fixed_addresses=(setarch "$(uname -m)" --addr-no-randomize)
"${fixed_addresses[@]}" true 2>/dev/null || fixed_addresses=(env)
run threads threads_test "${fixed_addresses[@]}"
