/* SPDX-License-Identifier: Apache-2.0 */
/* What hosts answer to their manager: read in reseal-keyd, after a task took it apart. */
#include "providers/key/host-messages.h"

#include <stdio.h>

static bool is_one_of(const json_t *keys, const json_t *entry)
{
    const json_t *one;
    size_t i;
    json_array_foreach(keys, i, one)
    {
        if (json_equal(one, entry)) return true;
    }
    return false;
}

void rs_host_told(const json_t *answer, const json_t *keys, struct rs_host_told *out)
{
    static const char *const states[] = {"incapable", "prepared", "safe"};
    const char *instance = json_string_value(json_object_get(answer, "instance"));
    const char *state = json_string_value(json_object_get(answer, "state"));
    const json_t *one;
    size_t i;
    *out = (struct rs_host_told){.state = "unknown", .refused = json_array(), .kdks_refused = json_array()};
    if (instance != NULL && strlen(instance) == RS_HOST_INSTANCE &&
        strspn(instance, "0123456789abcdef") == RS_HOST_INSTANCE)
        memcpy(out->instance, instance, RS_HOST_INSTANCE);
    for (i = 0; state != NULL && i < RS_ARRAY_LEN(states); i++)
        if (strcmp(state, states[i]) == 0) (void)snprintf(out->state, sizeof(out->state), "%s", states[i]);
    json_array_foreach(json_object_get(answer, "refused"), i, one)
    {
        json_t *entry = json_array_get(one, 0), *why = json_array_get(one, 1);
        if (i == RS_AGENT_KEYS) break;
        if (is_one_of(keys, entry) && json_is_string(why))
            (void)json_array_append_new(out->refused, json_pack("[O, O]", entry, why));
    }
    json_array_foreach(json_object_get(answer, "kdks_refused"), i, one)
    {
        bool ok = i < RS_PROVIDERS_MAX && json_array_size(one) == 3;
        for (size_t k = 0; ok && k < 3; k++) ok = json_is_string(json_array_get(one, k));
        if (ok) (void)json_array_append(out->kdks_refused, (json_t *)(uintptr_t)one);
    }
}
