/* Making foreign text harmless (see shown.h). What a terminal takes as a command is the C0 range, DEL and the C1 range (ECMA-48);
 * Unicode's bidirectional marks (UAX 9) would show a name in another order than it is stored. */
#include "base/shown.h"

#include <stdio.h>
#include <string.h>

#include "base/base.h"

/* Bytes of the character at s that may be shown as it is; 0: its first byte must be escaped. */
static size_t plain(const char *s)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t n = u[0] < 0x80 ? 1 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
    if (u[0] < 0x20 || u[0] == 0x7f || strnlen(s, n) < n || !sm_utf8_valid(s, n))
        return 0;
    bool c1 = u[0] == 0xc2 && u[1] < 0xa0;
    bool lines = u[0] == 0xe2 && u[1] == 0x80 && (u[2] == 0x8e || u[2] == 0x8f || (u[2] >= 0xa8 && u[2] <= 0xae));
    bool isolates = u[0] == 0xe2 && u[1] == 0x81 && u[2] >= 0xa6 && u[2] <= 0xa9;
    return c1 || lines || isolates ? 0 : n;
}

char *sm_shown(const char *s, char *out, size_t size)
{
    enum { DOTS = 4 }; /* room for "..." and the end */
    size_t at = 0, mark = 0; /* mark: where "..." would stand */
    while (*s) {
        size_t n = plain(s), need = n ? n : 4;
        mark = at + DOTS <= size ? at : mark;
        if (at + need >= size) {
            memcpy(out + mark, "...", DOTS);
            return out;
        }
        if (n)
            memcpy(out + at, s, n);
        else
            snprintf(out + at, 5, "\\x%02x", (unsigned char)*s);
        at += need;
        s += n ? n : 1;
    }
    out[at] = 0;
    return out;
}
