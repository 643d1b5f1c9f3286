/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BASE_TEXT_H
#define RS_BASE_TEXT_H

/* Texts that others wrote: names of files, answers of servers. */

#include <stdbool.h>

/* True for UTF-8 as it may stand in JSON: no overlong form, no surrogate, nothing beyond U+10FFFF. */
bool rs_is_utf8(const char *text);

/* Makes one line of a text, fit for a terminal and for JSON: control characters become blanks, and what is no
 * UTF-8 '?'. */
void rs_line_clean(char *line);

#endif
