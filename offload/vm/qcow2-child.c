/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/qcow2-child.h"

#include "offload/base/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOT_INSTALLED 127
#define KILL_MS       10000
/* A sound image needs a fraction of these. */
#define MEMORY_MAX (8ull << 30)
#define FILES_MAX  256u

static void limit(__rlimit_resource_t what, uint64_t value)
{
    struct rlimit now;
    if (getrlimit(what, &now) != 0) return;
    struct rlimit l = {.rlim_cur = RS_MIN((rlim_t)value, now.rlim_max),
                       .rlim_max = RS_MIN((rlim_t)value, now.rlim_max)};
    (void)setrlimit(what, &l);
}

static int confine(const struct rs_qcow2_start *s)
{
    struct rs_protections p = {0};
    /* Of /etc what libraries read: with root's rights the rest has secrets, and the image is its owner's. */
    const struct rs_path paths[] = {{"/usr", RS_PATH_READ | RS_PATH_EXECUTE},
                                    {"/bin", RS_PATH_READ | RS_PATH_EXECUTE},
                                    {"/lib", RS_PATH_READ | RS_PATH_EXECUTE},
                                    {"/lib64", RS_PATH_READ | RS_PATH_EXECUTE},
                                    {"/etc/ld.so.cache", RS_PATH_READ},
                                    {"/etc/gnutls", RS_PATH_READ},
                                    {"/etc/crypto-policies", RS_PATH_READ},
                                    {"/etc/ssl/openssl.cnf", RS_PATH_READ},
                                    {"/etc/localtime", RS_PATH_READ},
                                    {"/proc/self", RS_PATH_READ},
                                    {"/sys", RS_PATH_READ},
                                    {"/dev/null", RS_PATH_READ | RS_PATH_WRITE},
                                    {"/dev/urandom", RS_PATH_READ},
                                    {s->file, RS_PATH_READ | (s->writable ? RS_PATH_WRITE : 0u)},
                                    {NULL, 0}};
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_AS, MEMORY_MAX);
    limit(RLIMIT_NOFILE, FILES_MAX);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -errno;
    /* Of root's rights those that open an image of another user. */
    rs_sandbox_bound(1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH);
    return rs_sandbox_files(&p, paths, 0) == 0 ? 0 : -EIO;
}

/* Whoever started us may have left descriptors open for us: not for it. */
static void keep_no_others(unsigned first)
{
    if (close_range(first, ~0u, CLOSE_RANGE_CLOEXEC) == 0) return;
    for (int fd = (int)first; fd < 1024; fd++) (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* Its own three descriptors, and the listener as number 3. */
static int place_files(const struct rs_qcow2_start *s, int errors)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(errors, 2) < 0) return -errno;
    keep_no_others(s->listener < 0 ? 3 : 4);
    if (s->listener < 0) return 0;
    if (s->listener != 3) return dup2(s->listener, 3) < 0 ? -errno : 0;
    return fcntl(3, F_SETFD, 0) == 0 ? 0 : -errno;
}

__attribute__((noreturn)) static void run(const struct rs_qcow2_start *s, int errors, pid_t parent)
{
    char pid[48];
    (void)snprintf(pid, sizeof(pid), "LISTEN_PID=%ld", (long)getpid());
    char fds[] = "LISTEN_FDS=1", path[] = "PATH=/usr/bin:/bin", locale[] = "LC_ALL=C";
    char *const with[] = {path, locale, pid, fds, NULL}, *const without[] = {path, locale, NULL};
    sigset_t none;
    sigemptyset(&none);
    (void)setpgid(0, 0);
    int code = place_files(s, errors);
    /* Before anything foreign: a parent that died meanwhile would not tell. */
    if (code == 0 && (prctl(PR_SET_PDEATHSIG, s->death, 0, 0, 0) != 0 || getppid() != parent)) code = -ESRCH;
    if (code == 0) code = confine(s);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (code == 0)
        (void)execvpe(s->argv[0], (char *const *)(uintptr_t)s->argv, s->listener >= 0 ? with : without);
    _exit(NOT_INSTALLED);
}

int rs_qcow2_child_start(struct rs_qcow2_child *child, const struct rs_qcow2_start *start)
{
    int errors[2];
    *child = (struct rs_qcow2_child){.pid = -1, .pidfd = -1, .errors = -1};
    if (pipe2(errors, O_CLOEXEC | O_NONBLOCK) != 0) return -errno;
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) run(start, errors[1], parent);
    int code = pid < 0 ? -errno : 0;
    close(errors[1]);
    if (code != 0) {
        close(errors[0]);
        return code;
    }
    child->pid = pid;
    child->errors = errors[0];
    child->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    return 0;
}

/* ---- its end ------------------------------------------------------------------------ */

static bool ended(const struct rs_qcow2_child *child, int ms)
{
    struct pollfd p = {.fd = child->pidfd, .events = POLLIN};
    siginfo_t info = {0};
    if (child->pidfd >= 0) (void)poll(&p, 1, ms);
    /* Without a pidfd (before Linux 5.3) it is waited for. */
    int flags = WEXITED | WNOWAIT | (child->pidfd >= 0 ? WNOHANG : 0);
    return waitid(P_PID, (id_t)child->pid, &info, flags) != 0 || info.si_pid == child->pid;
}

/* The first line, behind "PROGRAM: ", as text for a terminal. */
static void first_line(int fd, char *said, size_t room)
{
    char raw[512];
    ssize_t n = fd < 0 ? -1 : read(fd, raw, sizeof(raw) - 1);
    raw[n > 0 ? n : 0] = '\0';
    raw[strcspn(raw, "\n")] = '\0';
    const char *text =
        strncmp(raw, "qemu-", 5) == 0 && strstr(raw, ": ") != NULL ? strstr(raw, ": ") + 2 : raw;
    size_t k = 0;
    for (; *text != '\0' && k + 1 < room; text++) said[k++] = *text >= ' ' && *text < 0x7f ? *text : '?';
    if (room != 0) said[k] = '\0';
}

int rs_qcow2_child_wait(struct rs_qcow2_child *child, int ms, char *said, size_t said_len)
{
    int status = 0, code = 0;
    if (said_len != 0) said[0] = '\0';
    if (child->pid < 0) return 0;
    if (!ended(child, ms)) {
        code = -ETIMEDOUT;
        (void)kill(child->pid, SIGTERM);
        if (!ended(child, KILL_MS)) (void)kill(child->pid, SIGKILL);
    }
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR) continue;
    first_line(child->errors, said, said_len);
    if (child->pidfd >= 0) close(child->pidfd);
    if (child->errors >= 0) close(child->errors);
    *child = (struct rs_qcow2_child){.pid = -1, .pidfd = -1, .errors = -1};
    if (code != 0) return code;
    if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_INSTALLED) return -ENOENT;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}
