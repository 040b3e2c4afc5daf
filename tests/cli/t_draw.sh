#!/bin/bash
# Drawing: files, names, metadata, sameness, signals, with a model that a few training steps made; then with the built-in one.
. tests/cli/lib.sh
tiny_data
check "a tiny model is trained" "$S" train "$T/tiny.json" --quiet
export SUMI_MODEL=$T/tiny/tiny.safetensors
home=$PWD
cd "$T" || exit 1
few="--steps 2 --quiet"

same "names the file it wrote" "$("$S" "a red apple" --seed 5 $few 2>err)" a-red-apple-5.png
check "quiet: nothing on standard error" [ ! -s err ]
same "never replaces under a default name" "$("$S" "a red apple" --seed 5 $few)" a-red-apple-5-2.png
same "letters of a default name" "$("$S" "A Red, apple!" --seed 6 $few)" a-red-apple-6.png
check "same seed, same file" cmp a-red-apple-5.png a-red-apple-5-2.png
"$S" "a red apple" --seed 5 $few --threads 1 -o one.png >out
"$S" "a red apple" --seed 5 $few --threads 3 -o three.png >out
check "same bits for 1 and 3 threads" cmp one.png three.png
"$S" "a red apple" --seed 4 --count 3 $few -o 'n-%02d.png' >out
same "several are numbered" "$(tr '\n' ' ' <out)" "n-01.png n-02.png n-03.png "
check "picture k of several is seed + k alone" cmp n-02.png one.png
same "numbers are added where the pattern has none" "$("$S" x --count 2 $few -o m.jpg | tr '\n' ' ')" "m-1.jpg m-2.jpg "
same "{seed} and {prompt}" "$("$S" "Ein Apfel" --seed 8 $few -o '{seed}_{prompt}.webp')" 8_ein-apfel.webp
mkdir sub
same "a folder" "$("$S" "x y" --seed 9 $few -o sub)" sub/x-y-9.png
same "JPEG" "$(head -c 3 m-1.jpg | od -An -tx1 | tr -d ' \n')" ffd8ff
same "WebP" "$(head -c 16 8_ein-apfel.webp | tr -cd 'A-Z' | cut -c 1-8)" RIFFWEBP

# PNG: signature, IHDR of 8 bit colour type 2, not interlaced; parameters in the text chunk.
same "PNG, 8 bit, RGB, not interlaced" "$(head -c 29 one.png | od -An -tx1 -j 24 | tr -d ' \n')" 0802000000
same "PNG signature" "$(head -c 8 one.png | od -An -tx1 | tr -d ' \n')" 89504e470d0a1a0a
check "parameters in the metadata" grep -qa 'a red apple' one.png
check "seed in the metadata" grep -qa 'Seed: 5' one.png
check "steps in the metadata" grep -qa 'Steps: 2' one.png

refuses 2 'UTF-8' $'a\xff' -o x.png
refuses 2 'UTF-8' $'\xed\xa0\x80' -o x.png
refuses 2 '131000 bytes' "$(head -c 131000 /dev/zero | tr '\0' a)" -o x.png
refuses 2 '65537 bytes.*at most 65536' "$(head -c 65537 /dev/zero | tr '\0' a)" -o x.png
check "the longest prompt draws" "$S" "$(head -c 65536 /dev/zero | tr '\0' a)" $few -o longest.png
refuses 2 'multiple' x --size 129x128 -o x.png
refuses 2 'sampler' x --sampler nothing -o x.png
refuses 2 'schedule' x --schedule nothing -o x.png
check "nothing was written by the refused" [ ! -e x.png ]
"$S" 'words it never saw: Überraschung 苹果 🍎 %s %n' $few -o odd.png >out 2>&1
same "odd words draw" $? 0

# Without a terminal: plain lines, no control characters.
"$S" "a red apple" --steps 2 -o x.png >out 2>err
check "progress as plain lines" grep -qE '^sample [0-9]+/2' err
check "no control characters" [ "$(LC_ALL=C tr -d '\n[:print:]' <err | wc -c)" = 0 ]

rm -f x.png
"$S" "a red apple" --steps 1000 --count 1024 -o x.png >out 2>err &
job=$!
sleep 1
kill -TERM $job
wait $job
same "SIGTERM: status 143" $? 143
same "SIGTERM: one line" "$(tail -n 1 err)" "sumi: stopped"
check "SIGTERM: no picture" [ ! -e x.png ]

same "plan --json" "$("$S" plan --steps 7 --json | grep -o '"steps": 7')" '"steps": 7'
check "plan" grep -q '^peak' <("$S" plan)
check "plan --low-memory" grep -q '^peak' <("$S" plan --low-memory)
check "inspect of a model" "$S" inspect "$SUMI_MODEL"
same "inspect --json names the family" "$("$S" inspect --json "$SUMI_MODEL" | grep -c family)" 1
refuses 2 'unknown kind' x -o "$(printf 'a\nb/x.bmp')"

# The built-in model, found beside the program.
cd "$home" || exit 1
unset SUMI_MODEL
if ! have_model; then
    refuses 1 'built-in model.*--model' x -o "$T/x.png"
    skip "the built-in model: there is none in models/"
else
    check "the built-in model draws" "$S" "a red apple" --seed 1 -o "$T/apple.png"
    "$S" "a red apple" --seed 1 --threads 1 -o "$T/apple1.png" >"$T/out" 2>&1
    check "the same bits on one thread" cmp "$T/apple.png" "$T/apple1.png"
    (cd "$T" && "$S" "a red apple" --seed 1 -o elsewhere.png) >"$T/out" 2>&1
    check "from another folder too" cmp "$T/apple.png" "$T/elsewhere.png"
    check "inspect of the built-in model" "$S" inspect "$(ls models/*/*.safetensors | head -n 1)"
fi
done_testing
