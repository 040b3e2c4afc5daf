#!/bin/bash
# Runs the parts of the suite and adds them up: the last line is `N passed, N failed`, with `, N skipped` where something
# could not be run. `tests/run.sh [PART...]`; without arguments every part of `make test`.
#
# A part is a function below that leaves a line of the same form last (part_sum makes it from what `count` was told). A part
# that ends otherwise, or with a non-zero status though it reports no failure, counts as one failure. The parts' whole output
# is in $BUILD/test-log/; shown is what is not plainly good.
cd "$(dirname "$0")/.." || exit 1
export BUILD=${BUILD:-build} LC_ALL=C.UTF-8
CC=${CC:-gcc}
log=$BUILD/test-log
unset SUMI_CPU SUMI_MODEL SUMI_CACHE HF_TOKEN HF_ENDPOINT HF_HOME HF_HUB_CACHE XDG_CACHE_HOME SSL_CERT_FILE

p=0 f=0 s=0
count() { # adds a line of sums; anything else is a failure
    if [[ $1 =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed(,\ ([0-9]+)\ skipped)?$ ]]; then
        p=$((p + BASH_REMATCH[1])) f=$((f + BASH_REMATCH[2])) s=$((s + ${BASH_REMATCH[4]:-0}))
    else
        f=$((f + 1))
        return 1
    fi
}
part_sum() { if [ $s = 0 ]; then echo "$p passed, $f failed"; else echo "$p passed, $f failed, $s skipped"; fi; }
good() { p=$((p + 1)); echo "ok      $*"; }
bad() { f=$((f + 1)); echo "FAILED  $*"; }
skip() { s=$((s + 1)); echo "skipped $*"; }
run() { # NAME COMMAND...: one check, good when the command is
    local name=$1 out
    shift
    if out=$("$@" 2>&1); then good "$name"; else printf '%s\n' "$out" | tail -n 20; bad "$name"; fi
}
sums() { # COMMAND...: runs it and adds its last line
    local out rc last
    out=$("$@" 2>&1)
    rc=$?
    last=$(printf '%s\n' "$out" | tail -n 1)
    printf '%s\n' "$out" | sed '$d'
    local before=$f
    count "$last" || echo "$last"
    [ $rc = 0 ] || [ $f != $before ] || bad "$* ended with status $rc"
}

# ---- parts ----

unit() { sums "$BUILD/sumi-test" ${FILTER:+"$FILTER"}; part_sum; }

# What stands on the kernels, once more on each lower instruction set; kernel checks themselves go through all of them.
masks() {
    local isa
    for isa in scalar avx2; do
        [ $isa = avx2 ] && ! grep -qw avx512vl /proc/cpuinfo && continue # avx2 is the best here, or missing
        echo "-- SUMI_CPU=$isa"
        SUMI_CPU=$isa sums "$BUILD/sumi-test" model_
    done
    part_sum
}

# The tests that work with several threads (make tsan).
threads() {
    local name
    for name in pool thread determin; do
        "$BUILD/sumi-test" -l | grep -q $name && sums "$BUILD/sumi-test" $name
    done
    part_sum
}

# Each parser on its corpus and on small changes of it.
fuzz() {
    local c name
    for c in tests/fuzz/fuzz_*.c; do
        name=$(basename "$c" .c)
        run "$name" timeout 120 "$BUILD/$name" $(ls -d "tests/fuzz/corpus/${name#fuzz_}" 2>/dev/null)
    done
    part_sum
}

example() {
    if ls models/*/*.safetensors >/dev/null 2>&1; then
        run "hello draws" "$BUILD/hello" "$log/hello.png"
        run "hello's picture is a PNG" grep -q PNG "$log/hello.png"
        run "sheet draws" "$BUILD/sheet" "$log/sheet.png" 2 "a red apple" "a cat" "a house"
        run "sheet's picture is a PNG" grep -q PNG "$log/sheet.png"
    else
        skip "hello draws: there is no model in models/"
    fi
    part_sum
}

# Every command that the pages print, and that their pictures are of these commands.
pages() {
    if ls models/pictograms/*.safetensors >/dev/null 2>&1; then
        sums tools/gallery.sh check
    else
        skip "the pages' commands: the built-in model is missing"
    fi
    part_sum
}

cli() {
    local t
    for t in tests/cli/t_*.sh; do
        sums bash "$t"
    done
    part_sum
}

# Installs below a folder of its own; a program builds against what lies there, with the flags of the pkg-config file.
install_part() {
    local at=$PWD/$log/root pc flags
    rm -rf "$at"
    run "make install" make --no-print-directory BUILD="$BUILD" CC="$CC" PREFIX=/usr/local DESTDIR="$at" install
    pc=$at/usr/local/lib/pkgconfig/sumi.pc
    if command -v pkg-config >/dev/null; then
        flags=$(PKG_CONFIG_PATH=$(dirname "$pc") PKG_CONFIG_SYSROOT_DIR=$at pkg-config --cflags --libs sumi)
        run "a program links to the shared library" $CC -std=c11 -o "$log/hello-so" examples/hello.c $flags
        run "it starts" env LD_LIBRARY_PATH="$at/usr/local/lib" "$log/hello-so" --version
    else
        skip "the pkg-config file: pkg-config is missing"
    fi
    run "the installed command starts" "$at/usr/local/bin/sumi" version
    run "the man page is current" diff <("$BUILD/sumi" help --man) docs/sumi.1
    run "the page of parameters is current" diff <("$BUILD/sumi" schema --markdown) docs/PARAMETERS.md
    run "the header compiles as C++ and as C99" both_languages
    part_sum
}
both_languages() {
    echo '#include "sumi.h"' >"$log/h.c"
    $CC -std=c99 -pedantic -Wall -Werror -Iinclude -fsyntax-only "$log/h.c" || return 1
    ! command -v clang >/dev/null || clang -x c++ -fsyntax-only -Wall -Werror -Iinclude "$log/h.c"
}

# clang has no warning to give about any source either.
warnings() {
    local flags="-std=gnu11 -D_GNU_SOURCE -fsyntax-only -Werror -Wall -Wextra -Wshadow -Wvla -Wno-unused-parameter -Iinclude -Isrc"
    if ! command -v clang >/dev/null; then
        skip "clang's warnings: clang is missing"
    else
        run "clang: the library and the command" clang $flags $(ls src/*/*.c | grep -v '^src/cpu/k_') examples/*.c
        run "clang: tests" clang $flags tests/*.c tests/cli/*.c tests/fuzz/*.c
        [ "$(uname -m)" != x86_64 ] || {
            run "clang: avx2 kernels" clang $flags -mavx2 -mfma -mf16c $(ls src/cpu/k_*.c | grep -v k_bf16_)
            run "clang: avx512 kernels" clang $flags -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mfma -mf16c src/cpu/k_*.c
        }
    fi
    part_sum
}

rules() { sums tools/lint.sh; part_sum; }

# The kernels of another processor, under an emulator: no picture libraries are needed there.
aarch64() {
    if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64 >/dev/null; then
        skip "aarch64: gcc-aarch64-linux-gnu or qemu-user is missing"
    elif ! make --no-print-directory BUILD="$BUILD" arm >"$log/aarch64-build" 2>&1; then
        tail -n 20 "$log/aarch64-build"
        bad "aarch64 build"
    else
        sums timeout 300 qemu-aarch64 "$BUILD/aarch64/kernel-test"
    fi
    part_sum
}

# ---- all together ----

mkdir -p "$log"
total_p=0 total_f=0 total_s=0
for part in "${@:-unit masks fuzz example cli pages install warnings rules aarch64}"; do
    for one in $part; do
        t0=$SECONDS
        fn=$one
        [ "$one" = install ] && fn=install_part
        p=0 f=0 s=0
        ($fn) >"$log/$one" 2>&1 </dev/null
        rc=$?
        line=$(tail -n 1 "$log/$one")
        echo "== $one: $line ($((SECONDS - t0)) s)"
        sed '$d' "$log/$one" | grep -v '^ok ' | tail -n 200
        p=0 f=0 s=0
        count "$line" || echo "FAILED  $one: no closing line"
        [ $rc = 0 ] || [ $f != 0 ] || { f=1; echo "FAILED  $one: status $rc"; }
        total_p=$((total_p + p)) total_f=$((total_f + f)) total_s=$((total_s + s))
    done
done
p=$total_p f=$total_f s=$total_s
part_sum
[ $f = 0 ] && [ $p != 0 ]
