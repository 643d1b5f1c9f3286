/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TRANSFORM_WORK_H
#define RS_TRANSFORM_WORK_H

/* Shared by the files of this room alone: what lies where in the scratch. */

#include "offload/transform/transform.h"

#define RS_STAGE_PACKERS ((uint32_t)(RESEAL_STAGE_LZ4 | RESEAL_STAGE_ZSTD))

/* Bytes that a run takes of a job whose sides are both XTS or plain: a multiple of every data unit. */
#define RS_PIECE 262144u

/* Offsets in the scratch, in bytes; the engine's own is first. */
struct rs_work {
    size_t plain;  /* stages: a piece of plaintext */
    size_t packed; /* compressors: a piece of compressed plaintext */
    size_t packer; /* their state */
    size_t digest; /* state of the keyed digest */
    size_t size;   /* of all that */
};

/* The most bytes that one run of an engine takes: RS_PIECE, or RS_RECORD_MAX where a job is one run. */
size_t rs_work_piece(const struct rs_transform_config *config);

struct rs_work rs_work_layout(const struct rs_transform_config *config);

#endif
