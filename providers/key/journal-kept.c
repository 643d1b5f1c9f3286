/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/journal-kept.h"

#include "providers/key/store.h"
#include "reseal/reseal.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIGITS    20u /* of the number in a name */
#define FRESH     ".new"
#define FILE_MOST (64u << 20) /* no file of ours is longer */
#define FILE_LESS (64u << 10)
#define FILES     16u /* of a journal that is full, when none of them was thinned */

struct text {
    char *at;
    size_t len;
};

uint64_t rs_journal_file_max(const struct rs_journal *j)
{
    uint64_t share = (j->keep != 0 ? j->keep : RS_JOURNAL_KEEP) / FILES;
    return RS_MIN(RS_MAX(share, (uint64_t)FILE_LESS), (uint64_t)RS_JOURNAL_FILE);
}

void rs_journal_kept_name(const struct rs_journal *j, uint64_t first, char out[RS_JOURNAL_NAME])
{
    (void)snprintf(out, RS_JOURNAL_NAME, "%s.%020llu", j->name, (unsigned long long)first);
}

/* ---- the list ------------------------------------------------------------------------------ */

static int by_first(const void *a, const void *b)
{
    const struct rs_journal_file *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

static bool list_add(struct rs_journal *j, uint64_t first, uint64_t bytes)
{
    struct rs_journal_file *more = reallocarray(j->closed, j->nclosed + 1, sizeof(*more));
    if (more == NULL) return false;
    j->closed = more;
    more[j->nclosed++] = (struct rs_journal_file){.first = first, .bytes = bytes};
    qsort(more, j->nclosed, sizeof(*more), by_first);
    return true;
}

static void list_remove(struct rs_journal *j, unsigned i)
{
    free(j->closed[i].shares);
    memmove(&j->closed[i], &j->closed[i + 1], (j->nclosed - i - 1) * sizeof(j->closed[0]));
    j->nclosed--;
}

/* What stands behind the number; NULL: it is no name of a closed file. */
static const char *after_number(const struct rs_journal *j, const char *name, uint64_t *first)
{
    size_t len = strlen(j->name);
    char *end;
    if (strncmp(name, j->name, len) != 0 || name[len] != '.' ||
        strspn(name + len + 1, "0123456789") != DIGITS)
        return NULL;
    *first = strtoull(name + len + 1, &end, 10);
    return end;
}

void rs_journal_kept_open(struct rs_journal *j, struct rs_store *store)
{
    struct stat st;
    uint64_t first;
    int fd = openat(rs_store_folder(store), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
    if (folder == NULL) {
        rs_cleanup_close(&fd);
        return;
    }
    for (const struct dirent *e; (e = readdir(folder)) != NULL;) {
        const char *rest = after_number(j, e->d_name, &first);
        if (rest == NULL) continue;
        if (strcmp(rest, FRESH) == 0) (void)unlinkat(fd, e->d_name, 0); /* a crash left it */
        if (*rest == '\0' && fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            (void)list_add(j, first, (uint64_t)st.st_size);
    }
    (void)closedir(folder);
}

void rs_journal_kept_close(struct rs_journal *j)
{
    while (j->nclosed != 0) list_remove(j, j->nclosed - 1);
    free(j->closed);
    j->closed = NULL;
}

/* ---- lines in a file ------------------------------------------------------------------------- */

/* {"n":17,... 0: it is no line of a journal. */
static uint64_t number_of(const char *line, size_t len)
{
    static const char head[] = "{\"n\":";
    uint64_t n = 0;
    if (len < sizeof(head) || memcmp(line, head, sizeof(head) - 1) != 0) return 0;
    size_t i = sizeof(head) - 1;
    for (; i < len && isdigit((unsigned char)line[i]); i++) n = n * 10 + (uint64_t)(line[i] - '0');
    return i < len ? n : 0; /* it may go on */
}

/* What stands behind j->owner, which cannot stand inside a text: its quotes would have backslashes. */
static void owner_of(const struct rs_journal *j, const char *line, size_t len, char out[64])
{
    const char *at = j->owner != NULL ? memmem(line, len, j->owner, strlen(j->owner)) : NULL;
    size_t n = 0;
    if (at != NULL)
        for (at += strlen(j->owner); at + n < line + len && n < 63 && at[n] != ',' && at[n] != '"'; n++)
            out[n] = at[n];
    out[n] = '\0';
}

static bool read_all(int folder, const char *name, struct text *out)
{
    struct stat st;
    RS_CLOSE int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    *out = (struct text){0};
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MOST) return false;
    out->len = (size_t)st.st_size;
    out->at = malloc(out->len + 1);
    if (out->at == NULL || rs_pread_full(fd, out->at, out->len, 0) != 0) return false;
    return true;
}

/* The line at `at` with its line feed; what has none is one too. */
static size_t line_len(const char *at, const char *end)
{
    const char *feed = memchr(at, '\n', (size_t)(end - at));
    return feed != NULL ? (size_t)(feed - at) + 1 : (size_t)(end - at);
}

/* The whole file anew: the old or the new one is there whatever happens. */
static bool write_back(int folder, const char *name, const struct text *t)
{
    char fresh[RS_JOURNAL_NAME + 8];
    if (t->len == 0) return unlinkat(folder, name, 0) == 0;
    (void)snprintf(fresh, sizeof(fresh), "%s" FRESH, name);
    RS_CLOSE int fd = openat(folder, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0 && rs_write_full(fd, t->at, t->len) == 0 && fdatasync(fd) == 0 &&
        renameat(folder, fresh, folder, name) == 0)
        return true;
    (void)unlinkat(folder, fresh, 0);
    return false;
}

/* ---- who has how much -------------------------------------------------------------------------- */

static struct rs_journal_share *share_of(struct rs_journal_file *f, const char *owner)
{
    for (unsigned i = 0; i < f->nshares; i++)
        if (strcmp(f->shares[i].owner, owner) == 0) return &f->shares[i];
    struct rs_journal_share *more = reallocarray(f->shares, f->nshares + 1, sizeof(*more));
    if (more == NULL) return NULL;
    f->shares = more;
    more[f->nshares] = (struct rs_journal_share){0};
    (void)snprintf(more[f->nshares].owner, sizeof(more->owner), "%s", owner);
    return &more[f->nshares++];
}

static void count(const struct rs_journal *j, struct rs_journal_file *f, const struct text *t)
{
    struct rs_journal_share *s = NULL;
    char owner[64];
    free(f->shares);
    f->shares = NULL;
    f->nshares = 0;
    f->counted = true;
    f->bytes = t->len;
    for (const char *at = t->at, *end = t->at + t->len; at < end;) {
        size_t len = line_len(at, end);
        owner_of(j, at, len, owner);
        if (s == NULL || strcmp(s->owner, owner) != 0) s = share_of(f, owner);
        if (s != NULL) s->bytes += len;
        at += len;
    }
}

static int by_owner(const void *a, const void *b)
{
    const struct rs_journal_share *x = a, *y = b;
    return strcmp(x->owner, y->owner);
}

/* One that cannot be read has no owners, and no line of it goes. */
static void count_file(struct rs_journal *j, int folder, struct rs_journal_file *f)
{
    char name[RS_JOURNAL_NAME];
    struct text t;
    rs_journal_kept_name(j, f->first, name);
    if (read_all(folder, name, &t)) count(j, f, &t);
    f->counted = true;
    free(t.at);
}

bool rs_journal_kept_count(struct rs_journal *j, struct rs_store *store)
{
    unsigned i = 0;
    while (i < j->nclosed && j->closed[i].counted) i++;
    if (store == NULL || i == j->nclosed) return false;
    count_file(j, rs_store_folder(store), &j->closed[i]);
    return true;
}

/* Adds all up, one row for each owner, sorted. NULL: no memory. */
static struct rs_journal_share *all_shares(const struct rs_journal *j, unsigned *n)
{
    size_t room = 1, rows = 0;
    for (unsigned i = 0; i < j->nclosed; i++) room += j->closed[i].nshares;
    struct rs_journal_share *all = calloc(room, sizeof(*all));
    if (all == NULL) return NULL;
    for (unsigned i = 0; i < j->nclosed; rows += j->closed[i++].nshares)
        if (j->closed[i].nshares != 0)
            memcpy(all + rows, j->closed[i].shares, j->closed[i].nshares * sizeof(*all));
    qsort(all, rows, sizeof(*all), by_owner);
    *n = 0;
    for (size_t i = 0; i < rows; i++) {
        if (*n != 0 && strcmp(all[*n - 1].owner, all[i].owner) == 0)
            all[*n - 1].bytes += all[i].bytes;
        else
            all[(*n)++] = all[i];
    }
    return all;
}

/* ---- lines that go ------------------------------------------------------------------------------ */

struct trim {
    struct rs_journal *j;
    int folder;
    struct rs_journal_share *all;
    unsigned nall;
    uint64_t share; /* who has more than this may lose lines */
    uint64_t need;  /* bytes that must go yet */
};

static struct rs_journal_share *row_of(const struct trim *t, const char *owner)
{
    struct rs_journal_share key = {0};
    (void)snprintf(key.owner, sizeof(key.owner), "%s", owner);
    return bsearch(&key, t->all, t->nall, sizeof(key), by_owner);
}

static bool has_heavy(const struct trim *t, const struct rs_journal_file *f)
{
    for (unsigned i = 0; i < f->nshares; i++) {
        const struct rs_journal_share *row = row_of(t, f->shares[i].owner);
        if (row != NULL && row->bytes > t->share) return true;
    }
    return false;
}

static void note_dropped(struct rs_journal *j, const char *owner, uint64_t lines)
{
    if (lines == 0) return;
    j->dropped += lines;
    (void)snprintf(j->dropped_of, sizeof(j->dropped_of), "%s", owner);
}

/* Takes lines out of a text, from its beginning, until no more have to go. */
static uint64_t thin_text(struct trim *t, struct text *x, char last[64])
{
    char *to = x->at, owner[64];
    uint64_t lines = 0;
    for (char *at = x->at, *end = x->at + x->len; at < end;) {
        size_t len = line_len(at, end);
        owner_of(t->j, at, len, owner);
        struct rs_journal_share *row = t->need != 0 ? row_of(t, owner) : NULL;
        if (row != NULL && row->bytes > t->share) {
            row->bytes -= RS_MIN(row->bytes, (uint64_t)len);
            t->need -= RS_MIN(t->need, (uint64_t)len);
            memcpy(last, owner, 64);
            lines++;
        } else {
            memmove(to, at, len);
            to += len;
        }
        at += len;
    }
    x->len = (size_t)(to - x->at);
    return lines;
}

/* False: it cannot be read or written; it stays as it is. */
static bool thin(struct trim *t, unsigned i)
{
    struct rs_journal_file *f = &t->j->closed[i];
    struct text x;
    char name[RS_JOURNAL_NAME], last[64] = "";
    rs_journal_kept_name(t->j, f->first, name);
    bool ok = read_all(t->folder, name, &x);
    uint64_t lines = ok ? thin_text(t, &x, last) : 0;
    ok = ok && write_back(t->folder, name, &x);
    if (ok) {
        note_dropped(t->j, last, lines);
        count(t->j, f, &x);
    }
    free(x.at);
    return ok;
}

/* Two neighbours become one file, under the name of the first; a crash leaves lines twice, and readers go by
 * their numbers. */
static bool join(struct rs_journal *j, int folder, unsigned i)
{
    char one[RS_JOURNAL_NAME], two[RS_JOURNAL_NAME];
    struct text a, b = {0};
    rs_journal_kept_name(j, j->closed[i].first, one);
    rs_journal_kept_name(j, j->closed[i + 1].first, two);
    bool ok = read_all(folder, one, &a) && read_all(folder, two, &b);
    char *both = ok ? realloc(a.at, a.len + b.len + 1) : NULL;
    if (both != NULL) {
        memcpy(both + a.len, b.at, b.len);
        a = (struct text){both, a.len + b.len};
    }
    ok = both != NULL && write_back(folder, one, &a) && unlinkat(folder, two, 0) == 0;
    if (ok) {
        count(j, &j->closed[i], &a);
        list_remove(j, i + 1);
    }
    free(a.at);
    free(b.at);
    return ok;
}

/* So that thinned files do not become many. */
static void join_small(struct rs_journal *j, int folder)
{
    for (unsigned i = 0; i + 1 < j->nclosed;)
        if (j->closed[i].bytes + j->closed[i + 1].bytes > rs_journal_file_max(j) || !join(j, folder, i)) i++;
}

static void trim(struct rs_journal *j, int folder)
{
    uint64_t keep = j->keep != 0 ? j->keep : RS_JOURNAL_KEEP, total = 0;
    uint64_t room = keep - RS_MIN(keep, rs_journal_file_max(j)); /* the open file may become as long */
    for (unsigned i = 0; i < j->nclosed; i++) {
        if (!j->closed[i].counted) return; /* a later rotation does it: nobody waits until all are read */
        total += j->closed[i].bytes;
    }
    if (total <= room) return;
    struct trim t = {.j = j, .folder = folder, .need = total - room};
    t.all = all_shares(j, &t.nall);
    t.share = room / RS_MAX(t.nall, 1u);
    for (unsigned i = 0; i < j->nclosed && t.all != NULL && t.need != 0;) {
        if (has_heavy(&t, &j->closed[i]) && !thin(&t, i)) break; /* the next rotation tries again */
        if (j->closed[i].bytes == 0)
            list_remove(j, i);
        else
            i++;
    }
    free(t.all);
    join_small(j, folder);
}

void rs_journal_kept_add(struct rs_journal *j, int folder)
{
    char head[64] = "", name[RS_JOURNAL_NAME];
    struct stat st;
    RS_CLOSE int fd = openat(folder, j->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd >= 0 ? pread(fd, head, sizeof(head), 0) : -1;
    uint64_t first = n > 0 ? number_of(head, (size_t)n) : 0;
    if (first == 0) first = j->written; /* damaged from its first line on */
    rs_journal_kept_name(j, first, name);
    if (n < 0 || fstat(fd, &st) != 0 || renameat(folder, j->name, folder, name) != 0) return;
    if (list_add(j, first, (uint64_t)st.st_size)) count_file(j, folder, &j->closed[j->nclosed - 1]);
    trim(j, folder);
}

/* ---- reading -------------------------------------------------------------------------------------- */

#define CHUNK ((size_t)64 << 10)

struct look {
    const struct rs_journal *j;
    uint64_t after; /* all lines up to this one were looked at */
    size_t budget;
    bool reached; /* the first that is in memory */
    rs_journal_each *each;
    void *arg;
};

/* The beginning of a line, not behind the first one that is looked for. */
static uint64_t start_in(int fd, uint64_t size, uint64_t after)
{
    char part[2 * RS_JOURNAL_LINE];
    uint64_t low = 0, high = size;
    while (high - low > sizeof(part)) {
        uint64_t middle = low + (high - low) / 2;
        ssize_t n = pread(fd, part, sizeof(part), (off_t)middle);
        const char *feed = n > 0 ? memchr(part, '\n', (size_t)n) : NULL;
        uint64_t number = feed != NULL ? number_of(feed + 1, (size_t)(part + n - feed - 1)) : 0;
        if (number == 0) break; /* damaged here: from `low` on, then */
        if (number > after)
            high = middle;
        else
            low = middle + (uint64_t)(feed - part) + 1;
    }
    return low;
}

/* False: enough for now, or the rest is in memory. */
static bool look_at_lines(struct look *l, const char *text, size_t len)
{
    for (const char *at = text, *end = text + len; at < end;) {
        size_t n = line_len(at, end);
        uint64_t number = number_of(at, n);
        l->reached = number >= l->j->first;
        if (l->reached) return false;
        if (number > l->after) {
            l->after = number;
            l->budget -= RS_MIN(l->budget, n);
            if (!l->each(l->arg, at, n) || l->budget == 0) return false;
        }
        at += n;
    }
    return true;
}

static bool look_at_file(struct look *l, int folder, const char *name, char *chunk)
{
    struct stat st;
    RS_CLOSE int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return true;
    for (uint64_t at = start_in(fd, (uint64_t)st.st_size, l->after);;) {
        ssize_t n = pread(fd, chunk, CHUNK, (off_t)at);
        const char *feed = n > 0 ? memrchr(chunk, '\n', (size_t)n) : NULL;
        if (feed == NULL) return true; /* its end, or nothing of ours */
        size_t len = (size_t)(feed - chunk) + 1;
        if (!look_at_lines(l, chunk, len)) return false;
        at += len;
    }
}

uint64_t rs_journal_look(const struct rs_journal *j, struct rs_store *store, uint64_t after,
                         rs_journal_each *each, void *arg)
{
    struct look l = {.j = j, .after = after, .budget = RS_JOURNAL_SCAN, .each = each, .arg = arg};
    char name[RS_JOURNAL_NAME];
    unsigned i = 0;
    if (store == NULL || after + 1 >= j->first) return after;
    RS_FREE char *chunk = malloc(CHUNK);
    while (i + 1 < j->nclosed && j->closed[i + 1].first <= after + 1) i++;
    bool more = chunk != NULL;
    for (; more && i < j->nclosed; i++) {
        rs_journal_kept_name(j, j->closed[i].first, name);
        more = look_at_file(&l, rs_store_folder(store), name, chunk);
    }
    if (more) more = look_at_file(&l, rs_store_folder(store), j->name, chunk);
    return more || l.reached ? j->first - 1 : l.after;
}
