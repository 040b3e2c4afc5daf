/* Writer of the tests' made-up data set (see synth.h). */
#include "synth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const shape_name[SYNTH_SHAPES] = {"disc", "square", "ring", "cross", "ladder", "arrowhead", "crescent",
                                                     "chessboard"};
static const char *const colour_name[SYNTH_COLOURS] = {"red", "green", "blue", "orange", "purple", "brown"};
static const uint8_t colour[SYNTH_COLOURS][3] = {{220, 30, 40}, {30, 150, 60}, {30, 70, 220}, {250, 150, 20}, {130, 40, 160},
                                                 {120, 70, 40}};

/* Whether (x, y), each -1..1, is inside the shape. */
static bool inside(int shape, double x, double y)
{
    double r = sqrt(x * x + y * y), m = fmax(fabs(x), fabs(y));
    switch (shape) {
    case 0: return r < 0.8;
    case 1: return m < 0.7;
    case 2: return r < 0.9 && r > 0.55;
    case 3: return m < 0.85 && fmin(fabs(x), fabs(y)) < 0.22;
    case 4: return m < 0.8 && fmod(y + 2, 0.5) < 0.25;
    case 5: return fabs(y) < 0.85 && fabs(x) < (y + 0.85) / 1.9;
    case 6: return r < 0.85 && (x - 0.4) * (x - 0.4) + y * y > 0.5;
    default: return m < 0.8 && ((int)floor(x * 2.5 + 8) + (int)floor(y * 2.5 + 8)) % 2 == 0;
    }
}

void synth_rgba(int k, int side, uint8_t *rgba)
{
    const uint8_t *c = colour[k % SYNTH_COLOURS];
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            int hits = 0;
            for (int s = 0; s < 16; s++)
                hits += inside(k / SYNTH_COLOURS, (x + (s % 4 + 0.5) / 4) * 2.0 / side - 1,
                               (y + (s / 4 + 0.5) / 4) * 2.0 / side - 1);
            uint8_t *p = rgba + ((size_t)y * (size_t)side + (size_t)x) * 4;
            memcpy(p, c, 3);
            p[3] = (uint8_t)(hits * 255 / 16);
        }
}

const char *synth_caption(int k)
{
    static char text[40];
    snprintf(text, sizeof text, "%s %s", colour_name[k % SYNTH_COLOURS], shape_name[k / SYNTH_COLOURS]);
    return text;
}

bool synth_text_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(text, 1, strlen(text), f) == strlen(text);
    return f && !fclose(f) && ok;
}

bool synth_tensor_file(const char *path, const char *header, size_t n)
{
    FILE *f = fopen(path, "wb");
    uint64_t length = strlen(header);
    bool ok = f && fwrite(&length, 8, 1, f) == 1 && fwrite(header, 1, length, f) == length;
    for (size_t i = 0; ok && i < n; i++)
        ok = fputc(0, f) != EOF;
    return f && !fclose(f) && ok;
}

bool synth_write(const char *pixels, const char *index, int n)
{
    enum { BYTES = SYNTH_SIDE * SYNTH_SIDE * 4 };
    char header[160];
    uint8_t rgba[BYTES];
    snprintf(header, sizeof header, "{\"rgba\":{\"dtype\":\"U8\",\"shape\":[%d,%d,%d,4],\"data_offsets\":[0,%d]}}", n, SYNTH_SIDE,
             SYNTH_SIDE, n * BYTES);
    if (!synth_tensor_file(pixels, header, 0))
        return false;
    FILE *f = fopen(pixels, "ab"), *j = fopen(index, "wb");
    bool ok = f && j;
    for (int k = 0; ok && k < n; k++) {
        synth_rgba(k, SYNTH_SIDE, rgba);
        ok = fwrite(rgba, 1, BYTES, f) == BYTES &&
             fprintf(j, "{\"style\": \"noto\", \"name\": \"thing-%d\", \"caption\": \"%s\", \"tags\": [\"drawn\", \"shape\", "
                     "\"plain\"], "
                        "\"hex\": \"1F%03X\", \"group\": \"%s\", \"sub\": \"%s\", \"split\": \"%s\"}\n",
                     k, synth_caption(k), k, k % 2 ? "objects" : "animals-nature", shape_name[k / SYNTH_COLOURS],
                     k % 7 == 6 ? "concept" : k % 5 == 4 ? "pair" : "train") > 0;
    }
    bool closed = !f || !fclose(f);
    closed = (!j || !fclose(j)) && closed;
    return ok && closed;
}
