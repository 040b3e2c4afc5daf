#!/bin/bash
# sumi schedule: the table and the JSON, of families without a model; wrong calls give one line.
. tests/cli/lib.sh

levels() { "$S" schedule "$@" --json | grep -o '"sigma": [^,]*' | cut -d' ' -f2 | tr '\n' ' '; }
times() { "$S" schedule "$@" --json | grep -o '"timestep": [^,]*' | cut -d' ' -f2 | tr '\n' ' '; }

same "a flow without shift, simple" "$(levels --family flow --schedule simple --steps 4)" "1 0.75 0.5 0.25 0 "
same "shift 3" "$(levels --family flow --shift 3 --schedule simple --steps 2)" "1 0.75 0 "
same "timesteps of a flow are sigmas times 1000" "$(times --family flow --schedule simple --steps 4)" "1000 750 500 250 null "
same "a list" "$(levels --family sd15 --sigmas '10; 5 .5')" "10 5 0.5 "
printf '8\n4\n0\n' >"$T/list"
same "a list from a file" "$(levels --family edm --sigmas "$T/list")" "8 4 0 "
same "turbo is the trained timesteps from the top" \
    "$("$S" schedule --family sd15 --schedule turbo --steps 4 | awk 'NR > 3 { print $3 }' | tr '\n' ' ')" "999 749 499 249 - "
same "one level of karras by hand" "$(levels --family sd15 --schedule karras --sigma-max 128 --sigma-min 2 --rho 1 --steps 3)" \
    "128 65 2 0 "
same "the lowest but 0 left out" "$(levels --family sd15 --schedule karras --sigma-max 128 --sigma-min 2 --rho 1 --steps 2 --discard-next-to-last-sigma 1)" "128 65 0 "
same "zero terminal SNR" "$(levels --family sdxl --zero-snr 1 --steps 1 | cut -c 1-7)" "4095.99"
check "the table names schedule and source" bash -c '"$0" schedule --family sd15 --schedule ays --steps 10 | head -n 1 | grep -q "align_your_steps: ComfyUI, NVIDIA, 10 steps"' "$S"
if command -v python3 >/dev/null; then
    check "the JSON is JSON" bash -c '"$0" schedule --family flow --steps 3 --json | python3 -m json.tool' "$S"
else
    skip "the JSON is JSON: python3 is missing"
fi

refuses 2 "none of sd15" schedule --family sd3x
refuses 2 'not both' schedule --family sd15 --model x
refuses 2 'one word too many' schedule a --family sd15
refuses 2 'must fall' schedule --family sd15 --sigmas 1,2
refuses 2 "'x' is not a number" schedule --family sd15 --sigmas 3,x,0
refuses 1 'nonexistent' schedule --family sd15 --sigmas "$T/nonexistent"
refuses 2 '2 steps, but --steps says 5' schedule --family sd15 --sigmas 3,2,0 --steps 5
refuses 2 'takes the place' schedule --family sd15 --sigmas 3,2,0 --schedule karras
refuses 2 'only flow models' schedule --family sd15 --shift 3
refuses 2 'betas' schedule --family flow --zero-snr 1
refuses 2 "'square' is unknown" schedule --family sd15 --beta-schedule square
refuses 2 'takes no rho' schedule --family sd15 --schedule normal --rho 3
refuses 2 'takes no highest' schedule --family sd15 --schedule beta --sigma-max 3
refuses 2 'no range' schedule --family sd15 --schedule karras --sigma-min 20
refuses 2 'flow models' schedule --family flow --schedule cosine
refuses 2 'no noise anew' schedule --family sd15 --sampler euler --eta 0.5
refuses 2 'no churn' schedule --family sd15 --sampler ddim --s-churn 1
refuses 2 'out of range' schedule --family sd15 --s-noise -1
refuses 2 'below --s-tmin' schedule --family sd15 --sampler euler --s-churn 1 --s-tmin 3 --s-tmax 2
refuses 2 'unknown' schedule --family sd15 --schedule kerras
done_testing
