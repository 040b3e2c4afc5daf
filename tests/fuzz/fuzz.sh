#!/bin/bash
# Lets libFuzzer at every parser (built by `make fuzz`) for TIME seconds each; what it finds stays in $BUILD/found/.
# New inputs that reach new code are kept in $BUILD/corpus/, the repository's corpus is only read.
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build-fuzz} TIME=${TIME:-60}
bad=0
mkdir -p "$BUILD/found"
for f in "$BUILD"/lf_fuzz_*; do
    name=${f##*/lf_}
    [ -x "$f" ] && [ "${f%.d}" = "$f" ] || continue
    [ -z "${ONLY:-}" ] || [ "$name" = "$ONLY" ] || continue
    mkdir -p "$BUILD/corpus/$name"
    if "$f" -max_total_time="$TIME" -timeout=20 -rss_limit_mb=3000 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="$BUILD/found/$name-" "$BUILD/corpus/$name" $(ls -d "tests/fuzz/corpus/${name#fuzz_}" 2>/dev/null) >"$BUILD/$name.log" 2>&1; then
        echo "ok      $name: $(grep -m1 -o 'number_of_executed_units: *[0-9]*' "$BUILD/$name.log" | tr -s ' '), $TIME s"
    else
        bad=1
        echo "FAILED  $name: see $BUILD/$name.log and $BUILD/found/"
    fi
done
exit $bad
