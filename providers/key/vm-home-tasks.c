/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/vm-home-tasks.h"

#include "offload/base/keymem.h"
#include "offload/vm/nodes.h"
#include "providers/key/source.h"
#include "providers/key/vm-home.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/rand.h>

#define DATA_MAX   ((RS_LOCKED_TEXT_MAX + RS_LOCKED_OVERHEAD + 2) / 3 * 4 + 2) /* base64, and a line end */
#define PHRASE_MAX 4096u

static const char *text_of(const struct rs_task *t, const char *name)
{
    const char *text = json_string_value(json_object_get(t->args, name));
    return text != NULL ? text : "";
}

static int give(struct rs_task *t, const char *name, json_t *value)
{
    if (value != NULL && json_object_set_new(t->result, name, value) == 0) return 0;
    return rs_task_fail(t, RESEAL_ENOMEM, "memory is out");
}

/* ---- reading, without a key ------------------------------------------------------------- */

static int run_lock(struct rs_task *t)
{
    json_t *lock;
    int r = rs_home_lock(text_of(t, "text"), RS_HOME_BY_PROVIDER, &lock, t->why, sizeof(t->why));
    if (r != 0) return r;
    json_decref(t->result);
    t->result = lock;
    return 0;
}

static bool same_key(const json_t *a, const json_t *b)
{
    return json_equal(json_object_get(a, "provider"), json_object_get(b, "provider")) == 1 &&
           json_equal(json_object_get(a, "key"), json_object_get(b, "key")) == 1;
}

static int read_bundle(struct rs_task *t, const json_t *safe)
{
    char why[160];
    json_t *lock;
    if (*text_of(t, "bundle") == '\0') return 0;
    int r = rs_home_lock(text_of(t, "bundle"), RS_HOME_BY_PROVIDER, &lock, why, sizeof(why));
    if (r != 0) return rs_task_fail(t, r, "encryption.bundle: %s", why);
    r = give(t, "bundle", lock);
    if (r == 0 && safe != NULL && !same_key(safe, lock))
        r = rs_task_fail(
            t, RESEAL_EFORMAT,
            "encryption.keySafe and encryption.bundle wait for different keys: put the VM's files "
            "back together as they were");
    return r;
}

static int run_read(struct rs_task *t)
{
    bool phrase = json_is_true(json_object_get(t->args, "phrase"));
    bool has_safe = *text_of(t, "keySafe") != '\0';
    char why[160];
    json_t *lock = NULL;
    int r = 0;
    if (has_safe || *text_of(t, "bundle") == '\0') {
        r = rs_home_lock(text_of(t, "keySafe"), phrase ? RS_HOME_BY_PHRASE : RS_HOME_BY_PROVIDER, &lock, why,
                         sizeof(why));
        if (r != 0) return rs_task_fail(t, r, "encryption.keySafe: %s", why);
        r = give(t, "safe", lock);
    }
    if (r == 0 && !phrase) r = read_bundle(t, lock);
    if (r != 0 || phrase) return r;
    if (lock == NULL) lock = json_object_get(t->result, "bundle");
    r = give(t, "provider", json_incref(json_object_get(lock, "provider")));
    return r == 0 ? give(t, "key", json_incref(json_object_get(lock, "key"))) : r;
}

/* ---- texts in and out --------------------------------------------------------------------- */

static int read_text(struct rs_task *t, unsigned fd, size_t max, const char *what, struct rs_secret_text *out)
{
    *out = (struct rs_secret_text){0};
    int r = fd < t->nfds ? rs_secret_read(t->fds[fd], max, out) : RESEAL_EINVAL;
    if (r == 0 && out->len == 0) {
        rs_secret_free(out);
        r = RESEAL_EFORMAT;
    }
    if (r == 0) return 0;
    return rs_task_fail(t, r,
                        r == RESEAL_EFORMAT  ? "%s is empty"
                        : r == RESEAL_EINVAL ? "%s is too long"
                                             : "%s cannot be read",
                        what);
}

/* To the client, sealed. */
static int hand_out(struct rs_task *t, const uint8_t *bytes, size_t len)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
    int fd = memfd_create("vm-home", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && rs_pwrite_full(fd, bytes, len, 0) == 0 && fcntl(fd, F_ADD_SEALS, seals) == 0) {
        t->out_fd = fd;
        return 0;
    }
    rs_cleanup_close(&fd);
    return rs_task_fail(t, RESEAL_ENOMEM, "memory is out");
}

/* encryption.data, as it stands in the .vmx: base64, in its own memory. */
static int decode(struct rs_task *t, struct rs_secret_text *data, uint8_t **blob, size_t *len)
{
    while (data->len > 0 && (data->bytes[data->len - 1] == '\n' || data->bytes[data->len - 1] == '\r'))
        data->len--;
    char *text = malloc(data->len + 1);
    *blob = malloc(data->len + 4);
    int r = text != NULL && *blob != NULL ? 0 : RESEAL_ENOMEM;
    if (r == 0) {
        memcpy(text, data->bytes, data->len);
        text[data->len] = '\0';
        r = strlen(text) == data->len ? rs_base64_decode(text, *blob, data->len + 4, len) : RESEAL_EFORMAT;
    }
    free(text);
    if (r == RESEAL_EFORMAT) return rs_task_fail(t, r, "encryption.data is no base64 text: it was damaged");
    return r == 0 ? 0 : rs_task_fail(t, r, "memory is out");
}

/* Locked with the config key, as the text of encryption.data. */
static int lock_lines(struct rs_task *t, const struct rs_locked_key *config, enum rs_locked_mac mac,
                      const uint8_t *lines, size_t len)
{
    size_t room = len + RS_LOCKED_OVERHEAD, n = 0, text_room = (room + 2) / 3 * 4 + 1;
    uint8_t *blob = malloc(room);
    char *text = malloc(text_room);
    int r = blob != NULL && text != NULL ? 0 : RESEAL_ENOMEM;
    if (r == 0) r = rs_locked_seal(config, mac, lines, len, blob, &n);
    if (r == 0) r = rs_base64_encode(blob, n, text, text_room);
    r = r == 0 ? hand_out(t, (const uint8_t *)text, strlen(text))
               : rs_task_fail(t, r, "the text cannot be locked: %s", reseal_strerror(r));
    free(text);
    free(blob);
    return r;
}

/* A disk into the lines, or out of them. */
static int change_node(struct rs_task *t, struct rs_vmx *v)
{
    const char *node = text_of(t, "node"), *file = text_of(t, "file");
    if (*file == '\0')
        return rs_vm_node_drop(v, node)
                   ? 0
                   : rs_task_fail(t, RESEAL_EINVAL, "there is no disk %s that could be taken out", node);
    int r = rs_vm_node_put(v, node, file);
    if (r == RESEAL_EBUSY) return rs_task_fail(t, r, "%s is taken already: name another node", node);
    return r == 0 ? 0 : rs_task_fail(t, r, "%s: %s", node, reseal_strerror(r));
}

/* The same lines with another set of disks, under the key that they have. */
static int change_disk(struct rs_task *t, const struct rs_locked_key *config, enum rs_locked_mac mac,
                       const uint8_t *lines, size_t len)
{
    char why[160];
    struct rs_vmx *v = NULL;
    size_t n = 0;
    int r = rs_vmx_parse((const char *)lines, len, &v, why, sizeof(why));
    if (r != 0) return rs_task_fail(t, r, "what is locked is no .vmx: %s", why);
    r = change_node(t, v);
    char *text = r == 0 ? rs_vmx_text(v, &n) : NULL;
    rs_vmx_free(v);
    if (r != 0) return r;
    if (text == NULL) return rs_task_fail(t, RESEAL_ENOMEM, "memory is out");
    r = lock_lines(t, config, mac, (const uint8_t *)text, n);
    rs_wipe(text, n);
    free(text);
    return r;
}

/* What the lines are wanted for. */
static int give_lines(struct rs_task *t, const struct rs_locked_key *config, enum rs_locked_mac mac,
                      const uint8_t *lines, size_t len)
{
    if (json_is_true(json_object_get(t->args, "check"))) return 0;
    return json_object_get(t->args, "node") != NULL ? change_disk(t, config, mac, lines, len)
                                                    : hand_out(t, lines, len);
}

/* Opens encryption.data with the config key. */
static int open_data(struct rs_task *t, const struct rs_locked_key *config, enum rs_locked_mac mac)
{
    struct rs_secret_text data;
    uint8_t *blob = NULL, *lines = NULL;
    size_t len = 0, room = 0, n = 0;
    int r = read_text(t, 0, DATA_MAX, "encryption.data", &data);
    if (r == 0) r = decode(t, &data, &blob, &len);
    room = len;
    if (r == 0 && (lines = rs_scratch_map(room, NULL)) == NULL)
        r = rs_task_fail(t, RESEAL_ENOMEM, "memory is out");
    if (r == 0) {
        r = rs_locked_open(config, mac, blob, len, lines, &n);
        if (r != 0)
            r = rs_task_fail(
                t, r,
                "encryption.data does not authenticate: it was changed, or is of another VM than "
                "encryption.keySafe");
    }
    if (r == 0) r = give_lines(t, config, mac, lines, n);
    rs_scratch_unmap(lines, room);
    free(blob);
    rs_secret_free(&data);
    return r;
}

/* ---- opening -------------------------------------------------------------------------------- */

/* Keys of one task, in key memory. */
struct keys {
    struct rs_locked_key locker, config;
    enum rs_locked_mac mac;
    uint8_t file_key[RS_FILE_KEY_LEN];
};

static int kek_of(struct rs_task *t, const char *name, const uint8_t **kek)
{
    const struct rs_secret *secret = rs_secrets_find(t->secrets, name);
    if (secret == NULL || secret->len != RS_HOME_KEK_LEN)
        return rs_task_fail(t, RESEAL_EKEYBAD, "the key of the key provider does not have 256 bits");
    *kek = secret->bytes;
    return 0;
}

static int open_bundle(struct rs_task *t, const uint8_t *kek, struct keys *k)
{
    char why[160];
    const json_t *lock = json_object_get(t->args, "bundle");
    int r = rs_bundle_open(lock, kek, k->file_key, why, sizeof(why));
    return r == 0 ? 0 : rs_task_fail(t, r, "encryption.bundle: %s", why);
}

static int open_safe(struct rs_task *t, struct keys *k)
{
    char why[160];
    const json_t *lock = json_object_get(t->args, "safe");
    int r = rs_keysafe_open(lock, &k->locker, &k->config, &k->mac, why, sizeof(why));
    return r == 0 ? 0 : rs_task_fail(t, r, "encryption.keySafe: %s", why);
}

static int with_keys(struct rs_task *t, int (*run)(struct rs_task *t, struct keys *k))
{
    RS_KEYMEM struct keys *k = rs_keymem_alloc(sizeof(*k));
    return k != NULL ? run(t, k) : rs_task_fail(t, RESEAL_ENOMEM, "key memory is out");
}

static int open_home(struct rs_task *t, struct keys *k)
{
    const uint8_t *kek = NULL;
    int r = kek_of(t, "kek", &kek);
    if (r != 0) return r;
    rs_home_locker_of_kek(kek, &k->locker);
    r = open_safe(t, k);
    /* The bundle of another product is its own affair: nothing here needs what is in it. */
    if (r == 0 && json_object_get(t->args, "bundle") != NULL &&
        (r = open_bundle(t, kek, k)) == RESEAL_EFORMAT) {
        t->why[0] = '\0';
        r = 0;
    }
    return r == 0 ? open_data(t, &k->config, k->mac) : r;
}

static int run_open(struct rs_task *t)
{
    return with_keys(t, open_home);
}

static int read_phrase(struct rs_task *t, unsigned fd, struct rs_secret_text *phrase)
{
    int r = read_text(t, fd, PHRASE_MAX, "the pass phrase", phrase);
    return r == RESEAL_EFORMAT ? RESEAL_EPASS : r;
}

static int open_by_phrase(struct rs_task *t, struct keys *k)
{
    struct rs_secret_text phrase;
    const char *dictionary =
        json_string_value(json_object_get(json_object_get(t->args, "safe"), "dictionary"));
    int r = read_phrase(t, 1, &phrase);
    if (r != 0) return r;
    r = rs_locked_key_of_phrase(dictionary != NULL ? dictionary : "", (const char *)phrase.bytes, phrase.len,
                                &k->locker);
    rs_secret_free(&phrase);
    if (r != 0)
        return rs_task_fail(
            t, r, "encryption.keySafe: how its key comes from a pass phrase is damaged or not known");
    r = open_safe(t, k);
    if (r == RESEAL_EAUTH)
        return rs_task_fail(t, RESEAL_EPASS, "wrong pass phrase, or encryption.keySafe was changed");
    return r == 0 ? open_data(t, &k->config, k->mac) : r;
}

static int run_phrase(struct rs_task *t)
{
    return with_keys(t, open_by_phrase);
}

/* ---- sealing -------------------------------------------------------------------------------- */

/* Key safe and bundle, locked with a KEK that the arguments name. */
static int give_texts(struct rs_task *t, const uint8_t *kek, const struct keys *k, bool bundle)
{
    const char *provider = text_of(t, "provider"), *key = text_of(t, "key");
    RS_FREE char *safe_text = NULL, *bundle_text = NULL;
    int r = rs_keysafe_seal(provider, key, kek, &k->config, &safe_text);
    if (r == 0 && bundle) r = rs_bundle_seal(provider, key, kek, k->file_key, &bundle_text);
    if (r != 0) return rs_task_fail(t, r, "the keys of the VM cannot be locked: %s", reseal_strerror(r));
    r = give(t, "keySafe", json_string(safe_text));
    return r == 0 && bundle ? give(t, "bundle", json_string(bundle_text)) : r;
}

static int seal_data(struct rs_task *t, const struct keys *k)
{
    struct rs_secret_text lines;
    int r = read_text(t, 0, RS_LOCKED_TEXT_MAX, "the text to lock", &lines);
    if (r != 0) return r;
    r = lock_lines(t, &k->config, RS_LOCKED_HMAC_SHA256, lines.bytes, lines.len);
    rs_secret_free(&lines);
    return r;
}

/* The key safe under the pass phrase of a descriptor. */
static int give_phrase_safe(struct rs_task *t, unsigned fd, struct keys *k)
{
    char dictionary[RS_HOME_DICTIONARY];
    struct rs_secret_text phrase;
    RS_FREE char *safe_text = NULL;
    int r = read_phrase(t, fd, &phrase);
    if (r != 0) return r;
    r = rs_home_locker_of_phrase(phrase.bytes, phrase.len, dictionary, &k->locker);
    rs_secret_free(&phrase);
    if (r == 0) r = rs_keysafe_seal_phrase(dictionary, &k->locker, &k->config, &safe_text);
    if (r != 0) return rs_task_fail(t, r, "the keys of the VM cannot be locked: %s", reseal_strerror(r));
    return give(t, "keySafe", json_string(safe_text));
}

static bool is_to_phrase(const struct rs_task *t)
{
    return json_is_true(json_object_get(t->args, "to_phrase"));
}

static int seal_by_phrase(struct rs_task *t, struct keys *k)
{
    if (rs_config_key_make(&k->config) != 0)
        return rs_task_fail(t, RESEAL_EIO, "there are no random numbers");
    int r = give_phrase_safe(t, 1, k);
    return r == 0 ? seal_data(t, k) : r;
}

static int seal_home(struct rs_task *t, struct keys *k)
{
    if (is_to_phrase(t)) return seal_by_phrase(t, k);
    const uint8_t *kek = NULL, *old = NULL;
    int r = kek_of(t, "kek", &kek);
    if (r == 0 && json_object_get(t->args, "bundle") != NULL) {
        r = kek_of(t, "old", &old);
        if (r == 0) r = open_bundle(t, old, k);
    } else if (r == 0 && RAND_priv_bytes(k->file_key, sizeof(k->file_key)) != 1) {
        r = rs_task_fail(t, RESEAL_EIO, "there are no random numbers");
    }
    if (r == 0 && rs_config_key_make(&k->config) != 0)
        r = rs_task_fail(t, RESEAL_EIO, "there are no random numbers");
    if (r == 0) r = give_texts(t, kek, k, true);
    return r == 0 ? seal_data(t, k) : r;
}

static int run_seal(struct rs_task *t)
{
    return with_keys(t, seal_home);
}

static int rewrap_home(struct rs_task *t, struct keys *k)
{
    const uint8_t *kek = NULL, *new = NULL;
    bool bundle = json_object_get(t->args, "bundle") != NULL;
    int r = kek_of(t, "kek", &kek);
    if (r == 0 && !is_to_phrase(t)) r = kek_of(t, "new", &new);
    if (r != 0) return r;
    rs_home_locker_of_kek(kek, &k->locker);
    r = open_safe(t, k);
    /* encryption.data stays as it is, and its MAC is the one that the key safe names: ours names one only. */
    if (r == 0 && k->mac != RS_LOCKED_HMAC_SHA256)
        r = rs_task_fail(t, RESEAL_ENOSUPPORT,
                         "encryption.keySafe has an old MAC: open the home and seal it anew");
    if (r == 0 && is_to_phrase(t)) return give_phrase_safe(t, 0, k);
    if (r == 0 && bundle) r = open_bundle(t, kek, k);
    return r == 0 ? give_texts(t, new, k, bundle) : r;
}

static int run_rewrap(struct rs_task *t)
{
    return with_keys(t, rewrap_home);
}

#define HOME_TASK(WHAT)                                                                                      \
    const struct rs_task_kind rs_task_home_##WHAT = {                                                        \
        .name = "home-" #WHAT, .place = RS_TASK_CLOSED, .run = run_##WHAT}
HOME_TASK(lock);
HOME_TASK(read);
HOME_TASK(open);
HOME_TASK(phrase);
HOME_TASK(seal);
HOME_TASK(rewrap);
