/* SPDX-License-Identifier: Apache-2.0 */
/* Handles: who owns a key, what it is bound to, when it goes, and that reseald-work hears of it. */
#include "providers/key/keyd.h"
#include "tests/support/keyd.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct keyd k;
static const reseal_key no_key;
static const struct rs_msg_key_use xts4k = {
    .cipher = RESEAL_XTS, .use = 3, .unit = 4096, .bits = 256, .step = 8};
static const struct rs_msg_key_use gcm = {.cipher = RESEAL_GCM, .use = 3, .bits = 256};

static bool same_key(reseal_key a, reseal_key b)
{
    return memcmp(&a, &b, sizeof(a)) == 0;
}

/* Waits until reseald-work heard that a key is gone. */
static void hear_of(const struct keyd *d, reseal_key key)
{
    while (!same_key(keyd_revoked(d), key)) continue;
}

static void random_keys_reach_a_session_and_nobody_else(void **state)
{
    (void)state;
    int sock = keyd_connect(&k);
    reseal_key a, b;
    struct rs_msg_session_keys keys, again;
    assert_int_equal(keyd_random(sock, &xts4k, &a), 0);
    assert_int_equal(keyd_random(sock, &xts4k, &b), 0);
    assert_false(same_key(a, b));
    struct rs_msg_session_request q = session_of(RESEAL_XTS, a, RESEAL_XTS, b, 4096, 8);
    assert_int_equal(keyd_session(&k, &q, &keys), 0);
    assert_int_equal(keys.src_bits, 256);
    assert_int_equal(keys.src_len, 64);
    assert_int_equal(keys.dst_len, 64);
    assert_string_equal(keys.tenant, "private");
    assert_memory_not_equal(keys.src, keys.dst, 64);
    assert_int_equal(keyd_session(&k, &q, &again), 0);
    again.use = keys.use; /* each session has its number */
    assert_memory_equal(&keys, &again, sizeof(keys));
    q.pid++; /* another process */
    assert_int_equal(keyd_session(&k, &q, &keys), RESEAL_ENOKEY);
    q.pid--;
    q.uid++; /* another user */
    assert_int_equal(keyd_session(&k, &q, &keys), RESEAL_ENOKEY);
    close(sock);
}

/* Key memory is shared: many connections do not get a user more than its part. */
static void keys_of_a_user_have_a_limit(void **state)
{
    (void)state;
    int socks[64];
    unsigned n = 0, keys = 0;
    int e = 0;
    while (e == 0 && n < RS_ARRAY_LEN(socks)) {
        reseal_key key;
        unsigned here = 0;
        socks[n++] = keyd_connect(&k);
        while ((e = keyd_random(socks[n - 1], &xts4k, &key)) == 0) {
            keys++;
            here++;
        }
        if (here != 0) e = 0; /* this connection is full; is the next one? */
    }
    assert_int_equal(e, RESEAL_ELIMIT);
    assert_int_equal(keys, RS_KEYD_KEYS_OF_USER);
    while (n != 0) close(socks[--n]);
}

static void a_key_is_bound_to_cipher_use_unit_and_step(void **state)
{
    (void)state;
    int sock = keyd_connect(&k);
    struct rs_msg_key_use source = xts4k;
    struct rs_msg_session_keys keys;
    reseal_key a, b, g;
    source.use = RESEAL_USE_SOURCE;
    assert_int_equal(keyd_random(sock, &source, &a), 0);
    assert_int_equal(keyd_random(sock, &xts4k, &b), 0);
    assert_int_equal(keyd_random(sock, &gcm, &g), 0);
    struct rs_msg_session_request q = session_of(RESEAL_XTS, a, RESEAL_XTS, b, 4096, 8);
    assert_int_equal(keyd_session(&k, &q, &keys), 0);
    q = session_of(RESEAL_XTS, b, RESEAL_XTS, a, 4096, 8);
    assert_int_equal(keyd_session(&k, &q, &keys), RESEAL_EKEYBAD);
    q = session_of(RESEAL_XTS, a, RESEAL_XTS, b, 512, 8);
    assert_int_equal(keyd_session(&k, &q, &keys), RESEAL_EKEYBAD);
    q = session_of(RESEAL_XTS, a, RESEAL_XTS, b, 4096, 1);
    assert_int_equal(keyd_session(&k, &q, &keys), RESEAL_EKEYBAD);
    q = session_of(RESEAL_XTS, a, RESEAL_GCM, b, 4096, 8);
    assert_int_equal(keyd_session(&k, &q, &keys), RESEAL_EKEYBAD);
    q = session_of(RESEAL_GCM, a, RESEAL_GCM, g, 0, 0);
    assert_int_equal(keyd_session(&k, &q, &keys), RESEAL_EKEYBAD);
    q = session_of(RESEAL_PLAIN, a, RESEAL_XTS, b, 4096, 8);
    assert_int_equal(keyd_session(&k, &q, &keys), RESEAL_EKEYBAD);
    q = session_of(7, a, RESEAL_XTS, b, 4096, 8);
    assert_int_equal(keyd_session(&k, &q, &keys), RESEAL_EINVAL);
    close(sock);
}

static void a_gcm_destination_gets_a_fresh_subkey_each_time(void **state)
{
    (void)state;
    int sock = keyd_connect(&k);
    struct rs_msg_session_keys one, two;
    reseal_key a, g;
    assert_int_equal(keyd_random(sock, &xts4k, &a), 0);
    assert_int_equal(keyd_random(sock, &gcm, &g), 0);
    struct rs_msg_session_request q = session_of(RESEAL_XTS, a, RESEAL_GCM, g, 4096, 8);
    assert_int_equal(keyd_session(&k, &q, &one), 0);
    assert_int_equal(keyd_session(&k, &q, &two), 0);
    assert_int_equal(one.dst_len, 32);
    assert_int_equal(one.record_limit, UINT64_C(1) << 32);
    assert_memory_not_equal(one.salt, two.salt, sizeof(one.salt));
    assert_memory_not_equal(one.dst, two.dst, 32);
    q = session_of(RESEAL_GCM, g, RESEAL_XTS, a, 4096, 8); /* as a source it is the key itself */
    assert_int_equal(keyd_session(&k, &q, &one), 0);
    assert_memory_not_equal(one.src, two.dst, 32);
    q.transform.stages = RESEAL_STAGE_DIGEST;
    assert_int_equal(keyd_session(&k, &q, &one), 0);
    assert_int_equal(keyd_session(&k, &q, &two), 0);
    assert_memory_equal(one.digest, two.digest, 32);
    close(sock);
}

static void raw_keys_are_exact(void **state)
{
    (void)state;
    int sock = keyd_connect(&k), pipe_fds[2];
    uint8_t bytes[80];
    struct rs_msg_key_use use = xts4k, g = gcm;
    struct rs_msg_session_keys keys;
    reseal_key key, random;
    use.bits = g.bits = 0;
    for (unsigned i = 0; i < sizeof(bytes); i++) bytes[i] = (uint8_t)(i * 7);
    assert_int_equal(keyd_raw(sock, bytes, 64, &use, &key), 0);
    assert_int_equal(keyd_random(sock, &xts4k, &random), 0);
    struct rs_msg_session_request q = session_of(RESEAL_XTS, key, RESEAL_XTS, random, 4096, 8);
    assert_int_equal(keyd_session(&k, &q, &keys), 0);
    assert_memory_equal(keys.src, bytes, 64);
    assert_int_equal(keyd_raw(sock, bytes, 32, &use, &key), 0);
    assert_int_equal(keyd_raw(sock, bytes, 16, &g, &key), 0);
    assert_int_equal(keyd_raw(sock, bytes, 32, &g, &key), 0);
    static const size_t wrong[] = {0, 1, 31, 33, 48, 63, 65, 80};
    for (unsigned i = 0; i < RS_ARRAY_LEN(wrong); i++)
        assert_int_equal(keyd_raw(sock, bytes, wrong[i], &use, &key), RESEAL_EKEYBAD);
    assert_int_equal(keyd_raw(sock, bytes, 64, &g, &key), RESEAL_EKEYBAD);
    memcpy(bytes + 32, bytes, 32);
    assert_int_equal(keyd_raw(sock, bytes, 64, &use, &key), RESEAL_EKEYBAD); /* equal halves */
    bytes[40]++;
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(rs_write_full(pipe_fds[1], bytes, 64), 0);
    close(pipe_fds[1]);
    assert_int_equal(keyd_raw_fd(sock, pipe_fds[0], &use, &key), 0);
    close(pipe_fds[0]);
    close(sock);
}

static void closing_a_key_or_its_connection_revokes_it(void **state)
{
    (void)state;
    int one = keyd_connect(&k), two = keyd_connect(&k);
    struct rs_msg_session_keys keys;
    reseal_key a, b, unused;
    assert_int_equal(keyd_random(one, &xts4k, &a), 0);
    assert_int_equal(keyd_random(two, &xts4k, &b), 0);
    assert_int_equal(keyd_random(two, &xts4k, &unused), 0);
    struct rs_msg_session_request q = session_of(RESEAL_XTS, a, RESEAL_XTS, b, 4096, 8);
    assert_int_equal(keyd_session(&k, &q, &keys), 0);
    assert_int_equal(keyd_close(two, a), RESEAL_ENOKEY); /* another connection's */
    assert_int_equal(keyd_close(one, a), 0);
    hear_of(&k, a);
    assert_int_equal(keyd_close(one, a), RESEAL_ENOKEY);
    assert_int_equal(keyd_session(&k, &q, &keys), RESEAL_ENOKEY);
    close(two);
    hear_of(&k, b); /* and not of `unused`, which no session had: */
    const struct pollfd p = {.fd = k.work, .events = POLLIN};
    int sync = keyd_connect(&k);
    assert_int_equal(poll((struct pollfd[]){p}, 1, 0), 0);
    close(sync);
    close(one);
}

static void a_second_worker_hears_of_revocations_too(void **state)
{
    (void)state;
    int pair[2], sock = keyd_connect(&k);
    struct rs_msg_session_keys keys;
    reseal_key a;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(rs_msg_send(k.supervisor, RS_MSG_WORK_PAIR, 0, NULL, 0, &pair[1], 1, 0), 0);
    close(pair[1]);
    assert_int_equal(keyd_random(sock, &xts4k, &a), 0);
    struct rs_msg_session_request q = session_of(RESEAL_XTS, a, RESEAL_XTS, a, 4096, 8);
    assert_int_equal(keyd_session(&k, &q, &keys), 0);
    const struct keyd second = {.work = pair[0]};
    assert_int_equal(keyd_session(&second, &q, &keys), 0);
    close(sock);
    hear_of(&k, a);
    hear_of(&second, a);
    close(pair[0]);
    sock = keyd_connect(&k); /* the first pair goes on */
    assert_int_equal(keyd_random(sock, &xts4k, &a), 0);
    q = session_of(RESEAL_XTS, a, RESEAL_XTS, a, 4096, 8);
    assert_int_equal(keyd_session(&k, &q, &keys), 0);
    close(sock);
    hear_of(&k, a);
}

static void many_revocations_wait_for_a_slow_worker(void **state)
{
    (void)state;
    enum { KEYS = 900 };
    int sock = keyd_connect(&k);
    struct rs_msg_session_keys keys;
    reseal_key *all = calloc(KEYS, sizeof(*all));
    assert_non_null(all);
    for (unsigned i = 0; i < KEYS; i++) {
        assert_int_equal(keyd_random(sock, &xts4k, &all[i]), 0);
        struct rs_msg_session_request q = session_of(RESEAL_XTS, all[i], RESEAL_XTS, all[i], 4096, 8);
        assert_int_equal(keyd_session(&k, &q, &keys), 0);
    }
    close(sock);
    sock = keyd_connect(&k); /* others are served meanwhile */
    unsigned known = 0;
    while (known < KEYS) {
        reseal_key gone = keyd_revoked(&k);
        for (unsigned j = 0; j < KEYS; j++) known += same_key(gone, all[j]);
    }
    free(all);
    close(sock);
}

static void a_connection_has_a_limit_of_keys(void **state)
{
    (void)state;
    int sock = keyd_connect(&k);
    reseal_key key;
    for (unsigned i = 0; i < 1024; i++) assert_int_equal(keyd_random(sock, &xts4k, &key), 0);
    assert_int_equal(keyd_random(sock, &xts4k, &key), RESEAL_ELIMIT);
    assert_int_equal(keyd_close(sock, key), 0);
    assert_int_equal(keyd_random(sock, &xts4k, &key), 0);
    close(sock);
}

static void bad_requests_get_an_error_or_the_door(void **state)
{
    (void)state;
    int sock = keyd_connect(&k);
    reseal_key key;
    struct rs_msg_key_use use = xts4k;
    use.unit = 100;
    assert_int_equal(keyd_random(sock, &use, &key), RESEAL_EINVAL);
    use = xts4k;
    use.step = 0;
    assert_int_equal(keyd_random(sock, &use, &key), RESEAL_EINVAL);
    use = xts4k;
    use.use = 4;
    assert_int_equal(keyd_random(sock, &use, &key), RESEAL_EINVAL);
    use = xts4k;
    use.bits = 192;
    assert_int_equal(keyd_random(sock, &use, &key), RESEAL_EINVAL);
    use = xts4k;
    memset(use.name, 'x', sizeof(use.name)); /* no end */
    assert_int_equal(keyd_random(sock, &use, &key), RESEAL_EINVAL);
    use = xts4k;
    memcpy(use.name, "a*", 2); /* a name is no pattern */
    assert_int_equal(keyd_random(sock, &use, &key), RESEAL_EINVAL);
    assert_int_equal(keyd_close(sock, no_key), RESEAL_ENOKEY);
    assert_int_equal(rs_msg_call(sock, RS_MSG_KEY_RANDOM, &use, 8, NULL, 0, &key, 16, NULL, 0),
                     RESEAL_ENOSERVICE);
    close(sock);
    sock = keyd_dial(&k); /* no hello */
    assert_int_equal(keyd_random(sock, &xts4k, &key), RESEAL_ENOSERVICE);
    close(sock);
    sock = keyd_connect(&k);
    assert_int_equal(rs_msg_call(sock, RS_MSG_SESSION_KEYS, NULL, 0, NULL, 0, NULL, 0, NULL, 0),
                     RESEAL_ENOSERVICE);
    close(sock);
    const struct rs_msg_hello future = {.min_version = 2, .max_version = 9};
    struct rs_msg_welcome welcome;
    sock = keyd_dial(&k);
    assert_int_equal(
        rs_msg_call(sock, RS_MSG_HELLO, &future, sizeof(future), NULL, 0, &welcome, sizeof(welcome), NULL, 0),
        RESEAL_EVERSION);
    close(sock);
}

static void another_user_is_refused_by_a_private_service(void **state)
{
    (void)state;
    if (getuid() != 0) skip();
    pid_t pid = fork();
    if (pid == 0) {
        const struct rs_msg_hello hello = {.min_version = 1, .max_version = 1};
        struct rs_msg_welcome w;
        if (setgid(65534) != 0 || setuid(65534) != 0) _exit(2);
        int sock = keyd_dial(&k);
        int r = rs_msg_call(sock, RS_MSG_HELLO, &hello, sizeof(hello), NULL, 0, &w, sizeof(w), NULL, 0);
        _exit(r == RESEAL_EPERM ? 0 : 1);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void a_restart_forgets_keys_and_says_so(void **state)
{
    (void)state;
    int sock = keyd_connect(&k);
    struct rs_msg_session_keys keys;
    reseal_key a, b;
    assert_int_equal(keyd_random(sock, &xts4k, &a), 0);
    keyd_restart(&k, NULL);
    close(sock);
    sock = keyd_connect(&k);
    struct rs_msg_session_request q = session_of(RESEAL_XTS, a, RESEAL_XTS, a, 4096, 8);
    assert_int_equal(keyd_session(&k, &q, &keys), RESEAL_EKEYGONE);
    assert_int_equal(keyd_random(sock, &xts4k, &b), 0);
    b.id[0]++; /* of this instance, but never given */
    q = session_of(RESEAL_XTS, b, RESEAL_XTS, b, 4096, 8);
    assert_int_equal(keyd_session(&k, &q, &keys), RESEAL_ENOKEY);
    close(sock);
}

static void status_tells_protections_and_no_key(void **state)
{
    (void)state;
    int sock = keyd_connect(&k);
    reseal_key a;
    assert_int_equal(keyd_random(sock, &xts4k, &a), 0);
    char *text = keyd_text(sock, RS_MSG_STATUS);
    static const char *const parts[] = {"\"key_memory\"", "\"protections\"", "\"seccomp\"", "\"landlock\"",
                                        "\"keys\": 1"};
    for (unsigned i = 0; i < RS_ARRAY_LEN(parts); i++) assert_non_null(strstr(text, parts[i]));
    free(text);
    text = keyd_text(sock, RS_MSG_POLICY);
    assert_non_null(strstr(text, "\"private\": true"));
    free(text);
    close(sock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_keys_reach_a_session_and_nobody_else),
        cmocka_unit_test(keys_of_a_user_have_a_limit),
        cmocka_unit_test(a_key_is_bound_to_cipher_use_unit_and_step),
        cmocka_unit_test(a_gcm_destination_gets_a_fresh_subkey_each_time),
        cmocka_unit_test(raw_keys_are_exact),
        cmocka_unit_test(closing_a_key_or_its_connection_revokes_it),
        cmocka_unit_test(a_second_worker_hears_of_revocations_too),
        cmocka_unit_test(many_revocations_wait_for_a_slow_worker),
        cmocka_unit_test(a_connection_has_a_limit_of_keys),
        cmocka_unit_test(bad_requests_get_an_error_or_the_door),
        cmocka_unit_test(another_user_is_refused_by_a_private_service),
        cmocka_unit_test(a_restart_forgets_keys_and_says_so),
        cmocka_unit_test(status_tells_protections_and_no_key),
    };
    signal(SIGPIPE, SIG_IGN);
    keyd_start(&k, NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    keyd_stop(&k);
    return failed;
}
