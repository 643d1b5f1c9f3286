/* SPDX-License-Identifier: Apache-2.0 */
/* What a key server may send: the whole answer parser. The first byte chooses the operation that was asked.
 */
#include "providers/key/standard/kmip.h"
#include "reseal/reseal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void payload(const struct rs_kmip_result *r)
{
    char text[RS_KMIP_TEXT_MAX], ids[4][RS_KMIP_ID_MAX];
    struct rs_kmip_version version;
    struct rs_kmip_key key;
    uint32_t state;
    unsigned n;
    if (rs_kmip_payload_id(r, ids[0]) == 0 && ids[0][0] == '\0') abort();
    if (rs_kmip_payload_versions(r, &version) == 0 && (version.minor < 0 || version.minor > 4)) abort();
    if (rs_kmip_payload_key(r, 256, false, &key) == 0 && key.len != 32) abort();
    if (rs_kmip_payload_key(r, 512, true, &key) == 0 && key.len != 72) abort();
    (void)!rs_kmip_payload_state(r, &state);
    (void)!rs_kmip_payload_text(r, "x-Vendor", text);
    (void)!rs_kmip_payload_asi(r, "reseal", text);
    (void)!rs_kmip_payload_ids(r, ids, 4, &n);
    (void)!rs_kmip_payload_has_operation(r, RS_KMIP_CREATE);
    (void)!rs_kmip_payload_vendor(r, text);
    (void)rs_kmip_reason_text(r->reason);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rs_kmip_result result;
    size_t len;
    if (size < 1) return 0;
    if (size > RS_TTLV_HEADER && rs_ttlv_message_len(data + 1, RS_TAG_RESPONSE_MESSAGE, &len) == 0 &&
        len > RS_TTLV_MESSAGE_MAX)
        abort();
    if (rs_kmip_answer(data + 1, size - 1, 1, data[0], &result) == 0) payload(&result);
    return 0;
}
