#!/usr/bin/env python3
"""What approximations cost and gain: the same requests with and without each, in turns.

    tools/approximations.py [--sumi build/sumi] [--steps 20] [--count 1] [--model FILE] [--size WxH] [--prompts N] [--seeds N] [SETTING...]

A SETTING is flags in one word: "--step-cache deepcache --cache-interval 2"; without any a list of usual ones is run. Each line: evaluations of
the model that were spared (as sumi tells), processor seconds of the whole request and their share of plain's (medians; one thread),
then how far the result is from plain's: rms of the final latents over plain's rms, and the pictures' PSNR in dB, mean and worst.
Needs numpy and Pillow; not part of make.
"""
import argparse
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import time

import numpy
from PIL import Image

PROMPTS = ["a red apple, noto style", "panda, noto style", "a castle, fluent flat style", "umbrella on a blue background", "rainbow, noto style",
           "grinning face, noto style"]
USUAL = ["--step-cache deepcache --cache-interval 2", "--step-cache deepcache", "--step-cache deepcache --cache-interval 5",
         "--step-cache deepcache --cache-branch 2", "--step-cache deepcache --cache-order 1",
         "--step-cache taylorseer --cache-interval 2", "--step-cache taylorseer", "--step-cache taylorseer --cache-order 0",
         "--step-cache taylorseer --cache-order 2", "--step-cache taylorseer --cache-interval 5",
         "--step-cache easycache --cache-threshold 0.05", "--step-cache easycache", "--step-cache easycache --cache-threshold 0.2",
         "--step-cache teacache --cache-threshold 0.1", "--step-cache teacache", "--step-cache teacache --cache-threshold 0.4",
         "--guidance-stop 0.75", "--guidance-stop 0.5", "--guidance-start 0.2", "--guidance-start 0.2 --guidance-stop 0.75"]


def latents(path):
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    at = json.loads(raw[8:8 + size])["latents"]
    a, b = at["data_offsets"]
    return numpy.frombuffer(raw[8 + size + a:8 + size + b], "<f4").astype(float)


def draw(args, work, prompt, seed, flags):
    """Processor seconds, pictures, latents, what was spared."""
    out, x = work / "p.png", work / "x.safetensors"
    for old in work.glob("*"):
        old.unlink()
    line = [args.sumi, "generate", prompt, "--seed", str(seed), "--steps", str(args.steps), "--count", str(args.count), "--threads", "1",
            "--save-latents", str(x), "-o", str(out), *args.more, *flags.split()]
    while os.path.exists("/tmp/QUIET"):
        time.sleep(2)
    p = subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    told = p.stderr.read().decode()
    _, status, use = os.wait4(p.pid, 0)
    if status:
        sys.exit(told)
    spared = re.search(r"spared (\d+) of (\d+)", told)
    pictures = numpy.stack([numpy.asarray(Image.open(f).convert("RGB")).astype(float) for f in sorted(work.glob("*.png"))])
    return use.ru_utime + use.ru_stime, pictures, latents(x), (int(spared[1]), int(spared[2])) if spared else (0, 0)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sumi", default="build/sumi")
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--count", type=int, default=1)
    p.add_argument("--prompts", type=int, default=len(PROMPTS))
    p.add_argument("--seeds", type=int, default=2)
    p.add_argument("--model")
    p.add_argument("--size")
    p.add_argument("settings", nargs="*", metavar="SETTING")
    args, rest = p.parse_known_args()
    args.settings += rest
    args.more = (["--model", args.model] if args.model else []) + (["--size", args.size] if args.size else [])
    settings = args.settings or USUAL
    asked = [(text, seed) for text in PROMPTS[:args.prompts] for seed in range(1, args.seeds + 1)]
    found = {s: [] for s in [""] + settings}
    with tempfile.TemporaryDirectory() as tmp:
        work = pathlib.Path(tmp)
        for text, seed in asked:
            plain = draw(args, work, text, seed, "")
            found[""].append((plain[0],))
            for i, s in enumerate(settings):
                if i % 4 == 2: # the machine's clock moves
                    found[""].append((draw(args, work, text, seed, "")[0],))
                seconds, pictures, x, spared = draw(args, work, text, seed, s)
                psnr = 10 * numpy.log10(255 ** 2 / numpy.maximum(((pictures - plain[1]) ** 2).mean((1, 2, 3)), 1e-3))
                far = numpy.sqrt(((x - plain[2]) ** 2).mean() / (plain[2] ** 2).mean())
                found[s].append((seconds, spared[0] / max(spared[1], 1), far, psnr))
    base = numpy.median([f[0] for f in found[""]])
    print("%d steps, %d requests of %d; plain: %.3f s" % (args.steps, len(asked), args.count, base))
    print("| setting | spared | seconds | of plain | latents | PSNR: mean, worst |\n|---|---|---|---|---|---|")
    for s in settings:
        f, t = found[s], numpy.median([f[0] for f in found[s]])
        psnr = numpy.concatenate([x[3] for x in f])
        print("| `%s` | %.0f%% | %.3f | %.2f | %.3f | %.1f, %.1f |" % (s, 100 * numpy.mean([x[1] for x in f]), t, t / base,
                                                                   numpy.mean([x[2] for x in f]), psnr.mean(), psnr.min()))


if __name__ == "__main__":
    main()
