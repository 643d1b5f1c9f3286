/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_POLICY_H
#define RS_VM_POLICY_H

/*
 * Storage policies: what is to be done with the disks of a VM, as a JSON file
 * NAME.json in a folder of policies.
 *
 *   {"name": "VM Encryption Policy", "id": "UUID", "description": "...",
 *    "capabilities": [{"namespace": "vmwarevmcrypt", "id": "vmwarevmcrypt@ENCRYPTION",
 *                      "properties": {"AllowCleartextFilters": false}}],
 *    "provider": "", "disk": {"format": "luks2", "unit": 4096, "key-bits": 256}}
 *
 * A policy with that capability encrypts; one without does not. A policy is
 * found by its name or id. The sample above is installed as a file, which shows what can be
 * said, and is there without one too.
 */

#include "offload/vm/disk.h"

#define RS_VM_POLICY_SAMPLE "VM Encryption Policy"
#define RS_VM_POLICY_DIR    "/etc/reseal/storage-policies"

struct rs_vm_policy {
    char name[128];
    char id[40];
    bool encrypts;
    bool allows_cleartext_filters;       /* programs that see a disk's plaintext may be put before it */
    char provider[RS_DISK_PROVIDER_MAX]; /* "": the default one */
    char format[8];                      /* "luks2", "luks1", "xts" */
    uint32_t unit;                       /* bytes, 512 to 4096 */
    uint32_t key_bits;                   /* 128 or 256 */
};

/* RESEAL_EFORMAT with one line in `why`: not JSON, an unknown member, a value out of its range. */
RS_MUST_CHECK int rs_vm_policy_parse(const char *text, size_t len, struct rs_vm_policy *out, char *why,
                                     size_t why_len);

/*
 * The policy of that name or id: in `folder` (NULL: RS_VM_POLICY_DIR, then share/reseal/storage-policies of
 * the installation that this program is of), else the sample. RESEAL_ENOKEY: there is none, `why` names those
 * that there are; RESEAL_EFORMAT: a file of the folder is no policy, which is named; RESEAL_EIO.
 */
RS_MUST_CHECK int rs_vm_policy_find(const char *folder, const char *name, struct rs_vm_policy *out, char *why,
                                    size_t why_len);

#endif
