/* Digests by OpenSSL's EVP (see digest.h); FIPS 180-4 for the functions, gitformat-pack(5) for a blob's name. */
#include "hub/digest.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

struct sm_digest {
    EVP_MD_CTX *ctx;
};

sm_digest *sm_digest_new(sm_digest_kind kind, uint64_t size, sm_err *e)
{
    sm_digest *d = sm_alloc0(NULL, SM_MEM_MISC, sizeof *d);
    if (d)
        d->ctx = EVP_MD_CTX_new();
    if (!d || !d->ctx) {
        sm_fail(e, SUMI_E_MEMORY, "out of memory for a checksum");
        sm_digest_free(d);
        return NULL;
    }
    char head[40];
    int n = snprintf(head, sizeof head, "blob %llu", (unsigned long long)size) + 1; /* with its NUL */
    bool git = kind == SM_DIGEST_GIT;
    if (!EVP_DigestInit_ex(d->ctx, git ? EVP_sha1() : EVP_sha256(), NULL) || (git && !sm_digest_add(d, head, (size_t)n))) {
        sm_fail(e, SUMI_E_SUPPORT, "this build's libcrypto has no %s", git ? "SHA-1" : "SHA-256");
        sm_digest_free(d);
        return NULL;
    }
    return d;
}

bool sm_digest_add(sm_digest *d, const void *data, size_t n) { return EVP_DigestUpdate(d->ctx, data, n) == 1; }

bool sm_digest_end(sm_digest *d, char hex[SM_DIGEST_HEX])
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    hex[0] = 0;
    if (EVP_DigestFinal_ex(d->ctx, raw, &n) != 1 || 2 * n >= SM_DIGEST_HEX)
        return false;
    for (unsigned i = 0; i < n; i++)
        snprintf(hex + 2 * i, 3, "%02x", raw[i]);
    return true;
}

void sm_digest_free(sm_digest *d)
{
    if (d)
        EVP_MD_CTX_free(d->ctx);
    sm_free(d);
}

bool sm_is_hex(const char *s, size_t n) { return s && strlen(s) == n && strspn(s, "0123456789abcdefABCDEF") == n; }

bool sm_digest_text(const char *s, char hex[SM_DIGEST_HEX])
{
    sm_digest *d = sm_digest_new(SM_DIGEST_SHA256, 0, NULL);
    bool ok = d && sm_digest_add(d, s, strlen(s)) && sm_digest_end(d, hex);
    sm_digest_free(d);
    return ok;
}
