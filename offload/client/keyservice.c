/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/client/keyservice.h"

#include "offload/client/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char *request_of(const char *method, json_t *args)
{
    json_t *request = json_pack("{s:s, s:o}", "method", method, "args", args != NULL ? args : json_object());
    char *text = request != NULL ? json_dumps(request, JSON_COMPACT) : NULL;
    json_decref(request);
    return text;
}

static void say(char *why, size_t why_len, int status, const json_t *reply)
{
    const char *line = json_string_value(json_object_get(reply, "error"));
    /* Without an answer it is the connection that was refused. */
    if (reply == NULL && status == RESEAL_EPERM)
        line = "permission denied: this user is in no tenant of the service's policy, or not in the one of "
               "--tenant: see reseal-policy(5)";
    (void)snprintf(why, why_len, "%s", line != NULL && *line != '\0' ? line : reseal_strerror(status));
}

int rs_keyservice_call(reseal *r, const char *method, json_t *args, const int *fds, unsigned nfds,
                       json_t **result, int *out_fd, char *why, size_t why_len)
{
    if (result != NULL) *result = NULL;
    if (out_fd != NULL) *out_fd = -1;
    RS_FREE char *request = request_of(method, args), *text = NULL;
    int fd = -1;
    int err = request != NULL ? reseal_call(r, request, fds, nfds, &text, &fd) : RESEAL_ENOMEM;
    json_t *reply = text != NULL ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (text != NULL && !json_is_object(reply)) {
        json_decref(reply);
        reply = NULL;
        err = RESEAL_EPROTO;
    }
    if (err != 0) say(why, why_len, err, reply);
    if (err == 0 && out_fd != NULL)
        *out_fd = fd;
    else
        rs_cleanup_close(&fd);
    if (result != NULL)
        *result = reply;
    else
        json_decref(reply);
    return err;
}

void rs_keyservice_stop_when(reseal *r, bool (*stopped)(void))
{
    r->stopped = stopped;
}

int rs_keyservice_handle(const json_t *result, reseal_key *out)
{
    const char *text = json_string_value(json_object_get(result, "handle"));
    if (text == NULL || strlen(text) != 32 || strspn(text, "0123456789abcdef") != 32) return RESEAL_EPROTO;
    for (unsigned i = 0; i < 2; i++) {
        char half[17] = {0};
        memcpy(half, text + (size_t)i * 16, 16);
        out->id[i] = strtoull(half, NULL, 16);
    }
    return 0;
}

static bool take_number(const json_t *result, const char *name, uint64_t *out)
{
    const json_t *value = json_object_get(result, name);
    *out = (uint64_t)json_integer_value(value);
    return json_is_integer(value);
}

static bool take_small(const json_t *result, const char *name, uint32_t *out)
{
    uint64_t n;
    bool there = take_number(result, name, &n) && n <= UINT32_MAX;
    *out = (uint32_t)n;
    return there;
}

static bool take_text(const json_t *result, const char *name, char *out, size_t room)
{
    const char *text = json_string_value(json_object_get(result, name));
    if (text == NULL || strlen(text) >= room) return false;
    memcpy(out, text, strlen(text) + 1);
    return true;
}

int rs_keyservice_luks(const json_t *result, struct reseal_luks *luks)
{
    struct reseal_luks l = {.size = luks->size};
    l.keyslot = (int32_t)json_integer_value(json_object_get(result, "keyslot"));
    bool whole = take_small(result, "version", &l.version) && take_small(result, "unit", &l.unit) &&
                 take_small(result, "key_bits", &l.key_bits) && take_number(result, "step", &l.step) &&
                 take_number(result, "first_tweak", &l.first_tweak) &&
                 take_number(result, "data_offset", &l.data_offset) &&
                 take_number(result, "data_size", &l.data_size) &&
                 take_number(result, "header_size", &l.header_size) &&
                 take_text(result, "uuid", l.uuid, sizeof(l.uuid)) &&
                 take_text(result, "cipher", l.cipher, sizeof(l.cipher));
    if (whole) *luks = l;
    return whole ? 0 : RESEAL_EPROTO;
}
