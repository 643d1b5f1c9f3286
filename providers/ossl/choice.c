/* SPDX-License-Identifier: Apache-2.0 */
/* Which implementation is offered: ours wherever there are kernels. */
#include "providers/ossl/ossl.h"

#ifdef RESEAL_X86
#include "providers/crypto/vaes/stream.h"

const struct rs_stream *rs_ossl_kernels(void)
{
    return rs_stream_best();
}

void rs_ossl_choose(struct rs_ossl *p)
{
    static const OSSL_ALGORITHM ours[] = {
        {"AES-256-GCM:id-aes256-GCM:2.16.840.1.101.3.4.1.46", "provider=reseal", rs_ossl_aes256gcm, NULL},
        {"AES-192-GCM:id-aes192-GCM:2.16.840.1.101.3.4.1.26", "provider=reseal", rs_ossl_aes192gcm, NULL},
        {"AES-128-GCM:id-aes128-GCM:2.16.840.1.101.3.4.1.6", "provider=reseal", rs_ossl_aes128gcm, NULL},
        {"AES-256-XTS:1.3.111.2.1619.0.1.2", "provider=reseal", rs_ossl_aes256xts, NULL},
        {"AES-128-XTS:1.3.111.2.1619.0.1.1", "provider=reseal", rs_ossl_aes128xts, NULL},
        {"AES-256-CTR", "provider=reseal", rs_ossl_aes256ctr, NULL},
        {"AES-192-CTR", "provider=reseal", rs_ossl_aes192ctr, NULL},
        {"AES-128-CTR", "provider=reseal", rs_ossl_aes128ctr, NULL},
        {NULL, NULL, NULL, NULL}};
    _Static_assert(sizeof(ours) == sizeof(p->ciphers), "all fit");
    if (rs_stream_best() != NULL) memcpy(p->ciphers, ours, sizeof(ours));
}

const char *rs_ossl_choice_text(RS_UNUSED struct rs_ossl *p)
{
    const struct rs_stream *best = rs_stream_best();
    return best == NULL ? "no kernels" : best->name;
}
#else
void rs_ossl_choose(RS_UNUSED struct rs_ossl *p) {}

const char *rs_ossl_choice_text(RS_UNUSED struct rs_ossl *p)
{
    return "no kernels";
}
#endif

void rs_ossl_choice_release(void) {}
