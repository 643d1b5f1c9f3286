/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_TLS_H
#define RS_BENCH_TLS_H

/*
 * The part of `reseal bench openssl` with TLS: bulk data through OpenSSL's own
 * libssl over loopback TCP, the provider reseal on both ends against the
 * default provider on both ends. What counts is the CPU time of both ends.
 */

#include "bench/openssl-sides.h"
#include "bench/result.h"

struct rs_tls_work {
    const char *suite; /* one of rs_tls_suites */
    uint64_t total;    /* bytes of payload of a sample, RS_TLS_WRITE to 4 GiB; rounded up to whole writes */
    unsigned runs;     /* samples of each side, 1 to 1000 */
};

#define RS_TLS_WRITE 16384u /* bytes of a write: a full record */

/* TLS 1.3 and TLS 1.2, AES-256 and AES-128; NULL ends the list. */
extern const char *const rs_tls_suites[];

/*
 * Measures; the client is the calling thread, the server one of its own that
 * inherits the core. Before and after the measurement every byte that arrives is
 * compared; before, also between one end of ours and one of the default
 * provider. A connection that only our provider breaks is a wrong result. 0 (then out->verified tells),
 * RESEAL_EINVAL, RESEAL_ENOMEM, RESEAL_EIO: sockets, or the handshake, with `why`. SIGPIPE must be ignored.
 * out->engine points into `engine`.
 */
RS_MUST_CHECK int rs_tls_measure(const struct rs_evp_sides *sides, const struct rs_tls_work *w,
                                 char engine[32], struct rs_result *out, char why[256]);

#endif
