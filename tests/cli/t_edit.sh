#!/bin/bash
# Editing pictures from the command line, with a model that a few training steps made.
. tests/cli/lib.sh
tiny_data
check "a tiny model is trained" "$S" train "$T/tiny.json" --quiet
export SUMI_MODEL=$T/tiny/tiny.safetensors
cd "$T" || exit 1
few="--steps 2 --quiet --seed 3"

# Sides of a PNG.
sides() { head -c 24 "$1" | od -An -tu1 -j 16 | awk '{ print $3 * 256 + $4 "x" $7 * 256 + $8 }'; }
"$S" "a square" $few --size 16x16 -o base.png >out
"$S" "a square" $few --size 32x16 -o wide.png >out
"$S" "a square" $few --init-image base.png --strength 0.6 -o over.png >out
same "a picture's size is the result's" "$(sides over.png)" 16x16
check "strength in the metadata" grep -qa 'Denoising strength: 0.6' over.png
"$S" "a square" $few --init-image base.png --strength 0.6 --threads 1 -o over1.png >out
check "same bits on one thread" cmp over.png over1.png
"$S" "a square" $few --init-image base.png --strength 0.9 -o far.png >out
check "another strength, another picture" [ "$(cmp -s over.png far.png; echo $?)" = 1 ]
for mode in resize crop fill latent; do
    "$S" "a square" $few --init-image wide.png --size 16x24 --resize-mode $mode -o $mode.png >out
    same "--resize-mode $mode" "$(sides $mode.png)" 16x24
done
same "four modes, four pictures" "$(cksum resize.png crop.png fill.png latent.png | cut -d' ' -f1 | sort -u | wc -l)" 4
"$S" "a square" $few --init-image base.png -o base.webp >out
"$S" "a square" $few --init-image base.webp -o from-webp.jpg >out
same "WebP in, JPEG out" "$(head -c 3 from-webp.jpg | od -An -tx1 | tr -d ' \n')" ffd8ff
"$S" "a square" $few --init-image base.png --outpaint-right 16 --outpaint-down 8 -o more.png >out
same "an extended picture" "$(sides more.png)" 32x24
"$S" "a square" $few --size 16x16 --hires-upscale 2 -o hires.png >out
same "hires fix" "$(sides hires.png)" 32x32
"$S" "a square" $few --size 16x16 --hires-height 24 --hires-upscaler Lanczos --hires-steps 1 -o hires2.png >out
same "hires fix to a height" "$(sides hires2.png)" 24x24
check "plan of hires fix" grep -q '^peak' <("$S" plan --size 16x16 --hires-upscale 2)
check "plan of an edit" grep -q '^peak' <("$S" plan --init-image base.png)
"$S" "a square" $few --size 16x16 --tile x -o tile.png >out
check "edges that meet change the picture" [ "$(cmp -s tile.png base.png; echo $?)" = 1 ]

# A mask: a picture is white enough for one.
"$S" "a square" $few --init-image base.png --mask base.png --mask-blur 0 -o masked.png >out 2>err || cat err
same "a mask" "$(sides masked.png)" 16x16
check "mask blur in the metadata" grep -qa 'Mask blur: 0' masked.png
"$S" "a square" $few --init-image base.png --invert 1 --invert-prompt "a square" --invert-refine 1 \
    --save-inverted inverted.safetensors -o back.png >out
check "the inversion in the metadata" grep -qa 'Invert: True, Invert prompt: a square, Invert refine: 1' back.png
"$S" --from back.png --quiet -o back2.png >out
check "an inversion again from its picture" cmp back.png back2.png
"$S" "a square" $few --size 16x16 --init-latents inverted.safetensors -o back3.png >out
same "from the saved inversion" "$(sides back3.png)" 16x16
check "plan counts the inversion" grep -q '"steps": 6,' <("$S" plan --init-image base.png --steps 2 --invert 1 --invert-refine 1 --json)
refuses 2 'invert needs a picture' x --invert 1
refuses 2 'nothing is inverted' x --init-image base.png --save-inverted y.safetensors
refuses 2 '16x16, the init image 32x16' x --init-image wide.png --mask base.png
refuses 1 'no-such.png' x --init-image no-such.png
refuses 1 'tiny.json' x --init-image tiny.json
refuses 2 'strength.*out of range' x --init-image base.png --strength 2
refuses 2 'needs a picture' x --mask base.png
refuses 2 'leaves none' x --init-image base.png --strength 0 --edit-rules diffusers
refuses 1 'no-such.png' plan --init-image no-such.png
done_testing
