/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/base/text.h"

#include <stdint.h>

/* The bytes of the character that begins there; 0: none does. */
static unsigned character(const uint8_t *at)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned len = *at < 0x80 ? 1 : *at < 0xc0 ? 0 : *at < 0xe0 ? 2 : *at < 0xf0 ? 3 : *at < 0xf8 ? 4 : 0;
    if (len < 2) return len;
    uint32_t code = *at & (0x7fu >> len);
    for (unsigned i = 1; i < len; i++) {
        if ((at[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (at[i] & 0x3fu);
    }
    return code < least[len] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ? 0 : len;
}

bool rs_is_utf8(const char *text)
{
    for (const uint8_t *at = (const uint8_t *)text; *at != 0;) {
        unsigned len = character(at);
        if (len == 0) return false;
        at += len;
    }
    return true;
}

void rs_line_clean(char *line)
{
    for (uint8_t *at = (uint8_t *)line; *at != 0;) {
        unsigned len = character(at);
        if (*at < 0x20 || *at == 0x7f) *at = ' ';
        if (len == 0) *at = '?';
        at += len == 0 ? 1 : len;
    }
}
