/* SPDX-License-Identifier: Apache-2.0 */
/* Named requests, as anybody may send them: each fault has a status and a line, and the connection goes on.
 */
#include "tests/support/cmocka.h"
#include "tests/support/keyd.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

static struct keyd k;

/* Sends a request that lies in `fd`; the status of the reply, its object in *out. */
static int ask_fd(int sock, int fd, unsigned more, json_t **out)
{
    struct rs_msg m;
    char text[65536] = "";
    const int fds[RS_MSG_FDS] = {fd, fd, fd, fd};
    assert_int_equal(rs_msg_ask(sock, RS_MSG_RPC, NULL, 0, fds, 1 + more, &m), 0);
    assert_int_equal(m.nfds, 1);
    assert_int_equal(m.header.length, 0);
    ssize_t n = pread(m.fds[0], text, sizeof(text), 0);
    assert_true(n > 0);
    rs_msg_close_fds(&m);
    *out = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
    assert_true(json_is_object(*out));
    return m.header.status;
}

/* The request is refused with this code and a line that has `word` in it. */
static void refused_fd(int sock, int fd, unsigned more, int status, const char *word)
{
    json_t *reply;
    assert_int_equal(ask_fd(sock, fd, more, &reply), status);
    const char *line = json_string_value(json_object_get(reply, "error"));
    assert_non_null(line);
    if (strstr(line, word) == NULL) fail_msg("'%s' does not say '%s'", line, word);
    assert_null(strchr(line, '\n'));
    json_decref(reply);
}

static void refused(int sock, const char *text, int status, const char *word)
{
    RS_CLOSE int fd = rs_msg_text_fd(text, strlen(text));
    assert_true(fd >= 0);
    refused_fd(sock, fd, 0, status, word);
}

static void works(int sock)
{
    static const char request[] = "{\"method\": \"service.methods\", \"args\": {}}";
    RS_CLOSE int fd = rs_msg_text_fd(request, strlen(request));
    json_t *reply;
    assert_int_equal(ask_fd(sock, fd, 0, &reply), 0);
    assert_true(json_array_size(json_object_get(reply, "methods")) > 0);
    json_decref(reply);
}

static void a_text_that_could_change_is_refused(void **state)
{
    (void)state;
    int sock = keyd_connect(&k), ends[2];
    RS_CLOSE int unsealed = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(rs_write_full(unsealed, "{}", 2), 0);
    refused_fd(sock, unsealed, 0, RESEAL_EINVAL, "F_SEAL_WRITE");
    assert_int_equal(fcntl(unsealed, F_ADD_SEALS, F_SEAL_WRITE), 0);
    refused_fd(sock, unsealed, 0, RESEAL_EINVAL, "F_SEAL_SHRINK");
    /* Something that would make a reader wait: */
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    refused_fd(sock, ends[0], 0, RESEAL_EINVAL, "memfd");
    refused_fd(sock, sock, 0, RESEAL_EINVAL, "memfd");
    RS_CLOSE int folder = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    refused_fd(sock, folder, 0, RESEAL_EINVAL, "memfd");
    close(ends[0]);
    close(ends[1]);
    works(sock);
    close(sock);
}

static void a_text_of_another_size_is_refused(void **state)
{
    (void)state;
    int sock = keyd_connect(&k);
    static char big[(64u << 10) + 2];
    memset(big, ' ', sizeof(big) - 1);
    refused(sock, "", RESEAL_EINVAL, "1 to 65536");
    refused(sock, big, RESEAL_ELIMIT, "1 to 65536");
    RS_CLOSE int sparse = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(sparse, (off_t)1 << 40), 0);
    assert_int_equal(fcntl(sparse, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), 0);
    refused_fd(sock, sparse, 0, RESEAL_ELIMIT, "1 to 65536");
    works(sock);
    close(sock);
}

static void what_is_no_request_is_refused(void **state)
{
    (void)state;
    int sock = keyd_connect(&k);
    refused(sock, "garbage", RESEAL_EINVAL, "no JSON");
    refused(sock, "{\"method\": \"a\", \"method\": \"b\"}", RESEAL_EINVAL, "no JSON");
    refused(sock, "{\"method\": \"a\\u0000b\"}", RESEAL_EINVAL, "no JSON");
    refused(sock, "{\"method\": \"\xff\"}", RESEAL_EINVAL, "no JSON");
    static const char *const wrong[] = {"[]",
                                        "{}",
                                        "7",
                                        "{\"method\": 7}",
                                        "{\"args\": {}}",
                                        "\"text\"",
                                        "{\"method\": \"service.methods\", \"args\": []}",
                                        "{\"method\": \"service.methods\", \"args\": {}, \"more\": 1}"};
    for (unsigned i = 0; i < RS_ARRAY_LEN(wrong); i++)
        refused(sock, wrong[i], RESEAL_EINVAL, wrong[i][0] == '{' ? "\"args\": object" : "");
    char deep[8192];
    memset(deep, '[', sizeof(deep) - 1);
    deep[sizeof(deep) - 1] = '\0';
    refused(sock, deep, RESEAL_EINVAL, "no JSON");
    works(sock);
    close(sock);
}

static void what_a_method_does_not_have_is_refused(void **state)
{
    (void)state;
    int sock = keyd_connect(&k);
    refused(sock, "{\"method\": \"no.such\"}", RESEAL_ENOSUPPORT, "no.such: this service has no such method");
    refused(sock, "{\"method\": \"no\\nsuch\"}", RESEAL_ENOSUPPORT, "no such: this service");
    refused(sock, "{\"method\": \"service.methods\", \"args\": {\"key\": 1}}", RESEAL_EINVAL, "key");
    static const char request[] = "{\"method\": \"service.methods\"}";
    RS_CLOSE int fd = rs_msg_text_fd(request, strlen(request));
    for (unsigned more = 1; more < RS_MSG_FDS; more++)
        refused_fd(sock, fd, more, RESEAL_EINVAL, "descriptors");
    refused(sock, "{\"method\": \"kek.status\", \"args\": {}}", RESEAL_EINVAL, "key: must be given");
    refused(sock, "{\"method\": \"kek.status\", \"args\": {\"key\": \"\\u0007\"}}", RESEAL_EINVAL,
            "key: wants a text");
    works(sock);
    close(sock);
}

static void a_request_before_the_hello_ends_the_connection(void **state)
{
    (void)state;
    int sock = keyd_dial(&k);
    RS_CLOSE int fd = rs_msg_text_fd("{}", 2);
    struct rs_msg m;
    assert_int_equal(rs_msg_ask(sock, RS_MSG_RPC, NULL, 0, &fd, 1, &m), RESEAL_ENOSERVICE);
    close(sock);
}

static void no_descriptor_stays_open(void **state)
{
    (void)state;
    char path[64];
    struct stat st;
    int sock = keyd_connect(&k);
    works(sock);
    (void)snprintf(path, sizeof(path), "/proc/%d/fd", k.pid);
    if (stat(path, &st) != 0) skip();
    off_t before = st.st_size; /* newer kernels count descriptors here; those of earlier clients may go now */
    for (unsigned i = 0; i < 100; i++) {
        refused(sock, "{\"method\": \"no.such\"}", RESEAL_ENOSUPPORT, "no.such");
        works(sock);
    }
    /* That of the last answer may still be on its way out. */
    unsigned tries = 0;
    do {
        assert_int_equal(stat(path, &st), 0);
    } while (st.st_size > before && ++tries < 6000 && poll(NULL, 0, 10) == 0);
    assert_true(st.st_size <= before);
    close(sock);
}

/* What could be done without one is nothing new: it ends, and reseald starts it again. */
static void it_ends_when_its_nursery_does(void **state)
{
    (void)state;
    char path[64];
    long nursery = 0;
    int status = 0;
    struct keyd own = {0};
    keyd_start(&own, NULL);
    close(keyd_connect(&own));
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", own.pid, own.pid);
    FILE *f = fopen(path, "re");
    if (f == NULL || fscanf(f, "%ld", &nursery) != 1) skip(); /* a kernel without that file */
    (void)fclose(f);
    assert_int_equal(kill((pid_t)nursery, SIGKILL), 0);
    assert_int_equal(waitpid(own.pid, &status, 0), own.pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    keyd_spawn(&own, NULL);
    close(keyd_connect(&own));
    keyd_stop(&own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_that_could_change_is_refused),
        cmocka_unit_test(a_text_of_another_size_is_refused),
        cmocka_unit_test(what_is_no_request_is_refused),
        cmocka_unit_test(what_a_method_does_not_have_is_refused),
        cmocka_unit_test(a_request_before_the_hello_ends_the_connection),
        cmocka_unit_test(no_descriptor_stays_open),
        cmocka_unit_test(it_ends_when_its_nursery_does),
    };
    signal(SIGPIPE, SIG_IGN);
    keyd_start(&k, NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    keyd_stop(&k);
    return failed;
}
