/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/supervisor.h"

#include "reseal/reseal.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int complain(const char *what, const char *why)
{
    fprintf(stderr, "reseald: %s: %s\n", what, why);
    return RESEAL_EIO;
}

/* Becomes `user` for good; the folders are made before, since only root may make one in /run or /var/lib. */
static int become(const char *user, const char *dir, const char *state)
{
    struct passwd *p = getpwnam(user);
    if (p == NULL) return complain(user, "no such user");
    if (chown(dir, p->pw_uid, p->pw_gid) != 0) return complain(dir, strerror(errno));
    /* One that is there already must be the user's, which reseal-keyd looks at. */
    if (mkdir(state, 0700) == 0 && chown(state, p->pw_uid, p->pw_gid) != 0)
        return complain(state, strerror(errno));
    if (initgroups(user, p->pw_gid) != 0 || setgid(p->pw_gid) != 0 || setuid(p->pw_uid) != 0)
        return complain(user, "cannot become this user: start as root, or leave --user out");
    return 0;
}

static int open_folder(struct rs_supervisor *s)
{
    const char *dir = s->options->runtime_dir;
    mode_t mode = s->options->policy != NULL ? 0755 : 0700;
    struct stat st;
    if (mkdir(dir, mode) != 0 && errno != EEXIST) return complain(dir, strerror(errno));
    if (s->options->user != NULL && become(s->options->user, dir, s->options->state_dir) != 0)
        return RESEAL_EIO;
    s->folder = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (s->folder < 0 || fstat(s->folder, &st) != 0) return complain(dir, strerror(errno));
    if (st.st_uid != geteuid()) return complain(dir, "belongs to another user: choose another --runtime-dir");
    if ((st.st_mode & 022) != 0) return complain(dir, "others may write in it: chmod go-w it");
    return 0;
}

static int take_lock(struct rs_supervisor *s)
{
    char pid[16];
    s->lock = openat(s->folder, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock < 0) return complain("lock", strerror(errno));
    if (flock(s->lock, LOCK_EX | LOCK_NB) != 0)
        return complain(s->options->runtime_dir,
                        "a service runs here already: stop it, or take it over with --takeover");
    int n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
    if (ftruncate(s->lock, 0) != 0 || rs_pwrite_full(s->lock, pid, (size_t)n, 0) != 0)
        return complain("lock", "cannot write");
    return 0;
}

static int address(const struct rs_supervisor *s, const char *name, struct sockaddr_un *a)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(a->sun_path, sizeof(a->sun_path), "%s/%s", s->options->runtime_dir, name);
    return n > 0 && (size_t)n < sizeof(a->sun_path) ? 0 : RESEAL_EINVAL;
}

static int listen_at(struct rs_supervisor *s, const char *name, mode_t mode, int *out)
{
    struct sockaddr_un a;
    if (address(s, name, &a) != 0) return complain(s->options->runtime_dir, "path too long for a socket");
    *out = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*out < 0) return complain(name, strerror(errno));
    /* We hold the lock: what is there is left over from a service that died. */
    if (unlinkat(s->folder, name, 0) != 0 && errno != ENOENT) return complain(name, strerror(errno));
    mode_t old = umask(0777);
    int e = bind(*out, (struct sockaddr *)&a, sizeof(a));
    umask(old);
    if (e != 0 || fchmodat(s->folder, name, mode, 0) != 0 || listen(*out, 128) != 0)
        return complain(name, strerror(errno));
    return 0;
}

int rs_folder_open(struct rs_supervisor *s)
{
    mode_t mode = s->options->policy != NULL ? 0660 : 0600;
    int e = open_folder(s);
    if (e != 0 || s->options->takeover) return e;
    e = take_lock(s);
    if (e == 0) e = listen_at(s, "control.sock", mode, &s->control);
    if (e == 0) e = listen_at(s, "keys.sock", mode, &s->keys);
    if (e == 0) e = listen_at(s, "admin.sock", 0600, &s->admin);
    return e;
}

void rs_folder_close(struct rs_supervisor *s)
{
    static const char *const names[] = {"control.sock", "keys.sock", "admin.sock", "lock"};
    if (s->lock < 0) return;
    for (size_t i = 0; i < RS_ARRAY_LEN(names); i++)
        if (unlinkat(s->folder, names[i], 0) != 0) continue;
}

int rs_folder_connect(const struct rs_supervisor *s, const char *name)
{
    struct sockaddr_un a;
    if (address(s, name, &a) != 0) return RESEAL_ENOSERVICE;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0) return fd;
    rs_cleanup_close(&fd);
    return RESEAL_ENOSERVICE;
}
