/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_FILES_H
#define RS_VM_FILES_H

/* Small files of a VM, read and written whole, and how this library says why not. */

#include "offload/base/bytes.h"

#include <limits.h>

#define RS_VM_WHY 1024u /* bytes that hold any line of this library */

/* Puts a line into `why` and returns the code. */
__attribute__((format(printf, 4, 5))) int rs_vm_refuse(int code, char *why, size_t why_len,
                                                       const char *format, ...);

/* True when the name is longer than the suffix and ends with it, in any case. */
bool rs_vm_has_suffix(const char *name, const char *suffix);

/* A name as it stands in a file, absolute or below the folder. False: too long. */
RS_MUST_CHECK bool rs_vm_resolve(const char *folder, const char *name, char out[PATH_MAX]);

/*
 * A whole file, NUL-ended, the caller's to free. RESEAL_EIO (errno says why), RESEAL_ESPACE: larger than
 * max, RESEAL_ENOMEM.
 */
RS_MUST_CHECK int rs_vm_read_file(const char *path, size_t max, char **out, size_t *len);
/* The same, not by a link (RESEAL_EIO with ELOOP): of what we made in a folder that others can write. */
RS_MUST_CHECK int rs_vm_read_made_file(const char *path, size_t max, char **out, size_t *len);
/* The same of a regular file of this user that no other can write, not by a link; else RESEAL_EPERM. */
RS_MUST_CHECK int rs_vm_read_own_file(const char *path, size_t max, char **out, size_t *len);

/* Writes a file (mode 0600) and flushes it; one that is there is removed first. 0 or -errno. */
RS_MUST_CHECK int rs_vm_write_file(const char *path, const void *bytes, size_t len);

/*
 * Gives a file of ours the owner, the mode and the extended attributes (access control lists among them) of
 * another one: as far as this process may, since who may not chown runs what is its own. Flushes it. 0 or
 * -errno.
 */
RS_MUST_CHECK int rs_vm_take_after(const char *path, const char *model);

/* Makes what was renamed, made or removed in a folder durable. 0 or -errno. */
RS_MUST_CHECK int rs_vm_sync_folder(const char *folder);

/* Writes PATH.new, renames it and flushes the folder: there is the old file or the new one. 0 or -errno. */
RS_MUST_CHECK int rs_vm_replace_file(const char *path, const void *bytes, size_t len);

#endif
