/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/intent.h"

#include "offload/vm/disk.h"
#include "offload/vm/qcow2-served.h"
#include "offload/vm/state.h"

#include "reseal/reseal.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUFFIX       ".reseal-intent"
#define INTENT_MAX   (1u << 20)
#define HEADER_MAX   (64u << 20)
#define HEADER_FIRST 4096u

/* Of LUKS headers: magic and version, and the UUID, which both versions have at the same place. */
#define LUKS_MAGIC_LEN 8u
#define LUKS_UUID_AT   168u
#define LUKS_UUID_LEN  40u

static const char *const kinds[] = {"rename", "header", "remove", "header-qcow2"};

void rs_intent_step(const char *name)
{
    static unsigned count;
    const char *at = getenv("RESEAL_VM_STOP_AT");
    count++;
    if (at == NULL) return;
    if (strcmp(at, name) == 0 || (at[0] == '#' && strtoul(at + 1, NULL, 10) == count)) (void)raise(SIGKILL);
}

/* ---- the file ----------------------------------------------------------------------- */

/* Waits for all of them; the first error, and its action. */
static int close_images(struct rs_intent *i, size_t *which)
{
    size_t n = i->images == NULL ? 0 : json_array_size(json_object_get(i->root, "actions"));
    int code = 0;
    for (size_t k = 0; k < n; k++) rs_qcow2_put_over(i->images[k]);
    for (size_t k = 0; k < n; k++) {
        int e = rs_qcow2_put_end(i->images[k]);
        if (e == 0 || code != 0) continue;
        code = e;
        *which = k;
    }
    free(i->images);
    i->images = NULL;
    return code;
}

void rs_intent_free(struct rs_intent *i)
{
    size_t which;
    (void)close_images(i, &which);
    json_decref(i->root);
    i->root = NULL;
}

int rs_intent_new(const struct rs_vm *vm, const char *operation, struct rs_intent *out)
{
    out->kept[0] = '\0';
    out->images = NULL;
    out->root = json_pack("{s:i, s:s, s:s, s:{}, s:{}, s:[]}", "version", 1, "operation", operation, "state",
                          "staging", "with", "done", "actions");
    if (out->root == NULL) return RESEAL_ENOMEM;
    return rs_vm_path(vm, SUFFIX, out->path) ? 0 : RESEAL_EIO;
}

static bool is_whole(const json_t *root)
{
    const json_t *list = json_object_get(root, "actions");
    const char *state = json_string_value(json_object_get(root, "state"));
    if (json_integer_value(json_object_get(root, "version")) != 1 || state == NULL || !json_is_array(list) ||
        (strcmp(state, "staging") != 0 && strcmp(state, "commit") != 0) ||
        !json_is_string(json_object_get(root, "operation")) ||
        !json_is_object(json_object_get(root, "with")) || !json_is_object(json_object_get(root, "done")))
        return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *a = json_array_get(list, i);
        if (!json_is_string(json_object_get(a, "kind")) || !json_is_string(json_object_get(a, "from")) ||
            !json_is_string(json_object_get(a, "to")))
            return false;
    }
    return true;
}

int rs_intent_load(const struct rs_vm *vm, struct rs_intent *out, char *why, size_t why_len)
{
    RS_FREE char *text = NULL;
    size_t len = 0;
    out->root = NULL;
    out->kept[0] = '\0';
    out->images = NULL;
    if (!rs_vm_path(vm, SUFFIX, out->path)) return RESEAL_ENOKEY;
    int code = rs_vm_read_own_file(out->path, INTENT_MAX, &text, &len);
    if (code == RESEAL_EIO && errno == ENOENT) return RESEAL_ENOKEY;
    if (code == RESEAL_EIO)
        return rs_vm_refuse(code, why, why_len, "cannot read %s: %s", out->path, strerror(errno));
    if (code == RESEAL_EPERM)
        return rs_vm_refuse(RESEAL_EPERM, why, why_len,
                            "%s is not yours alone: run the command as its owner, or see who put it there",
                            out->path);
    out->root = code != 0 ? NULL : json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    if (out->root != NULL && is_whole(out->root)) return 0;
    rs_intent_free(out);
    return rs_vm_refuse(RESEAL_EFORMAT, why, why_len,
                        "%s cannot be read: look what it is, move it away if no command was interrupted",
                        out->path);
}

int rs_intent_save(const struct rs_intent *i)
{
    RS_FREE char *text = json_dumps(i->root, JSON_INDENT(1) | JSON_SORT_KEYS);
    if (text == NULL) return RESEAL_ENOMEM;
    int code = rs_vm_replace_file(i->path, text, strlen(text));
    if (code == 0) return 0;
    errno = -code;
    return RESEAL_EIO;
}

/* ---- what it says ------------------------------------------------------------------- */

const char *rs_intent_operation(const struct rs_intent *i)
{
    return json_string_value(json_object_get(i->root, "operation"));
}

bool rs_intent_is_commit(const struct rs_intent *i)
{
    return strcmp(json_string_value(json_object_get(i->root, "state")), "commit") == 0;
}

const char *rs_intent_get(const struct rs_intent *i, const char *name)
{
    return json_string_value(json_object_get(json_object_get(i->root, "with"), name));
}

int rs_intent_set(struct rs_intent *i, const char *name, const char *value)
{
    return json_object_set_new(json_object_get(i->root, "with"), name, json_string(value)) == 0
               ? 0
               : RESEAL_ENOMEM;
}

bool rs_intent_has(const struct rs_intent *i, const char *step)
{
    return json_object_get(json_object_get(i->root, "done"), step) != NULL;
}

bool rs_intent_has_any(const struct rs_intent *i, const char *prefix)
{
    const char *step;
    json_t *value;
    json_object_foreach(json_object_get(i->root, "done"), step, value)
    {
        if (strncmp(step, prefix, strlen(prefix)) == 0) return true;
    }
    return false;
}

int rs_intent_did(struct rs_intent *i, const char *step)
{
    if (json_object_set_new(json_object_get(i->root, "done"), step, json_true()) != 0) return RESEAL_ENOMEM;
    int code = rs_intent_save(i);
    rs_intent_step(step);
    return code;
}

int rs_intent_add(struct rs_intent *i, enum rs_intent_kind kind, const char *from, const char *to)
{
    json_t *a = json_pack("{s:s, s:s, s:s}", "kind", kinds[kind], "from", from, "to", to);
    return json_array_append_new(json_object_get(i->root, "actions"), a) == 0 ? 0 : RESEAL_ENOMEM;
}

/* ---- what others do meanwhile ------------------------------------------------------- */

#define STAMP_MAX 96

/* Tells a file that was written to from one that was not; empty: there is none. */
static void stamp_of(const char *path, char out[STAMP_MAX])
{
    struct stat st;
    out[0] = '\0';
    if (lstat(path, &st) != 0) return;
    (void)snprintf(out, STAMP_MAX, "%ju %jd %jd.%09ld %jd.%09ld", (uintmax_t)st.st_ino, (intmax_t)st.st_size,
                   (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (intmax_t)st.st_ctim.tv_sec,
                   st.st_ctim.tv_nsec);
}

static bool is_kind(const json_t *a, enum rs_intent_kind kind)
{
    return strcmp(json_string_value(json_object_get(a, "kind")), kinds[kind]) == 0;
}

int rs_intent_watch(struct rs_intent *i)
{
    size_t k;
    json_t *a;
    json_array_foreach(json_object_get(i->root, "actions"), k, a)
    {
        char now[STAMP_MAX];
        if (!is_kind(a, RS_INTENT_RENAME)) continue;
        stamp_of(json_string_value(json_object_get(a, "to")), now);
        if (json_object_set_new(a, "was", json_string(now)) != 0) return RESEAL_ENOMEM;
    }
    return 0;
}

static bool was_changed(const json_t *a)
{
    const char *was = json_string_value(json_object_get(a, "was"));
    char now[STAMP_MAX];
    if (was == NULL) return false;
    stamp_of(json_string_value(json_object_get(a, "to")), now);
    return strcmp(was, now) != 0;
}

const char *rs_intent_changed(const struct rs_intent *i)
{
    size_t k;
    json_t *a;
    json_array_foreach(json_object_get(i->root, "actions"), k, a)
    {
        if (was_changed(a)) return json_string_value(json_object_get(a, "to"));
    }
    return NULL;
}

/* ---- carrying it out ---------------------------------------------------------------- */

static int sync_folder_of(const char *path)
{
    char copy[PATH_MAX];
    (void)snprintf(copy, sizeof(copy), "%s", path);
    return rs_vm_sync_folder(dirname(copy));
}

/* A name that is gone was changed already. */
static int do_rename(const char *from, const char *to)
{
    if (rename(from, to) != 0 && errno != ENOENT) return -errno;
    return sync_folder_of(to);
}

static int do_remove(const char *path)
{
    if (unlink(path) != 0 && errno != ENOENT) return -errno;
    return sync_folder_of(path);
}

/* The first block last: until then the old header counts, or its second copy. */
static int write_header(int fd, const char *bytes, size_t len)
{
    size_t first = RS_MIN(len, (size_t)HEADER_FIRST);
    int code = len > first ? rs_pwrite_full(fd, bytes + first, len - first, first) : 0;
    if (code == 0 && fdatasync(fd) != 0) code = -errno;
    if (code == 0) code = rs_pwrite_full(fd, bytes, first, 0);
    return code == 0 && fsync(fd) != 0 ? -errno : code;
}

/* What a link in its place leads to must not get into an image: that can be another user's. */
static int read_staged(const char *from, char **bytes, size_t *len)
{
    int code = rs_vm_read_made_file(from, HEADER_MAX, bytes, len);
    return code == RESEAL_EIO ? -errno : code != 0 ? -EIO : 0;
}

/* The file still begins with a header of the same version and UUID: by the same name there could be another
 * file by now. */
static bool is_of_disk(int fd, const char *bytes, size_t len)
{
    char now[LUKS_UUID_AT + LUKS_UUID_LEN];
    return len >= sizeof(now) && rs_pread_full(fd, now, sizeof(now), 0) == 0 &&
           memcmp(now, bytes, LUKS_MAGIC_LEN) == 0 &&
           strncmp(now + LUKS_UUID_AT, bytes + LUKS_UUID_AT, LUKS_UUID_LEN) == 0;
}

static int do_header(const char *from, const char *to)
{
    RS_FREE char *bytes = NULL;
    size_t len = 0;
    int code = read_staged(from, &bytes, &len);
    if (code != 0) return code == -ENOENT ? 0 : code;
    RS_CLOSE int fd = open(to, O_RDWR | O_CLOEXEC);
    if (fd < 0) return -errno;
    code = is_of_disk(fd, bytes, len) ? write_header(fd, bytes, len) : -ESTALE;
    return code == 0 ? do_remove(from) : code;
}

/* One that was made ready; the file is gone when an earlier run put it there. */
static int do_header_in_qcow2(const char *from, struct rs_qcow2_put *image)
{
    RS_FREE char *bytes = NULL;
    size_t len = 0;
    int code = read_staged(from, &bytes, &len);
    if (code != 0) return code == -ENOENT ? 0 : code;
    code = image == NULL ? -EIO : rs_qcow2_put(image, bytes, len);
    return code == 0 ? do_remove(from) : code;
}

static int act(const json_t *a, struct rs_qcow2_put *image)
{
    const char *from = json_string_value(json_object_get(a, "from"));
    const char *to = json_string_value(json_object_get(a, "to"));
    if (is_kind(a, RS_INTENT_RENAME)) return do_rename(from, to);
    if (is_kind(a, RS_INTENT_HEADER)) return do_header(from, to);
    if (is_kind(a, RS_INTENT_REMOVE)) return do_remove(to);
    if (is_kind(a, RS_INTENT_HEADER_QCOW2)) return do_header_in_qcow2(from, image);
    return -EINVAL;
}

/* ---- images that get a header ------------------------------------------------------- */

static int image_failed(const struct rs_intent *i, const json_t *a, int code, char *why, size_t why_len)
{
    char line[RS_VM_WHY];
    (void)snprintf(line, sizeof(line), "%s", why);
    return rs_vm_refuse(code, why, why_len, "cannot change %s: %.500s%s",
                        json_string_value(json_object_get(a, "to")), line,
                        rs_intent_is_commit(i) ? ": run the same command again" : "");
}

static bool gets_header(const json_t *a)
{
    return is_kind(a, RS_INTENT_HEADER_QCOW2) &&
           access(json_string_value(json_object_get(a, "from")), F_OK) == 0;
}

/* Each is a program that has to start: they start together. */
int rs_intent_open_images(struct rs_intent *i, char *why, size_t why_len)
{
    const json_t *list = json_object_get(i->root, "actions");
    size_t n = json_array_size(list);
    if (i->images != NULL || n == 0) return 0;
    i->images = calloc(n, sizeof(struct rs_qcow2_put *));
    if (i->images == NULL) return rs_vm_refuse(RESEAL_ENOMEM, why, why_len, "out of memory");
    for (size_t k = 0; k < n; k++) {
        const json_t *a = json_array_get(list, k);
        const char *to = json_string_value(json_object_get(a, "to"));
        int code = gets_header(a) ? rs_qcow2_put_begin(&i->images[k], to, why, why_len) : 0;
        if (code != 0) return image_failed(i, a, code, why, why_len);
    }
    for (size_t k = 0; k < n; k++) {
        if (i->images[k] == NULL) continue;
        int code = rs_qcow2_put_ready(i->images[k], why, why_len);
        if (code != 0) return image_failed(i, json_array_get(list, k), code, why, why_len);
    }
    return 0;
}

/* ---- commit ------------------------------------------------------------------------- */

#define KEPT ".reseal-kept"

static bool same_file(const char *a, const char *b)
{
    struct stat one, two;
    return lstat(a, &one) == 0 && lstat(b, &two) == 0 && one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

/* In the last step too, a file that goes would take along what was written after the copy was made of it: it
 * stays, under another name. */
static int keep_old(struct rs_intent *i, const json_t *a, char *why, size_t why_len)
{
    const char *from = json_string_value(json_object_get(a, "from"));
    const char *to = json_string_value(json_object_get(a, "to"));
    if (!is_kind(a, RS_INTENT_RENAME) || access(from, F_OK) != 0 || access(to, F_OK) != 0) return 0;
    if (rs_vm_image_is_written(to))
        return rs_vm_refuse(
            RESEAL_EBUSY, why, why_len,
            "%s is in use by another program: shut that down, then run the same command again", to);
    if (!was_changed(a)) return 0;
    int n = snprintf(i->kept, sizeof(i->kept), "%s" KEPT, to);
    int code = n <= 0 || (size_t)n >= sizeof(i->kept)                              ? -ENAMETOOLONG
               : link(to, i->kept) == 0 || same_file(to, i->kept)                  ? 0
               : errno == EEXIST                                                   ? -EEXIST
               : renameat2(AT_FDCWD, to, AT_FDCWD, i->kept, RENAME_NOREPLACE) == 0 ? 0
                                                                                   : -errno;
    return code == 0 ? 0
                     : rs_vm_refuse(RESEAL_EIO, why, why_len,
                                    "%s was written to after it was copied, and cannot be kept as %s: %s", to,
                                    i->kept, strerror(-code));
}

/* The file that a new one takes after: what it replaces, or, of a header beside it, the disk. */
static bool model_of(const char *to, char out[PATH_MAX])
{
    (void)snprintf(out, PATH_MAX, "%s", to);
    if (access(out, F_OK) != 0 && rs_vm_has_suffix(out, RS_DISK_HEADER))
        out[strlen(out) - strlen(RS_DISK_HEADER)] = '\0';
    return access(out, F_OK) == 0;
}

static int take_after(const json_t *list)
{
    for (size_t k = 0; k < json_array_size(list); k++) {
        const json_t *a = json_array_get(list, k);
        char model[PATH_MAX];
        if (!is_kind(a, RS_INTENT_RENAME) || !model_of(json_string_value(json_object_get(a, "to")), model))
            continue;
        int code = rs_vm_take_after(json_string_value(json_object_get(a, "from")), model);
        if (code != 0) return code;
    }
    return 0;
}

static int commit_failed(const char *path, int error, char *why, size_t why_len)
{
    return rs_vm_refuse(RESEAL_EIO, why, why_len, "cannot change %s: %s: run the same command again", path,
                        strerror(-error));
}

/* What was staged must be there as a whole before anything old is touched. */
static const char *missing(const json_t *list)
{
    for (size_t k = 0; k < json_array_size(list); k++) {
        const json_t *a = json_array_get(list, k);
        const char *from = json_string_value(json_object_get(a, "from"));
        if (is_kind(a, RS_INTENT_REMOVE)) continue;
        if (access(from, F_OK) != 0) return from;
    }
    return NULL;
}

/* The point of return. */
static int begin_commit(struct rs_intent *i, char *why, size_t why_len)
{
    const json_t *list = json_object_get(i->root, "actions");
    const char *path = missing(list);
    if (path != NULL)
        return rs_vm_refuse(RESEAL_EIO, why, why_len,
                            "%s, which was made for this change, is gone: start over after reseal vm repair "
                            "--abandon",
                            path);
    int code = take_after(list);
    if (code != 0) return commit_failed(i->path, code, why, why_len);
    path = rs_intent_changed(i);
    if (path != NULL)
        return rs_vm_refuse(
            RESEAL_EBUSY, why, why_len,
            "%s was written to by another program while it was copied: shut that down, then run "
            "the same command again, which begins anew",
            path);
    json_object_set_new(i->root, "state", json_string("commit"));
    return rs_intent_save(i) == 0 ? 0 : commit_failed(i->path, -errno, why, why_len);
}

int rs_intent_commit(struct rs_intent *i, char *why, size_t why_len)
{
    const json_t *list = json_object_get(i->root, "actions");
    int code = rs_intent_open_images(i, why, why_len);
    if (code == 0 && !rs_intent_is_commit(i)) code = begin_commit(i, why, why_len);
    if (code != 0) return code;
    rs_intent_step("commit");
    size_t k = 0;
    for (; k < json_array_size(list); k++) {
        const json_t *a = json_array_get(list, k);
        code = keep_old(i, a, why, why_len);
        if (code != 0) return code;
        code = act(a, i->images == NULL ? NULL : i->images[k]);
        if (code != 0) return commit_failed(json_string_value(json_object_get(a, "to")), code, why, why_len);
        rs_intent_step(json_string_value(json_object_get(a, "kind")));
    }
    code = close_images(i, &k);
    if (code == 0) return 0;
    return commit_failed(json_string_value(json_object_get(json_array_get(list, k), "to")), code, why,
                         why_len);
}

int rs_intent_end(const char *path, char *why, size_t why_len)
{
    int code = do_remove(path);
    if (code != 0) return commit_failed(path, code, why, why_len);
    rs_intent_step("end");
    return 0;
}

int rs_intent_abandon(struct rs_intent *i, char *why, size_t why_len)
{
    if (rs_intent_is_commit(i))
        return rs_vm_refuse(RESEAL_EBUSY, why, why_len,
                            "the interrupted %s is past the point of return: run it again to finish it",
                            rs_intent_operation(i));
    const json_t *list = json_object_get(i->root, "actions");
    int code = 0;
    for (size_t k = 0; code == 0 && k < json_array_size(list); k++) {
        const char *from = json_string_value(json_object_get(json_array_get(list, k), "from"));
        char state[PATH_MAX];
        if (from[0] == '\0') continue;
        code = do_remove(from);
        /* That of a copy that was not done, and an image that was not made. */
        static const char *const suffixes[] = {".reseal-state", ".part"};
        for (unsigned j = 0; code == 0 && j < RS_ARRAY_LEN(suffixes); j++) {
            int n = snprintf(state, sizeof(state), "%s%s", from, suffixes[j]);
            if (n > 0 && (size_t)n < sizeof(state)) code = do_remove(state);
        }
    }
    if (code == 0) code = do_remove(i->path);
    return code == 0
               ? 0
               : rs_vm_refuse(RESEAL_EIO, why, why_len, "cannot remove what was begun: %s", strerror(-code));
}
