/* SPDX-License-Identifier: Apache-2.0 */
/* The key provider service with its primary key on a real KMIP server: hosts never see that server, nor its
 * key. */
#include "offload/base/keymem.h"
#include "providers/key/events.h"
#include "providers/key/standard/kmip-client.h"
#include "providers/key/trusted/provider.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"
#include "tests/support/kmip-server.h"
#include "tests/support/trusted.h"

#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct trusted trusted;
static struct kmip_server server;
static char primary[RS_KMIP_ID_MAX];

static const char *file_of(const char *name)
{
    static char path[4][128];
    static unsigned i;
    i = (i + 1) % 4;
    (void)snprintf(path[i], sizeof(path[i]), "%s/%s", trusted.folder, name);
    return path[i];
}

static char *slurp(const char *name)
{
    char *text = calloc(1, 16384);
    FILE *f = fopen(file_of(name), "re");
    assert_non_null(f);
    assert_true(fread(text, 1, 16383, f) > 0);
    fclose(f);
    return text;
}

/* What an administrator does on the key server. */
static void make_primary(void)
{
    char *ca = slurp("ca.crt"), *cert = slurp("alice.crt"), *key = slurp("alice.key");
    const struct rs_kmip_config config = {.servers = {{.host = "127.0.0.1", .port = server.port}},
                                          .nservers = 1,
                                          .trust = {.ca = ca, .cert = cert, .key = key},
                                          .connect_ms = 60000,
                                          .request_ms = 60000};
    const struct rs_kmip_new_key new_key = {.bits = 256, .name = "primary"};
    struct rs_kmip_client *c;
    struct rs_kmip_made made;
    assert_int_equal(rs_kmip_client_open(&c, &config), 0);
    if (rs_kmip_make(c, &new_key, NULL, 0, &made) != 0) fail_msg("%s", rs_kmip_client_error(c)->why);
    (void)snprintf(primary, sizeof(primary), "%s", made.id);
    rs_kmip_client_close(c);
    free(ca);
    free(cert);
    free(key);
}

static json_t *primaries(const char *id)
{
    char address[32];
    (void)snprintf(address, sizeof(address), "127.0.0.1:%u", server.port);
    return json_pack("{s:[{s:{s:[s], s:s, s:s, s:s, s:s}}]}", "primaries", "kmip", "servers", address, "ca",
                     file_of("ca.crt"), "certificate", file_of("alice.crt"), "key", file_of("alice.key"),
                     "id", id);
}

static int ask_with(json_t *config, const char *op, const char *key, json_t *state, struct rs_task_own *own)
{
    static struct rs_secrets secrets;
    char why[256];
    assert_int_equal(rs_trusted_check(config, &secrets, why, sizeof(why)), 0);
    json_t *args =
        json_pack("{s:s, s:o, s:s*, s:o*}", "op", op, "config", config, "key", key, "state", state);
    rs_task_run_here(&rs_task_trusted, args, &secrets, own);
    json_decref(args);
    return own->answer.status;
}

static int ask(const char *op, const char *key, struct rs_task_own *own)
{
    return ask_with(trusted_published(&trusted), op, key, NULL, own);
}

/* The helper needs a moment to ask the server. */
static void ask_until_ready(const char *op, const char *key, struct rs_task_own *own)
{
    while (ask(op, key, own) == RESEAL_ENOSERVICE) {
        assert_non_null(strstr(own->answer.why, "primary key is not there"));
        rs_task_own_free(own);
        poll(NULL, 0, 200);
    }
    if (own->answer.status != 0) fail_msg("%s", own->answer.why);
}

static int setup(void **state)
{
    (void)state;
    if (rs_keymem_init(0) != 0) return -1;
    trusted_start(&trusted);
    kmip_server_start(trusted.folder, &server, NULL);
    make_primary();
    trusted_stop_keys(&trusted);
    trusted_start_keys(&trusted, primaries(primary));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kmip_server_kill(&server);
    trusted_stop(&trusted);
    return 0;
}

static unsigned told(const struct rs_task_own *own, const char *event)
{
    unsigned n = 0;
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(own->answer.result, "down"), i, one) n +=
        strcmp(json_string_value(json_object_get(one, "event")), event) == 0;
    return n;
}

/* Nobody listens there as long as it is bound. */
static json_t *with_one_that_is_away(int sock)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    char address[32];
    assert_int_equal(bind(sock, (struct sockaddr *)&in, len), 0);
    assert_int_equal(getsockname(sock, (struct sockaddr *)&in, &len), 0);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%u", ntohs(in.sin_port));
    json_t *config = trusted_published(&trusted), *list = json_object_get(config, "attest");
    json_t *away = json_deep_copy(json_array_get(list, 0));
    assert_int_equal(json_object_set_new(away, "address", json_string(address)), 0);
    assert_int_equal(json_array_insert_new(list, 0, away), 0);
    return config;
}

/* It is told once, and a look at the services that answer says when certificates at the key server end. */
static void one_of_several_services_is_away(void **state)
{
    struct rs_task_own own;
    (void)state;
    int64_t now = (int64_t)time(NULL), year = INT64_C(366) * 86400;
    int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    json_t *config = with_one_that_is_away(sock), *before;
    assert_int_equal(ask_with(json_deep_copy(config), "make", NULL, NULL, &own), 0);
    assert_int_equal(told(&own, RS_EVENT_TA_PARTLY), 1);
    assert_int_equal(told(&own, RS_EVENT_ATTEST_PASS), 1);
    before = json_deep_copy(json_object_get(own.answer.result, "state"));
    rs_task_own_free(&own);
    assert_int_equal(ask_with(config, "test", NULL, before, &own), 0);
    assert_int_equal(told(&own, RS_EVENT_TA_PARTLY), 0);
    const json_t *ends = json_object_get(own.answer.result, "expires");
    assert_in_range(json_integer_value(json_object_get(ends, "client")), now, now + year);
    assert_in_range(json_integer_value(json_object_get(ends, "server")), now, now + year);
    rs_task_own_free(&own);
    close(sock);
}

static void keys_outlive_the_server_for_a_while(void **state)
{
    struct rs_task_own own;
    char id[RS_KEY_ID_MAX];
    uint8_t kek[RS_KEK_LEN];
    (void)state;
    ask_until_ready("make", NULL, &own);
    (void)snprintf(id, sizeof(id), "%s", json_string_value(json_object_get(own.answer.result, "key")));
    memcpy(kek, rs_secrets_find(own.answer.secrets, "kek")->bytes, sizeof(kek));
    rs_task_own_free(&own);

    /* The server goes: the primary key is in memory. */
    kmip_server_kill(&server);
    assert_int_equal(ask("fetch", id, &own), 0);
    assert_memory_equal(rs_secrets_find(own.answer.secrets, "kek")->bytes, kek, sizeof(kek));
    rs_task_own_free(&own);

    /* The service is started again, and the server is not there: refused, until it is. */
    trusted_stop_keys(&trusted);
    trusted_start_keys(&trusted, primaries(primary));
    assert_int_equal(ask("fetch", id, &own), RESEAL_ENOSERVICE);
    assert_string_equal(own.answer.event, RS_EVENT_TA_UNHEALTHY);
    rs_task_own_free(&own);
    kmip_server_start(trusted.folder, &server, NULL);
    ask_until_ready("fetch", id, &own);
    assert_memory_equal(rs_secrets_find(own.answer.secrets, "kek")->bytes, kek, sizeof(kek));
    rs_task_own_free(&own);
}

/* Without the process that asks key servers it would serve until its primary key is over, and never again: it
 * ends, for whoever watches it to start it again. */
static void it_ends_when_its_helper_does(void **state)
{
    char path[64];
    int helper = 0, status = 0;
    pid_t pid = trusted.keyproviderd;
    (void)state;
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &helper), 1);
    (void)fclose(f);
    assert_int_equal(kill(helper, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_not_equal(status, 0);
    trusted.keyproviderd = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_outlive_the_server_for_a_while),
        cmocka_unit_test(one_of_several_services_is_away),
        cmocka_unit_test(it_ends_when_its_helper_does),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
