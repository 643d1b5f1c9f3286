/* SPDX-License-Identifier: Apache-2.0 */
/* Tenants of one key service see their own providers, keys, events, audit and standing, and nobody else's. */
#include "tests/support/cmocka.h"
#include "tests/support/keyd.h"

#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define ALICE 60001u
#define BOB   60002u
#define EVE   60003u /* of bob's tenant, without privileges */

static struct keyd k;
static char folder[64], file[100];

static void write_policy(void)
{
    char text[1024];
    (void)snprintf(text, sizeof(text),
                   "{\"version\": 1, \"tenants\": {\n"
                   "  \"acme\": {\"users\": [%u], \"roles\": [\"Administrator\"]},\n"
                   "  \"blue\": {\"users\": [%u, %u]}},\n"
                   " \"privileges\": [{\"to\": \"user:%u\", \"roles\": [\"Administrator\"]}]}\n",
                   ALICE, BOB, EVE, BOB);
    RS_CLOSE int fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || rs_write_full(fd, text, strlen(text)) != 0) exit(2);
}

static json_t *works(int sock, const char *method, json_t *args, const int *fds, unsigned nfds, int *out)
{
    json_t *reply = NULL;
    int r = keyd_ask(sock, method, args, fds, nfds, &reply, out);
    if (r != 0) fail_msg("%s: %d: %s", method, r, json_string_value(json_object_get(reply, "error")));
    return reply;
}

/* The answer as text; the caller frees it. */
static char *text_of(int sock, const char *method, json_t *args)
{
    json_t *reply = works(sock, method, args, NULL, 0, NULL);
    char *text = json_dumps(reply, JSON_COMPACT);
    json_decref(reply);
    assert_non_null(text);
    return text;
}

static void shows(int sock, const char *method, const char *words, bool expected)
{
    char *text = text_of(sock, method, NULL);
    if ((strstr(text, words) != NULL) != expected)
        fail_msg("%s %s '%s': %s", method, expected ? "lacks" : "shows", words, text);
    free(text);
}

static void native_provider(int sock, const char *name)
{
    RS_CLOSE int password = text_fd("of the backup", 13);
    int backup = -1;
    json_decref(
        works(sock, "provider.add", json_pack("{s:s, s:s}", "name", name, "kind", "native"), NULL, 0, NULL));
    json_decref(works(sock, "provider.export", json_pack("{s:s}", "provider", name), &password, 1, &backup));
    assert_true(backup >= 0);
    close(backup);
}

static char *make_key(int sock, const char *provider)
{
    json_t *reply = works(sock, "kek.make", json_pack("{s:s}", "provider", provider), NULL, 0, NULL);
    char *key = strdup(json_string_value(json_object_get(reply, "key")));
    json_decref(reply);
    assert_non_null(key);
    return key;
}

static void each_sees_its_own(void **state)
{
    (void)state;
    int alice = keyd_connect_as(&k, ALICE), bob = keyd_connect_as(&k, BOB), eve = keyd_connect_as(&k, EVE);
    native_provider(alice, "of-alice");
    char *key = make_key(alice, "of-alice");

    shows(alice, "provider.list", "of-alice", true);
    shows(bob, "provider.list", "of-alice", false);
    shows(alice, "kek.list", key, true);
    shows(bob, "kek.list", "of-alice", false);
    json_t *reply = NULL;
    assert_int_equal(
        keyd_ask(bob, "provider.show", json_pack("{s:s}", "provider", "of-alice"), NULL, 0, &reply, NULL),
        RESEAL_ENOKEY);
    json_decref(reply);
    assert_int_equal(keyd_ask(bob, "provider.remove",
                              json_pack("{s:s, s:b}", "provider", "of-alice", "force", 1), NULL, 0, NULL,
                              NULL),
                     RESEAL_ENOKEY);

    /* The same name is another provider, which does not open alice's keys. */
    native_provider(bob, "of-alice");
    json_t *status =
        works(bob, "kek.status", json_pack("{s:s, s:s}", "provider", "of-alice", "key", key), NULL, 0, NULL);
    assert_false(json_is_true(json_object_get(status, "available")));
    json_decref(status);
    status = works(alice, "kek.status", json_pack("{s:s, s:s}", "provider", "of-alice", "key", key), NULL, 0,
                   NULL);
    assert_true(json_is_true(json_object_get(status, "available")));
    json_decref(status);

    /* What happened to the one is no event of the other. */
    shows(alice, "event.list", "\"tenant\":\"acme\"", true);
    shows(alice, "event.list", "\"tenant\":\"blue\"", false);
    shows(bob, "event.list", "\"tenant\":\"acme\"", false);
    shows(bob, "audit.list", key, true); /* bob asked for it himself */
    shows(bob, "audit.list", "\"uid\":60001", false);
    shows(eve, "audit.list", "\"uid\":60002", false); /* of the same tenant, without ManageKeys */
    shows(alice, "tenant.list", "\"name\":\"acme\"", true);
    shows(alice, "tenant.list", "\"name\":\"blue\"", false);

    /* Root sees all. */
    free(key);
    close(alice);
    close(bob);
    close(eve);
}

/* Whether a text has it as a word: its digits may also be part of a time or an id. */
static bool has_word(const char *text, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = text; (at = strstr(at, word)) != NULL; at++)
        if ((at == text || !isalnum((unsigned char)at[-1])) && !isalnum((unsigned char)at[len])) return true;
    return false;
}

/* Whatever bob may ask without arguments. */
static void no_answer_has_a_name_of_another_tenant(void **state)
{
    (void)state;
    static const char *const names[] = {"acme", "only-alices", "60001"};
    json_t *all, *m;
    size_t i;
    unsigned answered = 0;
    int alice = keyd_connect_as(&k, ALICE), bob = keyd_connect_as(&k, BOB);
    native_provider(alice, "only-alices");
    free(make_key(alice, "only-alices"));
    all = works(bob, "service.methods", NULL, NULL, 0, NULL);
    json_array_foreach(json_object_get(all, "methods"), i, m)
    {
        json_t *reply = NULL;
        const char *method = json_string_value(json_object_get(m, "method"));
        if (strcmp(method, "event.follow") == 0) continue;
        answered += keyd_ask(bob, method, NULL, NULL, 0, &reply, NULL) == 0;
        char *text = json_dumps(reply, JSON_COMPACT);
        for (unsigned n = 0; n < RS_ARRAY_LEN(names); n++)
            if (has_word(text, names[n])) fail_msg("%s: %s in %s", method, names[n], text);
        free(text);
        json_decref(reply);
    }
    assert_true(answered >= 8);
    /* Clusters name providers of all tenants: hosts are for administrators of the service. */
    assert_int_equal(keyd_ask(bob, "host.list", NULL, NULL, 0, NULL, NULL), RESEAL_EPERM);
    for (unsigned t = 0; t < 2; t++) {
        char *text = keyd_text(bob, t == 0 ? RS_MSG_STATUS : RS_MSG_POLICY);
        for (unsigned n = 0; n < RS_ARRAY_LEN(names); n++) assert_false(has_word(text, names[n]));
        free(text);
    }
    json_decref(all);
    close(alice);
    close(bob);
}

static void a_follower_gets_its_tenants_events(void **state)
{
    (void)state;
    char line[8192];
    int alice = keyd_connect_as(&k, ALICE), bob = keyd_connect_as(&k, BOB), follow = -1;
    json_decref(
        works(bob, "event.follow", json_pack("{s:I}", "since", (json_int_t)INT64_MAX), NULL, 0, &follow));
    assert_true(follow >= 0);
    native_provider(alice, "second-of-alice");
    native_provider(bob, "second-of-bob");
    ssize_t n = recv(follow, line, sizeof(line) - 1, 0);
    assert_true(n > 0);
    line[n] = '\0';
    assert_non_null(strstr(line, "second-of-bob"));
    assert_null(strstr(line, "alice"));
    close(follow);
    close(alice);
    close(bob);
}

static void a_slow_follower_holds_nobody_up(void **state)
{
    (void)state;
    char line[8192];
    int bob = keyd_connect_as(&k, BOB), follow = -1;
    bool lost = false;
    json_decref(works(bob, "event.follow", NULL, NULL, 0, &follow));
    /* More than its socket and the ring have room for; nothing is read meanwhile. */
    for (unsigned i = 0; i < 2500; i++)
        json_decref(
            works(bob, "vm.tell",
                  json_pack("{s:s, s:s, s:s, s:s}", "id", "com.vmware.vc.vm.Crypto.VMUnlocked", "message",
                            "a line that is as long as lines of events are, so that they fill a socket soon",
                            "vm", "web", "uuid", "00000000-0000-0000-0000-000000000000"),
                  NULL, 0, NULL));
    for (ssize_t n; (n = recv(follow, line, sizeof(line) - 1, 0)) > 0;) {
        line[n] = '\0';
        assert_false(lost); /* it is the last */
        lost = strstr(line, "\"lost\":") != NULL;
    }
    assert_true(lost);
    close(follow);
    close(bob);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_sees_its_own),
        cmocka_unit_test(no_answer_has_a_name_of_another_tenant),
        cmocka_unit_test(a_follower_gets_its_tenants_events),
        cmocka_unit_test(a_slow_follower_holds_nobody_up),
    };
    if (geteuid() != 0) {
        (void)printf("only root can connect as other users\n");
        return 77;
    }
    signal(SIGPIPE, SIG_IGN);
    (void)snprintf(folder, sizeof(folder), "/tmp/reseal-tenants-XXXXXX");
    if (mkdtemp(folder) == NULL) return 2;
    (void)snprintf(file, sizeof(file), "%s/policy.json", folder);
    write_policy();
    keyd_start(&k, file);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    keyd_stop(&k);
    (void)RUN("rm", "-rf", folder);
    return failed;
}
