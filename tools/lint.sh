#!/bin/bash
# House rules that a machine can check (docs/MAP.md names the rooms). `tools/lint.sh` is quick and part of make test;
# `tools/lint.sh cppcheck` is slow and is skipped where cppcheck is not installed.
cd "$(dirname "$0")/.." || exit 1
p=0 f=0
rule() { # NAME FINDINGS
    local found=$2
    if [ -z "$found" ]; then
        p=$((p + 1)) && echo "ok      $1"
    else
        printf '%s\n' "$found" | head -n 20
        f=$((f + 1)) && echo "FAILED  $1"
    fi
}

if [ "${1:-}" = cppcheck ]; then
    command -v cppcheck >/dev/null || { echo "skipped cppcheck: not installed"; exit 0; }
    # A block is cut into arrays before its one check for NULL; lanes of vector types are no buffer overrun.
    exec cppcheck -q --enable=warning,performance,portability --inline-suppr --error-exitcode=1 --std=c11 -j2 -D__AVX2__ -D__x86_64__ \
        --suppress=missingIncludeSystem --suppress=uninitvar --suppress=nullPointerArithmeticRedundantCheck --suppress='bufferAccessOutOfBounds:src/cpu/simd.h' --suppress='*:*_table.h' -Iinclude -Isrc src examples
fi

sources=$(ls include/*.h src/*/*.[ch] tests/*.[ch] tests/fuzz/*.c examples/*.c bench/*.[ch] 2>/dev/null)
code=$(echo "$sources" | grep -v '_table\.h$') # tables of data are exempt from lengths

rule "files are at most 800 lines" "$(wc -l $code | awk '$2 != "total" && $1 > 800 { print $2 ": " $1 " lines" }')"

# A function's body opens and closes in the first column.
rule "functions are at most 120 lines" "$(awk 'FNR == 1 { open = 0 } /^\{/ { open = FNR }
    /^\}/ { if (open && FNR - open > 120) print FILENAME ":" open ": " FNR - open " lines"; open = 0 }' $(echo "$code" | grep '\.c$'))"

rule "lines are at most 160 characters" "$(awk 'length($0) > 160 { print FILENAME ":" FNR ": " length($0) " characters" }' $code)"

rule "files begin with a comment that says their one idea" "$(for x in $sources; do head -n 1 "$x" | grep -q '^/\*' || echo "$x"; done)"

rule "nothing is left for later" "$(grep -nE '\b(TODO|FIXME|XXX)\b' $code)"

rule "the library neither prints nor ends the program" \
    "$(grep -nE '\b(printf|puts|putchar|exit|abort|assert)\(' $(ls src/*/*.[ch] | grep -v '^src/cli/'))"

rule "the command uses the public header only" "$(grep -nE '#include "[a-z]' src/cli/*.[ch] | grep -vE '"(sumi|cli/[a-z]+)\.h"')"

# Rooms import downwards: a room may include its own files, base, and those named after it. graph, ops and cpu are one storey.
rooms="base:sumi io:graph,cpu hub:io text: sample: graph:cpu,ops ops:graph cpu:graph,ops nn:graph,ops model:nn,graph,ops,cpu,io
 adapt:model,nn,graph,ops,io pipeline:model,nn,graph,ops,cpu,io,hub,text,sample,adapt
 train:pipeline,model,nn,graph,ops,cpu,io,text,sample,adapt eval:train,pipeline,io serve:"
upward() {
    local x room allowed
    for x in src/*/*.[ch]; do
        room=${x#src/} room=${room%%/*}
        [ "$room" = cli ] && continue
        allowed=$(echo $rooms | tr ' ' '\n' | sed -n "s/^$room://p" | tr ',' '|')
        sed -n 's/^#include "\([a-z]*\)[/.].*/\1/p' "$x" | grep -vE "^($room|base|sumi${allowed:+|$allowed})$" | sed "s|^|$x includes a file of |"
    done
}
rule "rooms import downwards only" "$(upward)"

# Pages that list what tables hold.
rule "docs/TRAINING.md names every key" \
    "$(sed -n 's/^static const key //; s/{"\([a-z0-9_]*\)", K_/\n@\1\n/gp' src/train/config.c | sed -n 's/^@//p' | sort -u | while read -r k; do grep -q "\`$k\`" docs/TRAINING.md || echo "$k"; done)"
rule "docs/MAP.md names every room" "$(for r in src/*/; do r=$(basename "$r"); grep -qE "^\|.*\b$r\b" docs/MAP.md || echo "$r"; done)"
rule "pages name files that exist" \
    "$(grep -ohE '`(src|tests|tools|include|models|examples|docs)/[A-Za-z0-9_./-]+`' README.md THIRD_PARTY.md docs/*.md | tr -d '`' | grep -v '[A-Z][A-Z]\.c' | grep -v FAMILY | sort -u | while read -r f; do [ -e "$f" ] || echo "$f"; done)"

echo "$p passed, $f failed"
[ $f = 0 ]
