/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_QCOW2_INTERNAL_H
#define RS_VM_QCOW2_INTERNAL_H

#include <libnbd.h>

#include "offload/vm/qcow2-child.h"
#include "offload/vm/qcow2.h"

struct rs_qcow2 {
    struct nbd_handle *nbd;
    struct rs_qcow2_child child;
    char *path; /* absolute */
    unsigned flags;
    int client; /* our end of its connection, until the library has it; -1 */
    int begun;  /* what came of starting the child: 0 or -errno */
    uint64_t size;
    uint32_t cluster; /* bytes */
    bool writable;
    bool stuck; /* a transfer never ended: its buffer may still be written to */
};

#endif
