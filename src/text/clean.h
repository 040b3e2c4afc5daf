/* The clean-up that CLIP's tokenizer gives its texts first: ftfy's fix_text (version 6.3.1, default settings), then Python's
 * html.unescape. Both work on code points in place; false means that memory is out. */
#ifndef SM_TEXT_CLEAN_H
#define SM_TEXT_CLEAN_H

#include "text/unicode.h"

/* ftfy.fix_text: line by line, undoes wrong decodings (mojibake), character references, ligatures, unusual widths, curly
 * quotes, terminal escapes and control characters, and ends in NFC. Work is bounded at about 64 passes over the text: what
 * is wrapped deeper stays wrapped. */
bool sm_text_repair(sm_cps *c);

/* html.unescape: HTML5's names with or without the semicolon (the longest name that fits), and numbers. */
bool sm_html_unescape(sm_cps *c);
/* ftfy's cautious form: only what ends in a semicolon, capitals for small names as well (&EACUTE;). */
bool sm_html_unescape_whole(sm_cps *c);

/* Undoes wrong decodings of the whole of c, as ftfy.fix_encoding does, while *work, in code points read, lasts. */
bool sm_mojibake_fix(sm_cps *c, int64_t *work);
/* Windows-1252, its free bytes standing for themselves. */
uint32_t sm_windows_1252(uint8_t byte);

#endif
