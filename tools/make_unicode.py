#!/usr/bin/env python3
"""Writes src/text/unicode_table.h: general category classes, simple lower case, canonical (de)composition.

Only Python's own unicodedata is used; its version is written into the header. Usage: make_unicode.py > FILE
"""
import sys
import unicodedata as U

LAST = 0x10FFFF
# The White_Space property (PropList.txt; stable since Unicode 6.3), which is what \s means in the tokenizers' regexes.
SPACE = set(list(range(9, 14)) + [0x20, 0x85, 0xA0, 0x1680] + list(range(0x2000, 0x200B)) + [0x2028, 0x2029, 0x202F, 0x205F, 0x3000])


def cls(c):
    if c in SPACE:
        return "S"
    k = U.category(chr(c))[0]
    return k if k in "LN" else ""


def runs(value):
    out, start, cur = [], 0, value(0)
    for c in range(1, LAST + 2):
        v = value(c) if c <= LAST else None
        if v != cur:
            if cur:
                out.append((start, c - 1, cur))
            start, cur = c, v
    return out


def lower_runs():
    """Runs of code points (first, last, step) that share one difference to their lower case."""
    out = []
    for c in range(LAST + 1):
        l = chr(c).lower()
        if len(l) != 1 or ord(l) == c:
            continue  # U+0130 is the one character with a two-code-point lower case; it is in the code
        d = ord(l) - c
        if out:
            a, b, s, dd = out[-1]
            if dd == d and (c - b == s or a == b and c - b <= 2):
                out[-1] = (a, c, c - b, d)
                continue
        out.append((c, c, 1, d))
    return out


def decompositions():
    out = []
    for c in range(LAST + 1):
        d = U.decomposition(chr(c))
        if not d or d[0] == "<":
            continue
        p = [int(x, 16) for x in d.split()]
        assert len(p) <= 2
        out.append((c, p[0], p[1] if len(p) == 2 else 0))
    return out


def table(kind, name, rows, fmt):
    print(f"static const {kind} {name}[] = {{")
    line = "   "
    for r in rows:
        cell = " {" + fmt(r) + "},"
        if len(line) + len(cell) > 128:
            print(line)
            line = "   "
        line += cell
    print(line + "\n};\n")


def main():
    print(f"/* Made by tools/make_unicode.py from Python {sys.version.split()[0]}'s Unicode {U.unidata_version} data; do not edit. */")
    print("/* clang-format off */\n")
    dec = decompositions()
    # Recomposition leaves out the composition exclusions: those are the pairs that NFC does not give back.
    comp = sorted((a, b, c) for c, a, b in dec if b and U.normalize("NFC", chr(a) + chr(b)) == chr(c))
    names = {"L": "SM_UNI_LETTER", "N": "SM_UNI_NUMBER", "S": "SM_UNI_SPACE"}
    short = {"L": 1, "N": 2, "S": 3}
    print("_Static_assert(" + " && ".join(f"{names[k]} == {short[k]}" for k in "LNS") + ', "classes below");\n')
    table("uni_run", "class_runs", runs(cls), lambda r: f"{r[0]:#x}, {r[1]:#x}, {short[r[2]]}")
    table("uni_run", "ccc_runs", runs(lambda c: U.combining(chr(c))), lambda r: f"{r[0]:#x}, {r[1]:#x}, {r[2]}")
    table("uni_lower", "lower_runs", lower_runs(), lambda r: f"{r[0]:#x}, {r[1]:#x}, {r[2]}, {r[3]}")
    print("/* code point, its one or two parts (0: none) */")
    table("uni_triple", "decompose", dec, lambda r: f"{r[0]:#x}, {r[1]:#x}, {r[2]:#x}")
    print("/* two parts, the code point they compose to */")
    table("uni_triple", "compose", comp, lambda r: f"{r[0]:#x}, {r[1]:#x}, {r[2]:#x}")
    print("/* clang-format on */")


main()
