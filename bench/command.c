/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/command.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "offload/base/clock.h"
#include "reseal/reseal.h"

#define OUTPUT_MAX (16u << 20)

/* A folder of that name is not a program. */
static bool program_at(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

int rs_command_find(const char *name, char *path, size_t len)
{
    if (strchr(name, '/') != NULL) {
        int n = snprintf(path, len, "%s", name);
        return n > 0 && (size_t)n < len && program_at(path) ? 0 : RESEAL_EINVAL;
    }
    const char *at = getenv("PATH");
    while (at != NULL && *at != '\0') {
        size_t part = strcspn(at, ":");
        int n = snprintf(path, len, "%.*s/%s", (int)part, at, name);
        if (n > 0 && (size_t)n < len && program_at(path)) return 0;
        at += part + (at[part] == ':');
    }
    return RESEAL_EINVAL;
}

bool rs_command_known(const char *name)
{
    char full[PATH_MAX];
    return rs_command_find(name, full, sizeof(full)) == 0;
}

/* `out` < 0: what it writes goes nowhere. */
RS_NORETURN static void become(const char *const *argv, int out, int errors, pid_t parent)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, 0) < 0 || dup2(out < 0 ? null : out, 1) < 0 || dup2(errors, 2) < 0) _exit(127);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(127);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static void last_line(int errors, struct rs_command_result *out)
{
    char text[1024];
    off_t size = lseek(errors, 0, SEEK_END);
    if (size <= 0) return;
    off_t from = size > (off_t)sizeof(text) - 1 ? size - ((off_t)sizeof(text) - 1) : 0;
    ssize_t n = pread(errors, text, sizeof(text) - 1, from);
    if (n <= 0) return;
    while (n > 0 && text[n - 1] == '\n') n--;
    text[n] = '\0';
    char *line = strrchr(text, '\n');
    snprintf(out->why, sizeof(out->why), "%.255s", line == NULL ? text : line + 1);
}

static double seconds_of(const struct timeval *t)
{
    return (double)t->tv_sec + (double)t->tv_usec / 1e6;
}

int rs_command_run(const char *const *argv, struct rs_command_result *out)
{
    *out = (struct rs_command_result){.status = 127};
    RS_CLOSE int errors = memfd_create("stderr", MFD_CLOEXEC);
    if (errors < 0) return RESEAL_EIO;
    uint64_t start = rs_now_ns();
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) become(argv, -1, errors, parent);
    if (pid < 0) return RESEAL_EIO;
    struct rusage used;
    int status;
    while (wait4(pid, &status, 0, &used) < 0)
        if (errno != EINTR) return RESEAL_EIO;
    out->seconds = (double)(rs_now_ns() - start) / 1e9;
    out->cpu_seconds = seconds_of(&used.ru_utime) + seconds_of(&used.ru_stime);
    out->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (out->status == 0) return 0;
    last_line(errors, out);
    return RESEAL_EIO;
}

pid_t rs_command_start(const char *const *argv)
{
    RS_CLOSE int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    pid_t parent = getpid(), pid = null < 0 ? -1 : fork();
    if (pid == 0) become(argv, -1, null, parent);
    return pid;
}

void rs_command_end(pid_t pid)
{
    int status;
    if (pid <= 0 || kill(pid, SIGTERM) != 0) return;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
}

/* ---- with its output ----------------------------------------------------------- */

RS_NORETURN static void become_heard(const char *const *argv, const char *const *env, const int fds[2],
                                     pid_t parent)
{
    /* The kernel ends what never stops writing. */
    if (setrlimit(RLIMIT_FSIZE, &(struct rlimit){OUTPUT_MAX, OUTPUT_MAX}) != 0) _exit(127);
    for (; env != NULL && *env != NULL; env++)
        if (putenv((char *)(uintptr_t)*env) != 0) _exit(127);
    become(argv, fds[0], fds[1], parent);
}

/* Ends it when its time is over. A kernel without process descriptors waits as long as it takes. */
static int wait_limited(pid_t pid, unsigned limit_s)
{
    RS_CLOSE int process = (int)syscall(SYS_pidfd_open, pid, 0);
    uint64_t end = rs_now_ns() + limit_s * UINT64_C(1000000000), now;
    struct pollfd p = {.fd = process, .events = POLLIN};
    while (process >= 0 && (p.revents & POLLIN) == 0) {
        now = rs_now_ns();
        if (now >= end) {
            kill(pid, SIGKILL);
            break;
        }
        if (poll(&p, 1, (int)RS_MIN((end - now) / 1000000 + 1, 60000u)) < 0 && errno != EINTR) break;
    }
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return 127;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static char *content_of(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0) return NULL;
    size_t len = (size_t)st.st_size;
    char *text = malloc(len + 1);
    if (text == NULL) return NULL;
    if (rs_pread_full(fd, text, len, 0) != 0) len = 0;
    text[len] = '\0';
    return text;
}

int rs_command_output(const char *const *argv, const char *const *env, unsigned limit_s,
                      struct rs_command_text *out)
{
    *out = (struct rs_command_text){.status = 127};
    RS_CLOSE int text = memfd_create("stdout", MFD_CLOEXEC);
    RS_CLOSE int errors = memfd_create("stderr", MFD_CLOEXEC);
    if (text < 0 || errors < 0) return RESEAL_EIO;
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) become_heard(argv, env, (const int[2]){text, errors}, parent);
    if (pid < 0) return RESEAL_EIO;
    out->status = wait_limited(pid, limit_s);
    out->out = content_of(text);
    out->err = content_of(errors);
    if (out->out != NULL && out->err != NULL) return 0;
    rs_command_text_free(out);
    return RESEAL_ENOMEM;
}

void rs_command_text_free(struct rs_command_text *t)
{
    free(t->out);
    free(t->err);
    t->out = t->err = NULL;
}
