/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's helper. It must never hang, whatever crashed: a program that waits for its dump cannot be
 * ended. So the work is done by a child, and the parent ends it when its time is over. Programs of the
 * service itself are never dumped: they are not dumpable, and no helper is started for them.
 */
#include "offload/cli/coredump.h"

#include "offload/base/text.h"
#include "offload/client/keyservice.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#define NAME_MAX_LEN 40        /* of the program's part of a file name */
#define PIPE_SIZE    (1 << 20) /* what the kernel writes at a time; less where it refuses */
#define WORDS        7         /* of RS_CORE_ARGS; the last may be several */

/* One dump on its way. */
struct dump {
    const struct rs_cores *c;
    struct rs_crash crash;
    int folder, file; /* `file` under the name `part` */
    char part[80];
    char name[160];
    uint64_t max; /* bytes */
    uint64_t bytes;
    bool cut;
    struct rs_failure f;
};

/* ---- what the kernel told -------------------------------------------------------------- */

static bool is_number(const char *text)
{
    size_t len = strlen(text);
    return len != 0 && len <= 20 && strspn(text, "0123456789") == len;
}

static int take_crash(struct dump *d, int argc, char **argv)
{
    if (argc < WORDS)
        return rs_failure_set(&d->f, RS_EXIT_USAGE, "handle wants: %s, as 'reseal coredump install' prints",
                              RS_CORE_ARGS);
    for (int i = 0; i < 5; i++)
        if (!is_number(argv[i]))
            return rs_failure_set(&d->f, RS_EXIT_USAGE,
                                  "handle wants numbers for %%P %%u %%g %%s %%t, not '%.40s'", argv[i]);
    d->crash = (struct rs_crash){argv[0], argv[1], argv[2], argv[3], argv[4], argv[5], ""};
    /* A program's name may have blanks, and older kernels split at them. */
    for (int i = 6; i < argc; i++) {
        size_t len = strlen(d->crash.program);
        (void)snprintf(d->crash.program + len, sizeof(d->crash.program) - len, "%s%s", i > 6 ? " " : "",
                       argv[i]);
    }
    rs_line_clean(d->crash.program); /* it goes into the system's log */
    return 0;
}

/* The program's name is chosen by whoever crashed it. */
static void file_name(struct dump *d)
{
    char program[NAME_MAX_LEN + 1];
    (void)snprintf(program, sizeof(program), "%.*s", (int)NAME_MAX_LEN, d->crash.program);
    for (char *at = program; *at != '\0'; at++) {
        bool fine = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || (*at >= '0' && *at <= '9') ||
                    *at == '-' || *at == '_' || (*at == '.' && at != program);
        if (!fine) *at = '_';
    }
    (void)snprintf(d->name, sizeof(d->name), "%s.%s.%s%s" RS_CORES_SUFFIX, program, d->crash.pid,
                   d->crash.time, d->cut ? ".cut" : "");
}

/* ---- limits ------------------------------------------------------------------------------ */

static int check_room(struct dump *d)
{
    struct statvfs vfs;
    uint64_t count, bytes;
    int r = rs_cores_count(d->folder, &count, &bytes);
    if (r != 0) return rs_failure_errno(&d->f, r, "read", d->c->folder);
    if (count >= d->c->max_count)
        return rs_failure_set(&d->f, RS_EXIT_REFUSED, "%s holds %llu dumps, which is its limit: remove some",
                              d->c->folder, (unsigned long long)count);
    if (fstatvfs(d->folder, &vfs) != 0) return rs_failure_errno(&d->f, errno, "read", d->c->folder);
    uint64_t avail = (uint64_t)vfs.f_bavail * vfs.f_frsize, overhead = 4 * 4096;
    if (avail <= d->c->keep_free + overhead)
        return rs_failure_set(&d->f, RS_EXIT_IO,
                              "%s: no more than the %llu bytes are free that are kept: make room",
                              d->c->folder, (unsigned long long)d->c->keep_free);
    d->max = RS_MAX(RS_MIN(d->c->max_size, avail - d->c->keep_free - overhead), UINT64_C(1));
    return 0;
}

/* ---- sealing, in the child ------------------------------------------------------------------ */

/* The machine's own UUID, as firmware tells it; "": it does not, or not to us. */
static void machine_id(char *out, size_t room)
{
    RS_CLOSE int fd = open("/sys/class/dmi/id/product_uuid", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, out, room - 1) : 0;
    out[n > 0 ? n : 0] = '\0';
    out[strspn(out, "0123456789abcdefABCDEF-")] = '\0';
}

/* Texts of others as JSON takes them. */
static json_t *plain(const char *text)
{
    char copy[256];
    (void)snprintf(copy, sizeof(copy), "%s", text);
    for (char *at = copy; *at != '\0'; at++)
        if ((uint8_t)*at < 0x20 || (uint8_t)*at >= 0x7f) *at = '?';
    return json_string(copy);
}

json_t *rs_cores_host(const char *name)
{
    char id[64], own[HOST_NAME_MAX + 1] = "";
    machine_id(id, sizeof(id));
    if (name == NULL && gethostname(own, sizeof(own) - 1) == 0) name = own;
    return json_pack("{s:s, s:o, s:s}", "x-Component", "Reseal", "x-Name", plain(name != NULL ? name : ""),
                     "x-Identifier", id);
}

static json_t *attributes_of(const struct rs_crash *crash)
{
    json_t *all = json_pack("{s:o, s:s, s:s, s:s, s:s, s:s}", "core.program", plain(crash->program),
                            "core.pid", crash->pid, "core.uid", crash->uid, "core.gid", crash->gid,
                            "core.signal", crash->signal, "core.time", crash->time);
    if (all != NULL) (void)json_object_update_new(all, rs_cores_host(crash->host));
    return all;
}

static int seal(struct dump *d)
{
    const struct reseal_options options = {.size = sizeof(options), .runtime_dir = d->c->runtime_dir};
    reseal *r = NULL;
    json_t *result = NULL;
    char why[RS_KEYSERVICE_WHY];
    const int fds[2] = {STDIN_FILENO, d->file};
    int err = reseal_open(&r, &options);
    if (err != 0) return rs_failure_code(&d->f, err, "no service to seal it");
    json_t *args = json_pack("{s:b, s:s, s:I, s:o}", "host", 1, "what", "core", "max", (json_int_t)d->max,
                             "attributes", attributes_of(&d->crash));
    err = args != NULL ? rs_keyservice_call(r, "file.seal", args, fds, 2, &result, NULL, why, sizeof(why))
                       : RESEAL_ENOMEM;
    if (err != 0) (void)rs_failure_set(&d->f, rs_exit_of(err), "%s", args != NULL ? why : "out of memory");
    if (err == 0) d->bytes = (uint64_t)json_integer_value(json_object_get(result, "bytes"));
    if (err == 0) d->cut = json_is_true(json_object_get(result, "cut"));
    json_decref(result);
    reseal_close(r);
    return err;
}

/* Under a name that says what it is; the old one stays if there is one. */
static int publish(struct dump *d)
{
    if (fsync(d->file) != 0) return rs_failure_errno(&d->f, errno, "write", d->c->folder);
    file_name(d);
    if (renameat2(d->folder, d->part, d->folder, d->name, RENAME_NOREPLACE) != 0)
        return rs_failure_errno(&d->f, errno, "name", d->name);
    (void)fsync(d->folder);
    return 0;
}

static void say_failed(const struct dump *d)
{
    syslog(LOG_ERR, "dropped the core dump of %s (%s): %s", d->crash.program, d->crash.pid, d->f.text);
    (void)rs_cli_fail(d->f.exit, "coredump", "the dump was dropped: %s", d->f.text);
}

static int work(struct dump *d)
{
    if (seal(d) != 0 || publish(d) != 0) {
        (void)unlinkat(d->folder, d->part, 0);
        say_failed(d);
        return d->f.exit;
    }
    syslog(LOG_NOTICE, "sealed the core dump of %s (%s): %s/%s%s", d->crash.program, d->crash.pid,
           d->c->folder, d->name, d->cut ? ", cut at the limit" : "");
    return RS_EXIT_OK;
}

/* ---- the parent ------------------------------------------------------------------------------ */

/* The exit code of the child; it is ended when its time is over. */
static int watch(struct dump *d, pid_t child)
{
    RS_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    int ms = (int)RS_MIN(d->c->deadline, (uint64_t)86400) * 1000, status = 0;
    if (pidfd < 0 || poll(&p, 1, ms) != 1) {
        (void)kill(child, SIGKILL);
        (void)waitpid(child, &status, 0);
        (void)unlinkat(d->folder, d->part, 0);
        (void)rs_failure_set(&d->f, RS_EXIT_SERVICE, "it was not sealed within %llu seconds",
                             (unsigned long long)d->c->deadline);
        say_failed(d);
        return d->f.exit;
    }
    if (waitpid(child, &status, 0) == child && WIFEXITED(status)) return WEXITSTATUS(status);
    (void)unlinkat(d->folder, d->part, 0);
    (void)rs_failure_set(&d->f, RS_EXIT_FAILED, "the handler itself failed");
    say_failed(d);
    return d->f.exit;
}

static int prepare(struct dump *d)
{
    if (rs_cores_open(d->c->folder, true, &d->folder, &d->f) != 0) return d->f.exit;
    rs_cores_clean(d->folder);
    if (check_room(d) != 0) return d->f.exit;
    (void)snprintf(d->part, sizeof(d->part), ".%s.%d.part", d->crash.pid, (int)getpid());
    d->file = openat(d->folder, d->part, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (d->file < 0) return rs_failure_errno(&d->f, errno, "make a file in", d->c->folder);
    return 0;
}

int rs_coredump_handle(const struct rs_cores *c, int argc, char **argv)
{
    struct dump d = {.c = c, .folder = -1, .file = -1};
    openlog("reseal-coredump", LOG_PID, LOG_DAEMON);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)umask(077);
    (void)fcntl(STDIN_FILENO, F_SETPIPE_SZ, PIPE_SIZE);
    if (take_crash(&d, argc, argv) != 0 || prepare(&d) != 0) {
        say_failed(&d);
        return d.f.exit;
    }
    pid_t child = fork();
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        _exit(work(&d));
    }
    /* Only the child holds the pipe: when it ends, the kernel stops to write. */
    (void)close(STDIN_FILENO);
    if (child > 0) return watch(&d, child);
    (void)rs_failure_set(&d.f, RS_EXIT_FAILED, "cannot start a process: %s", strerror(errno));
    (void)unlinkat(d.folder, d.part, 0);
    say_failed(&d);
    return d.f.exit;
}
