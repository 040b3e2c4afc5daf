#!/bin/bash
# Prompt-to-Prompt by the command: edits change the picture, are in its metadata and draw it again; bad words and numbers say so.
. tests/cli/lib.sh
tiny_data
check "a tiny model is trained" "$S" train "$T/tiny.json" --quiet
export SUMI_MODEL=$T/tiny/tiny.safetensors
cd "$T" || exit 1
few="--steps 5 --seed 5 --cfg 4 --quiet"

"$S" "square 2" $few -o plain.png >out
"$S" "square 1" $few -o source.png >out
n=0
while read -r flags; do
    n=$((n + 1))
    eval "set -- $flags"
    "$S" "square 2" $few "$@" -o "p$n.png" >out 2>err || { cat err; bad "draws with $flags"; continue; }
    if cmp -s plain.png "p$n.png"; then bad "$flags changes the picture"; else good "$flags"; fi
    "$S" "square 2" $few "$@" --threads 1 -o one.png >out
    check "the same with one thread: $flags" cmp "p$n.png" one.png
    "$S" "square 2" $few "$@" --low-memory -o low.png >out
    check "the same in low memory, but for its metadata: $flags" cmp <(tail -c 200 "p$n.png") <(tail -c 200 low.png)
    "$S" --from "p$n.png" --quiet -o again.png >out
    check "drawn again: $flags" cmp "p$n.png" again.png
done <<'END'
--edit-from-prompt "square 1"
--edit-from-prompt "square 1" --p2p-mode refine --p2p-cross-steps "1, 2:0.1-0.5" --p2p-self-steps 0.2-0.9
--edit-from-prompt "a square" --p2p-blend 2 --p2p-blend-threshold 0.9 --sampler euler_a
--edit-from-prompt "square 1" --p2p-reweight "square:2, 2:-0.5" --p2p-blend "1, 2" --p2p-blend-subtract square
--p2p-reweight "square:3"
END
"$S" info p1.png >out
check "the metadata has it" grep -q 'P2P source prompt: square 1' out
"$S" "square 2" $few --edit-from-prompt "square 1" --count 3 -o "many-%d.png" >out
check "a picture of several is what it is alone" cmp p1.png many-1.png
"$S" "square 1" $few --save-latents a.safetensors -o x.png >out
"$S" "square 2" $few --edit-from-prompt "square 1" --p2p-blend 2 --p2p-blend-threshold 1 --p2p-blend-start 0 \
    --save-latents b.safetensors -o y.png >out
check "where nothing may change the source comes out" cmp a.safetensors b.safetensors
check "a plan" "$S" plan "square 2" --edit-from-prompt "square 1" --steps 5

refuses 2 "'circle' is not in the prompt" "square 2" --quiet --p2p-reweight circle:2
refuses 2 "WORD:FACTOR" "square 2" --quiet --p2p-reweight square:big
refuses 2 "not in either prompt" "square 2" --quiet --edit-from-prompt "square 1" --p2p-blend circle
refuses 2 "0 to 1" "square 2" --quiet --edit-from-prompt "square 1" --p2p-self-steps 2
refuses 2 "as many words" "square 2" --quiet --edit-from-prompt "a square 1" --p2p-mode replace
refuses 2 "p2p-mode" "square 2" --quiet --edit-from-prompt "square 1" --p2p-mode swap
refuses 2 "chooses its own" "square 2" --quiet --edit-from-prompt "square 1" --sampler dpm_adaptive
refuses 2 "does not go with --pag" "square 2" --quiet --edit-from-prompt "square 1" --pag 3
done_testing
