/* SPDX-License-Identifier: Apache-2.0 */
/* Orders that hang, crash or lose their client hold up nobody else. */
#include "providers/key/keyd.h"
#include "tests/support/keyd.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define PASS "correct horse"
#define HUNG 6

static struct keyd k;
static char image[128];

static const struct rs_msg_key_use xts = {
    .cipher = RESEAL_XTS, .use = 3, .unit = 512, .bits = 256, .step = 1};

/* Sends a request whose pass phrase never ends; the end that would write it. */
static int hang(int sock, int header)
{
    int ends[2];
    const struct rs_msg_key_use ask = {.use = 3};
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    const int fds[2] = {header, ends[0]};
    assert_int_equal(rs_msg_send(sock, RS_MSG_KEY_LUKS, 0, &ask, sizeof(ask), fds, 2, 0), 0);
    close(ends[0]);
    return ends[1];
}

static int reply_status(int sock)
{
    struct rs_msg m;
    assert_int_equal(rs_msg_recv(sock, &m, 0), 0);
    rs_msg_close_fds(&m);
    return m.header.status;
}

static unsigned orders_now(int sock)
{
    char *text = keyd_text(sock, RS_MSG_STATUS);
    const char *at = strstr(text, "\"orders\": ");
    assert_non_null(at);
    unsigned n = (unsigned)atoi(at + strlen("\"orders\": "));
    free(text);
    return n;
}

static void a_hanging_pass_phrase_holds_up_nobody(void **state)
{
    (void)state;
    int clients[HUNG], ends[HUNG], sock = keyd_connect(&k);
    RS_CLOSE int header = open(image, O_RDONLY | O_CLOEXEC);
    struct rs_msg_luks l;
    reseal_key key;
    for (unsigned i = 0; i < HUNG; i++) {
        clients[i] = keyd_connect(&k);
        ends[i] = hang(clients[i], header);
    }
    assert_int_equal(keyd_random(sock, &xts, &key), 0);
    assert_int_equal(orders_now(sock), HUNG);
    /* Those behind need not run into the deadline as well: their pass phrase is there, and wrong. */
    for (unsigned i = RS_KEYD_CHILDREN_OF_USER; i < HUNG; i++) {
        assert_int_equal(rs_write_full(ends[i], "x", 1), 0);
        close(ends[i]);
    }
    /* More than one user may run at a time: this one waits for the deadline of the first, and is served. */
    assert_int_equal(keyd_luks(sock, image, PASS, 3, &l), 0);
    for (unsigned i = 0; i < HUNG; i++) {
        assert_int_equal(reply_status(clients[i]),
                         i < RS_KEYD_CHILDREN_OF_USER ? RESEAL_ETIMEDOUT : RESEAL_EPASS);
        assert_int_equal(keyd_random(clients[i], &xts, &key), 0); /* the connection goes on */
        close(clients[i]);
        if (i < RS_KEYD_CHILDREN_OF_USER) close(ends[i]);
    }
    close(sock);
}

static void a_client_that_leaves_takes_its_order_along(void **state)
{
    (void)state;
    int gone = keyd_connect(&k), sock = keyd_connect(&k);
    RS_CLOSE int header = open(image, O_RDONLY | O_CLOEXEC);
    int end = hang(gone, header);
    while (orders_now(sock) != 1) continue;
    close(gone);
    while (orders_now(sock) != 0) continue;
    /* Its child is gone too: nobody reads the pipe any more. */
    while (write(end, "x", 1) == 1) usleep(1000);
    close(end);
    close(sock);
}

static void requests_behind_an_order_are_answered_in_turn(void **state)
{
    (void)state;
    int sock = keyd_connect(&k);
    RS_CLOSE int header = open(image, O_RDONLY | O_CLOEXEC);
    int end = hang(sock, header);
    assert_int_equal(rs_msg_send(sock, RS_MSG_KEY_RANDOM, 0, &xts, sizeof(xts), NULL, 0, 0), 0);
    assert_int_equal(rs_write_full(end, PASS, strlen(PASS)), 0);
    close(end);
    struct rs_msg m;
    assert_int_equal(rs_msg_recv(sock, &m, 0), 0);
    assert_int_equal(m.header.type, RS_MSG_KEY_LUKS | RS_MSG_REPLY);
    assert_int_equal(m.header.status, 0);
    assert_int_equal(rs_msg_recv(sock, &m, 0), 0);
    assert_int_equal(m.header.type, RS_MSG_KEY_RANDOM | RS_MSG_REPLY);
    assert_int_equal(m.header.status, 0);
    close(sock);
}

/* The first child of a process, or 0. */
static pid_t child_of(pid_t pid)
{
    char path[64];
    long child = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
    FILE *f = fopen(path, "re");
    if (f == NULL) return 0;
    if (fscanf(f, "%ld", &child) != 1) child = 0;
    (void)fclose(f);
    return (pid_t)child;
}

static void a_child_that_dies_is_an_error_of_its_client_alone(void **state)
{
    (void)state;
    int sock = keyd_connect(&k), other = keyd_connect(&k);
    RS_CLOSE int header = open(image, O_RDONLY | O_CLOEXEC);
    struct rs_msg_luks l;
    pid_t nursery = child_of(k.pid), child = 0;
    if (nursery == 0) skip();                    /* a kernel without that file */
    while (child_of(nursery) != 0) usleep(1000); /* one of the tests before, on its way out */
    int end = hang(sock, header);
    while (child == 0) child = child_of(nursery);
    assert_int_equal(kill(child, SIGKILL), 0);
    int r = reply_status(sock);
    assert_true(r == RESEAL_EFORMAT || r == RESEAL_ETIMEDOUT);
    assert_int_equal(keyd_luks(other, image, PASS, 3, &l), 0);
    assert_int_equal(keyd_luks(sock, image, PASS, 3, &l), 0);
    close(end);
    close(other);
    close(sock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hanging_pass_phrase_holds_up_nobody),
        cmocka_unit_test(a_client_that_leaves_takes_its_order_along),
        cmocka_unit_test(requests_behind_an_order_are_answered_in_turn),
        cmocka_unit_test(a_child_that_dies_is_an_error_of_its_client_alone),
    };
    signal(SIGPIPE, SIG_IGN);
    /* Also what an order that does not hang may take. */
    setenv("RESEAL_KEYD_DEADLINE", "8", 1);
    keyd_start(&k, NULL);
    char pass[128];
    (void)snprintf(image, sizeof(image), "%s/image", k.dir);
    (void)snprintf(pass, sizeof(pass), "%s/pass", k.dir);
    int fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600),
        p = open(pass, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (ftruncate(fd, 20 << 20) != 0 || rs_write_full(p, PASS, strlen(PASS)) != 0) return 2;
    close(fd);
    close(p);
    if (RUN("cryptsetup", "luksFormat", "--type", "luks2", "--batch-mode", "--pbkdf", "pbkdf2",
            "--pbkdf-force-iterations", "1000", "--key-file", pass, image) != 0)
        return 2;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    keyd_stop(&k);
    return failed;
}
