/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "offload/base/sandbox.h"
#include "offload/cli/socket.h"
#include "offload/cli/vm-serve.h"

/* Requests of clients need the ring of the kernel and few others; opening a key again, files, a local socket
 * and the queue's memory; the end, sockets to remove and QEMU to wait for. */
static const char *const calls[] = {
    /* clients and images */
    "accept4", "clock_gettime", "clock_nanosleep", "close", "epoll_ctl", "epoll_pwait", "epoll_wait",
    "fadvise64", "fallocate", "fdatasync", "fsync", "futex", "getpid", "gettid", "io_uring_enter",
    "io_uring_register", "nanosleep", "poll", "ppoll", "pread64", "preadv2", "pwrite64", "read", "readv",
    "recvfrom", "recvmsg", "restart_syscall", "sched_yield", "sendmsg", "sendto", "setsockopt", "shutdown",
    "write", "writev",
    /* memory */
    "brk", "madvise", "mmap", "mprotect", "mremap", "munmap",
    /* keys and sessions again, sizes */
    "connect", "dup", "epoll_create1", "fcntl", "fstat", "ftruncate", "geteuid", "getrandom", "getsockopt",
    "getuid", "ioctl", "lseek", "lstat", "memfd_create", "newfstatat", "open", "openat", "readlink",
    "readlinkat", "socket", "stat", "statx", "sysinfo", "umask",
    /* the end */
    "exit", "exit_group", "kill", "pidfd_send_signal", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",
    "tgkill", "unlink", "unlinkat", "wait4", "waitid", NULL};

enum { PATHS_MAX = 3 * RS_VMSERVE_DISKS_MAX + 4 };

struct places {
    struct rs_path list[PATHS_MAX + 1]; /* its paths are ours */
    unsigned count;
    bool others; /* some of it is out of reach without root's rights over files of other users */
};

/* Those rights; the second one says no more than that a file may be read. */
#define RIGHTS_OVER_FILES (1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH)

static bool reaches(const char *path, int mode)
{
    return faccessat(AT_FDCWD, path, mode, AT_EACCESS) == 0 || errno == ENOENT;
}

/* A file, or with `folder` all beside it, by where it really is. */
static int add(struct places *p, const char *file, bool folder, unsigned rights)
{
    if (file == NULL || *file == '\0') return 0;
    char copy[PATH_MAX];
    char *real = realpath(file, NULL);
    if (real == NULL) return 0; /* gone: nothing to be allowed */
    p->others |= !reaches(real, R_OK);
    if (folder) {
        (void)snprintf(copy, sizeof(copy), "%s", real);
        free(real);
        real = strdup(dirname(copy));
        if (real == NULL) return RESEAL_ENOMEM;
        p->others |= !reaches(real, X_OK | ((rights & RS_PATH_MAKE) != 0 ? W_OK : 0));
    }
    for (unsigned i = 0; i < p->count; i++) {
        if (strcmp(p->list[i].path, real) != 0) continue;
        p->list[i].rights |= rights;
        free(real);
        return 0;
    }
    p->list[p->count++] = (struct rs_path){.path = real, .rights = rights};
    return 0;
}

static int add_all(struct places *p, const struct rs_serve *s)
{
    int code = add(p, s->vmx, true, RS_PATH_READ);
    for (unsigned i = 0; code == 0 && i < s->count; i++) {
        const struct rs_serve_image *image = &s->images[i];
        /* The socket for headers of a qcow2 image lies beside it. */
        unsigned rights = RS_PATH_READ | (image->headers >= 0 ? RS_PATH_MAKE : 0u);
        code = add(p, image->look.path, true, rights);
        if (code == 0) code = add(p, image->look.data_path, true, RS_PATH_READ);
        if (code == 0) code = add(p, image->look.header_path, true, RS_PATH_READ);
    }
    if (code == 0) code = add(p, s->pass.file, false, RS_PATH_READ);
    return code == 0 ? add(p, s->path, true, RS_PATH_MAKE) : code;
}

/* The service may begin anew; its sockets are found again by their names. */
static bool reaches_service(const struct rs_serve *s)
{
    static const char *const names[] = {"control.sock", "keys.sock"};
    char room[256], path[PATH_MAX];
    const char *dir = rs_socket_folder(s->runtime_dir, room, sizeof(room));
    bool all = true;
    for (unsigned i = 0; i < RS_ARRAY_LEN(names); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        all &= reaches(path, W_OK);
    }
    return all;
}

int rs_serve_confine(struct rs_serve *s)
{
    struct rs_protections protections = {.landlock = 0};
    RS_FREE struct places *places = calloc(1, sizeof(*places));
    if (places == NULL) return rs_failure_set(&s->f, RS_EXIT_FAILED, "out of memory");
    bool qemu = false; /* is ended by a signal, and was started before */
    for (unsigned i = 0; i < s->count; i++) qemu |= s->images[i].file.image != NULL;
    rs_sandbox_process(&protections);
    /* Whoever is root keeps the rights over others' files only where a key, a header or a socket could not be
     * found again without; Landlock leaves them the folders at hand. */
    rs_sandbox_lay_aside(RIGHTS_OVER_FILES);
    int code = add_all(places, s);
    places->others |= !reaches_service(s);
    rs_sandbox_capabilities(&protections, places->others ? RIGHTS_OVER_FILES : 0);
    if (code == 0) code = rs_sandbox_files(&protections, places->list, qemu ? 0 : RS_SANDBOX_SCOPE_SIGNALS);
    if (code == 0) code = rs_sandbox_calls(&protections, calls);
    for (unsigned i = 0; i < places->count; i++) free((void *)(uintptr_t)places->list[i].path);
    return code == 0
               ? 0
               : rs_failure_set(&s->f, RS_EXIT_FAILED,
                                "it cannot confine itself: the kernel refuses its Landlock or seccomp rules");
}
