/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A policy that names disks by their key provider: those of one may become those of another, nothing else;
 * nor is there a way around by another key for the same disk.
 */
#include "tests/support/client.h"
#include "tests/support/cmocka.h"
#include "tests/support/keycalls.h"
#include "tests/support/keyd.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct client c;
static char policy[64];

static void write_policy(void)
{
    int fd = mkstemp(policy);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (f == NULL) exit(2);
    fprintf(f,
            "{\"version\": 1, \"tenants\": {\"t\": {\"users\": [%u], \"roles\": [\"Administrator\"]}},\n"
            " \"pairs\": [{\"for\": \"tenant:t\", \"from\": \"provider:a\", \"to\": \"provider:b\"}]}\n",
            getuid());
    if (fclose(f) != 0) exit(2);
}

/* A new disk of a provider: its header (-1: not wanted), and a side that its key fits. */
static struct reseal_side disk(const char *provider, bool recovery, int *header)
{
    int fd = -1;
    reseal_key key;
    RS_CLOSE int phrase = text_fd("of the owner", 12);
    json_t *made = call_works(c.r, "disk.format",
                              json_pack("{s:s, s:i, s:I, s:b, s:i}", "provider", provider, "use", 3,
                                        "data_size", (json_int_t)65536, "recovery", recovery, "pbkdf_ms", 5),
                              &phrase, recovery ? 1 : 0, &fd);
    assert_int_equal(rs_keyservice_handle(made, &key), 0);
    json_decref(made);
    if (header != NULL)
        *header = fd;
    else
        close(fd);
    return (struct reseal_side){.cipher = RESEAL_XTS, .unit = 4096, .step = 8, .key = key};
}

static int session(struct reseal_side from, struct reseal_side to)
{
    const struct reseal_transform t = {
        .size = sizeof(t), .counter_at = RESEAL_NO_COUNTER, .source = from, .destination = to};
    reseal_session *s = NULL;
    int r = reseal_session_open(c.r, &t, &s);
    if (r == 0) reseal_session_close(s);
    return r;
}

static void disks_of_a_become_disks_of_b(void **state)
{
    (void)state;
    const struct reseal_side a = disk("a", false, NULL), b = disk("b", false, NULL),
                             other = disk("c", false, NULL), owned = disk("b", true, NULL),
                             plain = {.cipher = RESEAL_PLAIN, .unit = 4096};
    assert_int_equal(session(a, b), 0);
    assert_int_equal(session(b, a), RESEAL_EPAIR);
    assert_int_equal(session(a, a), RESEAL_EPAIR);
    assert_int_equal(session(a, other), RESEAL_EPAIR);
    assert_int_equal(session(other, b), RESEAL_EPAIR);
    assert_int_equal(session(a, plain), RESEAL_EPAIR);
    assert_int_equal(session(plain, b), RESEAL_EPAIR);
    assert_int_equal(session(a, owned), RESEAL_EPERM); /* its owner's phrase makes it plain */
}

static void another_key_for_a_disk_is_no_way_around(void **state)
{
    (void)state;
    int header;
    (void)disk("a", false, &header);
    RS_CLOSE int of_a = header, of_b = -1;
    call_refused(c.r, "disk.rewrap", json_pack("{s:s}", "provider", "c"), &of_a, 1, RESEAL_EPAIR,
                 "provider:a -> provider:c is not granted");
    json_decref(call_works(c.r, "disk.rewrap", json_pack("{s:s}", "provider", "a"), &of_a, 1, NULL));
    json_decref(call_works(c.r, "disk.rewrap", json_pack("{s:s}", "provider", "b"), &of_a, 1, &of_b));
    call_refused(c.r, "disk.rewrap", json_pack("{s:s}", "provider", "a"), &of_b, 1, RESEAL_EPAIR,
                 "provider:b -> provider:a is not granted");
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const int fds[2] = {of_b, ends[1]};
    call_refused(c.r, "disk.phrase", NULL, fds, 2, RESEAL_EPAIR, "-> plain is not granted");
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(disks_of_a_become_disks_of_b),
                                       cmocka_unit_test(another_key_for_a_disk_is_no_way_around)};
    signal(SIGPIPE, SIG_IGN);
    client_require_service();
    (void)snprintf(policy, sizeof(policy), "/tmp/reseal-policy-XXXXXX");
    write_policy();
    service_start_with(&c.service, (const char *const[]){"--policy", policy, NULL});
    c.r = client_connect(&c);
    call_native_provider(c.r, "a");
    call_native_provider(c.r, "b");
    call_native_provider(c.r, "c");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    client_stop(&c);
    unlink(policy);
    return failed;
}
