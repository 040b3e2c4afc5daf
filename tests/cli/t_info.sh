#!/bin/bash
# Parameters there and back: info, --from, --prompts, wildcards, grid, schema, with a model that a few training steps made.
. tests/cli/lib.sh
tiny_data
check "a tiny model is trained" "$S" train "$T/tiny.json" --quiet
export SUMI_MODEL=$T/tiny/tiny.safetensors
cd "$T" || exit 1
few="--steps 2 --quiet"

# ---- info and --from ----
"$S" "a red apple, {big|small}" --negative "blurry" --cfg 2.3456789 --rng torch --count 2 --seed 5 $few -o 'a-%d.png' >out
check "info prints the prompt" grep -qE '^a red apple, (big|small)$' <("$S" info a-2.png)
check "info prints the parameters" grep -qE '^Steps: 2, Sampler: .*, CFG scale: 2.3456788, Seed: 6, Size: 16x16, Model hash: [0-9a-f]{10}, Model: tiny, RNG: CPU, ' <("$S" info a-2.png)
same "the hash is SHA-256's" "$("$S" info a-2.png | grep -oE 'Model hash: [0-9a-f]+')" \
    "Model hash: $(sha256sum "$SUMI_MODEL" | cut -c 1-10)"
"$S" --from a-2.png -q -o again.png >out
check "--from draws the same file but for the template" \
    cmp <("$S" info --json a-2.png | grep -o '"fields".*"Model"') <("$S" info --json again.png | grep -o '"fields".*"Model"')
"$S" --from again.png -q -o third.png >out
check "--from draws the same file" cmp again.png third.png
"$S" --from a-2.png -q -o again.webp >out
"$S" --from again.webp -q -o fourth.png >out
check "through WebP too" cmp again.png fourth.png
"$S" --from a-2.png --seed 5 -q -o over.png >out
check "flags go before the picture's parameters" grep -q 'Seed: 5,' <("$S" info over.png)
"$S" --from a-2.png "another {one|one}" -q -o words.png >out
same "words too" "$("$S" info words.png | head -n 1)" "another one"
cp "$SUMI_MODEL" "other name.safetensors"
"$S" "x" --model "./other name.safetensors" --seed 1 $few -o named.png >out
check "a model's file is named" grep -q 'Model file: ./other name.safetensors' <("$S" info named.png)
"$S" --from named.png -q -o named2.png >out
check "and found again" cmp named.png named2.png
sed "s|\"name\": \"tiny\", \"output\": \"$T/tiny\", \"seed\": 7|\"name\": \"tiny\", \"output\": \"$T/tiny2\", \"seed\": 8|" \
    tiny.json >tiny2.json
check "another model is trained" "$S" train tiny2.json --quiet
SUMI_MODEL=$T/tiny2/tiny.safetensors refuses 1 'was drawn with the model tiny .hash .*--model' --from a-2.png -q -o x.png
check "unless it is asked for" "$S" --from a-2.png --model "$T/tiny2/tiny.safetensors" -q -o x.png
rm -f x.png
"$S" "x" --seed 1 $few -o bare.png --preview-every 1 --preview plain.png >out
refuses 1 'does not say what it was drawn with' info plain.png
refuses 1 'has no generation parameters' --from plain.png -o x.png
refuses 1 'nothere.png' info nothere.png
refuses 2 'needs pictures' info
same "several pictures have headings" "$("$S" info a-1.png a-2.png | grep -c '\.png:$')" 2

# ---- variations ----
"$S" "a red apple" --subseed 9 --subseed-strength 0.25 --seed-resize 16x24 --ensd 31337 --count 3 --seed 5 --sampler euler $few \
    -o 'v-{seed}.png' >out
same "variations share the seed, so their names have numbers" "$(tr '\n' ' ' <out)" "v-5-1.png v-5-2.png v-5-3.png "
check "the infotext has A1111's keys" grep -q 'Seed: 5, .*Variation seed: 11, Variation seed strength: 0.25, Seed resize from: 16x24, ENSD: 31337' <("$S" info v-5-3.png)
"$S" --from v-5-3.png -q -o v.png >out
check "--from draws the variation" cmp v.png v-5-3.png
printf 'a red apple --seed 5 --count 2 --variation-seed 9 --variation-strength 0.25 --seed-resize 16x24 --ensd 31337 --sampler euler\nx --seed 6\n' >vary.txt
same "in a file of prompts too" "$("$S" --prompts vary.txt $few -o 'f-{seed}.png' | tr '\n' ' ')" "f-5-1.png f-5-2.png f-6.png "
check "the same pictures" cmp v-5-2.png f-5-2.png
refuses 2 '--seed-resize: .16. is not WIDTHxHEIGHT' x --seed-resize 16

# ---- parameters without effect ----
"$S" "x" --seed 1 --steps 1 --hires-steps 4 --mask-blur 2 -o n.png >out 2>err
same "they are told" "$(grep 'no effect' err)" "no effect: --mask-blur without --mask; --hires-steps without --hires-upscale"
"$S" grid x --seed 1 --steps 1 --mask-blur 2 --x cfg=1,2,3 -o n.png >out 2>err
same "once for a grid, and only what was given" "$(grep 'no effect' err)" "no effect: --mask-blur without --mask"

# ---- --prompts ----
cat >list.txt <<'END'
# a comment, then a line without flags, JSON, flags alone
a cat --seed 3

{"prompt": "a dog", "seed": 4, "count": 2, "separate_feature_channels": true}
--prompt a red house --negative_prompt "no, thanks" --seed 6 --cfg_scale 4
END
mkdir made
same "a picture for each line and count" "$("$S" --prompts list.txt $few -o 'made/%02d.png' | tr '\n' ' ')" \
    "made/01.png made/02.png made/03.png made/04.png "
same "flags of a line" "$("$S" info made/04.png | head -n 2 | tr '\n' ' ')" "a red house Negative prompt: no, thanks "
check "its numbers" grep -q 'CFG scale: 4, Seed: 6' <("$S" info made/04.png)
"$S" "a dog" --seed 5 $few -o dog.png >out.txt
check "a line's picture is that of the same request" cmp dog.png made/03.png
stat -c %Y.%i made/01.png >before
rm made/03.png
same "--resume draws what is missing" "$("$S" --prompts list.txt $few -o 'made/%02d.png' --resume)" made/03.png
check "and the same" cmp dog.png made/03.png
check "and leaves the rest alone" cmp before <(stat -c %Y.%i made/01.png)
same "from standard input" "$(printf 'x --seed 1\n' | "$S" --prompts - $few -o in.png)" in.png
printf 'x --no dogs --seed 1\n' | "$S" --prompts - $few -o mj.png >out
check "Midjourney's suffixes in a line" grep -qx 'Negative prompt: dogs' <("$S" info mj.png)
printf 'x --seed 1 --no dogs\n' | "$S" --prompts - $few -o mj2.png >out
check "behind a flag too" cmp mj.png mj2.png
printf '{"prompt": "a {cat|cat}"}\n' | "$S" --prompts - --from mj.png -q -o line.png >out
same "choices in a line over a picture's parameters" "$("$S" info line.png | head -n 1)" "a cat"
printf 'a b --no dogs\n' >words.txt
"$S" "x __words__" --wildcards . --seed 1 $few -o drawn.png >out
"$S" --from drawn.png -q -o drawn2.png >out
same "but not of a picture's prompt" "$("$S" info drawn2.png | head -n 1)" "x a b --no dogs"
refuses 2 'leaves no seeds for 2 pictures' x --seed 9007199254740991 --count 2
refuses 2 'needs names' --prompts list.txt --resume
refuses 2 'goes with --prompts' x --resume
refuses 2 '--preview-method goes with --preview' x --preview-method foo
printf 'square\ndisc\n' >twice.txt
refuses 2 'twice.txt:2: --save-latents: an earlier line writes the same file' --prompts twice.txt --save-latents x.safetensors
printf 'a cat\n{"prompt": "x", "steps": "many"}\n' >bad.txt
refuses 2 'bad.txt:2: steps: a number' --prompts bad.txt
printf '\n\n{"prompt": "x", "stps": 1}\n' >bad.txt
refuses 2 "bad.txt:3: unknown parameter 'stps'" --prompts bad.txt
printf 'a --steps 5000\n' >bad.txt
refuses 2 'bad.txt:1: --steps: 5000 is out of range' --prompts bad.txt
printf 'a --sampler nobody\n' >bad.txt
refuses 2 "bad.txt:1: --sampler: 'nobody' is unknown" --prompts bad.txt
printf 'a --steps\n' >bad.txt
refuses 2 'bad.txt:1: --steps needs a value' --prompts bad.txt
printf '{"prompt"\n' >bad.txt
refuses 2 'bad.txt:1: the line: the JSON' --prompts bad.txt
printf -- '--steps 3\n' >bad.txt
refuses 2 'bad.txt:1: there is no prompt' --prompts bad.txt
: >bad.txt
refuses 2 'holds no prompt' --prompts bad.txt
refuses 1 'missing.txt' --prompts missing.txt
refuses 2 '--resume with .seed. in -o' --prompts <(echo x) --resume -o '{seed}.png'

# ---- choices ----
mkdir words
printf '# beasts\ncat\ndog\n' >words/beast.txt
"$S" "a {red|blue} __beast__" --wildcards words --seed 20 --count 3 $few -o 'w-%d.png' >out.txt
for i in 1 2 3; do
    check "choices of picture $i" grep -qE '^a (red|blue) (cat|dog)$' <("$S" info w-$i.png | head -n 1)
    "$S" "a {red|blue} __beast__" --wildcards words --seed $((19 + i)) $few -o one.png >out.txt
    check "are those of its seed" cmp one.png w-$i.png
done
same "the template is kept" "$("$S" info w-1.png | grep -o 'Template: "[^"]*"')" 'Template: "a {red|blue} __beast__"'
"$S" "a {red|blue}" --choices 0 --seed 1 $few -o off.png >out.txt
same "off: braces are text" "$("$S" info off.png | head -n 1)" "a {red|blue}"
refuses 2 'wildcard __fish__: words/fish.txt is not there' "a __fish__" --wildcards words -o x.png -q

# ---- grid ----
"$S" grid "a red cat" --x 'steps=1-3 (+2)' --y 'Prompt S/R=red,blue' --seed 2 -q -o g.png --cells 'c-%d.png' >out.txt
same "a sheet and its pictures" "$(tr '\n' ' ' <out.txt)" "g.png c-1.png c-2.png c-3.png c-4.png "
"$S" "a blue cat" --steps 3 --seed 2 -q -o one.png >out.txt
check "a cell is the picture of its request" cmp one.png c-4.png
check "the sheet tells its axes" grep -q 'Script: X/Y/Z plot, X Type: Steps, X Values: "1, 3", Y Type: Prompt S/R' <("$S" info g.png)
same "z makes sheets" "$("$S" grid x --x seed=1,2 --z cfg=1,2 --steps 1 -q -o z.png | tr '\n' ' ')" "z-1.png z-2.png "
"$S" grid x --x seed=1,2 --steps 1 -o z.png >out.txt 2>err.txt
check "its progress is that of all" grep -qE '^grid [0-9]+/2, ' err.txt
refuses 2 'needs an axis' grid x
refuses 2 "unknown parameter 'stps'" grid x --x stps=1 -q
refuses 2 'NAME=VALUES' grid x --x steps -q
refuses 2 'one picture for each' grid x --x steps=1 --count 2 -q

# ---- schema ----
"$S" schema >schema.json
check "the schema names every flag of generate's request" bash -c '
    for o in $(grep -o "\"x-flag\": \"[^\"]*\"" schema.json | cut -d\" -f 4); do "$0" help generate | grep -qE -- "--$o( |$)" ||
        exit 1; done' "$S"
if command -v python3 >/dev/null; then
    check "it is JSON" python3 -c 'import json; s = json.load(open("schema.json")); assert s["properties"]["steps"]["maximum"] == 1000 and s["properties"]["sampler"]["enum"]'
else
    skip "it is JSON: there is no python3"
fi
done_testing
