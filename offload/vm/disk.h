/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_DISK_H
#define RS_VM_DISK_H

/*
 * What a disk of a VM is made of: one file, or a descriptor, an extent and a
 * header of their own. Says where the data lies and which key it needs; opens
 * no key.
 *
 *   raw        data from byte 0, not encrypted
 *   luks1/2    header and data in one file
 *   xts        ciphertext from byte 0, the LUKS2 header in FILE.reseal-header: the
 *              size of the disk stays what it was, and `cryptsetup open --header` opens it
 *   vmdk       descriptor and flat extent, not encrypted
 *   vmdk-xts   the same with ciphertext in the extent and the header in
 *              DESCRIPTOR.reseal-header; the descriptor names the key
 *   qcow2      data from byte 0 of a qcow2 image, not encrypted
 *   luks1-qcow2, luks2-qcow2   the same with header and data in the image: QEMU can track and
 *              export it as ciphertext
 *   qcow2-luks encrypted by qcow2 itself: recognised and named
 *
 * Sizes and offsets of what is in a qcow2 image are those of its virtual disk.
 *
 * The key's provider and id are in the LUKS2 token; a LUKS1 header has no room
 * for them: they are in the .vmx or the descriptor, as a key locator.
 */

#include "offload/base/bytes.h"

#include <limits.h>

#define RS_DISK_NODE_MAX     32u
#define RS_DISK_PROVIDER_MAX 64u  /* with NUL, as in provider.h */
#define RS_DISK_KEY_MAX      512u /* with NUL */
#define RS_DISK_HEADER       ".reseal-header"

enum rs_disk_format {
    RS_DISK_RAW,
    RS_DISK_LUKS1,
    RS_DISK_LUKS2,
    RS_DISK_XTS,
    RS_DISK_VMDK,
    RS_DISK_VMDK_XTS,
    RS_DISK_QCOW2,
    RS_DISK_QCOW2_LUKS,
    RS_DISK_LUKS1_QCOW2,
    RS_DISK_LUKS2_QCOW2,
    RS_DISK_FORMATS
};

struct rs_disk {
    char node[RS_DISK_NODE_MAX]; /* "scsi0:0" */
    char path[PATH_MAX];         /* what the .vmx names, absolute or below the folder */
    char data_path[PATH_MAX];    /* where the data is */
    char header_path[PATH_MAX];  /* where the LUKS header is; empty: none */
    char parent[PATH_MAX];       /* of a chain of VMDK descriptors; empty: none */
    enum rs_disk_format format;
    bool encrypted;
    uint64_t data_offset; /* bytes of data_path before the data */
    uint64_t size;        /* bytes of data */
    uint64_t header_size; /* bytes of header_path that are the header */
    uint64_t header_used; /* of these, up to the end of the last key slot that there is */
    uint32_t unit;        /* bytes; 0: not encrypted */
    char uuid[40];        /* of the header */
    char label[48];       /* of a LUKS2 header */
    unsigned snapshots;   /* that are in the image itself */
    const char *bar;      /* why it is not converted or served, for people; NULL: it is */
    char provider[RS_DISK_PROVIDER_MAX];
    char key[RS_DISK_KEY_MAX]; /* both empty: no provider's key opens it, or the .vmx names it */
};

/* "raw", "luks1", ... */
const char *rs_disk_format_name(enum rs_disk_format format);

/* Its data is in a qcow2 image that QEMU opens for us. */
bool rs_disk_in_qcow2(enum rs_disk_format format);

/* Its header has no room for the key's name. */
bool rs_disk_is_luks1(enum rs_disk_format format);

/* The same for the format of that name. */
bool rs_disk_name_in_qcow2(const char *format);
bool rs_disk_name_is_luks1(const char *format);

/* Its header is a file of its own. */
bool rs_disk_name_has_side_header(const char *format);

/*
 * Looks at the files of a disk whose `path` is set, and fills in the rest but `node`. A provider and key
 * that are set stay where the files name none. 0, RESEAL_EIO (errno says why), RESEAL_EFORMAT,
 * RESEAL_ENOSUPPORT: with one line in `why`.
 */
RS_MUST_CHECK int rs_disk_look(struct rs_disk *disk, char *why, size_t why_len);

/*
 * The same for the LUKS header in a descriptor alone: version, offsets, unit,
 * uuid, label, provider and key. `file_size` limits what the header may claim.
 */
RS_MUST_CHECK int rs_disk_look_luks(int fd, uint64_t file_size, struct rs_disk *disk, char *why,
                                    size_t why_len);

/*
 * What the header of a file of its own says of where the data begins, when it begins at byte `start` of
 * its file. Byte 0 stands also for a start that no LUKS2 header of ours can say: then the file is
 * to be shown from there on (losetup --offset) to whoever goes by the header alone.
 */
uint64_t rs_disk_said_offset(uint64_t start);

/* Provider and key of a key locator with one fqid in it. RESEAL_EFORMAT. */
RS_MUST_CHECK int rs_disk_take_locator(const char *text, char provider[RS_DISK_PROVIDER_MAX],
                                       char key[RS_DISK_KEY_MAX]);

/* The locator of a key; the caller's to free(3). NULL: no memory. */
char *rs_disk_locator(const char *provider, const char *key);

#endif
