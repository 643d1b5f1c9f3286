/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/standard/kmip.h"
#include "reseal/reseal.h"

/* The one item with a tag that must be there. */
static int need(const struct rs_ttlv_reader *r, uint32_t tag, struct rs_ttlv *item)
{
    int found = rs_ttlv_find(r, tag, item);
    return found < 0 ? found : found == 0 ? RESEAL_EPROTO : 0;
}

static int need_enumeration(const struct rs_ttlv_reader *r, uint32_t tag, uint32_t *out)
{
    struct rs_ttlv item;
    int err = need(r, tag, &item);
    return err != 0 ? err : rs_ttlv_enumeration(&item, out);
}

static int need_structure(const struct rs_ttlv_reader *r, uint32_t tag, struct rs_ttlv_reader *out)
{
    struct rs_ttlv item;
    int err = need(r, tag, &item);
    return err != 0 ? err : rs_ttlv_enter(out, &item);
}

/* ---- results ----------------------------------------------------------------------- */

/* A server's text goes to logs, files and terminals. */
static bool is_printable(const char *text)
{
    for (const char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) return false;
    return true;
}

/* Printable, or nothing. */
static void take_message(const struct rs_ttlv_reader *item, char out[RS_KMIP_TEXT_MAX])
{
    struct rs_ttlv text;
    out[0] = '\0';
    if (rs_ttlv_find(item, RS_TAG_RESULT_MESSAGE, &text) != 1) return;
    if (rs_ttlv_text(&text, out, RS_KMIP_TEXT_MAX) != 0 || !is_printable(out)) out[0] = '\0';
}

static int take_result(const struct rs_ttlv_reader *item, struct rs_kmip_result *out)
{
    struct rs_ttlv field;
    memset(out, 0, sizeof(*out));
    int err = need_enumeration(item, RS_TAG_RESULT_STATUS, &out->status);
    if (err != 0 || out->status > RS_KMIP_UNDONE) return RESEAL_EPROTO;
    if (rs_ttlv_find(item, RS_TAG_OPERATION, &field) == 1 &&
        rs_ttlv_enumeration(&field, &out->operation) != 0)
        return RESEAL_EPROTO;
    if (rs_ttlv_find(item, RS_TAG_RESULT_REASON, &field) == 1 &&
        rs_ttlv_enumeration(&field, &out->reason) != 0)
        return RESEAL_EPROTO;
    take_message(item, out->message);
    if (rs_ttlv_find(item, RS_TAG_RESPONSE_PAYLOAD, &field) == 1) {
        out->has_payload = true;
        return rs_ttlv_enter(&out->payload, &field);
    }
    return 0;
}

enum batch_id { NOT_GIVEN, OURS, ANOTHER };

static enum batch_id compare_batch_id(const struct rs_ttlv_reader *item, uint32_t batch_id)
{
    struct rs_ttlv field;
    uint8_t want[4];
    rs_store_be32(want, batch_id);
    if (rs_ttlv_find(item, RS_TAG_UNIQUE_BATCH_ITEM_ID, &field) != 1) return NOT_GIVEN;
    bool same = field.type == RS_TTLV_BYTES && field.len == sizeof(want) &&
                memcmp(field.value, want, sizeof(want)) == 0;
    return same ? OURS : ANOTHER;
}

/* Whether this item answers what was asked. An answer without batch id must be a failure, and the only item.
 */
static bool answers(enum batch_id id, const struct rs_kmip_result *r, uint32_t operation, bool alone)
{
    if (r->operation != 0 && r->operation != operation) return false;
    if (id == OURS) return r->operation != 0 || r->status != RS_KMIP_SUCCESS;
    return id == NOT_GIVEN && alone && r->status != RS_KMIP_SUCCESS;
}

int rs_kmip_answer(const uint8_t *message, size_t len, uint32_t batch_id, uint32_t operation,
                   struct rs_kmip_result *out)
{
    struct rs_ttlv_reader items, one;
    struct rs_ttlv item;
    unsigned n = 0;
    bool found = false;
    if (rs_ttlv_check(message, len) != 0) return RESEAL_EPROTO;
    if (rs_ttlv_open(&items, message, len, RS_TAG_RESPONSE_MESSAGE) != 0) return RESEAL_EPROTO;
    for (struct rs_ttlv_reader r = items; rs_ttlv_next(&r, &item) == 1;) n += item.tag == RS_TAG_BATCH_ITEM;
    while (rs_ttlv_next(&items, &item) == 1) {
        struct rs_kmip_result result;
        if (item.tag != RS_TAG_BATCH_ITEM) continue;
        if (rs_ttlv_enter(&one, &item) != 0 || take_result(&one, &result) != 0) return RESEAL_EPROTO;
        enum batch_id id = compare_batch_id(&one, batch_id);
        if (!answers(id, &result, operation, n == 1)) {
            if (id == OURS) return RESEAL_EPROTO;
            continue;
        }
        /* Two answers to one question: neither can be believed. */
        if (found) return RESEAL_EPROTO;
        found = true;
        *out = result;
    }
    return found ? 0 : RESEAL_ECANCELED;
}

const char *rs_kmip_reason_text(uint32_t reason)
{
    static const struct {
        uint32_t reason;
        const char *text;
    } texts[] = {
        {RS_KMIP_ITEM_NOT_FOUND, "item not found"},
        {RS_KMIP_RESPONSE_TOO_LARGE, "response too large"},
        {RS_KMIP_AUTHENTICATION_NOT_SUCCESSFUL, "authentication not successful"},
        {RS_KMIP_INVALID_MESSAGE, "invalid message"},
        {RS_KMIP_OPERATION_NOT_SUPPORTED, "operation not supported"},
        {RS_KMIP_MISSING_DATA, "missing data"},
        {RS_KMIP_INVALID_FIELD, "invalid field"},
        {RS_KMIP_FEATURE_NOT_SUPPORTED, "feature not supported"},
        {RS_KMIP_ILLEGAL_OPERATION, "illegal operation"},
        {RS_KMIP_PERMISSION_DENIED, "permission denied"},
        {RS_KMIP_OBJECT_ARCHIVED, "object archived"},
        {RS_KMIP_GENERAL_FAILURE, "general failure"},
    };
    for (size_t i = 0; i < RS_ARRAY_LEN(texts); i++)
        if (texts[i].reason == reason) return texts[i].text;
    return "unknown reason";
}

/* ---- payloads ---------------------------------------------------------------------- */

int rs_kmip_payload_id(const struct rs_kmip_result *r, char id[RS_KMIP_ID_MAX])
{
    struct rs_ttlv item;
    if (!r->has_payload || need(&r->payload, RS_TAG_UNIQUE_IDENTIFIER, &item) != 0) return RESEAL_EPROTO;
    if (item.len == 0 || rs_ttlv_text(&item, id, RS_KMIP_ID_MAX) != 0) return RESEAL_EPROTO;
    return is_printable(id) ? 0 : RESEAL_EPROTO; /* nobody could ask for it again */
}

static int take_version(const struct rs_ttlv *item, struct rs_kmip_version *v)
{
    struct rs_ttlv_reader r;
    struct rs_ttlv major, minor;
    if (rs_ttlv_enter(&r, item) != 0 || need(&r, RS_TAG_PROTOCOL_VERSION_MAJOR, &major) != 0 ||
        need(&r, RS_TAG_PROTOCOL_VERSION_MINOR, &minor) != 0)
        return RESEAL_EPROTO;
    return rs_ttlv_integer(&major, &v->major) != 0 || rs_ttlv_integer(&minor, &v->minor) != 0 ? RESEAL_EPROTO
                                                                                              : 0;
}

int rs_kmip_payload_versions(const struct rs_kmip_result *r, struct rs_kmip_version *best)
{
    struct rs_ttlv item;
    struct rs_kmip_version v, top = {0, -1};
    if (!r->has_payload) return RESEAL_EPROTO;
    for (struct rs_ttlv_reader at = r->payload; rs_ttlv_next(&at, &item) == 1;) {
        if (item.tag != RS_TAG_PROTOCOL_VERSION) continue;
        if (take_version(&item, &v) != 0) return RESEAL_EPROTO;
        if (v.major == 1 && v.minor >= 0 && v.minor <= 4 && v.minor > top.minor) top = v;
    }
    if (top.minor < 0) return RESEAL_EVERSION;
    *best = top;
    return 0;
}

/* The key block of a symmetric key, and the bytes in it. */
static int key_material(const struct rs_ttlv_reader *block, struct rs_ttlv *material)
{
    struct rs_ttlv value;
    struct rs_ttlv_reader inside;
    if (need(block, RS_TAG_KEY_VALUE, &value) != 0) return RESEAL_EPROTO;
    if (value.type == RS_TTLV_BYTES) { /* wrapped: specification 1.1, table 7 */
        *material = value;
        return 0;
    }
    if (rs_ttlv_enter(&inside, &value) != 0 || need(&inside, RS_TAG_KEY_MATERIAL, material) != 0)
        return RESEAL_EPROTO;
    return material->type == RS_TTLV_BYTES ? 0 : RESEAL_EPROTO;
}

/* What the block says of the key, where it says it: servers leave it out of wrapped keys. */
static bool block_fits(const struct rs_ttlv_reader *block, uint32_t bits)
{
    struct rs_ttlv item;
    uint32_t value;
    int32_t length;
    if (rs_ttlv_find(block, RS_TAG_CRYPTOGRAPHIC_ALGORITHM, &item) == 1 &&
        (rs_ttlv_enumeration(&item, &value) != 0 || value != RS_KMIP_AES))
        return false;
    if (rs_ttlv_find(block, RS_TAG_CRYPTOGRAPHIC_LENGTH, &item) == 1 &&
        (rs_ttlv_integer(&item, &length) != 0 || length != (int32_t)bits))
        return false;
    return need_enumeration(block, RS_TAG_KEY_FORMAT_TYPE, &value) == 0 && value == RS_KMIP_RAW;
}

int rs_kmip_payload_key(const struct rs_kmip_result *r, uint32_t bits, bool wrapped, struct rs_kmip_key *out)
{
    struct rs_ttlv_reader key, block;
    struct rs_ttlv material, wrapping;
    uint32_t type;
    memset(out, 0, sizeof(*out));
    if (!r->has_payload || need_enumeration(&r->payload, RS_TAG_OBJECT_TYPE, &type) != 0)
        return RESEAL_EPROTO;
    if (type != RS_KMIP_SYMMETRIC_KEY) return RESEAL_EKEYBAD;
    if (need_structure(&r->payload, RS_TAG_SYMMETRIC_KEY, &key) != 0 ||
        need_structure(&key, RS_TAG_KEY_BLOCK, &block) != 0 || key_material(&block, &material) != 0)
        return RESEAL_EPROTO;
    /* Asked for plain and given wrapped, or the other way round, is no key of ours. */
    bool is_wrapped = rs_ttlv_find(&block, RS_TAG_KEY_WRAPPING_DATA, &wrapping) == 1;
    size_t want = bits / 8 + (wrapped ? 8u : 0u);
    if (is_wrapped != wrapped || !block_fits(&block, bits)) return RESEAL_EKEYBAD;
    if (material.len != want || want > sizeof(out->bytes)) return RESEAL_EKEYBAD;
    memcpy(out->bytes, material.value, want);
    out->len = want;
    out->wrapped = wrapped;
    return 0;
}

/* Goes on to the next attribute with that name: its value. 1, 0 at the end, RESEAL_EPROTO. */
static int next_attribute(struct rs_ttlv_reader *at, const char *name, struct rs_ttlv *value)
{
    struct rs_ttlv item;
    while (rs_ttlv_next(at, &item) == 1) {
        struct rs_ttlv_reader inside;
        struct rs_ttlv text;
        if (item.tag != RS_TAG_ATTRIBUTE) continue;
        if (rs_ttlv_enter(&inside, &item) != 0 || need(&inside, RS_TAG_ATTRIBUTE_NAME, &text) != 0)
            return RESEAL_EPROTO;
        bool same =
            text.type == RS_TTLV_TEXT && text.len == strlen(name) && memcmp(text.value, name, text.len) == 0;
        if (!same) continue;
        return need(&inside, RS_TAG_ATTRIBUTE_VALUE, value) == 0 ? 1 : RESEAL_EPROTO;
    }
    return 0;
}

int rs_kmip_payload_state(const struct rs_kmip_result *r, uint32_t *state)
{
    struct rs_ttlv value;
    struct rs_ttlv_reader at = r->payload;
    if (!r->has_payload || next_attribute(&at, "State", &value) != 1) return RESEAL_EPROTO;
    return rs_ttlv_enumeration(&value, state);
}

int rs_kmip_payload_text(const struct rs_kmip_result *r, const char *name, char value[RS_KMIP_TEXT_MAX])
{
    struct rs_ttlv item;
    struct rs_ttlv_reader at = r->payload;
    if (!r->has_payload) return RESEAL_EPROTO;
    int found = next_attribute(&at, name, &item);
    if (found <= 0) return found == 0 ? RESEAL_ENOKEY : found;
    return rs_ttlv_text(&item, value, RS_KMIP_TEXT_MAX);
}

int rs_kmip_payload_asi(const struct rs_kmip_result *r, const char *asi_namespace,
                        char data[RS_KMIP_TEXT_MAX])
{
    struct rs_ttlv item, field;
    struct rs_ttlv_reader at = r->payload, inside;
    char text[RS_KMIP_TEXT_MAX];
    int found;
    if (!r->has_payload) return RESEAL_EPROTO;
    while ((found = next_attribute(&at, "Application Specific Information", &item)) == 1) {
        if (rs_ttlv_enter(&inside, &item) != 0 || need(&inside, RS_TAG_APPLICATION_NAMESPACE, &field) != 0 ||
            rs_ttlv_text(&field, text, sizeof(text)) != 0)
            return RESEAL_EPROTO;
        if (strcmp(text, asi_namespace) != 0) continue;
        if (need(&inside, RS_TAG_APPLICATION_DATA, &field) != 0) return RESEAL_EPROTO;
        return rs_ttlv_text(&field, data, RS_KMIP_TEXT_MAX);
    }
    return found == 0 ? RESEAL_ENOKEY : found;
}

int rs_kmip_payload_ids(const struct rs_kmip_result *r, char (*ids)[RS_KMIP_ID_MAX], unsigned max,
                        unsigned *n)
{
    struct rs_ttlv item;
    *n = 0;
    if (!r->has_payload) return 0; /* nothing found */
    for (struct rs_ttlv_reader at = r->payload; rs_ttlv_next(&at, &item) == 1;) {
        if (item.tag != RS_TAG_UNIQUE_IDENTIFIER) continue;
        if (item.len == 0) return RESEAL_EPROTO;
        if (*n < max && rs_ttlv_text(&item, ids[*n], RS_KMIP_ID_MAX) != 0) return RESEAL_EPROTO;
        (*n)++;
    }
    return 0;
}

bool rs_kmip_payload_has_operation(const struct rs_kmip_result *r, uint32_t operation)
{
    struct rs_ttlv item;
    uint32_t value;
    if (!r->has_payload) return false;
    for (struct rs_ttlv_reader at = r->payload; rs_ttlv_next(&at, &item) == 1;)
        if (item.tag == RS_TAG_OPERATION && rs_ttlv_enumeration(&item, &value) == 0 && value == operation)
            return true;
    return false;
}

int rs_kmip_payload_vendor(const struct rs_kmip_result *r, char text[RS_KMIP_TEXT_MAX])
{
    struct rs_ttlv item;
    text[0] = '\0';
    if (!r->has_payload) return RESEAL_EPROTO;
    int found = rs_ttlv_find(&r->payload, RS_TAG_VENDOR_IDENTIFICATION, &item);
    if (found == 1) found = rs_ttlv_text(&item, text, RS_KMIP_TEXT_MAX);
    if (found != 0 || !is_printable(text)) text[0] = '\0';
    return found;
}
