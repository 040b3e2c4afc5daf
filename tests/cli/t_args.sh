#!/bin/bash
# Wrong calls give one line and the right status, before anything is drawn; help and version do not fail.
. tests/cli/lib.sh

refuses 2 'did you mean --steps' x --stpes 3
refuses 2 'did you mean --threads' x --thread 3
refuses 2 'unknown option --qqqqqqqq' x --qqqqqqqq
refuses 2 'unknown option -z' x -z
refuses 2 'not a whole number' x --steps abc
refuses 2 'not a whole number' x --steps 2.5
refuses 2 'not a whole number' x --steps ''
refuses 2 'out of range' x --steps 100000
refuses 2 'out of range' x --steps -1
refuses 2 'out of range' x --count 0
refuses 2 'not a number' x --cfg nan
refuses 2 'not a number' x --cfg=high
refuses 2 'not a number|not a whole number|out of range' x --seed 1e400
refuses 2 'needs a value' x --steps
refuses 2 'WIDTHxHEIGHT' x --size 128
refuses 2 'WIDTHxHEIGHT' x --size 128x
refuses 2 'WIDTHxHEIGHT' x --size 128x128x3
refuses 2 'out of range' x --size 100000x100000
refuses 2 'out of range' x --threads 0
refuses 2 'not a whole number' x --threads two
refuses 2 'cpu|instruction' x --cpu abacus
refuses 2 'takes no value' x --quiet=yes
refuses 2 'empty' ''
refuses 2 'empty' '   '
refuses 2 'quotes' a red apple
refuses 2 'unknown kind of picture' x -o x.bmp
refuses 2 'percent sign' x -o '50%.png'
refuses 2 'name is empty' x -o ''
refuses 2 'too long' x -o "$(printf '%0300d' 0).png"
refuses 1 'folder' x -o "$T/missing/x.png"
refuses 1 'folder' x -o /proc/x.png
refuses 1 'not a folder|Not a directory' x -o "$PWD/Makefile/x.png"
refuses 1 'missing.safetensors' x -o "$T/x.png" --model "$T/missing.safetensors"
printf 'line\nbreak' >"$T/a
b"
refuses 1 '' inspect "$T/a
b"
refuses 2 'did you mean generate' help genrate
refuses 2 "no command 'nothing-like-it'" help nothing-like-it
refuses 2 'needs a file' inspect
refuses 2 'too many' inspect a b
refuses 2 'needs a configuration' train
refuses 2 'pictures' score
refuses 2 'too many' version 1
refuses 1 'missing.json' train "$T/missing.json"

"$S" >"$T/out" 2>"$T/err"
same "without arguments: status 2" $? 2
check "without arguments: how to call it" grep -q Usage "$T/err"
same "version" "$("$S" version --cpu scalar --threads 1)" \
    "sumi $(sed -n 's/^#define SUMI_VERSION "\(.*\)"/\1/p' include/sumi.h) (scalar, 1 threads)"
same "--exact: direct sums of the instruction set that --cpu or SUMI_CPU names" "$("$S" version --cpu scalar --exact; SUMI_CPU=scalar "$S" version --exact --threads 1)" \
    "$("$S" version --cpu scalar-exact; "$S" version --cpu scalar-exact --threads 1)"
check "and of the best one" bash -c "'$S' version --exact | grep -q -- '-exact, '"
check "--version" "$S" --version
check "--help" "$S" --help
for c in generate grid info schema inspect plan schedule train score tokenize pull models version help; do
    "$S" help $c >"$T/a" && "$S" $c --help >"$T/b"
    check "help $c and $c --help are the same" cmp "$T/a" "$T/b"
    check "help $c has examples" grep -q '^Examples' "$T/a"
    check "help $c fits 110 columns" awk 'length($0) > 110 { exit 1 }' "$T/a"
    check "sumi --help names $c" grep -q "^  $c " <("$S" --help)
done
"$S" version >/dev/full 2>"$T/err"
same "standard output full: status 1" $? 1
check "the man page has every option of generate" bash -c '
    for o in $("$0" help generate | grep -oE -- "--[a-z]+" | sort -u); do
        "$0" help --man | tr -d "\\\\" | grep -qF -e "$o" || exit 1
    done' "$S"
done_testing
