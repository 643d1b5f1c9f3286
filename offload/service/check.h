/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_SERVICE_CHECK_H
#define RS_SERVICE_CHECK_H

/*
 * Descriptor validation: pure functions over private copies. Nothing here
 * touches shared memory, keeps state or knows who asks.
 *
 * What each rule is for: docs/ring-protocol.md, "hostile descriptors".
 */

#include "offload/ring/layout.h"
#include "offload/transform/transform.h"

/* A mapping of one of the client's memfds, or nothing (len 0). */
struct rs_region {
    uint8_t *base;
    uint64_t len;
};

/* Opcode, flags and fields that the opcode does not have: 0 or RESEAL_EINVAL. */
RS_MUST_CHECK int rs_check_op(const struct rs_sqe *sqe);

/* True when the configuration has input or results in the auxiliary block. */
bool rs_check_needs_aux(const struct rs_transform_config *config);

/* Place of the auxiliary block, in region 0: 0, RESEAL_EINVAL (none, misaligned), RESEAL_ERANGE. */
RS_MUST_CHECK int rs_check_aux(uint32_t aux, const struct rs_region *own);

/* The copied inputs of one GCM side: lengths and flags. `source`: derive is allowed. 0 or RESEAL_EINVAL. */
RS_MUST_CHECK int rs_check_record(const struct rs_aux_record *record, bool source);

/*
 * Where the bytes of a job lie: fills in, out, len, out_cap, raw_len and the
 * tweaks of `job`, and checks them against the transform. `regions` has
 * RS_REGION_MAX entries. 0, RESEAL_ERANGE, RESEAL_EINVAL, RESEAL_EUNIT,
 * RESEAL_EOVERLAP, RESEAL_ESPACE.
 */
RS_MUST_CHECK int rs_check_place(const struct rs_sqe *sqe, const struct rs_region *regions,
                                 struct rs_job *job);

#endif
