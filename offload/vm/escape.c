/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/escape.h"

bool rs_unescape(const char *text, size_t len, char mark, char *out)
{
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == mark) {
            int high = i + 2 < len ? rs_hex_digit(text[i + 1]) : -1,
                low = high < 0 ? -1 : rs_hex_digit(text[i + 2]);
            if (low < 0) return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (c == '\0') return false;
        *out++ = c;
    }
    *out = '\0';
    return true;
}
