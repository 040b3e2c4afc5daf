# What the scripts beside this file share: checks that count, and the closing line. Sourced, with the repository as the
# working folder; $S is the command, $T an empty folder that is removed at the end.
BUILD=${BUILD:-build}
S=$(realpath "$BUILD")/sumi
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
p=0 f=0 s=0
good() { p=$((p + 1)) && echo "ok      $*"; }
bad() { f=$((f + 1)) && echo "FAILED  $*"; }
skip() { s=$((s + 1)) && echo "skipped $*"; }
check() { # NAME COMMAND...: good when the command is
    local name=$1
    shift
    if "$@" >"$T/.out" 2>&1 </dev/null; then good "$name"; else tail -n 5 "$T/.out"; bad "$name"; fi
}
same() { if [ "$2" = "$3" ]; then good "$1"; else echo "  '$2' is not '$3'" && bad "$1"; fi; }
# STATUS PATTERN ARGUMENTS...: the command ends with the status, says nothing on standard output, and exactly one line that
# begins with "sumi: " and matches the pattern on standard error.
refuses() {
    local want=$1 pattern=$2 rc
    shift 2
    "$S" "$@" >"$T/.out" 2>"$T/.err" </dev/null
    rc=$?
    if [ $rc = "$want" ] && [ ! -s "$T/.out" ] && [ "$(wc -l <"$T/.err")" = 1 ] && grep -qE "^sumi: .*($pattern)" "$T/.err"; then
        good "refuses: $(printf '%.60s' "$*" | tr '\n' ' ')"
    else
        echo "  status $rc, wanted $want; standard error (wanted: $pattern):" && head -n 5 "$T/.err" | cut -c 1-300
        bad "refuses: $(printf '%.60s' "$*" | tr '\n' ' ')"
    fi
}
have_model() { ls models/*/*.safetensors >/dev/null 2>&1; }
# A data set of twelve 16-pixel pictures, written to $T/tiny.safetensors and $T/tiny.jsonl, and a configuration for them of a few
# steps, $T/tiny.json, that writes to $T/tiny.
word() { # 64 bit, least byte first
    local n=$1 i
    for i in 1 2 3 4 5 6 7 8; do
        printf "\\x$(printf %02x $((n & 255)))"
        n=$((n >> 8))
    done
}
tiny_data() {
    local header='{"rgba":{"dtype":"U8","shape":[12,16,16,4],"data_offsets":[0,12288]}}' k c row
    {
        word ${#header}
        printf %s "$header"
        for k in 0 1 2 3 4 5 6 7 8 9 10 11; do # a square of some colour on nothing
            c=$(printf '\\x%02x\\x%02x\\x%02x\\xff' $((k * 20)) $((255 - k * 15)) $((k % 4 * 60)))
            row='\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00'
            row=$row$c$c$c$c$c$c$c$c$row
            printf '\x00%.0s' {1..256}
            for _ in 1 2 3 4 5 6 7 8; do printf "$row"; done
            printf '\x00%.0s' {1..256}
        done
    } >"$T/tiny.safetensors"
    for k in 0 1 2 3 4 5 6 7 8 9 10 11; do
        printf '{"style": "noto", "name": "thing-%d", "caption": "square %d", "tags": ["plain"], "hex": "1F%03X", "group": "objects", "sub": "other", "split": "train"}\n' $k $k $k
    done >"$T/tiny.jsonl"
    cat >"$T/tiny.json" <<END
{"name": "tiny", "output": "$T/tiny", "seed": 7, "vocab_size": 600,
 "data": {"pictures": "$T/tiny.safetensors", "index": "$T/tiny.jsonl", "size": 16, "variants": 2},
 "text_encoder": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
   "max_position_embeddings": 16, "projection_dim": 12},
 "vae": {"latent_channels": 4, "block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4,
   "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
   "mid_block_add_attention": false, "use_quant_conv": false, "use_post_quant_conv": false},
 "denoiser": {"in_channels": 4, "out_channels": 4, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
   "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
   "attention_head_dim": 2, "cross_attention_dim": 16},
 "autoencoder": {"steps": 6, "batch": 2, "crop": 8, "save_every": 2, "log_every": 3, "warmup": 2},
 "flow": {"steps": 8, "batch": 4, "save_every": 3, "log_every": 4, "warmup": 2}}
END
}
done_testing() {
    if [ $s = 0 ]; then echo "$p passed, $f failed"; else echo "$p passed, $f failed, $s skipped"; fi
    [ $f = 0 ]
}
