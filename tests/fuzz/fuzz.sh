#!/bin/bash
# Lets libFuzzer at every parser (built by `make fuzz`) for TIME seconds each, JOBS at a time; ONLY="NAME..." (fuzz_gguf) for
# some.
# Prints a line for each: how many inputs it ran, what they reached, what was found; fails when anything was. What was found
# stays in $BUILD/found/, inputs that reach new code in $BUILD/corpus/; the repository's corpus is only read.
cd "$(dirname "$0")/../.." || exit 1
export BUILD=${BUILD:-build-fuzz} TIME=${TIME:-60}
mkdir -p "$BUILD/found"

one() { # NAME
    local fuzzer=$BUILD/lf_$1 log=$BUILD/$1.log corpus=tests/fuzz/corpus/${1#fuzz_} found
    mkdir -p "$BUILD/corpus/$1"
    "$fuzzer" -max_total_time="$TIME" -timeout=20 -rss_limit_mb=3000 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="$BUILD/found/$1-" "$BUILD/corpus/$1" $([ -d "$corpus" ] && echo "$corpus") >"$log" 2>&1
    local rc=$? runs
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    found=$(find "$BUILD/found" -name "$1-*" | wc -l)
    printf '%-18s %4d s %12s inputs  %-10s  %s found\n' "$1" "$TIME" "${runs:-?}" "$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)" "$found"
    [ $rc = 0 ] && [ "$found" = 0 ] && [ -n "$runs" ] || { tail -n 3 "$log"; echo "FAILED  $1: see $log"; return 1; }
}
export -f one

[ -n "${ONLY:-}" ] || ONLY=$(for f in tests/fuzz/fuzz_*.c; do basename "$f" .c; done)
printf '%s\n' $ONLY | xargs -P "${JOBS:-1}" -I{} bash -c 'one {}'
