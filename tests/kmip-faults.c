/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bad answers over the real wire: a server with a valid certificate gives our client a genuine answer of
 * PyKMIP that was cut, stretched or changed. Each has its message and its code, none hangs, and the next
 * server is asked where nothing but reading was wanted.
 */
#include "offload/base/keymem.h"
#include "providers/key/standard/kmip-client.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"
#include "tests/support/keyd.h"
#include "tests/support/kmip-server.h"
#include "tests/support/replay-server.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define DEADLINE_MS 60000u
#define SHORT_MS    2000u /* where the deadline is what is waited for; the good server answers within it */
#define NOT_KMIP    "what it sends is not KMIP, or too long"
#define NOT_OURS    "its answer does not belong to what was asked"

static char folder[64];
static struct kmip_server kms;
static struct replay_server bad, good;
static struct rs_kmip_trust trust;
static char id[RS_KMIP_ID_MAX];
static struct rs_kmip_key key; /* that PyKMIP has under this id */
static uint8_t genuine[8192];  /* its answer to a fresh client that asks for it */
static size_t genuine_len;

/* ---- clients --------------------------------------------------------------------------- */

static struct rs_kmip_config config_for(unsigned n, uint16_t first, uint16_t second)
{
    return (struct rs_kmip_config){
        .servers = {{.host = "127.0.0.1", .port = first}, {.host = "localhost", .port = second}},
        .nservers = n,
        .trust = trust,
        .version = {1, 1},
        .connect_ms = DEADLINE_MS,
        .request_ms = DEADLINE_MS};
}

static struct rs_kmip_client *open_with(const struct rs_kmip_config *config)
{
    struct rs_kmip_client *c;
    assert_int_equal(rs_kmip_client_open(&c, config), 0);
    return c;
}

static void assert_error(const struct rs_kmip_error *e, enum rs_kmip_fault fault, const char *says,
                         const char *where)
{
    if (e->fault != fault || strstr(e->why, says) == NULL || strchr(e->why, '\n') != NULL)
        fail_msg("%s: fault %d, '%s' does not say '%s'", where, e->fault, e->why, says);
}

/* Only the bad server: what the client makes of its answer. */
static void refused(const struct rs_kmip_config *config, int want, enum rs_kmip_fault fault, const char *says,
                    const char *where)
{
    struct rs_kmip_client *c = open_with(config);
    struct rs_kmip_key got;
    int r = rs_kmip_fetch(c, id, 256, NULL, &got);
    if (r != want) fail_msg("%s: %d: %s", where, r, rs_kmip_client_error(c)->why);
    assert_error(rs_kmip_client_error(c), fault, says, where);
    rs_kmip_client_close(c);
}

/* The bad server first, and one that is asked when that fails; what the first did is kept with it. */
static void next_is_asked(const struct rs_kmip_config *config, enum rs_kmip_fault fault, const char *says,
                          const char *where)
{
    struct rs_kmip_client *c = open_with(config);
    struct rs_kmip_key got;
    int r = rs_kmip_fetch(c, id, 256, NULL, &got);
    if (r != 0) fail_msg("%s: %d: %s", where, r, rs_kmip_client_error(c)->why);
    assert_memory_equal(got.bytes, key.bytes, 32);
    assert_error(&rs_kmip_client_server(c, 0)->error, fault, says, where);
    assert_true(rs_kmip_client_server(c, 0)->back_off != 0);
    assert_true(rs_kmip_client_server(c, 1)->answered);
    rs_kmip_client_close(c);
}

/* The answer is taken as it is. */
static void accepted(const char *where)
{
    const struct rs_kmip_config config = config_for(1, bad.port, 0);
    struct rs_kmip_client *c = open_with(&config);
    struct rs_kmip_key got;
    int r = rs_kmip_fetch(c, id, 256, NULL, &got);
    if (r != 0) fail_msg("%s: %d: %s", where, r, rs_kmip_client_error(c)->why);
    assert_int_equal(got.len, 32);
    assert_memory_equal(got.bytes, key.bytes, 32);
    rs_kmip_client_close(c);
}

/* ---- changed answers --------------------------------------------------------------------- */

/* Called for each item of an answer with what is written so far: true when it wrote what stands for it. */
typedef bool edit(struct rs_ttlv_writer *w, const struct rs_ttlv *item, void *arg);

static void copy_leaf(struct rs_ttlv_writer *w, const struct rs_ttlv *item)
{
    size_t len = RS_TTLV_HEADER + (size_t)rs_round_up(item->len, 8);
    assert_true(w->used + len <= w->room);
    memcpy(w->start + w->used, item->value - RS_TTLV_HEADER, len);
    w->used += len;
}

static void copy_items(struct rs_ttlv_writer *w, const struct rs_ttlv *from, edit *change, void *arg)
{
    struct rs_ttlv_reader r;
    struct rs_ttlv item;
    assert_int_equal(rs_ttlv_enter(&r, from), 0);
    while (rs_ttlv_next(&r, &item) == 1) {
        if (change(w, &item, arg)) continue;
        if (item.type != RS_TTLV_STRUCTURE) {
            copy_leaf(w, &item);
            continue;
        }
        rs_ttlv_begin(w, item.tag);
        copy_items(w, &item, change, arg);
        rs_ttlv_end(w);
    }
}

/* The genuine answer with a change, from one of the servers. */
static void serve_with(struct replay_server *s, edit *change, void *arg)
{
    static uint8_t changed[sizeof(genuine) * 2];
    const struct rs_ttlv whole = {.tag = RS_TAG_RESPONSE_MESSAGE,
                                  .type = RS_TTLV_STRUCTURE,
                                  .len = (uint32_t)(genuine_len - RS_TTLV_HEADER),
                                  .value = genuine + RS_TTLV_HEADER};
    struct rs_ttlv_writer w;
    size_t len;
    rs_ttlv_writer_init(&w, changed, sizeof(changed));
    rs_ttlv_begin(&w, RS_TAG_RESPONSE_MESSAGE);
    copy_items(&w, &whole, change, arg);
    rs_ttlv_end(&w);
    assert_int_equal(rs_ttlv_finish(&w, &len), 0);
    replay_answer(s, changed, len, REPLAY_KEEPS);
}

static void answer_with(edit *change, void *arg)
{
    serve_with(&bad, change, arg);
}

/* ---- tests ------------------------------------------------------------------------------- */

static void test_the_genuine_answer_is_taken(void **state)
{
    (void)state;
    replay_answer(&bad, genuine, genuine_len, REPLAY_KEEPS);
    accepted("as it is");
    replay_answer(&bad, genuine, genuine_len, REPLAY_CLOSES);
    accepted("and the end");
    replay_answer(&bad, genuine, genuine_len, REPLAY_DRIPS);
    accepted("byte by byte");
    /* Nothing is read beyond an answer. */
    uint8_t more[sizeof(genuine) + 64] = {0};
    memcpy(more, genuine, genuine_len);
    replay_answer(&bad, more, genuine_len + 64, REPLAY_KEEPS);
    accepted("and more");
}

static void test_cut_at_every_byte(void **state)
{
    const struct rs_kmip_config two = config_for(2, bad.port, good.port), one = config_for(1, bad.port, 0);
    char where[32];
    (void)state;
    for (size_t n = 0; n < genuine_len; n++) {
        (void)snprintf(where, sizeof(where), "cut at %zu", n);
        replay_answer(&bad, genuine, n, REPLAY_CLOSES);
        refused(&one, RESEAL_ENOSERVICE, RS_KMIP_DOWN, "closed the connection", where);
        if (n % 8 == 0) next_is_asked(&two, RS_KMIP_DOWN, "closed the connection", where);
    }
}

/* The message says that it ends where it was cut. */
static void test_cut_with_a_length_that_fits(void **state)
{
    const struct rs_kmip_config one = config_for(1, bad.port, 0);
    uint8_t cut[sizeof(genuine)];
    char where[32];
    (void)state;
    memcpy(cut, genuine, genuine_len);
    /* Where it does not end with an item the length alone tells: enough of these. */
    for (size_t n = RS_TTLV_HEADER; n < genuine_len; n += n < 64 ? 1 : 8) {
        (void)snprintf(where, sizeof(where), "ends at %zu", n);
        rs_store_be32(cut + 4, (uint32_t)(n - RS_TTLV_HEADER));
        replay_answer(&bad, cut, n, REPLAY_KEEPS);
        refused(&one, RESEAL_EPROTO, RS_KMIP_BROKEN_ANSWER, n % 8 == 0 ? NOT_OURS : NOT_KMIP, where);
    }
    const struct rs_kmip_config two = config_for(2, bad.port, good.port);
    next_is_asked(&two, RS_KMIP_BROKEN_ANSWER, NOT_OURS, where); /* the last one ends with an item */
}

static void test_lengths_that_lie(void **state)
{
    static const uint32_t too_long[] = {0xfffffff8, 0xffffffff, 0x80000000, 64u << 10, (1u << 20) + 8, 4};
    const struct rs_kmip_config one = config_for(1, bad.port, 0);
    struct rs_kmip_config two = config_for(2, bad.port, good.port);
    uint8_t lies[sizeof(genuine)];
    (void)state;
    memcpy(lies, genuine, genuine_len);
    for (size_t i = 0; i < RS_ARRAY_LEN(too_long); i++) {
        rs_store_be32(lies + 4, too_long[i]);
        replay_answer(&bad, lies, genuine_len, REPLAY_KEEPS);
        refused(&one, RESEAL_EPROTO, RS_KMIP_BROKEN_ANSWER, NOT_KMIP, "too long");
        next_is_asked(&two, RS_KMIP_BROKEN_ANSWER, NOT_KMIP, "too long");
    }
    /* More than comes: until the deadline, and then the next one. */
    two.request_ms = SHORT_MS;
    rs_store_be32(lies + 4, (uint32_t)genuine_len + 8);
    replay_answer(&bad, lies, genuine_len, REPLAY_KEEPS);
    next_is_asked(&two, RS_KMIP_HANGS, "does not answer in time", "more than comes");
    two.nservers = 1;
    refused(&two, RESEAL_ETIMEDOUT, RS_KMIP_HANGS, "does not answer in time", "more than comes");
    replay_answer(&bad, lies, 0, REPLAY_KEEPS);
    refused(&two, RESEAL_ETIMEDOUT, RS_KMIP_HANGS, "does not answer in time", "nothing");
}

/* Every length field in it, at every depth: never another key. */
static void test_inner_lengths_that_lie(void **state)
{
    static const uint32_t by[] = {1, 8, 0x7ffffff8, 0xfffffff8};
    const struct rs_kmip_config config = config_for(1, bad.port, 0);
    uint8_t lies[sizeof(genuine)];
    unsigned tried = 0;
    (void)state;
    for (size_t at = RS_TTLV_HEADER; at + RS_TTLV_HEADER <= genuine_len;) {
        uint32_t len = rs_load_be32(genuine + at + 4);
        bool structure = genuine[at + 3] == RS_TTLV_STRUCTURE;
        for (size_t i = 0; i < RS_ARRAY_LEN(by); i++, tried++) {
            struct rs_kmip_client *c = open_with(&config);
            struct rs_kmip_key got;
            memcpy(lies, genuine, genuine_len);
            rs_store_be32(lies + at + 4, len + by[i]);
            replay_answer(&bad, lies, genuine_len, REPLAY_KEEPS);
            int r = rs_kmip_fetch(c, id, 256, NULL, &got);
            if (r == 0) /* a text with a byte more of its padding, which says nothing of the key */
                assert_true(by[i] == 1 && !structure && memcmp(got.bytes, key.bytes, 32) == 0);
            else if (r != RESEAL_EPROTO && r != RESEAL_EKEYBAD)
                fail_msg("%zu + %u: %d: %s", at, by[i], r, rs_kmip_client_error(c)->why);
            rs_kmip_client_close(c);
        }
        at += RS_TTLV_HEADER + (structure ? 0 : (size_t)rs_round_up(len, 8));
    }
    assert_true(tried > 80);
}

struct batch_ids {
    uint32_t ids[2];
    unsigned at;
};

static bool change_batch_id(struct rs_ttlv_writer *w, const struct rs_ttlv *item, void *arg)
{
    struct batch_ids *b = arg;
    uint8_t bytes[4];
    if (item->tag != RS_TAG_UNIQUE_BATCH_ITEM_ID) return false;
    rs_store_be32(bytes, b->ids[b->at++ % 2]);
    rs_ttlv_put_bytes(w, item->tag, bytes, sizeof(bytes));
    return true;
}

static bool drop_batch_id(struct rs_ttlv_writer *w, const struct rs_ttlv *item, void *arg)
{
    (void)w, (void)arg;
    return item->tag == RS_TAG_UNIQUE_BATCH_ITEM_ID;
}

static void test_wrong_batch_ids(void **state)
{
    static const uint32_t wrong[][2] = {{9, 2}, {1, 9}, {2, 1}, {1, 1}, {2, 2}, {0, 0}};
    const struct rs_kmip_config one = config_for(1, bad.port, 0), two = config_for(2, bad.port, good.port);
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(wrong); i++) {
        struct batch_ids b = {.ids = {wrong[i][0], wrong[i][1]}};
        answer_with(change_batch_id, &b);
        refused(&one, RESEAL_EPROTO, RS_KMIP_BROKEN_ANSWER, NOT_OURS, "batch ids");
        next_is_asked(&two, RS_KMIP_BROKEN_ANSWER, NOT_OURS, "batch ids");
    }
    answer_with(drop_batch_id, NULL);
    refused(&one, RESEAL_EPROTO, RS_KMIP_BROKEN_ANSWER, NOT_OURS, "no batch ids");
    struct batch_ids same = {.ids = {1, 2}};
    answer_with(change_batch_id, &same);
    accepted("the same batch ids");
}

/* Unknown items, before each known one: of a maker, and of a later version. */
static bool add_unknown(struct rs_ttlv_writer *w, const struct rs_ttlv *item, void *arg)
{
    (void)item, (void)arg;
    rs_ttlv_put_text(w, 0x540001, "a maker's own");
    rs_ttlv_begin(w, 0x42ff01);
    rs_ttlv_put_integer(w, 0x42ff02, 7);
    rs_ttlv_end(w);
    return false;
}

static void test_unknown_tags_are_passed_over(void **state)
{
    (void)state;
    answer_with(add_unknown, NULL);
    accepted("unknown tags");
}

/* An item of one tag becomes another value. */
struct value {
    uint32_t tag, number; /* of an enumeration or an integer */
    size_t len;           /* of key material */
};

static bool change_value(struct rs_ttlv_writer *w, const struct rs_ttlv *item, void *arg)
{
    static const uint8_t zeros[64];
    const struct value *v = arg;
    if (item->tag != v->tag) return false;
    if (item->type == RS_TTLV_BYTES)
        rs_ttlv_put_bytes(w, item->tag, zeros, v->len);
    else if (item->type == RS_TTLV_ENUMERATION)
        rs_ttlv_put_enumeration(w, item->tag, v->number);
    else if (item->type == RS_TTLV_INTEGER)
        rs_ttlv_put_integer(w, item->tag, (int32_t)v->number);
    else
        return false;
    return true;
}

static void test_keys_that_are_no_use(void **state)
{
    static const struct {
        struct value value;
        const char *says;
    } rows[] = {
        {{RS_TAG_KEY_MATERIAL, 0, 16}, "not an AES key of the length"},
        {{RS_TAG_KEY_MATERIAL, 0, 31}, "not an AES key of the length"},
        {{RS_TAG_KEY_MATERIAL, 0, 33}, "not an AES key of the length"},
        {{RS_TAG_KEY_MATERIAL, 0, 0}, "not an AES key of the length"},
        {{RS_TAG_CRYPTOGRAPHIC_LENGTH, 128, 0}, "not an AES key of the length"},
        {{RS_TAG_CRYPTOGRAPHIC_ALGORITHM, 2, 0}, "not an AES key of the length"}, /* triple DES */
        {{RS_TAG_KEY_FORMAT_TYPE, 2, 0}, "not an AES key of the length"},         /* opaque */
        {{RS_TAG_OBJECT_TYPE, 7, 0}, "not an AES key of the length"},             /* secret data */
        {{RS_TAG_ATTRIBUTE_VALUE, 1, 0}, "not active yet"},
        {{RS_TAG_ATTRIBUTE_VALUE, 3, 0}, "deactivated"},
        {{RS_TAG_ATTRIBUTE_VALUE, 4, 0}, "compromised"},
        {{RS_TAG_ATTRIBUTE_VALUE, 5, 0}, "destroyed"},
        {{RS_TAG_ATTRIBUTE_VALUE, 6, 0}, "destroyed (compromised)"},
        {{RS_TAG_ATTRIBUTE_VALUE, 99, 0}, "in an unknown state"},
    };
    const struct rs_kmip_config config = config_for(2, bad.port, good.port);
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(rows); i++) {
        struct value v = rows[i].value;
        unsigned asked = atomic_load(&good.requests);
        answer_with(change_value, &v);
        refused(&config, RESEAL_EKEYBAD, RS_KMIP_SERVER_REFUSES, rows[i].says, rows[i].says);
        assert_int_equal(atomic_load(&good.requests), asked); /* it has the same key */
    }
}

/* Parts that are missing: the server is broken, not the key. */
static bool drop_tag(struct rs_ttlv_writer *w, const struct rs_ttlv *item, void *arg)
{
    const uint32_t *tag = arg;
    (void)w;
    return item->tag == *tag;
}

static void test_answers_without_what_was_asked(void **state)
{
    static const struct {
        uint32_t tag;
        const char *says;
    } rows[] = {
        {RS_TAG_ATTRIBUTE, "does not tell the key's state"},
        {RS_TAG_KEY_MATERIAL, "its answer holds no key"},
        {RS_TAG_SYMMETRIC_KEY, "its answer holds no key"},
        {RS_TAG_RESPONSE_PAYLOAD, "does not tell the key's state"},
        {RS_TAG_BATCH_ITEM, NOT_OURS},
        {RS_TAG_RESULT_STATUS, NOT_OURS},
        {RS_TAG_OPERATION, NOT_OURS},
    };
    const struct rs_kmip_config one = config_for(1, bad.port, 0), two = config_for(2, bad.port, good.port);
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(rows); i++) {
        uint32_t tag = rows[i].tag;
        answer_with(drop_tag, &tag);
        refused(&one, RESEAL_EPROTO, RS_KMIP_BROKEN_ANSWER, rows[i].says, rows[i].says);
        next_is_asked(&two, RS_KMIP_BROKEN_ANSWER, rows[i].says, rows[i].says);
    }
}

static void test_what_is_not_kmip(void **state)
{
    static const char *const texts[] = {"HTTP/1.1 400 Bad Request\r\n\r\n",
                                        "\x42\x00\x78\x01\0\0\0\x08........",
                                        "\x42\x00\x7b\x02\0\0\0\x04\0\0\0\0\0\0\0\0"};
    const struct rs_kmip_config two = config_for(2, bad.port, good.port);
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(texts); i++) {
        replay_answer(&bad, (const uint8_t *)texts[i], 16, REPLAY_CLOSES);
        next_is_asked(&two, RS_KMIP_BROKEN_ANSWER, NOT_KMIP, texts[i]);
    }
}

/* The first question to a server is which versions it speaks: the real one behind it has the key. */
static void test_a_bad_first_answer_too(void **state)
{
    struct rs_kmip_config config = config_for(2, bad.port, kms.port);
    (void)state;
    config.version = (struct rs_kmip_version){0, 0};
    replay_answer(&bad, genuine, genuine_len, REPLAY_KEEPS);
    next_is_asked(&config, RS_KMIP_BROKEN_ANSWER, NOT_OURS, "not about versions");
    replay_answer(&bad, genuine, genuine_len / 2, REPLAY_CLOSES);
    next_is_asked(&config, RS_KMIP_DOWN, "closed the connection", "half of an answer");
}

/* What makes a key is asked once: the answer is lost, and a second key would be one that nobody knows of. */
static void test_what_changes_something_is_asked_once(void **state)
{
    const struct rs_kmip_config config = config_for(2, bad.port, good.port);
    static const size_t cuts[] = {0, 1, 7, 8, 9, 100};
    (void)state;
    for (size_t i = 0; i <= RS_ARRAY_LEN(cuts); i++) {
        bool whole = i == RS_ARRAY_LEN(cuts); /* but an answer to something else */
        struct rs_kmip_client *c = open_with(&config);
        struct rs_kmip_made made;
        unsigned asked = atomic_load(&good.requests), before = atomic_load(&bad.requests);
        replay_answer(&bad, genuine, whole ? genuine_len : cuts[i], REPLAY_CLOSES);
        assert_int_equal(rs_kmip_make(c, &(struct rs_kmip_new_key){.bits = 256}, NULL, 0, &made),
                         whole ? RESEAL_EPROTO : RESEAL_ENOSERVICE);
        assert_error(rs_kmip_client_error(c), whole ? RS_KMIP_BROKEN_ANSWER : RS_KMIP_DOWN,
                     "it may have done what was asked: look there before you try again", "create");
        assert_int_equal(atomic_load(&good.requests), asked);
        assert_int_equal(atomic_load(&bad.requests), before + 1);
        rs_kmip_client_close(c);
    }
}

/* One item, without batch id, that says no more than this. */
static void answer_status(uint32_t status, uint32_t reason)
{
    uint8_t answer[256];
    struct rs_ttlv_writer w;
    size_t len;
    rs_ttlv_writer_init(&w, answer, sizeof(answer));
    rs_ttlv_begin(&w, RS_TAG_RESPONSE_MESSAGE);
    rs_ttlv_begin(&w, RS_TAG_BATCH_ITEM);
    rs_ttlv_put_enumeration(&w, RS_TAG_RESULT_STATUS, status);
    if (reason != 0) rs_ttlv_put_enumeration(&w, RS_TAG_RESULT_REASON, reason);
    rs_ttlv_end(&w);
    rs_ttlv_end(&w);
    assert_int_equal(rs_ttlv_finish(&w, &len), 0);
    replay_answer(&bad, answer, len, REPLAY_KEEPS);
}

/* A key is asked for again, without what is to be kept with it, where that may be what is refused; not where
 * another key may come of it, nor where a user would be locked out. */
static void test_a_refusal_is_asked_about_again_only_where_it_helps(void **state)
{
    static const struct {
        uint32_t status, reason;
        unsigned asked;
        const char *says;
    } rows[] = {
        {RS_KMIP_FAILED, RS_KMIP_INVALID_FIELD, 2, "invalid field"},
        {RS_KMIP_FAILED, RS_KMIP_AUTHENTICATION_NOT_SUCCESSFUL, 1, "does not accept our certificate"},
        {RS_KMIP_PENDING, 0, 1, "answers later, which is not supported; it may have done what was asked"},
    };
    const struct rs_kmip_config config = config_for(1, bad.port, 0);
    const struct rs_kmip_detail detail = {"x-Product", "Reseal"};
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(rows); i++) {
        struct rs_kmip_client *c = open_with(&config);
        struct rs_kmip_made made;
        unsigned before = atomic_load(&bad.requests);
        answer_status(rows[i].status, rows[i].reason);
        assert_int_not_equal(rs_kmip_make(c, &(struct rs_kmip_new_key){.bits = 256}, &detail, 1, &made), 0);
        assert_error(rs_kmip_client_error(c), RS_KMIP_SERVER_REFUSES, rows[i].says, rows[i].says);
        assert_int_equal(atomic_load(&bad.requests), before + rows[i].asked);
        rs_kmip_client_close(c);
    }
}

/* ---- the group --------------------------------------------------------------------------- */

static const char *text_of(const char *name)
{
    char path[128];
    size_t len;
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    uint8_t *bytes = file_bytes(path, &len);
    bytes[len] = '\0';
    return (const char *)bytes;
}

/* What a fresh client of version 1.1 asks first, and what the real server answers. */
static void record(void)
{
    static const char *const names[] = {"State"};
    const struct rs_kmip_address address = {.host = "127.0.0.1", .port = kms.port};
    struct rs_kmip_link *link;
    struct rs_kmip_error e;
    struct rs_kmip_request q;
    uint8_t request[RS_KMIP_REQUEST_MAX];
    size_t len;
    if (rs_kmip_connect(&link, &address, &trust, DEADLINE_MS, &e) != 0) fail_msg("%s", e.why);
    rs_kmip_request_begin(&q, request, sizeof(request), (struct rs_kmip_version){1, 1}, 1, 2, NULL, NULL);
    rs_kmip_get_attributes(&q, id, names, 1);
    rs_kmip_get(&q, id, NULL);
    assert_int_equal(rs_kmip_request_finish(&q, &len), 0);
    if (rs_kmip_exchange(link, request, len, genuine, sizeof(genuine), &genuine_len, DEADLINE_MS, &e) != 0)
        fail_msg("%s", e.why);
    rs_kmip_disconnect(link);
}

static int start(void **state)
{
    struct rs_kmip_made made;
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    (void)snprintf(folder, sizeof(folder), "/tmp/reseal-kmip-XXXXXX");
    if (mkdtemp(folder) == NULL || rs_keymem_init(0) != 0) return -1;
    kmip_server_start(folder, &kms, NULL);
    trust = (struct rs_kmip_trust){
        .ca = text_of("ca.crt"), .cert = text_of("alice.crt"), .key = text_of("alice.key")};
    struct rs_kmip_config config = config_for(1, kms.port, 0);
    struct rs_kmip_client *c = open_with(&config);
    if (rs_kmip_make(c, &(struct rs_kmip_new_key){.bits = 256}, NULL, 0, &made) != 0 ||
        rs_kmip_fetch(c, made.id, 256, NULL, &key) != 0)
        fail_msg("%s", rs_kmip_client_error(c)->why);
    rs_kmip_client_close(c);
    memcpy(id, made.id, sizeof(id));
    record();
    replay_start(&bad, folder);
    replay_start(&good, folder);
    struct batch_ids second = {.ids = {3, 4}}; /* it is asked after the bad one */
    serve_with(&good, change_batch_id, &second);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    replay_stop(&bad);
    replay_stop(&good);
    kmip_server_kill(&kms);
    free((void *)(uintptr_t)trust.ca);
    free((void *)(uintptr_t)trust.cert);
    free((void *)(uintptr_t)trust.key);
    return RUN("rm", "-rf", folder) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_genuine_answer_is_taken),
        cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_cut_with_a_length_that_fits),
        cmocka_unit_test(test_lengths_that_lie),
        cmocka_unit_test(test_inner_lengths_that_lie),
        cmocka_unit_test(test_wrong_batch_ids),
        cmocka_unit_test(test_unknown_tags_are_passed_over),
        cmocka_unit_test(test_keys_that_are_no_use),
        cmocka_unit_test(test_answers_without_what_was_asked),
        cmocka_unit_test(test_what_is_not_kmip),
        cmocka_unit_test(test_a_bad_first_answer_too),
        cmocka_unit_test(test_what_changes_something_is_asked_once),
        cmocka_unit_test(test_a_refusal_is_asked_about_again_only_where_it_helps),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
