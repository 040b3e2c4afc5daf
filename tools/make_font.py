#!/usr/bin/env python3
"""Writes src/pipeline/label_font.bin.gz, the glyphs that labels of grids are drawn with (src/pipeline/label.c describes the format).

  tools/make_font.py DejaVuSans.ttf DroidSansFallbackFull.ttf

Made with Pillow 13.0.0 from DejaVu Sans 2.37 (Debian's fonts-dejavu-core 2.37-6; Latin, Greek, Cyrillic, signs) and Droid Sans Fallback
(fonts-droid-fallback 1:6.0.1r16-1.1; the characters of GB 2312, JIS X 0208 and KS X 1001). Needed only to change the font.
"""
import gzip
import struct
import sys

from PIL import ImageFont

LATIN = [(0x20, 0x7F), (0xA0, 0x250), (0x2B0, 0x2E0), (0x370, 0x400), (0x400, 0x500), (0x1E00, 0x1F00), (0x2010, 0x2028), (0x2030, 0x205F),
         (0x2070, 0x209D), (0x20A0, 0x20C0), (0x2100, 0x2150), (0x2190, 0x2200), (0x2200, 0x2300), (0x25A0, 0x2700), (0xFFFD, 0xFFFE)]


def encodable(cp, codecs):
    for codec in codecs:
        try:
            if len(chr(cp).encode(codec)) == 2:
                return True
        except UnicodeEncodeError:
            pass
    return False


def eastern():
    wanted = [cp for cp in range(0x3000, 0x10000) if not 0xD800 <= cp < 0xF900 and encodable(cp, ["gb2312", "shift_jis", "euc_kr"])]
    return wanted


def glyphs(path, em, levels, wanted):
    font = ImageFont.truetype(path, em, layout_engine=ImageFont.Layout.BASIC)
    missing = bytes(font.getmask2("\U0010fffe", mode="L", anchor="ls")[0])
    for cp in wanted:
        if bytes(font.getmask2(chr(cp), mode="L", anchor="ls")[0]) == missing and cp != 0xFFFD:
            continue
        mask, (x, y) = font.getmask2(chr(cp), mode="L", anchor="ls")
        w, h = mask.size
        grey = [(v * (levels - 1) + 127) // 255 * 15 // (levels - 1) for v in bytes(mask)] if w and h else []
        if not any(grey):
            w = h = x = y = 0
            grey = []
        if len(grey) % 2:
            grey.append(0)
        bits = bytes(grey[i] | grey[i + 1] << 4 for i in range(0, len(grey), 2))
        yield cp, round(font.getlength(chr(cp)) * 4), x, y, w, h, bits


def main():
    faces = [(sys.argv[1], 28, 16, [cp for a, b in LATIN for cp in range(a, b)]), (sys.argv[2], 16, 4, eastern())]
    out, seen = b"", set()
    for path, em, levels, wanted in faces:
        rows = [g for g in glyphs(path, em, levels, sorted(wanted)) if g[0] not in seen]
        seen |= {g[0] for g in rows}
        table, bits = b"", b""
        for cp, advance, x, y, w, h, b in rows:
            table += struct.pack("<IHbbBBHI", cp, advance, x, y, w, h, 0, len(bits))
            bits += b
        out += struct.pack("<4sIII", b"face", em, len(rows), len(bits)) + table + bits
        print(path, em, len(rows), len(table) + len(bits))
    with open("src/pipeline/label_font.bin.gz", "wb") as f:
        f.write(gzip.compress(out, 9, mtime=0))


main()
