/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/qcow2-served.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "offload/vm/files.h"
#include "reseal/reseal.h"

#define SUFFIX       ".reseal-served"
#define HEADER_MAX   (64u << 20)
#define HEADER_FIRST 4096u
#define BLOCK        ((size_t)1 << 20)
#define PEER_S       1  /* for a peer to say what it wants */
#define ANSWER_S     60 /* for the server to write */

/* The folder is held open: names of sockets are short, those of images are not. -errno; *folder is the
 * caller's. */
static int address(const char *image, struct sockaddr_un *at, int *folder)
{
    char copy[PATH_MAX], base[PATH_MAX];
    (void)snprintf(copy, sizeof(copy), "%s", image);
    (void)snprintf(base, sizeof(base), "%s", image);
    *folder = open(dirname(copy), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*folder < 0) return -errno;
    *at = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n =
        snprintf(at->sun_path, sizeof(at->sun_path), "/proc/self/fd/%d/%s" SUFFIX, *folder, basename(base));
    return n > 0 && (size_t)n < sizeof(at->sun_path) ? 0 : -ENAMETOOLONG;
}

static void limit_waits(int fd, int seconds)
{
    struct timeval tv = {.tv_sec = seconds};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

/* Blocks from `at` on that differ, up to one that does not. */
static size_t differs(const uint8_t *old, const uint8_t *new, size_t at, size_t len)
{
    size_t end = at;
    while (end < len) {
        size_t m = RS_MIN(len - end, (size_t)HEADER_FIRST);
        if (memcmp(old + end, new + end, m) == 0) break;
        end += m;
    }
    return end - at;
}

/* Only what changes: what is written is dirty for backups. */
static int write_changes(struct rs_qcow2 *q, const uint8_t *bytes, size_t from, size_t len)
{
    RS_FREE uint8_t *old = malloc(BLOCK);
    if (old == NULL) return -ENOMEM;
    int code = 0;
    for (size_t at = from; code == 0 && at < len;) {
        size_t n = RS_MIN(len - at, BLOCK - at % BLOCK);
        code = rs_qcow2_pread(q, old, n, at);
        for (size_t k = 0; code == 0 && k < n;) {
            size_t m = differs(old, bytes + at, k, n);
            if (m != 0) code = rs_qcow2_pwrite(q, bytes + at + k, m, at + k);
            k += RS_MAX(m, (size_t)HEADER_FIRST);
        }
        at += n;
    }
    return code;
}

/* The first block last: until then the old header counts, or its second copy. */
static int write_header(struct rs_qcow2 *q, const uint8_t *bytes, size_t len)
{
    size_t first = RS_MIN(len, (size_t)HEADER_FIRST);
    int code = write_changes(q, bytes, first, len);
    if (code == 0) code = rs_qcow2_flush(q);
    if (code == 0) code = rs_qcow2_pwrite(q, bytes, first, 0);
    return code == 0 ? rs_qcow2_flush(q) : code;
}

/* ---- the server --------------------------------------------------------------------- */

int rs_qcow2_served_listen(const char *image)
{
    struct sockaddr_un at;
    RS_CLOSE int folder = -1;
    int code = address(image, &at, &folder);
    if (code != 0) return code;
    /* Who had it before us does not have the image any more. */
    struct stat st;
    if (lstat(at.sun_path, &st) == 0 && S_ISSOCK(st.st_mode)) (void)unlink(at.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    mode_t old = umask(0177);
    code = bind(fd, (const struct sockaddr *)&at, sizeof(at)) == 0 && listen(fd, 8) == 0 ? 0 : -errno;
    umask(old);
    if (code == 0) return fd;
    close(fd);
    return code;
}

void rs_qcow2_served_end(const char *image, int listener)
{
    struct sockaddr_un at;
    RS_CLOSE int folder = -1;
    if (listener < 0) return;
    close(listener);
    if (address(image, &at, &folder) == 0) (void)unlink(at.sun_path);
}

/* A length and a descriptor (-1: none came). */
static bool receive(int peer, uint64_t *len, int *fd)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    uint8_t raw[8] = {0};
    struct iovec iov = {.iov_base = raw, .iov_len = sizeof(raw)};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof(control.room)};
    *fd = -1;
    ssize_t n = recvmsg(peer, &m, MSG_CMSG_CLOEXEC | MSG_WAITALL);
    for (struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL; c != NULL; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
            memcpy(fd, CMSG_DATA(c), sizeof(int));
    *len = rs_load_le64(raw);
    return n == (ssize_t)sizeof(raw);
}

static int write_checked(struct rs_qcow2 *q, const struct rs_disk *disk, int from, uint64_t len)
{
    char why[256];
    RS_FREE struct rs_disk *look = calloc(1, sizeof(*look));
    RS_FREE uint8_t *bytes =
        len == 0 || len > HEADER_MAX || len > disk->data_offset ? NULL : malloc((size_t)len);
    if (look == NULL || bytes == NULL) return len > disk->data_offset ? -EINVAL : -ENOMEM;
    /* What is looked at is what is written, whoever has the file too. */
    RS_CLOSE int own = memfd_create("reseal-header", MFD_CLOEXEC);
    int code = own < 0 ? -errno : rs_pread_full(from, bytes, (size_t)len, 0);
    if (code == 0) code = rs_pwrite_full(own, bytes, (size_t)len, 0);
    if (code != 0) return code;
    if (rs_disk_look_luks(own, rs_qcow2_size(q), look, why, sizeof(why)) != 0) return -EINVAL;
    if (strcmp(look->uuid, disk->uuid) != 0 || look->data_offset != disk->data_offset ||
        look->unit != disk->unit)
        return -EINVAL;
    return write_header(q, bytes, (size_t)len);
}

bool rs_qcow2_served_take(int listener, struct rs_qcow2 *q, const struct rs_disk *disk)
{
    struct ucred who;
    socklen_t room = sizeof(who);
    uint64_t len;
    RS_CLOSE int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC), header = -1;
    if (peer < 0 || getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &who, &room) != 0) return false;
    if (who.uid != 0 && who.uid != geteuid()) return false;
    limit_waits(peer, PEER_S);
    if (!receive(peer, &len, &header)) return false;
    int code = len == 0 ? 0 : header < 0 ? -EINVAL : write_checked(q, disk, header, len);
    int32_t answer = -code;
    (void)!send(peer, &answer, sizeof(answer), MSG_NOSIGNAL);
    return len != 0 && code == 0;
}

/* ---- who asks ----------------------------------------------------------------------- */

/* A connection to the image's server; -errno. */
static int reach(const char *image)
{
    struct sockaddr_un at;
    RS_CLOSE int folder = -1;
    int code = address(image, &at, &folder);
    if (code != 0) return code;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    limit_waits(fd, ANSWER_S);
    if (connect(fd, (const struct sockaddr *)&at, sizeof(at)) == 0) return fd;
    code = -errno;
    close(fd);
    return code;
}

static int ask(int server, int header, uint64_t len)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.room = {0}};
    uint8_t raw[8];
    rs_store_le64(raw, len);
    struct iovec iov = {.iov_base = raw, .iov_len = sizeof(raw)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (header >= 0) {
        m.msg_control = control.room;
        m.msg_controllen = sizeof(control.room);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &header, sizeof(int));
    }
    int32_t answer;
    if (sendmsg(server, &m, MSG_NOSIGNAL) != (ssize_t)sizeof(raw)) return -EIO;
    if (recv(server, &answer, sizeof(answer), MSG_WAITALL) != (ssize_t)sizeof(answer)) return -EIO;
    return answer >= 0 ? -answer : -EIO;
}

bool rs_qcow2_served_is(const char *image)
{
    RS_CLOSE int server = reach(image);
    return server >= 0 && ask(server, -1, 0) == 0;
}

static int put_by_server(int server, const void *bytes, size_t len)
{
    RS_CLOSE int header = memfd_create("reseal-header", MFD_CLOEXEC);
    int code = header < 0 ? -errno : rs_pwrite_full(header, bytes, len, 0);
    return code == 0 ? ask(server, header, len) : code;
}

struct rs_qcow2_put {
    struct rs_qcow2 *q; /* NULL: it has a server, which writes it */
    char image[PATH_MAX];
};

int rs_qcow2_put_begin(struct rs_qcow2_put **out, const char *image, char *why, size_t why_len)
{
    struct rs_qcow2_put *p = calloc(1, sizeof(*p));
    *out = p;
    if (p == NULL) return rs_vm_refuse(RESEAL_ENOMEM, why, why_len, "out of memory");
    (void)snprintf(p->image, sizeof(p->image), "%s", image);
    if (rs_qcow2_served_is(image)) return 0;
    return rs_qcow2_open_begin(&p->q, image, RS_QCOW2_WRITE | RS_QCOW2_WAIT, why, why_len);
}

int rs_qcow2_put_ready(struct rs_qcow2_put *p, char *why, size_t why_len)
{
    return p->q == NULL ? 0 : rs_qcow2_open_end(&p->q, why, why_len);
}

int rs_qcow2_put(struct rs_qcow2_put *p, const void *bytes, size_t len)
{
    char why[RS_QCOW2_WHY];
    RS_CLOSE int server = p->q == NULL ? reach(p->image) : -1;
    if (server >= 0) return put_by_server(server, bytes, len);
    /* It was served a moment ago. */
    int err =
        p->q != NULL ? 0 : rs_qcow2_open(&p->q, p->image, RS_QCOW2_WRITE | RS_QCOW2_WAIT, why, sizeof(why));
    if (err != 0) return err == RESEAL_EBUSY ? -EBUSY : -EIO;
    return write_header(p->q, bytes, len);
}

void rs_qcow2_put_over(struct rs_qcow2_put *p)
{
    if (p != NULL && p->q != NULL) rs_qcow2_close_begin(p->q);
}

int rs_qcow2_put_end(struct rs_qcow2_put *p)
{
    int code = p == NULL ? 0 : rs_qcow2_close(p->q);
    free(p);
    return code;
}
