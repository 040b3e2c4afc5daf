#!/bin/bash
# Classifier guidance by the command, with the built-in model and the classifier of grounds beside it: the class shows, the
# picture's metadata draws it again, what does not fit says so.
. tests/cli/lib.sh
C=$PWD/models/pictograms/classifiers/backgrounds.safetensors
home=$PWD
if ! have_model || [ ! -e "$C" ]; then
    skip "classifier guidance: the built-in model or its classifier is not there"
    done_testing
    exit
fi
SUMI_MODEL=$(ls "$home"/models/*/*.safetensors | head -n 1)
export SUMI_MODEL
cd "$T" || exit 1
few="--cfg 1.5 --seed 1 --quiet"

same "inspect says what it is" "$("$S" inspect "$C" | grep -c 'noisy classifier, 8 classes with names, 8 channels, adaptive pool')" 1
"$S" "panda, noto style" $few -o plain.png >out
"$S" "panda, noto style" $few --classifier "$C" --class blue --classifier-scale 8 -o blue.png >out
check "it changes the picture" [ "$(cmp -s plain.png blue.png; echo $?)" = 1 ]
"$S" info blue.png >out
check "the metadata has it" grep -q 'Classifier class: blue' out
check "and which file it was" grep -qE 'Classifier hash: [0-9a-f]{10}' out
"$S" --from blue.png --quiet -o again.png >out
check "draws it again" cmp blue.png again.png
"$S" --from blue.png --quiet --threads 1 -o one.png >out
check "on one thread" cmp blue.png one.png
"$S" --from blue.png --quiet --low-memory -o low.png >out
check "in low memory, but for what the metadata says" cmp <(tail -c 9000 blue.png) <(tail -c 9000 low.png)
check "plan" grep -q '^peak' <("$S" plan --classifier "$C" --class red)

refuses 2 'towards which class.*or a name: white, black' x --classifier "$C"
refuses 2 'is no class' x --classifier "$C" --class 8
refuses 2 'classifier-hash' x --classifier "$C" --class 1 --classifier-hash 0000000000
refuses 1 'no-such-file' x --classifier no-such-file --class 1
refuses 1 'a denoiser|no classifier' x --classifier "$SUMI_MODEL" --class 1
done_testing
