#!/usr/bin/python3
"""Render the training pictures of the built-in model.

    tools/pictograms/prepare.py --sources DIR --out DIR [--styles noto,fluent-emoji-flat] [--size 128]
    tools/pictograms/prepare.py --sources DIR --write-heldout        (regenerates heldout.txt)

Needs Debian's python3-gi gir1.2-rsvg-2.0 python3-gi-cairo python3-cairo python3-numpy (python3-pil too for --sheet).

DIR holds the packages as the npm registry serves them, unopened; `npm pack NAME@VERSION` in DIR fetches one.
Drawings, artists and licences are those of PACKAGES below;
names, keywords and groups are emojibase-data's (MIT), from Unicode CLDR.

Writes OUT/pictograms-SIZE.safetensors, one tensor `rgba`, U8 [N, SIZE, SIZE, 4], straight (not premultiplied) alpha, and
OUT/pictograms.jsonl, line i of it describing picture i: style, name, caption, tags, hex, group, sub, split. split is `train`,
or for what training must never see `concept` (the whole caption is held out) or `pair` (this caption in this style is).
People, symbols, flags and drawings without a code point are left out. The same input gives the same bytes."""
import argparse, glob, hashlib, json, os, re, struct, sys, tarfile, textwrap

PACKAGES = {  # style: (package, version, artist, licence), in the order of the output
    "noto": ("@iconify-json/noto", "1.2.9", "Google", "Apache-2.0"),
    "noto-v1": ("@iconify-json/noto-v1", "1.2.5", "Google", "Apache-2.0"),
    "twemoji": ("@iconify-json/twemoji", "1.2.5", "Twitter and contributors", "CC-BY-4.0"),
    "fluent-emoji": ("@iconify-json/fluent-emoji", "1.2.7", "Microsoft", "MIT"),
    "fluent-emoji-flat": ("@iconify-json/fluent-emoji-flat", "1.2.6", "Microsoft", "MIT"),
    "emojione": ("@iconify-json/emojione", "1.2.3", "EmojiOne v2", "CC-BY-4.0"),
    "fxemoji": ("@iconify-json/fxemoji", "1.2.2", "Mozilla", "CC-BY-4.0"),
    "streamline-emojis": ("@iconify-json/streamline-emojis", "1.2.4", "Streamline", "CC-BY-4.0"),
}
NAMES = ("emojibase-data", "17.0.0")
LEFT_OUT = {"people-body", "symbols", "flags", "component"}
NO_RENDER = {("fluent-emoji", "umbrella"), ("fluent-emoji", "umbrella-with-rain-drops")}  # librsvg 2.54 refuses them
HERE = os.path.dirname(os.path.abspath(__file__))
HELDOUT = os.path.join(HERE, "heldout.txt")
HELDOUT_CONCEPTS, HELDOUT_PAIRS = 40, 0.05
# Everyday words that the demo, the README and the free-wording tests ask for; fixed before anything was trained.
NEVER_HELD = {"red apple", "green apple", "cat", "cat face", "grinning cat", "dog", "dog face", "red heart", "sun", "house",
              "rocket", "pizza", "star", "fish", "tulip", "robot", "ghost", "umbrella", "balloon", "unicorn"}


def package(sources, name, version):
    """The package's tarball, under either of the names npm gives it."""
    flat = name.replace("@", "").replace("/", "-")
    path = os.path.join(sources, f"{flat}-{version}.tgz")
    if not os.path.exists(path):
        others = [os.path.basename(p) for p in glob.glob(os.path.join(sources, flat + "-[0-9]*.tgz"))]
        sys.exit(f"prepare.py: {path} is missing (`npm pack {name}@{version}` fetches it; here: {', '.join(others) or 'none'})")
    return tarfile.open(path)


def member(tar, path):
    return json.load(tar.extractfile("package/" + path))


def bare(code):
    """A code point sequence without its variation selectors."""
    return "-".join(c for c in code.upper().split("-") if c != "FE0F")


def slug(label):
    return re.sub(r"[^a-z0-9]+", "-", label.lower().replace("’", "")).strip("-")


def emoji_table(sources):
    """code point -> (caption, tags, hex, group, sub) of everything in the groups that are kept."""
    tar = package(sources, *NAMES)
    meta = member(tar, "meta/groups.json")
    out = {}
    for e in member(tar, "en/data.json"):
        group = meta["groups"].get(str(e.get("group")))
        if group and group not in LEFT_OUT:
            out[bare(e["hexcode"])] = (e["label"], e.get("tags", []), e["hexcode"], group, meta["subgroups"][str(e["subgroup"])])
    return out


def own_names():
    """style -> [(name, code point)] for the sets whose names say it in no other way (names.tsv)."""
    out = {}
    with open(os.path.join(HERE, "names.tsv"), encoding="utf-8") as f:
        for line in f:
            if not line.startswith("#"):
                style, name, code = line.rstrip("\n").split("\t")
                out.setdefault(style, []).append((name, code))
    return out


def index(sources, table):
    """All pictures of all styles in a fixed order, without split."""
    out = []
    extra = own_names()
    common = {}  # name -> code point, for the sets that have no table of their own but name things as these do
    for style in ("fluent-emoji-flat", "noto"):
        common.update({n: c for c, n in member(package(sources, *PACKAGES[style][:2]), "chars.json").items()})
    common.update({slug(e[0]): e[2] for e in table.values()})
    for style, (name, version, _, _) in PACKAGES.items():
        tar = package(sources, name, version)
        icons = member(tar, "icons.json")["icons"]
        chars = [(n, c) for c, n in member(tar, "chars.json").items()]
        pairs = chars or ([] if style in ("fxemoji", "streamline-emojis") else [(n, common[n]) for n in icons if n in common])
        rows, taken = [], set()
        # One drawing a code point where the set has a table of them: the one named as CLDR names it comes first.
        for n, c in sorted(pairs, key=lambda p: (bare(p[1]) not in table or slug(table[bare(p[1])][0]) != p[0], p[0])):
            if n in icons and bare(c) in table and bare(c) not in taken:
                taken.add(bare(c))
                rows.append((n, table[bare(c)]))
        rows += [(n, table[bare(c)]) for n, c in extra.get(style, []) if n in icons and bare(c) in table]
        for n, (caption, tags, code, group, sub) in sorted(rows, key=lambda r: r[0]):
            if (style, n) not in NO_RENDER:
                out.append({"style": style, "name": n, "caption": caption, "tags": tags, "hex": code, "group": group, "sub": sub})
    return out


def rank(*words):
    """The hash that decides what is held out: SHA-256 of the words, tab between, read as a big-endian number."""
    return int.from_bytes(hashlib.sha256("\t".join(("sumi held out",) + words).encode()).digest(), "big")


def write_heldout(rows):
    """40 whole concepts, spread over the groups in proportion to their size (largest remainder), in each group the lowest
    rank("concept", caption) except a few everyday words (NEVER_HELD); then of each style's remaining pairs the 5% lowest rank("pair", style, caption), walked in
    rank order over all styles, at most one pair a concept and only of concepts that noto and fluent-emoji-flat both have,
    so that a pair held out is a concept seen in another style."""
    groups, styles = {}, {}
    for r in rows:
        groups.setdefault(r["group"], set()).add(r["caption"])
        styles.setdefault(r["caption"], set()).add(r["style"])
    total = sum(map(len, groups.values()))
    seats = {g: HELDOUT_CONCEPTS * len(c) // total for g, c in groups.items()}
    by_rest = sorted(groups, key=lambda g: (-(HELDOUT_CONCEPTS * len(groups[g]) % total), g))
    for g in by_rest[:HELDOUT_CONCEPTS - sum(seats.values())]:
        seats[g] += 1
    # Every concept of the list is one that both of the first styles drew, so that each can be asked for in either.
    both = {c for c, s in styles.items() if {"noto", "fluent-emoji-flat"} <= s} - NEVER_HELD
    concepts = {c for g in groups for c in sorted(groups[g] & both, key=lambda c: rank("concept", c))[:seats[g]]}
    pairs = sorted({(r["style"], r["caption"]) for r in rows if r["caption"] not in concepts})
    quota = {s: round(HELDOUT_PAIRS * sum(p[0] == s for p in pairs)) for s in PACKAGES}
    held = {}
    for style, caption in sorted(pairs, key=lambda p: rank("pair", *p)):
        if quota[style] and caption in both and caption not in held:
            held[caption] = style
            quota[style] -= 1
    rule = re.sub(r"\s+", " ", write_heldout.__doc__ + " " + rank.__doc__)
    with open(HELDOUT, "w", encoding="utf-8") as f:
        f.write("# What training never sees. Written by `prepare.py --write-heldout`; do not edit. The rule:\n" +
                textwrap.fill(rule, 118, initial_indent="# ", subsequent_indent="# ") + "\n")
        f.writelines(f"concept\t{c}\n" for c in sorted(concepts))
        f.writelines(f"pair\t{s}\t{c}\n" for s in PACKAGES for c in sorted(c for c, t in held.items() if t == s))


def read_heldout():
    concepts, pairs = set(), set()
    with open(HELDOUT, encoding="utf-8") as f:
        for line in f:
            kind, *rest = line.rstrip("\n").split("\t")
            if kind == "concept":
                concepts.add(rest[0])
            elif kind == "pair":
                pairs.add(tuple(rest))
    return concepts, pairs


def svgs(sources, style):
    """name -> SVG bytes of one style."""
    j = member(package(sources, *PACKAGES[style][:2]), "icons.json")
    w0, h0, out = j.get("width", 16), j.get("height", 16), {}
    for name, v in j["icons"].items():
        x, y, w, h = v.get("left", 0), v.get("top", 0), v.get("width", w0), v.get("height", h0)
        out[name] = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                     f'width="{w}" height="{h}" viewBox="{x} {y} {w} {h}">{v["body"]}</svg>').encode()
    return out


def render(svg, size):
    import cairo, gi, numpy as np
    gi.require_version("Rsvg", "2.0")
    from gi.repository import Rsvg
    surface = cairo.ImageSurface(cairo.FORMAT_ARGB32, size, size)
    box = Rsvg.Rectangle()
    box.x = box.y = 0
    box.width = box.height = size
    Rsvg.Handle.new_from_data(svg).render_document(cairo.Context(surface), box)
    surface.flush()
    bgra = np.frombuffer(bytes(surface.get_data()), np.uint8).reshape(size, surface.get_stride() // 4, 4)[:, :size]
    a = bgra[..., 3:].astype(np.uint16)  # cairo premultiplies
    rgb = np.where(a > 0, np.minimum(255, (bgra[..., 2::-1].astype(np.uint16) * 255 + a // 2) // np.maximum(a, 1)), 0)
    return np.concatenate([rgb.astype(np.uint8), bgra[..., 3:]], -1)


def write_pictures(sources, rows, out, size):
    head = {"__metadata__": {"format": "sumi-pictograms", "size": str(size)},
            "rgba": {"dtype": "U8", "shape": [len(rows), size, size, 4], "data_offsets": [0, len(rows) * size * size * 4]}}
    head = json.dumps(head, separators=(",", ":")).encode()
    head += b" " * (-(len(head) + 8) % 64)  # pictures start at a multiple of 64
    path = os.path.join(out, f"pictograms-{size}.safetensors")
    sets, blank = {}, []
    with open(path + ".part", "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        for i, r in enumerate(rows):
            if r["style"] not in sets:
                sets = {r["style"]: svgs(sources, r["style"])}
            p = render(sets[r["style"]][r["name"]], size)
            if (p[..., 3] > 127).sum() < size * size // 200:
                blank.append(f"{r['style']}:{r['name']}")
            f.write(p.tobytes())
            if i % 500 == 0:
                print(f"{i}/{len(rows)}", file=sys.stderr)
    os.replace(path + ".part", path)
    if blank:
        print("prepare.py: nearly empty pictures:", ", ".join(blank), file=sys.stderr)
    lines = os.path.join(out, "pictograms.jsonl")
    with open(lines + ".part", "w", encoding="utf-8") as f:
        f.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    os.replace(lines + ".part", lines)


def write_sheet(path, rows, out, size, count=400, columns=25):
    """A contact sheet of pictures spread evenly over the file, on grey."""
    import numpy as np
    from PIL import Image
    name = os.path.join(out, f"pictograms-{size}.safetensors")
    with open(name, "rb") as f:
        start = 8 + struct.unpack("<Q", f.read(8))[0]
    a = np.memmap(name, np.uint8, "r", start, (len(rows), size, size, 4))
    pick = [i * len(rows) // count for i in range(count)] if len(rows) > count else range(len(rows))
    sheet = Image.new("RGB", (columns * 64, -(-len(pick) // columns) * 64), (200, 200, 200))
    for k, i in enumerate(pick):
        p = Image.fromarray(a[i]).resize((60, 60), Image.LANCZOS)
        sheet.paste(p, (k % columns * 64 + 2, k // columns * 64 + 2), p)
    sheet.save(path)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--sources", default="pictogram-sources", help="folder of the npm packages (default: ./pictogram-sources)")
    a.add_argument("--out", default="pictogram-data", help="folder to write to (default: ./pictogram-data)")
    a.add_argument("--styles", default=",".join(PACKAGES), help="comma-separated; default all eight")
    a.add_argument("--size", type=int, default=128)
    a.add_argument("--sheet", help="also write a contact sheet PNG here")
    a.add_argument("--write-heldout", action="store_true", help="regenerate heldout.txt and stop")
    a.add_argument("--packages", action="store_true", help="print NAME@VERSION, artist and licence of each package and stop")
    o = a.parse_args()
    if o.packages:
        print(f"{NAMES[0]}@{NAMES[1]}\tnames and keywords\tMIT")
        for name, version, artist, licence in PACKAGES.values():
            print(f"{name}@{version}\t{artist}\t{licence}")
        return
    styles = o.styles.split(",")
    for s in styles:
        if s not in PACKAGES:
            sys.exit(f"prepare.py: --styles: {s} is none of {', '.join(PACKAGES)}")
    if not 8 <= o.size <= 1024:
        sys.exit("prepare.py: --size must be 8 to 1024")
    rows = index(o.sources, emoji_table(o.sources))
    if o.write_heldout:
        return write_heldout(rows)
    concepts, pairs = read_heldout()
    for r in rows:
        r["split"] = "concept" if r["caption"] in concepts else "pair" if (r["style"], r["caption"]) in pairs else "train"
    rows = [r for r in rows if r["style"] in styles]
    os.makedirs(o.out, exist_ok=True)
    write_pictures(o.sources, rows, o.out, o.size)
    if o.sheet:
        write_sheet(o.sheet, rows, o.out, o.size)
    print(f"{len(rows)} pictures, {len({r['caption'] for r in rows})} captions; held out: "
          f"{sum(r['split'] == 'concept' for r in rows)} pictures of whole concepts, {sum(r['split'] == 'pair' for r in rows)} pairs")


if __name__ == "__main__":
    main()
