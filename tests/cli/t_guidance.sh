#!/bin/bash
# Guidance by the command: parameters change the picture, are in its metadata and draw it again; what does not go together says
# so.
. tests/cli/lib.sh
tiny_data
check "a tiny model is trained" "$S" train "$T/tiny.json" --quiet
export SUMI_MODEL=$T/tiny/tiny.safetensors
cd "$T" || exit 1
few="--steps 3 --seed 5 --cfg 4 --negative red --quiet"

"$S" "square 1" $few -o plain.png >out
n=0
while read -r flags; do
    n=$((n + 1))
    "$S" "square 1" $few $flags -o "g$n.png" >out 2>err || { cat err; bad "draws with $flags"; continue; }
    if cmp -s plain.png "g$n.png"; then bad "$flags changes the picture"; else good "$flags"; fi
    "$S" "square 1" $few $flags --threads 1 -o one.png >out
    check "the same with one thread: $flags" cmp "g$n.png" one.png
    check "in low memory: $flags" "$S" "square 1" $few $flags --low-memory -o low.png
done <<'END'
--cfg -2
--cfg 0.3
--guidance-start 0.3 --guidance-stop 0.7
--cfg-mode wang_linear
--guidance-rescale 0.7
--guidance apg --apg-norm-threshold 0.5
--guidance apg_x0
--mimic-scale 2 --threshold-percentile 95
--dynamic-thresholding-ratio 0.9
--pag 3
--sag 0.75
--freeu v2
--pag 2 --sag 0.5 --freeu diffusers --guidance-rescale 0.3 --cfg-mode linear_down
END
"$S" info g10.png >out
check "the metadata has it" grep -q 'PAG scale: 3' out
"$S" --from g10.png --quiet -o again.png >out
check "and draws it again" cmp g10.png again.png

refuses 2 'choose one' x --guidance apg --mimic-scale 5
refuses 2 'cfg is 1' x --cfg 1 --guidance-rescale 0.5
refuses 2 'no self-attention' x --quiet --pag 3 --pag-layers up_blocks.9
refuses 2 'regular expression' x --pag 3 --pag-layers 'mid('
refuses 2 'not before' x --guidance-start 0.9 --guidance-stop 0.1
refuses 2 'above' x --guidance-sigma-min 0.9 --guidance-sigma-max 0.1
refuses 2 'out of range' x --guidance-rescale 2
refuses 2 'cfg-mode' x --cfg-mode wavy
refuses 2 'freeu' x --freeu v3
refuses 2 'guidance' x --guidance strict
done_testing
