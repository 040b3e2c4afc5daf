#!/usr/bin/env python3
"""Training steps of sumi and PyTorch, one after the other in each round, and a table of medians.

    make build/bench_train
    tools/peers/build.sh --torch /path/to/python DIR       what it needs, once
    tools/peers/train.py DIR                               both tasks, 3 rounds of 6 steps, the first of each run left out
    tools/peers/train.py DIR --what lora --model FOLDER --threads 1 --processor-time sumi torch torch-last

flow: the flow stage of models/pictograms/train.json: UNet2DConditionModel and CLIPTextModelWithProjection as configured there, both
trained, rectified flow (x0 to noise - x0), gradients' norm clipped, AdamW (no decay on vectors), moving average. lora: adapters of rank 16 on
to_q, to_k, to_v and to_out.0 of the attentions of FOLDER/unet (as PEFT computes them: x W^T + b + (x A^T) B^T; Stable Diffusion 1.5's
shapes), one picture of 256x256, 77 tokens, error of the noise, AdamW on the adapters alone. Each run is a process of its own; a step is
inputs, forward, backward, clip and update. All in f32; sumi reads the frozen weights as stored (f16), PyTorch has them as f32.
Peers: sumi, torch, torch-last (channels last, memory kept by the allocator), torch-compile (and torch.compile).
"""
import argparse
import json
import os
import re
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
PEERS = ["sumi", "torch", "torch-last", "torch-compile"]


def recipe(path):
    return json.load(open(path))


def adapted(linear, rank):
    import torch

    class Adapted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.base = linear
            self.a = torch.nn.Linear(linear.in_features, rank, bias=False)
            self.b = torch.nn.Linear(rank, linear.out_features, bias=False)
            torch.nn.init.zeros_(self.b.weight)

        def forward(self, x, *args):
            return self.base(x) + self.b(self.a(x))

    return Adapted()


def flow_task(a, channels_last, compiled):
    """(parameters, moving averages, step's loss)"""
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    c = recipe(a.recipe)
    t = {k: v for k, v in c["text_encoder"].items() if k != "architectures"}
    text = CLIPTextModelWithProjection(CLIPTextConfig(vocab_size=c["vocab_size"], bos_token_id=c["vocab_size"] - 2, eos_token_id=c["vocab_size"] - 1,
                                                      attn_implementation="sdpa", **t))
    unet = UNet2DConditionModel(**{k: v for k, v in c["denoiser"].items() if k != "_class_name"})
    b, latent, tokens = c["flow"]["batch"], c["vae"]["latent_channels"], t["max_position_embeddings"]
    side, size = c["denoiser"]["sample_size"], c["data"]["size"]
    if channels_last:
        unet = unet.to(memory_format=torch.channels_last)
    params = list(unet.parameters()) + list(text.parameters())
    if compiled:
        unet, text = torch.compile(unet), torch.compile(text)
    data = torch.randn(b, latent, side, side)
    sizes = torch.tensor([[size, size, 0, 0, size, size]] * b, dtype=torch.float32)

    def loss():
        noise, s = torch.randn(b, latent, side, side), torch.sigmoid(2 + 1.2 * torch.randn(b))
        ids = torch.randint(0, c["vocab_size"] - 2, (b, tokens))
        ids[:, 0], ids[:, 10] = c["vocab_size"] - 2, c["vocab_size"] - 1
        x = (1 - s).view(-1, 1, 1, 1) * data + s.view(-1, 1, 1, 1) * noise
        if channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        t = text(input_ids=ids)
        y = unet(x, 1000 * s, t.last_hidden_state, added_cond_kwargs={"text_embeds": t.text_embeds, "time_ids": sizes}, return_dict=False)[0]
        return torch.nn.functional.mse_loss(y, noise - data)

    f = c["flow"]
    hyper = dict(lr=f["lr"], betas=(0.9, 0.99), eps=1e-8)
    return params, [p.detach().clone() for p in params], f["ema"], hyper, loss


def lora_task(a, channels_last, compiled):
    import torch
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(a.model, subfolder="unet", torch_dtype=torch.float32).requires_grad_(False)
    params = []
    for name, m in list(unet.named_modules()):
        if not re.search(r"\.(to_q|to_k|to_v|to_out\.0)$", name):
            continue
        owner, last = name.rsplit(".", 1)
        new = adapted(m, a.rank)
        if last.isdigit():
            unet.get_submodule(owner)[int(last)] = new
        else:
            setattr(unet.get_submodule(owner), last, new)
        params += [new.a.weight, new.b.weight]
    side = a.size // 8
    if channels_last:
        unet = unet.to(memory_format=torch.channels_last)
    if compiled:
        unet = torch.compile(unet)
    data = torch.randn(1, 4, side, side)

    def loss():
        noise, s, ctx = torch.randn_like(data), torch.rand(1), torch.randn(1, 77, 768)
        x = (1 - s).sqrt() * data + s.sqrt() * noise
        if channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return torch.nn.functional.mse_loss(unet(x, 1000 * s, ctx, return_dict=False)[0], noise)

    return params, None, 0, dict(lr=1e-4, betas=(0.9, 0.999), eps=1e-8), loss


def run_torch(a, peer):
    """A child's work: prints as bench_train does."""
    import torch

    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    task = flow_task if a.what == "flow" else lora_task
    params, average, decay, hyper, loss = task(a, peer != "torch", peer == "torch-compile")
    groups = [{"params": [p for p in params if p.dim() > 1], "weight_decay": 0.01}, {"params": [p for p in params if p.dim() <= 1], "weight_decay": 0}]
    opt = torch.optim.AdamW([g for g in groups if g["params"]], fused=True, **hyper)
    for i in range(a.steps):
        cpu, t = time.process_time(), time.perf_counter()
        e = loss()
        e.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, 1)
        opt.step()
        opt.zero_grad(set_to_none=True)
        if average:
            with torch.no_grad():
                torch._foreach_lerp_(average, params, 1 - decay)
        print(f"evaluation {i + 1}: {time.perf_counter() - t:.6f} s\n  processor {time.process_time() - cpu:.4f} s; loss {float(e.detach()):.6f}, norm {float(norm):.6f}", flush=True)


def command(a, peer, what):
    if peer == "sumi":
        return [a.bench, what, a.recipe if what == "flow" else a.model, str(a.steps), str(a.threads)] + (["0", str(a.rank), str(a.size)] if what == "lora" else [])
    return [a.python or f"{a.dir}/venv/bin/python", os.path.abspath(__file__), a.dir, "--child", peer, "--what", what, "--model", a.model, "--recipe", a.recipe, "--steps", str(a.steps),
            "--threads", str(a.threads), "--rank", str(a.rank), "--size", str(a.size)]


def measure(a, peers, compare):
    got = {}
    for r in range(a.rounds):
        for what in a.what.split(","):
            for peer in peers if r % 2 == 0 else peers[::-1]:
                g = got.setdefault((peer, what), {"wall": [], "cpu": [], "mb": 0, "error": ""})
                if g["error"]:
                    continue
                text, g["error"], mb = compare.run(a, command(a, peer, what), compare.environment(a, peer))
                wall = [float(x) for x in re.findall(r"^evaluation \d+: ([0-9.]+) s$", text, re.M)]
                cpu = [float(x) for x in re.findall(r"^  processor ([0-9.]+) s", text, re.M)]
                skip = min(a.skip, len(wall) - 1)
                if not g["error"] and not wall:
                    g["error"] = "printed no times"
                if not g["error"]:
                    g["wall"] += wall[skip:]
                    g["cpu"] += cpu[skip:]
                    g["mb"] = max(g["mb"], mb)
                print(f"round {r + 1}, {what}, {peer}: " + (g["error"] or " ".join(f"{x:.3f}" for x in wall) + " s; processor " + " ".join(f"{x:.3f}" for x in cpu) + f" s; {mb:.0f} MB"),
                      file=sys.stderr, flush=True)
    return got


def table(a, peers, got):
    key = "cpu" if a.processor_time else "wall"
    print(f"{a.threads} threads, {a.rounds} rounds of {a.steps} steps, the first {a.skip} left out; {'processor seconds' if a.processor_time else 'seconds'}, medians (least to most)\n")
    for what in a.what.split(","):
        mine = got.get(("sumi", what), {}).get(key)
        print(f"| {what} | seconds a step | sumi's share of it | memory |\n|---|---|---|---|")
        for peer in peers:
            g = got[peer, what]
            if g["error"]:
                print(f"| {peer} | failed: {g['error']} | | |")
                continue
            m = statistics.median(g[key])
            print(f"| {peer} | {m:.3f} ({min(g[key]):.3f} to {max(g[key]):.3f}) | {f'{statistics.median(mine) / m:.2f}' if mine else ''} | {g['mb']:.0f} MB |")
        print()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dir", metavar="DIR")
    p.add_argument("peers", nargs="*", metavar="PEER")
    p.add_argument("--what", default="flow,lora")
    p.add_argument("--model", help="folder in diffusers' layout, for lora; without it DIR/model")
    p.add_argument("--recipe", default=f"{TOP}/models/pictograms/train.json")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=6)
    p.add_argument("--skip", type=int, default=1, help="steps of each run that do not count; the compiler works in the first")
    p.add_argument("--rank", type=int, default=16)
    p.add_argument("--size", type=int, default=256)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--processor-time", action="store_true", help="compare processor seconds: on a machine that does other things")
    p.add_argument("--isa", choices=["native", "avx2"], default="native", help="avx2: both sides held to it")
    p.add_argument("--cpus", help="processors to stay on, as 0,1")
    p.add_argument("--nice", type=int, default=0)
    p.add_argument("--limit", type=float, default=3600)
    p.add_argument("--bench", default=f"{TOP}/build/bench_train")
    p.add_argument("--python", help="of the peers; without it DIR/venv/bin/python")
    p.add_argument("--child", help=argparse.SUPPRESS)
    a = p.parse_intermixed_args()
    a.dir = os.path.abspath(a.dir)
    a.model = a.model or f"{a.dir}/model"
    if a.child:
        return run_torch(a, a.child)
    peers = a.peers or PEERS
    bad = [x for x in peers if x not in PEERS] + [x for x in a.what.split(",") if x not in ("flow", "lora")]
    if bad:
        p.error(f"no such thing: {', '.join(bad)}")
    import compare
    os.makedirs(f"{a.dir}/out", exist_ok=True)
    got = measure(a, peers, compare)
    table(a, peers, got)
    for peer in peers:
        if peer != "sumi":
            print(f"{peer}: {compare.version(a, peer)}")
    return any(g["error"] for g in got.values())


if __name__ == "__main__":
    sys.exit(main())
