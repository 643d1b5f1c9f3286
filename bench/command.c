/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/command.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "offload/base/clock.h"
#include "reseal/reseal.h"

bool rs_command_known(const char *name)
{
    const char *path = getenv("PATH");
    char full[PATH_MAX];
    while (path != NULL && *path != '\0') {
        size_t len = strcspn(path, ":");
        int n = snprintf(full, sizeof(full), "%.*s/%s", (int)len, path, name);
        if (n > 0 && (size_t)n < sizeof(full) && access(full, X_OK) == 0) return true;
        path += len + (path[len] == ':');
    }
    return false;
}

RS_NORETURN static void become(const char *const *argv, int errors, pid_t parent)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(errors, 2) < 0) _exit(127);
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
    if (pid == 0) become(argv, errors, parent);
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
