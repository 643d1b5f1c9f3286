/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/complaint.h"

#include "reseal/reseal.h"

#include <stdarg.h>
#include <stdio.h>

int rs_complain(const struct rs_complaint *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(c->why, c->len, format, args);
    va_end(args);
    return RESEAL_EINVAL;
}
