#!/bin/bash
# GGUF through the command: told by content, listed; cut short or of the other byte order it is refused.
. tests/cli/lib.sh

for x in meta v2 blocks; do
    cp "tests/fixtures/gguf_$x.gguf" "$T/any.name"
    "$S" inspect "$T/any.name" >"$T/out" 2>&1
    same "inspect of gguf_$x" "$?" 0
    check "inspect of gguf_$x says what it is" grep -q 'a GGUF file' "$T/out"
    check "inspect of gguf_$x lists its types" grep -qE '^ *(types)? +Q8_0 +1 tensors' "$T/out"
    size=$(stat -c %s "$T/any.name")
    head -c $((size / 2)) "tests/fixtures/gguf_$x.gguf" >"$T/cut.gguf"
    refuses 1 'cut.gguf.*truncated' inspect "$T/cut.gguf"
done
refuses 1 'big-endian' inspect tests/fixtures/gguf_big_endian.gguf
done_testing
