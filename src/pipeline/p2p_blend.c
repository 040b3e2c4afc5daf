/* Where Prompt-to-Prompt edits (see p2p.h): after each step the edited latents stay different from the source's only at
 * places that attend to certain words in either picture, over all steps so far. The reference's LocalBlend: the words' maps
 * are summed, widened by one place, enlarged to the nearest, and cut at a share of the picture's largest value; words to
 * subtract are not widened. */
#include "pipeline/p2p.h"

#include <string.h>

void sm_p2p_see(sm_p2p *p, int pair, bool source, const float *seen)
{
    size_t each = (size_t)p->mh * (size_t)p->mw * SM_P2P_WORDS;
    float *to = p->seen + (size_t)(source ? p->pairs + pair : pair) * each;
    for (size_t i = 0; i < each; i++)
        to[i] += seen[i];
}

/* The largest of the places around (y, x). */
static float around(const sm_p2p *p, const float *m, int y, int x)
{
    float most = m[y * p->mw + x];
    for (int v = SM_MAX(y - 1, 0); v <= SM_MIN(y + 1, p->mh - 1); v++)
        for (int u = SM_MAX(x - 1, 0); u <= SM_MIN(x + 1, p->mw - 1); u++)
            most = SM_MAX(most, m[v * p->mw + u]);
    return most;
}

static int nearest(int at, int from, int to) { return (int)((int64_t)at * from / to); }

/* Sets bit in the mask wherever the lane attends to the words of a set. */
static void mark(sm_p2p *p, int lane, int set, bool widen, uint8_t bit)
{
    size_t places = (size_t)p->mh * (size_t)p->mw;
    const float *seen = p->seen + (size_t)lane * places * SM_P2P_WORDS + set;
    float *plain = p->room, *wide = p->room + places, most = 0;
    for (size_t i = 0; i < places; i++)
        plain[i] = seen[i * SM_P2P_WORDS];
    for (int y = 0; y < p->mh; y++)
        for (int x = 0; x < p->mw; x++)
            wide[y * p->mw + x] = widen ? around(p, plain, y, x) : plain[y * p->mw + x];
    for (int i = 0; i < p->h * p->w; i++)
        most = SM_MAX(most, wide[nearest(i / p->w, p->mh, p->h) * p->mw + nearest(i % p->w, p->mw, p->w)]);
    for (int i = 0; i < p->h * p->w; i++) {
        float v = wide[nearest(i / p->w, p->mh, p->h) * p->mw + nearest(i % p->w, p->mw, p->w)];
        p->mask[i] |= most > 0 && v / most > p->j->r.p2p_blend_threshold ? bit : 0;
    }
}

void sm_p2p_blend(sm_p2p *p, int step, int c, float *x)
{
    enum { IN = 1, OUT = 2 };
    int pixels = p->h * p->w;
    if (!p->blends || step < p->blend_from)
        return;
    for (int k = 0; k < p->pairs; k++) {
        float *edited = x + (int64_t)k * pixels * c;
        const float *source = x + (int64_t)(p->pairs + k) * pixels * c;
        memset(p->mask, 0, (size_t)pixels);
        for (int side = 0; side < 2; side++) {
            mark(p, side ? p->pairs + k : k, 0, true, IN);
            if (p->subtracts)
                mark(p, side ? p->pairs + k : k, 1, false, OUT);
        }
        for (int i = 0; i < pixels; i++)
            if (p->mask[i] != IN)
                memcpy(edited + (int64_t)i * c, source + (int64_t)i * c, sizeof *x * (size_t)c);
    }
}
