/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_ESCAPE_H
#define RS_VM_ESCAPE_H

/* Characters written as a mark and two hex digits of either case: %xx in key locators, |xx in .vmx files. */

#include "offload/base/bytes.h"

/* Copies `text` without escapes, NUL-ended, into `out`, which has room for len + 1 bytes. False for a mark
 * without two hex digits, and for a NUL, escaped or not. */
RS_MUST_CHECK bool rs_unescape(const char *text, size_t len, char mark, char *out);

#endif
