#!/usr/bin/env python3
"""Writes src/text/unicode_table.h: character classes, lower case, canonical (de)composition.

CLIP's reference takes letters, numbers and spaces from the regex package and everything else from Python, whose Unicode may be
older; so does this. The versions are written into the header. Usage, with regex installed: make_unicode.py > FILE
"""
import sys
from importlib.metadata import version
import unicodedata as U

import regex

LAST = 0x10FFFF
ALL = "".join(chr(c) if not 0xD800 <= c < 0xE000 else " " for c in range(LAST + 1))


def regex_classes():
    out = [""] * (LAST + 1)
    for k, pattern in (("L", r"\p{L}+"), ("N", r"\p{N}+"), ("S", r"\s+")):
        for m in regex.finditer(pattern, ALL):
            out[m.start() : m.end()] = [k] * (m.end() - m.start())
    out[0xD800:0xE000] = [""] * 0x800
    return out


CLASS = regex_classes()


def newer(c):
    """Letters and numbers of the regex package that Python's Unicode does not have yet."""
    if CLASS[c] not in ("L", "N"):
        return 0
    k = U.category(chr(c))[0]
    assert k == CLASS[c] or U.category(chr(c)) == "Cn", hex(c)
    return int(k != CLASS[c])


def case_class(c):
    """What str.lower looks at around a capital sigma: 1 cased, 2 case-ignorable, as seen from outside."""
    if (chr(c) + "\u03a3").lower()[-1] == "\u03c2":
        return 1
    return 2 if ("a" + chr(c) + "\u03a3").lower()[-1] == "\u03c2" else 0


def decimals():
    """The zeros of the decimal digits (category Nd), which stand in tens."""
    d = [c for c in range(LAST + 1) if U.category(chr(c)) == "Nd"]
    out = d[::10]
    assert d == [z + i for z in out for i in range(10)]
    return out


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
        cell = " {" + fmt(r) + "}," if kind != "uint32_t" else f" {fmt(r)},"
        if len(line) + len(cell) > 128:
            print(line)
            line = "   "
        line += cell
    print(line + "\n};\n")


def main():
    print(f"/* Made by tools/make_unicode.py from Python {sys.version.split()[0]}'s Unicode {U.unidata_version} data and regex {version('regex')}; do not edit. */")
    print("/* clang-format off */\n")
    dec = decompositions()
    # Recomposition leaves out the composition exclusions: those are the pairs that NFC does not give back.
    comp = sorted((a, b, c) for c, a, b in dec if b and U.normalize("NFC", chr(a) + chr(b)) == chr(c))
    names = {"L": "SM_UNI_LETTER", "N": "SM_UNI_NUMBER", "S": "SM_UNI_SPACE"}
    short = {"L": 1, "N": 2, "S": 3}
    print("_Static_assert(" + " && ".join(f"{names[k]} == {short[k]}" for k in "LNS") + ', "classes below");\n')
    table("uni_run", "class_runs", runs(lambda c: CLASS[c]), lambda r: f"{r[0]:#x}, {r[1]:#x}, {short[r[2]]}")
    print("/* letters and numbers younger than Python's Unicode */")
    table("uni_run", "newer_runs", runs(newer), lambda r: f"{r[0]:#x}, {r[1]:#x}, 1")
    print("/* 1 cased, 2 case-ignorable */")
    table("uni_run", "case_runs", runs(case_class), lambda r: f"{r[0]:#x}, {r[1]:#x}, {r[2]}")
    table("uint32_t", "decimal_zeros", decimals(), lambda z: f"{z:#x}")
    table("uni_run", "ccc_runs", runs(lambda c: U.combining(chr(c))), lambda r: f"{r[0]:#x}, {r[1]:#x}, {r[2]}")
    table("uni_lower", "lower_runs", lower_runs(), lambda r: f"{r[0]:#x}, {r[1]:#x}, {r[2]}, {r[3]}")
    print("/* code point, its one or two parts (0: none) */")
    table("uni_triple", "decompose", dec, lambda r: f"{r[0]:#x}, {r[1]:#x}, {r[2]:#x}")
    print("/* two parts, the code point they compose to */")
    table("uni_triple", "compose", comp, lambda r: f"{r[0]:#x}, {r[1]:#x}, {r[2]:#x}")
    print("/* clang-format on */")


main()
