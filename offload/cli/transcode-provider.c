/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "offload/cli/transcode.h"
#include "offload/client/keyservice.h"

/* A side's key slot belongs to a key provider: the header names it, or the service had it already. */
static bool is_ours(const json_t *result)
{
    return json_is_true(json_object_get(result, "token")) || json_object_get(result, "provider") != NULL;
}

static int take_answer(struct rs_tc *t, struct rs_tc_side *side, const json_t *result)
{
    side->luks.size = sizeof(side->luks);
    if (rs_keyservice_luks(result, &side->luks) != 0 || rs_keyservice_handle(result, &side->key) != 0)
        return rs_failure_set(&t->f, RS_EXIT_SERVICE, "the service's answer about %s is not understood",
                              side->spec->path);
    rs_tc_take_luks(side);
    return 0;
}

int rs_tc_provider_open(struct rs_tc *t, struct rs_tc_side *side, const struct rs_tc_provider_key *key,
                        uint32_t use, bool *found)
{
    char why[RS_KEYSERVICE_WHY];
    json_t *result = NULL, *args = json_pack("{s:I}", "use", (json_int_t)use);
    RS_CLOSE int header = rs_tc_header_fd(side);
    *found = true;
    if (header < 0 || args == NULL) {
        json_decref(args);
        return rs_failure_errno(&t->f, header, "read the header of", side->file->path);
    }
    bool named = key->provider != NULL && key->key != NULL;
    if (named) {
        json_object_set_new(args, "provider", json_string(key->provider));
        json_object_set_new(args, "key", json_string(key->key));
    }
    int code = rs_keyservice_call(t->service, "disk.open", args, &header, 1, &result, NULL, why, sizeof(why));
    *found = code == 0 || named || is_ours(result);
    if (code == 0)
        code = take_answer(t, side, result);
    else if (*found)
        code = rs_failure_set(&t->f, rs_exit_of(code), "%s: %s", side->file->path, why);
    json_decref(result);
    return code;
}

static json_t *wish(const struct rs_tc *t, const struct reseal_luks_format *format, uint32_t use,
                    bool recovery)
{
    json_t *args =
        json_pack("{s:s, s:i, s:i, s:i, s:I, s:I, s:s, s:i, s:b, s:b, s:i}", "provider", t->o.to.provider,
                  "version", (int)format->version, "unit", (int)format->unit, "key_bits",
                  (int)format->key_bits, "data_offset", (json_int_t)format->data_offset, "data_size",
                  (json_int_t)format->data_size, "label", format->label != NULL ? format->label : "", "use",
                  (int)use, "recovery", recovery, "existing", 1, "pbkdf_ms", (int)format->pbkdf_ms);
    if (args != NULL && t->o.to.key != NULL) json_object_set_new(args, "key", json_string(t->o.to.key));
    return args;
}

int rs_tc_provider_format(struct rs_tc *t, const struct reseal_luks_format *format, uint32_t use)
{
    const struct rs_passphrase *pass = &t->o.dst_pass;
    bool recovery = pass->file != NULL || pass->fd >= 0;
    char why[RS_KEYSERVICE_WHY];
    RS_CLOSE int secret = -1, header = -1;
    int code = recovery ? rs_passphrase_open(pass, "destination", t->o.dst.path, true, &secret, &t->f) : 0;
    if (code != 0) return code;
    json_t *result = NULL, *args = wish(t, format, use, recovery);
    code = args == NULL ? RESEAL_ENOMEM
                        : rs_keyservice_call(t->service, "disk.format", args, &secret, recovery ? 1 : 0,
                                             &result, &header, why, sizeof(why));
    if (args == NULL) (void)snprintf(why, sizeof(why), "a name is no UTF-8 text");
    if (code != 0)
        code = rs_failure_set(&t->f, rs_exit_of(code), "cannot make a LUKS header for %s: %s", t->o.dst.path,
                              why);
    if (code == 0) code = take_answer(t, &t->dst, result);
    if (code == 0) code = rs_tc_made_header(t, format, header);
    json_decref(result);
    return code;
}
