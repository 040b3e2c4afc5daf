#!/bin/bash
# Names the test sources that need nothing but base, graph, ops and cpu: those that another processor can run without the
# picture libraries (make arm). A test that includes another room or a library, or calls the public functions is not among them.
cd "$(dirname "$0")/.." || exit 1
other='#include <cjson|#include "(io|hub|nn|text|model|sample|adapt|pipeline|train|eval|serve)/|#include <(cjson|png|jpeglib|webp|zlib)|\bsumi_[a-z_]+\('
files=tests/main.c
for t in tests/t_*.c; do
    parts=$t
    for h in $(sed -n 's/^#include "\([a-z_]*\)\.h".*/\1/p' "$t"); do # the tests' own helpers
        [ "$h" != test ] && [ -f "tests/$h.h" ] && parts="$parts $(ls tests/$h.[ch])"
    done
    grep -qE "$other" $parts || files="$files $parts"
done
printf '%s\n' $files | grep '\.c$' | sort -u
