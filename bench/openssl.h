/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_OPENSSL_H
#define RS_BENCH_OPENSSL_H

/* `reseal bench openssl`: single messages through EVP, the provider reseal against the default provider. */

#include "bench/openssl-sides.h"
#include "bench/result.h"

/* What an application does again for each message. */
enum rs_evp_flow {
    RS_EVP_IV,      /* a new IV; context and key stay: workload "openssl" */
    RS_EVP_KEY,     /* key and IV: "openssl-rekey" */
    RS_EVP_CONTEXT, /* context, key and IV: "openssl-new-context" */
};

struct rs_evp_work {
    const char *cipher; /* "AES-256-GCM": AES, 128, 192 or 256, GCM, CTR or XTS (no 192) */
    enum rs_evp_flow flow;
    bool encrypt;
    uint32_t bytes;     /* of a message, up to RS_EVP_BYTES_MAX; XTS: a data unit, at least 16 */
    unsigned runs;      /* samples of each side, 1 to 1000 */
    uint32_t sample_us; /* at least this long each */
};

#define RS_EVP_BYTES_MAX (16u << 20)

/* Why it cannot be measured, or NULL. */
const char *rs_evp_refuse(const struct rs_evp_work *w);

/*
 * Measures on the calling thread, which the caller pins. Each output, and each
 * tag, is compared with the default provider's. 0 (then out->verified tells),
 * RESEAL_EINVAL, RESEAL_ENOMEM, RESEAL_ENOSUPPORT (a side has no such cipher).
 * out->engine points into `engine`.
 */
RS_MUST_CHECK int rs_evp_measure(const struct rs_evp_sides *sides, const struct rs_evp_work *w,
                                 char engine[32], struct rs_result *out);

#endif
