/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A second, independent KMIP codec (libkms_message): a real server's answers to our requests say the same to
 * its decoder as to ours, and what it has registered we get back.
 */
#include "offload/base/keymem.h"
#include "providers/key/standard/kmip-tls.h"
#include "providers/key/standard/kmip.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"
#include "tests/support/keyd.h"
#include "tests/support/kmip-server.h"

#include <kms_message/kms_kmip_request.h>
#include <kms_message/kms_kmip_response.h>
#include <kms_message/kms_kmip_response_parser.h>
#include <kms_message/kms_message.h>
#include <openssl/rand.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static char folder[64];
static struct kmip_server kms;
static struct rs_kmip_link *link_to;
static uint8_t answer[16384];
static size_t answer_len;

static void exchange(const uint8_t *request, size_t len)
{
    struct rs_kmip_error e;
    if (rs_kmip_exchange(link_to, request, len, answer, sizeof(answer), &answer_len, 60000, &e) != 0)
        fail_msg("%s", e.why);
}

/* The last answer as their parser reads it, in pieces as it asks for them. */
static kms_response_t *theirs(void)
{
    kms_response_parser_t *parser = kms_kmip_response_parser_new(NULL);
    size_t at = 0;
    for (int want; (want = kms_response_parser_wants_bytes(parser, 100)) > 0; at += (size_t)want) {
        assert_true(at + (size_t)want <= answer_len);
        if (!kms_response_parser_feed(parser, answer + at, (uint32_t)want))
            fail_msg("%s", kms_response_parser_error(parser));
    }
    assert_int_equal(at, answer_len);
    kms_response_t *response = kms_response_parser_get_response(parser);
    assert_non_null(response);
    kms_response_parser_destroy(parser);
    return response;
}

/* The id in it must be what it is for us. */
static void assert_same_id(const char *id)
{
    kms_response_t *response = theirs();
    char *other = kms_kmip_response_get_unique_identifier(response);
    if (other == NULL) fail_msg("%s", kms_response_get_error(response));
    assert_string_equal(other, id);
    free(other);
    kms_response_destroy(response);
}

struct ours {
    struct rs_kmip_request q;
    uint8_t bytes[RS_KMIP_REQUEST_MAX];
};

static void begin(struct ours *o, int minor)
{
    rs_kmip_request_begin(&o->q, o->bytes, sizeof(o->bytes), (struct rs_kmip_version){1, minor}, 7, 1, NULL,
                          NULL);
}

static void ask(struct ours *o, uint32_t operation, struct rs_kmip_result *out)
{
    size_t len;
    assert_int_equal(rs_kmip_request_finish(&o->q, &len), 0);
    exchange(o->bytes, len);
    assert_int_equal(rs_kmip_answer(answer, answer_len, 7, operation, out), 0);
    assert_int_equal(out->status, RS_KMIP_SUCCESS);
}

static char *register_theirs(const uint8_t secret[96])
{
    kms_request_t *request = kms_kmip_request_register_secretdata_new(NULL, secret, 96);
    size_t len;
    const uint8_t *bytes = kms_request_to_bytes(request, &len);
    assert_non_null(bytes);
    exchange(bytes, len);
    kms_request_destroy(request);
    kms_response_t *response = theirs();
    char *id = kms_kmip_response_get_unique_identifier(response);
    if (id == NULL) fail_msg("%s", kms_response_get_error(response));
    kms_response_destroy(response);
    return id;
}

static void test_what_it_registered_we_activate_and_get(void **state)
{
    uint8_t secret[96];
    (void)state;
    for (int minor = 0; minor <= 4; minor++) {
        struct ours o;
        struct rs_kmip_result result;
        size_t len;
        assert_int_equal(RAND_bytes(secret, sizeof(secret)), 1);
        char *id = register_theirs(secret);
        begin(&o, minor);
        rs_kmip_activate(&o.q, id);
        ask(&o, RS_KMIP_ACTIVATE, &result);
        assert_same_id(id);
        begin(&o, minor);
        rs_kmip_get(&o.q, id, NULL);
        ask(&o, RS_KMIP_GET, &result);
        assert_same_id(id);
        kms_response_t *response = theirs();
        uint8_t *got = kms_kmip_response_get_secretdata(response, &len);
        if (got == NULL) fail_msg("%s", kms_response_get_error(response));
        assert_int_equal(len, sizeof(secret));
        assert_memory_equal(got, secret, sizeof(secret));
        free(got);
        kms_response_destroy(response);
        free(id);
    }
}

static void test_what_we_make_has_the_same_id_for_it(void **state)
{
    (void)state;
    for (int minor = 0; minor <= 4; minor++) {
        struct ours o;
        struct rs_kmip_result result;
        char id[RS_KMIP_ID_MAX];
        begin(&o, minor);
        rs_kmip_create(&o.q, &(struct rs_kmip_new_key){.bits = 256});
        ask(&o, RS_KMIP_CREATE, &result);
        assert_int_equal(rs_kmip_payload_id(&result, id), 0);
        assert_same_id(id);
    }
}

static char *text_of(const char *name)
{
    char path[128];
    size_t len;
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    uint8_t *bytes = file_bytes(path, &len);
    bytes[len] = '\0';
    return (char *)bytes;
}

static int start(void **state)
{
    struct rs_kmip_error e;
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    (void)snprintf(folder, sizeof(folder), "/tmp/reseal-kmip-XXXXXX");
    if (mkdtemp(folder) == NULL || rs_keymem_init(0) != 0 || kms_message_init() != 0) return -1;
    kmip_server_start(folder, &kms, NULL);
    char *ca = text_of("ca.crt"), *cert = text_of("alice.crt"), *key = text_of("alice.key");
    const struct rs_kmip_address address = {.host = "127.0.0.1", .port = kms.port};
    const struct rs_kmip_trust trust = {.ca = ca, .cert = cert, .key = key};
    int r = rs_kmip_connect(&link_to, &address, &trust, 60000, &e);
    if (r != 0) printf("%s\n", e.why);
    free(ca);
    free(cert);
    free(key);
    return r;
}

static int stop(void **state)
{
    (void)state;
    rs_kmip_disconnect(link_to);
    kmip_server_kill(&kms);
    kms_message_cleanup();
    return RUN("rm", "-rf", folder) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_it_registered_we_activate_and_get),
        cmocka_unit_test(test_what_we_make_has_the_same_id_for_it),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
