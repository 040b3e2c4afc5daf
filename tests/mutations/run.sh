#!/bin/bash
# Proves that the suite can fail: breaks one line of the source at a time (tests/mutations/list) in a copy of the tree and
# demands that the named tests fail. `make mutate`, or `make mutate ONLY=TEXT` for the lines that contain TEXT.
# An entry that changes nothing or does not compile counts as a failure: the list must be kept with the source.
cd "$(dirname "$0")/../.." || exit 1
only=${1:-} limit=${LIMIT:-300} # seconds a test may take
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -co --exclude-standard | grep -v '^models/.*safetensors$' | tar -cf - -T - 2>/dev/null | tar -xf - -C "$copy"
list=$PWD/tests/mutations/list
cd "$copy" || exit 1
build() { make --no-print-directory OPT=-O1 build/sumi-test >make.log 2>&1; }
build || { tail -n 20 make.log; echo "the unbroken tree does not build"; exit 1; }
p=0 f=0
bad() { f=$((f + 1)) && echo "FAILED  $*"; }
while IFS= read -r line; do
    [[ $line =~ ^(#|$) ]] && continue
    [ -z "$only" ] || [[ $line == *"$only"* ]] || continue
    file=${line%% @ *} rest=${line#* @ }
    expr=${rest% @ *} filter=${rest##* @ }
    if ! cp "$file" kept 2>/dev/null; then bad "$file: no such file"; continue; fi
    sed -i -e "$expr" "$file"
    if cmp -s "$file" kept; then
        bad "changes nothing: $line"
        continue
    fi
    if ! build; then
        bad "does not compile: $line"
    elif ! build/sumi-test -l | grep -q -- "$filter"; then
        bad "no test is named so: $line"
    else
        timeout "$limit" build/sumi-test "$filter" >test.log 2>&1
        case $? in
        0) bad "not noticed by $filter: $file: $expr" ;;
        124) bad "no answer from $filter within $limit s: $file: $expr" ;;
        *) p=$((p + 1)) && echo "ok      $filter notices $file: $expr" ;;
        esac
    fi
    mv kept "$file"
    touch "$file"
done <"$list"
echo "$p passed, $f failed"
[ $f = 0 ] && [ $p != 0 ]
