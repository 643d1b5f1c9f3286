/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_HOTPATH_H
#define RS_BENCH_HOTPATH_H

/* `reseal bench hotpath`: the engines in process, on one pinned core. */

#include "bench/result.h"
#include "providers/crypto/engine.h"

struct rs_hotpath {
    enum rs_cipher from, to;
    unsigned key_bits;    /* 128 or 256, of both sides */
    uint32_t unit;        /* bytes, XTS data unit of both sides */
    uint32_t bytes;       /* of a run; a GCM record */
    uint64_t working_set; /* bytes of all buffers, in and out; rounded to whole pairs of at least two runs */
    const char *engine;   /* NULL: what calibration chooses */
    bool kernel_only;     /* GCM source: write before the tag verified */
    bool peers;           /* OpenSSL, and ipsec-mb with the best XTS, in two passes */
    bool copy;            /* and a plain copy of the same buffers */
    unsigned runs;        /* samples; at least 1 */
    uint32_t sample_us;   /* at least this long each */
};

/* What the table asks for: 64 KiB runs, 256 KiB in all, AES-256. */
struct rs_hotpath rs_hotpath_default(enum rs_cipher from, enum rs_cipher to, uint32_t unit);

/* Why a configuration cannot be measured, or NULL. */
const char *rs_hotpath_refuse(const struct rs_hotpath *c);

/*
 * Measures, and compares every output with that of OpenSSL called
 * directly. 0 (then out->verified tells), RESEAL_ENOSUPPORT (the engine is not
 * there or does not do it), RESEAL_ENOMEM, or the error of a run.
 */
RS_MUST_CHECK int rs_hotpath_measure(const struct rs_hotpath *c, struct rs_result *out);

#endif
