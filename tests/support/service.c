/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/service.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
    fprintf(stderr, "test service: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void program_path(char *to, size_t room)
{
    const char *build = getenv("RESEAL_BUILD");
    snprintf(to, room, "%s/bin/reseald", build != NULL ? build : "build/release");
}

bool service_is_built(void)
{
    char path[512];
    program_path(path, sizeof(path));
    return access(path, X_OK) == 0;
}

static void make_dir(struct service *s)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(s->dir, sizeof(s->dir), "%s/reseal-test-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(s->dir) == NULL) die("mkdtemp");
}

/* Reads the one line that says so; the pipe ends without it when the program does. */
static void wait_ready(int fd)
{
    char line[64];
    ssize_t n;
    do n = read(fd, line, sizeof(line));
    while (n < 0 && errno == EINTR);
    if (n <= 0) die("reseald ended before it was ready");
    close(fd);
}

static void run(const struct service *s, const char *ready, const char *const *more)
{
    const char *argv[32] = {"reseald", "--runtime-dir", s->dir, "--foreground", "--ready-fd", ready};
    unsigned n = 6;
    for (; more != NULL && *more != NULL && n < 31; more++) argv[n++] = *more;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    execv(s->program, (char *const *)(void *)argv);
    _exit(127);
}

void service_start_with(struct service *s, const char *const *arguments)
{
    int ready[2];
    char number[16];
    program_path(s->program, sizeof(s->program));
    if (s->dir[0] == '\0') make_dir(s);
    if (pipe(ready) != 0) die("pipe");
    fcntl(ready[0], F_SETFD, FD_CLOEXEC);
    snprintf(number, sizeof(number), "%d", ready[1]);
    s->pid = fork();
    if (s->pid < 0) die("fork");
    if (s->pid == 0) run(s, number, arguments);
    close(ready[1]);
    wait_ready(ready[0]);
}

void service_start(struct service *s)
{
    memset(s, 0, sizeof(*s));
    service_start_with(s, NULL);
}

static void wait_for(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
}

static void remove_dir(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL) return;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char inner[1024];
        snprintf(inner, sizeof(inner), "%s/%s", path, e->d_name);
        if (unlink(inner) != 0) remove_dir(inner);
    }
    closedir(dir);
    rmdir(path);
}

void service_stop(struct service *s)
{
    if (s->pid > 0) {
        kill(s->pid, SIGTERM);
        wait_for(s->pid);
    }
    s->pid = 0;
    if (s->dir[0] != '\0') remove_dir(s->dir);
    s->dir[0] = '\0';
}

struct service service;

int service_group_start(void **state)
{
    (void)state;
    service_start(&service);
    return 0;
}

int service_group_stop(void **state)
{
    (void)state;
    service_stop(&service);
    return 0;
}

/* The first field after the name in /proc/PID/stat is the state, the second the parent. */
static bool is_child_named(const char *pid, pid_t parent, const char *name)
{
    char path[320], line[512] = "";
    snprintf(path, sizeof(path), "/proc/%s/stat", pid);
    FILE *f = fopen(path, "re");
    if (f == NULL) return false;
    bool got = fgets(line, sizeof(line), f) != NULL;
    fclose(f);
    char *open = strchr(line, '('), *close = strrchr(line, ')');
    if (!got || open == NULL || close == NULL) return false;
    char state = '?';
    int ppid = 0;
    if (sscanf(close + 1, " %c %d", &state, &ppid) != 2 || ppid != parent || state == 'Z') return false;
    *close = '\0';
    /* The kernel keeps fifteen characters of a name. */
    return strncmp(open + 1, name, 15) == 0;
}

pid_t service_child(const struct service *s, const char *name)
{
    pid_t found = 0;
    DIR *proc = opendir("/proc");
    if (proc == NULL) die("/proc");
    for (struct dirent *e; found == 0 && (e = readdir(proc)) != NULL;) {
        if (e->d_name[0] < '1' || e->d_name[0] > '9') continue;
        if (is_child_named(e->d_name, s->pid, name)) found = (pid_t)strtol(e->d_name, NULL, 10);
    }
    closedir(proc);
    return found;
}

/* True when the thread does not stand still: its state is the field after the name. */
static bool is_moving(const char *task, const char *thread)
{
    char path[512], line[512] = "";
    snprintf(path, sizeof(path), "%s/%s/stat", task, thread);
    FILE *f = fopen(path, "re");
    if (f == NULL) return false;
    bool got = fgets(line, sizeof(line), f) != NULL;
    fclose(f);
    const char *close = strrchr(line, ')');
    return got && close != NULL && close[1] != '\0' && close[2] != 'T';
}

void service_freeze(pid_t pid)
{
    char task[64];
    snprintf(task, sizeof(task), "/proc/%d/task", pid);
    if (kill(pid, SIGSTOP) != 0) die("SIGSTOP");
    for (bool moving = true; moving; sched_yield()) {
        DIR *dir = opendir(task);
        if (dir == NULL) die(task);
        moving = false;
        for (struct dirent *e; (e = readdir(dir)) != NULL;)
            if (e->d_name[0] != '.') moving |= is_moving(task, e->d_name);
        closedir(dir);
    }
}

void service_thaw(pid_t pid)
{
    if (kill(pid, SIGCONT) != 0) die("SIGCONT");
}

/* Kills a process that is not our child and waits until it is gone. */
static void kill_and_wait(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) return;
    syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (poll(&p, 1, -1) < 0 && errno == EINTR) continue;
    close(fd);
}

bool service_kill_child(const struct service *s, const char *name)
{
    pid_t pid = service_child(s, name);
    if (pid == 0) return false;
    kill_and_wait(pid);
    return true;
}

void service_kill(struct service *s)
{
    pid_t work = service_child(s, "reseald-work"), keyd = service_child(s, "reseal-keyd");
    kill(s->pid, SIGKILL);
    wait_for(s->pid);
    s->pid = 0;
    if (work != 0) kill_and_wait(work);
    if (keyd != 0) kill_and_wait(keyd);
}
