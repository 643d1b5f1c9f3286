/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_VM_KEYS_H
#define RS_CLI_VM_KEYS_H

/* Requests to the key service, as the commands on VMs need them. All return 0 or an exit code, with c->f set,
 * unless it says otherwise. c->service is open. */

#include "offload/cli/vm.h"

/* A KEK by name. */
struct rs_vmc_key {
    char provider[RS_DISK_PROVIDER_MAX]; /* "": the default one */
    char key[RS_DISK_KEY_MAX];           /* "": a new one */
};

/* What an encrypted .vmx holds. */
struct rs_vmc_seal {
    char *key_safe, *bundle, *data; /* free(3); wiped by nobody: nothing of it is secret */
    struct rs_vmc_key key;
    bool by_phrase; /* key and bundle are empty */
};
void rs_vmc_seal_free(struct rs_vmc_seal *seal);

/* Why a key cannot be had. */
struct rs_vmc_state {
    bool known; /* the service answered */
    bool available;
    bool trusted;    /* of a trusted provider */
    char reason[64]; /* KeyStateMissingInCache, ...; empty when it is available */
    char why[RS_KEYSERVICE_WHY];
};
void rs_vmc_key_state(struct rs_vmc *c, const struct rs_vmc_key *key, struct rs_vmc_state *out);

/* Opens encryption.data, by the pass phrase where one locks it, and gives the VM its lines. A VM that is
 * locked fails with RS_EXIT_KEY and says why.
 */
RS_MUST_CHECK int rs_vmc_home_open(struct rs_vmc *c);

/* Locks lines with a key; NULL: with the new pass phrase. `bundle` NULL: a new one. `fresh`: for a VM that is
 * being made. */
RS_MUST_CHECK int rs_vmc_home_seal(struct rs_vmc *c, const struct rs_vmc_key *key, const char *bundle,
                                   bool fresh, const char *text, size_t len, struct rs_vmc_seal *out);

/* The VM's locked lines with a disk at this node, under the key safe that it has; `file` "": without the one
 * that is there. Nobody sees the lines. */
RS_MUST_CHECK int rs_vmc_home_disk(struct rs_vmc *c, const char *node, const char *file, char **data);

/* The key safe and bundle of the VM under another key; NULL: the key safe under the new pass phrase. `data`
 * of the result stays NULL. */
RS_MUST_CHECK int rs_vmc_home_rewrap(struct rs_vmc *c, const struct rs_vmc_key *key, struct rs_vmc_seal *out);

/* Whether the three texts of a .vmx belong together, by the service: 0 or RESEAL_E..., with a line. */
RS_MUST_CHECK int rs_vmc_home_check(struct rs_vmc *c, const struct rs_vmx *vmx, char *why, size_t why_len);

/* A disk's key from its header, on any connection: 0 or RESEAL_E..., with a line. */
RS_MUST_CHECK int rs_vmc_disk_open(reseal *service, int header, const struct rs_vmc_key *key, uint32_t use,
                                   reseal_key *out, struct reseal_luks *luks, char *why, size_t why_len);

struct rs_vmc_format {
    struct rs_vmc_key key;
    unsigned version; /* of LUKS: 1 or 2 */
    uint32_t unit, key_bits;
    uint64_t size; /* bytes of data */
    bool detached; /* in a file of its own; the data begins at byte `start` of another one */
    uint64_t start;
    const char *label;
    bool existing; /* data that is there is being encrypted */
};

/* A new header, in a descriptor of the caller's, and the key that opens it. */
RS_MUST_CHECK int rs_vmc_disk_format(struct rs_vmc *c, const struct rs_vmc_format *format, const char *name,
                                     int *header, struct rs_vmc_key *made);

/* A header under another key; `was` for LUKS1. */
RS_MUST_CHECK int rs_vmc_disk_rewrap(struct rs_vmc *c, int header, const struct rs_vmc_key *was,
                                     const struct rs_vmc_key *key, const char *name, int *fresh);

/* NVRAM and vTPM state, under the VM's bundle; NULL: under its pass phrase (sealed and rewrapped: the new
 * one). Both descriptors are files; `to` is written from its start. */
RS_MUST_CHECK int rs_vmc_file_seal(struct rs_vmc *c, const char *bundle, int from, int to, const char *name);
RS_MUST_CHECK int rs_vmc_file_open(struct rs_vmc *c, const char *bundle, int from, int to, const char *name);
/* From one bundle to another, or to the pass phrase: the text does not come out. */
RS_MUST_CHECK int rs_vmc_file_rewrap(struct rs_vmc *c, const char *bundle, const char *other, int from,
                                     int to, const char *name);

/* Tells of something that happened to the VM, as an event. Never fails. */
void rs_vmc_event(struct rs_vmc *c, const char *id, const char *message);

/* The event of each disk whose chain, which was loaded, uses more than one key. */
void rs_vmc_tell_mixed(struct rs_vmc *c);

#endif
