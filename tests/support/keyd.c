/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/keyd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void must(bool ok, const char *what)
{
    if (ok) return;
    (void)fprintf(stderr, "test support: %s: %s\n", what, strerror(errno));
    exit(2);
}

void keyd_spawn(struct keyd *k, const char *policy)
{
    int work[2], supervisor[2];
    const char *build = getenv("RESEAL_BUILD");
    char program[512], numbers[3][16], uid[16], state[80];
    (void)snprintf(program, sizeof(program), "%s/bin/reseal-keyd", build != NULL ? build : "build/release");
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, work) == 0, "socketpair");
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, supervisor) == 0, "socketpair");
    const int fds[3] = {k->listener, work[1], supervisor[1]};
    for (int i = 0; i < 3; i++) (void)snprintf(numbers[i], sizeof(numbers[i]), "%d", fds[i]);
    (void)snprintf(uid, sizeof(uid), "%u", getuid());
    (void)snprintf(state, sizeof(state), "%s/state", k->dir);
    k->pid = fork();
    must(k->pid >= 0, "fork");
    if (k->pid == 0) {
        for (int i = 0; i < 3; i++) (void)fcntl(fds[i], F_SETFD, 0);
        execl(program, program, "--listen-fd", numbers[0], "--work-fd", numbers[1], "--supervisor-fd",
              numbers[2], "--state-dir", state, policy != NULL ? "--policy" : "--private-uid",
              policy != NULL ? policy : uid, k->keep_audit != NULL ? "--keep-audit" : NULL, k->keep_audit,
              NULL);
        _exit(127);
    }
    close(work[1]);
    close(supervisor[1]);
    k->work = work[0];
    k->supervisor = supervisor[0];
}

void keyd_start(struct keyd *k, const char *policy)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(k->dir, sizeof(k->dir), "/tmp/reseal-key-XXXXXX");
    must(mkdtemp(k->dir) != NULL, "mkdtemp");
    (void)snprintf(k->path, sizeof(k->path), "%s/keys.sock", k->dir);
    memcpy(address.sun_path, k->path, strlen(k->path) + 1);
    k->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    must(bind(k->listener, (struct sockaddr *)&address, sizeof(address)) == 0, "bind");
    must(listen(k->listener, 64) == 0 && chmod(k->path, 0777) == 0 && chmod(k->dir, 0755) == 0, "listen");
    keyd_spawn(k, policy);
}

void keyd_restart(struct keyd *k, const char *policy)
{
    must(kill(k->pid, SIGKILL) == 0 && waitpid(k->pid, NULL, 0) == k->pid, "kill");
    close(k->work);
    close(k->supervisor);
    keyd_spawn(k, policy);
}

void keyd_stop(struct keyd *k)
{
    int status = 0;
    close(k->supervisor);
    must(waitpid(k->pid, &status, 0) == k->pid, "waitpid");
    must(WIFEXITED(status) && WEXITSTATUS(status) == 0, "reseal-keyd ended badly");
    close(k->work);
    close(k->listener);
    (void)RUN("rm", "-rf", k->dir);
}

int keyd_dial(const struct keyd *k)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, k->path, strlen(k->path) + 1);
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    must(connect(sock, (struct sockaddr *)&address, sizeof(address)) == 0, "connect");
    return sock;
}

int keyd_connect(const struct keyd *k)
{
    const struct rs_msg_hello hello = {.min_version = 1, .max_version = 1};
    struct rs_msg_welcome welcome;
    int sock = keyd_dial(k);
    must(rs_msg_call(sock, RS_MSG_HELLO, &hello, sizeof(hello), NULL, 0, &welcome, sizeof(welcome), NULL,
                     0) == 0,
         "hello");
    return sock;
}

int text_fd(const void *bytes, size_t len)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    must(fd >= 0 && rs_pwrite_full(fd, bytes, len, 0) == 0, "memfd");
    return fd;
}

int keyd_raw_fd(int sock, int fd, const struct rs_msg_key_use *use, reseal_key *out)
{
    struct rs_msg_key key;
    int r = rs_msg_call(sock, RS_MSG_KEY_RAW, use, sizeof(*use), &fd, 1, &key, sizeof(key), NULL, 0);
    if (r == 0) *out = key.key;
    return r;
}

int keyd_raw(int sock, const void *bytes, size_t len, const struct rs_msg_key_use *use, reseal_key *out)
{
    RS_CLOSE int fd = text_fd(bytes, len);
    return keyd_raw_fd(sock, fd, use, out);
}

int keyd_random(int sock, const struct rs_msg_key_use *use, reseal_key *out)
{
    struct rs_msg_key key;
    int r = rs_msg_call(sock, RS_MSG_KEY_RANDOM, use, sizeof(*use), NULL, 0, &key, sizeof(key), NULL, 0);
    if (r == 0) *out = key.key;
    return r;
}

int keyd_luks_fds(int sock, int header, int pass, uint32_t use, struct rs_msg_luks *out)
{
    const struct rs_msg_key_use ask = {.use = use};
    const int fds[2] = {header, pass};
    memset(out, 0, sizeof(*out));
    return rs_msg_call(sock, RS_MSG_KEY_LUKS, &ask, sizeof(ask), fds, pass >= 0 ? 2 : 1, out, sizeof(*out),
                       NULL, 0);
}

int keyd_luks(int sock, const char *image, const char *pass, uint32_t use, struct rs_msg_luks *out)
{
    RS_CLOSE int header = open(image, O_RDONLY | O_CLOEXEC);
    RS_CLOSE int fd = pass != NULL ? text_fd(pass, strlen(pass)) : -1;
    must(header >= 0, image);
    return keyd_luks_fds(sock, header, fd, use, out);
}

int keyd_format(int sock, const struct rs_msg_luks_format *format, const char *pass, struct rs_msg_luks *out,
                int *header)
{
    RS_CLOSE int fd = text_fd(pass, strlen(pass));
    return rs_msg_call(sock, RS_MSG_LUKS_FORMAT, format, sizeof(*format), &fd, 1, out, sizeof(*out), header,
                       1);
}

int keyd_close(int sock, reseal_key key)
{
    const struct rs_msg_key m = {.key = key};
    return rs_msg_call(sock, RS_MSG_KEY_CLOSE, &m, sizeof(m), NULL, 0, NULL, 0, NULL, 0);
}

struct rs_msg_session_request session_of(uint32_t src, reseal_key src_key, uint32_t dst, reseal_key dst_key,
                                         uint32_t unit, uint64_t step)
{
    struct rs_msg_session_request q = {.uid = getuid(), .gid = getgid(), .pid = (uint32_t)getpid()};
    q.transform.counter_at = RESEAL_NO_COUNTER;
    q.transform.source = (struct rs_msg_side){.cipher = src, .unit = unit, .step = step, .key = src_key};
    q.transform.destination = (struct rs_msg_side){.cipher = dst, .unit = unit, .step = step, .key = dst_key};
    return q;
}

int keyd_session(const struct keyd *k, const struct rs_msg_session_request *request,
                 struct rs_msg_session_keys *out)
{
    struct rs_msg m;
    must(rs_msg_send(k->work, RS_MSG_SESSION_KEYS, 0, request, sizeof(*request), NULL, 0, 0) == 0, "session");
    do must(rs_msg_recv(k->work, &m, 0) == 0, "session");
    while (m.header.type == RS_MSG_KEY_REVOKED); /* they come when they come */
    must(m.header.type == (RS_MSG_SESSION_KEYS | RS_MSG_REPLY), "session");
    must(m.header.length == (m.header.status == 0 ? sizeof(*out) : 0), "session");
    memcpy(out, m.body, m.header.length);
    return m.header.status;
}

reseal_key keyd_revoked(const struct keyd *k)
{
    struct pollfd p = {.fd = k->work, .events = POLLIN};
    struct rs_msg m;
    struct rs_msg_key key;
    must(poll(&p, 1, 60000) == 1 && rs_msg_recv(k->work, &m, 0) == 0, "revocation");
    must(m.header.type == RS_MSG_KEY_REVOKED && m.header.length == sizeof(key), "revocation");
    memcpy(&key, m.body, sizeof(key));
    return key.key;
}

char *keyd_text(int sock, uint16_t type)
{
    int fd = -1;
    must(rs_msg_call(sock, type, NULL, 0, NULL, 0, NULL, 0, &fd, 1) == 0, "text");
    struct stat st;
    must(fstat(fd, &st) == 0, "fstat");
    char *text = calloc(1, (size_t)st.st_size + 1);
    must(text != NULL && rs_pread_full(fd, text, (size_t)st.st_size, 0) == 0, "read");
    close(fd);
    return text;
}

int run(const char *const *argv)
{
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int status = 0;
    must(posix_spawn_file_actions_init(&actions) == 0, "spawn");
    for (int fd = 0; fd < 3; fd++)
        (void)posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
    int r = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (r == ENOENT) {
        (void)printf("%s is not installed\n", argv[0]);
        exit(77);
    }
    must(r == 0 && waitpid(pid, &status, 0) == pid, argv[0]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

uint8_t *file_bytes(const char *path, size_t *len)
{
    struct stat st;
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && fstat(fd, &st) == 0, path);
    uint8_t *bytes = malloc((size_t)st.st_size + 1);
    must(bytes != NULL && rs_pread_full(fd, bytes, (size_t)st.st_size, 0) == 0, path);
    *len = (size_t)st.st_size;
    return bytes;
}

/* ---- named requests --------------------------------------------------------------------- */

int keyd_connect_as(const struct keyd *k, uid_t uid)
{
    must(seteuid(uid) == 0, "seteuid"); /* the socket keeps whom the kernel saw connecting */
    int sock = keyd_connect(k);
    must(seteuid(0) == 0, "seteuid");
    return sock;
}

static json_t *json_of(int fd)
{
    struct stat st;
    must(fstat(fd, &st) == 0, "fstat");
    char *text = calloc(1, (size_t)st.st_size + 1);
    must(text != NULL && rs_pread_full(fd, text, (size_t)st.st_size, 0) == 0, "read");
    json_t *reply = json_loads(text, 0, NULL);
    free(text);
    must(json_is_object(reply), "the reply is no object");
    return reply;
}

int keyd_ask(int sock, const char *method, json_t *args, const int *fds, unsigned nfds, json_t **reply,
             int *out)
{
    struct rs_msg m;
    int all[RS_MSG_FDS];
    json_t *request = json_pack("{s:s, s:o}", "method", method, "args", args != NULL ? args : json_object());
    char *text = request != NULL ? json_dumps(request, JSON_COMPACT) : NULL;
    must(text != NULL, "request");
    all[0] = rs_msg_text_fd(text, strlen(text));
    for (unsigned i = 0; i < nfds; i++) all[i + 1] = fds[i];
    must(rs_msg_send(sock, RS_MSG_RPC, 0, NULL, 0, all, nfds + 1, 0) == 0, method);
    must(rs_msg_recv(sock, &m, 0) == 0 && m.header.type == (RS_MSG_RPC | RS_MSG_REPLY) && m.nfds >= 1,
         method);
    close(all[0]);
    free(text);
    json_decref(request);
    if (reply != NULL) *reply = json_of(m.fds[0]);
    if (out != NULL) *out = rs_msg_take_fd(&m, 1);
    rs_msg_close_fds(&m);
    return m.header.status;
}
