/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/luks-token.h"

#include "reseal/reseal.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#define TOKEN_MAX 8192u /* bytes of a token's text; ours have 700 */

__attribute__((format(printf, 3, 4))) static int refuse(char *why, size_t why_len, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why, why_len, format, args);
    va_end(args);
    return RESEAL_EFORMAT;
}

char *rs_luks_token_text(const struct rs_luks_token *t)
{
    char slot[12];
    (void)snprintf(slot, sizeof(slot), "%d", t->keyslot);
    json_t *token = json_pack("{ss s[s] ss ss si}", "type", RS_LUKS_TOKEN_TYPE, "keyslots", slot, "provider",
                              t->provider, "key", t->key, "version", 1);
    char *text = token != NULL ? json_dumps(token, JSON_COMPACT) : NULL;
    json_decref(token);
    return text;
}

/* A member that is a text of 1 to room - 1 printing bytes: it becomes part of names and messages. */
static bool take_text(const json_t *token, const char *name, char *out, size_t room)
{
    const json_t *value = json_object_get(token, name);
    size_t len = json_string_length(value);
    if (len == 0 || len >= room) return false;
    const char *text = json_string_value(value);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f) return false;
    memcpy(out, text, len + 1);
    return true;
}

static bool take_keyslot(const json_t *token, int *out)
{
    const json_t *slots = json_object_get(token, "keyslots");
    const char *text = json_array_size(slots) == 1 ? json_string_value(json_array_get(slots, 0)) : NULL;
    if (text == NULL || isdigit((unsigned char)text[0]) == 0 || strlen(text) > 2) return false;
    if (text[1] != '\0' && isdigit((unsigned char)text[1]) == 0) return false;
    *out = (int)strtol(text, NULL, 10);
    return *out < 32;
}

int rs_luks_token_parse(const char *json, struct rs_luks_token *out, char *why, size_t why_len)
{
    static const char damaged[] = "the header's token of type reseal is damaged";
    json_error_t error;
    *out = (struct rs_luks_token){.number = -1};
    if (strnlen(json, TOKEN_MAX + 1) > TOKEN_MAX)
        return refuse(why, why_len, "%s: it has more than 8 KiB", damaged);
    json_t *token = json_loads(json, JSON_REJECT_DUPLICATES, &error);
    if (token == NULL) return refuse(why, why_len, "%s: it is no JSON text", damaged);
    const char *type = json_string_value(json_object_get(token, "type"));
    const json_t *version = json_object_get(token, "version");
    int r = 0;
    if (type == NULL || strcmp(type, RS_LUKS_TOKEN_TYPE) != 0)
        r = refuse(why, why_len, "the header's token is not of type reseal");
    else if (!json_is_integer(version))
        r = refuse(why, why_len, "%s: 'version' is no number", damaged);
    else if (json_integer_value(version) != 1)
        r = refuse(why, why_len, "the header's token is of a later version than this Reseal knows: update");
    else if (!take_text(token, "provider", out->provider, sizeof(out->provider)))
        r = refuse(why, why_len, "%s: 'provider' is no text of 1 to 63 characters", damaged);
    else if (!take_text(token, "key", out->key, sizeof(out->key)))
        r = refuse(why, why_len, "%s: 'key' is no text of 1 to 511 characters", damaged);
    else if (!take_keyslot(token, &out->keyslot))
        r = refuse(why, why_len, "%s: 'keyslots' does not name one key slot", damaged);
    json_decref(token);
    return r;
}

int rs_luks_token_find(struct crypt_device *cd, struct rs_luks_token *out, char *why, size_t why_len)
{
    int found = -1, max = crypt_token_max(CRYPT_LUKS2);
    for (int i = 0; i < max; i++) {
        const char *type = NULL;
        crypt_token_info info = crypt_token_status(cd, i, &type);
        if (info == CRYPT_TOKEN_INVALID || info == CRYPT_TOKEN_INACTIVE || type == NULL) continue;
        if (strcmp(type, RS_LUKS_TOKEN_TYPE) != 0) continue;
        if (found >= 0) return refuse(why, why_len, "the header has two tokens of type reseal: remove one");
        found = i;
    }
    if (found < 0) {
        (void)refuse(why, why_len,
                     "no key slot of it belongs to a key provider: open it with its pass phrase");
        return RESEAL_ENOKEY;
    }
    const char *json = NULL;
    if (crypt_token_json_get(cd, found, &json) < 0 || json == NULL)
        return refuse(why, why_len, "the header's token of type reseal cannot be read");
    int r = rs_luks_token_parse(json, out, why, why_len);
    out->number = found;
    return r;
}
