/* SPDX-License-Identifier: Apache-2.0 */

/* Client and service of different protocol versions tell each other so, at once, and part. */

#include "reseal/reseal.h"
#include "tests/support/raw.h"
#include "tests/support/service.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int hello_with(int sock, uint32_t min, uint32_t max)
{
    struct rs_msg_hello hello = {.min_version = min, .max_version = max};
    struct rs_msg_welcome welcome;
    return rs_msg_call(sock, RS_MSG_HELLO, &hello, sizeof(hello), NULL, 0, &welcome, sizeof(welcome), NULL,
                       0);
}

static void the_service_says_which_versions_it_lacks(RS_UNUSED void **state)
{
    static const char *const sockets[] = {"control.sock", "keys.sock"};
    for (size_t i = 0; i < RS_ARRAY_LEN(sockets); i++) {
        RS_CLOSE int newer = raw_connect(service.dir, sockets[i]),
                     older = raw_connect(service.dir, sockets[i]);
        RS_CLOSE int both = raw_connect(service.dir, sockets[i]);
        assert_int_equal(hello_with(newer, RS_MSG_VERSION + 1, RS_MSG_VERSION + 3), RESEAL_EVERSION);
        assert_int_equal(hello_with(older, 0, RS_MSG_VERSION - 1), RESEAL_EVERSION);
        assert_int_equal(hello_with(both, 0, RS_MSG_VERSION + 3), 0);
    }
}

/* A service of a later version, as far as a client of this one sees it: it refuses every hello. */
static void *later_service(void *arg)
{
    struct rs_msg msg;
    for (int sock; (sock = accept(*(int *)arg, NULL, NULL)) >= 0; close(sock)) {
        if (rs_msg_recv(sock, &msg, 0) != 0) continue;
        rs_msg_close_fds(&msg);
        if (rs_msg_send(sock, RS_MSG_HELLO | RS_MSG_REPLY, RESEAL_EVERSION, NULL, 0, NULL, 0, 0) != 0)
            continue;
    }
    return NULL;
}

static int listen_in(const char *dir)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s/control.sock", dir);
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_true(sock >= 0 && bind(sock, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(sock, 8) == 0);
    return sock;
}

static void the_client_says_that_the_service_is_another(RS_UNUSED void **state)
{
    char dir[] = "/tmp/reseal-test-XXXXXX", command[1024], file[64];
    assert_non_null(mkdtemp(dir));
    int sock = listen_in(dir);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, later_service, &sock), 0);
    struct reseal_options options = {.size = sizeof(options), .runtime_dir = dir};
    reseal *r = NULL;
    assert_int_equal(reseal_open(&r, &options), RESEAL_EVERSION);
    assert_null(r);
    /* The command: exit code 7 and a line that names the version; nothing is written. */
    (void)snprintf(command, sizeof(command),
                   "cd %s && head -c 64 /dev/urandom >k && chmod 600 k && head -c 8192 /dev/urandom >in && "
                   "%s/bin/reseal transcode --runtime-dir %s xts:in,key=k xts:out,key=k 2>err; "
                   "test $? = 7 && grep -q 'version' err && test ! -e out",
                   dir, getenv("RESEAL_BUILD") != NULL ? getenv("RESEAL_BUILD") : "build/release", dir);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    shutdown(sock, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(sock);
    static const char *const names[] = {"control.sock", "k", "in", "err"};
    for (size_t i = 0; i < RS_ARRAY_LEN(names); i++) {
        (void)snprintf(file, sizeof(file), "%s/%s", dir, names[i]);
        assert_int_equal(unlink(file), 0);
    }
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    if (!service_is_built()) return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_service_says_which_versions_it_lacks),
        cmocka_unit_test(the_client_says_that_the_service_is_another),
    };
    return cmocka_run_group_tests(tests, service_group_start, service_group_stop);
}
