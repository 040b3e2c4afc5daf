/* Digests by which the hub knows its files: SHA-256 of the content for large ones (Git LFS), git's blob name, the SHA-1 of
 * "blob SIZE\0" and the content, for small ones. */
#ifndef SM_DIGEST_H
#define SM_DIGEST_H

#include "base/base.h"

typedef enum sm_digest_kind { SM_DIGEST_SHA256, SM_DIGEST_GIT } sm_digest_kind;
enum { SM_DIGEST_HEX = 65 }; /* room for the longest, as hexadecimal text */

typedef struct sm_digest sm_digest;

/* size: of the whole content, which git's name begins with; unused by SHA-256. NULL on failure. */
sm_digest *sm_digest_new(sm_digest_kind kind, uint64_t size, sm_err *e);
bool sm_digest_add(sm_digest *d, const void *data, size_t n);
/* Writes the digest as small hexadecimal letters; d cannot be added to afterwards. */
bool sm_digest_end(sm_digest *d, char hex[SM_DIGEST_HEX]);
void sm_digest_free(sm_digest *d);

/* True when s is n hexadecimal digits and nothing else. */
bool sm_is_hex(const char *s, size_t n);
/* SHA-256 of a text. */
bool sm_digest_text(const char *s, char hex[SM_DIGEST_HEX]);

#endif
