/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/nursery.h"

#include "offload/base/foreign.h"
#include "offload/base/keymem.h"
#include "offload/base/sandbox.h"
#include "providers/crypto/derive.h"
#include "providers/crypto/openssl_memory.h"
#include "providers/key/helper.h"
#include "providers/key/luks.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <libcryptsetup.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

/* What a pass phrase derivation may cost: argon2 of a LUKS2 header may ask for up to 4 GiB. */
#define CHILD_MEMORY ((rlim_t)5 << 30)

static const char *const child_calls[] = {
    RS_CALLS_OF_ALL,
    "pread64",
    "pwrite64",
    "writev",
    "readv",
    "openat",
    "open",
    "lseek",
    "fstat",
    "newfstatat",
    "stat",
    "lstat",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "fcntl",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "munlock",
    "memfd_create",
    "set_robust_list",
    "rseq",
    "clock_nanosleep",
    "nanosleep",
    "getrusage",
    "sched_getaffinity",
    "sched_yield",
    "sysinfo",
    "uname",
    "getpriority",
    "setpriority",
    "prlimit64",
    "poll",
    "ppoll",
    NULL,
};

/* What a task in RS_TASK_NETWORK may do more: names and connections. */
static const char *const network_calls[] = {
    "socket",      "connect",  "bind",     "getsockopt", "setsockopt",    "getsockname",       "getpeername",
    "sendto",      "recvfrom", "sendmmsg", "recvmmsg",   "shutdown",      "socketpair",        "ioctl",
    "select",      "pselect6", "pipe2",    "eventfd2",   "epoll_create1", "epoll_ctl",         "epoll_wait",
    "epoll_pwait", "dup",      "getppid",  "getdents64", "time",          "sched_setaffinity", NULL,
};

static pid_t parent; /* the nursery's process, as its children know it */

/*
 * The out-of-memory killer takes a child before it takes the service. The file is the user's own
 * only while the process may be dumped, which confine() ends; there is no secret in it yet.
 */
static void volunteer(void)
{
    (void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    RS_CLOSE int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) (void)!write(fd, "1000", 4);
}

#define RANDOM                                                                                               \
    {"/dev/urandom", RS_PATH_READ},                                                                          \
    {                                                                                                        \
        "/dev/random", RS_PATH_READ                                                                          \
    }

static const struct rs_path closed_paths[] = {RANDOM, {NULL, 0}};

/* How names are resolved is the machine's business: its files and modules; roots of trust; a TPM. */
static const struct rs_path network_paths[] = {
    RANDOM,
    {"/etc/resolv.conf", RS_PATH_READ},
    {"/run/systemd/resolve", RS_PATH_READ},
    {"/run/NetworkManager", RS_PATH_READ},
    {"/run/resolvconf", RS_PATH_READ},
    {"/etc/hosts", RS_PATH_READ},
    {"/etc/host.conf", RS_PATH_READ},
    {"/etc/nsswitch.conf", RS_PATH_READ},
    {"/etc/services", RS_PATH_READ},
    {"/etc/protocols", RS_PATH_READ},
    {"/etc/gai.conf", RS_PATH_READ},
    {"/etc/ld.so.cache", RS_PATH_READ},
    {"/etc/ssl/certs", RS_PATH_READ},
    {"/etc/pki", RS_PATH_READ},
    {"/usr/share/ca-certificates", RS_PATH_READ},
    {"/usr/local/share/ca-certificates", RS_PATH_READ},
    {"/usr/lib", RS_PATH_READ},
    {"/usr/lib64", RS_PATH_READ},
    {"/lib", RS_PATH_READ},
    {"/lib64", RS_PATH_READ},
    {"/dev/tpmrm0", RS_PATH_READ | RS_PATH_WRITE},
    {"/dev/tpm0", RS_PATH_READ | RS_PATH_WRITE},
    {NULL, 0},
};

/* Of RS_TASK_CLOSED and RS_TASK_NETWORK; made once, in the nursery. */
static struct rs_call_filter filters[2];

static int make_filters(void)
{
    const char *all[RS_ARRAY_LEN(child_calls) + RS_ARRAY_LEN(network_calls)];
    unsigned n = 0;
    for (unsigned i = 0; child_calls[i] != NULL; i++) all[n++] = child_calls[i];
    for (unsigned i = 0; network_calls[i] != NULL; i++) all[n++] = network_calls[i];
    all[n] = NULL;
    int r = rs_sandbox_calls_make(child_calls, &filters[RS_TASK_CLOSED]);
    return r != 0 ? r : rs_sandbox_calls_make(all, &filters[RS_TASK_NETWORK]);
}

static int confine(unsigned deadline_s, enum rs_task_place place)
{
    struct rs_protections p = {0};
    bool network = place == RS_TASK_NETWORK;
    const struct rlimit memory = {CHILD_MEMORY, CHILD_MEMORY}, files = {64, 64};
    const struct rlimit cpu = {deadline_s * (rlim_t)8,
                               deadline_s * (rlim_t)8}; /* argon2 uses several threads */
    volunteer();
    if (!RS_SANITIZED) (void)setrlimit(RLIMIT_AS, &memory);
    (void)setrlimit(RLIMIT_CPU, &cpu);
    (void)setrlimit(RLIMIT_NOFILE, &files);
    rs_sandbox_process(&p);
    rs_sandbox_capabilities(&p, 0);
    int r = rs_sandbox_files(&p, network ? network_paths : closed_paths,
                             RS_SANDBOX_SCOPE_SIGNALS | (network ? RS_SANDBOX_CONNECT_TCP : 0));
    return r != 0 ? r : rs_sandbox_calls_load(&p, &filters[place]);
}

static int send_birth(int op)
{
    RS_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (pidfd < 0) return RESEAL_EIO;
    return rs_msg_send(op, RS_MSG_BORN, 0, NULL, 0, &pidfd, 1, 0);
}

/* What every child does first; it ends when it cannot. */
static void grow_up(int op, unsigned deadline_s, enum rs_task_place place)
{
    signal(SIGCHLD, SIG_DFL);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != parent) _exit(2); /* it died before that */
    (void)alarm(deadline_s);
    if (rs_keymem_init(0) != 0 || rs_keymem_hook_openssl() != 0) _exit(2);
    if (send_birth(op) != 0 || confine(deadline_s, place) != 0) _exit(2);
}

static RS_NORETURN void child_of_order(const struct rs_msg *m)
{
    struct rs_source_order order;
    memcpy(&order, m->body, sizeof(order));
    int op = m->fds[0], out_fd = -1;
    const struct rs_source *source = rs_source_of(order.kind);
    if (source == NULL || m->nfds - 1 != source->nfds) _exit(2);
    grow_up(op, order.deadline_s, RS_TASK_CLOSED);
    struct rs_source_yield *yield = rs_keymem_alloc(sizeof(*yield));
    if (yield == NULL) _exit(2);
    yield->status = source->fetch(&order, m->fds + 1, yield, &out_fd);
    if (yield->status != 0) rs_wipe(yield->key, sizeof(yield->key));
    int r = rs_msg_send(op, RS_MSG_YIELD, 0, yield, sizeof(*yield), &out_fd, out_fd >= 0 ? 1 : 0, 0);
    rs_keymem_free(yield);
    _exit(r == 0 ? 0 : 2);
}

static RS_NORETURN void child_of_task(const struct rs_msg *m)
{
    struct rs_task_order order;
    memcpy(&order, m->body, sizeof(order));
    grow_up(m->fds[0], order.deadline_s, rs_task_kinds[order.kind]->place);
    int fds[RS_TASK_FDS];
    memcpy(fds, m->fds + 1, sizeof(fds));
    _exit(rs_task_serve(&order, m->fds[0], fds));
}

static RS_NORETURN void child(const struct rs_msg *m, int nursery)
{
    close(nursery);
    if (m->header.type == RS_MSG_TASK) child_of_task(m);
    child_of_order(m);
}

static bool is_order(const struct rs_msg *m)
{
    const struct rs_msg_header *h = &m->header;
    return m->nfds >= 1 && ((h->type == RS_MSG_ORDER && h->length == sizeof(struct rs_source_order)) ||
                            (h->type == RS_MSG_TASK && h->length == sizeof(struct rs_task_order)));
}

/* Libcryptsetup has tables of its own, which are filled when it first makes or reads a header: one of
 * nothing. */
static void warm_cryptsetup(void)
{
    const struct crypt_pbkdf_type once = {
        .type = CRYPT_KDF_PBKDF2, .hash = "sha256", .iterations = 1000, .flags = CRYPT_PBKDF_NO_BENCHMARK};
    struct crypt_params_luks1 params = {.hash = "sha256"};
    struct crypt_device *cd = NULL;
    char path[32];
    RS_CLOSE int fd = memfd_create("nothing", MFD_CLOEXEC);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    rs_luks_quiet();
    if (fd < 0 || ftruncate(fd, 4 << 20) != 0 || crypt_init(&cd, path) != 0) return;
    if (crypt_set_pbkdf_type(cd, &once) == 0)
        (void)crypt_format(cd, CRYPT_LUKS1, "aes", "xts-plain64", NULL, NULL, 64, &params);
    crypt_free(cd);
}

/*
 * What every child would do anew, and takes milliseconds: libcrypto's tables of algorithms, which are no
 * secret and may be shared. No random numbers are drawn: their state is made in each child, in its key
 * memory.
 */
static int warm_libraries(void)
{
    static const uint8_t key[64] = {1};
    uint8_t out[64];
    int n = 0;
    EVP_CIPHER_CTX *ctx = NULL;
    int r = rs_keymem_hook_tables();
    if (r != 0) return r;
    bool ok = OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) == 1 &&
              (ctx = EVP_CIPHER_CTX_new()) != NULL &&
              EVP_DecryptInit_ex(ctx, EVP_aes_256_xts(), NULL, key, key + 32) == 1 &&
              EVP_DecryptUpdate(ctx, out, &n, key, 32) == 1 &&
              PKCS5_PBKDF2_HMAC("x", 1, key, 16, 1, EVP_sha256(), 32, out) == 1 &&
              rs_hkdf(key, 32, key, 16, "warm", out, 32) == 0;
    EVP_CIPHER_CTX_free(ctx);
    warm_cryptsetup();
    return ok ? 0 : RESEAL_EIO;
}

static RS_NORETURN void nursery(const void *arg)
{
    const int sock = RS_HELPER_SOCKET;
    (void)arg;
    struct rs_protections p = {0};
    static struct rs_msg msg;
    signal(SIGCHLD, SIG_IGN); /* children are not waited for */
    signal(SIGHUP, SIG_IGN);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    parent = getpid();
    rs_sandbox_process(&p);
    /* Children lock key memory, beyond the limit, before they give up that, too. */
    rs_sandbox_capabilities(&p, 1u << CAP_IPC_LOCK);
    /* The C library loads it when a thread ends (argon2 has threads), which a child may not. */
    (void)dlopen("libgcc_s.so.1", RTLD_NOW);
    if (warm_libraries() != 0 || make_filters() != 0) _exit(2);
    for (;;) {
        int r = rs_msg_recv(sock, &msg, 0);
        if (r == RESEAL_EIO || r == RESEAL_ENOSERVICE) _exit(0);
        if (r != 0) continue;
        if (is_order(&msg) && fork() == 0) child(&msg, sock);
        /* A fork that failed shows as an end of file. The child has its own. */
        rs_msg_drop_fds(&msg, rs_foreign_drop, 0);
    }
}

int rs_nursery_start(struct rs_nursery *n)
{
    return rs_helper_start(nursery, NULL, &n->pid, &n->sock);
}

/* One message with a new socket's far end before the descriptors; *op: the near end. */
static int hand_over(const struct rs_nursery *n, uint16_t type, const void *body, size_t len, const int *fds,
                     unsigned nfds, int *op)
{
    int pair[2], send[RS_MSG_FDS];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return RESEAL_ELIMIT;
    send[0] = pair[1];
    for (unsigned i = 0; i < nfds; i++) send[i + 1] = fds[i];
    int r = rs_msg_send(n->sock, type, 0, body, len, send, nfds + 1, MSG_DONTWAIT);
    close(pair[1]);
    if (r != 0) {
        close(pair[0]);
        return r == RESEAL_EAGAIN ? RESEAL_ELIMIT : RESEAL_EIO;
    }
    *op = pair[0];
    return 0;
}

int rs_nursery_order(const struct rs_nursery *n, const struct rs_source_order *order, const int *fds,
                     unsigned nfds, int *op)
{
    if (nfds > RS_SOURCE_FDS) return RESEAL_EINVAL;
    return hand_over(n, RS_MSG_ORDER, order, sizeof(*order), fds, nfds, op);
}

/* Those that are there, one after another; how many. */
static unsigned fds_of(const struct rs_task_order *order, const int *fds, int there[RS_TASK_FDS])
{
    unsigned count = 0;
    for (unsigned i = 0; i < RS_TASK_FDS; i++)
        if ((order->fds & 1u << i) != 0) there[count++] = fds[i];
    return count;
}

int rs_nursery_task(const struct rs_nursery *n, const struct rs_task_order *order, const int *fds, int *op)
{
    int there[RS_TASK_FDS];
    unsigned count = fds_of(order, fds, there);
    return hand_over(n, RS_MSG_TASK, order, sizeof(*order), there, count, op);
}

int rs_nursery_task_again(int op, const struct rs_task_order *order, const int *fds)
{
    int there[RS_TASK_FDS];
    unsigned count = fds_of(order, fds, there);
    int r = rs_msg_send(op, RS_MSG_TASK, 0, order, sizeof(*order), there, count, MSG_DONTWAIT);
    return r == 0 ? 0 : RESEAL_EIO;
}
