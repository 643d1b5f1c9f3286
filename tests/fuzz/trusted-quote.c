/* SPDX-License-Identifier: Apache-2.0 */
/* What a host sends to be attested: public areas, quotes, signatures, certificates. */
#include "offload/base/keymem.h"
#include "providers/key/trusted/credential.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* A piece with its length in front; the rest for the last. */
static void take(const uint8_t **data, size_t *len, struct rs_tpm_blob *out)
{
    size_t n = *len > 2 ? RS_MIN((size_t)((*data)[0] << 8 | (*data)[1]), *len - 2) : 0;
    n = RS_MIN(n, sizeof(out->bytes));
    out->len = (uint16_t)n;
    if (n == 0) return;
    memcpy(out->bytes, *data + 2, n);
    *data += 2 + n;
    *len -= 2 + n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const uint8_t nonce[32], credential[32];
    struct rs_tpm_blob ak, ek, blob, secret;
    struct rs_quote q = {.pcrs = {.mask = 0x4081}};
    struct rs_tpm_clock clock;
    uint8_t name[RS_TPM_NAME_LEN] = {0}, digest[32], id[32];
    char why[RS_TRUST_WHY];
    EVP_PKEY *key;
    if (rs_keymem_init(0) != 0) abort();
    take(&data, &len, &ak);
    take(&data, &len, &ek);
    take(&data, &len, &q.attest);
    take(&data, &len, &q.signature);
    (void)!rs_ak_check(&ak, name, why);
    (void)!rs_quote_verify(&q, &ak, nonce, nonce, 0x4081, &clock, digest, why);
    (void)!rs_quote_signed(&q, &ak);
    (void)!rs_credential_make(&ek, name, credential, &blob, &secret);
    if (rs_ek_key(&ek, &key, id) == 0) {
        (void)!rs_ek_certificate(data, len, key, "", why);
        EVP_PKEY_free(key);
    }
    return 0;
}
