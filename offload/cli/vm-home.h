/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_VM_HOME_H
#define RS_CLI_VM_HOME_H

/* The small files of a VM: new ones beside those that are there. All return 0 or an exit code. */

#include "offload/cli/vm-keys.h"

#define RS_VMC_NEW ".reseal-new"

/* PATH.reseal-new. False: too long. */
RS_MUST_CHECK bool rs_vmc_new_path(const char *path, char out[PATH_MAX]);

/* The text of an encrypted .vmx with what is in `seal`: c->vm's clear lines, those that `disks` adds, the
 * locked ones. */
RS_MUST_CHECK int rs_vmc_sealed_text(struct rs_vmc *c, const struct rs_vmc_seal *seal,
                                     const struct rs_vmx *disks, char **text, size_t *len);

/* Writes it to `path` once the key service found it authentic. */
RS_MUST_CHECK int rs_vmc_write_sealed(struct rs_vmc *c, const struct rs_vmc_seal *seal,
                                      const struct rs_vmx *disks, const char *path);

/* The seal that the VM, or the .vmx at `path`, has now. */
RS_MUST_CHECK int rs_vmc_seal_of(struct rs_vmc *c, const struct rs_vmx *vmx, struct rs_vmc_seal *seal);
RS_MUST_CHECK int rs_vmc_seal_at(struct rs_vmc *c, const char *path, struct rs_vmc_seal *seal);

/* 0 when the .vmx at `path`, which was staged, opens with the pass phrase that was given now. */
RS_MUST_CHECK int rs_vmc_check_phrase_at(struct rs_vmc *c, const char *path);

/* What a file of the home is locked with. */
struct rs_vmc_file_lock {
    const char *bundle; /* the file key in it */
    bool phrase;        /* the VM's pass phrase; neither: it is not encrypted */
};

/* A file of the home from one lock to another. */
RS_MUST_CHECK int rs_vmc_convert_file(struct rs_vmc *c, const char *from, const struct rs_vmc_file_lock *was,
                                      const char *to, const struct rs_vmc_file_lock *will);

/* True when the file is an envelope. */
bool rs_vmc_is_envelope(const char *path);

/* The folder of all safe copies: --safe-dir, else that of a private service, else the user's; `to_read`:
 * where this VM has some. False: there is no such place. */
RS_MUST_CHECK bool rs_vmc_safe_folder(const struct rs_vmc *c, bool to_read, char out[PATH_MAX]);

/* Refuses a .vmx that the safe copies of its place say to be of another VM. */
RS_MUST_CHECK int rs_vmc_same_vm(struct rs_vmc *c);

/* Makes the place of safe copies: before anything is changed. */
RS_MUST_CHECK int rs_vmc_safe_place(struct rs_vmc *c);

/* Renews the safe copy from the .vmx that is there, if the key service finds it authentic; says which
 * version. */
RS_MUST_CHECK int rs_vmc_keep_safe(struct rs_vmc *c, uint64_t *version);

#endif
