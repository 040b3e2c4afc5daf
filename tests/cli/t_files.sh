#!/bin/bash
# Hostile and damaged files: one line and status 1, for inspect and for --model alike.
. tests/cli/lib.sh

st() { # HEADER DATA-BYTES: a safetensors file
    word ${#1}
    printf %s "$1"
    head -c "$2" /dev/zero
}
: >"$T/empty.safetensors"
printf 'short' >"$T/short.safetensors"
{ word 1000; printf '{}'; } >"$T/lying.safetensors"
{ word 9223372036854775807; printf '{}'; } >"$T/huge.safetensors"
st '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}' 16 >"$T/json.safetensors"
st '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}' 8 >"$T/cut.safetensors"
st '{"a":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}}' 16 >"$T/shape.safetensors"
st '{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}}' 16 >"$T/overflow.safetensors"
st '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}}' \
    24 >"$T/overlap.safetensors"
head -c 4096 /dev/urandom >"$T/noise.safetensors"
mkdir "$T/folder"
for x in empty short lying huge json cut shape overflow overlap noise; do
    refuses 1 "$x.safetensors" inspect "$T/$x.safetensors"
    refuses 1 "$x.safetensors" plan --model "$T/$x.safetensors"
done
refuses 1 'missing' inspect "$T/missing.safetensors"
refuses 1 'folder' inspect "$T/folder"
refuses 1 'folder' plan --model "$T/folder"

# A sound file that is no model: inspect tells what is in it, as a model it is refused.
st '{"a.weight":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}}' 12 >"$T/sound.safetensors"
check "inspect of a sound file" "$S" inspect "$T/sound.safetensors"
"$S" inspect --json "$T/sound.safetensors" >"$T/out" 2>&1
check "inspect --json of a sound file" grep -q '^{' "$T/out"
refuses 1 'sound.safetensors' plan --model "$T/sound.safetensors"

printf '{' >"$T/bad.json"
refuses 1 'bad.json' train "$T/bad.json"
printf '{"name": "x", "unknown_key": 1}' >"$T/key.json"
refuses 1 'unknown_key|missing' train "$T/key.json"
done_testing
