/* SPDX-License-Identifier: Apache-2.0 */

/* Every pair of sides through a real service gives back what went in. */

#include "offload/base/bytes.h"
#include "reseal/reseal.h"
#include "tests/support/service.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define UNIT 4096u
#define LEN  (16u * UNIT)

static reseal_key random_key(reseal *r, uint32_t cipher)
{
    reseal_key key;
    struct reseal_key_use use = {.size = sizeof(use),
                                 .cipher = cipher,
                                 .use = RESEAL_USE_SOURCE | RESEAL_USE_DESTINATION,
                                 .unit = cipher == RESEAL_XTS ? UNIT : 0,
                                 .step = cipher == RESEAL_XTS ? 8 : 0};
    assert_int_equal(reseal_key_random(r, 256, &use, &key), 0);
    return key;
}

static struct reseal_side side_of(uint32_t cipher, reseal_key key)
{
    struct reseal_side side = {.cipher = cipher, .key = key};
    if (cipher == RESEAL_XTS) side.step = 8;
    if (cipher != RESEAL_GCM) side.unit = UNIT;
    return side;
}

static reseal_session *session_of(reseal *r, struct reseal_side from, struct reseal_side to)
{
    reseal_session *s;
    struct reseal_transform t = {
        .size = sizeof(t), .counter_at = RESEAL_NO_COUNTER, .source = from, .destination = to};
    int e = reseal_session_open(r, &t, &s);
    if (e != 0) print_error("%s\n", reseal_strerror(e));
    assert_int_equal(e, 0);
    return s;
}

static void run(reseal_session *s, const uint8_t *in, uint8_t *out, struct reseal_record *source,
                struct reseal_record *destination)
{
    struct reseal_job job = {.session = s,
                             .in = in,
                             .out = out,
                             .len = LEN,
                             .src_tweak = 16,
                             .dst_tweak = 16,
                             .source = source,
                             .destination = destination};
    int64_t n = reseal_run(s, &job);
    if (n < 0) print_error("%s\n", reseal_strerror((int)n));
    assert_int_equal(n, LEN);
}

/* plain -> a -> b -> plain */
static void chain(reseal *r, uint32_t a, uint32_t b)
{
    uint8_t *plain = malloc(LEN), *one = malloc(LEN), *two = malloc(LEN), *back = malloc(LEN);
    struct reseal_record ra = {0}, rb = {0};
    struct reseal_side none = side_of(RESEAL_PLAIN, (reseal_key){{0, 0}});
    struct reseal_side sa = side_of(a, random_key(r, a)), sb = side_of(b, random_key(r, b));
    reseal_session *in = session_of(r, none, sa), *mid = session_of(r, sa, sb),
                   *out = session_of(r, sb, none);
    for (unsigned i = 0; i < LEN; i++) plain[i] = (uint8_t)(i * 7 + i / 251);
    memset(back, 0, LEN);
    run(in, plain, one, NULL, a == RESEAL_GCM ? &ra : NULL);
    ra.derive = 1;
    run(mid, one, two, a == RESEAL_GCM ? &ra : NULL, b == RESEAL_GCM ? &rb : NULL);
    rb.derive = 1;
    run(out, two, back, b == RESEAL_GCM ? &rb : NULL, NULL);
    assert_memory_equal(plain, back, LEN);
    assert_memory_not_equal(plain, one, LEN);
    assert_memory_not_equal(one, two, LEN);
    reseal_session_close(in);
    reseal_session_close(mid);
    reseal_session_close(out);
    free(plain);
    free(one);
    free(two);
    free(back);
}

static void every_pair(RS_UNUSED void **state)
{
    reseal *r;
    struct reseal_options o = {.size = sizeof(o), .runtime_dir = service.dir};
    assert_int_equal(reseal_open(&r, &o), 0);
    chain(r, RESEAL_XTS, RESEAL_XTS);
    chain(r, RESEAL_XTS, RESEAL_GCM);
    chain(r, RESEAL_GCM, RESEAL_XTS);
    chain(r, RESEAL_GCM, RESEAL_GCM);
    reseal_close(r);
}

int main(void)
{
    if (!service_is_built()) return 77;
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_pair)};
    return cmocka_run_group_tests(tests, service_group_start, service_group_stop);
}
