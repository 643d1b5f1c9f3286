/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_VMX_H
#define RS_VM_VMX_H

/*
 * .vmx files: lines `name = "value"`, in UTF-8. Names are compared without
 * case; in values a double quote, a bar and control characters are written as
 * |xx. Comments (#) and empty lines stay where they are, and so do the order,
 * blanks, the ends of lines and a byte order mark, so that a file that is changed in one line differs in one
 * line.
 *
 * Files come from others: length, lines and names are limited, and a file is
 * taken whole or not at all. Threads: a document belongs to one.
 */

#include "offload/base/bytes.h"

#define RS_VMX_MAX       (8u << 20) /* bytes of a file */
#define RS_VMX_LINES_MAX 65536u
#define RS_VMX_NAME_MAX  256u

struct rs_vmx;

/* A document without lines; NULL when memory is out. */
struct rs_vmx *rs_vmx_new(void);

/* Parses a whole file. RESEAL_EFORMAT with one line in `why` that names the line; RESEAL_ENOMEM. An empty
 * text is none: RESEAL_EFORMAT. */
RS_MUST_CHECK int rs_vmx_parse(const char *text, size_t len, struct rs_vmx **out, char *why, size_t why_len);

/* NULL is allowed; values are wiped. */
void rs_vmx_free(struct rs_vmx *v);

/* The value of a name, unescaped, or NULL; valid until it is set or removed. The last one counts where there
 * are two. */
const char *rs_vmx_get(const struct rs_vmx *v, const char *name);

/* Sets a value in its line, or in a new one at the end. RESEAL_EINVAL: no name; RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_vmx_set(struct rs_vmx *v, const char *name, const char *value);

/* Takes the name out; true when it was there. */
bool rs_vmx_remove(struct rs_vmx *v, const char *name);

/* Calls `each` for every name and value in order, until it returns another value than 0, which is returned.
 */
int rs_vmx_each(const struct rs_vmx *v, int (*each)(const char *name, const char *value, void *arg),
                void *arg);

/* The file's text, the caller's to wipe and free(3); NULL when memory is out. */
char *rs_vmx_text(const struct rs_vmx *v, size_t *len);

#endif
