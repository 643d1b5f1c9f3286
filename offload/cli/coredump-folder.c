/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/coredump.h"

#include "offload/cli/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PART_AGE 7200 /* seconds: twice the longest --deadline */

/* A folder that others may write could be given files, and links, for dumps. */
int rs_cores_open(const char *folder, bool make, int *fd, struct rs_failure *f)
{
    struct stat st;
    if (make && mkdir(folder, 0700) != 0 && errno != EEXIST)
        return rs_failure_errno(f, errno, "make", folder);
    *fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0) return rs_failure_errno(f, errno, "open", folder);
    if (fstat(*fd, &st) != 0) return rs_failure_errno(f, errno, "open", folder);
    if ((st.st_mode & 022) == 0 && (st.st_uid == geteuid() || st.st_uid == 0)) return 0;
    rs_cleanup_close(fd);
    return rs_failure_set(f, RS_EXIT_REFUSED, "%s: others may write it, or own it: chmod 700 and chown it",
                          folder);
}

bool rs_cores_is_dump(const char *name)
{
    size_t len = strlen(name), end = sizeof(RS_CORES_SUFFIX) - 1;
    return name[0] != '.' && len > end && strcmp(name + len - end, RS_CORES_SUFFIX) == 0;
}

/* To read the folder; NULL with errno. */
static DIR *read_folder(int folder)
{
    int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
    int error = errno;
    if (dir == NULL && copy >= 0) close(copy);
    errno = error;
    return dir;
}

/* Calls `each` for every dump; the number of calls, or -errno. */
static int each_dump(int folder, void (*each)(const char *name, const struct stat *st, void *arg), void *arg)
{
    DIR *dir = read_folder(folder);
    int n = 0;
    if (dir == NULL) return -errno;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        struct stat st;
        if (!rs_cores_is_dump(e->d_name) || fstatat(folder, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(st.st_mode))
            continue;
        each(e->d_name, &st, arg);
        n++;
    }
    (void)closedir(dir);
    return n;
}

/* .PID.PID.part: a dump on its way. */
static bool is_part(const char *name)
{
    size_t n = name[0] == '.' ? strspn(name + 1, "0123456789.") : 0;
    return n != 0 && strcmp(name + 1 + n, "part") == 0;
}

void rs_cores_clean(int folder)
{
    DIR *dir = read_folder(folder);
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        struct stat st;
        if (!is_part(e->d_name) || fstatat(folder, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(st.st_mode) || st.st_mtime > time(NULL) - PART_AGE)
            continue;
        (void)unlinkat(folder, e->d_name, 0);
    }
    if (dir != NULL) (void)closedir(dir);
}

static void add_size(const char *name, const struct stat *st, void *arg)
{
    (void)name;
    *(uint64_t *)arg += (uint64_t)st->st_size;
}

int rs_cores_count(int folder, uint64_t *count, uint64_t *bytes)
{
    *bytes = 0;
    int n = each_dump(folder, add_size, bytes);
    *count = n > 0 ? (uint64_t)n : 0;
    return n < 0 ? n : 0;
}

/* ---- list ------------------------------------------------------------------------------ */

struct entry {
    char *name;
    uint64_t bytes;
    time_t time;
};

struct entries {
    struct entry *at;
    size_t n, room;
};

static void add_entry(const char *name, const struct stat *st, void *arg)
{
    struct entries *list = arg;
    if (list->n == list->room) {
        size_t room = list->room != 0 ? 2 * list->room : 64;
        struct entry *more = realloc(list->at, room * sizeof(*more));
        if (more == NULL) return;
        list->at = more;
        list->room = room;
    }
    char *copy = strdup(name);
    if (copy == NULL) return;
    list->at[list->n++] = (struct entry){.name = copy, .bytes = (uint64_t)st->st_size, .time = st->st_mtime};
}

static int by_time(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->time != y->time) return x->time < y->time ? -1 : 1;
    return strcmp(x->name, y->name);
}

static void time_text(time_t t, char out[32])
{
    struct tm tm;
    if (gmtime_r(&t, &tm) == NULL || strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) out[0] = '\0';
}

/* Names in the folder may be anybody's: a terminal gets none of their control characters. */
static void print_entry(const struct entry *e)
{
    char bytes[16], when[32];
    time_text(e->time, when);
    printf("%-20s %10s  ", when, rs_bytes_text(e->bytes, bytes, sizeof(bytes)));
    for (const char *c = e->name; *c != '\0'; c++) putchar((uint8_t)*c < 0x20 || *c == 0x7f ? '?' : *c);
    putchar('\n');
}

static void print_json(const struct entries *list)
{
    json_t *dumps = json_array();
    for (size_t i = 0; i < list->n; i++) {
        char when[32];
        time_text(list->at[i].time, when);
        json_t *name = json_string(list->at[i].name);
        if (name == NULL) name = json_string("?");
        (void)json_array_append_new(dumps, json_pack("{s:o, s:I, s:s}", "file", name, "bytes",
                                                     (json_int_t)list->at[i].bytes, "time", when));
    }
    json_t *o = json_pack("{s:o}", "dumps", dumps);
    if (o != NULL && json_dumpf(o, stdout, JSON_COMPACT) == 0) putchar('\n');
    json_decref(o);
}

static int finish(struct rs_failure *f)
{
    return f->exit == 0 ? RS_EXIT_OK : rs_cli_fail(f->exit, "coredump", "%s", f->text);
}

int rs_coredump_list(const struct rs_cores *c)
{
    struct rs_failure f = {0};
    struct entries list = {0};
    RS_CLOSE int folder = -1;
    if (rs_cores_open(c->folder, false, &folder, &f) != 0) return finish(&f);
    int n = each_dump(folder, add_entry, &list);
    if (n < 0) return rs_failure_errno(&f, n, "read", c->folder), finish(&f);
    if (list.n != 0) qsort(list.at, list.n, sizeof(*list.at), by_time);
    if (c->json) print_json(&list);
    for (size_t i = 0; i < list.n; i++) {
        if (!c->json) print_entry(&list.at[i]);
        free(list.at[i].name);
    }
    free(list.at);
    return RS_EXIT_OK;
}

/* ---- install and status ------------------------------------------------------------------- */

/* The kernel cuts a longer pattern. */
#define PATTERN_MAX 127

static int pattern_of(const struct rs_cores *c, char *out, size_t room)
{
    char self[256], options[160] = "";
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    (void)snprintf(self + (n > 0 ? n : 0), sizeof(self) - (n > 0 ? (size_t)n : 0), "%s",
                   n > 0 ? "" : "/usr/bin/reseal");
    if (strcmp(c->folder, RS_CORES_FOLDER) != 0)
        (void)snprintf(options, sizeof(options), "--folder %s ", c->folder);
    int len = snprintf(out, room, "|%s coredump handle %s%s", self, options, RS_CORE_ARGS);
    if (len > 0 && len <= PATTERN_MAX && strchr(self, ' ') == NULL && strchr(c->folder, ' ') == NULL)
        return 0;
    return rs_cli_fail(
        RS_EXIT_FAILED, "coredump",
        "the kernel takes %d characters without blanks in paths, and this has %d: use a shorter "
        "folder, or install the program in /usr/bin",
        PATTERN_MAX, len);
}

int rs_coredump_install(const struct rs_cores *c)
{
    char pattern[512];
    int r = pattern_of(c, pattern, sizeof(pattern));
    if (r != 0) return r;
    printf("# /etc/sysctl.d/60-reseal-coredump.conf; then, as root: sysctl -p that file\n"
           "kernel.core_pattern=%s\n"
           "# at most so many dumps at a time\n"
           "kernel.core_pipe_limit=4\n",
           pattern);
    return RS_EXIT_OK;
}

/* What the kernel does with dumps now; "" when it cannot be told. */
static void read_pattern(char *out, size_t room)
{
    RS_CLOSE int fd = open(RS_CORE_PATTERN, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, out, room - 1) : 0;
    out[n > 0 ? n : 0] = '\0';
    out[strcspn(out, "\n")] = '\0';
}

int rs_coredump_status(const struct rs_cores *c)
{
    char pattern[256], bytes[16];
    struct rs_failure f = {0};
    uint64_t count = 0, used = 0;
    RS_CLOSE int folder = -1;
    read_pattern(pattern, sizeof(pattern));
    bool ours = pattern[0] == '|' && strstr(pattern, "reseal coredump handle") != NULL;
    if (access(c->folder, F_OK) == 0 &&
        (rs_cores_open(c->folder, false, &folder, &f) != 0 || rs_cores_count(folder, &count, &used) != 0))
        return finish(&f);
    if (c->json) {
        json_t *o = json_pack("{s:b, s:s, s:s, s:I, s:I}", "sealed", ours, "core_pattern", pattern, "folder",
                              c->folder, "dumps", (json_int_t)count, "bytes", (json_int_t)used);
        if (o != NULL && json_dumpf(o, stdout, JSON_COMPACT) == 0) putchar('\n');
        json_decref(o);
    } else {
        printf("core dumps are %s\n  core_pattern  %s\n  folder        %s: %llu, %s\n",
               ours ? "sealed" : "not sealed: see 'reseal coredump install'", pattern, c->folder,
               (unsigned long long)count, rs_bytes_text(used, bytes, sizeof(bytes)));
    }
    return ours ? RS_EXIT_OK : RS_EXIT_FAILED;
}
