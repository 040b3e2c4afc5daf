#!/usr/bin/env python3
"""Writes the tables of CLIP's text clean-up into src/text: html_table.h (character references), mojibake_table.h (single-byte
encodings, character classes and the sequences that betray a wrong decoding), repair_table.h (widths and ligatures).

The facts come from Python's html module and from ftfy (Apache-2.0); the versions are written into the headers. ftfy's expressions
are taken apart with Python's own parser: every class of theirs becomes a set of kinds of characters, a kind being all characters
that no class tells apart. Usage, with ftfy installed: make_clean.py FOLDER
"""
import html
import html.entities
import re
import sys
from importlib.metadata import version
from re import _constants as K
from re import _parser as parser

import ftfy.badness
import ftfy.bad_codecs
import ftfy.chardata as cd

ftfy.bad_codecs.ok()
WHERE = f"by tools/make_clean.py from Python {sys.version.split()[0]} and ftfy {version('ftfy')}"


def cells(rows):
    line, out = "   ", []
    for r in rows:
        cell = f" {r},"
        if len(line) + len(cell) > 128:
            out.append(line)
            line = "   "
        line += cell
    return "\n".join(out + [line])


# ---- character references ---------------------------------------------------------------------------------------------


def html_table(f):
    h = html.entities.html5
    names = {n.rstrip(";") for n in h} | {n[1:-1] for n in cd.HTML_ENTITIES}
    rows = []
    for n in sorted(names, key=lambda s: s.encode()):
        std, bare, fixed = h.get(n + ";"), h.get(n), cd.HTML_ENTITIES.get(f"&{n};")
        assert fixed and (bare is None or bare == std) and (std is None or std == fixed)
        assert len(n) <= 31 and n.isascii() and n.isalnum() and (len(n) >= 2 or not bare)
        flags = "|".join(["REF_STANDARD"] * bool(std) + ["REF_BARE"] * bool(bare)) or "0"
        cps = [hex(ord(c)) for c in fixed]
        rows.append(f'{{"{n}", {flags}, {{{", ".join(cps)}}}}}')
    print(f"/* Made {WHERE}; do not edit. */\n/* clang-format off */\n", file=f)
    print("/* By name, in the order of strcmp. Without a flag: ftfy's capitals alone. */", file=f)
    print(f"static const html_ref html_refs[] = {{\n{cells(rows)}\n}};\n\n/* clang-format on */", file=f)


# ---- wrong decodings --------------------------------------------------------------------------------------------------

class Sets:
    """Sets of code points, as bit masks over kinds. Characters outside every finite set are told apart by \\w, \\s and newline."""

    def __init__(self):
        self.members = []

    def add(self, cps):
        cps = frozenset(cps)
        if cps not in self.members:
            self.members.append(cps)
        return self.members.index(cps)


WORD = re.compile(r"\w")


def expand(items):
    """The code points up to U+FFFF of a parsed class."""
    out, negate = set(), False
    for op, v in items:
        if op is K.NEGATE:
            negate = True
        elif op is K.LITERAL:
            out.add(v)
        elif op is K.RANGE:
            out |= set(range(v[0], v[1] + 1))
        elif op is K.CATEGORY and v is K.CATEGORY_WORD:
            out |= {c for c in range(0x10000) if WORD.match(chr(c))}
        elif op is K.CATEGORY and v is K.CATEGORY_SPACE:
            out |= {c for c in range(0x10000) if chr(c).isspace()}
        else:
            raise ValueError(op)
    return set(range(0x10000)) - out if negate else out


def one(op, v):
    if op is K.LITERAL:
        return {v}
    if op is K.NOT_LITERAL:
        return set(range(0x10000)) - {v}
    if op is K.ANY:
        return set(range(0x10000)) - {10}
    return expand(v)


def sequences(sub):
    """A parsed alternative as lists of sets; an optional part doubles them. A leading ^ becomes None."""
    out = [[]]
    for op, v in sub:
        if op is K.AT:
            assert v is K.AT_BEGINNING
            out = [s + [None] for s in out]
        elif op is K.MAX_REPEAT:
            lo, hi, inner = v
            assert (lo, hi) == (0, 1) and len(inner) == 1
            more = one(*inner[0])
            out = out + [s + [more] for s in out]
        elif op is K.BRANCH:
            raise ValueError("nested branch")
        else:
            x = one(op, v)
            out = [s + [x] for s in out]
    return out


def alternatives(pattern):
    tree = list(parser.parse(pattern, re.VERBOSE))
    head = []
    if len(tree) == 2:  # a common first part, factored out by the parser
        head = [tree[0]]
    assert tree[-1][0] is K.BRANCH, tree
    return [s for a in tree[-1][1][1] for s in sequences(head + list(a))]


ENCODINGS = cd.CHARMAP_ENCODINGS[1:]


def byte_of(cp, encoding):
    """The byte that ftfy encodes the character with, 0 where it cannot."""
    if not cd.possible_encoding(chr(cp), encoding):
        return 0
    b = chr(cp).encode(encoding)
    assert len(b) == 1 and b[0]
    return b[0]


def mojibake_table(f):
    sets = Sets()
    alts = []
    for s in alternatives(ftfy.badness.BADNESS_RE.pattern):
        start = s[0] is None
        alts.append((start, [sets.add(x) for x in s[start:]]))
    clues = {k: sets.add({c for c in range(0x10000) if re.match(f"[{v}]", chr(c))}) for k, v in cd.UTF8_CLUES.items()}
    vector = {c: tuple(c in m for m in sets.members) for c in range(0x10000)}
    plain = {"OTHER": vector[0x4E00 - 1], "WORD": vector[0x4E00], "SPACE": vector[0x2003]}
    bytes_of = {}
    for c in range(0x80, 0x10000):
        if 0xD800 <= c < 0xE000:
            continue
        b = [byte_of(c, e) for e in ENCODINGS]
        if any(b):
            bytes_of[c] = b
    kinds = list(dict.fromkeys(list(plain.values()) + list(vector.values())))
    assert len(kinds) <= 128 and len(sets.members) < 256
    usual = lambda c: plain["WORD"] if WORD.match(chr(c)) else plain["SPACE"] if chr(c).isspace() else plain["OTHER"]
    rows = sorted(c for c in range(0x80, 0x10000) if c in bytes_of or vector[c] != usual(c) and not 0xD800 <= c < 0xE000)
    mask = [sum(1 << k for k, v in enumerate(kinds) if v[i]) for i in range(len(sets.members))]

    print(f"/* Made {WHERE}; do not edit. Facts of ftfy, Apache-2.0, see THIRD_PARTY.md. */\n/* clang-format off */\n", file=f)
    print(f"enum {{ KIND_OTHER, KIND_WORD, KIND_SPACE, KINDS = {len(kinds)}, BYTE_ENCODINGS = {len(ENCODINGS)} }};\n", file=f)
    print("/* kinds of U+0000..U+007F */", file=f)
    print(f"static const uint8_t ascii_kind[128] = {{\n{cells(kinds.index(vector[c]) for c in range(128))}\n}};\n", file=f)
    print(f"/* code point, kind, its bytes (0: none) in {', '.join(ENCODINGS)} */\nstatic const known_char known_chars[] = {{", file=f)
    zero = [0] * len(ENCODINGS)
    rows_text = ("{%#x, %d, {%s}}" % (c, kinds.index(vector[c]), ", ".join(f"{b:#x}" if b else "0" for b in bytes_of.get(c, zero))) for c in rows)
    print(cells(rows_text), file=f)
    print("};\n\n/* Sets of kinds, 128 bits each. */\nstatic const uint64_t sets[][2] = {", file=f)
    print(cells("{%#x, %#x}" % (m & (1 << 64) - 1, m >> 64) for m in mask), file=f)
    print("};\n\n/* The sets of characters that bytes of UTF-8 sequences turn into. */", file=f)
    short = {"utf8_first_of_2": "FIRST_OF_2", "utf8_first_of_3": "FIRST_OF_3", "utf8_first_of_4": "FIRST_OF_4",
             "utf8_continuation": "CONTINUES", "utf8_continuation_strict": "CONTINUES_STRICT"}
    print("enum { " + ", ".join(f"{short[k]} = {i}" for k, i in clues.items()) + " };", file=f)
    print("\n/* Sequences that real text hardly has: at the text's start only?, length, a set for each character. */", file=f)
    print("static const bad_sequence bad_sequences[] = {", file=f)
    print(cells(f"{{{int(start)}, {len(s)}, {{{', '.join(str(i) for i in s)}}}}}" for start, s in alts), file=f)
    print("};\n\n/* Windows-1252 for bytes 0x80..0x9f; the five that it leaves free stand for themselves. */", file=f)
    w = [ord(bytes([b]).decode("sloppy-windows-1252")) for b in range(0x80, 0xA0)]
    assert all(html.unescape(f"&#{b};") == chr(w[b - 0x80]) for b in range(0x80, 0xA0))
    print(f"static const uint16_t windows_1252[32] = {{\n{cells(hex(c) for c in w)}\n}};\n\n/* clang-format on */", file=f)
    print(f"{len(kinds)} kinds, {len(rows)} characters, {len(alts)} sequences", file=sys.stderr)


# ---- single characters ------------------------------------------------------------------------------------------------


def repair_table(f):
    print(f"/* Made {WHERE}; do not edit. */\n/* clang-format off */\n", file=f)
    print("/* U+FF01..U+FFEF in their usual width (0: unchanged); U+FFE3 gives a second, U+0304. */", file=f)
    wide = [cd.WIDTH_MAP.get(c, "\0") for c in range(0xFF01, 0xFFF0)]
    assert all(len(s) == 1 or c == 0xFFE3 and s == " \u0304" for c, s in zip(range(0xFF01, 0xFFF0), wide))
    print(f"static const uint16_t usual_width[239] = {{\n{cells(hex(ord(s[0])) for s in wide)}\n}};\n", file=f)
    print("static const ligature ligatures[] = {", file=f)
    print(cells("{%#x, {%s}}" % (c, ", ".join(hex(ord(x)) for x in s)) for c, s in sorted(cd.LIGATURES.items())), file=f)
    print("};\n\n/* clang-format on */", file=f)


with open(f"{sys.argv[1]}/html_table.h", "w") as out:
    html_table(out)
with open(f"{sys.argv[1]}/mojibake_table.h", "w") as out:
    mojibake_table(out)
with open(f"{sys.argv[1]}/repair_table.h", "w") as out:
    repair_table(out)
