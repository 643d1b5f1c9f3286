/* SPDX-License-Identifier: Apache-2.0 */
/* What servers answer, and what hostile ones may: each with what the client makes of it. */
#include "providers/key/standard/kmip.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"

#define ROOM 8192u

struct answer {
    uint8_t bytes[ROOM];
    size_t len;
    struct rs_ttlv_writer w;
};

static void begin_answer(struct answer *a, int32_t count)
{
    rs_ttlv_writer_init(&a->w, a->bytes, sizeof(a->bytes));
    rs_ttlv_begin(&a->w, RS_TAG_RESPONSE_MESSAGE);
    rs_ttlv_begin(&a->w, RS_TAG_RESPONSE_HEADER);
    rs_ttlv_begin(&a->w, RS_TAG_PROTOCOL_VERSION);
    rs_ttlv_put_integer(&a->w, RS_TAG_PROTOCOL_VERSION_MAJOR, 1);
    rs_ttlv_put_integer(&a->w, RS_TAG_PROTOCOL_VERSION_MINOR, 1);
    rs_ttlv_end(&a->w);
    rs_ttlv_put_date_time(&a->w, 0x420092, 1700000000);
    rs_ttlv_put_integer(&a->w, RS_TAG_BATCH_COUNT, count);
    rs_ttlv_end(&a->w);
}

/* operation 0 or batch_id 0: left out, as servers do when they could not parse the request. */
static void begin_item(struct answer *a, uint32_t operation, uint32_t batch_id, uint32_t status)
{
    uint8_t id[4];
    rs_store_be32(id, batch_id);
    rs_ttlv_begin(&a->w, RS_TAG_BATCH_ITEM);
    if (operation != 0) rs_ttlv_put_enumeration(&a->w, RS_TAG_OPERATION, operation);
    if (batch_id != 0) rs_ttlv_put_bytes(&a->w, RS_TAG_UNIQUE_BATCH_ITEM_ID, id, sizeof(id));
    rs_ttlv_put_enumeration(&a->w, RS_TAG_RESULT_STATUS, status);
}

static void end_answer(struct answer *a)
{
    rs_ttlv_end(&a->w);
    assert_int_equal(rs_ttlv_finish(&a->w, &a->len), 0);
}

struct key_shape {
    size_t len;
    uint32_t type, format, algorithm;
    int32_t bits;
    bool wrapped, unknown_fields;
};

static const struct key_shape good = {32, RS_KMIP_SYMMETRIC_KEY, RS_KMIP_RAW, RS_KMIP_AES, 256, false, false};

static void key_answer(struct answer *a, const struct key_shape *s)
{
    uint8_t key[128];
    memset(key, 0x5a, sizeof(key));
    begin_answer(a, 1);
    begin_item(a, RS_KMIP_GET, 7, RS_KMIP_SUCCESS);
    rs_ttlv_begin(&a->w, RS_TAG_RESPONSE_PAYLOAD);
    if (s->unknown_fields) rs_ttlv_put_text(&a->w, 0x540001, "a vendor's own");
    rs_ttlv_put_enumeration(&a->w, RS_TAG_OBJECT_TYPE, s->type);
    rs_ttlv_put_text(&a->w, RS_TAG_UNIQUE_IDENTIFIER, "42");
    rs_ttlv_begin(&a->w, RS_TAG_SYMMETRIC_KEY);
    rs_ttlv_begin(&a->w, RS_TAG_KEY_BLOCK);
    rs_ttlv_put_enumeration(&a->w, RS_TAG_KEY_FORMAT_TYPE, s->format);
    rs_ttlv_begin(&a->w, RS_TAG_KEY_VALUE);
    rs_ttlv_put_bytes(&a->w, RS_TAG_KEY_MATERIAL, key, s->len);
    rs_ttlv_end(&a->w);
    rs_ttlv_put_enumeration(&a->w, RS_TAG_CRYPTOGRAPHIC_ALGORITHM, s->algorithm);
    rs_ttlv_put_integer(&a->w, RS_TAG_CRYPTOGRAPHIC_LENGTH, s->bits);
    if (s->wrapped) {
        rs_ttlv_begin(&a->w, RS_TAG_KEY_WRAPPING_DATA);
        rs_ttlv_put_enumeration(&a->w, RS_TAG_WRAPPING_METHOD, RS_KMIP_WRAP_ENCRYPT);
        rs_ttlv_end(&a->w);
    }
    rs_ttlv_end(&a->w);
    rs_ttlv_end(&a->w);
    rs_ttlv_end(&a->w);
    rs_ttlv_end(&a->w);
    end_answer(a);
}

static int read_key(const struct key_shape *s, bool wrapped, struct rs_kmip_key *key)
{
    struct answer a;
    struct rs_kmip_result r;
    key_answer(&a, s);
    assert_int_equal(rs_kmip_answer(a.bytes, a.len, 7, RS_KMIP_GET, &r), 0);
    return rs_kmip_payload_key(&r, 256, wrapped, key);
}

static void test_a_key_is_read(void **state)
{
    struct rs_kmip_key key;
    struct key_shape s = good;
    (void)state;
    assert_int_equal(read_key(&s, false, &key), 0);
    assert_int_equal(key.len, 32);
    assert_int_equal(key.bytes[31], 0x5a);
    s.unknown_fields = true;
    assert_int_equal(read_key(&s, false, &key), 0);
    s = good;
    s.len = 40;
    s.wrapped = true;
    assert_int_equal(read_key(&s, true, &key), 0);
    assert_true(key.wrapped);
}

static void test_another_key_is_refused(void **state)
{
    struct rs_kmip_key key;
    struct key_shape shapes[] = {good, good, good, good, good, good, good};
    (void)state;
    shapes[0].len = 16;
    shapes[1].len = 33;
    shapes[2].len = 0;
    shapes[3].bits = 128;
    shapes[4].algorithm = 2; /* 3DES */
    shapes[5].format = 2;    /* opaque */
    shapes[6].type = 7;      /* secret data */
    for (size_t i = 0; i < RS_ARRAY_LEN(shapes); i++)
        assert_int_equal(read_key(&shapes[i], false, &key), RESEAL_EKEYBAD);
    /* Asked for one form and given the other. */
    assert_int_equal(read_key(&good, true, &key), RESEAL_EKEYBAD);
    struct key_shape wrapped = good;
    wrapped.wrapped = true;
    wrapped.len = 40;
    assert_int_equal(read_key(&wrapped, false, &key), RESEAL_EKEYBAD);
}

/* Cut at every byte, with the length of the message as it was and as it then is. */
static void test_truncated_answers_are_refused(void **state)
{
    struct answer a;
    struct rs_kmip_result r;
    (void)state;
    key_answer(&a, &good);
    for (size_t len = 0; len < a.len; len++) {
        assert_int_equal(rs_kmip_answer(a.bytes, len, 7, RS_KMIP_GET, &r), RESEAL_EPROTO);
        if (len < 16 || len % 8 != 0) continue;
        struct answer b = a;
        struct rs_kmip_key key;
        rs_store_be32(b.bytes + 4, (uint32_t)(len - 8));
        if (rs_kmip_answer(b.bytes, len, 7, RS_KMIP_GET, &r) == 0)
            assert_int_not_equal(rs_kmip_payload_key(&r, 256, false, &key), 0);
    }
}

/* Every length field in turn too long: nothing outside the message is looked at (the sanitizers watch). */
static void test_oversize_lengths_are_refused(void **state)
{
    static const uint32_t lengths[] = {0xffffffff, 0xfffffff8, 0x7fffffff, 0x80000000, RS_TTLV_MESSAGE_MAX};
    struct answer a;
    struct rs_kmip_result r;
    struct rs_ttlv_reader levels[RS_TTLV_DEPTH_MAX];
    (void)state;
    key_answer(&a, &good);
    unsigned depth = 0, changed = 0;
    levels[0] = (struct rs_ttlv_reader){a.bytes, a.bytes + a.len};
    for (;;) {
        struct rs_ttlv item;
        if (rs_ttlv_next(&levels[depth], &item) != 1) {
            if (depth-- == 0) break;
            continue;
        }
        for (size_t i = 0; i < RS_ARRAY_LEN(lengths); i++) {
            struct answer b = a;
            rs_store_be32(b.bytes + (item.value - a.bytes) - 4, lengths[i]);
            assert_int_equal(rs_kmip_answer(b.bytes, b.len, 7, RS_KMIP_GET, &r), RESEAL_EPROTO);
            changed++;
        }
        if (item.type == RS_TTLV_STRUCTURE) assert_int_equal(rs_ttlv_enter(&levels[++depth], &item), 0);
    }
    assert_true(changed > 50);
    size_t len;
    uint8_t head[8] = {0x42, 0x00, 0x7b, 0x01, 0xff, 0xff, 0xff, 0xf8};
    assert_int_equal(rs_ttlv_message_len(head, RS_TAG_RESPONSE_MESSAGE, &len), RESEAL_EPROTO);
    rs_store_be32(head + 4, RS_TTLV_MESSAGE_MAX - 8);
    assert_int_equal(rs_ttlv_message_len(head, RS_TAG_RESPONSE_MESSAGE, &len), 0);
    assert_int_equal(len, RS_TTLV_MESSAGE_MAX);
    assert_int_equal(rs_ttlv_message_len(head, RS_TAG_REQUEST_MESSAGE, &len), RESEAL_EPROTO);
}

static void one_result(struct answer *a, uint32_t operation, uint32_t batch_id, uint32_t status,
                       const char *text)
{
    begin_answer(a, 1);
    begin_item(a, operation, batch_id, status);
    rs_ttlv_put_enumeration(&a->w, RS_TAG_RESULT_REASON, RS_KMIP_PERMISSION_DENIED);
    rs_ttlv_put_text(&a->w, RS_TAG_RESULT_MESSAGE, text);
    rs_ttlv_end(&a->w);
    end_answer(a);
}

static void test_failures_are_told(void **state)
{
    struct answer a;
    struct rs_kmip_result r;
    (void)state;
    one_result(&a, RS_KMIP_GET, 7, RS_KMIP_FAILED, "Could not locate object: 1");
    assert_int_equal(rs_kmip_answer(a.bytes, a.len, 7, RS_KMIP_GET, &r), 0);
    assert_int_equal(r.status, RS_KMIP_FAILED);
    assert_string_equal(r.message, "Could not locate object: 1");
    assert_string_equal(rs_kmip_reason_text(r.reason), "permission denied");
    /* A parse failure names neither operation nor item. */
    one_result(&a, 0, 0, RS_KMIP_FAILED, "bad request");
    assert_int_equal(rs_kmip_answer(a.bytes, a.len, 7, RS_KMIP_GET, &r), 0);
    /* What could write on a terminal does not come out. */
    one_result(&a, RS_KMIP_GET, 7, RS_KMIP_FAILED, "\x1b[2Jgone");
    assert_int_equal(rs_kmip_answer(a.bytes, a.len, 7, RS_KMIP_GET, &r), 0);
    assert_string_equal(r.message, "");
}

static void test_answers_to_something_else_are_refused(void **state)
{
    struct answer a;
    struct rs_kmip_result r;
    (void)state;
    one_result(&a, RS_KMIP_GET, 8, RS_KMIP_FAILED, "another batch id");
    assert_int_equal(rs_kmip_answer(a.bytes, a.len, 7, RS_KMIP_GET, &r), RESEAL_ECANCELED);
    one_result(&a, RS_KMIP_DESTROY, 7, RS_KMIP_FAILED, "another operation");
    assert_int_equal(rs_kmip_answer(a.bytes, a.len, 7, RS_KMIP_GET, &r), RESEAL_EPROTO);
    one_result(&a, 0, 0, RS_KMIP_SUCCESS, "success of nothing in particular");
    assert_int_equal(rs_kmip_answer(a.bytes, a.len, 7, RS_KMIP_GET, &r), RESEAL_ECANCELED);
    one_result(&a, RS_KMIP_GET, 7, 9, "no such status");
    assert_int_equal(rs_kmip_answer(a.bytes, a.len, 7, RS_KMIP_GET, &r), RESEAL_EPROTO);
    /* Two answers to one question. */
    begin_answer(&a, 2);
    for (int i = 0; i < 2; i++) {
        begin_item(&a, RS_KMIP_DESTROY, 7, RS_KMIP_SUCCESS);
        rs_ttlv_end(&a.w);
    }
    end_answer(&a);
    assert_int_equal(rs_kmip_answer(a.bytes, a.len, 7, RS_KMIP_DESTROY, &r), RESEAL_EPROTO);
}

static void test_a_batch_may_come_in_another_order(void **state)
{
    struct answer a;
    struct rs_kmip_result r;
    (void)state;
    begin_answer(&a, 3);
    for (uint32_t id = 3; id >= 1; id--) {
        begin_item(&a, RS_KMIP_ADD_ATTRIBUTE, id, id == 2 ? RS_KMIP_FAILED : RS_KMIP_SUCCESS);
        rs_ttlv_end(&a.w);
    }
    end_answer(&a);
    for (uint32_t id = 1; id <= 3; id++) {
        assert_int_equal(rs_kmip_answer(a.bytes, a.len, id, RS_KMIP_ADD_ATTRIBUTE, &r), 0);
        assert_int_equal(r.status, id == 2 ? RS_KMIP_FAILED : RS_KMIP_SUCCESS);
    }
}

static void test_texts_are_utf8_without_nul(void **state)
{
    static const struct {
        const char *bytes;
        uint32_t len;
        int expect;
    } texts[] = {
        {"plain", 5, 0},
        {"gr\xc3\xbc\xc3\x9f", 6, 0},
        {"\xf0\x9f\x94\x91", 4, 0},
        {"a\0b", 3, RESEAL_EPROTO},
        {"\xc0\x80", 2, RESEAL_EPROTO},         /* NUL in two bytes */
        {"\xed\xa0\x80", 3, RESEAL_EPROTO},     /* surrogate */
        {"\xf4\x90\x80\x80", 4, RESEAL_EPROTO}, /* beyond U+10FFFF */
        {"\xc3", 1, RESEAL_EPROTO},
        {"\x80", 1, RESEAL_EPROTO},
    };
    char out[16];
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(texts); i++) {
        struct rs_ttlv item = {RS_TAG_NAME_VALUE, RS_TTLV_TEXT, texts[i].len,
                               (const uint8_t *)texts[i].bytes};
        assert_int_equal(rs_ttlv_text(&item, out, sizeof(out)), texts[i].expect);
    }
    struct rs_ttlv longer = {RS_TAG_NAME_VALUE, RS_TTLV_TEXT, 5, (const uint8_t *)"12345"};
    assert_int_equal(rs_ttlv_text(&longer, out, 5), RESEAL_EPROTO);
}

/* An id that no request could name again is none; what a server calls itself goes to a terminal. */
static void test_ids_and_names_are_printable(void **state)
{
    static const char *const texts[] = {"a\nb", "\x1b]0;x\a", "\x7f"};
    char id[RS_KMIP_ID_MAX], vendor[RS_KMIP_TEXT_MAX];
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(texts); i++) {
        struct answer a;
        struct rs_kmip_result result;
        begin_answer(&a, 1);
        begin_item(&a, RS_KMIP_CREATE, 1, RS_KMIP_SUCCESS);
        rs_ttlv_begin(&a.w, RS_TAG_RESPONSE_PAYLOAD);
        rs_ttlv_put_text(&a.w, RS_TAG_UNIQUE_IDENTIFIER, texts[i]);
        rs_ttlv_put_text(&a.w, RS_TAG_VENDOR_IDENTIFICATION, texts[i]);
        rs_ttlv_end(&a.w);
        rs_ttlv_end(&a.w);
        end_answer(&a);
        assert_int_equal(rs_kmip_answer(a.bytes, a.len, 1, RS_KMIP_CREATE, &result), 0);
        assert_int_equal(rs_kmip_payload_id(&result, id), RESEAL_EPROTO);
        assert_int_equal(rs_kmip_payload_vendor(&result, vendor), 0);
        assert_string_equal(vendor, "");
    }
}

static void test_depth_and_number_of_items_are_limited(void **state)
{
    static uint8_t message[RS_TTLV_MESSAGE_MAX];
    struct rs_ttlv_writer w;
    size_t len;
    (void)state;
    for (unsigned depth = RS_TTLV_DEPTH_MAX - 1; depth <= RS_TTLV_DEPTH_MAX + 1; depth++) {
        size_t at = 0;
        for (unsigned i = 0; i < depth; i++, at += 8) {
            rs_store_be32(message + at, RS_TAG_ATTRIBUTE << 8 | RS_TTLV_STRUCTURE);
            rs_store_be32(message + at + 4, 8 * (depth - i - 1));
        }
        assert_int_equal(rs_ttlv_check(message, at), depth > RS_TTLV_DEPTH_MAX ? RESEAL_EPROTO : 0);
    }
    rs_ttlv_writer_init(&w, message, sizeof(message));
    rs_ttlv_begin(&w, RS_TAG_RESPONSE_MESSAGE);
    for (unsigned i = 0; i < RS_TTLV_ITEMS_MAX; i++) rs_ttlv_put_integer(&w, RS_TAG_BATCH_COUNT, 1);
    rs_ttlv_end(&w);
    assert_int_equal(rs_ttlv_finish(&w, &len), 0);
    assert_int_equal(rs_ttlv_check(message, len), RESEAL_EPROTO);
    assert_int_equal(rs_ttlv_check(message, 0), RESEAL_EPROTO);
}

/* A writer that has too little room says so, whatever the room, and writes nothing beyond it. */
static void test_requests_need_their_room(void **state)
{
    static const struct rs_kmip_new_key key = {256, "a name", "team", "reseal", "data"};
    uint8_t buffer[1024 + 1];
    size_t whole = 0, len;
    struct rs_kmip_request q;
    (void)state;
    for (size_t room = 1024; room > 0; room--) {
        memset(buffer, 0xee, sizeof(buffer));
        rs_kmip_request_begin(&q, buffer, room, (struct rs_kmip_version){1, 1}, 1, 1, "user", "pass");
        rs_kmip_create(&q, &key);
        int err = rs_kmip_request_finish(&q, &len);
        if (room == 1024) {
            assert_int_equal(err, 0);
            whole = len;
            assert_int_equal(rs_ttlv_check(buffer, len), 0);
        }
        assert_int_equal(err, room >= whole ? 0 : RESEAL_ESPACE);
        assert_int_equal(buffer[room], 0xee);
    }
    rs_kmip_request_begin(&q, buffer, sizeof(buffer), (struct rs_kmip_version){1, 1}, 1, 2, NULL, NULL);
    rs_kmip_activate(&q, "1");
    assert_int_equal(rs_kmip_request_finish(&q, &len), RESEAL_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_key_is_read),
        cmocka_unit_test(test_another_key_is_refused),
        cmocka_unit_test(test_truncated_answers_are_refused),
        cmocka_unit_test(test_oversize_lengths_are_refused),
        cmocka_unit_test(test_failures_are_told),
        cmocka_unit_test(test_answers_to_something_else_are_refused),
        cmocka_unit_test(test_a_batch_may_come_in_another_order),
        cmocka_unit_test(test_texts_are_utf8_without_nul),
        cmocka_unit_test(test_ids_and_names_are_printable),
        cmocka_unit_test(test_depth_and_number_of_items_are_limited),
        cmocka_unit_test(test_requests_need_their_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
