/* SPDX-License-Identifier: Apache-2.0 */
/* What a manager may send to the agent of a host. */
#include "offload/base/keymem.h"
#include "providers/key/host-messages.h"
#include "tests/fuzz/frame.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static bool ended(const char *text, size_t room)
{
    return strnlen(text, room) < room;
}

/* Stands for reseal-keyd: what reaches it is whole, and the tenant's name says what it answers. */
static void hand(void *arg, const struct rs_agent_ask *a, struct rs_agent_answer *answer)
{
    unsigned *handed = arg;
    (*handed)++;
    if (a->what > RS_AGENT_PREPARE || a->secret_len > sizeof(a->secret) ||
        !ended(a->tenant, sizeof(a->tenant)) || !ended(a->provider, sizeof(a->provider)) ||
        !ended(a->key, sizeof(a->key)))
        abort();
    if (a->what == RS_AGENT_PUT && (a->secret_len != RS_KEK_LEN || a->key[0] == '\0')) abort();
    *answer = (struct rs_agent_answer){.state = "safe", .why = "no"};
    if (a->tenant[0] == 'p') answer->status = RESEAL_EPERM;
    if (a->tenant[0] == 'b') answer->status = RESEAL_EBUSY;
}

/* The answer can be sent, or is none. */
static void check(struct rs_wire_message *request, struct rs_wire_message *answer, unsigned handed)
{
    size_t len;
    if (!json_is_object(answer->json) || handed > RS_AGENT_KEYS) abort();
    if (!json_is_integer(json_object_get(answer->json, "status"))) abort();
    RS_KEYMEM uint8_t *frame = rs_wire_pack(answer, &len);
    (void)frame; /* NULL: it would be too long, and the connection ends */
    rs_wire_message_free(answer);
    rs_wire_message_free(request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const uint8_t caller[32] = {1};
    static const char *const begins[] = {
        "{\"method\":\"put\",\"keys\":[[\"\",\"vault\",\"1\"]",
        "{\"method\":\"put\",\"keys\":",
        "{\"method\":\"forget\",\"tenant\":\"\",\"provider\":\"vault\",\"key\":",
        "{\"method\":\"kdk\",\"tenant\":\"\",\"provider\":",
        "{\"method\":\"no-kdk\",\"tenant\":",
        "{\"method\":\"hello\"",
        "{\"method\":\"prepare\"",
        "{\"method\":",
    };
    struct rs_wire_message request, answer = {.json = NULL};
    unsigned handed = 0;
    if (rs_keymem_init(0) != 0) abort();
    if (!frame_of(data, len, begins, RS_ARRAY_LEN(begins), &request)) return 0;
    rs_agent_request(caller, &request, hand, &handed, &answer);
    check(&request, &answer, handed);
    return 0;
}
