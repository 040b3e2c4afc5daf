/* CLIP's own vocabulary (models/clip/bpe_simple_vocab_16e6.txt.gz), kept compressed in the program and unpacked into a
 * tokenizer on demand: checkpoints in the original layout bring no tokenizer. */
#include "text/bpe_impl.h"

#include <zlib.h>

/* The path is seen from the repository's root, where make runs the compiler. */
__asm__(".pushsection .rodata\n"
        ".balign 16\n"
        "sm_clip_gz:\n"
        ".incbin \"models/clip/bpe_simple_vocab_16e6.txt.gz\"\n"
        "sm_clip_gz_end:\n"
        ".popsection\n");
extern const uint8_t sm_clip_gz[] __attribute__((visibility("hidden")));
extern const uint8_t sm_clip_gz_end[] __attribute__((visibility("hidden")));

/* CLIP uses the first 48,895 of the file's 262,146 lines, the version and its merges: 524,645 bytes. */
#define CLIP_TEXT ((size_t)528 << 10)

/* The first CLIP_TEXT bytes of the unpacked list. */
static bool unpack(char *text)
{
    z_stream z = {.next_in = (z_const Bytef *)sm_clip_gz, .avail_in = (uInt)(sm_clip_gz_end - sm_clip_gz)};
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
        return false;
    z.next_out = (Bytef *)text;
    z.avail_out = CLIP_TEXT;
    inflate(&z, Z_SYNC_FLUSH);
    inflateEnd(&z);
    return z.avail_out == 0;
}

sm_bpe *sm_bpe_clip(sm_mem *mem, sm_err *e)
{
    char *text = sm_alloc(mem, SM_MEM_DATA, CLIP_TEXT);
    sm_bpe *b = NULL;
    if (text && unpack(text))
        b = sm_bpe_from_openai(mem, text, CLIP_TEXT, e);
    else
        sm_fail(e, SUMI_E_MEMORY, "out of memory for CLIP's vocabulary");
    sm_free(text);
    return b;
}
