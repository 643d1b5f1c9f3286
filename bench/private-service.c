/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/private-service.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/leave-nothing.h"
#include "offload/base/clock.h"
#include "reseal/reseal.h"

#define START_MS 60000 /* self-tests of a slow, sanitised build */
#define STOP_NS  10000000000ull
#define TREE_MAX 256

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

/* ---- start ---------------------------------------------------------------- */

/* The reseald that belongs to this program. */
static int find_program(char *path, size_t len)
{
    static const char *const places[] = {"reseald", "../sbin/reseald", "../libexec/reseal/reseald"};
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n <= 0) return RESEAL_EIO;
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    if (slash == NULL) return RESEAL_EIO;
    *slash = '\0';
    for (size_t i = 0; i < RS_ARRAY_LEN(places); i++) {
        int want = snprintf(path, len, "%s/%s", self, places[i]);
        if (want > 0 && (size_t)want < len && access(path, X_OK) == 0) return 0;
    }
    return RESEAL_ENOSERVICE;
}

/* In the child: everything that it says goes to a file, whose last line explains a failure. */
RS_NORETURN static void run_program(const struct rs_private_service *s, const char *program, const char *cpus,
                                    int ready, pid_t parent)
{
    char log[PATH_MAX + 8];
    snprintf(log, sizeof(log), "%s/log", s->dir);
    int fd = open(log, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || null < 0 || dup2(null, 0) < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0) _exit(127);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(127);
    char number[16];
    snprintf(number, sizeof(number), "%d", ready);
    const char *argv[] = {"reseald", "--runtime-dir", s->dir, "--ready-fd", number, NULL, NULL, NULL};
    if (cpus != NULL) {
        argv[5] = "--cpus";
        argv[6] = cpus;
    }
    execv(program, (char *const *)(uintptr_t)argv);
    _exit(127);
}

static void last_line(struct rs_private_service *s)
{
    char log[PATH_MAX + 8], line[200];
    snprintf(log, sizeof(log), "%s/log", s->dir);
    FILE *f = fopen(log, "re");
    if (f == NULL) return;
    while (fgets(line, sizeof(line), f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '\0') snprintf(s->why, sizeof(s->why), "the service did not start: %s", line);
    }
    fclose(f);
}

/* One line when it answers; the end of the pipe when it ended before that. */
static int wait_ready(struct rs_private_service *s, int ready)
{
    char line[16];
    struct pollfd p = {.fd = ready, .events = POLLIN};
    if (poll(&p, 1, START_MS) == 1 && read(ready, line, sizeof(line)) > 0) return 0;
    snprintf(s->why, sizeof(s->why), "the service did not start");
    last_line(s);
    return RESEAL_ENOSERVICE;
}

static int start(struct rs_private_service *s, const char *program, const char *cpus)
{
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) != 0) return RESEAL_EIO;
    pid_t parent = getpid();
    sigset_t all, before;
    /* A signal that ends the program finds the process: not one that nobody knows of yet. */
    sigfillset(&all);
    (void)sigprocmask(SIG_BLOCK, &all, &before);
    s->pid = fork();
    if (s->pid == 0) {
        (void)sigprocmask(SIG_SETMASK, &before, NULL);
        (void)fcntl(ready[1], F_SETFD, 0);
        run_program(s, program, cpus, ready[1], parent);
    }
    if (s->pid > 0) rs_temporary_process(s->pid);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    close(ready[1]);
    int r = RESEAL_EIO;
    if (s->pid < 0) {
        s->pid = 0;
        snprintf(s->why, sizeof(s->why), "cannot fork: %s", strerror(errno));
    } else {
        r = wait_ready(s, ready[0]);
    }
    close(ready[0]);
    return r;
}

int rs_private_service_start(struct rs_private_service *s, const char *cpus)
{
    char program[PATH_MAX];
    *s = (struct rs_private_service){.pid = 0};
    int r = find_program(program, sizeof(program));
    if (r != 0) {
        snprintf(s->why, sizeof(s->why), "there is no reseald beside this program");
        return r;
    }
    const char *where = getenv("TMPDIR");
    r = rs_temporary_folder(where != NULL && where[0] != '\0' ? where : "/tmp", s->dir, sizeof(s->dir));
    if (r != 0) {
        snprintf(s->why, sizeof(s->why), "cannot make a temporary folder: %s", strerror(-r));
        return RESEAL_EIO;
    }
    r = start(s, program, cpus);
    if (r != 0) rs_private_service_stop(s);
    return r;
}

/* ---- stop ----------------------------------------------------------------- */

void rs_private_service_stop(struct rs_private_service *s)
{
    if (s->pid > 0) {
        kill(s->pid, SIGTERM);
        uint64_t start = rs_now_ns();
        bool gone;
        while (!(gone = waitpid(s->pid, NULL, WNOHANG) != 0) && rs_now_ns() - start < STOP_NS) nap();
        if (!gone) {
            kill(s->pid, SIGKILL);
            waitpid(s->pid, NULL, 0);
        }
    }
    s->pid = 0;
    rs_temporary_process(0);
    rs_temporary_folder_remove(s->dir);
}

/* ---- CPU time --------------------------------------------------------------- */

struct process {
    pid_t pid, parent;
    double waited; /* CPU seconds of children that ended */
};

/* From /proc/PID/stat: the name may hold anything, so fields count from the last ')'. */
static bool read_process(pid_t pid, struct process *p)
{
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL) return false;
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    fclose(f);
    text[n] = '\0';
    char *end = strrchr(text, ')');
    int parent;
    unsigned long cutime, cstime;
    if (end == NULL || sscanf(end + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %lu %lu", &parent,
                              &cutime, &cstime) != 3)
        return false;
    *p = (struct process){pid, parent, (double)(cutime + cstime) / (double)sysconf(_SC_CLK_TCK)};
    return true;
}

static double own_seconds(pid_t pid)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0) return 0;
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static size_t all_processes(struct process *list, size_t max)
{
    size_t n = 0;
    DIR *d = opendir("/proc");
    if (d == NULL) return 0;
    for (struct dirent *e; n < max && (e = readdir(d)) != NULL;) {
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        if (pid > 0 && read_process(pid, &list[n])) n++;
    }
    closedir(d);
    return n;
}

double rs_cpu_seconds_of_tree(pid_t pid)
{
    static struct process list[32768]; /* the largest default of pid_max */
    size_t n = all_processes(list, RS_ARRAY_LEN(list)), members = 1;
    pid_t tree[TREE_MAX] = {pid};
    double total = 0;
    for (size_t at = 0; at < members; at++) {
        total += own_seconds(tree[at]);
        for (size_t i = 0; i < n; i++) {
            if (list[i].pid == tree[at]) total += list[i].waited;
            if (list[i].parent == tree[at] && members < TREE_MAX) tree[members++] = list[i].pid;
        }
    }
    return total;
}

pid_t rs_service_pid(const char *dir)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int n = snprintf(to.sun_path, sizeof(to.sun_path), "%s/control.sock", dir);
    if (n < 0 || (size_t)n >= sizeof(to.sun_path)) return 0;
    RS_CLOSE int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct ucred peer = {0};
    socklen_t len = sizeof(peer);
    /* The kernel tells who listens: the one that called listen(2), which is reseald. */
    if (s < 0 || connect(s, (struct sockaddr *)&to, sizeof(to)) != 0 ||
        getsockopt(s, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0)
        return 0;
    return peer.pid;
}
