/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/standard/kmip.h"
#include "reseal/reseal.h"

static void put_version(struct rs_ttlv_writer *w, struct rs_kmip_version v)
{
    rs_ttlv_begin(w, RS_TAG_PROTOCOL_VERSION);
    rs_ttlv_put_integer(w, RS_TAG_PROTOCOL_VERSION_MAJOR, v.major);
    rs_ttlv_put_integer(w, RS_TAG_PROTOCOL_VERSION_MINOR, v.minor);
    rs_ttlv_end(w);
}

static void put_login(struct rs_ttlv_writer *w, const char *user, const char *password)
{
    rs_ttlv_begin(w, RS_TAG_AUTHENTICATION);
    rs_ttlv_begin(w, RS_TAG_CREDENTIAL);
    rs_ttlv_put_enumeration(w, RS_TAG_CREDENTIAL_TYPE, RS_KMIP_PASSWORD_LOGIN);
    rs_ttlv_begin(w, RS_TAG_CREDENTIAL_VALUE);
    rs_ttlv_put_text(w, RS_TAG_USERNAME, user);
    if (password != NULL) rs_ttlv_put_text(w, RS_TAG_PASSWORD, password);
    rs_ttlv_end(w);
    rs_ttlv_end(w);
    rs_ttlv_end(w);
}

void rs_kmip_request_begin(struct rs_kmip_request *q, uint8_t *buffer, size_t room,
                           struct rs_kmip_version version, uint32_t first_batch_id, unsigned items,
                           const char *user, const char *password)
{
    *q = (struct rs_kmip_request){.version = version, .first_batch_id = first_batch_id, .items = items};
    rs_ttlv_writer_init(&q->w, buffer, room);
    rs_ttlv_begin(&q->w, RS_TAG_REQUEST_MESSAGE);
    rs_ttlv_begin(&q->w, RS_TAG_REQUEST_HEADER);
    put_version(&q->w, version);
    if (user != NULL) put_login(&q->w, user, password);
    rs_ttlv_put_integer(&q->w, RS_TAG_BATCH_COUNT, (int32_t)items);
    rs_ttlv_end(&q->w);
}

int rs_kmip_request_finish(struct rs_kmip_request *q, size_t *len)
{
    rs_ttlv_end(&q->w);
    if (q->added != q->items || q->items == 0 || q->items > RS_KMIP_BATCH_MAX) return RESEAL_EINVAL;
    return rs_ttlv_finish(&q->w, len);
}

static struct rs_ttlv_writer *begin_item(struct rs_kmip_request *q, uint32_t operation)
{
    uint8_t batch_id[4];
    rs_store_be32(batch_id, q->first_batch_id + q->added++);
    rs_ttlv_begin(&q->w, RS_TAG_BATCH_ITEM);
    rs_ttlv_put_enumeration(&q->w, RS_TAG_OPERATION, operation);
    rs_ttlv_put_bytes(&q->w, RS_TAG_UNIQUE_BATCH_ITEM_ID, batch_id, sizeof(batch_id));
    rs_ttlv_begin(&q->w, RS_TAG_REQUEST_PAYLOAD);
    return &q->w;
}

static void end_item(struct rs_kmip_request *q)
{
    rs_ttlv_end(&q->w);
    rs_ttlv_end(&q->w);
}

/* ---- attributes -------------------------------------------------------------------- */

/* Up to the value, which the caller puts with RS_TAG_ATTRIBUTE_VALUE. */
static void begin_attribute(struct rs_ttlv_writer *w, const char *name)
{
    rs_ttlv_begin(w, RS_TAG_ATTRIBUTE);
    rs_ttlv_put_text(w, RS_TAG_ATTRIBUTE_NAME, name);
}

static void put_name(struct rs_ttlv_writer *w, const char *name)
{
    begin_attribute(w, "Name");
    rs_ttlv_begin(w, RS_TAG_ATTRIBUTE_VALUE);
    rs_ttlv_put_text(w, RS_TAG_NAME_VALUE, name);
    rs_ttlv_put_enumeration(w, RS_TAG_NAME_TYPE, RS_KMIP_NAME_TEXT);
    rs_ttlv_end(w);
    rs_ttlv_end(w);
}

static void put_asi(struct rs_ttlv_writer *w, const char *asi_namespace, const char *asi_data)
{
    begin_attribute(w, "Application Specific Information");
    rs_ttlv_begin(w, RS_TAG_ATTRIBUTE_VALUE);
    rs_ttlv_put_text(w, RS_TAG_APPLICATION_NAMESPACE, asi_namespace);
    rs_ttlv_put_text(w, RS_TAG_APPLICATION_DATA, asi_data);
    rs_ttlv_end(w);
    rs_ttlv_end(w);
}

static void put_enumeration_attribute(struct rs_ttlv_writer *w, const char *name, uint32_t value)
{
    begin_attribute(w, name);
    rs_ttlv_put_enumeration(w, RS_TAG_ATTRIBUTE_VALUE, value);
    rs_ttlv_end(w);
}

static void put_integer_attribute(struct rs_ttlv_writer *w, const char *name, int32_t value)
{
    begin_attribute(w, name);
    rs_ttlv_put_integer(w, RS_TAG_ATTRIBUTE_VALUE, value);
    rs_ttlv_end(w);
}

static void put_text_attribute(struct rs_ttlv_writer *w, const char *name, const char *value)
{
    begin_attribute(w, name);
    rs_ttlv_put_text(w, RS_TAG_ATTRIBUTE_VALUE, value);
    rs_ttlv_end(w);
}

/* ---- operations -------------------------------------------------------------------- */

void rs_kmip_discover_versions(struct rs_kmip_request *q)
{
    begin_item(q, RS_KMIP_DISCOVER_VERSIONS);
    end_item(q);
}

void rs_kmip_query(struct rs_kmip_request *q, const uint32_t *functions, unsigned n)
{
    struct rs_ttlv_writer *w = begin_item(q, RS_KMIP_QUERY);
    for (unsigned i = 0; i < n; i++) rs_ttlv_put_enumeration(w, RS_TAG_QUERY_FUNCTION, functions[i]);
    end_item(q);
}

void rs_kmip_create(struct rs_kmip_request *q, const struct rs_kmip_new_key *key)
{
    struct rs_ttlv_writer *w = begin_item(q, RS_KMIP_CREATE);
    rs_ttlv_put_enumeration(w, RS_TAG_OBJECT_TYPE, RS_KMIP_SYMMETRIC_KEY);
    rs_ttlv_begin(w, RS_TAG_TEMPLATE_ATTRIBUTE);
    put_enumeration_attribute(w, "Cryptographic Algorithm", RS_KMIP_AES);
    put_integer_attribute(w, "Cryptographic Usage Mask", RS_KMIP_USE_ENCRYPT_DECRYPT);
    put_integer_attribute(w, "Cryptographic Length", (int32_t)key->bits);
    if (key->name != NULL) put_name(w, key->name);
    if (key->policy != NULL) put_text_attribute(w, "Operation Policy Name", key->policy);
    if (key->asi_namespace != NULL) put_asi(w, key->asi_namespace, key->asi_data);
    rs_ttlv_end(w);
    end_item(q);
}

static void operation_on(struct rs_kmip_request *q, uint32_t operation, const char *id)
{
    struct rs_ttlv_writer *w = begin_item(q, operation);
    rs_ttlv_put_text(w, RS_TAG_UNIQUE_IDENTIFIER, id);
}

void rs_kmip_activate(struct rs_kmip_request *q, const char *id)
{
    operation_on(q, RS_KMIP_ACTIVATE, id);
    end_item(q);
}

void rs_kmip_destroy(struct rs_kmip_request *q, const char *id)
{
    operation_on(q, RS_KMIP_DESTROY, id);
    end_item(q);
}

void rs_kmip_revoke(struct rs_kmip_request *q, const char *id, enum rs_kmip_revocation why,
                    const char *message)
{
    struct rs_ttlv_writer *w = &q->w;
    operation_on(q, RS_KMIP_REVOKE, id);
    rs_ttlv_begin(w, RS_TAG_REVOCATION_REASON);
    rs_ttlv_put_enumeration(w, RS_TAG_REVOCATION_REASON_CODE, (uint32_t)why);
    if (message != NULL) rs_ttlv_put_text(w, RS_TAG_REVOCATION_MESSAGE, message);
    rs_ttlv_end(w);
    end_item(q);
}

void rs_kmip_get(struct rs_kmip_request *q, const char *id, const char *wrapping_id)
{
    struct rs_ttlv_writer *w = &q->w;
    operation_on(q, RS_KMIP_GET, id);
    if (wrapping_id != NULL) {
        rs_ttlv_begin(w, RS_TAG_KEY_WRAPPING_SPECIFICATION);
        rs_ttlv_put_enumeration(w, RS_TAG_WRAPPING_METHOD, RS_KMIP_WRAP_ENCRYPT);
        rs_ttlv_begin(w, RS_TAG_ENCRYPTION_KEY_INFORMATION);
        rs_ttlv_put_text(w, RS_TAG_UNIQUE_IDENTIFIER, wrapping_id);
        rs_ttlv_begin(w, RS_TAG_CRYPTOGRAPHIC_PARAMETERS);
        rs_ttlv_put_enumeration(w, RS_TAG_BLOCK_CIPHER_MODE, RS_KMIP_NIST_KEY_WRAP);
        rs_ttlv_end(w);
        rs_ttlv_end(w);
        /* Without the option (new in 1.2) a server wraps the whole key value, tags and all. */
        rs_ttlv_put_enumeration(w, RS_TAG_ENCODING_OPTION, RS_KMIP_NO_ENCODING);
        rs_ttlv_end(w);
    }
    end_item(q);
}

void rs_kmip_get_attributes(struct rs_kmip_request *q, const char *id, const char *const *names, unsigned n)
{
    operation_on(q, RS_KMIP_GET_ATTRIBUTES, id);
    for (unsigned i = 0; i < n; i++) rs_ttlv_put_text(&q->w, RS_TAG_ATTRIBUTE_NAME, names[i]);
    end_item(q);
}

void rs_kmip_add_text_attribute(struct rs_kmip_request *q, const char *id, const char *name,
                                const char *value)
{
    operation_on(q, RS_KMIP_ADD_ATTRIBUTE, id);
    put_text_attribute(&q->w, name, value);
    end_item(q);
}

void rs_kmip_modify_asi(struct rs_kmip_request *q, const char *id, const char *asi_namespace,
                        const char *asi_data)
{
    operation_on(q, RS_KMIP_MODIFY_ATTRIBUTE, id);
    put_asi(&q->w, asi_namespace, asi_data);
    end_item(q);
}

void rs_kmip_locate(struct rs_kmip_request *q, const struct rs_kmip_filter *filter)
{
    struct rs_ttlv_writer *w = begin_item(q, RS_KMIP_LOCATE);
    if (filter->most > 0) rs_ttlv_put_integer(w, RS_TAG_MAXIMUM_ITEMS, filter->most);
    put_enumeration_attribute(w, "Object Type", RS_KMIP_SYMMETRIC_KEY);
    if (filter->name != NULL) put_name(w, filter->name);
    if (filter->asi_namespace != NULL) put_asi(w, filter->asi_namespace, filter->asi_data);
    if (filter->state != 0) put_enumeration_attribute(w, "State", filter->state);
    end_item(q);
}
