#!/usr/bin/env python3
"""Runs sumi and its peers on the same shapes, weights and threads, one after the other in each round, and prints a table of medians.

    tools/peers/build.sh DIR                 what they need, once; DIR is a throw-away folder
    tools/peers/compare.py DIR               all that are there, 3 rounds of the UNet (one evaluation, a guided pair) and the decoder
    tools/peers/compare.py DIR --what unet --size 256 --rounds 1 sumi onnx sdcpp-llamafile-fa

Each run is a process of its own: it loads, evaluates --evaluations times, and the first of these is left out of the median (the
decoder of sdcpp excepted: it comes once, at the end of a picture). Odd rounds go through the peers backwards. A peer that fails is
listed with what it said, one that takes longer than --limit with that. torch-compile's first evaluation of a size is its compiler's:
a quarter of an hour on a busy machine; what it compiled stays in DIR/inductor-ISA. Weights are f16 in the file; sdcpp computes
products with f16 and f32, those of bf16 with bfloat16 (not all of them: convolutions of sumi-bf16 stay f32), all others with f32.
Peers: sumi, sumi-exact (no minimal filtering), sumi-bf16 (--compute bf16), torch, torch-malloc (memory kept by the allocator),
torch-last (and channels last), torch-bf16 (channels last, all of the model in bfloat16), torch-compile (channels last and
torch.compile), onnx, openvino, openvino-bf16, openvino-int8, sdcpp-{stock,llamafile}[-fa][-direct].
--isa avx2 holds sumi, PyTorch and OpenVINO to AVX2 on a processor that has more; ONNX Runtime and stable-diffusion.cpp as it is built
here cannot be held and are left out.
"""
import argparse
import array
import datetime
import json
import math
import os
import platform
import random
import re
import signal
import statistics
import struct
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
PEERS = ["sumi", "sumi-exact", "sumi-bf16", "torch", "torch-malloc", "torch-last", "torch-bf16", "torch-compile", "onnx", "openvino",
         "openvino-bf16", "openvino-int8", "sdcpp-stock", "sdcpp-stock-fa", "sdcpp-llamafile-fa"]
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "SUMI_CPU": "avx2"}
HELD = ("sumi", "torch", "openvino")
GMAC = {"unet": 401.6, "guided": 803.2, "vae": 1257.0}  # of a direct sum at 512x512
# glibc: large blocks from the heap, which is never trimmed, in large pages where the kernel gives them.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 34), "MALLOC_TOP_PAD_": str(1 << 26), "MALLOC_ARENA_MAX": "1",
          "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def write_inputs(path, tensors):
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        raw = array.array("f", values).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head + data)


def inputs(folder, what, size):
    """Latents and context of unit normal values; one file for every peer."""
    path = f"{folder}/{what}-{size}.safetensors"
    r, n, s = random.Random(1), 2 if what == "guided" else 1, size // 8
    normal = lambda *shape: (list(shape), [r.gauss(0, 1) for _ in range(math.prod(shape))])
    if what == "vae":
        write_inputs(path, {"latents": normal(1, 4, s, s)})
    else:
        write_inputs(path, {"sample": normal(n, 4, s, s), "timestep": ([n], [500.0] * n), "encoder_hidden_states": normal(n, 77, 768)})
    return path


def read_output(path):
    """The one tensor of sumi's safetensors file, or raw f32."""
    raw = open(path, "rb").read()
    if path.endswith(".safetensors"):
        raw = raw[8 + struct.unpack("<Q", raw[:8])[0]:]
    a = array.array("f")
    a.frombytes(raw)
    return a


def command(a, peer, what, in_path, out):
    kind = peer.split("-")[0]
    if kind == "sumi":
        module = "vae_decoder" if what == "vae" else "unet"
        return [a.sumi, "run", module, "--model", f"{a.dir}/model", "--in", in_path, "--out", out, "--threads", str(a.threads),
                "--repeat", str(a.evaluations)] + {"sumi-exact": ["--exact"], "sumi-bf16": ["--compute", "bf16"]}.get(peer, [])
    if kind == "sdcpp":
        build, *flags = peer.split("-")[1:]
        return [f"{a.dir}/build-sdcpp-{build}/peer", what, f"{a.dir}/model", str(a.size), str(a.threads), str(a.evaluations)] + flags
    name = "torch" if peer == "torch-malloc" else peer
    return [f"{a.dir}/venv/bin/python", f"{HERE}/peer.py", "run", name, "vae" if what == "vae" else "unet", f"{a.dir}/model",
            f"{a.dir}/onnx", in_path, out, str(a.threads), str(a.evaluations)]


def run(a, words, env):
    """(standard output, error, peak MB)"""
    def before():
        os.nice(a.nice)
        os.setsid()  # torch.compile's compilers are processes of its own: they are ended with it
        if a.cpus:
            os.sched_setaffinity(0, [int(c) for c in a.cpus.split(",")])
    try:
        p = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=open(f"{a.dir}/out/stderr", "w+"), env=env, preexec_fn=before, text=True)
    except OSError as e:
        return "", str(e), 0
    over = []

    def end():
        over.append(True)
        os.killpg(p.pid, signal.SIGKILL)
    late = threading.Timer(a.limit, end)
    late.start()
    try:
        text = p.stdout.read()
        _, status, usage = os.wait4(p.pid, 0)
    except BaseException:
        end()
        raise
    finally:
        late.cancel()
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode == 0:
        return text, "", usage.ru_maxrss / 1000
    said = [s.strip() for s in open(f"{a.dir}/out/stderr", errors="replace") if s.strip()]
    done = "no evaluation done" if "evaluation 1:" not in text else "not at its end"
    why = f"{done} after --limit {a.limit:.0f} s" if over else "killed, for memory?" if p.returncode == -9 else f"exit status {p.returncode}"
    return text, f"{why}: {said[-1] if said else 'nothing said'}"[:200], 0


def environment(a, peer):
    env = dict(os.environ, OMP_NUM_THREADS=str(a.threads), MKL_NUM_THREADS=str(a.threads), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false",
               TORCHINDUCTOR_CACHE_DIR=f"{a.dir}/inductor-{a.isa}", **(AVX2 if a.isa == "avx2" else {}))
    return dict(env, **MALLOC) if peer.startswith("torch-") else env


def version(a, peer):
    kind = peer.split("-")[0]
    if kind == "sumi":
        git = lambda *w: subprocess.run(["git", "-C", TOP, *w], capture_output=True, text=True).stdout.strip()
        said = run(a, [a.sumi, "version"], environment(a, peer))[0].split("\n")[0]
        return f"{said}, tree {git('rev-parse', '--short', 'HEAD')}" + (" and changes" if git("status", "--porcelain", "-uno") else "")
    if kind == "sdcpp":
        return run(a, [f"{a.dir}/build-sdcpp-{peer.split('-')[1]}/peer", "version"], None)[0].replace("\n", " ").strip()
    return run(a, [f"{a.dir}/venv/bin/python", f"{HERE}/peer.py", "version", peer], None)[0].strip()


def peak(a):
    """GFLOP/s of multiply-adds on all threads, as bench_gemm measures it; 0 without it."""
    text = run(a, [a.bench, str(a.threads), "no such shape"], environment(a, "sumi"))[0]
    m = re.search(r"peak ([0-9.]+) GFLOP/s a core", text)
    return float(m[1]) * a.threads if m else 0


def measure(a, peers):
    got = {(p, w): {"seconds": [], "mb": 0, "error": ""} for p in peers for w in a.what}
    files, peaks = {w: inputs(f"{a.dir}/out", w, a.size) for w in a.what}, []
    for r in range(a.rounds):
        peaks.append(peak(a))
        for what in a.what:
            for peer in peers if r % 2 == 0 else peers[::-1]:
                g, out = got[peer, what], f"{a.dir}/out/{peer}-{what}" + (".safetensors" if peer.startswith("sumi") else ".f32")
                if g["error"]:
                    continue
                load = os.getloadavg()[0]
                text, g["error"], mb = run(a, command(a, peer, what, files[what], out), environment(a, peer))
                s = [float(x) for x in re.findall(r"^evaluation \d+: ([0-9.]+) s$", text, re.M)]
                if not s and not g["error"]:
                    g["error"] = "printed no times"
                if not g["error"]:
                    g["seconds"] += s[1:] or s
                    g["mb"] = max(g["mb"], mb)
                print(f"round {r + 1}, {what}, {peer}: " + (g["error"] or " ".join(f"{x:.3f}" for x in s) + f" s, {mb:.0f} MB") + f" (load before {load:.1f})",
                      file=sys.stderr, flush=True)
    return got, peaks


def difference(a, got, peer, what):
    """max |d| over the root mean square, against sumi's output of the same call."""
    base, other = f"{a.dir}/out/sumi-{what}.safetensors", f"{a.dir}/out/{peer}-{what}" + (".safetensors" if peer.startswith("sumi") else ".f32")
    if peer == "sumi" or not got.get(("sumi", what), {}).get("seconds") or not os.path.exists(other):
        return ""
    x, y = read_output(base), read_output(other)
    if len(x) != len(y):
        return "other shape"
    rms = math.sqrt(sum(v * v for v in x) / len(x))
    return f"{max(abs(u - v) for u, v in zip(x, y)) / rms:.1e}"


def table(a, peers, got, peaks):
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    flags = [f for f in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile") if re.search(rf"\b{f}\b", open("/proc/cpuinfo").read())]
    print(f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC, {cpu[1] if cpu else platform.machine()} ({' '.join(flags)}), {'held to AVX2, ' if a.isa == 'avx2' else ''}{a.threads} of {os.cpu_count()} "
          f"processors, {a.size}x{a.size}, {a.rounds} rounds; seconds are medians of {a.evaluations} evaluations a round without the first (least to most)\n")
    best = statistics.median(peaks)
    for what in a.what:
        mine = got.get(("sumi", what), {}).get("seconds")
        floor = 2 * GMAC[what] / best if best and a.size == 512 else 0
        print(f"| {what} | seconds | sumi's share of it | direct sums at the peak / it | memory | differs from sumi |\n|---|---|---|---|---|---|")
        for peer in peers:
            g = got[peer, what]
            if g["error"] or not g["seconds"]:
                print(f"| {peer} | failed: {g['error']} | | | | |")
                continue
            m = statistics.median(g["seconds"])
            print(f"| {peer} | {m:.3f} ({min(g['seconds']):.3f} to {max(g['seconds']):.3f}) | {f'{statistics.median(mine) / m:.2f}' if mine else ''} | "
                  f"{f'{floor / m:.2f}' if floor else ''} | {g['mb']:.0f} MB | {difference(a, got, peer, what)} |")
        print()
    if best:
        print(f"Multiply-add peak of the threads: {best:.0f} GFLOP/s ({min(peaks):.0f} to {max(peaks):.0f}).")
    for peer in peers:
        print(f"{peer}: {version(a, peer) or 'not there'}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dir", metavar="DIR")
    p.add_argument("peers", nargs="*", metavar="PEER")
    p.add_argument("--what", default="unet,guided,vae")
    p.add_argument("--size", type=int, default=512)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--evaluations", type=int, default=4, help="of a run; ONNX Runtime is slow in its first two")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--isa", choices=["native", "avx2"], default="native", help="avx2: those that can be held to it")
    p.add_argument("--cpus", help="processors to stay on, as 0,1")
    p.add_argument("--nice", type=int, default=0)
    p.add_argument("--limit", type=float, default=1800, help="seconds after which a run is ended (1800)")
    p.add_argument("--sumi", default=f"{TOP}/build/sumi")
    p.add_argument("--bench", default=f"{TOP}/build/bench_gemm", help="for the multiply-add peak")
    a = p.parse_intermixed_args()
    a.dir, a.what = os.path.abspath(a.dir), a.what.split(",")
    peers = [x for x in a.peers or PEERS if a.isa == "native" or x.split("-")[0] in HELD and not x.endswith("bf16")]
    bad = [w for w in a.what if w not in GMAC] + [x for x in peers if x not in PEERS and not re.fullmatch(r"sdcpp-(stock|llamafile)(-fa)?(-direct)?", x)]
    if bad or a.size % 64:
        p.error(f"no such thing: {', '.join(bad)}" if bad else "--size is a multiple of 64")
    os.makedirs(f"{a.dir}/out", exist_ok=True)
    got, peaks = measure(a, peers)
    table(a, peers, got, peaks)
    return any(g["error"] for g in got.values())


if __name__ == "__main__":
    sys.exit(main())
