/* SPDX-License-Identifier: Apache-2.0 */
/* A user who asks again and again for keys that are not there fills neither the journal of events nor the
 * audit: repeats are counted, and many different ones together. What others do is told as ever. */
#include "offload/base/keymem.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"
#include "tests/support/keyd.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct keyd keyd;

static void probe(int sock, const char *key)
{
    json_t *reply;
    assert_int_equal(keyd_ask(sock, "kek.status", json_pack("{s:s, s:s}", "provider", "nowhere", "key", key),
                              NULL, 0, &reply, NULL),
                     0);
    assert_true(json_is_false(json_object_get(reply, "available")));
    json_decref(reply);
}

struct told {
    unsigned lines;
    json_int_t times; /* that these lines stand for */
    uint64_t last;
};

/* Lines after `since`: of events, or of the audit. */
static struct told told_since(int sock, const char *journal, uint64_t since)
{
    struct told t = {.last = since};
    for (bool more = true; more;) {
        json_t *reply, *line;
        char method[32];
        size_t i;
        (void)snprintf(method, sizeof(method), "%s.list", journal);
        assert_int_equal(
            keyd_ask(sock, method, json_pack("{s:I}", "since", (json_int_t)t.last), NULL, 0, &reply, NULL),
            0);
        const json_t *list = json_object_get(reply, strcmp(journal, "event") == 0 ? "events" : "audit");
        if (list == NULL) fail_msg("%s: no lines: %s", method, json_dumps(reply, 0));
        json_array_foreach(list, i, line)
        {
            const json_t *times = json_object_get(json_object_get(line, "details"), "times");
            t.lines++;
            t.times += times != NULL ? json_integer_value(times) : 1;
        }
        t.last = (uint64_t)json_integer_value(json_object_get(reply, "last"));
        more = json_is_true(json_object_get(reply, "more"));
        json_decref(reply);
    }
    return t;
}

static void the_same_thing_is_counted(void **state)
{
    int sock = keyd_connect(&keyd);
    struct told events = told_since(sock, "event", 0), audit = told_since(sock, "audit", 0);
    (void)state;
    for (unsigned i = 0; i < 150; i++) probe(sock, "the same");
    struct told e = told_since(sock, "event", events.last), a = told_since(sock, "audit", audit.last);
    /* The first, the tenth, the hundredth; a minute may have ended between on a slow machine. */
    assert_in_range(e.lines, 3, 9);
    assert_in_range(e.times, 100, 150);
    assert_in_range(a.lines, 3, 9);
    assert_in_range(a.times, 100, 150);
    close(sock);
}

static void each_use_of_a_key_has_its_line(void **state)
{
    int sock = keyd_connect(&keyd), backup = -1;
    int password = text_fd("of the backup", 13);
    json_t *reply;
    (void)state;
    assert_int_equal(
        keyd_ask(sock, "provider.add",
                 json_pack("{s:s, s:s, s:{s:i}}", "name", "safe", "kind", "native", "config", "cache_s", 0),
                 NULL, 0, NULL, NULL),
        0);
    assert_int_equal(keyd_ask(sock, "provider.export", json_pack("{s:s}", "provider", "safe"), &password, 1,
                              NULL, &backup),
                     0);
    close(password);
    close(backup);
    assert_int_equal(
        keyd_ask(sock, "kek.make", json_pack("{s:s}", "provider", "safe"), NULL, 0, &reply, NULL), 0);
    struct told audit = told_since(sock, "audit", 0);
    for (unsigned i = 0; i < 40; i++) {
        json_t *status;
        assert_int_equal(
            keyd_ask(sock, "kek.status",
                     json_pack("{s:s, s:O}", "provider", "safe", "key", json_object_get(reply, "key")), NULL,
                     0, &status, NULL),
            0);
        assert_true(json_is_true(json_object_get(status, "available")));
        json_decref(status);
    }
    struct told a = told_since(sock, "audit", audit.last);
    assert_int_equal(a.lines, 40);
    json_decref(reply);
    close(sock);
}

/* A user without any privilege. */
static struct told many_things(const struct keyd *k, const char *journal)
{
    int sock = keyd_connect_as(k, 3);
    char key[32];
    struct told before = told_since(sock, journal, 0);
    for (unsigned i = 0; i < 1000; i++) {
        (void)snprintf(key, sizeof(key), "key %u", i);
        probe(sock, key);
    }
    struct told after = told_since(sock, journal, before.last);
    close(sock);
    return after;
}

/* Another user's first is told, whatever the one before did; many things of one user are counted together. */
static void users_are_counted_apart(void **state)
{
    static const char policy[] =
        "{\"version\": 1, \"tenants\": {\"one\": {\"users\": [1, 2, 3]}}, \"privileges\": [], \"pairs\": []}";
    struct keyd two = {0};
    char path[64] = "/tmp/reseal-policy-XXXXXX";
    (void)state;
    if (getuid() != 0) skip();
    RS_CLOSE int fd = mkstemp(path);
    assert_true(write(fd, policy, sizeof(policy) - 1) == (ssize_t)sizeof(policy) - 1);
    keyd_start(&two, path);
    int first = keyd_connect_as(&two, 1), second = keyd_connect_as(&two, 2);
    for (unsigned i = 0; i < 5; i++) probe(first, "k");
    struct told before = told_since(first, "event", 0);
    probe(second, "k");
    assert_true(told_since(first, "event", before.last).lines == 1);
    close(first);
    close(second);
    /* A minute may end in the middle of it on a slow machine. */
    struct told e = many_things(&two, "event"), a = many_things(&two, "audit");
    assert_in_range(e.lines, 3, 300);
    assert_in_range(e.times, 100, 1000);
    assert_in_range(a.lines, 1, 300);
    keyd_stop(&two);
    unlink(path);
}

static int start(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    keyd_start(&keyd, NULL);
    return rs_keymem_init(0);
}

static int stop(void **state)
{
    (void)state;
    keyd_stop(&keyd);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_thing_is_counted),
        cmocka_unit_test(each_use_of_a_key_has_its_line),
        cmocka_unit_test(users_are_counted_apart),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
