/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tenant's max-sessions counts all its users together, and hinders no other tenant; a session that is
 * closed makes room. The standing of the service shows a user its own tenant's clients and sessions, and
 * nobody else's.
 */
#include "tests/support/client.h"
#include "tests/support/cmocka.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALICE 60001u
#define ANNE  60002u /* of alice's tenant */
#define BOB   60003u

static struct client c;
static char policy[64];

static void write_policy(void)
{
    int fd = mkstemp(policy);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (f == NULL) exit(2);
    fprintf(f,
            "{\"version\": 1, \"tenants\": {\n"
            "  \"acme\": {\"users\": [%u, %u], \"max-sessions\": 2},\n"
            "  \"blue\": {\"users\": [%u]}},\n"
            " \"pairs\": [{\"for\": \"*\", \"from\": \"*\", \"to\": \"*\"}]}\n",
            ALICE, ANNE, BOB);
    if (fclose(f) != 0) exit(2);
}

static reseal_key key_of(reseal *r)
{
    return client_random_key(r, RESEAL_XTS);
}

/* The kernel tells the service who connects, which is at the first key; what is asked later is of the same
 * connections. */
static reseal *connect_as(uid_t uid)
{
    assert_int_equal(seteuid(uid), 0);
    reseal *r = client_connect(&c);
    if (uid != 0) (void)key_of(r);
    assert_int_equal(seteuid(0), 0);
    return r;
}

static int open_session(reseal *r, reseal_session **out)
{
    const struct reseal_side side = client_xts(key_of(r));
    const struct reseal_transform t = {
        .size = sizeof(t), .counter_at = RESEAL_NO_COUNTER, .source = side, .destination = side};
    return reseal_session_open(r, &t, out);
}

/* The service sees a moment later that a client is gone: so long its sessions count. */
static void open_when_there_is_room(reseal *r, reseal_session **out)
{
    int err = RESEAL_ELIMIT;
    for (unsigned tries = 0; err == RESEAL_ELIMIT && tries < 3000; tries++) {
        if (tries > 0) poll(NULL, 0, 20);
        err = open_session(r, out);
    }
    assert_int_equal(err, 0);
}

/* Whether its standing names this. */
static bool sees(reseal *r, const char *words)
{
    char *text = NULL;
    assert_int_equal(reseal_status(r, &text), 0);
    bool found = strstr(text, words) != NULL;
    free(text);
    return found;
}

/* Not the digits alone: times and counts may have them, too. */
static bool sees_user(reseal *r, uid_t uid)
{
    char words[32];
    (void)snprintf(words, sizeof(words), "\"uid\": %u", uid);
    return sees(r, words);
}

static void sessions_of_all_users_of_a_tenant_count(void **state)
{
    (void)state;
    reseal *alice = connect_as(ALICE), *anne = connect_as(ANNE), *bob = connect_as(BOB);
    reseal_session *first = NULL, *second = NULL, *third = NULL, *bobs[3] = {NULL, NULL, NULL};
    assert_int_equal(open_session(alice, &first), 0);
    assert_int_equal(open_session(anne, &second), 0);
    assert_int_equal(open_session(anne, &third), RESEAL_ELIMIT);
    assert_int_equal(open_session(alice, &third), RESEAL_ELIMIT);
    assert_non_null(strstr(reseal_strerror(RESEAL_ELIMIT), "tenant"));
    for (unsigned i = 0; i < 3; i++) assert_int_equal(open_session(bob, &bobs[i]), 0);
    reseal_session_close(first);
    assert_int_equal(open_session(anne, &third), 0);
    assert_int_equal(open_session(alice, &first), RESEAL_ELIMIT);
    reseal_close(anne);
    open_when_there_is_room(alice, &first);
    reseal_close(alice);
    reseal_close(bob);
}

static void standing_is_of_ones_own_tenant(void **state)
{
    (void)state;
    reseal *alice = connect_as(ALICE), *anne = connect_as(ANNE), *bob = connect_as(BOB),
           *root = connect_as(0);
    reseal_session *session;
    open_when_there_is_room(alice, &session);
    open_when_there_is_room(anne, &session);
    assert_int_equal(open_session(bob, &session), 0);
    assert_true(sees(alice, "\"acme\"") && sees_user(alice, ALICE) && sees_user(alice, ANNE));
    assert_true(sees_user(anne, ALICE));
    assert_false(sees(alice, "blue") || sees_user(alice, BOB));
    assert_true(sees(bob, "\"blue\"") && sees_user(bob, BOB));
    assert_false(sees(bob, "acme") || sees_user(bob, ALICE) || sees_user(bob, ANNE));
    assert_true(sees(root, "\"acme\"") && sees(root, "\"blue\""));
    reseal_close(alice);
    reseal_close(anne);
    reseal_close(bob);
    reseal_close(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sessions_of_all_users_of_a_tenant_count),
                                       cmocka_unit_test(standing_is_of_ones_own_tenant)};
    static const char *const sockets[] = {"control.sock", "keys.sock"};
    char path[300];
    signal(SIGPIPE, SIG_IGN);
    if (geteuid() != 0) {
        printf("only root can connect as other users\n");
        return 77;
    }
    client_require_service();
    (void)snprintf(policy, sizeof(policy), "/tmp/reseal-policy-XXXXXX");
    write_policy();
    service_start_with(&c.service, (const char *const[]){"--policy", policy, NULL});
    /* The group that a service is for may connect; here everybody. */
    if (chmod(c.service.dir, 0755) != 0) return 2;
    for (unsigned i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", c.service.dir, sockets[i]);
        if (chmod(path, 0666) != 0) return 2;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    service_stop(&c.service);
    unlink(policy);
    return failed;
}
