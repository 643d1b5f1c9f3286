/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BASE_SANDBOX_H
#define RS_BASE_SANDBOX_H

/*
 * What a process gives up before it reads anything hostile: dumps, new
 * privileges, capabilities, files (Landlock) and system calls (seccomp). Each
 * step notes in struct rs_protections what is in force, for status: a kernel
 * without one of them is reported, not an error.
 *
 * Threads: Landlock binds the calling thread and those it starts later: call
 * these before the first thread. A sanitizer build keeps dumps, files and calls.
 */

#include "offload/base/bytes.h"

/* 1 in a sanitizer build, whose run-time library needs more than a confined process has: /proc, a tracer,
 * address space. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define RS_SANITIZED 1
#endif
#endif
#ifndef RS_SANITIZED
#define RS_SANITIZED 0
#endif

struct rs_protections {
    bool no_dump; /* PR_SET_DUMPABLE 0 and RLIMIT_CORE 0 */
    bool no_new_privs;
    bool no_capabilities;
    bool no_writable_code; /* PR_SET_MDWE */
    int landlock;          /* ABI in force; 0: none */
    bool seccomp;
};

/* No dumps, no new privileges, no memory both writable and executable. */
void rs_sandbox_process(struct rs_protections *p);

/*
 * Gives up every capability but those of `keep` (1u << CAP_..., the first 32): CAP_IPC_LOCK, where memory is
 * locked later, beyond the limit. What needs another one comes before.
 */
void rs_sandbox_capabilities(struct rs_protections *p, uint32_t keep);

/* Lays these capabilities aside: not in force any more, but there for the `keep` of the call above. Shows
 * what goes without them. */
void rs_sandbox_lay_aside(uint32_t capabilities);

/* For who starts programs that need some at their start: neither it nor they have others than `keep`. */
void rs_sandbox_bound(uint32_t keep);

/* Rights for a path; all else is refused. */
enum rs_path_right {
    RS_PATH_READ = 1,  /* open for reading, list */
    RS_PATH_WRITE = 2, /* open files that exist for writing */
    RS_PATH_MAKE = 4,  /* make and remove regular files and sockets */
    RS_PATH_EXECUTE = 8,
    RS_PATH_FOLDERS = 16, /* make and remove folders */
};

struct rs_path {
    const char
        *path; /* file or folder with all beneath; one that does not exist is left out; NULL ends the list */
    unsigned rights; /* enum rs_path_right, or-ed */
};

/* Flags of rs_sandbox_files() */
#define RS_SANDBOX_SCOPE_SIGNALS 1u /* may not signal processes outside */
#define RS_SANDBOX_ALLOW_TCP     2u /* may bind and connect TCP ports */
#define RS_SANDBOX_CONNECT_TCP   4u /* may connect TCP ports */

/*
 * Refuses every file not named, TCP and abstract sockets, where the kernel's ABI has it. What
 * is open stays usable. 0 (also when the kernel has no Landlock: p->landlock
 * is 0 then), or RESEAL_EIO.
 */
RS_MUST_CHECK int rs_sandbox_files(struct rs_protections *p, const struct rs_path *paths, unsigned flags);

/* What every process of the service's calls: memory, its own end, time, messages. For lists of these names.
 */
#define RS_CALLS_OF_ALL                                                                                      \
    "read", "write", "close", "mmap", "munmap", "mprotect", "mremap", "madvise", "brk", "mlock", "futex",    \
        "exit", "exit_group", "getrandom", "clock_gettime", "gettimeofday", "getpid", "gettid", "getuid",    \
        "geteuid", "rt_sigprocmask", "rt_sigreturn", "restart_syscall", "recvmsg", "sendmsg"

/*
 * Allows the named system calls only; clone only for threads; socket only for local, internet and routing
 * (netlink) sockets; others answer EPERM (clone3: ENOSYS, so that the C library takes clone). `names` ends
 * with NULL; a name this kernel does not know is left out. 0, or RESEAL_EIO.
 */
RS_MUST_CHECK int rs_sandbox_calls(struct rs_protections *p, const char *const *names);

/* The same in two steps, for who confines many processes alike: the filter is made once. */
struct rs_call_filter {
    void *code;
    size_t len; /* bytes */
};
RS_MUST_CHECK int rs_sandbox_calls_make(const char *const *names, struct rs_call_filter *out);
RS_MUST_CHECK int rs_sandbox_calls_load(struct rs_protections *p, const struct rs_call_filter *filter);

#endif
