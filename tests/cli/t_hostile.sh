#!/bin/bash
# Hostile files and paths through the command: cut at every 1% of their length, with headers that lie, or no files at all: status
# 1 and one line that names the file, nothing on standard output, and no waiting for anybody.
. tests/cli/lib.sh

# NAME FILE PATTERN COMMAND...: the command on FILE cut at 99%, 98% ... 0%; the line has the pattern in it.
cuts() {
    local name=$1 file=$2 pattern=$3 size percent rc line odd=
    shift 3
    size=$(stat -c %s "$file")
    cp "$file" "$T/.whole"
    for percent in {99..0}; do
        truncate -s $((size * percent / 100)) "$file"
        timeout 20 "$S" "$@" >"$T/.out" 2>"$T/.err" </dev/null
        rc=$?
        mapfile -t line <"$T/.err"
        [ $rc = 1 ] && [ ! -s "$T/.out" ] && [ ${#line[@]} = 1 ] && [[ ${line[0]} == "sumi: "*$pattern* ]] ||
            odd+="  at $percent%: status $rc, ${#line[@]} lines: ${line[0]:0:200}"$'\n'
    done
    cp "$T/.whole" "$file"
    if [ -z "$odd" ]; then good "cut at every 1%: $name"; else printf %s "$odd" | head -n 5 && bad "cut at every 1%: $name"; fi
}

tiny_data
check "a tiny model is trained" "$S" train "$T/tiny.json" --quiet
cp "$T/tiny/tiny.safetensors" "$T/model.safetensors"
cuts "a model, drawn with" "$T/model.safetensors" model.safetensors generate x --seed 1 -o "$T/x.png" \
    --model "$T/model.safetensors"
cuts "a model, inspected" "$T/model.safetensors" model.safetensors inspect "$T/model.safetensors"
cuts "a model, tokenized with" "$T/model.safetensors" model.safetensors tokenize x --model "$T/model.safetensors"
check "no picture was drawn" [ ! -e "$T/x.png" ]
for x in ckpt/tree.safetensors ckpt/zip_p4.ckpt ckpt/stream_p2.pt gguf_blocks.gguf; do
    cp "tests/fixtures/$x" "$T/any"
    cuts "$x, inspected" "$T/any" any inspect "$T/any"
    cuts "$x, as a model" "$T/any" any plan --model "$T/any"
done

# Configuration, data set and what a run keeps.
cp "$T/tiny.json" "$T/short.json"
printf %s "$(cat "$T/short.json")" >"$T/short.json" # without the line feed behind it, which nothing needs
cuts "a training configuration" "$T/short.json" short.json train "$T/short.json" -o "$T/short" --quiet
cuts "pictures" "$T/tiny.safetensors" tiny.safetensors train "$T/tiny.json" -o "$T/short" --quiet
cuts "their index" "$T/tiny.jsonl" tiny.jsonl train "$T/tiny.json" -o "$T/short" --quiet
for x in autoencoder.ckpt latents.safetensors flow.ckpt; do
    cuts "$x of a run" "$T/tiny/$x" $x train "$T/tiny.json" --resume --quiet
done
check "the run goes on with the whole files" "$S" train "$T/tiny.json" --resume --quiet

# Headers that lie, safetensors.
st() { # HEADER DATA-BYTES
    word ${#1}
    printf %s "$1"
    head -c "$2" /dev/zero
}
lie() { # NAME PATTERN HEADER DATA-BYTES
    st "$3" "$4" >"$T/$1.safetensors"
    refuses 1 "$1.safetensors: .*$2" inspect "$T/$1.safetensors"
    refuses 1 "$1.safetensors: .*$2" plan --model "$T/$1.safetensors"
}
t() { printf '{"a":{"dtype":"%s","shape":[%s],"data_offsets":[%s]}}' "$1" "$2" "$3"; }
lie twice 'twice' '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}' 8
lie twice-inside 'twice' '{"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}' 4
lie escaped-twice 'twice' '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\u0061":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}' 8
lie negative 'whole number' "$(t F32 -4 0,16)" 16
lie fraction 'whole number' "$(t F32 1.5 0,16)" 16
lie text 'whole number' "$(t F32 '"4"' 0,16)" 16
lie product 'too large' "$(t F32 9007199254740991,9007199254740991 0,16)" 16
lie bits 'do not fit' "$(t F64 536870912,536870912 0,0)" 0 # 2^64 bits
lie empty-but-long 'do not fit' "$(t F32 0,9007199254740991 0,16)" 16
lie backwards 'outside|truncated' "$(t F32 4 16,0)" 16
lie beyond 'outside|truncated' "$(t F32 4 0,1000000000000)" 16
lie hole 'hole' "$(t F32 4 4,20)" 20
lie tail 'belong to none' "$(t F32 4 0,16)" 17
lie dims 'more than 8' "$(t F32 1,1,1,1,1,1,1,1,1 0,4)" 4
lie type 'none of the format' "$(t Q9 4 0,16)" 16
lie deep 'nested too deeply' "{\"a\":$(printf '[%.0s' {1..20000})" 0
lie nul 'NUL' '{"a\u0000b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' 4
lie list 'not a JSON object|no safetensors' '[]' 0
lie more 'more than|must have' '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}' 4
printf '{"weight_map":{"a":"../tiny.safetensors"}}' >"$T/up.index.json"
refuses 1 'up.index.json: .*same folder' inspect "$T/up.index.json"
printf '{"weight_map":{"a":"up.index.json"}}' >"$T/self.index.json"
refuses 1 'self.index.json: .*same folder' inspect "$T/self.index.json"
printf '{"weight_map":{}}' >"$T/none.index.json"
refuses 1 'none.index.json: .*weight_map' inspect "$T/none.index.json"

# What is no file.
S0=$S
S=timeout-of-20-seconds
timeout-of-20-seconds() { timeout 20 "$S0" "$@"; }
mkfifo "$T/pipe"
mkdir "$T/d" "$T/e" "$T/model.json"
ln -s "$T/loop" "$T/loop"
ln -s . "$T/d/d"
mkfifo "$T/e/model.safetensors"
ln -s /nonexistent "$T/dangling"
for x in "$T/pipe" /dev/zero /dev/null "$T/d" "$T/d/d/d" "$T/e" "$T/loop" "$T/dangling" "$T/model.json" \
    "$T/model.safetensors/below" /proc/self/mem; do
    refuses 1 "$x" inspect "$x"
    refuses 1 "$x" x -o "$T/x.png" --model "$x"
done
refuses 1 pipe train "$T/pipe"
refuses 1 "$T/d" train "$T/d"
refuses 1 'No such file' inspect ''
if [ "$(id -u)" = 0 ]; then
    skip "a file that may not be read: root may read all"
else
    chmod 000 "$T/model.safetensors"
    refuses 1 'model.safetensors: Permission' inspect "$T/model.safetensors"
fi
done_testing
