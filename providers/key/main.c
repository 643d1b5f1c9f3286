/* SPDX-License-Identifier: Apache-2.0 */
/* reseal-keyd: holds the keys. Started by reseald, which gives it its sockets. */
#include "providers/key/events.h"
#include "providers/key/flush.h"
#include "providers/key/host-agent.h"
#include "providers/key/hosts.h"
#include "providers/key/keyd.h"
#include "providers/key/rooms.h"

#include "offload/base/foreign.h"
#include "offload/base/keymem.h"
#include "providers/crypto/derive.h"
#include "providers/crypto/openssl_memory.h"
#include "providers/key/store.h"
#include "providers/key/trusted/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#define EXIT_USAGE 2

struct options {
    int listen_fd, work_fd, supervisor_fd;
    const char *policy, *state, *agent;
    uint64_t keep_audit; /* bytes; 0: the default */
    bool private;
    uid_t private_uid;
};

static const char *const keyd_calls[] = {
    RS_CALLS_OF_ALL,
    RS_CALLS_OF_FOREIGN,
    "pread64",
    "openat",
    "open",
    "lseek",
    "fstat",
    "newfstatat",
    "stat",
    "statx",
    "fcntl",
    "ftruncate",
    "pwrite64",
    "memfd_create",
    "accept4",
    "socketpair",
    "getsockopt",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_ctl",
    "pidfd_send_signal",
    "uname",
    "sysinfo",
    "poll",
    "ppoll",
    "tgkill",
    "sendto",
    "recvfrom",
    "pipe2",
    /* The state folder: */
    "renameat",
    "renameat2",
    "unlinkat",
    "mkdirat",
    "fsync",
    "fdatasync",
    "getdents64",
    NULL,
};

static RS_NORETURN void die(const char *what, const char *why)
{
    (void)fprintf(stderr, "reseal-keyd: %s: %s\n", what, why);
    exit(1);
}

/* For somebody to mend before it can start. */
static RS_NORETURN void unusable(const char *what, const char *why)
{
    (void)fprintf(stderr, "reseal-keyd: %s: %s\n", what, why);
    exit(RS_KEYD_UNUSABLE);
}

static RS_NORETURN void usage(void)
{
    (void)fputs("usage: reseal-keyd --listen-fd N --work-fd N --supervisor-fd N --state-dir DIR [--agent "
                "ADDRESS] [--keep-audit MIB] (--policy FILE | "
                "--private-uid UID)\n"
                "It is started by reseald.\n",
                stderr);
    exit(EXIT_USAGE);
}

static unsigned long number_of(const char *text, unsigned long max)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || n > max) usage();
    return n;
}

static struct options options_of(int argc, char **argv)
{
    static const struct option names[] = {
        {"listen-fd", required_argument, NULL, 'l'},
        {"work-fd", required_argument, NULL, 'w'},
        {"supervisor-fd", required_argument, NULL, 's'},
        {"policy", required_argument, NULL, 'p'},
        {"private-uid", required_argument, NULL, 'u'},
        {"state-dir", required_argument, NULL, 'd'},
        {"agent", required_argument, NULL, 'a'},
        {"keep-audit", required_argument, NULL, 'k'},
        {NULL, 0, NULL, 0},
    };
    struct options o = {.listen_fd = -1, .work_fd = -1, .supervisor_fd = -1};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (c == 'a') o.agent = optarg;
        if (c == 'l') o.listen_fd = (int)number_of(optarg, 1 << 20);
        if (c == 'w') o.work_fd = (int)number_of(optarg, 1 << 20);
        if (c == 's') o.supervisor_fd = (int)number_of(optarg, 1 << 20);
        if (c == 'p') o.policy = optarg;
        if (c == 'd') o.state = optarg;
        if (c == 'k') o.keep_audit = (uint64_t)number_of(optarg, 1 << 20) << 20;
        if (c == 'u') {
            o.private = true;
            o.private_uid = (uid_t)number_of(optarg, UINT32_MAX - 1u);
        }
        if (c == '?') usage();
    }
    bool fds = o.listen_fd >= 0 && o.work_fd >= 0 && o.supervisor_fd >= 0;
    if (!fds || o.state == NULL || optind != argc || (o.policy != NULL) == o.private) usage();
    return o;
}

/* ---- what it watches ------------------------------------------------------------ */

static void listener_ready(struct rs_keyd *d, struct rs_watch *w, uint32_t events)
{
    (void)events;
    int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) (void)rs_keyd_accept(d, fd);
}

static void supervisor_ready(struct rs_keyd *d, struct rs_watch *w, uint32_t events)
{
    (void)events;
    int r = rs_msg_recv(w->fd, d->msg, MSG_DONTWAIT);
    if (r == RESEAL_EAGAIN) return;
    if (r == 0 && d->msg->header.type == RS_MSG_WORK_PAIR && d->msg->nfds == 1)
        rs_sessions_add(d, rs_msg_take_fd(d->msg, 0));
    else
        d->ended = true;
    if (r == 0) rs_msg_close_fds(d->msg);
}

/* Without it nothing of others could be read any more; reseald starts us again, with a new one. */
static void nursery_gone(struct rs_keyd *d, struct rs_watch *w, uint32_t events)
{
    (void)w, (void)events;
    (void)fputs("reseal-keyd: the nursery of its children ended: ending too, to begin anew\n", stderr);
    d->ended = d->failed = true;
}

/* A policy that does not parse leaves the old one in force. */
static void reload(struct rs_keyd *d)
{
    char why[256];
    if (d->policy_path == NULL) return;
    if (rs_tenants_load_policy(d, why, sizeof(why)) != 0) {
        (void)fprintf(stderr, "reseal-keyd: the policy was not reloaded, the old one stays: %s\n", why);
        return;
    }
    unsigned ended = rs_tenants_end_strangers(d);
    (void)fprintf(
        stderr, "reseal-keyd: policy reloaded; %u connections of users it does not name are closed\n", ended);
}

static void signal_ready(struct rs_keyd *d, struct rs_watch *w, uint32_t events)
{
    (void)events;
    struct signalfd_siginfo info;
    if (read(w->fd, &info, sizeof(info)) != sizeof(info)) return;
    if (info.ssi_signo == SIGHUP)
        reload(d);
    else
        d->ended = true;
}

static void watch(struct rs_keyd *d, struct rs_watch *w, int fd,
                  void (*ready)(struct rs_keyd *, struct rs_watch *, uint32_t))
{
    *w = (struct rs_watch){.fd = fd, .ready = ready};
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || rs_keyd_watch(d, w) != 0)
        die("cannot watch a descriptor", strerror(errno));
}

static void watch_all(struct rs_keyd *d, const struct options *o)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int flags = fcntl(o->listen_fd, F_GETFL);
    (void)fcntl(o->listen_fd, F_SETFL, flags | O_NONBLOCK);
    watch(d, &d->listener, o->listen_fd, listener_ready);
    watch(d, &d->supervisor, o->supervisor_fd, supervisor_ready);
    watch(d, &d->signals, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), signal_ready);
    watch(d, &d->nursery_end, d->nursery.sock, nursery_gone);
    rs_sessions_add(d, o->work_fd);
}

/* ---- start ------------------------------------------------------------------------ */

/* Does once what is done later, so that libcrypto loads nothing more once confined. */
static void warm_libcrypto(void)
{
    uint8_t key[32] = {1}, salt[RS_SALT_LEN] = {2}, out[32];
    bool works = RAND_priv_bytes(out, sizeof(out)) == 1 &&
                 rs_derive_subkey(key, sizeof(key), salt, out) == 0 &&
                 HMAC(EVP_sha256(), key, sizeof(key), salt, sizeof(salt), out, NULL) != NULL;
    if (!works) die("libcrypto", "does not work");
}

static void confine(struct rs_keyd *d, const struct options *o)
{
    RS_FREE char *copy = o->policy != NULL ? strdup(o->policy) : NULL;
    const struct rs_path paths[] = {{o->state, RS_PATH_READ | RS_PATH_WRITE | RS_PATH_MAKE | RS_PATH_FOLDERS},
                                    /* To read the policy again, with the names of users and groups. */
                                    {copy != NULL ? dirname(copy) : NULL, RS_PATH_READ},
                                    {"/etc", RS_PATH_READ},
                                    {NULL, 0}};
    rs_sandbox_capabilities(&d->protections, 0);
    if (rs_sandbox_files(&d->protections, paths, 0) != 0 ||
        rs_sandbox_calls(&d->protections, keyd_calls) != 0)
        die("cannot confine itself", "the kernel refused its Landlock or seccomp rules");
}

static void open_state(struct rs_keyd *d, const struct options *o)
{
    char why[512];
    d->state_folder = o->state;
    d->keep_audit = o->keep_audit;
    const struct rs_store_keeper keeper = rs_tpm_keeper(d);
    if (rs_store_open(o->state, &keeper, &d->store, why, sizeof(why)) != 0) die("state folder", why);
    if (rs_events_open(d, d->store) != 0 || rs_providers_load(d) != 0)
        die("state folder", reseal_strerror(RESEAL_ENOMEM));
}

/* Tenants that were added while an earlier one ran. */
static void open_tenants(struct rs_keyd *d)
{
    char why[256];
    int r = rs_tenants_open(d);
    if (r == RESEAL_EFORMAT)
        unusable("tenants.json of the state folder", "is damaged: put it back from a backup of the folder");
    if (r != 0) die("tenants.json of the state folder", reseal_strerror(r));
    if (d->policy_path != NULL && rs_tenants_load_policy(d, why, sizeof(why)) != 0) unusable("policy", why);
}

static void open_hosts(struct rs_keyd *d, const struct options *o, int agent)
{
    char why[400];
    int r = rs_hosts_open(d);
    if (r == RESEAL_EAUTH)
        unusable(
            "hosts of the state folder",
            "they do not open with its host key (host.key), which is not the one that sealed them, or they "
            "were changed: put both back from one backup of the folder");
    if (r == RESEAL_EFORMAT)
        unusable("hosts of the state folder",
                 "hosts.json or host-identity.sealed is damaged: put both back from "
                 "one backup of the folder; without "
                 "one, remove both, then 'reseal host add' and 'host trust' again");
    if (r != 0) die("hosts of the state folder", reseal_strerror(r));
    if (agent >= 0 && rs_hosts_agent(d, o->agent, agent, why, sizeof(why)) != 0) die("--agent", why);
}

static struct rs_policy *first_policy(const struct options *o)
{
    struct rs_policy *policy;
    char why[256];
    if (o->private) {
        policy = rs_policy_private(o->private_uid);
        if (policy == NULL) die("policy", "out of memory");
        return policy;
    }
    if (rs_policy_load(o->policy, &policy, why, sizeof(why)) != 0) unusable("policy", why);
    return policy;
}

/* Seconds that a test sets. */
static unsigned seconds_of(const char *variable, unsigned otherwise)
{
    const char *text = secure_getenv(variable);
    unsigned long s = text != NULL ? strtoul(text, NULL, 10) : 0;
    return s >= 1 && s <= 3600 ? (unsigned)s : otherwise;
}

int main(int argc, char **argv)
{
    static struct rs_keyd d;
    struct options o = options_of(argc, argv);
    /* Before there is a secret in this process, and before libcrypto has allocated. */
    rs_sandbox_process(&d.protections);
    if (rs_nursery_start(&d.nursery) != 0) die("cannot start", strerror(errno));
    int agent = -1, flusher;
    if (rs_flusher_start(&flusher) != 0) die("cannot start", strerror(errno));
    if (o.agent != NULL && rs_agent_start(o.agent, &agent) != 0) die("cannot start", strerror(errno));
    if (rs_keymem_init(0) != 0 || rs_keymem_hook_openssl() != 0) die("key memory", "cannot be had");
    if (rs_keymem_kind() == RS_KEYMEM_PLAIN)
        (void)fputs("reseal-keyd: warning: keys can reach the swap: raise RLIMIT_MEMLOCK (reseal doctor)\n",
                    stderr);
    if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1) die("libcrypto", "does not start");
    warm_libcrypto();
    d.deadline_s = seconds_of("RESEAL_KEYD_DEADLINE", RS_KEYD_DEADLINE_S);
    d.look_s = seconds_of("RESEAL_KEYD_LOOK", 0);
    d.policy = first_policy(&o);
    d.policy_path = o.policy;
    if (rs_keyd_init(&d) != 0) die("cannot start", reseal_strerror(RESEAL_ENOMEM));
    open_state(&d, &o);
    if (rs_flush_open(&d, flusher) != 0) die("cannot start", reseal_strerror(RESEAL_EIO));
    open_tenants(&d);
    open_hosts(&d, &o, agent);
    watch_all(&d, &o);
    confine(&d, &o);
    rs_webhooks_open(&d);
    int r = rs_keyd_loop(&d);
    rs_keyd_free(&d);
    return r == 0 && !d.failed ? 0 : 1;
}
