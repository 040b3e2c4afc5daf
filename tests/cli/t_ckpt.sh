#!/bin/bash
# PyTorch checkpoints through the command: told by content, listed, and never run.
. tests/cli/lib.sh

for x in zip_p2.ckpt stream_p2.pt; do
    cp "tests/fixtures/ckpt/$x" "$T/any.name"
    "$S" inspect "$T/any.name" >"$T/out" 2>&1
    same "inspect of $x" "$?" 0
    check "inspect of $x says what it is" grep -q 'a PyTorch checkpoint' "$T/out"
    check "inspect of $x lists its types" grep -qE '^ +BF16 +1 tensors' "$T/out"
    size=$(stat -c %s "$T/any.name")
    head -c $((size / 2)) "tests/fixtures/ckpt/$x" >"$T/cut.ckpt"
    refuses 1 'cut.ckpt.*truncated' inspect "$T/cut.ckpt"
    refuses 1 'any.name' plan --model "$T/any.name"
done

# A stream whose object is the result of os.system("touch ...").
{
    printf '\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\0\0\0little_endian\x88s.'
    line="touch $T/ran"
    printf '\x80\x02cos\nsystem\nX'
    printf "\\x$(printf %02x ${#line})\0\0\0%s" "$line"
    printf '\x85R.\x80\x02].'
} >"$T/evil.ckpt"
refuses 1 'evil.ckpt: .*names os.system, which is refused' inspect "$T/evil.ckpt"
check "nothing was run" test ! -e "$T/ran"
printf '\x80\x02}.' >"$T/plain.pt"
refuses 1 'plain.pt: a pickle, but none that torch.save wrote' inspect "$T/plain.pt"
done_testing
