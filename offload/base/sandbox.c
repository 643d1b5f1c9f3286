/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/base/sandbox.h"

#include "reseal/reseal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE              65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

void rs_sandbox_process(struct rs_protections *p)
{
    const struct rlimit none = {0, 0};
    p->no_dump =
        (RS_SANITIZED || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0) && setrlimit(RLIMIT_CORE, &none) == 0;
    p->no_new_privs = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
    if (!RS_SANITIZED) p->no_writable_code = prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0;
}

/* True: there is none but those, of which what is permitted is in force. */
static bool keep_only(uint32_t keep)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct now[2] = {{0, 0, 0}, {0, 0, 0}}, left[2] = {{0, 0, 0}, {0, 0, 0}};
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (keep != 0 && syscall(SYS_capget, &header, now) == 0)
        left[0].effective = left[0].permitted = now[0].permitted & keep;
    return syscall(SYS_capset, &header, left) == 0;
}

void rs_sandbox_capabilities(struct rs_protections *p, uint32_t keep)
{
    for (int cap = 0; cap <= CAP_LAST_CAP; cap++) (void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    p->no_capabilities = keep_only(keep);
}

void rs_sandbox_bound(uint32_t keep)
{
    for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
        if (cap >= 32 || (keep >> cap & 1) == 0) (void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    (void)keep_only(keep);
}

void rs_sandbox_lay_aside(uint32_t capabilities)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct now[2] = {{0, 0, 0}, {0, 0, 0}};
    if (syscall(SYS_capget, &header, now) != 0) return;
    now[0].effective &= ~capabilities;
    (void)syscall(SYS_capset, &header, now);
}

/* ---- files ------------------------------------------------------------------ */

/* The kernel's struct as of ABI 6; older headers know less of it, older kernels take a shorter one. */
struct ruleset {
    uint64_t fs;
    uint64_t net;
    uint64_t scoped;
};

#define FS_ABI1      ((UINT64_C(1) << 13) - 1)
#define FS_REFER     (UINT64_C(1) << 13) /* ABI 2 */
#define FS_TRUNCATE  (UINT64_C(1) << 14) /* ABI 3 */
#define FS_IOCTL_DEV (UINT64_C(1) << 15) /* ABI 5 */
#define NET_BIND     UINT64_C(1)         /* ABI 4 */
#define NET_TCP      UINT64_C(3)
#define SCOPE_UNIX   UINT64_C(1) /* ABI 6 */
#define SCOPE_SIGNAL UINT64_C(2)

/* What of TCP is refused. */
static uint64_t net_of(unsigned flags)
{
    if ((flags & RS_SANDBOX_ALLOW_TCP) != 0) return 0;
    return (flags & RS_SANDBOX_CONNECT_TCP) != 0 ? NET_BIND : NET_TCP;
}

static struct ruleset ruleset_of(int abi, unsigned flags, size_t *size)
{
    struct ruleset r = {.fs = FS_ABI1};
    *size = sizeof(uint64_t);
    if (abi >= 2) r.fs |= FS_REFER;
    if (abi >= 3) r.fs |= FS_TRUNCATE;
    if (abi >= 5) r.fs |= FS_IOCTL_DEV;
    if (abi >= 4) {
        *size = 2 * sizeof(uint64_t);
        r.net = net_of(flags);
    }
    if (abi >= 6) {
        *size = sizeof(r);
        r.scoped = SCOPE_UNIX | ((flags & RS_SANDBOX_SCOPE_SIGNALS) != 0 ? SCOPE_SIGNAL : 0);
    }
    return r;
}

static uint64_t rights_of(unsigned rights, bool folder, uint64_t handled)
{
    uint64_t fs = 0;
    if ((rights & RS_PATH_READ) != 0) fs |= LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
    if ((rights & RS_PATH_WRITE) != 0) fs |= LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE | FS_IOCTL_DEV;
    if ((rights & RS_PATH_MAKE) != 0)
        fs |= LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_REMOVE_FILE;
    if ((rights & RS_PATH_FOLDERS) != 0) fs |= LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_REMOVE_DIR;
    if ((rights & RS_PATH_EXECUTE) != 0) fs |= LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE;
    if (!folder)
        fs &= LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_EXECUTE |
              FS_TRUNCATE | FS_IOCTL_DEV;
    return fs & handled;
}

static int add_path(int ruleset, const struct rs_path *path, uint64_t handled)
{
    RS_CLOSE int fd = open(path->path, O_PATH | O_CLOEXEC);
    if (fd < 0) return 0;
    struct stat st;
    if (fstat(fd, &st) != 0) return RESEAL_EIO;
    struct landlock_path_beneath_attr rule = {
        .allowed_access = rights_of(path->rights, S_ISDIR(st.st_mode), handled), .parent_fd = fd};
    long r = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    return r == 0 ? 0 : RESEAL_EIO;
}

int rs_sandbox_files(struct rs_protections *p, const struct rs_path *paths, unsigned flags)
{
    if (RS_SANITIZED) return 0;
    int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi <= 0) return 0;
    size_t size;
    struct ruleset attr = ruleset_of(abi, flags, &size);
    RS_CLOSE int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
    if (fd < 0) return RESEAL_EIO;
    for (; paths->path != NULL; paths++) {
        int r = add_path(fd, paths, attr.fs);
        if (r != 0) return r;
    }
    if (syscall(SYS_landlock_restrict_self, fd, 0) != 0) return RESEAL_EIO;
    p->landlock = abi;
    return 0;
}

/* ---- system calls ----------------------------------------------------------- */

static int allow(scmp_filter_ctx filter, int call)
{
    static const unsigned families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
    if (call != SCMP_SYS(socket)) return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
    int r = 0;
    for (unsigned i = 0; i < RS_ARRAY_LEN(families) && r == 0; i++) {
        const struct scmp_arg_cmp one = {.arg = 0, .op = SCMP_CMP_EQ, .datum_a = families[i]};
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1, one);
    }
    return r;
}

static int fill(scmp_filter_ctx filter, const char *const *names)
{
    int r = 0;
    for (; *names != NULL && r == 0; names++) {
        int call = seccomp_syscall_resolve_name(*names);
        if (call != __NR_SCMP_ERROR) r = allow(filter, call);
    }
    /* Threads, no processes. The C library falls back from clone3, whose flags a filter cannot see. */
    const struct scmp_arg_cmp thread = SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD);
    if (r == 0) r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, thread);
    return r != 0 ? r : seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

/* The filter's code goes through a file, as the library gives it. */
static int export(scmp_filter_ctx filter, struct rs_call_filter *out)
{
    struct stat st;
    RS_CLOSE int fd = memfd_create("filter", MFD_CLOEXEC);
    if (fd < 0 || seccomp_export_bpf(filter, fd) != 0 || fstat(fd, &st) != 0) return RESEAL_EIO;
    out->len = (size_t)st.st_size;
    out->code = malloc(out->len);
    if (out->code == NULL) return RESEAL_ENOMEM;
    return rs_pread_full(fd, out->code, out->len, 0) == 0 ? 0 : RESEAL_EIO;
}

int rs_sandbox_calls_make(const char *const *names, struct rs_call_filter *out)
{
    *out = (struct rs_call_filter){0};
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (filter == NULL) return RESEAL_EIO;
    int r = fill(filter, names) == 0 ? export(filter, out) : RESEAL_EIO;
    seccomp_release(filter);
    return r;
}

int rs_sandbox_calls_load(struct rs_protections *p, const struct rs_call_filter *filter)
{
    if (RS_SANITIZED) return 0;
    struct sock_fprog program = {.len = (unsigned short)(filter->len / sizeof(struct sock_filter)),
                                 .filter = filter->code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return RESEAL_EIO;
    p->seccomp = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
    /* A kernel without seccomp is reported, not an error. */
    return p->seccomp || errno == EINVAL || errno == ENOSYS ? 0 : RESEAL_EIO;
}

int rs_sandbox_calls(struct rs_protections *p, const char *const *names)
{
    struct rs_call_filter filter;
    if (RS_SANITIZED) return 0;
    int r = rs_sandbox_calls_make(names, &filter);
    if (r == 0) r = rs_sandbox_calls_load(p, &filter);
    free(filter.code);
    return r;
}
