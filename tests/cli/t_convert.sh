#!/bin/bash
# sumi convert: the command around sumi_convert; wrong calls, round trips, a full disk.
. tests/cli/lib.sh

cp tests/fixtures/clip_tiny.safetensors "$T/in.safetensors"
check "safetensors to GGUF" "$S" convert "$T/in.safetensors" -o "$T/a.gguf"
check "GGUF to safetensors" "$S" convert "$T/a.gguf" -o "$T/b.safetensors" -q
check "safetensors again" "$S" convert "$T/in.safetensors" -o "$T/c.safetensors" -q
same "the same tensors come back" "$("$S" inspect "$T/b.safetensors" | grep -vE '^(file|because)')" \
    "$("$S" inspect "$T/c.safetensors" | grep -vE '^(file|because)')"
same "a checkpoint is read" "$("$S" convert tests/fixtures/ckpt/zip_p2.ckpt -o "$T/d.safetensors" -q; echo $?)" 0
check "a PyTorch stream is read" "$S" convert tests/fixtures/ckpt/stream_p2.pt -o "$T/e.gguf" --type f32
"$S" convert "$T/in.safetensors" -o "$T/f.gguf" --type q8_0 >"$T/out" 2>"$T/err"
same "q8_0" "$?" 0
check "the summary names the file and types" grep -qE '^.*f.gguf: GGUF, [0-9]+ tensors' "$T/out"
"$S" convert "$T/in.safetensors" -o "$T/g.gguf" -q --type q8_0 >"$T/out" 2>"$T/err"
check "quiet is quiet" test ! -s "$T/out" -a ! -s "$T/err"
same "the same file twice" "$(sha256sum <"$T/f.gguf")" "$(sha256sum <"$T/g.gguf")"
"$S" convert "$T/in.safetensors" -o "$T/h.gguf" -q --type q8_0 --threads 1
same "one thread or more" "$(sha256sum <"$T/f.gguf")" "$(sha256sum <"$T/h.gguf")"

refuses 2 'needs an output' convert "$T/in.safetensors"
refuses 2 'needs a file or folder' convert -o "$T/x.gguf"
refuses 2 "--type: 'q9_0' is unknown" convert "$T/in.safetensors" -o "$T/x.gguf" --type q9_0
refuses 2 "--layout: 'x' is unknown" convert "$T/in.safetensors" -o "$T/x.gguf" --layout x
refuses 2 "--format: 'zip' is unknown" convert "$T/in.safetensors" -o "$T/x.gguf" --format zip
refuses 2 'x.ckpt: PyTorch.s files are read only' convert "$T/in.safetensors" -o "$T/x.ckpt"
refuses 2 'unknown option --typ; did you mean --type' convert "$T/in.safetensors" -o "$T/x.gguf" --typ f16
refuses 2 'safetensors has no type Q4_K' convert "$T/in.safetensors" -o "$T/x.safetensors" --type q4_k
refuses 2 'GGUF has no type F8_E5M2' convert "$T/in.safetensors" -o "$T/x.gguf" --type f8_e5m2
refuses 2 'is a file that is read' convert "$T/in.safetensors" -o "$T/in.safetensors" --type f16
refuses 1 'none.safetensors' convert "$T/none.safetensors" -o "$T/x.gguf"
head -c 5000 "$T/in.safetensors" >"$T/cut.safetensors"
refuses 1 'cut.safetensors' convert "$T/cut.safetensors" -o "$T/x.gguf"
refuses 1 'No space left' convert -q "$T/in.safetensors" -o /dev/full
refuses 1 'holds no tensor of a model|no name in the single-file layout|single-file' convert -q tests/fixtures/gguf_meta.gguf \
    -o "$T/x.gguf" --layout original
check "nothing is left behind" test -z "$(ls -A "$T" | grep -E '^x\.|tmp')"
done_testing
