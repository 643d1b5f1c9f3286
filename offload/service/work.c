/* SPDX-License-Identifier: Apache-2.0 */

/*
 * reseald-work: sessions, queues, workers. Started by reseald, which hands it
 * the listening socket and the pairs as descriptors; it opens no file itself.
 */

#include "offload/base/keymem.h"
#include "offload/service/handover.h"
#include "offload/service/internal.h"
#include "offload/service/place.h"
#include "offload/service/server.h"
#include "providers/crypto/openssl_memory.h"

#include <getopt.h>
#include <jansson.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

struct options {
    struct rs_server_options server;
    int inherit;
    unsigned workers;
    const char *cpus;
};

static int usage(void)
{
    fputs("usage: reseald-work --listen-fd N --keyd-fd N --supervisor-fd N [--inherit-fd N]\n"
          "                    [--workers N | --cpus LIST]\n"
          "Started by reseald; not for use by hand.\n",
          stderr);
    return 2;
}

static int number_of(const char *text, int *out)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (end == text || *end != 0 || v < 0 || v > 65535) return -1;
    *out = (int)v;
    return 0;
}

static int parse(int argc, char **argv, struct options *o)
{
    static const struct option table[] = {{"listen-fd", 1, NULL, 'l'},
                                          {"keyd-fd", 1, NULL, 'k'},
                                          {"supervisor-fd", 1, NULL, 's'},
                                          {"inherit-fd", 1, NULL, 'i'},
                                          {"workers", 1, NULL, 'w'},
                                          {"cpus", 1, NULL, 'c'},
                                          {NULL, 0, NULL, 0}};
    int workers = 0;
    *o = (struct options){.server = {.listen = -1, .keyd = -1, .supervisor = -1}, .inherit = -1};
    for (int c; (c = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        int e = 0;
        switch (c) {
        case 'l':
            e = number_of(optarg, &o->server.listen);
            break;
        case 'k':
            e = number_of(optarg, &o->server.keyd);
            break;
        case 's':
            e = number_of(optarg, &o->server.supervisor);
            break;
        case 'i':
            e = number_of(optarg, &o->inherit);
            break;
        case 'w':
            e = number_of(optarg, &workers);
            break;
        case 'c':
            o->cpus = optarg;
            break;
        default:
            return -1;
        }
        if (e != 0) return -1;
    }
    o->workers = (unsigned)workers;
    return optind == argc && o->server.listen >= 0 && o->server.supervisor >= 0 ? 0 : -1;
}

/* Every client costs descriptors: a socket, and two for each queue. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
    limit.rlim_cur = limit.rlim_max;
    /* Refused: the old limit holds, and a client too many is refused by it. */
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return;
}

/* Room for many sessions where locked memory is not limited, a share of the limit elsewhere. */
static size_t key_memory_size(void)
{
    struct rlimit limit;
    bool roomy = getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur >= (128u << 20);
    return roomy || geteuid() == 0 ? 32u << 20 : 0;
}

static const char *const calls[] = {"accept4",
                                    "brk",
                                    "clock_gettime",
                                    "clock_nanosleep",
                                    "clone",
                                    "close",
                                    "epoll_create1",
                                    "epoll_ctl",
                                    "epoll_pwait",
                                    "epoll_wait",
                                    "eventfd2",
                                    "exit",
                                    "exit_group",
                                    "fallocate",
                                    "fcntl",
                                    "fstat",
                                    "ftruncate",
                                    "futex",
                                    "getpid",
                                    "getrandom",
                                    "getsockopt",
                                    "gettid",
                                    "getuid",
                                    "lseek",
                                    "madvise",
                                    "memfd_create",
                                    "mlock",
                                    "mlock2",
                                    "memfd_secret",
                                    "mmap",
                                    "mprotect",
                                    "mremap",
                                    "munlock",
                                    "munmap",
                                    "newfstatat",
                                    "poll",
                                    "ppoll",
                                    "prctl",
                                    "pread64",
                                    "pwrite64",
                                    "read",
                                    "recvfrom",
                                    "recvmsg",
                                    "restart_syscall",
                                    "rseq",
                                    "rt_sigaction",
                                    "rt_sigprocmask",
                                    "rt_sigreturn",
                                    "sched_getaffinity",
                                    "sched_setaffinity",
                                    "sched_yield",
                                    "sendmsg",
                                    "sendto",
                                    "set_robust_list",
                                    "socketpair",
                                    "sysinfo",
                                    "tgkill",
                                    "timer_create",
                                    "timer_settime",
                                    "write",
                                    NULL};

static int lock_down(struct rs_protections *p)
{
    rs_sandbox_process(p);
    int e = rs_keymem_init(key_memory_size());
    /* The openssl engine's key schedules lie in what libcrypto allocates. */
    if (e == 0) e = rs_keymem_hook_openssl();
    if (e != 0) return e;
    /* Its hash seed comes from a file. */
    json_object_seed(0);
    /* Engines read the library's configuration and this processor's abilities: before the doors close. */
    rs_engines_init();
    static const struct rs_path no_files[] = {{NULL, 0}};
    e = rs_sandbox_files(p, no_files, RS_SANDBOX_SCOPE_SIGNALS);
    /* Scratch is locked piece by piece as sessions come, beyond what RLIMIT_MEMLOCK gives. */
    rs_sandbox_capabilities(p, 1u << CAP_IPC_LOCK);
    return e == 0 ? rs_sandbox_calls(p, calls) : e;
}

/* What the supervisor says; its end of file means that the service ends. */
static void supervised(struct rs_server *s)
{
    struct rs_msg msg;
    int e = rs_msg_recv(s->supervisor, &msg, MSG_DONTWAIT);
    if (e == RESEAL_EAGAIN) return;
    if (e == 0 && msg.header.type == RS_MSG_NEW_KEYD && msg.nfds == 1)
        rs_server_keyd(s, rs_msg_take_fd(&msg, 0));
    else if (e == 0 && msg.header.type == RS_MSG_HAND_OVER && msg.nfds == 1)
        rs_handover_give(s, rs_msg_take_fd(&msg, 0));
    else
        s->stop = true;
    if (e == 0) rs_msg_close_fds(&msg);
}

static void ask_keyd(struct rs_server *s)
{
    /* Full or gone: the next session that fails asks again. */
    if (rs_msg_send(s->supervisor, RS_MSG_NEED_KEYD, 0, NULL, 0, NULL, 0, MSG_DONTWAIT) != 0) return;
}

static int serve(struct rs_server *s, const struct options *o)
{
    s->supervised = supervised;
    s->ask_keyd = ask_keyd;
    if (o->inherit >= 0) {
        int e = rs_handover_take(s, o->inherit);
        if (e != 0) return e;
    }
    rs_server_listen(s, true);
    int e = rs_msg_send(s->supervisor, RS_MSG_READY, 0, NULL, 0, NULL, 0, 0);
    while (e == 0 && !s->stop) e = rs_server_step(s, -1);
    return s->stop ? 0 : e;
}

int main(int argc, char **argv)
{
    static struct rs_server server;
    struct options o;
    int cpus[RS_WORKERS_MAX];
    if (parse(argc, argv, &o) != 0) return usage();
    int n = rs_place_workers(cpus, RS_WORKERS_MAX, o.workers, o.cpus);
    if (n < 0) {
        fprintf(stderr, "reseald-work: --cpus: %s\n", reseal_strerror(n));
        return 2;
    }
    o.server.cpus = cpus;
    o.server.ncpus = (unsigned)n;
    signal(SIGINT, SIG_IGN);
    raise_descriptor_limit();
    int e = rs_guard_init();
    if (e == 0) e = lock_down(&server.protections);
    if (e == 0) e = rs_server_open(&server, &o.server);
    if (e == 0) e = serve(&server, &o);
    if (e != 0) {
        /* A reseal-keyd that ended before it answered says itself why. */
        if (e != RESEAL_ENOSERVICE) fprintf(stderr, "reseald-work: %s\n", reseal_strerror(e));
        return 1;
    }
    if (!server.handed_over) rs_server_close(&server);
    return 0;
}
