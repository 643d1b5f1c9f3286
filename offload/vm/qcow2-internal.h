/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_QCOW2_INTERNAL_H
#define RS_VM_QCOW2_INTERNAL_H

#include <libnbd.h>

#include "offload/vm/qcow2-child.h"
#include "offload/vm/qcow2.h"

struct rs_qcow2 {
    struct nbd_handle *nbd;
    struct rs_qcow2_child child;
    uint64_t size;
    uint32_t cluster; /* bytes */
    bool writable;
    bool stuck; /* a transfer never ended: its buffer may still be written to */
};

#endif
