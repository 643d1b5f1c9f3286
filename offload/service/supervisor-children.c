/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/supervisor.h"

#include "offload/base/clock.h"
#include "offload/ring/control.h"
#include "offload/service/internal.h"
#include "providers/key/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECOND   1000000000ull
#define SOON_NS  SECOND        /* a child that ends sooner than this after its start failed */
#define FIRST_NS (SECOND / 20) /* back-off after the second failure, doubled with each */
#define LONGEST  SECOND        /* a service that is away longer is given up by its clients */
#define STOP_MS  5000
#define READY_S  30

/* ---- where programs are ------------------------------------------------------------- */

static bool both_in(const char *folder)
{
    char path[PATH_MAX];
    static const char *const names[] = {"reseald-work", "reseal-keyd"};
    for (size_t i = 0; i < RS_ARRAY_LEN(names); i++) {
        int n = snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        if (n <= 0 || (size_t)n >= sizeof(path) || access(path, X_OK) != 0) return false;
    }
    return true;
}

int rs_children_find(struct rs_supervisor *s)
{
    char self[PATH_MAX], libexec[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n > 0) {
        self[n] = 0;
        char *slash = strrchr(self, '/');
        if (slash != NULL) *slash = 0;
        int m = snprintf(libexec, sizeof(libexec), "%s/../libexec/reseal", self);
        const char *found = both_in(self) ? self : NULL;
        if (found == NULL && m > 0 && (size_t)m < sizeof(libexec) && both_in(libexec)) found = libexec;
        if (found != NULL) {
            memcpy(s->programs, found, strlen(found) + 1);
            return 0;
        }
    }
    fputs("reseald: reseald-work and reseal-keyd are neither beside this program nor in ../libexec/reseal\n",
          stderr);
    return RESEAL_ENOSERVICE;
}

/* ---- start ---------------------------------------------------------------------------- */

struct arguments {
    const char *list[16];
    unsigned count;
    char numbers[5][12];
    int fds[5];
    unsigned nfds;
};

static void add(struct arguments *a, const char *text)
{
    a->list[a->count++] = text;
}

/* An option that names a descriptor, which the program inherits. */
static void add_fd(struct arguments *a, const char *option, int fd)
{
    snprintf(a->numbers[a->nfds], sizeof(a->numbers[0]), "%d", fd);
    add(a, option);
    add(a, a->numbers[a->nfds]);
    a->fds[a->nfds++] = fd;
}

static RS_NORETURN void run_program(const char *path, const struct arguments *a)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (unsigned i = 0; i < a->nfds; i++)
        if (fcntl(a->fds[i], F_SETFD, 0) != 0) _exit(127);
    /* The list is made of strings that exec does not change. */
    execv(path, (char *const *)(uintptr_t)a->list);
    _exit(127);
}

static int start_child(struct rs_supervisor *s, struct rs_child *child, const char *name, struct arguments *a)
{
    char path[PATH_MAX + 32];
    snprintf(path, sizeof(path), "%s/%s", s->programs, name);
    a->list[0] = name;
    pid_t pid = fork();
    if (pid < 0) return RESEAL_ENOMEM;
    if (pid == 0) run_program(path, a);
    child->pid = pid;
    child->pidfd = pidfd_open(pid, 0);
    child->started_ns = rs_now_ns();
    child->again_ns = 0;
    return child->pidfd >= 0 ? 0 : RESEAL_EIO;
}

static int pair_of(int fds[2])
{
    fds[0] = fds[1] = -1;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0 ? 0 : RESEAL_ENOMEM;
}

static int start_work(struct rs_supervisor *s, int keyd, int inherit)
{
    int pair[2];
    struct arguments a = {.count = 1};
    int e = pair_of(pair);
    if (e != 0) return e;
    add_fd(&a, "--listen-fd", s->control);
    add_fd(&a, "--supervisor-fd", pair[1]);
    if (keyd >= 0) add_fd(&a, "--keyd-fd", keyd);
    if (inherit >= 0) add_fd(&a, "--inherit-fd", inherit);
    if (s->options->workers != NULL) {
        add(&a, "--workers");
        add(&a, s->options->workers);
    }
    if (s->options->cpus != NULL) {
        add(&a, "--cpus");
        add(&a, s->options->cpus);
    }
    e = start_child(s, &s->work, "reseald-work", &a);
    close(pair[1]);
    rs_cleanup_close(&s->work.socket);
    s->work.socket = pair[0];
    return e;
}

static int start_keyd(struct rs_supervisor *s, int work)
{
    int pair[2];
    char uid[16];
    struct arguments a = {.count = 1};
    int e = pair_of(pair);
    if (e != 0) return e;
    add_fd(&a, "--listen-fd", s->keys);
    add_fd(&a, "--supervisor-fd", pair[1]);
    add_fd(&a, "--work-fd", work);
    snprintf(uid, sizeof(uid), "%u", (unsigned)geteuid());
    add(&a, s->options->policy != NULL ? "--policy" : "--private-uid");
    add(&a, s->options->policy != NULL ? s->options->policy : uid);
    add(&a, "--state-dir");
    add(&a, s->options->state_dir);
    if (s->options->keep_audit != NULL) {
        add(&a, "--keep-audit");
        add(&a, s->options->keep_audit);
    }
    if (s->options->agent != NULL) {
        add(&a, "--agent");
        add(&a, s->options->agent);
    }
    e = start_child(s, &s->keyd, "reseal-keyd", &a);
    close(pair[1]);
    rs_cleanup_close(&s->keyd.socket);
    s->keyd.socket = pair[0];
    return e;
}

/* Gives one end of a pair to a child that runs; a child that does not take it will be restarted anyway. */
static void give_end(const struct rs_child *child, uint16_t type, int fd)
{
    if (child->pidfd >= 0 && rs_msg_send(child->socket, type, 0, NULL, 0, &fd, 1, MSG_DONTWAIT) != 0) return;
}

void rs_children_pair(struct rs_supervisor *s)
{
    int pair[2];
    uint64_t now = rs_now_ns();
    /* A reseal-keyd that hangs is not mended by ever more pairs. */
    if (now - s->repaired_ns < SECOND || pair_of(pair) != 0) return;
    s->repaired_ns = now;
    give_end(&s->keyd, RS_MSG_WORK_PAIR, pair[0]);
    give_end(&s->work, RS_MSG_NEW_KEYD, pair[1]);
    close(pair[0]);
    close(pair[1]);
}

static bool due(const struct rs_child *child)
{
    return child->pidfd < 0 && (child->again_ns == 0 || child->again_ns <= rs_now_ns());
}

static void failed(struct rs_child *child)
{
    uint64_t now = rs_now_ns(), wait = 0;
    child->failures = now - child->started_ns < SOON_NS ? child->failures + 1 : 1;
    if (child->failures > 1) wait = FIRST_NS << RS_MIN(child->failures - 2, 10u);
    child->again_ns = wait == 0 ? 0 : now + RS_MIN(wait, LONGEST);
}

void rs_children_start(struct rs_supervisor *s, int inherit)
{
    int pair[2];
    RS_CLOSE int old = inherit;
    bool keyd = due(&s->keyd), work = due(&s->work);
    if ((!keyd && !work) || pair_of(pair) != 0) return;
    if (keyd && start_keyd(s, pair[0]) != 0) failed(&s->keyd);
    if (work && start_work(s, pair[1], old) != 0) failed(&s->work);
    if (!keyd) give_end(&s->keyd, RS_MSG_WORK_PAIR, pair[0]);
    if (!work) give_end(&s->work, RS_MSG_NEW_KEYD, pair[1]);
    close(pair[0]);
    close(pair[1]);
}

int rs_children_due(const struct rs_supervisor *s)
{
    const struct rs_child *both[] = {&s->work, &s->keyd};
    uint64_t now = rs_now_ns();
    int least = -1;
    for (size_t i = 0; i < RS_ARRAY_LEN(both); i++) {
        if (both[i]->pidfd >= 0) continue;
        int ms = both[i]->again_ns <= now ? 0 : (int)((both[i]->again_ns - now) / 1000000u) + 1;
        least = least < 0 ? ms : RS_MIN(least, ms);
    }
    return least;
}

/* ---- end ------------------------------------------------------------------------------- */

/* True when it has never done better than to refuse what it was started with. One that did is started again:
 * clients wait for it, and somebody may mend what it is about. */
static bool cannot_start(struct rs_child *child, int status)
{
    if (!WIFEXITED(status) || WEXITSTATUS(status) != RS_KEYD_UNUSABLE) child->was_usable = true;
    return !child->was_usable;
}

void rs_children_gone(struct rs_supervisor *s, struct rs_child *child)
{
    int status = 0;
    const char *name = child == &s->work ? "reseald-work" : "reseal-keyd";
    if (child->pid != 0 && waitpid(child->pid, &status, 0) == child->pid) {
        if (child == &s->keyd && cannot_start(child, status))
            s->stop = s->unusable = true;
        else if (s->successor < 0)
            fprintf(stderr, "reseald: %s ended (%s %d), starting it again\n", name,
                    WIFSIGNALED(status) ? "signal" : "exit",
                    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    rs_cleanup_close(&child->pidfd);
    rs_cleanup_close(&child->socket);
    child->pid = 0;
    failed(child);
}

static void wait_for(struct rs_child *child, int ms)
{
    struct pollfd p = {.fd = child->pidfd, .events = POLLIN};
    if (child->pidfd < 0) return;
    if (poll(&p, 1, ms) == 0) {
        /* It may be inside a job; what it holds dies with it. */
        if (pidfd_send_signal(child->pidfd, SIGKILL, NULL, 0) == 0 && poll(&p, 1, ms) < 0) return;
    }
    if (child->pid != 0) waitpid(child->pid, NULL, 0);
    rs_cleanup_close(&child->pidfd);
}

void rs_children_stop(struct rs_supervisor *s)
{
    rs_cleanup_close(&s->work.socket);
    wait_for(&s->work, STOP_MS);
    rs_cleanup_close(&s->keyd.socket);
    if (s->keyd.pidfd >= 0 && pidfd_send_signal(s->keyd.pidfd, SIGTERM, NULL, 0) != 0)
        fputs("reseald: reseal-keyd cannot be signalled\n", stderr);
    wait_for(&s->keyd, STOP_MS);
}

/* ---- ready ------------------------------------------------------------------------------ */

/* A refusal is an answer too: the policy need not grant anything to the service's own user. */
static bool answers(const struct rs_supervisor *s, const char *name)
{
    struct rs_msg_welcome welcome;
    struct rs_msg_hello hello = {.min_version = RS_MSG_VERSION, .max_version = RS_MSG_VERSION};
    RS_CLOSE int fd = rs_folder_connect(s, name);
    if (fd < 0) return false;
    int e = rs_msg_call(fd, RS_MSG_HELLO, &hello, sizeof(hello), NULL, 0, &welcome, sizeof(welcome), NULL, 0);
    return e == 0 || e == RESEAL_EPERM;
}

void rs_children_say_ready(struct rs_supervisor *s)
{
    int fd = s->options->ready_fd;
    if (fd < 0 || s->said_ready) return;
    s->said_ready = true;
    /* In a process of its own: this one never waits for another. */
    pid_t pid = fork();
    if (pid == 0) {
        close(s->lock); /* it may outlive the service, which can be started again then */
        alarm(READY_S);
        bool ok = answers(s, "control.sock") && answers(s, "keys.sock");
        _exit(ok && rs_write_full(fd, "ready\n", 6) == 0 ? 0 : 1);
    }
    close(fd);
}
