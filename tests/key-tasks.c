/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks: JSON, secrets and descriptors go both ways; one that crashes, hangs, floods or leaves is an error of
 * its own request alone; what a child may do is what its place allows. The kinds are this test's own.
 */
#include "offload/base/clock.h"
#include "offload/base/keymem.h"
#include "offload/base/sandbox.h"
#include "providers/key/keyd.h"
#include "providers/key/rpc.h"
#include "tests/support/cmocka.h"
#include "tests/support/keyd.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct rs_keyd d;

/* ---- kinds ------------------------------------------------------------------------------ */

/* Gives back what it got; out comes what stood in the descriptors, one after the other, '-' for one that is
 * not there. */
static int run_echo(struct rs_task *t)
{
    char byte = 0;
    t->out_fd = memfd_create("out", MFD_CLOEXEC);
    for (unsigned i = 0; i < t->nfds; i++) {
        if (t->fds[i] < 0) byte = '-';
        if (t->fds[i] >= 0 && pread(t->fds[i], &byte, 1, 0) != 1) return RESEAL_EIO;
        if (write(t->out_fd, &byte, 1) != 1) return RESEAL_EIO;
    }
    json_object_set_new(t->result, "args", json_deep_copy(t->args));
    return rs_secrets_copy(&t->yields, t->secrets);
}

static int run_fail(struct rs_task *t)
{
    int r = rs_secrets_put(&t->yields, "leak", "x", 1);
    t->out_fd = memfd_create("out", MFD_CLOEXEC);
    json_object_set_new(t->result, "found", json_integer(7));
    (void)snprintf(t->event, sizeof(t->event), "some.event");
    return r != 0 ? r : rs_task_fail(t, RESEAL_EPASS, "line one\nline two \xff\x1b[31m");
}

static int run_silent_fail(struct rs_task *t)
{
    (void)t;
    return RESEAL_EKEYBAD;
}

static int run_crash(struct rs_task *t)
{
    (void)t;
    __builtin_trap();
    return 0;
}

static int run_leave(struct rs_task *t)
{
    if (t != NULL) _exit(0);
    return 0;
}

static int run_hang(struct rs_task *t)
{
    while (t != NULL) pause();
    return 0;
}

/* Says what is no answer on every socket that it has, until somebody ends it. */
static int run_flood(struct rs_task *t)
{
    int type = (int)json_integer_value(json_object_get(t->args, "type"));
    uint8_t body[RS_MSG_BODY_MAX] = {0};
    for (;;)
        for (int fd = 3; fd < 16; fd++)
            if (rs_msg_send(fd, (uint16_t)type, 0, body, sizeof(body), NULL, 0, 0) == RESEAL_ENOSERVICE)
                _exit(0);
}

/* More than an answer may have. */
static int run_too_much(struct rs_task *t)
{
    size_t len = RS_TASK_TEXT + 16;
    char *text = malloc(len);
    memset(text, 'x', len);
    json_object_set_new(t->result, "text", json_stringn(text, len));
    free(text);
    return 0;
}

static bool opens(const char *path, int flags)
{
    RS_CLOSE int fd = open(path, flags | O_CLOEXEC, 0600);
    return fd >= 0;
}

static bool makes_socket(int family, int type)
{
    RS_CLOSE int fd = socket(family, type | SOCK_CLOEXEC, 0);
    return fd >= 0;
}

static bool forks(void)
{
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    return pid > 0;
}

static bool connects(int port, bool bind_it)
{
    const struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    RS_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    if (bind_it) return bind(fd, (const struct sockaddr *)&to, sizeof(to)) == 0;
    return connect(fd, (const struct sockaddr *)&to, sizeof(to)) == 0;
}

static bool resolves(void)
{
    struct addrinfo *list = NULL;
    int r = getaddrinfo("localhost", "443", NULL, &list);
    if (r == 0) freeaddrinfo(list);
    return r == 0;
}

static void note(struct rs_task *t, const char *name, bool value)
{
    json_object_set_new(t->result, name, json_boolean(value));
}

static int run_probe(struct rs_task *t)
{
    int port = (int)json_integer_value(json_object_get(t->args, "port"));
    note(t, "file", opens("/etc/passwd", O_RDONLY));
    note(t, "new file", opens("/tmp/reseal-test-of-a-sandbox", O_WRONLY | O_CREAT));
    note(t, "process", opens("/proc/self/mem", O_RDONLY));
    note(t, "packets", makes_socket(AF_PACKET, SOCK_RAW));
    note(t, "fork", forks());
    note(t, "listen", connects(0, true));
    note(t, "tcp", connects(port, false));
    note(t, "local", makes_socket(AF_UNIX, SOCK_STREAM));
    note(t, "names", resolves());
    return 0;
}

#define KIND(what, where, seconds)                                                                           \
    static const struct rs_task_kind what##_kind = {                                                         \
        .name = #what, .place = where, .deadline_s = seconds, .run = run_##what}
KIND(echo, RS_TASK_CLOSED, 60);
KIND(fail, RS_TASK_CLOSED, 60);
KIND(silent_fail, RS_TASK_CLOSED, 60);
KIND(crash, RS_TASK_CLOSED, 60);
KIND(leave, RS_TASK_CLOSED, 60);
KIND(hang, RS_TASK_CLOSED, 600);
KIND(flood, RS_TASK_CLOSED, 60);
KIND(too_much, RS_TASK_CLOSED, 60);
KIND(probe, RS_TASK_CLOSED, 60);
static const struct rs_task_kind late_kind = {.name = "late", .deadline_s = 1, .run = run_hang};
static const struct rs_task_kind far_kind = {
    .name = "far", .place = RS_TASK_NETWORK, .deadline_s = 60, .run = run_probe};

const struct rs_task_kind *const rs_task_kinds[] = {
    &echo_kind,  &fail_kind,     &silent_fail_kind, &crash_kind, &leave_kind, &hang_kind,
    &flood_kind, &too_much_kind, &probe_kind,       &late_kind,  &far_kind,   NULL};

/* A request that waits for a task which never ends. */
static void never(struct rs_keyd *keyd, void *arg, struct rs_task_answer *answer)
{
    (void)keyd;
    rs_rpc_fail_as(arg, answer);
}

static unsigned dropped;

static void note_drop(struct rs_rpc *call)
{
    (void)call;
    dropped++;
}

static void hang_method(struct rs_rpc *call)
{
    call->drop = note_drop;
    int r = rs_task_start(call->d, &hang_kind, call->client->uid, call->args, NULL, call->fds, call->nfds,
                          never, call);
    if (r != 0) rs_rpc_fail(call, r, NULL);
}

static void fail_method(struct rs_rpc *call)
{
    int r = rs_task_start(call->d, &fail_kind, call->client->uid, call->args, NULL, NULL, 0, never, call);
    if (r != 0) rs_rpc_fail(call, r, NULL);
}

static const struct rs_rpc_method methods[] = {{"test.hang", 0, 3, RS_NO_PRIVILEGE, hang_method},
                                               {"test.fail", 0, 0, RS_PRIV_MANAGE_KEYS, fail_method},
                                               {NULL, 0, 0, 0, NULL}};
const struct rs_rpc_method *const rs_rpc_tables[] = {methods, NULL};

/* ---- running them ------------------------------------------------------------------------- */

static struct {
    unsigned calls;
    int status;
    json_t *result;
    struct rs_secrets secrets;
    int fd;
    char why[RS_TASK_WHY], event[RS_TASK_EVENT];
} got = {.fd = -1};

static void forget(void)
{
    json_decref(got.result);
    rs_secrets_free(&got.secrets);
    rs_cleanup_close(&got.fd);
    memset(&got, 0, sizeof(got));
    got.fd = -1;
}

static void done(struct rs_keyd *keyd, void *arg, struct rs_task_answer *answer)
{
    (void)keyd, (void)arg;
    unsigned calls = got.calls;
    forget();
    got.calls = calls + 1;
    got.status = answer->status;
    got.result = json_deep_copy(answer->result);
    assert_int_equal(rs_secrets_copy(&got.secrets, answer->secrets), 0);
    got.fd = answer->fd;
    answer->fd = -1;
    (void)snprintf(got.why, sizeof(got.why), "%s", answer->why);
    (void)snprintf(got.event, sizeof(got.event), "%s", answer->event);
}

static void step(void)
{
    assert_int_equal(rs_keyd_step(&d), 0);
}

static void start(const struct rs_task_kind *kind, uint32_t uid, const json_t *args, void *arg)
{
    assert_int_equal(rs_task_start(&d, kind, uid, args, NULL, NULL, 0, done, arg), 0);
}

static int result_of(const struct rs_task_kind *kind, json_t *args)
{
    forget();
    start(kind, 1, args, &d);
    json_decref(args);
    while (got.calls == 0) step();
    assert_int_equal(rs_tasks_count(&d), 0);
    return got.status;
}

static bool said(const char *name)
{
    const json_t *value = json_object_get(got.result, name);
    assert_true(json_is_boolean(value));
    return json_is_true(value);
}

/* ---- tests ------------------------------------------------------------------------------------ */

static void texts_secrets_and_descriptors_go_both_ways(void **state)
{
    (void)state;
    struct rs_secrets secrets = {0};
    static uint8_t big[40000];
    memset(big, 0xa5, sizeof(big));
    char *text = malloc(200001);
    memset(text, 'y', 200000);
    text[200000] = '\0';
    json_t *args = json_pack("{s:s, s:i}", "text", text, "n", 42);
    free(text);
    assert_int_equal(rs_secrets_put(&secrets, "small", "s3cret", 6), 0);
    assert_int_equal(rs_secrets_put(&secrets, "big", big, sizeof(big)), 0);
    int fds[3] = {text_fd("a", 1), -1, text_fd("b", 1)};
    forget();
    assert_int_equal(rs_task_start(&d, &echo_kind, 1, args, &secrets, fds, 3, done, &d), 0);
    assert_int_equal(fds[0], -1);
    rs_secrets_free(&secrets);
    assert_int_equal(got.calls, 0); /* never from within the call */
    while (got.calls == 0) step();
    assert_int_equal(got.status, 0);
    assert_true(json_equal(json_object_get(got.result, "args"), args));
    json_decref(args);
    assert_string_equal(rs_secrets_text(&got.secrets, "small"), "s3cret");
    assert_int_equal(rs_secrets_find(&got.secrets, "big")->len, sizeof(big));
    assert_memory_equal(rs_secrets_find(&got.secrets, "big")->bytes, big, sizeof(big));
    char out[4] = "";
    assert_int_equal(pread(got.fd, out, sizeof(out), 0), 3);
    assert_string_equal(out, "a-b");
    forget();
}

static void no_arguments_are_an_empty_object(void **state)
{
    (void)state;
    assert_int_equal(result_of(&echo_kind, NULL), 0);
    assert_int_equal(json_object_size(json_object_get(got.result, "args")), 0);
    assert_int_equal(got.secrets.n, 0);
}

static void a_failure_has_one_clean_line_and_gives_nothing_away(void **state)
{
    (void)state;
    assert_int_equal(result_of(&fail_kind, NULL), RESEAL_EPASS);
    assert_string_equal(got.why, "line one line two ? [31m");
    assert_string_equal(got.event, "some.event");
    assert_int_equal(json_integer_value(json_object_get(got.result, "found")), 7);
    assert_int_equal(got.secrets.n, 0);
    assert_int_equal(got.fd, -1);
    assert_int_equal(result_of(&silent_fail_kind, NULL), RESEAL_EKEYBAD);
    assert_string_equal(got.why, reseal_strerror(RESEAL_EKEYBAD));
    assert_string_equal(got.event, "");
}

static void a_child_that_dies_or_talks_nonsense_is_an_error_of_its_task(void **state)
{
    (void)state;
    assert_int_equal(result_of(&crash_kind, NULL), RESEAL_EIO);
    assert_non_null(strstr(got.why, "crash"));
    assert_int_equal(result_of(&leave_kind, NULL), RESEAL_EIO);
    assert_int_equal(result_of(&too_much_kind, NULL), RESEAL_EIO);
    static const int types[] = {RS_MSG_BORN, RS_MSG_TASK_REPLY, RS_MSG_PART, RS_MSG_YIELD, 1};
    for (unsigned i = 0; i < RS_ARRAY_LEN(types); i++) {
        assert_int_equal(result_of(&flood_kind, json_pack("{s:i}", "type", types[i])), RESEAL_EIO);
        assert_true(got.why[0] != '\0');
    }
    assert_int_equal(result_of(&echo_kind, NULL), 0);
}

static void one_that_hangs_is_ended_at_its_deadline(void **state)
{
    (void)state;
    assert_int_equal(result_of(&late_kind, NULL), RESEAL_ETIMEDOUT);
    assert_non_null(strstr(got.why, "late took longer than 1 s"));
}

static void others_of_the_user_wait_and_nobody_else(void **state)
{
    (void)state;
    int hung;
    forget();
    for (unsigned i = 0; i < RS_KEYD_CHILDREN_OF_USER; i++) start(&hang_kind, 7, NULL, &hung);
    while (rs_tasks_may_start(&d, 7, RS_TASK_CLOSED)) step();
    start(&echo_kind, 7, NULL, &d);
    /* Another user, and another place, are served meanwhile. */
    start(&echo_kind, 8, NULL, &d);
    while (got.calls == 0) step();
    assert_int_equal(got.status, 0);
    json_t *args = json_pack("{s:i}", "port", 1);
    start(&far_kind, 7, args, &d);
    json_decref(args);
    while (got.calls == 1) step();
    assert_int_equal(got.status, 0);
    assert_int_equal(rs_tasks_count(&d), RS_KEYD_CHILDREN_OF_USER + 1);
    rs_task_cancel(&d, &hung);
    assert_int_equal(rs_tasks_count(&d), 1);
    while (got.calls == 2) step();
    assert_int_equal(got.status, 0);
    assert_int_equal(rs_tasks_count(&d), 0);
}

static void there_is_an_end_to_waiting(void **state)
{
    (void)state;
    int hung;
    unsigned n = 0;
    while (rs_task_start(&d, &hang_kind, 7, NULL, NULL, NULL, 0, done, &hung) == 0) n++;
    assert_int_equal(n, RS_KEYD_TASKS);
    int fds[1] = {text_fd("a", 1)}, fd = fds[0];
    assert_int_equal(rs_task_start(&d, &hang_kind, 7, NULL, NULL, fds, 1, done, &hung), RESEAL_ELIMIT);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken all the same */
    rs_task_cancel(&d, &hung);
    assert_int_equal(rs_tasks_count(&d), 0);
}

static void a_child_in_the_closed_place_reaches_nothing(void **state)
{
    (void)state;
    if (RS_SANITIZED) skip();
    assert_int_equal(result_of(&probe_kind, json_pack("{s:i}", "port", 1)), 0);
    static const char *const all[] = {"file",   "new file", "process", "packets", "fork",
                                      "listen", "tcp",      "local",   "names"};
    for (unsigned i = 0; i < RS_ARRAY_LEN(all); i++)
        if (said(all[i])) fail_msg("%s", all[i]);
}

static void a_child_in_the_network_place_connects_and_no_more(void **state)
{
    (void)state;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(at);
    RS_CLOSE int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(listener, 4), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
    assert_int_equal(result_of(&far_kind, json_pack("{s:i}", "port", (int)ntohs(at.sin_port))), 0);
    assert_true(said("tcp"));
    assert_true(said("local"));
    assert_true(said("names"));
    if (RS_SANITIZED) return;
    assert_false(said("fork"));
    assert_false(said("packets"));
    if (syscall(SYS_landlock_create_ruleset, NULL, 0, 1u) <= 0) return; /* no Landlock here */
    assert_false(said("file"));
    assert_false(said("new file"));
    assert_false(said("process"));
    if (syscall(SYS_landlock_create_ruleset, NULL, 0, 1u) >= 4) assert_false(said("listen"));
}

static void reseal_keyd_can_wait_for_one_and_run_one_itself(void **state)
{
    (void)state;
    struct rs_task_own own;
    struct rs_secrets secrets = {0};
    json_t *args = json_pack("{s:i}", "n", 3);
    assert_int_equal(rs_secrets_put(&secrets, "x", "y", 1), 0);
    assert_int_equal(rs_task_wait(&d, &echo_kind, args, &secrets, &own), 0);
    assert_true(json_equal(json_object_get(own.answer.result, "args"), args));
    assert_string_equal(rs_secrets_text(own.answer.secrets, "x"), "y");
    rs_task_own_free(&own);
    assert_int_equal(rs_task_wait(&d, &crash_kind, args, NULL, &own), RESEAL_EIO);
    assert_non_null(strstr(own.answer.why, "died"));
    rs_task_own_free(&own);
    rs_task_run_here(&echo_kind, args, &secrets, &own);
    assert_int_equal(own.answer.status, 0);
    assert_string_equal(rs_secrets_text(own.answer.secrets, "x"), "y");
    rs_task_own_free(&own);
    rs_task_run_here(&fail_kind, args, NULL, &own);
    assert_int_equal(own.answer.status, RESEAL_EPASS);
    assert_int_equal(own.answer.secrets->n, 0);
    assert_int_equal(own.answer.fd, -1);
    rs_task_own_free(&own);
    rs_secrets_free(&secrets);
    json_decref(args);
}

/* ---- requests that wait for tasks -------------------------------------------------------------- */

/* The next message that reseal-keyd sends to `sock`. */
static void hear(int sock, struct rs_msg *m)
{
    int r;
    while ((r = rs_msg_recv(sock, m, MSG_DONTWAIT)) == RESEAL_EAGAIN) step();
    assert_int_equal(r, 0);
}

static int client(void)
{
    int pair[2];
    struct rs_msg m;
    const struct rs_msg_hello hello = {.min_version = 1, .max_version = 1};
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_non_null(rs_keyd_accept(&d, pair[1]));
    assert_int_equal(rs_msg_send(pair[0], RS_MSG_HELLO, 0, &hello, sizeof(hello), NULL, 0, 0), 0);
    hear(pair[0], &m);
    assert_int_equal(m.header.status, 0);
    return pair[0];
}

static void ask(int sock, const char *request, unsigned more)
{
    RS_CLOSE int fd = rs_msg_text_fd(request, strlen(request));
    const int fds[4] = {fd, fd, fd, fd};
    assert_int_equal(rs_msg_send(sock, RS_MSG_RPC, 0, NULL, 0, fds, 1 + more, 0), 0);
}

static void a_client_that_goes_away_takes_its_task_along(void **state)
{
    (void)state;
    int sock = client();
    dropped = 0;
    ask(sock, "{\"method\": \"test.hang\"}", 2);
    while (rs_tasks_count(&d) == 0) step();
    step();
    ask(sock, "{\"method\": \"test.hang\"}", 0); /* not read while the first is pending */
    for (unsigned i = 0; i < 3 && rs_tasks_count(&d) == 1; i++) step();
    assert_int_equal(rs_tasks_count(&d), 1);
    close(sock);
    while (d.clients != NULL) step();
    assert_int_equal(rs_tasks_count(&d), 0);
    assert_int_equal(dropped, 1);
}

static void the_line_of_a_task_reaches_its_client(void **state)
{
    (void)state;
    int sock = client();
    struct rs_msg m;
    ask(sock, "{\"method\": \"test.fail\"}", 0);
    hear(sock, &m);
    assert_int_equal(m.header.status, RESEAL_EPASS);
    json_t *reply = json_loadfd(m.fds[0], 0, NULL);
    assert_string_equal(json_string_value(json_object_get(reply, "error")), "line one line two ? [31m");
    assert_string_equal(json_string_value(json_object_get(reply, "event")), "some.event");
    assert_int_equal(json_integer_value(json_object_get(reply, "found")), 7);
    json_decref(reply);
    rs_msg_close_fds(&m);
    close(sock);
    while (d.clients != NULL) step();
}

static void a_privilege_that_is_missing_is_named(void **state)
{
    (void)state;
    int sock = client(); /* a member while the policy of before holds */
    struct rs_policy *before = d.policy;
    d.policy = rs_policy_private(getuid() + 1);
    struct rs_msg m;
    ask(sock, "{\"method\": \"test.fail\"}", 0);
    hear(sock, &m);
    assert_int_equal(m.header.status, RESEAL_EPERM);
    json_t *reply = json_loadfd(m.fds[0], 0, NULL);
    assert_string_equal(json_string_value(json_object_get(reply, "privilege")), "Cryptographer.ManageKeys");
    assert_non_null(strstr(json_string_value(json_object_get(reply, "error")), "Cryptographer.ManageKeys"));
    json_decref(reply);
    rs_msg_close_fds(&m);
    close(sock);
    while (d.clients != NULL) step();
    rs_policy_free(d.policy);
    d.policy = before;
}

/* The last one: there is no nursery afterwards. */
static void without_a_nursery_tasks_fail(void **state)
{
    (void)state;
    int hung;
    forget();
    start(&hang_kind, 9, NULL, &hung);
    while (rs_tasks_may_start(&d, 9, RS_TASK_CLOSED) && got.calls == 0) {
        step();
        break;
    }
    assert_int_equal(kill(d.nursery.pid, SIGKILL), 0);
    assert_int_equal(waitpid(d.nursery.pid, NULL, 0), d.nursery.pid);
    while (got.calls == 0) step();
    assert_int_equal(got.status, RESEAL_EIO);
    assert_int_equal(result_of(&echo_kind, NULL), RESEAL_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_secrets_and_descriptors_go_both_ways),
        cmocka_unit_test(no_arguments_are_an_empty_object),
        cmocka_unit_test(a_failure_has_one_clean_line_and_gives_nothing_away),
        cmocka_unit_test(a_child_that_dies_or_talks_nonsense_is_an_error_of_its_task),
        cmocka_unit_test(one_that_hangs_is_ended_at_its_deadline),
        cmocka_unit_test(others_of_the_user_wait_and_nobody_else),
        cmocka_unit_test(there_is_an_end_to_waiting),
        cmocka_unit_test(a_child_in_the_closed_place_reaches_nothing),
        cmocka_unit_test(a_child_in_the_network_place_connects_and_no_more),
        cmocka_unit_test(reseal_keyd_can_wait_for_one_and_run_one_itself),
        cmocka_unit_test(a_client_that_goes_away_takes_its_task_along),
        cmocka_unit_test(the_line_of_a_task_reaches_its_client),
        cmocka_unit_test(a_privilege_that_is_missing_is_named),
        cmocka_unit_test(without_a_nursery_tasks_fail),
    };
    alarm(300); /* nothing here may wait for ever */
    signal(SIGPIPE, SIG_IGN);
    if (rs_nursery_start(&d.nursery) != 0 || rs_keymem_init(0) != 0) return 2;
    d.policy = rs_policy_private(getuid());
    if (d.policy == NULL || rs_keyd_init(&d) != 0) return 2;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    forget();
    rs_keyd_free(&d);
    return failed;
}
