#!/bin/bash
# sumi tokenize on vocabularies whose ids follow from OpenAI's order: bytes from '!' on, the same with </w> at 256, merges at 512.
. tests/cli/lib.sh

printf '#version: 0.2\nc a\nca t</w>\n' | gzip >"$T/merges.txt.gz"
same "OpenAI's file: ids" "$("$S" tokenize 'Cat a' --vocab "$T/merges.txt.gz" | tr -s ' \n' ' ')" \
    ' 514 <|startoftext|> 513 cat</w> 320 a</w> 515 <|endoftext|> '
same "OpenAI's file: JSON" "$("$S" tokenize --json 'cat"' --vocab "$T/merges.txt.gz")" \
    '{"ids": [514, 513, 257, 515], "tokens": ["<|startoftext|>", "cat</w>", "\"</w>", "<|endoftext|>"]}'
same "nothing but the marks" "$("$S" tokenize '' --vocab "$T/merges.txt.gz" | wc -l)" 2
same "CLIP's own, built in" "$("$S" tokenize --json 'caf&eacute; “1”' --vocab clip)" \
    '{"ids": [49406, 15304, 257, 272, 257, 49407], "tokens": ["<|startoftext|>", "cafÃ©</w>", "\"</w>", "1</w>", "\"</w>", "<|endoftext|>"]}'
mkdir "$T/pair" "$T/none"
printf '{"a":0,"b":1,"a</w>":2,"b</w>":3,"ab</w>":4,"<|startoftext|>":5,"<|endoftext|>":6}' >"$T/pair/vocab.json"
printf '#version: 0.2\na b</w>\n' >"$T/pair/merges.txt"
same "a folder: ids" "$("$S" tokenize 'ab b' --json --vocab "$T/pair")" \
    '{"ids": [5, 4, 3, 6], "tokens": ["<|startoftext|>", "ab</w>", "b</w>", "<|endoftext|>"]}'
refuses 1 'missing.txt' tokenize x --vocab "$T/missing.txt"
refuses 1 'vocab.json' tokenize x --vocab "$T/none"
refuses 1 'missing.safetensors' tokenize x --model "$T/missing.safetensors"
refuses 2 'not both' tokenize x --model m --vocab v
refuses 2 'needs a text' tokenize
refuses 2 'too many' tokenize a b
refuses 2 'UTF-8' tokenize $'\xff' --vocab "$T/merges.txt.gz"
done_testing
