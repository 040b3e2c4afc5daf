#!/bin/bash
# Training by the command: stages, stop and go on, a kill, what is refused; then the score.
. tests/cli/lib.sh
tiny_data

"$S" train "$T/tiny.json" --threads 2 >"$T/out" 2>"$T/err"
same "a whole run" $? 0
check "progress in plain lines" grep -qE '^flow [0-9]+/8, loss' "$T/err"
check "the log is JSON lines" grep -q '^{"stage":"flow","step":8,' "$T/tiny/log.jsonl"
refuses 1 'resume' train "$T/tiny.json" --quiet
refuses 2 'stage' train "$T/tiny.json" --quiet --stage dinner -o "$T/other"

# In pieces, with another number of threads: the same bits.
"$S" train "$T/tiny.json" -o "$T/pieces" --threads 1 --quiet --max-steps 3
for _ in 1 2 3 4 5 6; do "$S" train "$T/tiny.json" -o "$T/pieces" --threads 1 --quiet --resume --max-steps 3; done
check "pieces give the same model" cmp "$T/tiny/tiny.safetensors" "$T/pieces/tiny.safetensors"

# Killed at some moment of a longer run, then finished.
sed 's/"steps": 8/"steps": 400/' "$T/tiny.json" >"$T/long.json"
"$S" train "$T/long.json" -o "$T/whole" --quiet
"$S" train "$T/long.json" -o "$T/killed" --quiet &
job=$!
sleep 0.4
kill -KILL $job 2>/dev/null
wait $job 2>/dev/null
"$S" train "$T/long.json" -o "$T/killed" --quiet --resume
check "killed and resumed gives the same model" cmp "$T/whole/tiny.safetensors" "$T/killed/tiny.safetensors"

# Stopped by a signal: one line that says how to go on.
sed 's/"steps": 8/"steps": 1000000/' "$T/tiny.json" >"$T/endless.json"
"$S" train "$T/endless.json" -o "$T/stopped" --quiet 2>"$T/err" &
job=$!
sleep 1
kill -TERM $job
wait $job
same "SIGTERM: status 143" $? 143
check "SIGTERM: says how to go on" grep -qE '^sumi: stopped; sumi train --resume' "$T/err"
check "SIGTERM: a checkpoint" ls "$T"/stopped/*.ckpt

refuses 2 'noto-classic-deluxe' train <(sed 's/"size": 16/"size": 16, "styles": ["noto-classic-deluxe"]/' "$T/tiny.json") \
    -o "$T/x" --quiet
sed 's/"seed": 7/"sead": 7/' "$T/tiny.json" >"$T/key.json"
refuses 1 'sead' train "$T/key.json"
sed 's/"batch": 2/"batch": -2/' "$T/tiny.json" >"$T/range.json"
refuses 1 'batch' train "$T/range.json"
touch "$T/file"
refuses 1 'file' train "$T/tiny.json" -o "$T/file/below"

"$S" score --pictures "$T/tiny.safetensors" --index "$T/tiny.jsonl" --model "$T/tiny/tiny.safetensors" --steps 1 \
    --json --quiet >"$T/out" 2>"$T/err"
same "score --json counts all pairs" "$(grep -o '"trained": {"pairs": 12' "$T/out")" '"trained": {"pairs": 12'
refuses 1 'missing' score --pictures "$T/missing" --index "$T/tiny.jsonl" --model "$T/tiny/tiny.safetensors" --quiet
done_testing
