/* SPDX-License-Identifier: Apache-2.0 */
/* What a host may answer to its manager. */
#include "offload/base/keymem.h"
#include "providers/key/host-messages.h"
#include "tests/fuzz/frame.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Nothing is believed about keys that it was not given. */
static void check(const struct rs_host_told *told, const json_t *keys)
{
    json_t *one, *key;
    size_t i, k;
    if (told->instance[0] != '\0' && strlen(told->instance) != RS_HOST_INSTANCE) abort();
    if (json_array_size(told->refused) > RS_AGENT_KEYS) abort();
    json_array_foreach(told->refused, i, one)
    {
        bool known = false;
        json_array_foreach(keys, k, key) known |= json_equal(key, json_array_get(one, 0)) == 1;
        if (!known || !json_is_string(json_array_get(one, 1))) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const char *const begins[] = {
        "{\"status\":0,\"instance\":\"000102030405060708090a0b0c0d0e0f\",\"state\":\"safe\",\"refused\":[[["
        "\"\","
        "\"vault\",\"1\"],\"no\"]",
        "{\"status\":0,\"refused\":",
        "{\"status\":0,\"state\":",
        "{\"status\":0,\"instance\":",
    };
    static json_t *keys;
    struct rs_wire_message answer;
    struct rs_host_told told;
    if (rs_keymem_init(0) != 0) abort();
    if (keys == NULL) keys = json_pack("[[s, s, s], [s, s, s]]", "", "vault", "1", "blue", "vault", "2");
    if (!frame_of(data, len, begins, RS_ARRAY_LEN(begins), &answer)) return 0;
    rs_host_told(answer.json, keys, &told);
    check(&told, keys);
    json_decref(told.refused);
    json_decref(told.kdks_refused);
    rs_wire_message_free(&answer);
    return 0;
}
