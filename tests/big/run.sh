#!/bin/sh
# Full-size models with weights by a formula: what each component takes in memory. `make bigtest`; needs 2.2 GB of disk below
# TMPDIR, 2 GB of memory and minutes to hours (a 512x512 step is 1.6 TFLOP, its decoding 2.5, a 2048x2048 picture in tiles about
# 60).
# BIG="unet decode ..." chooses parts; those with a picture of 2048, and XL's output (7 GB of disk, 5.2 GB of memory), are left
# out unless named. The outputs are compared with diffusers' (tools/fixtures/make_big.py).
set -eu
prog=${BUILD:-build}/bigtest
dir=$(mktemp -d "${TMPDIR:-/tmp}/sumi-big.XXXXXX")
trap 'rm -rf "$dir"' EXIT INT TERM
"$prog" make sd15 "$dir"
for part in ${BIG:-output text unet unet-low decode decode-low tiled-1024 many}; do
    case $part in
    output) "$prog" output sd15 "$dir" tests/fixtures/big_sd15.safetensors ;;
    output-xl)
        "$prog" make sdxl "$dir/xl"
        "$prog" output sdxl "$dir/xl" tests/fixtures/big_sdxl.safetensors ;;
    text) "$prog" text "$dir" 512 ;;
    unet) "$prog" unet "$dir" 512 ;;
    unet-low) "$prog" unet "$dir" 512 low ;;
    decode) "$prog" decode "$dir" 512 ;;
    decode-low) "$prog" decode "$dir" 512 low ;;
    tiled-1024) "$prog" tiled "$dir" 1024 ;;
    tiled-2048) "$prog" tiled "$dir" 2048 ;;
    many) "$prog" many "$dir" 64 ;;
    encode-2048) "$prog" tiled-encode "$dir" 2048 ;;
    *) echo "tests/big/run.sh: no part $part" >&2; exit 2 ;;
    esac
done
