/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/envelope-tasks.h"

#include "offload/base/keymem.h"
#include "providers/key/envelope.h"
#include "providers/key/source.h"
#include "providers/key/vm-home.h"
#include "reseal/reseal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE          ((size_t)1 << 20)
#define PHRASE_MAX     ((size_t)64 << 10)
#define FILE_DEADLINE  3600u /* seconds: 64 GiB at 20 MB/s */
#define QUICK_DEADLINE 60u

static const char *text_of(const struct rs_task *t, const char *name)
{
    const char *text = json_string_value(json_object_get(t->args, name));
    return text != NULL ? text : "";
}

/* ---- keys ----------------------------------------------------------------------------- */

/* What an envelope of ours names as its key. */
static const char *kind_of(const char *info)
{
    if (info == NULL) return "other";
    if (strncmp(info, RS_KEYINFO_HOST, sizeof(RS_KEYINFO_HOST) - 1) == 0) return "host";
    if (strcmp(info, RS_KEYINFO_BUNDLE) == 0) return "bundle";
    return strcmp(info, RS_KEYINFO_PHRASE) == 0 ? "phrase" : "other";
}

/* The file key of the bundle with this lock. */
static int bundle_key(struct rs_task *t, const char *lock, const char *secret, uint8_t key[RS_ENVELOPE_KEY])
{
    const struct rs_secret *kek = rs_secrets_find(t->secrets, secret);
    if (kek == NULL || kek->len != RS_HOME_KEK_LEN) return RESEAL_ENOKEY;
    return rs_bundle_open(json_object_get(t->args, lock), kek->bytes, key, t->why, sizeof(t->why));
}

/* The kept key that `info` names. */
static int kept_key(struct rs_task *t, const char *info, uint8_t key[RS_ENVELOPE_KEY])
{
    if (strcmp(info, RS_KEYINFO_BUNDLE) == 0) return bundle_key(t, "lock", "kek", key);
    const char *id = info + sizeof(RS_KEYINFO_HOST) - 1;
    const struct rs_secret *host = rs_secrets_find(t->secrets, id);
    if (host == NULL || host->len != RS_ENVELOPE_KEY)
        return rs_task_fail(
            t, RESEAL_ENOKEY,
            "the envelope was sealed by another host, or this host's keys were lost: its key %.32s is "
            "not here",
            id);
    memcpy(key, host->bytes, RS_ENVELOPE_KEY);
    return 0;
}

/* A pass phrase from a descriptor, and the key that it makes. */
static int phrase_key(struct rs_task *t, const struct rs_envelope *e, int fd, uint8_t key[RS_ENVELOPE_KEY])
{
    struct rs_secret_text phrase;
    int r = rs_secret_read(fd, PHRASE_MAX, &phrase);
    if (r != 0) return rs_task_fail(t, r, "cannot read the pass phrase, or it is longer than 64 KiB");
    if (phrase.len == 0)
        r = rs_task_fail(t, RESEAL_EINVAL, "the pass phrase is empty");
    else
        r = rs_envelope_phrase_key(e, (const char *)phrase.bytes, phrase.len, key);
    rs_secret_free(&phrase);
    if (r == RESEAL_EFORMAT || r == RESEAL_ECIPHER)
        return rs_task_fail(t, r, "envelope: attribute " RS_ENVELOPE_PASS2KEY " is missing or damaged");
    return r;
}

/* The file's key of an envelope that was loaded. */
static int opening_key(struct rs_task *t, const struct rs_envelope *e, uint8_t key[RS_ENVELOPE_KEY])
{
    const char *info = rs_envelope_text(e, RS_ENVELOPE_KEY_INFO), *want = text_of(t, "key");
    if (strcmp(kind_of(info), want) != 0)
        return rs_task_fail(t, RESEAL_EKEYBAD,
                            "the envelope is not sealed by what was given (%s), but by: %.64s", want,
                            info != NULL ? info : "a key of another program");
    if (strcmp(want, "phrase") == 0) return phrase_key(t, e, t->fds[2], key);
    int r = kept_key(t, info, key);
    return r != 0 ? r : rs_envelope_file_key(e, key, key);
}

/* ---- sealing -------------------------------------------------------------------------- */

bool rs_file_attribute_ok(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    size_t len = strlen(name);
    return len != 0 && len < 48 && strspn(name, allowed) == len && strncmp(name, "vmware.", 7) != 0 &&
           strncmp(name, "reseal.", 7) != 0;
}

static bool is_phrase(const struct rs_task *t)
{
    return strcmp(text_of(t, "keyInfo"), RS_KEYINFO_PHRASE) == 0;
}

static int put_attributes(struct rs_task *t, struct rs_envelope *e)
{
    const char *name;
    json_t *value;
    int r = rs_envelope_put_text(e, RS_ENVELOPE_KEY_INFO, text_of(t, "keyInfo"));
    if (r == 0) r = is_phrase(t) ? rs_envelope_put_phrase(e) : rs_envelope_put_salt(e);
    json_object_foreach((json_t *)(uintptr_t)json_object_get(t->args, "attributes"), name, value)
    {
        if (r == 0) r = rs_envelope_put_text(e, name, json_string_value(value));
    }
    return r;
}

static int cannot_write(struct rs_task *t, int status)
{
    if (status != RESEAL_EIO) return status;
    int error = errno;
    return rs_task_fail(t, RESEAL_EIO, "cannot write the file: %s%s", strerror(error),
                        error == ENOSPC || error == EDQUOT ? ": make room, then try again" : "");
}

/* Some bytes; 0: the end. -errno. Whoever gave the descriptor may have made it non-blocking. */
static ssize_t read_some(int fd, uint8_t *to, size_t len)
{
    for (;;) {
        ssize_t n = read(fd, to, len);
        if (n >= 0) return n;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (errno == EAGAIN)
            (void)poll(&p, 1, -1);
        else if (errno != EINTR)
            return -errno;
    }
}

/* From the descriptor into the envelope, up to `max` bytes. */
static int pump(struct rs_task *t, struct rs_envelope_seal *s, uint64_t max, uint64_t *bytes, bool *cut)
{
    uint8_t *room = rs_scratch_map(PIECE, NULL);
    int r = room != NULL ? 0 : RESEAL_ENOMEM;
    *bytes = 0;
    *cut = false;
    while (r == 0) {
        ssize_t n = read_some(t->fds[0], room, PIECE);
        if (n == 0) break;
        if (n < 0) {
            r = rs_task_fail(t, RESEAL_EIO, "cannot read what is to be sealed: %s", strerror((int)-n));
            break;
        }
        *cut = (uint64_t)n > max - *bytes;
        size_t len = *cut ? (size_t)(max - *bytes) : (size_t)n;
        r = rs_envelope_seal_write(s, room, len);
        if (r == RESEAL_ELIMIT)
            r = rs_task_fail(t, r, "longer than the 64 GiB that one envelope can hold");
        else if (r != 0)
            r = cannot_write(t, r);
        *bytes += len;
        if (*cut) break;
    }
    rs_scratch_unmap(room, PIECE);
    return r;
}

static int begin(struct rs_task *t, struct rs_envelope *e, const uint8_t key[RS_ENVELOPE_KEY],
                 struct rs_envelope_seal **s)
{
    int r = rs_envelope_seal_begin(e, key, text_of(t, "aad"), t->fds[1], s);
    if (r == RESEAL_ESPACE)
        return rs_task_fail(t, RESEAL_EINVAL, "attributes: more than the header of an envelope holds");
    return cannot_write(t, r);
}

static int run_seal(struct rs_task *t)
{
    RS_KEYMEM uint8_t *key = rs_keymem_alloc(RS_ENVELOPE_KEY);
    RS_FREE struct rs_envelope *e = malloc(sizeof(*e));
    struct rs_envelope_seal *s = NULL;
    json_int_t max = json_integer_value(json_object_get(t->args, "max"));
    uint64_t bytes = 0;
    bool cut = false;
    if (key == NULL || e == NULL) return RESEAL_ENOMEM;
    rs_envelope_new(e);
    int r = put_attributes(t, e);
    if (r == RESEAL_ESPACE || r == RESEAL_EINVAL)
        return rs_task_fail(t, RESEAL_EINVAL, "attributes: more than the header of an envelope holds");
    if (r == 0 && is_phrase(t)) {
        r = phrase_key(t, e, t->fds[2], key);
    } else if (r == 0) {
        r = kept_key(t, text_of(t, "keyInfo"), key);
        if (r == 0) r = rs_envelope_file_key(e, key, key);
    }
    if (r == 0) r = begin(t, e, key, &s);
    if (r == 0) r = pump(t, s, max > 0 ? (uint64_t)max : UINT64_MAX, &bytes, &cut);
    if (r == 0) r = cannot_write(t, rs_envelope_seal_end(s));
    rs_envelope_seal_free(s);
    if (r == 0) (void)json_object_set_new(t->result, "bytes", json_integer((json_int_t)bytes));
    if (r == 0) (void)json_object_set_new(t->result, "cut", json_boolean(cut));
    return r;
}

/* ---- opening -------------------------------------------------------------------------- */

static int to_file(void *arg, const uint8_t *text, size_t len)
{
    struct rs_task *t = arg;
    int r = rs_write_full(t->fds[1], text, len);
    errno = -r;
    return r == 0 ? 0 : cannot_write(t, RESEAL_EIO);
}

static int load(struct rs_task *t, struct rs_envelope_file *f)
{
    char why[RS_ENVELOPE_WHY] = "";
    int r = rs_envelope_load(f, t->fds[0], why);
    return r == 0 ? 0 : rs_task_fail(t, r, "%s", why);
}

/* A sink's own line stays. */
static int open_into(struct rs_task *t, const struct rs_envelope_file *f, const uint8_t key[RS_ENVELOPE_KEY],
                     rs_envelope_sink *sink, void *arg)
{
    char why[RS_ENVELOPE_WHY] = "";
    uint64_t len = 0;
    int r = rs_envelope_open(f, key, text_of(t, "aad"), sink, arg, &len, why);
    if (r == RESEAL_EKEYBAD && strcmp(text_of(t, "key"), "phrase") == 0)
        return rs_task_fail(t, RESEAL_EPASS, "wrong pass phrase");
    if (r != 0) return t->why[0] != '\0' ? r : rs_task_fail(t, r, "%s", why);
    (void)json_object_set_new(t->result, "bytes", json_integer((json_int_t)len));
    return 0;
}

static int run_open(struct rs_task *t)
{
    RS_KEYMEM uint8_t *key = rs_keymem_alloc(RS_ENVELOPE_KEY);
    RS_FREE struct rs_envelope_file *f = malloc(sizeof(*f));
    if (key == NULL || f == NULL) return RESEAL_ENOMEM;
    int r = load(t, f);
    if (r == 0) r = opening_key(t, &f->header, key);
    return r == 0 ? open_into(t, f, key, to_file, t) : r;
}

/* ---- another key ------------------------------------------------------------------------ */

struct rewrap {
    struct rs_task *t;
    struct rs_envelope_seal *s; /* begun with the first piece: nothing is written before all authenticated */
    struct rs_envelope header;
    uint8_t key[RS_ENVELOPE_KEY];
};

/* The attributes of a header but those of its key. */
static int copy_attributes(const struct rs_envelope *from, struct rs_envelope *to)
{
    for (unsigned i = 0; i < from->n; i++) {
        const struct rs_envelope_attribute *a = &from->at[i];
        if (strncmp(a->name, "vmware.", 7) == 0 || strcmp(a->name, RS_ENVELOPE_SALT) == 0 ||
            strcmp(a->name, RS_ENVELOPE_PASS2KEY) == 0)
            continue;
        int r = a->type == RS_ENVELOPE_TEXT ? rs_envelope_put_text(to, a->name, (const char *)a->value)
                                            : rs_envelope_put_bytes(to, a->name, a->value, a->len);
        if (r != 0) return r;
    }
    return 0;
}

/* The header to come, and its file's key. */
static int new_header(struct rewrap *w, const struct rs_envelope *from)
{
    bool bundle = strcmp(text_of(w->t, "to"), "bundle") == 0;
    rs_envelope_new(&w->header);
    int r = rs_envelope_put_text(&w->header, RS_ENVELOPE_KEY_INFO,
                                 bundle ? RS_KEYINFO_BUNDLE : RS_KEYINFO_PHRASE);
    if (r == 0) r = bundle ? rs_envelope_put_salt(&w->header) : rs_envelope_put_phrase(&w->header);
    if (r == 0) r = copy_attributes(from, &w->header);
    if (r == RESEAL_ESPACE)
        return rs_task_fail(w->t, r, "its attributes leave no room for those of the new key");
    if (r != 0 || !bundle) return r != 0 ? r : phrase_key(w->t, &w->header, w->t->fds[2], w->key);
    r = bundle_key(w->t, "to_lock", "to_kek", w->key);
    return r != 0 ? r : rs_envelope_file_key(&w->header, w->key, w->key);
}

static int reseal_piece(void *arg, const uint8_t *text, size_t len)
{
    struct rewrap *w = arg;
    int r = w->s != NULL ? 0 : begin(w->t, &w->header, w->key, &w->s);
    return r != 0 ? r : cannot_write(w->t, rs_envelope_seal_write(w->s, text, len));
}

static int run_rewrap(struct rs_task *t)
{
    RS_KEYMEM uint8_t *key = rs_keymem_alloc(RS_ENVELOPE_KEY);
    RS_KEYMEM struct rewrap *w = rs_keymem_alloc(sizeof(*w));
    RS_FREE struct rs_envelope_file *f = malloc(sizeof(*f));
    if (key == NULL || w == NULL || f == NULL) return RESEAL_ENOMEM;
    w->t = t;
    int r = load(t, f);
    if (r == 0) r = opening_key(t, &f->header, key);
    if (r == 0) r = new_header(w, &f->header);
    if (r == 0) r = open_into(t, f, key, reseal_piece, w);
    if (r == 0 && w->s == NULL) r = begin(t, &w->header, w->key, &w->s); /* an empty text */
    if (r == 0) r = cannot_write(t, rs_envelope_seal_end(w->s));
    rs_envelope_seal_free(w->s);
    return r;
}

/* ---- what a header says ------------------------------------------------------------------- */

static json_t *hex_of(const uint8_t *bytes, size_t len)
{
    RS_FREE char *text = malloc(2 * len + 1);
    if (text == NULL) return NULL;
    rs_hex(bytes, len, text);
    return json_string(text);
}

static json_t *line_of(const char *text)
{
    RS_FREE char *line = strdup(text);
    if (line == NULL) return NULL;
    rs_line_clean(line);
    return json_string(line);
}

static int run_describe(struct rs_task *t)
{
    RS_FREE struct rs_envelope_file *f = malloc(sizeof(*f));
    struct stat st = {0};
    if (f == NULL) return RESEAL_ENOMEM;
    int r = load(t, f);
    if (r != 0) return r;
    const struct rs_envelope *e = &f->header;
    const char *info = rs_envelope_text(e, RS_ENVELOPE_KEY_INFO);
    json_t *attributes = json_object();
    for (unsigned i = 0; i < e->n; i++) {
        const struct rs_envelope_attribute *a = &e->at[i];
        (void)json_object_set_new(attributes, a->name,
                                  a->type == RS_ENVELOPE_TEXT ? line_of((const char *)a->value)
                                                              : hex_of(a->value, a->len));
    }
    (void)fstat(t->fds[0], &st);
    (void)json_object_set_new(t->result, "keyInfo", line_of(info != NULL ? info : ""));
    (void)json_object_set_new(t->result, "key", json_string(kind_of(info)));
    (void)json_object_set_new(t->result, "cipher", line_of(rs_envelope_text(e, RS_ENVELOPE_CIPHER)));
    (void)json_object_set_new(t->result, "size", json_integer((json_int_t)st.st_size));
    (void)json_object_set_new(t->result, "attributes", attributes);
    return 0;
}

#define FILE_TASK(WHAT, SECONDS)                                                                             \
    const struct rs_task_kind rs_task_file_##WHAT = {                                                        \
        .name = "file-" #WHAT, .place = RS_TASK_CLOSED, .deadline_s = (SECONDS), .run = run_##WHAT}
FILE_TASK(seal, FILE_DEADLINE);
FILE_TASK(open, FILE_DEADLINE);
FILE_TASK(rewrap, FILE_DEADLINE);
FILE_TASK(describe, QUICK_DEADLINE);
