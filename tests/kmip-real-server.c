/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a key on a real KMIP server (PyKMIP), and what happens when the server is not there or is
 * another one. */
#include "offload/base/keymem.h"
#include "providers/key/standard/kmip-client.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"
#include "tests/support/kmip-server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/evp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_MS 60000

static char folder[64];
static struct kmip_server first, second;

static char *slurp(const char *name, const char *suffix)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s%s", folder, name, suffix);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    char *text = calloc(1, 16384);
    assert_true(fread(text, 1, 16383, f) > 0);
    fclose(f);
    return text;
}

/* ---- clients --------------------------------------------------------------------------- */

struct login {
    char *ca, *cert, *key;
};

static struct login login_as(const char *name, const char *ca)
{
    return (struct login){slurp(ca, ".crt"), slurp(name, ".crt"), slurp(name, ".key")};
}

static void login_free(struct login *l)
{
    free(l->ca);
    free(l->cert);
    free(l->key);
}

static struct rs_kmip_config config_for(const struct login *l, uint16_t port)
{
    return (struct rs_kmip_config){.servers = {{.host = "127.0.0.1", .port = port}},
                                   .nservers = 1,
                                   .trust = {.ca = l->ca, .cert = l->cert, .key = l->key},
                                   .connect_ms = DEADLINE_MS,
                                   .request_ms = DEADLINE_MS};
}

static struct rs_kmip_client *open_with(const struct rs_kmip_config *config)
{
    struct rs_kmip_client *c;
    assert_int_equal(rs_kmip_client_open(&c, config), 0);
    return c;
}

static void assert_ok(struct rs_kmip_client *c, int err)
{
    if (err != 0) fail_msg("%d: %s", err, rs_kmip_client_error(c)->why);
}

static void assert_fault(struct rs_kmip_client *c, int err, int want, enum rs_kmip_fault fault)
{
    const struct rs_kmip_error *e = rs_kmip_client_error(c);
    if (err != want || e->fault != fault) fail_msg("%d, fault %d: %s", err, e->fault, e->why);
    assert_true(e->why[0] != '\0' && strchr(e->why, '\n') == NULL);
}

/* ---- tests ----------------------------------------------------------------------------- */

static const struct rs_kmip_detail details[] = {
    {"x-Product_Version", "0.1.0"}, {"x-Vendor", "Reseal"}, {"x-Product", "reseal-keyd"}};

static const struct rs_kmip_detail uses[] = {{"x-Component", "Virtual Machine"}, {"x-Name", "web2"}};

static void life(const struct rs_kmip_config *config)
{
    struct rs_kmip_client *c = open_with(config);
    struct rs_kmip_key one, two;
    struct rs_kmip_made made;
    struct rs_kmip_about about;
    char value[RS_KMIP_TEXT_MAX], ids[4][RS_KMIP_ID_MAX], name[64];
    unsigned n;
    (void)snprintf(name, sizeof(name), "life of %d.%d in %d", config->version.major, config->version.minor,
                   (int)getpid());
    struct rs_kmip_new_key key = {.bits = 256, .name = name};
    assert_ok(c, rs_kmip_about(c, &about));
    assert_string_equal(about.tls, "TLSv1.2");
    assert_ok(c, rs_kmip_make(c, &key, details, RS_ARRAY_LEN(details), &made));
    assert_int_equal(made.details_kept, RS_ARRAY_LEN(details));
    assert_ok(c, rs_kmip_fetch(c, made.id, 256, NULL, &one));
    assert_ok(c, rs_kmip_fetch(c, made.id, 256, NULL, &two));
    assert_int_equal(one.len, 32);
    assert_memory_equal(one.bytes, two.bytes, 32);
    assert_int_equal(rs_kmip_fetch(c, made.id, 128, NULL, &two), RESEAL_EKEYBAD);
    assert_ok(c, rs_kmip_detail_of(c, made.id, "x-Vendor", value));
    assert_string_equal(value, "Reseal");
    assert_int_equal(rs_kmip_detail_of(c, made.id, "x-Nothing", value), RESEAL_ENOKEY);
    rs_kmip_note(c, made.id, uses, RS_ARRAY_LEN(uses), &n);
    assert_int_equal(n, RS_ARRAY_LEN(uses));
    assert_ok(c, rs_kmip_detail_of(c, made.id, "x-Name", value));
    assert_string_equal(value, "web2");
    assert_ok(c, rs_kmip_detail_of(c, made.id, "x-Vendor", value)); /* what was there stays */
    assert_string_equal(value, "Reseal");
    struct rs_kmip_filter filter = {.name = name, .state = RS_KMIP_ACTIVE};
    assert_ok(c, rs_kmip_list(c, &filter, ids, 4, &n));
    assert_int_equal(n, 1);
    assert_string_equal(ids[0], made.id);
    assert_ok(c, rs_kmip_retire(c, made.id, RS_KMIP_CESSATION_OF_OPERATION, "the test is over"));
    assert_int_equal(rs_kmip_fetch(c, made.id, 256, NULL, &two), RESEAL_ENOKEY);
    assert_int_equal(rs_kmip_client_error(c)->reason, RS_KMIP_ITEM_NOT_FOUND);
    assert_ok(c, rs_kmip_retire(c, made.id, RS_KMIP_CESSATION_OF_OPERATION, NULL));
    assert_ok(c, rs_kmip_list(c, &filter, ids, 4, &n));
    assert_int_equal(n, 0);
    rs_kmip_client_close(c);
}

static void test_a_key_lives_in_every_version(void **state)
{
    struct login l = login_as("alice", "ca");
    struct rs_kmip_config config = config_for(&l, first.port);
    (void)state;
    life(&config);
    for (int32_t minor = 0; minor <= 4; minor++) {
        config.version = (struct rs_kmip_version){1, minor};
        life(&config);
    }
    login_free(&l);
}

/* What another administrator does, with PyKMIP's own client `c`; the line that it prints. */
static void other_client(const char *code, char line[RS_KMIP_ID_MAX])
{
    char command[1500];
    (void)snprintf(
        command, sizeof(command),
        "/usr/bin/python3 -W ignore -c \"from kmip.pie import client; from kmip import enums\n"
        "c = client.ProxyKmipClient('127.0.0.1', %u, '%s/alice.crt', '%s/alice.key', '%s/ca.crt')\n"
        "c.open()\n%s\nc.close()\"",
        first.port, folder, folder, folder, code);
    FILE *out = popen(command, "re");
    assert_non_null(out);
    line[0] = '\0';
    if (fgets(line, RS_KMIP_ID_MAX, out) != NULL) line[strcspn(line, "\n")] = '\0';
    assert_int_equal(pclose(out), 0);
}

static void test_only_active_keys_are_taken(void **state)
{
    struct login l = login_as("alice", "ca");
    struct rs_kmip_config config = config_for(&l, first.port);
    struct rs_kmip_client *c = open_with(&config);
    struct rs_kmip_key key;
    struct rs_kmip_made made;
    char code[RS_KMIP_ID_MAX + 80], line[RS_KMIP_ID_MAX];
    (void)state;
    assert_ok(c, rs_kmip_make(c, &(struct rs_kmip_new_key){.bits = 256}, NULL, 0, &made));
    /* Another administrator revokes it; the server would still give it away. */
    (void)snprintf(code, sizeof(code), "c.revoke(enums.RevocationReasonCode.KEY_COMPROMISE, '%s')", made.id);
    other_client(code, line);
    assert_int_equal(rs_kmip_fetch(c, made.id, 256, NULL, &key), RESEAL_EKEYBAD);
    assert_non_null(strstr(rs_kmip_client_error(c)->why, "compromised"));
    rs_kmip_client_close(c);
    login_free(&l);
}

/* By OpenSSL, not by us. */
static void unwrap(const struct rs_kmip_key *under, const struct rs_kmip_key *wrapped, uint8_t out[32])
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t buffer[64];
    int n = 0;
    EVP_CIPHER_CTX_set_flags(ctx, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    assert_int_equal(EVP_DecryptInit_ex(ctx, EVP_aes_256_wrap(), NULL, under->bytes, NULL), 1);
    assert_int_equal(EVP_DecryptUpdate(ctx, buffer, &n, wrapped->bytes, (int)wrapped->len), 1);
    assert_int_equal(n, 32);
    memcpy(out, buffer, 32);
    EVP_CIPHER_CTX_free(ctx);
}

static void test_a_wrapped_key_unwraps_to_the_same(void **state)
{
    struct login l = login_as("alice", "ca");
    struct rs_kmip_config config = config_for(&l, first.port);
    struct rs_kmip_client *c = open_with(&config);
    struct rs_kmip_key plain, wrapped, under;
    struct rs_kmip_made made;
    char wrapping[RS_KMIP_ID_MAX];
    uint8_t unwrapped[32];
    (void)state;
    other_client(
        "mask = enums.CryptographicUsageMask\n"
        "k = c.create(enums.CryptographicAlgorithm.AES, 256, cryptographic_usage_mask=[mask.WRAP_KEY, "
        "mask.UNWRAP_KEY])\nc.activate(k); print(k)",
        wrapping);
    assert_ok(c, rs_kmip_make(c, &(struct rs_kmip_new_key){.bits = 256}, NULL, 0, &made));
    assert_ok(c, rs_kmip_fetch(c, made.id, 256, NULL, &plain));
    assert_ok(c, rs_kmip_fetch(c, wrapping, 256, NULL, &under));
    assert_ok(c, rs_kmip_fetch(c, made.id, 256, wrapping, &wrapped));
    assert_true(wrapped.wrapped);
    assert_int_equal(wrapped.len, 40);
    unwrap(&under, &wrapped, unwrapped);
    assert_memory_equal(unwrapped, plain.bytes, 32);
    /* A key that may not wrap is refused by the server, with its reason. */
    int err = rs_kmip_fetch(c, made.id, 256, made.id, &wrapped);
    assert_int_not_equal(err, 0);
    assert_int_equal(rs_kmip_client_error(c)->fault, RS_KMIP_SERVER_REFUSES);
    rs_kmip_client_close(c);
    login_free(&l);
}

static void test_another_owner_is_refused(void **state)
{
    struct login alice = login_as("alice", "ca"), bob = login_as("bob", "ca");
    struct rs_kmip_config as_alice = config_for(&alice, first.port), as_bob = config_for(&bob, first.port);
    struct rs_kmip_client *a = open_with(&as_alice), *b = open_with(&as_bob);
    struct rs_kmip_made private, shared;
    struct rs_kmip_key key;
    (void)state;
    assert_ok(a, rs_kmip_make(a, &(struct rs_kmip_new_key){.bits = 256}, NULL, 0, &private));
    /* The server reads its policies in a process beside the one that listens: until it has, it refuses. */
    int err, tries = 0;
    while ((err = rs_kmip_make(a, &(struct rs_kmip_new_key){.bits = 256, .policy = "team"}, NULL, 0,
                               &shared)) == RESEAL_EPERM &&
           ++tries < 1000)
        poll(NULL, 0, 50);
    assert_ok(a, err);
    assert_int_equal(rs_kmip_fetch(b, private.id, 256, NULL, &key), RESEAL_EPERM);
    assert_ok(b, rs_kmip_fetch(b, shared.id, 256, NULL, &key));
    assert_int_equal(rs_kmip_retire(b, shared.id, RS_KMIP_SUPERSEDED, NULL), RESEAL_EPERM);
    rs_kmip_client_close(a);
    rs_kmip_client_close(b);
    login_free(&alice);
    login_free(&bob);
}

static void expect(const struct rs_kmip_config *config, int want, enum rs_kmip_fault fault)
{
    struct rs_kmip_client *c = open_with(config);
    struct rs_kmip_about about;
    assert_fault(c, rs_kmip_about(c, &about), want, fault);
    rs_kmip_client_close(c);
}

static void test_servers_that_are_not_the_right_one(void **state)
{
    struct login l = login_as("alice", "ca"), other = login_as("alice", "other-ca");
    struct kmip_server wrong = {0};
    struct rs_kmip_config config = config_for(&other, first.port);
    (void)state;
    expect(&config, RESEAL_EAUTH, RS_KMIP_CERT_CA);
    config = config_for(&l, 1);
    expect(&config, RESEAL_ENOSERVICE, RS_KMIP_DOWN);
    config.servers[0].host = "no-such-host.invalid";
    expect(&config, RESEAL_ENOSERVICE, RS_KMIP_NO_SUCH_HOST);
    config = config_for(&l, first.port);
    config.trust.cert = config.trust.key = NULL;
    expect(&config, RESEAL_EAUTH, RS_KMIP_REFUSED_US);
    kmip_server_start(folder, &wrong, "wrong-name");
    config = config_for(&l, wrong.port);
    expect(&config, RESEAL_EAUTH, RS_KMIP_CERT_NAME);
    kmip_server_kill(&wrong);
    kmip_server_start(folder, &wrong, "expired");
    expect(&config, RESEAL_EAUTH, RS_KMIP_CERT_EXPIRED);
    kmip_server_kill(&wrong);
    login_free(&l);
    login_free(&other);
}

static void test_a_confirmed_fingerprint_stands_for_a_ca(void **state)
{
    struct login l = login_as("alice", "ca");
    struct rs_kmip_config config = config_for(&l, first.port);
    struct rs_kmip_shown shown;
    struct rs_kmip_error error;
    (void)state;
    assert_int_equal(rs_kmip_show(&config.servers[0], DEADLINE_MS, &shown, &error), 0);
    assert_non_null(strstr(shown.text, "CN=localhost"));
    config.trust.ca = NULL;
    config.trust.pin = shown.pin;
    life(&config);
    shown.pin[7] ^= 1;
    expect(&config, RESEAL_EAUTH, RS_KMIP_CERT_PIN);
    login_free(&l);
}

/* Accepts and says nothing. */
static void test_a_server_that_hangs(void **state)
{
    struct login l = login_as("alice", "ca");
    uint16_t port;
    int fd = kmip_listen(&port);
    struct rs_kmip_config config = config_for(&l, port);
    (void)state;
    config.connect_ms = 200;
    expect(&config, RESEAL_ETIMEDOUT, RS_KMIP_HANGS);
    close(fd);
    login_free(&l);
}

static void test_the_next_server_is_asked(void **state)
{
    struct login l = login_as("alice", "ca");
    uint16_t hanging;
    int fd = kmip_listen(&hanging);
    struct rs_kmip_config config = config_for(&l, first.port);
    struct rs_kmip_key one, two;
    struct rs_kmip_made made;
    struct rs_kmip_about about;
    (void)state;
    kmip_server_start(folder, &second, NULL);
    config.servers[1] = (struct rs_kmip_address){.host = "127.0.0.1", .port = second.port};
    config.nservers = 2;
    struct rs_kmip_client *c = open_with(&config);
    assert_ok(c, rs_kmip_make(c, &(struct rs_kmip_new_key){.bits = 256}, NULL, 0, &made));
    assert_ok(c, rs_kmip_fetch(c, made.id, 256, NULL, &one));
    kmip_server_kill(&first);
    assert_ok(c, rs_kmip_fetch(c, made.id, 256, NULL, &two));
    assert_memory_equal(one.bytes, two.bytes, 32);
    assert_ok(c, rs_kmip_about(c, &about));
    assert_int_equal(about.server->port, second.port);
    /* What changes something is not sent twice. */
    kmip_server_kill(&second);
    assert_int_equal(rs_kmip_retire(c, made.id, RS_KMIP_SUPERSEDED, NULL), RESEAL_ENOSERVICE);
    kmip_server_start(folder, &first, NULL);
    assert_ok(c, rs_kmip_fetch(c, made.id, 256, NULL, &two));
    rs_kmip_client_close(c);
    /* One that hangs costs its deadline, once. */
    config.servers[0].port = hanging;
    config.servers[1].port = first.port;
    config.connect_ms = 5000; /* of the one that answers, too */
    c = open_with(&config);
    assert_ok(c, rs_kmip_fetch(c, made.id, 256, NULL, &two));
    assert_ok(c, rs_kmip_fetch(c, made.id, 256, NULL, &two));
    rs_kmip_client_close(c);
    close(fd);
    login_free(&l);
}

static int start(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    (void)snprintf(folder, sizeof(folder), "/tmp/reseal-kmip-XXXXXX");
    if (mkdtemp(folder) == NULL || rs_keymem_init(0) != 0) return -1;
    kmip_server_start(folder, &first, NULL);
    return 0;
}

static int stop(void **state)
{
    char command[128];
    (void)state;
    kmip_server_kill(&first);
    kmip_server_kill(&second);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    FILE *rm = popen(command, "re");
    return rm != NULL && pclose(rm) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_key_lives_in_every_version),
        cmocka_unit_test(test_only_active_keys_are_taken),
        cmocka_unit_test(test_a_wrapped_key_unwraps_to_the_same),
        cmocka_unit_test(test_another_owner_is_refused),
        cmocka_unit_test(test_servers_that_are_not_the_right_one),
        cmocka_unit_test(test_a_confirmed_fingerprint_stands_for_a_ca),
        cmocka_unit_test(test_a_server_that_hangs),
        cmocka_unit_test(test_the_next_server_is_asked),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
