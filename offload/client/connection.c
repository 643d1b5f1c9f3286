/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/client/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PAGE     4096u
#define TEXT_MAX (256u << 20) /* of an answer; a receipt has each key that a tenant ever had */

uint64_t rs_client_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int rs_client_take_options(void *to, size_t known, const void *from)
{
    uint32_t size;
    memcpy(&size, from, sizeof(size));
    if (size < known || size > PAGE) return RESEAL_EINVAL;
    for (const uint8_t *at = (const uint8_t *)from + known; at < (const uint8_t *)from + size; at++)
        if (*at != 0) return RESEAL_EINVAL; /* something that a newer header asks for */
    memcpy(to, from, known);
    return 0;
}

/* ---- where the service is ------------------------------------------------ */

static bool has_service(const char *dir)
{
    char path[PAGE];
    struct stat st;
    int n = snprintf(path, sizeof(path), "%s/control.sock", dir);
    return n > 0 && (size_t)n < sizeof(path) && stat(path, &st) == 0;
}

static char *find_runtime_dir(const char *given)
{
    if (given != NULL) return strdup(given);
    const char *env = secure_getenv("RESEAL_RUNTIME_DIR");
    if (env != NULL && *env != '\0') return strdup(env);
    const char *user = secure_getenv("XDG_RUNTIME_DIR");
    if (user == NULL || has_service("/run/reseal")) return strdup("/run/reseal");
    char *dir = NULL;
    if (asprintf(&dir, "%s/reseal", user) < 0) return NULL;
    return dir;
}

/* A socket's name in an address; a folder whose path is too long for one is reached by a descriptor. */
static int make_address(struct sockaddr_un *address, const char *dir, const char *name, int *dir_fd)
{
    *dir_fd = -1;
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(address->sun_path, sizeof(address->sun_path), "%s/%s", dir, name);
    if (n > 0 && (size_t)n < sizeof(address->sun_path)) return 0;
    *dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*dir_fd < 0) return errno == EACCES ? RESEAL_EPERM : RESEAL_ENOSERVICE;
    snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d/%s", *dir_fd, name);
    return 0;
}

static int connect_socket(const char *dir, const char *name)
{
    struct sockaddr_un address;
    RS_CLOSE int dir_fd = -1;
    int err = make_address(&address, dir, name, &dir_fd);
    if (err != 0) return err;
    RS_CLOSE int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (sock < 0) return errno == EMFILE || errno == ENFILE ? RESEAL_ELIMIT : RESEAL_ENOMEM;
    int failed;
    do failed = connect(sock, (const struct sockaddr *)&address, sizeof(address));
    while (failed != 0 && errno == EINTR);
    if (failed != 0) return errno == EACCES || errno == EPERM ? RESEAL_EPERM : RESEAL_ENOSERVICE;
    int out = sock;
    sock = -1;
    return out;
}

/* A reply that does not come in time reads as RESEAL_EAGAIN; 0 waits for ever. */
static void set_timeout(int sock, uint64_t ms)
{
    struct timeval t = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
}

int rs_client_connect(struct reseal *r, const char *name, uint64_t timeout_ms, struct rs_msg_welcome *welcome)
{
    RS_CLOSE int sock = connect_socket(r->runtime_dir, name);
    if (sock < 0) {
        int err = sock;
        sock = -1;
        return err;
    }
    struct rs_msg_hello hello = {.min_version = RS_MSG_VERSION, .max_version = RS_MSG_VERSION};
    memcpy(hello.tenant, r->tenant, sizeof(hello.tenant));
    set_timeout(sock, RS_MAX(timeout_ms, 1u));
    int err =
        rs_msg_call(sock, RS_MSG_HELLO, &hello, sizeof(hello), NULL, 0, welcome, sizeof(*welcome), NULL, 0);
    if (err == RESEAL_EAGAIN) err = RESEAL_ENOSERVICE;
    if (err == 0 && welcome->version != RS_MSG_VERSION) err = RESEAL_EVERSION;
    if (err != 0) return err;
    set_timeout(sock, 0);
    int out = sock;
    sock = -1;
    return out;
}

/* ---- open and close ------------------------------------------------------ */

/* One page that reads 1 here and 0 in any child, however it was forked. */
static _Atomic uint32_t *make_parent_page(void)
{
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return NULL;
    if (madvise(page, PAGE, MADV_WIPEONFORK) != 0) {
        munmap(page, PAGE);
        return NULL;
    }
    _Atomic uint32_t *word = page;
    atomic_store(word, 1);
    return word;
}

static void connection_free(struct reseal *r)
{
    rs_client_run_end(r);
    rs_cleanup_close(&r->control);
    rs_cleanup_close(&r->keys);
    for (struct reseal_session *s = r->sessions, *next; s != NULL; s = next) {
        next = s->next;
        free(s);
    }
    if (r->parent != NULL) munmap((void *)(uintptr_t)r->parent, PAGE);
    pthread_mutex_destroy(&r->lock);
    pthread_mutex_destroy(&r->keys_lock);
    free(r->runtime_dir);
    free(r);
}

static int connection_make(struct reseal **out, const struct reseal_options *o)
{
    size_t tenant_len = o->tenant != NULL ? strlen(o->tenant) : 0;
    struct reseal *r = calloc(1, sizeof(*r));
    if (r == NULL) return RESEAL_ENOMEM;
    pthread_mutex_init(&r->lock, NULL);
    pthread_mutex_init(&r->keys_lock, NULL);
    r->control = r->keys = -1;
    r->reconnect_ms = o->reconnect_ms != 0 ? o->reconnect_ms : RS_DEFAULT_RECONNECT_MS;
    r->parent = make_parent_page();
    r->runtime_dir = find_runtime_dir(o->runtime_dir);
    int err = r->parent == NULL || r->runtime_dir == NULL ? RESEAL_ENOMEM : rs_client_run_begin(r);
    if (tenant_len >= sizeof(r->tenant)) err = RESEAL_EINVAL;
    if (err != 0) {
        connection_free(r);
        return err;
    }
    if (tenant_len != 0) memcpy(r->tenant, o->tenant, tenant_len);
    *out = r;
    return 0;
}

int reseal_open(reseal **out, const struct reseal_options *options)
{
    struct reseal_options o = {0};
    if (out == NULL) return RESEAL_EINVAL;
    *out = NULL;
    int err = options != NULL ? rs_client_take_options(&o, sizeof(o), options) : 0;
    struct reseal *r = NULL;
    if (err == 0) err = connection_make(&r, &o);
    if (err != 0) return err;
    int sock = rs_client_connect(r, "control.sock", r->reconnect_ms, &r->welcome);
    if (sock < 0) {
        connection_free(r);
        return sock;
    }
    r->control = sock;
    *out = r;
    return 0;
}

/* In a child: its copies of the descriptors go, so that the service sees when the parent ends; nothing else
 * is safe. */
static void close_in_child(struct reseal *r)
{
    rs_cleanup_close(&r->control);
    rs_cleanup_close(&r->keys);
    for (struct reseal_queue *q = r->queues; q != NULL; q = q->next) {
        rs_cleanup_close(&q->wake);
        rs_cleanup_close(&q->memfd);
        rs_cleanup_close(&q->epoll);
        for (unsigned i = 1; i < RS_REGION_MAX; i++) rs_cleanup_close(&q->regions[i].memfd);
    }
}

void reseal_close(reseal *r)
{
    if (r == NULL) return;
    if (rs_client_check_fork(r) != 0) {
        close_in_child(r);
        return;
    }
    rs_client_run_end(r);
    while (r->queues != NULL) reseal_queue_close(r->queues);
    connection_free(r);
}

/* ---- calls and restoring ------------------------------------------------- */

/* Sleeps a little longer each time, at most to the deadline. False when that has passed. */
static bool back_off(uint64_t *pause_ns, uint64_t deadline)
{
    uint64_t now = rs_client_now_ns();
    if (now >= deadline) return false;
    uint64_t ns = RS_MIN(*pause_ns, deadline - now);
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    nanosleep(&t, NULL);
    *pause_ns = RS_MIN(*pause_ns * 2, 100000000u);
    return true;
}

/* One attempt at a new connection with all sessions; under the lock. */
static int restore_once(struct reseal *r, uint64_t deadline)
{
    uint64_t now = rs_client_now_ns();
    uint64_t left_ms = now < deadline ? (deadline - now) / 1000000u : 0;
    struct rs_msg_welcome welcome;
    int sock = rs_client_connect(r, "control.sock", left_ms, &welcome);
    if (sock < 0) return sock;
    int err = rs_client_reopen_sessions(r, sock);
    if (err != 0) {
        close(sock);
        return err;
    }
    r->control = sock;
    r->welcome = welcome;
    atomic_fetch_add(&r->epoch, 1);
    return 0;
}

static int restore_locked(struct reseal *r, uint32_t epoch)
{
    int gone = atomic_load(&r->gone);
    if (gone != 0) return gone;
    if (atomic_load(&r->epoch) != epoch) return 0;
    rs_cleanup_close(&r->control);
    uint64_t deadline = rs_client_now_ns() + (uint64_t)r->reconnect_ms * 1000000u;
    uint64_t pause_ns = 1000000;
    int err;
    do err = restore_once(r, deadline);
    while (err != 0 && err != RESEAL_EVERSION && back_off(&pause_ns, deadline));
    if (err != 0) atomic_store(&r->gone, err == RESEAL_EPROTO ? RESEAL_ENOSERVICE : err);
    return atomic_load(&r->gone);
}

int rs_client_restore(struct reseal *r, uint32_t epoch)
{
    pthread_mutex_lock(&r->lock);
    int err = restore_locked(r, epoch);
    pthread_mutex_unlock(&r->lock);
    return err;
}

int rs_client_call_locked(struct reseal *r, bool again, uint16_t type, const void *body, size_t len,
                          const int *fds, unsigned nfds, void *reply, size_t reply_len, int *reply_fds,
                          unsigned reply_nfds)
{
    int err = atomic_load(&r->gone);
    while (err == 0) {
        err = rs_msg_call(r->control, type, body, len, fds, nfds, reply, reply_len, reply_fds, reply_nfds);
        if (!again || !rs_client_is_loss(err)) break;
        /* A second service that cannot answer this either will not be asked a third time. */
        again = false;
        err = restore_locked(r, atomic_load(&r->epoch));
    }
    return err;
}

/* ---- texts ---------------------------------------------------------------- */

int rs_client_take_text(int fd, char **out)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || st.st_size < 0 || st.st_size > TEXT_MAX) return RESEAL_EPROTO;
    size_t len = (size_t)st.st_size;
    char *text = malloc(len + 1);
    if (text == NULL) return RESEAL_ENOMEM;
    if (rs_pread_full(fd, text, len, 0) != 0) {
        free(text);
        return RESEAL_EPROTO;
    }
    text[len] = '\0';
    *out = text;
    return 0;
}

/* ---- status -------------------------------------------------------------- */

int reseal_status(reseal *r, char **json)
{
    if (r == NULL || json == NULL) return RESEAL_EINVAL;
    *json = NULL;
    int err = rs_client_check_fork(r);
    if (err != 0) return err;
    RS_CLOSE int fd = -1;
    pthread_mutex_lock(&r->lock);
    err = rs_client_call_locked(r, true, RS_MSG_STATUS, NULL, 0, NULL, 0, NULL, 0, &fd, 1);
    pthread_mutex_unlock(&r->lock);
    if (err != 0) return err;
    return rs_client_take_text(fd, json);
}
