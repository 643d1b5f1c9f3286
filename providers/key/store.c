/* SPDX-License-Identifier: Apache-2.0 */
/* The state folder: names, files, folders. store-seal.c keeps the host key and seals. */
#include "providers/key/store.h"

#include "providers/key/store-internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILE_ROOM ((size_t)256 << 20) /* a receipt has a line for each key that its tenant ever had */
#define LINE_ROOM ((size_t)64 << 10)

int rs_store_fail(char *why, size_t why_len, int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why, why_len, format, args);
    va_end(args);
    return status;
}

static int error_of_errno(void)
{
    if (errno == ENOENT) return RESEAL_ENOKEY;
    if (errno == ENOSPC || errno == EDQUOT) return RESEAL_ESPACE;
    return errno == ENOMEM ? RESEAL_ENOMEM : RESEAL_EIO;
}

/* ---- names -------------------------------------------------------------------------- */

/* Folders and a last part: letters, digits, '.', '-', '_', '@'; none begins with a dot. */
static bool name_ok(const char *name)
{
    bool fresh = true;
    size_t len = strnlen(name, RS_STORE_NAME_MAX);
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        bool first = letter || c == '_' || c == '-'; /* a host's id in base64url may begin with any of them */
        if (c == '/' ? fresh : fresh ? !first : !first && c != '.' && c != '@') return false;
        fresh = c == '/';
    }
    return len < RS_STORE_NAME_MAX && !fresh;
}

/*
 * The folder of an object and the last part of its name; with `make` folders are made. The descriptor,
 * closed by the caller, or RESEAL_E....
 */
static int open_parent(const struct rs_store *s, const char *name, bool make, const char **last)
{
    if (!name_ok(name)) return RESEAL_EINVAL;
    RS_CLOSE int at = fcntl(s->folder, F_DUPFD_CLOEXEC, 0);
    for (const char *slash; (slash = strchr(name, '/')) != NULL; name = slash + 1) {
        char part[RS_STORE_NAME_MAX];
        memcpy(part, name, (size_t)(slash - name));
        part[slash - name] = '\0';
        if (make && mkdirat(at, part, 0700) == 0) (void)fsync(at);
        int next = openat(at, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (next < 0) return error_of_errno();
        close(at);
        at = next;
    }
    *last = name;
    int out = at;
    at = -1;
    return out >= 0 ? out : RESEAL_EIO;
}

/* ---- whole files ---------------------------------------------------------------------- */

static int write_beside(int folder, const char *temporary, const void *bytes, size_t len)
{
    /* What an earlier crash left: */
    (void)unlinkat(folder, temporary, 0);
    RS_CLOSE int fd = openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return error_of_errno();
    int r = rs_write_full(fd, bytes, len);
    if (r == 0 && fsync(fd) != 0) r = -errno;
    if (r == 0) return 0;
    errno = -r;
    r = error_of_errno();
    (void)unlinkat(folder, temporary, 0);
    return r;
}

int rs_store_write(const struct rs_store *s, const char *name, const void *bytes, size_t len)
{
    char temporary[RS_STORE_NAME_MAX + 8];
    const char *last;
    RS_CLOSE int folder = open_parent(s, name, true, &last);
    if (folder < 0) return folder;
    (void)snprintf(temporary, sizeof(temporary), ".%s.new", last);
    int r = write_beside(folder, temporary, bytes, len);
    if (r != 0) return r;
    if (renameat(folder, temporary, folder, last) == 0 && fsync(folder) == 0) return 0;
    return error_of_errno();
}

int rs_store_read(const struct rs_store *s, const char *name, uint8_t **out, size_t *len)
{
    const char *last;
    struct stat st;
    RS_CLOSE int folder = open_parent(s, name, false, &last);
    if (folder < 0) return folder;
    RS_CLOSE int fd = openat(folder, last, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) return error_of_errno();
    if (!S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size > FILE_ROOM) return RESEAL_EFORMAT;
    uint8_t *bytes = malloc((size_t)st.st_size + 1);
    if (bytes == NULL) return RESEAL_ENOMEM;
    if (rs_pread_full(fd, bytes, (size_t)st.st_size, 0) != 0) {
        free(bytes);
        return RESEAL_EIO;
    }
    bytes[st.st_size] = 0;
    *len = (size_t)st.st_size;
    *out = bytes;
    return 0;
}

size_t rs_json_index(const json_t *list, const json_t *value)
{
    size_t i = 0;
    while (i < json_array_size(list) && !json_equal(json_array_get(list, i), value)) i++;
    return i;
}

int rs_store_put_json(struct rs_store *s, const char *name, const json_t *value)
{
    RS_FREE char *text = json_dumps(value, JSON_INDENT(2) | JSON_SORT_KEYS);
    if (text == NULL) return RESEAL_ENOMEM;
    return strlen(text) <= FILE_ROOM ? rs_store_write(s, name, text, strlen(text)) : RESEAL_ELIMIT;
}

int rs_store_get_json(struct rs_store *s, const char *name, json_t **out)
{
    RS_FREE uint8_t *bytes = NULL;
    size_t len;
    int r = rs_store_read(s, name, &bytes, &len);
    if (r != 0) return r;
    *out = json_loadb((const char *)bytes, len, JSON_REJECT_DUPLICATES, NULL);
    return *out != NULL ? 0 : RESEAL_EFORMAT;
}

int rs_store_remove(struct rs_store *s, const char *name)
{
    const char *last;
    RS_CLOSE int folder = open_parent(s, name, false, &last);
    if (folder < 0) return folder == RESEAL_ENOKEY ? 0 : folder;
    if (unlinkat(folder, last, 0) != 0) return errno == ENOENT ? 0 : error_of_errno();
    return fsync(folder) == 0 ? 0 : RESEAL_EIO;
}

int rs_store_rename(struct rs_store *s, const char *from, const char *to)
{
    const char *last_from, *last_to = strrchr(to, '/');
    size_t depth = last_to != NULL ? (size_t)(last_to + 1 - to) : 0;
    RS_CLOSE int folder = open_parent(s, from, false, &last_from);
    if (folder < 0) return folder;
    if (!name_ok(to) || (size_t)(last_from - from) != depth || memcmp(from, to, depth) != 0)
        return RESEAL_EINVAL;
    if (renameat(folder, last_from, folder, to + depth) != 0) return error_of_errno();
    return fsync(folder) == 0 ? 0 : RESEAL_EIO;
}

/* ---- lists ------------------------------------------------------------------------------ */

struct list {
    char **names;
    size_t n, room;
};

static int add(struct list *l, const char *folder, const char *part)
{
    char name[RS_STORE_NAME_MAX + 256];
    (void)snprintf(name, sizeof(name), "%s/%s", folder, part);
    if (!name_ok(name)) return 0; /* left over, or not ours */
    if (l->n == l->room) {
        char **more = realloc(l->names, (l->room * 2 + 16) * sizeof(*more));
        if (more == NULL) return RESEAL_ENOMEM;
        l->names = more;
        l->room = l->room * 2 + 16;
    }
    l->names[l->n] = strdup(name);
    return l->names[l->n++] != NULL ? 0 : RESEAL_ENOMEM;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int read_folder(int fd, const char *folder, struct list *l)
{
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        close(fd);
        return RESEAL_ENOMEM;
    }
    int r = 0;
    for (struct dirent *e; r == 0 && (e = readdir(dir)) != NULL;)
        if (e->d_type != DT_DIR) r = add(l, folder, e->d_name);
    closedir(dir);
    if (l->n > 1) qsort(l->names, l->n, sizeof(*l->names), compare);
    return r;
}

int rs_store_each(struct rs_store *s, const char *folder, int (*each)(const char *name, void *arg), void *arg)
{
    struct list l = {0};
    const char *last;
    RS_CLOSE int parent = open_parent(s, folder, false, &last);
    if (parent < 0) return parent == RESEAL_ENOKEY ? 0 : parent;
    int fd = openat(parent, last, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return errno == ENOENT ? 0 : error_of_errno();
    int r = read_folder(fd, folder, &l);
    for (size_t i = 0; i < l.n && r == 0; i++) r = each(l.names[i], arg);
    for (size_t i = 0; i < l.n; i++) free(l.names[i]);
    free(l.names);
    return r;
}

/* ---- lines ------------------------------------------------------------------------------ */

/* Where the last whole line ends. A crash may have left a part of one. */
static int whole_end(int fd, off_t size, off_t *end)
{
    char tail[4096];
    *end = size;
    while (*end > 0) {
        size_t n = (size_t)RS_MIN(*end, (off_t)sizeof(tail));
        if (rs_pread_full(fd, tail, n, (uint64_t)(*end - (off_t)n)) != 0) return RESEAL_EIO;
        const char *feed = memrchr(tail, '\n', n);
        if (feed != NULL) {
            *end += feed + 1 - (tail + n);
            return 0;
        }
        *end -= (off_t)n;
    }
    return 0;
}

int rs_store_lines(struct rs_store *s, const char *name, int *fd, uint64_t *end)
{
    const char *last;
    struct stat st;
    off_t whole = 0;
    RS_CLOSE int folder = open_parent(s, name, true, &last);
    *fd = -1;
    if (folder < 0) return folder;
    RS_CLOSE int file = openat(folder, last, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0 || fstat(file, &st) != 0) return error_of_errno();
    int r = whole_end(file, st.st_size, &whole);
    if (r != 0) return r;
    if (whole != st.st_size && ftruncate(file, whole) != 0) return error_of_errno();
    *fd = file;
    *end = (uint64_t)whole;
    file = -1;
    return 0;
}

int rs_store_add_lines(int fd, uint64_t end, const char *text, size_t len)
{
    int r = rs_pwrite_full(fd, text, len, end);
    if (r == 0) return 0;
    errno = -r;
    r = error_of_errno();
    return ftruncate(fd, (off_t)end) == 0 ? r : RESEAL_EIO;
}

int rs_store_append(struct rs_store *s, const char *name, const char *line, size_t len)
{
    char whole[LINE_ROOM + 1];
    uint64_t end;
    if (len == 0 || len > LINE_ROOM || memchr(line, '\n', len - 1) != NULL) return RESEAL_EINVAL;
    RS_CLOSE int fd = -1;
    int r = rs_store_lines(s, name, &fd, &end);
    if (r != 0) return r;
    memcpy(whole, line, len);
    if (line[len - 1] != '\n') whole[len++] = '\n';
    return rs_store_add_lines(fd, end, whole, len);
}

/* ---- open and close ---------------------------------------------------------------------- */

/* Makes a folder and those above it. */
static int make_folders(const char *folder)
{
    char path[4096];
    size_t len = strnlen(folder, sizeof(path));
    if (len == sizeof(path)) return -ENAMETOOLONG;
    memcpy(path, folder, len + 1);
    for (char *at = path + 1; (at = strchr(at, '/')) != NULL; at++) {
        *at = '\0';
        (void)mkdir(path, 0700);
        *at = '/';
    }
    return mkdir(folder, 0700) == 0 || errno == EEXIST ? 0 : -errno;
}

static int open_folder(const char *folder, struct rs_store *s, char *why, size_t why_len)
{
    struct stat st;
    int r = make_folders(folder);
    if (r != 0)
        return rs_store_fail(why, why_len, RESEAL_EIO, "%s: cannot be made (%s): choose another --state-dir",
                             folder, strerror(-r));
    s->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (s->folder < 0 || fstat(s->folder, &st) != 0)
        return rs_store_fail(why, why_len, RESEAL_EIO, "%s: %s", folder, strerror(errno));
    if (st.st_uid != geteuid())
        return rs_store_fail(why, why_len, RESEAL_EPERM,
                             "%s: belongs to user %u: chown it to the user of the service (%u)", folder,
                             st.st_uid, geteuid());
    if ((st.st_mode & 022) != 0)
        return rs_store_fail(why, why_len, RESEAL_EPERM, "%s: others can write in it: chmod go-w it", folder);
    if ((st.st_mode & 055) != 0 && fchmod(s->folder, 0700) != 0)
        return rs_store_fail(why, why_len, RESEAL_EIO, "%s: %s", folder, strerror(errno));
    return 0;
}

/* A reseal-keyd whose reseald was killed needs a moment to end. */
static bool lock_soon(int fd)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    for (unsigned i = 0; i < 100; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

static int take_lock(const char *folder, struct rs_store *s, char *why, size_t why_len)
{
    s->lock = openat(s->folder, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock < 0) return rs_store_fail(why, why_len, RESEAL_EIO, "%s/lock: %s", folder, strerror(errno));
    if (lock_soon(s->lock)) return 0;
    return rs_store_fail(why, why_len, RESEAL_EBUSY,
                         "%s: another service uses it: stop that one, or choose another --state-dir", folder);
}

int rs_store_open(const char *folder, const struct rs_store_keeper *keeper, struct rs_store **out, char *why,
                  size_t why_len)
{
    struct rs_store *s = calloc(1, sizeof(*s));
    if (s == NULL) return rs_store_fail(why, why_len, RESEAL_ENOMEM, "out of memory");
    s->folder = s->lock = -1;
    int r = open_folder(folder, s, why, why_len);
    if (r == 0) r = take_lock(folder, s, why, why_len);
    if (r == 0) r = rs_store_take_host_key(s, folder, keeper, why, why_len);
    if (r == 0)
        *out = s;
    else
        rs_store_close(s);
    return r;
}

void rs_store_close(struct rs_store *s)
{
    if (s == NULL) return;
    rs_store_drop_host_key(s);
    rs_cleanup_close(&s->lock);
    rs_cleanup_close(&s->folder);
    free(s);
}

int rs_store_folder(const struct rs_store *s)
{
    return s->folder;
}

const char *rs_store_seal(const struct rs_store *s)
{
    return s->seal;
}
