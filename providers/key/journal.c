/* SPDX-License-Identifier: Apache-2.0 */
/* A journal: numbered lines of JSON in a file of the store, the last of them in memory. */
#include "providers/key/journal.h"

#include "providers/key/journal-kept.h"
#include "providers/key/store.h"
#include "reseal/reseal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NESTING 4u
#define MEMBERS 32u
#define AT_ONCE ((size_t)64 << 10) /* bytes of lines in one write */

/* ---- texts ------------------------------------------------------------------------- */

/* Cuts at `max` bytes, not in the middle of a character; nothing in it for a terminal to obey. */
json_t *rs_journal_text(const char *text, size_t max)
{
    size_t len = strnlen(text, max);
    RS_FREE char *copy = strndup(text, len);
    if (copy == NULL) return NULL;
    if (text[len] != '\0')
        while (len != 0 && ((unsigned char)text[len] & 0xc0) == 0x80) len--;
    copy[len] = '\0';
    for (char *c = copy; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
    json_t *string = json_string(copy);
    if (string != NULL) return string;
    for (char *c = copy; *c != '\0'; c++) /* not UTF-8 */
        if ((unsigned char)*c > '~') *c = '?';
    return json_string(copy);
}

/* A copy with every text cut and cleaned; deep and long ones are left out. */
json_t *rs_journal_details(const json_t *value, unsigned depth)
{
    const char *name;
    json_t *member, *out;
    size_t i;
    if (json_is_string(value)) return rs_journal_text(json_string_value(value), RS_JOURNAL_TEXT);
    if (json_is_number(value) || json_is_boolean(value)) return json_deep_copy(value);
    if (depth >= NESTING) return NULL;
    if (json_is_array(value)) {
        out = json_array();
        json_array_foreach(value, i, member)
        {
            if (i < MEMBERS) (void)json_array_append_new(out, rs_journal_details(member, depth + 1));
        }
        return out;
    }
    if (!json_is_object(value)) return NULL;
    out = json_object();
    json_object_foreach((json_t *)(uintptr_t)value, name, member)
    {
        if (json_object_size(out) < MEMBERS && strlen(name) < 64)
            (void)json_object_set_new(out, name, rs_journal_details(member, depth + 1));
    }
    return out;
}

/* "2026-11-22T00:11:47.123Z" */
static void time_text(char out[32])
{
    struct timespec now;
    struct tm tm;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(out + n, 32 - n, ".%03uZ", (unsigned)(now.tv_nsec / 1000000) % 1000u);
}

/* ---- files ------------------------------------------------------------------------- */

/* Lines that were not flushed are, since a flush is of the file that has the name. */
static void rotate(struct rs_journal *j, int folder)
{
    if (fdatasync(j->fd) != 0) j->failure = RESEAL_EIO;
    rs_cleanup_close(&j->fd);
    rs_journal_kept_add(j, folder);
    j->file_bytes = 0;
}

static void failed(struct rs_journal *j, int failure)
{
    if (j->failure == 0)
        (void)fprintf(stderr,
                      "reseal-keyd: %s cannot be written (%s): make room in its folder; lines stay in "
                      "memory meanwhile\n",
                      j->name, failure == RESEAL_ESPACE ? "no space left" : reseal_strerror(failure));
    j->failure = failure;
}

static void works(struct rs_journal *j)
{
    if (j->failure != 0) (void)fprintf(stderr, "reseal-keyd: %s is written again\n", j->name);
    j->failure = 0;
}

/* Opens the file, unless it is open and still the one that has the name, with nothing in it that is not ours.
 */
static int open_file(struct rs_journal *j, struct rs_store *store)
{
    struct stat st;
    if (j->fd >= 0 && fstatat(rs_store_folder(store), j->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        st.st_ino == j->inode && (uint64_t)st.st_size == j->file_bytes)
        return 0;
    rs_cleanup_close(&j->fd);
    int r = rs_store_lines(store, j->name, &j->fd, &j->file_bytes);
    if (r == 0 && fstat(j->fd, &st) != 0) r = RESEAL_EIO;
    if (r == 0) j->inode = st.st_ino;
    return r;
}

static const struct rs_journal_line *line_at(const struct rs_journal *j, uint64_t n)
{
    return &j->ring[n % RS_JOURNAL_RING];
}

/* Writes lines that wait, as many as one write takes; the first of them alone with `one`. */
static int append(struct rs_journal *j, struct rs_store *store, bool one)
{
    RS_FREE char *many = NULL;
    uint64_t first = j->written + 1, upto = first;
    size_t len = line_at(j, first)->len;
    uint64_t most = rs_journal_file_max(j);
    int r = open_file(j, store);
    if (r == 0 && j->file_bytes + len > most) {
        rotate(j, rs_store_folder(store));
        r = open_file(j, store);
    }
    if (r != 0) return r;
    if (!one && first < j->last) many = malloc(AT_ONCE);
    while (many != NULL && upto < j->last && len + line_at(j, upto + 1)->len <= AT_ONCE &&
           j->file_bytes + len + line_at(j, upto + 1)->len <= most)
        len += line_at(j, ++upto)->len;
    size_t at = 0;
    for (uint64_t n = first; many != NULL && n <= upto; at += line_at(j, n++)->len)
        memcpy(many + at, line_at(j, n)->text, line_at(j, n)->len);
    r = rs_store_add_lines(j->fd, j->file_bytes, many != NULL ? many : line_at(j, first)->text, len);
    if (r != 0) return r;
    j->written = upto;
    j->file_bytes += len;
    j->dirty = true;
    return 0;
}

int rs_journal_catch_up(struct rs_journal *j, struct rs_store *store)
{
    if (store == NULL) j->written = j->last;
    if (j->written + 1 < j->first) {
        j->lost += j->first - 1 - j->written;
        j->written = j->first - 1;
    }
    while (j->written < j->last) {
        int r = append(j, store, false);
        if (r != 0) r = append(j, store, true); /* there may be room for some of them */
        if (r != 0) {
            failed(j, r);
            return r;
        }
        if (j->written == j->last) works(j);
    }
    return j->failure;
}

void rs_journal_flushed(struct rs_journal *j, int failure)
{
    if (failure == 0 && j->written == j->last) works(j);
    if (failure == 0) return;
    failed(j, failure);
    j->dirty = true;
}

/* ---- lines -------------------------------------------------------------------------- */

static void keep(struct rs_journal *j, struct rs_journal_line *line)
{
    struct rs_journal_line *at = &j->ring[++j->last % RS_JOURNAL_RING];
    free(at->text);
    *at = *line;
    if (j->last - j->first >= RS_JOURNAL_RING) j->first = j->last - RS_JOURNAL_RING + 1;
}

static char *line_text(json_t *object, size_t *len)
{
    RS_FREE char *text = json_dumps(object, JSON_COMPACT);
    if (text == NULL || (*len = strlen(text)) + 1 >= RS_JOURNAL_LINE) return NULL;
    char *line = malloc(*len + 2);
    if (line == NULL) return NULL;
    memcpy(line, text, *len);
    memcpy(line + *len, "\n", 2);
    (*len)++;
    return line;
}

bool rs_journal_keep(struct rs_journal *j, struct rs_journal_line *line, json_t *members)
{
    char when[32];
    time_text(when);
    json_t *object = json_pack("{s:I, s:s}", "n", (json_int_t)(j->last + 1), "time", when);
    if (object != NULL && members != NULL) (void)json_object_update(object, members);
    line->text = object != NULL ? line_text(object, &line->len) : NULL;
    if (object != NULL && line->text == NULL) { /* too long: what happened counts more than its details */
        (void)json_object_set_new(object, "details", json_pack("{s:b}", "left_out", 1));
        line->text = line_text(object, &line->len);
    }
    json_decref(object);
    json_decref(members);
    if (line->text == NULL) return false;
    keep(j, line);
    return true;
}

bool rs_journal_write(struct rs_journal *j, struct rs_store *store, struct rs_journal_line *line,
                      json_t *members)
{
    if (!rs_journal_keep(j, line, members)) return false;
    (void)rs_journal_catch_up(j, store); /* j->failure says it */
    return true;
}

/* ---- what an earlier reseal-keyd wrote ------------------------------------------------- */

static void copy_text(const json_t *object, const char *member, char *out, size_t room)
{
    const char *text = json_string_value(json_object_get(object, member));
    (void)snprintf(out, room, "%s", text != NULL ? text : "");
}

json_t *rs_journal_parse(const struct rs_journal *j, const char *text, size_t len,
                         struct rs_journal_line *line)
{
    json_t *object = len < RS_JOURNAL_LINE ? json_loadb(text, len, 0, NULL) : NULL;
    *line = (struct rs_journal_line){.len = len};
    copy_text(object, "tenant", line->tenant, sizeof(line->tenant));
    copy_text(object, j->what, line->what, sizeof(line->what));
    line->uid = (uint32_t)json_integer_value(json_object_get(object, "uid"));
    return object;
}

/* Takes a line of the file, when it goes on from the one before it. */
static void take(struct rs_journal *j, const char *text, size_t len)
{
    struct rs_journal_line line;
    json_t *object = rs_journal_parse(j, text, len, &line);
    json_int_t n = json_integer_value(json_object_get(object, "n"));
    if (n > 0 && (uint64_t)n > j->last) line.text = malloc(len + 1);
    json_decref(object);
    if (line.text == NULL) return;
    memcpy(line.text, text, len);
    line.text[len] = '\0';
    if ((uint64_t)n != j->last + 1) rs_journal_empty(j, (uint64_t)n - 1);
    keep(j, &line);
}

/* The end of a file, from the beginning of a line. */
static char *tail_of(int folder, const char *name, size_t *len, uint64_t *size)
{
    const uint64_t room = (uint64_t)RS_JOURNAL_RING * 512;
    struct stat st;
    RS_CLOSE int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return NULL;
    *size = (uint64_t)st.st_size;
    *len = (size_t)RS_MIN(*size, room);
    char *text = malloc(*len + 1);
    if (text == NULL || rs_pread_full(fd, text, *len, *size - *len) != 0) {
        free(text);
        return NULL;
    }
    text[*len] = '\0';
    return text;
}

static void read_file(struct rs_journal *j, int folder, const char *name)
{
    size_t len = 0;
    uint64_t size = 0;
    RS_FREE char *text = tail_of(folder, name, &len, &size);
    if (text == NULL) return;
    if (strcmp(name, j->name) == 0) j->file_bytes = size;
    for (char *at = text, *end;
         at < text + len && (end = memchr(at, '\n', (size_t)(text + len - at))) != NULL; at = end + 1)
        take(j, at, (size_t)(end - at) + 1);
}

void rs_journal_read(struct rs_journal *j, struct rs_store *store)
{
    char name[RS_JOURNAL_NAME];
    if (store == NULL) return;
    rs_journal_kept_open(j, store);
    if (j->nclosed != 0) {
        rs_journal_kept_name(j, j->closed[j->nclosed - 1].first, name);
        read_file(j, rs_store_folder(store), name);
    }
    read_file(j, rs_store_folder(store), j->name);
    j->written = j->last;
}

void rs_journal_empty(struct rs_journal *j, uint64_t last)
{
    for (unsigned i = 0; i < RS_JOURNAL_RING; i++) {
        free(j->ring[i].text);
        j->ring[i] = (struct rs_journal_line){0};
    }
    j->last = j->written = last;
    j->first = last + 1;
}

void rs_journal_close(struct rs_journal *j)
{
    rs_journal_empty(j, 0);
    rs_journal_kept_close(j);
    rs_cleanup_close(&j->fd);
}
