/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between machines: both ends prove who they are, and who hangs or sends garbage harms nobody else.
 */
#include "offload/base/keymem.h"
#include "providers/key/wire/dial.h"
#include "providers/key/wire/server.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_MS 60000u
#define CONNECTIONS 8u /* that the server takes at a time */

static struct end {
    char *cert, *key;
    struct rs_wire_identity id;
} server, client, stranger;
static uint16_t port;
static pid_t child;

/* "echo" gives back what came, "who" the caller, "refuse" a refusal. */
static void handle(void *arg, const struct rs_wire_caller *caller, const struct rs_wire_message *request,
                   struct rs_wire_message *answer)
{
    const char *method = json_string_value(json_object_get(request->json, "method"));
    (void)arg;
    if (method == NULL) return;
    if (strcmp(method, "refuse") == 0) {
        answer->json = rs_wire_refusal(RESEAL_EPERM, "not for %s", "you");
        return;
    }
    answer->json = json_object();
    if (strcmp(method, "who") == 0)
        json_object_set_new(answer->json, "spki", rs_wire_json(caller->id.spki, RS_WIRE_HASH_LEN));
    if (strcmp(method, "echo") == 0 && request->block_len > 0) {
        answer->block = rs_keymem_alloc(request->block_len);
        answer->block_len = request->block_len;
        memcpy(answer->block, request->block, request->block_len);
    }
}

static void serve(int listener, const struct rs_wire_trust *trust)
{
    struct rs_wire_server_config config = {.listener = listener,
                                           .trust = *trust,
                                           .handle = handle,
                                           .request_ms = 4 * DEADLINE_MS,
                                           .connections = CONNECTIONS};
    struct rs_wire_server *s;
    struct rs_wire_error error;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (rs_keymem_init(0) != 0 || rs_wire_server_open(&s, &config, &error) != 0) _exit(1);
    for (;;) rs_wire_server_work(s, -1);
}

static void make_end(struct end *e, const char *name)
{
    assert_int_equal(rs_wire_make_identity(name, &e->cert, &e->key), 0);
    assert_int_equal(rs_wire_identity_of_pem(e->cert, &e->id), 0);
}

static int setup(void **state)
{
    struct rs_wire_error error;
    (void)state;
    make_end(&server, "server");
    make_end(&client, "client");
    make_end(&stranger, "stranger");
    int listener = rs_wire_listen("127.0.0.1:0", &port, &error);
    assert_true(listener >= 0);
    const struct rs_wire_trust trust = {
        .spkis = client.id.spki, .nspkis = 1, .cert = server.cert, .key = server.key};
    child = fork();
    if (child == 0) serve(listener, &trust);
    close(listener);
    return rs_keymem_init(0);
}

static int teardown(void **state)
{
    (void)state;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    struct end *const ends[] = {&server, &client, &stranger};
    for (unsigned i = 0; i < 3; i++) {
        OPENSSL_free(ends[i]->cert);
        OPENSSL_free(ends[i]->key);
    }
    rs_keymem_fini();
    return 0;
}

static struct rs_wire_address address_of(uint16_t p)
{
    return (struct rs_wire_address){
        .what = "test server", .remedy = "'trust'", .host = "127.0.0.1", .port = p};
}

static int dial_as(const struct end *me, const uint8_t *spki, struct rs_wire_link **link,
                   struct rs_wire_error *error)
{
    const struct rs_wire_address a = address_of(port);
    const struct rs_wire_trust trust = {.spkis = spki, .nspkis = 1, .cert = me->cert, .key = me->key};
    return rs_wire_connect(link, &a, &trust, DEADLINE_MS, error);
}

static int ask(struct rs_wire_link *link, const char *method, const char *block,
               struct rs_wire_message *answer, struct rs_wire_error *error)
{
    struct rs_wire_message request = {.json = json_pack("{s:s}", "method", method)};
    if (block != NULL) {
        request.block_len = strlen(block);
        request.block = rs_keymem_alloc(request.block_len);
        memcpy(request.block, block, request.block_len);
    }
    int err = rs_wire_ask(link, &request, answer, DEADLINE_MS, error);
    rs_wire_message_free(&request);
    return err;
}

static void messages_with_a_block_go_both_ways(void **state)
{
    struct rs_wire_link *link;
    struct rs_wire_message answer;
    struct rs_wire_error error;
    const char *version, *cipher;
    (void)state;
    assert_int_equal(dial_as(&client, server.id.spki, &link, &error), 0);
    rs_wire_protocol(link, &version, &cipher);
    assert_string_equal(version, "TLSv1.3");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask(link, "echo", "thirty-two bytes of a wrapped key", &answer, &error), 0);
        assert_int_equal(answer.block_len, 33);
        assert_true(rs_keymem_owns(answer.block));
        assert_memory_equal(answer.block, "thirty-two", 10);
        rs_wire_message_free(&answer);
    }
    uint8_t spki[RS_WIRE_HASH_LEN];
    assert_int_equal(ask(link, "who", NULL, &answer, &error), 0);
    assert_int_equal(rs_wire_member(answer.json, "spki", spki, sizeof(spki)), RS_WIRE_HASH_LEN);
    assert_memory_equal(spki, client.id.spki, sizeof(spki));
    rs_wire_message_free(&answer);
    assert_int_equal(ask(link, "refuse", NULL, &answer, &error), RESEAL_EPERM);
    assert_string_equal(error.why, "not for you");
    rs_wire_message_free(&answer);
    rs_wire_disconnect(link);
}

static void another_server_is_not_asked(void **state)
{
    struct rs_wire_link *link;
    struct rs_wire_error error;
    (void)state;
    assert_int_equal(dial_as(&client, stranger.id.spki, &link, &error), RESEAL_EAUTH);
    assert_int_equal(error.fault, RS_WIRE_CERT_PIN);
    assert_non_null(strstr(error.why, "test server 127.0.0.1"));
}

static void another_client_is_not_answered(void **state)
{
    struct rs_wire_link *link;
    struct rs_wire_error error;
    struct rs_wire_message answer = {.json = NULL};
    (void)state;
    /* In TLS 1.3 a client learns of it when it reads. */
    int err = dial_as(&stranger, server.id.spki, &link, &error);
    if (err == 0) err = ask(link, "who", NULL, &answer, &error);
    assert_int_equal(err, RESEAL_EAUTH);
    assert_int_equal(error.fault, RS_WIRE_REFUSED_US);
    rs_wire_message_free(&answer);
    rs_wire_disconnect(link);
}

static void garbage_ends_one_connection(void **state)
{
    static const uint8_t bad[][12] = {
        {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2, '{', '}'}, /* too long */
        {0, 0, 0, 6, 0, 0, 0, 9, '{', '}'},             /* text longer than the frame */
        {0, 0, 0, 6, 0, 0, 0, 2, '[', ']'},             /* no object */
        {0, 0, 0, 3, 0, 0, 0, 0, 0, 0},                 /* shorter than its head */
        {0, 0, 0, 6, 0, 0, 0, 2, '{', '}'},             /* no method */
    };
    struct rs_wire_link *good, *link;
    struct rs_wire_error error;
    struct rs_wire_message answer;
    (void)state;
    assert_int_equal(dial_as(&client, server.id.spki, &good, &error), 0);
    for (unsigned i = 0; i < RS_ARRAY_LEN(bad); i++) {
        uint8_t byte;
        assert_int_equal(dial_as(&client, server.id.spki, &link, &error), 0);
        assert_int_equal(rs_wire_send(link, bad[i], 10, DEADLINE_MS, &error), 0);
        assert_int_equal(rs_wire_receive(link, &byte, 1, DEADLINE_MS, &error), RESEAL_ENOSERVICE);
        rs_wire_disconnect(link);
    }
    assert_int_equal(ask(good, "who", NULL, &answer, &error), 0);
    rs_wire_message_free(&answer);
    rs_wire_disconnect(good);
}

/* More connections that say nothing than the server takes at a time: they make room after a moment. */
static void who_hangs_does_not_stop_others(void **state)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct rs_wire_link *link;
    struct rs_wire_error error;
    struct rs_wire_message answer;
    int fds[12];
    (void)state;
    for (unsigned i = 0; i < RS_ARRAY_LEN(fds); i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&a, sizeof(a)), 0);
    }
    assert_int_equal(dial_as(&client, server.id.spki, &link, &error), 0);
    assert_int_equal(ask(link, "who", NULL, &answer, &error), 0);
    rs_wire_message_free(&answer);
    rs_wire_disconnect(link);
    for (unsigned i = 0; i < RS_ARRAY_LEN(fds); i++) close(fds[i]);
}

/* Nor do as many that are known, and do not come to the end of a request: they make room before their time is
 * over. */
static void who_asks_slowly_makes_room(void **state)
{
    struct rs_wire_link *slow[CONNECTIONS], *link;
    struct rs_wire_error error;
    struct rs_wire_message answer;
    static const uint8_t begun[] = {0, 0, 0, 6, 0, 0, 0, 2, '{'};
    (void)state;
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        assert_int_equal(dial_as(&client, server.id.spki, &slow[i], &error), 0);
        assert_int_equal(rs_wire_send(slow[i], begun, i % 2 == 0 ? 3 : sizeof(begun), DEADLINE_MS, &error),
                         0);
    }
    assert_int_equal(dial_as(&client, server.id.spki, &link, &error), 0);
    assert_int_equal(ask(link, "who", NULL, &answer, &error), 0);
    rs_wire_message_free(&answer);
    rs_wire_disconnect(link);
    for (unsigned i = 0; i < CONNECTIONS; i++) rs_wire_disconnect(slow[i]);
}

static void a_server_that_is_not_there(void **state)
{
    struct rs_wire_link *link;
    struct rs_wire_error error;
    uint16_t free_port;
    (void)state;
    int fd = rs_wire_listen("127.0.0.1:0", &free_port, &error);
    close(fd);
    const struct rs_wire_address a = address_of(free_port);
    const struct rs_wire_trust trust = {.spkis = server.id.spki, .nspkis = 1};
    assert_int_equal(rs_wire_connect(&link, &a, &trust, DEADLINE_MS, &error), RESEAL_ENOSERVICE);
    assert_int_equal(error.fault, RS_WIRE_DOWN);
}

static void addresses(void **state)
{
    char host[RS_WIRE_HOST_MAX];
    uint16_t p;
    (void)state;
    assert_true(rs_wire_split("key.example:5696", 1, host, &p) && p == 5696);
    assert_string_equal(host, "key.example");
    assert_true(rs_wire_split("key.example", 7, host, &p) && p == 7);
    assert_true(rs_wire_split("[::1]:80", 7, host, &p) && p == 80);
    assert_string_equal(host, "::1");
    assert_true(rs_wire_split("fe80::1", 7, host, &p) && p == 7);
    assert_false(rs_wire_split("a:70000", 7, host, &p));
    assert_false(rs_wire_split(":80", 7, host, &p));
    assert_false(rs_wire_split("[::1]x", 7, host, &p));
    assert_false(rs_wire_split("a:8x", 7, host, &p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_with_a_block_go_both_ways), cmocka_unit_test(another_server_is_not_asked),
        cmocka_unit_test(another_client_is_not_answered),     cmocka_unit_test(garbage_ends_one_connection),
        cmocka_unit_test(who_hangs_does_not_stop_others),     cmocka_unit_test(who_asks_slowly_makes_room),
        cmocka_unit_test(a_server_that_is_not_there),         cmocka_unit_test(addresses),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
