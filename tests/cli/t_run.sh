#!/bin/bash
# sumi run on a model of sumi's own kind, trained here in a few steps: what each module takes and gives, and what is refused.
. tests/cli/lib.sh

le32() { printf "\\x$(printf %02x $(($1 & 255)))\\x$(printf %02x $(($1 >> 8)))\\x00\\x00"; }
# FILE NAME TYPE SHAPE: one tensor; its bytes come from standard input.
tensor() {
    cat >"$T/.data"
    local header='{"'$2'":{"dtype":"'$3'","shape":['$4'],"data_offsets":[0,'$(stat -c %s "$T/.data")']}}'
    { word ${#header} && printf %s "$header" && cat "$T/.data"; } >"$1"
}
tiny_data
check "a tiny model is trained" "$S" train "$T/tiny.json" --quiet
M=$T/tiny/tiny.safetensors

"$S" run --list --model "$M" >"$T/list" 2>&1
same "modules of the model" "$(grep ' of ' "$T/list" | cut -d ' ' -f 1 | tr '\n' ' ')" \
    'text_encoder unet vae_encoder vae_decoder '
check "what the unet takes" grep -qE '^  takes  encoder_hidden_states +\[N, T, 16\]$' "$T/list"
check "what the text encoder gives" grep -qE '^  gives  hidden_states\.1 +\[N, T, 16\]$' "$T/list"
same "one module" "$("$S" run unet --list --model "$M" | head -n 1)" "unet of $M"

for i in 513 5 77 514 514; do le32 $i; done | tensor "$T/ids" input_ids I32 1,5
for i in 513 5 77 514 514; do le32 $i && le32 0; done | tensor "$T/ids64" input_ids I64 1,5
check "the text encoder runs" "$S" run text_encoder --model "$M" --in "$T/ids" --out "$T/text"
check "its outputs" bash -c "'$S' inspect --json '$T/text' | grep -q last_hidden_state && '$S' inspect --json '$T/text' | grep -q hidden_states"
"$S" run text_encoder --model "$M" -i "$T/ids64" -o "$T/text64"
check "64-bit ids give the same" cmp "$T/text" "$T/text64"
"$S" run text_encoder --model "$M" -i "$T/ids" -o "$T/text1" --threads 1 --cpu scalar
check "the scalar instruction set runs it too" test -s "$T/text1"
refuses 2 "--compute: 'int8' is unknown; f32 or bf16" run text_encoder --model "$M" -i "$T/ids" -o "$T/x" --compute int8
refuses 1 '--compute bf16: ' run text_encoder --model "$M" -i "$T/ids" -o "$T/x" --compute bf16 --cpu scalar
if grep -qw avx512_bf16 /proc/cpuinfo; then
    for i in 513 5 6 7 8 9 10 11 12 13 77 514; do le32 $i; done | tensor "$T/ids12" input_ids I32 1,12
    "$S" run text_encoder --model "$M" -i "$T/ids12" -o "$T/text2" --compute bf16 --cpu avx512 --profile >"$T/profile" 2>&1
    check "linear layers round what they multiply" grep -q '^linear bf16' "$T/profile"
else
    skip "linear layers that round: this processor lacks AVX512_BF16"
fi
head -c 256 /dev/zero | tensor "$T/latents" latents F32 1,4,4,4
check "the decoder runs" "$S" run vae_decoder --model "$M" -i "$T/latents" -o "$T/picture"
same "a line of seconds for each evaluation" "$("$S" run vae_decoder --model "$M" -i "$T/latents" -o "$T/picture3" --repeat 3 |
    grep -cE '^evaluation [123]: [0-9]+\.[0-9]{6} s$')" 3
"$S" run vae_decoder --model "$M" -i "$T/latents" -o "$T/picture2" --repeat 2 --profile >"$T/profile" 2>&1
check "a table of times: convolutions" \
    grep -qE '^conv2d 3x3.* +[0-9]+ +[0-9]+\.[0-9]{3} +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+$' "$T/profile"
check "the sum of all" grep -qE '^all +[0-9]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +100\.0 ' "$T/profile"
same "its nodes are all operations'" "$(awk '$1 == "all" {a = $(NF-6)} $1 != "all" && $1 != "operation" && NF > 7 {n += $(NF-6)} END {print n - a}' "$T/profile")" 0
check "a profiled evaluation gives the same" cmp "$T/picture" "$T/picture2"
check "the last evaluation gives what the first gave" cmp "$T/picture" "$T/picture3"

refuses 2 'needs --in FILE and --out FILE' run unet --model "$M"
refuses 2 'repeat' run vae_decoder --model "$M" -i "$T/latents" -o "$T/x" --repeat 0
refuses 2 'needs a module: text_encoder' run --in a --out b
refuses 2 'one word too many' run unet vae_decoder --in a --out b
refuses 2 "'unite' is no module" run unite --model "$M" --in "$T/ids" --out "$T/x"
refuses 1 "lacks 'sample'|'input_ids' is no input" run unet --model "$M" --in "$T/ids" --out "$T/x"
refuses 1 "'latents' is no input of this text_encoder, which takes input_ids" run text_encoder --model "$M" --in "$T/latents" \
    --out "$T/x"
refuses 1 'the model has no text_encoder_2' run text_encoder_2 --model "$M" --in "$T/ids" --out "$T/x"
refuses 1 'the model has no transformer; its denoiser is a unet' run transformer --model "$M" --in "$T/ids" --out "$T/x"
refuses 1 'nothing' run vae_decoder --model "$M" --in "$T/nothing" --out "$T/x"
refuses 1 'holds no tensors of a unet' run unet --model "$T/ids" --in "$T/ids" --out "$T/x"
refuses 1 'no/such' run vae_decoder --model "$M" --in "$T/latents" --out "$T/no/such"
check "nothing is written after a failure" test ! -e "$T/x"
done_testing
