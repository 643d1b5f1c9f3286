/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/disk-luks.h"

#include "reseal/reseal.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define JSON_AT       4096u
#define JSON_AREA_MAX (4u << 20)
#define TOKEN_TYPE    "reseal"

/* Offsets in the first bytes, of the two versions. */
#define LUKS1_PAYLOAD  104u
#define LUKS1_UUID     168u
#define LUKS2_HDR_SIZE 8u
#define LUKS2_LABEL    24u
#define LUKS2_UUID     168u

static uint64_t be(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    while (bytes-- > 0) v = v << 8 | *p++;
    return v;
}

/* Texts of headers are shown on terminals. */
static void take_text(char *to, size_t room, const uint8_t *from, size_t len)
{
    size_t n = 0;
    while (n < len && n + 1 < room && from[n] >= ' ' && from[n] < 0x7f) {
        to[n] = (char)from[n];
        n++;
    }
    to[n] = '\0';
}

int rs_disk_luks1(const uint8_t start[RS_LUKS_START], struct rs_disk *d)
{
    uint64_t offset = be(start + LUKS1_PAYLOAD, 4) * 512;
    take_text(d->uuid, sizeof(d->uuid), start + LUKS1_UUID, 40);
    d->data_offset = d->header_size = d->header_used = offset;
    d->unit = 512;
    return d->uuid[0] == '\0' ? RESEAL_EFORMAT : 0;
}

/* LUKS2 writes 64-bit numbers as texts. */
static bool number(const json_t *o, const char *name, uint64_t *out)
{
    const char *text = json_string_value(json_object_get(o, name));
    char *end;
    if (text == NULL || *text < '0' || *text > '9') return false;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && *out <= INT64_MAX;
}

static bool take_segment(const json_t *root, struct rs_disk *d)
{
    const json_t *s = json_object_get(json_object_get(root, "segments"), "0");
    const char *type = json_string_value(json_object_get(s, "type"));
    const char *size = json_string_value(json_object_get(s, "size"));
    json_int_t unit = json_integer_value(json_object_get(s, "sector_size"));
    if (type == NULL || strcmp(type, "crypt") != 0 || !number(s, "offset", &d->data_offset)) return false;
    if (size == NULL || unit < 512 || unit > 4096) return false;
    d->unit = (uint32_t)unit;
    d->size = 0;
    return strcmp(size, "dynamic") == 0 || number(s, "size", &d->size);
}

/* Our token, where there is one. */
static void take_token(const json_t *root, struct rs_disk *d)
{
    const char *id;
    json_t *token;
    json_object_foreach(json_object_get(root, "tokens"), id, token)
    {
        const char *type = json_string_value(json_object_get(token, "type"));
        const char *provider = json_string_value(json_object_get(token, "provider"));
        const char *key = json_string_value(json_object_get(token, "key"));
        if (type == NULL || strcmp(type, TOKEN_TYPE) != 0 || provider == NULL || key == NULL) continue;
        if (strlen(provider) >= sizeof(d->provider) || strlen(key) >= sizeof(d->key)) continue;
        (void)stpcpy(d->provider, provider);
        (void)stpcpy(d->key, key);
        return;
    }
}

/* Where the last area of a key slot ends: what is behind it is noise that a format left. */
static uint64_t end_of_slots(const json_t *root)
{
    const char *id;
    json_t *slot;
    uint64_t end = 0, offset, size;
    json_object_foreach(json_object_get(root, "keyslots"), id, slot)
    {
        const json_t *area = json_object_get(slot, "area");
        if (!number(area, "offset", &offset) || !number(area, "size", &size)) return UINT64_MAX;
        end = RS_MAX(end, offset + size); /* both are below 2^63 */
    }
    return end;
}

static int take_json(const char *text, uint64_t hdr_size, struct rs_disk *d)
{
    uint64_t slots = 0;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    bool ok = root != NULL && take_segment(root, d) &&
              number(json_object_get(root, "config"), "keyslots_size", &slots) && slots <= (128u << 20);
    if (ok) {
        take_token(root, d);
        d->header_size = 2 * hdr_size + slots;
        d->header_used = RS_MIN(RS_MAX(2 * hdr_size, end_of_slots(root)), d->header_size);
    }
    json_decref(root);
    return ok ? 0 : RESEAL_EFORMAT;
}

int rs_disk_luks2(int fd, const uint8_t start[RS_LUKS_START], struct rs_disk *d)
{
    uint64_t hdr_size = be(start + LUKS2_HDR_SIZE, 8);
    if (!rs_is_pow2(hdr_size) || hdr_size <= JSON_AT || hdr_size > JSON_AREA_MAX) return RESEAL_EFORMAT;
    take_text(d->label, sizeof(d->label), start + LUKS2_LABEL, 48);
    take_text(d->uuid, sizeof(d->uuid), start + LUKS2_UUID, 40);
    size_t len = (size_t)hdr_size - JSON_AT;
    RS_FREE char *text = malloc(len + 1);
    if (text == NULL) return RESEAL_ENOMEM;
    if (rs_pread_full(fd, text, len, JSON_AT) != 0) return RESEAL_EFORMAT;
    text[len] = '\0';
    return take_json(text, hdr_size, d);
}
