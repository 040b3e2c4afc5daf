#!/usr/bin/env python3
"""Trains a small classifier of noisy latents for classifier guidance: which colour lies behind a drawing of the built-in model.

    tools/train_classifier.py --rgba rgba64.npy.xz --index index.jsonl --sumi build/sumi --out backgrounds.safetensors    # minutes on one core
    build/sumi "panda, noto style" --cfg 1.5 --classifier backgrounds.safetensors --class blue --classifier-scale 10 -o panda.png

--rgba: cut-out drawings, uint8 [N, S, S, 4] with straight alpha; --index: a line of JSON for each, whose "style" must be one of --styles, by
default the two that the built-in model learned from (tools/pictograms/README.md has their licences). They are pasted on plain grounds of eight colours (src/train/words.c has the
same), encoded by the model's own autoencoder (`sumi run vae_encoder`) and brought to the scale that its denoiser sees, then noised
as the rectified flow does: x = (1 - sigma) x0 + sigma n, timestep 1000 sigma. The network has the shape and tensor names of
guided-diffusion's EncoderUNetModel with the pool "adaptive", convolutions for downsampling and one attention in the middle; widths
are less than theirs, so its norms have 16 groups instead of 32. Needs torch, numpy and safetensors.
"""
import argparse
import io
import json
import lzma
import pathlib
import re
import subprocess
import tempfile

import numpy
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

COLOURS = {"white": (255, 255, 255), "black": (0, 0, 0), "red": (220, 38, 38), "orange": (249, 140, 30), "yellow": (250, 215, 50), "green": (50, 160, 70),
           "blue": (40, 90, 220), "purple": (125, 50, 170)}
SIDE, WIDTH, GROUPS = 128, 16, 16


# ---- the network, by guided-diffusion's names ----

class Residual(nn.Module):
    def __init__(self, a, b, emb):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(GROUPS, a), nn.SiLU(), nn.Conv2d(a, b, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, b))
        self.out_layers = nn.Sequential(nn.GroupNorm(GROUPS, b), nn.SiLU(), nn.Dropout(0), nn.Conv2d(b, b, 3, padding=1))
        self.skip_connection = nn.Conv2d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x, emb):
        return self.skip_connection(x) + self.out_layers(self.in_layers(x) + self.emb_layers(emb)[:, :, None, None])


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm, self.qkv, self.proj_out = nn.GroupNorm(GROUPS, c), nn.Conv1d(c, 3 * c, 1), nn.Conv1d(c, c, 1)

    def forward(self, x, emb):
        q, k, v = (y.transpose(1, 2)[:, None] for y in self.qkv(self.norm(x).flatten(2)).chunk(3, 1))
        return x + self.proj_out(F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)).reshape(x.shape)


class Halve(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.op = nn.Conv2d(c, c, 3, stride=2, padding=1)

    def forward(self, x, emb):
        return self.op(x)


class Classifier(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        w, e = WIDTH, 4 * WIDTH
        self.time_embed = nn.Sequential(nn.Linear(w, e), nn.SiLU(), nn.Linear(e, e))
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(channels, w, 3, padding=1)]), nn.ModuleList([Residual(w, w, e)]), nn.ModuleList([Halve(w)]),
                                           nn.ModuleList([Residual(w, 2 * w, e)])])
        self.middle_block = nn.ModuleList([Residual(2 * w, 2 * w, e), Attention(2 * w), Residual(2 * w, 2 * w, e)])
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, 2 * w), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(2 * w, classes, 1), nn.Flatten())

    def forward(self, x, t):
        f = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(WIDTH // 2) / (WIDTH // 2))
        emb = self.time_embed(torch.cat([torch.cos(t[:, None] * f), torch.sin(t[:, None] * f)], 1))
        for i, block in enumerate(self.input_blocks):
            for layer in block:
                x = layer(x, emb) if i else layer(x)
        for layer in self.middle_block:
            x = layer(x, emb)
        return self.out(x)


# ---- data ----

def pictures(rgba, n, dice):
    """[n, 3, SIDE, SIDE] in -1..1 and the colours' numbers: a drawing at a random place and size on a ground that varies a little."""
    label, out = torch.arange(n) % len(COLOURS), torch.empty(n, 3, SIDE, SIDE)
    for i in range(n):
        ground = torch.tensor(list(COLOURS.values())[label[i]]) / 255 + 0.03 * torch.from_numpy(dice.normal(size=3)).float()
        side = int(dice.integers(SIDE // 2, SIDE + 1))
        x, y = (int(dice.integers(0, SIDE - side + 1)) for _ in range(2))
        d = torch.from_numpy(rgba[dice.integers(len(rgba))].astype(numpy.float32) / 255).permute(2, 0, 1)[None]
        d = F.interpolate(torch.cat([d[:, :3] * d[:, 3:], d[:, 3:]], 1), size=(side, side), mode="bilinear", antialias=True)[0]
        p = ground.clamp(0, 1)[:, None, None].expand(3, SIDE, SIDE).clone()
        p[:, y:y + side, x:x + side] = p[:, y:y + side, x:x + side] * (1 - d[3]) + d[:3]
        out[i] = 2 * p - 1
    return out, label


def latents(sumi, model, x):
    """As the denoiser sees them: the command says by which shift and factor."""
    more = ["--model", model] if model else []
    said = subprocess.run([sumi, "run", "vae_encoder", "--list", *more], check=True, capture_output=True, text=True).stdout
    shift, factor = (float(v) for v in re.search(r"\(latents - ([-0-9.e]+)\) \* ([-0-9.e]+)", said).groups())
    out = []
    with tempfile.TemporaryDirectory() as tmp:
        a, b = str(pathlib.Path(tmp) / "in.safetensors"), str(pathlib.Path(tmp) / "out.safetensors")
        for part in x.split(64):
            save_file({"sample": part.contiguous()}, a)
            subprocess.run([sumi, "run", "vae_encoder", "--in", a, "--out", b, *more], check=True, stdout=subprocess.DEVNULL)
            out.append((load_file(b)["mean"] - shift) * factor)
    return torch.cat(out)


def right(net, x, label, sigma):
    """The share that is told rightly at a noise level."""
    with torch.no_grad():
        noisy = (1 - sigma) * x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
        return (net(noisy, torch.full((len(x),), 1000 * sigma)).argmax(1) == label).float().mean().item()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rgba", required=True)
    p.add_argument("--index", required=True)
    p.add_argument("--styles", default="noto,fluent-emoji-flat")
    p.add_argument("--sumi", default="build/sumi")
    p.add_argument("--model", help="another model than the built-in one; a rectified flow")
    p.add_argument("--out", default="backgrounds.safetensors")
    p.add_argument("--pictures", type=int, default=1536)
    p.add_argument("--steps", type=int, default=1200)
    a = p.parse_args()
    torch.manual_seed(1)
    rgba = numpy.load(io.BytesIO(lzma.open(a.rgba).read()) if a.rgba.endswith(".xz") else a.rgba)
    styles = [json.loads(line)["style"] for line in open(a.index, encoding="utf-8")]
    rgba = rgba[[i for i, s in enumerate(styles) if s in a.styles.split(",")]]
    x, label = pictures(rgba, a.pictures, numpy.random.default_rng(1))
    x, held = latents(a.sumi, a.model, x), a.pictures // 8
    print("%d drawings, latents %s, deviation %.3f" % (len(rgba), tuple(x.shape), x.std()))
    net = Classifier(x.shape[1], len(COLOURS))
    print("%d parameters" % sum(v.numel() for v in net.parameters()))
    opt = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.01)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(opt, a.steps)
    for step in range(a.steps):
        i = torch.randint(held, len(x), (64,))
        sigma = torch.rand(64)
        noisy = (1 - sigma)[:, None, None, None] * x[i] + sigma[:, None, None, None] * torch.randn(64, *x.shape[1:])
        loss = F.cross_entropy(net(noisy, 1000 * sigma), label[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
        fall.step()
        if step % 250 == 249:
            print("step %d: loss %.3f; held out, right at sigma %s" % (step + 1, loss.item(), ", ".join(
                "%g: %.2f" % (s, right(net, x[:held], label[:held], s)) for s in (0, 0.5, 0.8, 0.95, 1))), flush=True)
    save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, a.out, metadata={"class_names": json.dumps(list(COLOURS)), "num_heads": "1"})


if __name__ == "__main__":
    main()
