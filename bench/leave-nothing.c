/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/leave-nothing.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "offload/base/bytes.h"

#define FOLDERS 4

static char folders[FOLDERS][PATH_MAX];
static volatile pid_t process;

struct entry {
    uint64_t inode;
    int64_t next;
    unsigned short len;
    unsigned char type;
    char name[];
};

/* A service's folder has one in it (state), which has none. */
#define DEPTH 2u

/*
 * Removes what is in a folder. opendir() allocates, which a signal handler may
 * not; the system call does not.
 */
static void remove_files(int dir, unsigned depth)
{
    RS_ALIGNED(8) char room[4096];
    long n;
    while ((n = syscall(SYS_getdents64, dir, room, sizeof(room))) > 0)
        for (long at = 0; at < n;) {
            const struct entry *e = (const struct entry *)(const void *)(room + at);
            at += e->len;
            if (strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0) continue;
            if (unlinkat(dir, e->name, 0) == 0 || depth == 0) continue;
            int sub = openat(dir, e->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (sub < 0) continue;
            remove_files(sub, depth - 1);
            close(sub);
            unlinkat(dir, e->name, AT_REMOVEDIR);
        }
}

static void remove_folder(const char *path)
{
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0) return;
    remove_files(dir, DEPTH);
    close(dir);
    rmdir(path);
}

static void on_signal(int number)
{
    if (process > 0) {
        kill(process, SIGTERM);
        waitpid(process, NULL, 0);
    }
    for (size_t i = 0; i < FOLDERS; i++)
        if (folders[i][0] != '\0') remove_folder(folders[i]);
    signal(number, SIG_DFL);
    raise(number);
}

static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal};
    for (size_t i = 0; i < RS_ARRAY_LEN(numbers); i++) sigaction(numbers[i], &action, NULL);
}

int rs_temporary_folder(const char *where, char *path, size_t len)
{
    size_t i = 0;
    path[0] = '\0';
    while (i < FOLDERS && folders[i][0] != '\0') i++;
    if (i == FOLDERS) return -EMFILE;
    char made[PATH_MAX];
    int n = snprintf(made, sizeof(made), "%s/reseal-bench-XXXXXX", where);
    if (n < 0 || (size_t)n >= RS_MIN(sizeof(made), len)) return -ENAMETOOLONG;
    catch_signals();
    if (mkdtemp(made) == NULL) return -errno;
    memcpy(folders[i], made, (size_t)n + 1);
    memcpy(path, made, (size_t)n + 1);
    return 0;
}

void rs_temporary_folder_remove(char *path)
{
    if (path[0] == '\0') return;
    remove_folder(path);
    for (size_t i = 0; i < FOLDERS; i++)
        if (strcmp(folders[i], path) == 0) folders[i][0] = '\0';
    path[0] = '\0';
}

int rs_temporary_phrase(char out[RS_TEMPORARY_PHRASE + 1])
{
    uint8_t raw[RS_TEMPORARY_PHRASE / 2];
    if (getrandom(raw, sizeof(raw), 0) != (ssize_t)sizeof(raw)) return -EIO;
    rs_hex(raw, sizeof(raw), out);
    return 0;
}

int rs_temporary_phrase_file(const char *path)
{
    char text[RS_TEMPORARY_PHRASE + 1];
    int r = rs_temporary_phrase(text);
    if (r != 0) return r;
    RS_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : rs_write_full(fd, text, RS_TEMPORARY_PHRASE);
}

void rs_temporary_process(pid_t pid)
{
    catch_signals();
    process = pid;
}
