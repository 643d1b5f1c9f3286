/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_SAFE_H
#define RS_VM_SAFE_H

/*
 * Safe copies of encrypted .vmx files, in a place of their own: without that
 * small file nobody opens the VM again. A folder for each VM, by the path of its
 * .vmx, with up to RS_SAFE_VERSIONS numbered copies and a note of the path:
 *
 *   NAME-0123456789abcdef/path, 1.vmx, 2.vmx ...
 *
 * Only the text of a file that parsed and that the key service found authentic
 * may be handed to rs_safe_put(): the caller sees to it.
 */

#include "offload/vm/vm.h"

#define RS_SAFE_VERSIONS  8u
#define RS_SAFE_PLACE_MAX (PATH_MAX - 32) /* room for a file in it */

/* The folder of all safe copies: `given`, else /var/lib/reseal/vmx for root, $XDG_STATE_HOME/reseal/vmx or
 * ~/.local/state/reseal/vmx for others. False: there is no such place, or too long. */
RS_MUST_CHECK bool rs_safe_folder(const char *given, char out[PATH_MAX]);

/*
 * That of a private service with a runtime folder of its own, `runtime`: in its state folder there, as with
 * the rest that it keeps. False: it has none, it is another user's, or a restart of the machine empties it.
 */
RS_MUST_CHECK bool rs_safe_own_folder(const char *runtime, char out[PATH_MAX]);

/* The folder of one VM's copies; false: too long. */
RS_MUST_CHECK bool rs_safe_place(const char *folder, const char *vmx_path, char out[RS_SAFE_PLACE_MAX]);

/* Makes the place, before anything is changed that shall be kept there. RESEAL_EINVAL: it is within the VM's
 * own folder; RESEAL_EIO; with a line. */
RS_MUST_CHECK int rs_safe_prepare(const char *folder, const char *vmx_path, char *why, size_t why_len);

struct rs_safe_copy {
    uint64_t version;
    int64_t time;  /* seconds since 1970: when it was taken */
    uint64_t size; /* bytes */
};

/*
 * Keeps a text as the newest copy, unless it is that already; the oldest beyond RS_SAFE_VERSIONS goes. A
 * place within the VM's own folder is refused. Nothing is kept when the .vmx is no longer this text: who
 * changed it keeps the new one. RESEAL_EIO, RESEAL_EINVAL with a line; *version is the newest copy's.
 */
RS_MUST_CHECK int rs_safe_put(const char *folder, const char *vmx_path, const char *text, size_t len,
                              uint64_t *version, char *why, size_t why_len);

/* The copies of a VM, newest first; how many. RESEAL_EIO, RESEAL_EFORMAT: the place is another VM's. */
RS_MUST_CHECK int rs_safe_list(const char *folder, const char *vmx_path,
                               struct rs_safe_copy out[RS_SAFE_VERSIONS], char *why, size_t why_len);

/* The text of one; the caller's to free. RESEAL_EIO with a line. */
RS_MUST_CHECK int rs_safe_get(const char *folder, const char *vmx_path, uint64_t version, char **text,
                              size_t *len, char *why, size_t why_len);

#endif
