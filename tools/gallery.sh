#!/bin/bash
# The pictures of docs/FIELD.md, drawn by the very commands that the page prints, and a check that every command on it runs.
#
#   tools/gallery.sh draw [NAME...]   draws the pictures called NAME (all without one) into docs/pictures/field
#   tools/gallery.sh check            runs every command of the page and of README.md, quickly; part of `make test`
#   tools/gallery.sh list             picture by picture, the line of the page that shows it
#
# A technique on the page has this form, in the section (##) it belongs to:
#
#   ### Image to image
#   What it is, in a line. Lives in `src/pipeline/edit.c`; what it is equal to: `build/sumi-test edit_i2i`.
#
#   ```sh
#   sumi grid "a green apple" --init-image apple.png --x strength=0.3,0.6,0.9 --seed 1 -o strength.webp
#   ```
#
#   ![One line of what the picture shows](pictures/field/strength.webp)
#
# - A block ```sh is run by bash as it stands, in a scratch folder that holds what docs/pictures/field/in has (apple.png and masks
#   to begin from). A block stands alone: what it reads it has made itself, or it is in that folder. Several commands, `\` at an
#   end of line and here-documents are fine. Give a --seed.
# - A block writes NAME.webp (-o) for each picture that the page shows between it and the next block. `sumi grid` makes titled
#   sheets, with and without the technique side by side: --x freeu=,v2 or --x "Prompt S/R=a,b". Cells are 128x128; keep a sheet
#   below 900 pixels.
# - A block ```output right after it is what the block prints, to the letter.
# - Models that do not come with sumi are stood in for by tiny ones, whose pictures are noise and are not shown: sd1 (folder),
#   sd1.safetensors, v1-5.ckpt, sd2.safetensors, xl, xl-refiner, inpaint.safetensors, ip2p.safetensors, lcm (tests/t_stand_ins.c).
# - Look at the picture before you commit it, and say no more than it shows. All of them together stay below 600 kB: `draw` stores
#   them again as lossy WebP with their metadata (PYTHON names a python3 with Pillow).
# - Commands in backquotes within text are run by the check too, if they begin with `sumi `; so are README's lines.
#
# drawn.txt holds a checksum of the block that each picture was drawn by: the check says which pictures the page has left behind.
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
page=docs/FIELD.md
folder=docs/pictures/field
limit=600000
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
work=$T/work
mkdir -p "$T/block" "$T/bin"
p=0 f=0
good() { p=$((p + 1)) && echo "ok      $*"; }
bad() { f=$((f + 1)) && echo "FAILED  $*"; }

# Blocks of the page: block/NNN (commands), NNN.line, NNN.pictures (names), NNN.output; commands within text: block/NNN alone.
split() {
    awk -v to="$T/block/" '
        function begin() { n = sprintf("%03d", ++count); print FNR > (to n ".line") }
        fence != "" && /^```/ { fence = ""; next }
        fence == "sh" { print > (to n); next }
        fence == "output" { print > (to n ".output"); next }
        fence != "" { next }
        /^```/ { fence = substr($0, 4); if (fence == "") fence = "text"; if (fence == "sh") begin(); next }
        {
            for (rest = $0; match(rest, /pictures\/field\/[a-z0-9_-]+\.webp/); rest = substr(rest, RSTART + RLENGTH))
                print substr(rest, RSTART + 15, RLENGTH - 20) > (to n ".pictures")
            if (!run_text || $0 !~ /`sumi [a-z"-]/) next
            keep = n
            begin()
            for (rest = $0; match(rest, /`sumi [^`]*`/); rest = substr(rest, RSTART + RLENGTH)) {
                text = substr(rest, RSTART + 1, RLENGTH - 2)
                gsub(/\\\|/, "|", text)
                print text > (to n)
            }
            n = keep
        }' run_text="${1:-}" $page
}

# The command as the blocks call it. Checking, two steps and small pictures do; stand-ins need their tokenizer and draw small
# ones.
wrapper() { # MODE
    cat >"$T/bin/sumi" <<END
#!/bin/bash
mode=$1 real='$(realpath "$BUILD")/sumi' stand_ins='$T/models'
export SUMI_MODEL='$(ls "$PWD"/models/pictograms/*.safetensors)'
END
    cat >>"$T/bin/sumi" <<'END'
more=() words=" $* " drawing=1 small=$([ "$mode" = check ] && echo 1)
case $1 in
info|tokenize|schedule|inspect|convert|schema|models|help|version) [ $# != 1 ] || set -- help "$1"; exec "$real" "$@" ;;
train|score|pull|run|grid|prompt|plan)
    [ $# != 1 ] && [[ ! $1 =~ train|score|pull|run ]] || exec "$real" help "$1" # those have tests of their own
    [ "$1" = grid ] || drawing=0 ;;
esac
for word; do
    [ -z "$word" ] || [ ! -e "$stand_ins/$word" ] || more=(--tokenizer "$stand_ins/text/tokenizer") small=1
    case $word in
    *.gguf) more=(--tokenizer "$stand_ins/text/tokenizer") small=1 ;;
    -h|--help) drawing=0 ;;
    esac
done
if [ $drawing = 1 ]; then
    more+=(-q)
    [ "$mode" != check ] || more+=(--threads 1)
    # glibc gives freed memory back to the system at once; a grid of small pictures spends half its time on that
    export MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=4000000000
    [ "$mode" != check ] || [[ $words =~ \ --sigmas\ |\ sigmas=|\ --from\  ]] || more+=(--steps 2)
    [ -z "$small" ] || [[ $words =~ -(image|latents)\ |--(size|width|ar|from|save-inverted)\  ]] || more+=(--size 64x64)
fi
exec "$real" "$@" "${more[@]}"
END
    chmod +x "$T/bin/sumi"
}

fresh() { # an empty folder with what blocks may begin from
    rm -rf "$work"
    mkdir -p "$work"
    cp "$folder"/in/* "$work/"
    [ ! -d models/pictograms/classifiers ] || cp models/pictograms/classifiers/*.safetensors "$work/" # guide the built-in model
    [ ! -d "$T/models" ] || ln -s "$T/models"/* "$work/"
}
go() { # FILE: runs its commands there; what they print is in $work.out and $work.err
    (cd "$work" && PATH="$T/bin:$PATH" LC_ALL=C.UTF-8 SUMI_CACHE="$T/cache" timeout 120 bash -e "$1" >"$work.out" 2>"$work.err" </dev/null)
}
sum_of() { cksum <"$1" | cut -d' ' -f1; }

shrink() { # FROM TO: lossy, the metadata kept
    "${PYTHON:-python3}" - "$1" "$2" <<'END'
import sys
from PIL import Image
im = Image.open(sys.argv[1])
im.convert("RGB").save(sys.argv[2], "WEBP", quality=30, method=6, exif=im.info.get("exif", b""))
END
}

stand_ins() {
    mkdir -p "$T/models"
    SUMI_STAND_INS="$T/models" "$BUILD/sumi-test" stand_ins >"$work.out" || { cat "$work.out"; bad "models to stand in for others"; }
    cp tests/fixtures/family_sd1.ckpt "$T/models/v1-5.ckpt"
}

draw() {
    local block name wanted
    stand_ins
    wrapper draw
    touch "$folder/drawn.txt"
    for block in "$T"/block/[0-9][0-9][0-9]; do
        [ -e "$block.pictures" ] || continue
        wanted=
        for name in $(cat "$block.pictures"); do
            [ $# = 0 ] || [[ " $* " == *" $name "* ]] && wanted="$wanted $name"
        done
        [ -n "$wanted" ] || continue
        fresh
        if ! go "$block"; then
            bad "line $(cat "$block.line"): $(tail -n 1 "$work.err")"
            continue
        fi
        for name in $wanted; do
            shrink "$work/$name.webp" "$folder/$name.webp" || { bad "$name.webp"; continue; }
            sed -i "/^$name /d" "$folder/drawn.txt"
            echo "$name $(sum_of "$block")" >>"$folder/drawn.txt"
            good "$name.webp, $(stat -c %s "$folder/$name.webp") bytes"
        done
    done
    LC_ALL=C sort -o "$folder/drawn.txt" "$folder/drawn.txt"
}

# ---- the check ----

one_block() {
    local block=$1 line
    line=$(cat "$block.line")
    if grep -q bf16 "$block" && ! grep -qw avx512_bf16 /proc/cpuinfo; then
        echo "skipped line $line: this processor lacks AVX512_BF16"
    elif ! go "$block"; then
        bad "line $line: $(tail -n 1 "$work.err")"
    elif [ -e "$block.output" ] && ! diff "$block.output" "$work.out" >"$work.diff"; then
        head -n 10 "$work.diff"
        bad "line $line: prints something else than the page says"
    else
        p=$((p + 1))
    fi
}

# Lines of README, one after another in one folder: what they read is there under the names it uses.
readme() {
    local at=$T/models k=0 line
    fresh
    for line in sd-xl-folder:xl xl-base:xl v2-1.safetensors:sd2.safetensors unet-only.safetensors:sd1.safetensors model.safetensors:sd1.safetensors \
        model.ckpt:v1-5.ckpt vae.safetensors:sd1/vae/diffusion_pytorch_model.safetensors clip-l.safetensors:sd1/text_encoder/model.safetensors; do
        ln -s "$at/${line#*:}" "$at/${line%%:*}"
        ln -s "$at/${line#*:}" "$work/${line%%:*}"
    done
    mkdir "$work/out"
    cp "$work/apple.png" "$work/castle.png"
    cp "$work/right.png" "$work/door.png"
    printf 'a clock\na cat --seed 4\n' >"$work/list.txt"
    echo 'sumi "a castle" --model v1-5.ckpt --seed 1 --save-latents noise.safetensors -o noise.png' >"$T/block/readme"
    go "$T/block/readme"
    while read -r line; do
        k=$((k + 1))
        echo "$line" >"$T/block/readme"
        if go "$T/block/readme"; then p=$((p + 1)); else bad "README: $line: $(tail -n 1 "$work.err")"; fi
    done < <(awk '/^```/ { code = !code } code && /^sumi /' README.md)
    [ $k -gt 30 ] || bad "README: $k commands"
}

named_tests() {
    local part
    "$BUILD/sumi-test" -l >"$T/tests"
    for part in $(grep -ohE 'build/sumi-test [a-z0-9_]+' README.md docs/*.md | cut -d' ' -f2 | sort -u); do
        if grep -q "$part" "$T/tests"; then p=$((p + 1)); else bad "the pages name the test $part, which is not there"; fi
    done
}

pictures() {
    local block name total=0
    for block in "$T"/block/*.pictures; do
        for name in $(cat "$block"); do
            if [ ! -e "$folder/$name.webp" ]; then
                bad "$name.webp was not drawn: tools/gallery.sh draw $name"
            elif ! grep -qx "$name $(sum_of "${block%.pictures}")" "$folder/drawn.txt"; then
                bad "$name.webp was drawn by other commands: tools/gallery.sh draw $name"
            else
                p=$((p + 1))
            fi
        done
    done
    for name in "$folder"/*.webp; do
        grep -q "pictures/field/$(basename "$name")" $page || bad "$name is not on the page"
    done
    total=$(cat "$folder"/* "$folder"/in/* 2>/dev/null | wc -c)
    [ $total -le $limit ] || bad "$folder: $total bytes, above $limit"
}

# Every second block, the first's share or the second's; one of them takes README's too.
share() { # WHICH
    local block k=0
    work=$T/work$1
    for block in "$T"/block/[0-9][0-9][0-9]; do
        k=$((k + 1))
        [ $((k % 2)) != "$1" ] || { fresh && one_block "$block"; }
    done
    [ "$1" = 0 ] || readme
    echo "$p $f"
}

check() {
    local which sums
    stand_ins
    wrapper check
    share 0 >"$T/share0" &
    (share 1) >"$T/share1"
    wait
    for which in 0 1; do
        sed '$d' "$T/share$which"
        sums=($(tail -n 1 "$T/share$which"))
        p=$((p + sums[0])) f=$((f + sums[1]))
    done
    named_tests
    pictures
    echo "$p passed, $f failed"
}

main() { # read whole before it begins: the script may be edited while it draws
    case ${1:-} in
    draw) shift && split && draw "$@" ;;
    check) split 1 && check ;;
    list) split && for block in "$T"/block/*.pictures; do echo "line $(cat "${block%.pictures}.line"): $(cat "$block" | tr '\n' ' ')"; done ;;
    *) sed -n '2,/^cd /s/^# \{0,1\}//p' "$0" && exit 2 ;;
    esac
    [ $f = 0 ]
    exit
}
main "$@"
