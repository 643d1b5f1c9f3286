/* SPDX-License-Identifier: Apache-2.0 */

/* Clients that go take many keys along, while others open sessions: nobody loses the service over it. */

#include "offload/base/bytes.h"
#include "reseal/reseal.h"
#include "tests/support/service.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define KEYS    250u /* more than one message of anything holds */
#define ROUNDS  5u
#define OPENERS 4u

static const struct reseal_key_use use = {.size = sizeof(use),
                                          .cipher = RESEAL_XTS,
                                          .use = RESEAL_USE_SOURCE | RESEAL_USE_DESTINATION,
                                          .unit = 4096,
                                          .step = 8};
static atomic_bool stop;
static atomic_uint ready;
static atomic_int failure;

static reseal *connect_here(void)
{
    reseal *r = NULL;
    struct reseal_options o = {.size = sizeof(o), .runtime_dir = service.dir};
    return reseal_open(&r, &o) == 0 ? r : NULL;
}

/* How often reseald-work did not get keys of reseal-keyd: a client that may wait does not notice. */
static long long key_failures(void)
{
    reseal *r = connect_here();
    char *text = NULL;
    assert_non_null(r);
    assert_int_equal(reseal_status(r, &text), 0);
    reseal_close(r);
    const char *at = strstr(text, "\"key_failures\":");
    assert_non_null(at);
    long long n = strtoll(at + strlen("\"key_failures\":"), NULL, 10);
    free(text);
    return n;
}

static int open_session(reseal *r, const reseal_key *key, reseal_session **out)
{
    struct reseal_transform t = {.size = sizeof(t), .counter_at = RESEAL_NO_COUNTER};
    t.source = t.destination =
        (struct reseal_side){.cipher = RESEAL_XTS, .unit = 4096, .step = 8, .key = *key};
    return reseal_session_open(r, &t, out);
}

static void *opens_sessions(RS_UNUSED void *arg)
{
    reseal *r = connect_here();
    reseal_key key;
    int err = r != NULL ? reseal_key_random(r, 256, &use, &key) : RESEAL_ENOSERVICE;
    atomic_fetch_add(&ready, 1);
    while (err == 0 && !atomic_load(&stop)) {
        reseal_session *s = NULL;
        err = open_session(r, &key, &s);
        reseal_session_close(s);
    }
    if (err != 0) atomic_store(&failure, err);
    reseal_close(r);
    return NULL;
}

static void fill(reseal **r)
{
    reseal_key key;
    *r = connect_here();
    assert_non_null(*r);
    /* reseald-work hears of keys that it was given. */
    for (unsigned k = 0; k < KEYS; k++) {
        reseal_session *s;
        assert_int_equal(reseal_key_random(*r, 256, &use, &key), 0);
        assert_int_equal(open_session(*r, &key, &s), 0);
    }
}

static void nobody_loses_the_service(RS_UNUSED void **state)
{
    pthread_t threads[OPENERS];
    reseal *leavers[3];
    for (unsigned i = 0; i < OPENERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, opens_sessions, NULL), 0);
    while (atomic_load(&ready) < OPENERS) sched_yield();
    for (unsigned round = 0; round < ROUNDS && atomic_load(&failure) == 0; round++) {
        for (unsigned i = 0; i < RS_ARRAY_LEN(leavers); i++) fill(&leavers[i]);
        for (unsigned i = 0; i < RS_ARRAY_LEN(leavers); i++) reseal_close(leavers[i]);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < OPENERS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(atomic_load(&failure), 0);
    assert_int_equal(key_failures(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nobody_loses_the_service)};
    return cmocka_run_group_tests(tests, service_group_start, service_group_stop);
}
