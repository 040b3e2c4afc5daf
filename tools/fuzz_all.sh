#!/bin/bash
# Every fuzzer for so many minutes each, two at a time, with AddressSanitizer and UndefinedBehaviorSanitizer (clang's libFuzzer):
#   tools/fuzz_all.sh MINUTES [NAME...]      NAME: fuzz_gguf ...; all without
# Prints a line for each, with the number of inputs it ran, what it reached and what it found; fails when one found anything.
# What was found stays in build-fuzz/found/, new inputs in build-fuzz/corpus/. JOBS=N runs N at a time, BUILD=... elsewhere.
cd "$(dirname "$0")/.." || exit 1
minutes=${1:-}
[[ $minutes =~ ^[0-9]+$ && $minutes != 0 ]] || { sed -n '2,5s/^# \?//p' "$0"; exit 2; }
shift
export BUILD=${BUILD:-build-fuzz} TIME=$((minutes * 60))
jobs=${JOBS:-2}
make --no-print-directory CC="${CC:-clang}" BUILD="$BUILD" OPT=-O1 \
    EXTRA="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined" fuzz-build || exit 1
names=("$@")
[ ${#names[@]} != 0 ] || for f in tests/fuzz/fuzz_*.c; do names+=("$(basename "$f" .c)"); done
mkdir -p "$BUILD/found"
printf '%s\n' "${names[@]}" | nice -n 19 xargs -P "$jobs" -I{} bash -c '
    log=$BUILD/{}.log
    ONLY={} tests/fuzz/fuzz.sh >"$BUILD/{}.line" 2>&1
    rc=$?
    runs=$(sed -n "s/^stat::number_of_executed_units: *//p" "$log")
    cov=$(grep -o "cov: [0-9]*" "$log" | tail -n 1)
    found=$(find "$BUILD/found" -name "{}-*" | wc -l)
    printf "%-18s %12s inputs  %-12s %s found\n" {} "${runs:-?}" "${cov:-}" "$found"
    [ $rc = 0 ] && [ "$found" = 0 ] && [ -n "$runs" ] || { tail -n 3 "$log"; exit 1; }'
rc=$?
echo "${#names[@]} fuzzers, $minutes minutes each: $([ $rc = 0 ] && echo nothing found || echo "see $BUILD/found and $BUILD/fuzz_*.log")"
[ $rc = 0 ]
