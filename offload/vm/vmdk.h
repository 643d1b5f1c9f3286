/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_VMDK_H
#define RS_VM_VMDK_H

/*
 * VMDK descriptors: text files that name the extents of a disk. One flat extent
 * is what is read here; sparse ones are recognised and refused. An encrypted
 * disk has the public lines keyID= and encryptionKeys= (a key locator); data
 * unit and tweak rule of the extent are ours, since VMware's are not public,
 * and stand in lines that begin with ddb.reseal.
 *
 * Files come from others: length and number of lines are limited. Threads: a
 * descriptor belongs to one.
 */

#include "offload/base/bytes.h"

#define RS_VMDK_MAX       (256u << 10) /* bytes of a descriptor */
#define RS_VMDK_LINES_MAX 4096u

/* What to do about all other extents. */
#define RS_VMDK_FLATTEN                                                                                      \
    "only one flat extent is supported: make a copy that has one, by qemu-img convert -O vmdk -o "           \
    "subformat=monolithicFlat, or on its host by vmkfstools -i"

struct rs_vmdk;

/* True when the first bytes of a file are those of a descriptor. */
bool rs_vmdk_is(const void *start, size_t len);

/* RESEAL_EFORMAT with one line in `why`; RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_vmdk_parse(const char *text, size_t len, struct rs_vmdk **out, char *why,
                                size_t why_len);
void rs_vmdk_free(struct rs_vmdk *v);

/* The value of a name, without its quotes, or NULL; valid until it is set or removed. */
const char *rs_vmdk_get(const struct rs_vmdk *v, const char *name);

/* Sets a value, in quotes where `quoted`; a new one goes to the end. RESEAL_EINVAL: a quote or a control
 * character is in it; RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_vmdk_set(struct rs_vmdk *v, const char *name, const char *value, bool quoted);
void rs_vmdk_remove(struct rs_vmdk *v, const char *name);

struct rs_vmdk_extent {
    uint64_t sectors; /* of 512 bytes */
    uint64_t first;   /* sector of the file where it begins */
    char file[1024];
};

/* The only extent, which must be flat. RESEAL_EFORMAT: there are none or several; RESEAL_ENOSUPPORT: it is of
 * another kind, which `why` names. */
RS_MUST_CHECK int rs_vmdk_extent(const struct rs_vmdk *v, struct rs_vmdk_extent *out, char *why,
                                 size_t why_len);

/* The text, the caller's to free(3); NULL when memory is out. */
char *rs_vmdk_text(const struct rs_vmdk *v, size_t *len);

/* The text of a new descriptor for a flat extent of `sectors`. As rs_vmdk_text(). */
char *rs_vmdk_new(const char *file, uint64_t sectors, size_t *len);

#endif
