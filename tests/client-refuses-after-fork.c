/* SPDX-License-Identifier: Apache-2.0 */
/* A child may not use what its parent opened; it is told so, and can open its own. The parent notices
 * nothing. */
#include "tests/support/client.h"
#include "tests/support/cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static struct client c;
static reseal_session *s;
static reseal_queue *q;
static uint8_t *arena;

/* In the child: no assertion of cmocka's, whose failure would run on in two processes. */
static int child(void)
{
    struct reseal_job job = {.session = s, .in = arena, .out = arena, .len = 4096};
    struct reseal_completion done;
    reseal_session *t;
    reseal_queue *p;
    reseal_key key;
    char *json;
    uint8_t bytes[4096] = {0};
    const struct reseal_key_use use = {.size = sizeof(use), .cipher = RESEAL_GCM, .use = RESEAL_USE_SOURCE};
    const struct reseal_transform transform = {.size = sizeof(transform)};
    if (reseal_submit(q, &job, 1) != RESEAL_EFORK) return 1;
    if (reseal_poll(q, &done, 1) != RESEAL_EFORK) return 2;
    if (reseal_wait(q, &done, 1, -1) != RESEAL_EFORK) return 3;
    if (reseal_cancel(q, 0) != RESEAL_EFORK) return 4;
    if (reseal_queue_fd(q) != RESEAL_EFORK) return 5;
    if (reseal_queue_arena(q, NULL) != NULL) return 6;
    if (reseal_queue_open(c.r, NULL, &p) != RESEAL_EFORK) return 7;
    if (reseal_session_open(c.r, &transform, &t) != RESEAL_EFORK) return 8;
    if (reseal_key_random(c.r, 256, &use, &key) != RESEAL_EFORK) return 9;
    if (reseal_status(c.r, &json) != RESEAL_EFORK) return 10;
    job.in = job.out = bytes;
    if (reseal_run(s, &job) != RESEAL_EFORK) return 11;
    /* The arena is not inherited: the page is not there. */
    unsigned char present;
    if (mincore(arena, 4096, &present) == 0) return 12;
    reseal_session_close(s);
    reseal_queue_close(q);
    reseal_close(c.r);
    struct client own = {.service = c.service, .r = client_connect(&c)};
    t = client_session(own.r, client_xts(client_random_key(own.r, RESEAL_XTS)),
                       client_xts(client_random_key(own.r, RESEAL_XTS)), 0);
    if (reseal_run(t, &job) != 4096) return 13;
    reseal_close(own.r);
    return 0;
}

static void a_child_opens_its_own(void **state)
{
    (void)state;
    uint8_t before[4096] = {0}, after[4096] = {0};
    struct reseal_job job = {.in = before, .out = after, .len = 4096};
    assert_int_equal(reseal_run(s, &job), 4096);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) _exit(child());
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    uint8_t again[4096];
    job.out = again;
    assert_int_equal(reseal_run(s, &job), 4096);
    assert_memory_equal(after, again, 4096);
    struct reseal_completion done;
    job = (struct reseal_job){.session = s, .in = arena, .out = arena, .len = 4096};
    assert_int_equal(reseal_submit(q, &job, 1), 1);
    assert_int_equal(reseal_wait(q, &done, 1, -1), 1);
    assert_int_equal(done.status, 0);
}

int main(void)
{
    client_require_service();
    client_start(&c);
    s = client_session(c.r, client_xts(client_random_key(c.r, RESEAL_XTS)),
                       client_xts(client_random_key(c.r, RESEAL_XTS)), 0);
    q = client_queue(c.r, 4, 65536);
    arena = reseal_queue_arena(q, NULL);
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_child_opens_its_own)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    client_stop(&c);
    return failed;
}
