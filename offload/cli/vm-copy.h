/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_VM_COPY_H
#define RS_CLI_VM_COPY_H

/* The data of a disk from one file to another, through the hot path: resumable as `reseal transcode` is. */

#include "offload/cli/vm-keys.h"

struct rs_vmc_side {
    char path[PATH_MAX];   /* of the data */
    uint64_t offset;       /* bytes before it */
    char header[PATH_MAX]; /* file that begins with the LUKS header; empty: not encrypted */
    struct rs_vmc_key key; /* of a LUKS1 header; both empty: the header's token says it */
    uint32_t unit;         /* bytes; of an encrypted side */
    bool qcow2;            /* its file is a qcow2 image */
    bool header_in_qcow2;  /* so is that of the header */
};

/* The side that a disk is now. */
void rs_vmc_side_of(const struct rs_disk *disk, struct rs_vmc_side *side);

/* A copy of the header at the start of a file, or of what is in a qcow2 image, as long as the key service
 * wants it; -errno. */
RS_MUST_CHECK int rs_vmc_header_copy(const char *path, bool qcow2);

/*
 * Copies `size` bytes. A copy that was interrupted goes on; a destination without such a state is made anew.
 * 0 or an exit code.
 */
RS_MUST_CHECK int rs_vmc_copy(struct rs_vmc *c, const struct rs_vmc_side *from, const struct rs_vmc_side *to,
                              uint64_t size);

/* What lies before and behind these bytes in the old file, into the new one as it is: it is not of the disk.
 */
RS_MUST_CHECK int rs_vmc_copy_around(struct rs_vmc *c, const struct rs_vmc_side *from,
                                     const struct rs_vmc_side *to, uint64_t size);

#endif
