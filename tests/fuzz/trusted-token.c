/* SPDX-License-Identifier: Apache-2.0 */
/* What a host shows as a token, and frames of the wire. */
#include "offload/base/keymem.h"
#include "providers/key/trusted/token.h"
#include "providers/key/wire/frame.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const uint8_t cert[32];
    static json_t *keys;
    struct rs_wire_message m;
    struct rs_token_claims claims;
    char why[RS_TRUST_WHY];
    if (rs_keymem_init(0) != 0) abort();
    if (keys == NULL) {
        EVP_PKEY *key = rs_token_make_key();
        keys = json_pack("[o]", rs_token_publish(key));
        (void)json_object_set_new(json_array_get(keys, 0), "kid", json_string("k"));
        EVP_PKEY_free(key);
    }
    const struct rs_token_rules rules = {.keys = keys, .audience = "a", .cert = cert, .now = 1};
    char *text = malloc(len + 1);
    memcpy(text, data, len);
    text[len] = '\0';
    (void)!rs_token_verify(text, &rules, &claims, why);
    free(text);
    if (rs_wire_unpack(data, len, &m) == 0) rs_wire_message_free(&m);
    return 0;
}
