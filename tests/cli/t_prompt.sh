#!/bin/bash
# Prompts by the command: sumi prompt, --emphasis, long prompts, networks, Midjourney's suffixes. The tiny model has 14 tokens
# between the marks.
. tests/cli/lib.sh
tiny_data
check "a tiny model is trained" "$S" train "$T/tiny.json" --quiet
export SUMI_MODEL=$T/tiny/tiny.safetensors
cd "$T" || exit 1
few="--steps 3 --seed 5 --quiet"

"$S" prompt "square [1:2:0.5] AND (red:1.3):0.5 <lora:x:1>" --steps 4 --sampler euler >out
same "sides, calls, weights, networks" "$(grep -cE '^prompt, side 1 of 2, weight 1$|^  calls 1 to 3 of 4$|^  calls 4 to 4 of 4$|^prompt, side 2 of 2, weight 0.5$|^      1.3 |^network lora: x:1$' out)" 6
same "JSON is one line" "$("$S" prompt "a b" --json | wc -l)" 1
same "a chunk for each BREAK" "$("$S" prompt "a BREAK b BREAK c" | grep -c ' chunk ')" 3
same "twice the calls with Heun" "$("$S" prompt "a" --steps 4 --sampler heun | sed -n 's/.* of \([0-9]*\)$/\1/p' | head -n 1)" 8
same "none: all is text" "$("$S" prompt "(a:1.2) BREAK b" --emphasis none | grep -cE ' chunk |^      1 ')" 2

"$S" "square 1" $few -o plain.png >out
differs() { # NAME PROMPT FLAGS...
    local name=$1
    shift
    if "$S" "$@" $few -o other.png >out 2>err && ! cmp -s plain.png other.png; then good "$name"; else cat err; bad "$name"; fi
}
equal() {
    local name=$1
    shift
    if "$S" "$@" $few -o other.png >out 2>err && cmp -s <(tail -c 300 plain.png) <(tail -c 300 other.png); then good "$name"; else cat err; bad "$name"; fi
}
differs "a weight changes the picture" "(square:1.5) 1"
differs "so does an edit" "square [1:2:0.5]"
differs "and AND" "square 1 AND square 2"
differs "and what stands beyond the first chunk" "square 1, square 2, square 3, square 4, square 5, square 6, square 7, square 8 9"
equal "a weight of one is none" "(square:1) 1"
equal "a network is left out" "square 1<lora:x:1>"
same "and reported" "$("$S" "square 1<lora:x:1>" --steps 1 --seed 1 -o n.png 2>&1 >out | grep -c 'lora:x:1>: left out')" 1
for m in no_norm ignore none comfy compel diffusers; do
    check "draws with --emphasis $m" "$S" "(square:1.2) 1" --negative "(2)" --emphasis $m $few -o "$m.png"
done
same "Midjourney's suffixes" "$("$S" "square 1 --seed 9 --no fog --repeat 2" --steps 2 --quiet | tr '\n' ' ')" \
    "square-1-9.png square-1-10.png "
check "the negative prompt is theirs" grep -aq "Negative prompt: fog" square-1-9.png
refuses 2 'sref in the prompt is unknown' "square --sref 3"
refuses 2 '250 brackets' "$(printf '(%.0s' {1..300})"
refuses 2 "'1.2.3', which is no number" "(a:1.2.3)"
refuses 2 'emphasis' "a" --emphasis loud
refuses 2 'prompt is empty|needs a prompt' prompt
done_testing
