/* SPDX-License-Identifier: Apache-2.0 */
/* reseal-keyd obeys its policy file: pairs, grants, limits, privileges; reads it again at SIGHUP; keeps the
 * old one when the new one is wrong. */
#include "tests/support/keyd.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct keyd k;
static char folder[64], file[100];

static const struct rs_msg_key_use in = {
    .cipher = RESEAL_XTS, .use = 3, .unit = 512, .step = 1, .name = "in"};
static const struct rs_msg_key_use out = {
    .cipher = RESEAL_XTS, .use = 3, .unit = 512, .step = 1, .name = "out"};
static const struct rs_msg_key_use vault = {
    .cipher = RESEAL_XTS, .use = 3, .unit = 512, .bits = 256, .step = 1, .name = "vault"};

#define GUEST 60002u /* in the policy below */

static bool guest = true; /* the tenant has that user too */

static void write_policy(const char *privilege, const char *grants, const char *tail)
{
    char text[1024];
    (void)snprintf(
        text, sizeof(text),
        "{\"version\": 1,\n \"tenants\": {\"t\": {\"users\": [%u%s], \"max-keys\": 3, \"weight\": 7}},\n"
        " \"privileges\": [{\"to\": \"tenant:t\", \"allow\": [%s]}],\n \"pairs\": [\n"
        "  {\"for\": \"tenant:t\", \"from\": \"raw:in\", \"to\": \"raw:out\", \"grants\": [%s]},\n"
        "  {\"for\": \"tenant:t\", \"from\": \"raw:in\", \"to\": \"random:vault\"}]}%s\n",
        getuid(), guest ? ", 60002" : "", privilege, grants, tail);
    char fresh[120];
    (void)snprintf(fresh, sizeof(fresh), "%s.new", file);
    RS_CLOSE int fd = open(fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || rs_write_full(fd, text, strlen(text)) != 0 || rename(fresh, file) != 0) exit(2);
}

static int session(reseal_key from, reseal_key to, uint32_t stages)
{
    struct rs_msg_session_keys keys;
    struct rs_msg_session_request q = session_of(RESEAL_XTS, from, RESEAL_XTS, to, 512, 1);
    q.transform.stages = stages;
    if (to.id[0] == 0 && to.id[1] == 0) q.transform.destination.cipher = RESEAL_PLAIN;
    int r = keyd_session(&k, &q, &keys);
    if (r == 0) assert_string_equal(keys.tenant, "t");
    if (r == 0) assert_int_equal(keys.weight, 7);
    return r;
}

static void the_policy_file_is_obeyed_and_read_again(void **state)
{
    (void)state;
    int sock = keyd_connect(&k);
    uint8_t bytes[64];
    reseal_key from, to, hidden, fourth;
    const reseal_key plain = {{0, 0}};
    for (unsigned i = 0; i < sizeof(bytes); i++) bytes[i] = (uint8_t)i;
    assert_int_equal(keyd_raw(sock, bytes, 64, &in, &from), 0);
    bytes[0]++;
    assert_int_equal(keyd_raw(sock, bytes, 64, &out, &to), 0);
    assert_int_equal(keyd_random(sock, &vault, &hidden), 0);
    assert_int_equal(keyd_random(sock, &vault, &fourth), RESEAL_ELIMIT);
    assert_int_equal(session(from, hidden, 0), 0);
    assert_int_equal(session(from, hidden, RESEAL_STAGE_ZERO), RESEAL_EPERM);
    assert_int_equal(session(hidden, from, 0), RESEAL_EPAIR);
    assert_int_equal(session(from, plain, 0), RESEAL_EPAIR);
    assert_int_equal(session(from, to, 0), RESEAL_EPERM); /* a key the client knows counts as plain */

    write_policy("\"Cryptographer.Access\"", "\"digest\"", "");
    assert_int_equal(kill(k.pid, SIGHUP), 0);
    while (session(from, to, RESEAL_STAGE_DIGEST) == 0) continue; /* plain-out is missing still */
    assert_int_equal(session(from, to, 0), RESEAL_EPERM);
    write_policy("\"Cryptographer.Access\"", "\"plain-out\"", "");
    assert_int_equal(kill(k.pid, SIGHUP), 0);
    while (session(from, to, 0) == RESEAL_EPERM) usleep(1000);
    assert_int_equal(session(from, to, 0), 0);

    write_policy("", "", "}"); /* does not parse: the old one stays */
    assert_int_equal(kill(k.pid, SIGHUP), 0);
    char *text = keyd_text(sock, RS_MSG_POLICY);
    assert_non_null(strstr(text, "\"plain-out\""));
    free(text);
    assert_int_equal(session(from, to, 0), 0);
    close(sock);
}

/* Its connection ends with the policy that does not name it; nobody else's does. */
static void who_leaves_the_policy_is_closed(void **state)
{
    (void)state;
    if (geteuid() != 0) skip();
    reseal_key key;
    int mine = keyd_connect(&k), its = keyd_connect_as(&k, GUEST);
    assert_int_equal(keyd_random(its, &vault, &key), 0);
    guest = false;
    write_policy("", "\"plain-out\"", "");
    assert_int_equal(kill(k.pid, SIGHUP), 0);
    struct pollfd gone = {.fd = its, .events = POLLIN};
    assert_int_equal(poll(&gone, 1, 60000), 1);
    assert_int_equal(read(its, &key, 1), 0);
    assert_int_equal(keyd_random(mine, &vault, &key), 0);
    close(its);
    close(mine);
}

static void users_of_no_tenant_are_refused(void **state)
{
    (void)state;
    struct rs_msg_session_request q = {.uid = 4242, .gid = 4242};
    struct rs_msg_session_keys keys;
    q.transform.source.unit = q.transform.destination.unit = 512;
    assert_int_equal(keyd_session(&k, &q, &keys), RESEAL_EPERM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_policy_file_is_obeyed_and_read_again),
        cmocka_unit_test(who_leaves_the_policy_is_closed),
        cmocka_unit_test(users_of_no_tenant_are_refused),
    };
    signal(SIGPIPE, SIG_IGN);
    (void)snprintf(folder, sizeof(folder), "/tmp/reseal-policy-XXXXXX");
    if (mkdtemp(folder) == NULL) return 2;
    (void)snprintf(file, sizeof(file), "%s/policy.json", folder);
    write_policy("", "\"plain-out\"", "");
    keyd_start(&k, file);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    keyd_stop(&k);
    (void)RUN("rm", "-rf", folder);
    return failed;
}
