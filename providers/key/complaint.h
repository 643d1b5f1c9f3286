/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_COMPLAINT_H
#define RS_KEY_COMPLAINT_H

/* Where a check of a configuration says what is wrong with it. */

#include <stddef.h>

struct rs_complaint {
    char *why;  /* the caller's: one line, cut where it does not fit */
    size_t len; /* bytes at `why`, the end's NUL included; at least 1 */
};

/* Writes the line; returns RESEAL_EINVAL, so that a check ends with `return rs_complain(c, ...)`. */
__attribute__((format(printf, 2, 3))) int rs_complain(const struct rs_complaint *c, const char *format, ...);

#endif
