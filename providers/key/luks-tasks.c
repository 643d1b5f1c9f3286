/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/luks-tasks.h"

#include "offload/base/keymem.h"
#include "providers/key/luks-slot.h"
#include "providers/key/luks-token.h"
#include "providers/key/luks.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#include <openssl/rand.h>

/* What most tasks here work on. */
struct work {
    struct rs_task *task;
    struct rs_luks_copy copy;
    struct rs_source_yield *found; /* key memory: what the header says, its volume key */
    struct rs_luks_token token;    /* number -1: none */
    const json_t *known;           /* what a task before found, and no header is loaded; NULL: it is */
    bool recovery, slots_copied;
};

/* ---- arguments and results ---------------------------------------------------------- */

static const char *text_of(const struct rs_task *t, const char *name)
{
    const char *text = json_string_value(json_object_get(t->args, name));
    return text != NULL ? text : "";
}

static uint64_t number_of(const struct rs_task *t, const char *name)
{
    json_int_t n = json_integer_value(json_object_get(t->args, name));
    return n < 0 ? 0 : (uint64_t)n;
}

static json_t *luks_json(const struct rs_msg_luks *l)
{
    return json_pack("{si si si sI sI sI sI sI si ss ss}", "version", (int)l->version, "unit", (int)l->unit,
                     "key_bits", (int)l->key_bits, "step", (json_int_t)l->step, "first_tweak",
                     (json_int_t)l->first_tweak, "data_offset", (json_int_t)l->data_offset, "data_size",
                     (json_int_t)l->data_size, "header_size", (json_int_t)l->header_size, "keyslot",
                     l->keyslot, "uuid", l->uuid, "cipher", l->cipher);
}

static int give(struct rs_task *t, const char *name, json_t *value)
{
    if (value != NULL && json_object_set_new(t->result, name, value) == 0) return 0;
    return rs_task_fail(t, RESEAL_ENOMEM, "memory is out");
}

static int give_luks(struct work *w)
{
    if (w->known == NULL) return give(w->task, "luks", luks_json(&w->found->luks));
    json_t *luks = json_deep_copy(w->known);
    (void)json_object_set_new(luks, "keyslot", json_integer(w->found->luks.keyslot));
    return give(w->task, "luks", luks);
}

static int load_failed(struct work *w, int r)
{
    if (r == RESEAL_ECIPHER) {
        int gave = give_luks(w);
        return gave != 0
                   ? gave
                   : rs_task_fail(w->task, r, "the image is encrypted with %s: Reseal does aes-xts-plain64",
                                  w->found->luks.cipher);
    }
    if (r == RESEAL_EBUSY)
        return rs_task_fail(w->task, r,
                            "the image is being re-encrypted by cryptsetup: let it end (cryptsetup reencrypt "
                            "--resume-only)");
    if (r == RESEAL_EINVAL)
        return rs_task_fail(w->task, r, "the header is neither a file nor a block device");
    if (r == RESEAL_EFORMAT)
        return rs_task_fail(w->task, r,
                            "it has no LUKS header, or a damaged one (cryptsetup luksHeaderRestore)");
    return rs_task_fail(w->task, r, "the LUKS header cannot be read: %s", reseal_strerror(r));
}

/* "token" in the result tells, also after a failure, whether the header names a key: else it wants a pass
 * phrase. */
static int find_token(struct work *w, bool need_token)
{
    struct rs_task *t = w->task;
    int r = RESEAL_ENOKEY;
    if (w->found->luks.version == 2)
        r = rs_luks_token_find(w->copy.cd, &w->token, t->why, sizeof(t->why));
    else
        (void)snprintf(t->why, sizeof(t->why),
                       "a LUKS1 header cannot say whose key opens it: give the key provider and the key id");
    int gave = give(t, "token", json_boolean(r != RESEAL_ENOKEY));
    if (gave != 0) return gave;
    if (r != RESEAL_ENOKEY) return r;
    w->token.number = -1;
    if (need_token) return r;
    t->why[0] = '\0';
    return 0;
}

/* Begins the work on the header of descriptor 0: what it says, and its token where it has one. */
static int begin(struct rs_task *t, struct work *w, bool need_token)
{
    *w = (struct work){.task = t, .copy.memfd = -1};
    w->found = rs_keymem_alloc(sizeof(*w->found));
    if (w->found == NULL || t->nfds == 0) return rs_task_fail(t, RESEAL_ENOMEM, "key memory is out");
    rs_luks_quiet();
    int r = rs_luks_copy_load(t->fds[0], &w->copy, &w->found->luks);
    if (r != 0) return load_failed(w, r);
    return find_token(w, need_token);
}

static int finish(struct work *w, int status)
{
    rs_luks_copy_free(&w->copy);
    rs_keymem_free(w->found);
    return status;
}

/* ---- opening and changing slots ----------------------------------------------------- */

/* Libcryptsetup needs them all in the copy. */
static int copy_slots(struct work *w)
{
    int r = w->slots_copied ? 0 : rs_luks_copy_slots(&w->copy);
    w->slots_copied = r == 0;
    return r;
}

static int try_phrase(struct work *w, int slot, const char *name)
{
    const struct rs_secret *phrase = rs_secrets_find(w->task->secrets, name);
    if (phrase == NULL) return RESEAL_EPASS;
    int r = slot >= 0
                ? rs_luks_slot_open(w->copy.from, w->copy.json, slot, phrase->bytes, phrase->len, w->found)
                : RESEAL_ENOSUPPORT;
    if (r != RESEAL_ENOSUPPORT || w->known != NULL) return r;
    r = copy_slots(w);
    if (r != 0) return r;
    return rs_luks_volume_key(w->copy.cd, slot, phrase->bytes, phrase->len, w->found);
}

static int try_both(struct work *w, int slot)
{
    int r = try_phrase(w, slot, "phrase");
    if (r != RESEAL_EPASS) return r;
    r = try_phrase(w, slot, "phrase-recovery");
    w->recovery = r == 0;
    return r;
}

/* Opens the provider's key slot with whichever of its two phrases fits. LUKS1 does not say which slot that
 * is: the first, as a rule, and slots of pass phrases take seconds. */
static int open_slot(struct work *w)
{
    const json_t *arg = json_object_get(w->task->args, "keyslot");
    int slot = json_is_integer(arg) ? (int)json_integer_value(arg) : CRYPT_ANY_SLOT;
    if (w->token.number >= 0) slot = w->token.keyslot;
    int r = try_both(w, slot == CRYPT_ANY_SLOT ? 0 : slot);
    if (r == RESEAL_EPASS && slot == CRYPT_ANY_SLOT) r = try_both(w, slot);
    if (r == RESEAL_EPASS)
        return rs_task_fail(
            w->task, r,
            "no key slot opens with that key: the header was changed, or another key belongs to it");
    if (r != 0) return rs_task_fail(w->task, r, "the volume key cannot be opened: %s", reseal_strerror(r));
    r = give(w->task, "recovery", json_boolean(w->recovery));
    return r == 0 ? give_luks(w) : r;
}

/* 256 bits of entropy need no slow derivation: the least that the formats allow. */
static int fast_pbkdf(struct crypt_device *cd)
{
    static const struct crypt_pbkdf_type fast = {
        .type = CRYPT_KDF_PBKDF2, .hash = "sha256", .iterations = 1000, .flags = CRYPT_PBKDF_NO_BENCHMARK};
    return crypt_set_pbkdf_type(cd, &fast) == 0 ? 0 : RESEAL_EIO;
}

/* A slot for the provider's phrase; its number, or RESEAL_E.... */
static int add_slot(struct work *w, struct crypt_device *cd, int slot, const char *name)
{
    const struct rs_secret *phrase = rs_secrets_find(w->task->secrets, name);
    if (phrase == NULL) return RESEAL_EINVAL;
    int r = fast_pbkdf(cd);
    if (r != 0) return r;
    slot = crypt_keyslot_add_by_volume_key(cd, slot, (const char *)w->found->key, w->found->key_len,
                                           (const char *)phrase->bytes, phrase->len);
    return slot < 0 ? rs_luks_error(slot, RESEAL_ELIMIT) : slot;
}

/* A slot for a pass phrase of the owner, at the pace of pass phrases. */
static int add_owner_slot(struct work *w, struct crypt_device *cd, const struct rs_secret_text *pass)
{
    int r = rs_luks_set_pbkdf(cd, w->found->luks.version, 0, (uint32_t)number_of(w->task, "pbkdf_ms"));
    if (r != 0) return r;
    int slot = crypt_keyslot_add_by_volume_key(cd, CRYPT_ANY_SLOT, (const char *)w->found->key,
                                               w->found->key_len, (const char *)pass->bytes, pass->len);
    return slot < 0 ? rs_luks_error(slot, RESEAL_ELIMIT) : slot;
}

/* Names provider and key of the arguments in the header. LUKS1 has no place for that. */
static int set_token(struct work *w, struct crypt_device *cd, int slot)
{
    struct rs_luks_token token = {.keyslot = slot};
    if (w->found->luks.version != 2) return 0;
    (void)snprintf(token.provider, sizeof(token.provider), "%s", text_of(w->task, "provider"));
    (void)snprintf(token.key, sizeof(token.key), "%s", text_of(w->task, "key"));
    RS_FREE char *text = rs_luks_token_text(&token);
    if (text == NULL) return RESEAL_ENOMEM;
    int number = w->token.number >= 0 ? w->token.number : CRYPT_ANY_TOKEN;
    return crypt_token_json_set(cd, number, text) >= 0 ? 0 : RESEAL_ESPACE;
}

static int change_failed(struct work *w, int r)
{
    if (r == RESEAL_ELIMIT) return rs_task_fail(w->task, r, "the header has no room for another key slot");
    if (r == RESEAL_ESPACE) return rs_task_fail(w->task, r, "the header has no room for the token");
    return rs_task_fail(w->task, r, "the LUKS header cannot be changed: %s", reseal_strerror(r));
}

/* The changed copy goes to the client. */
static int hand_out(struct work *w)
{
    uint64_t len = w->found->luks.header_size;
    crypt_free(w->copy.cd);
    w->copy.cd = NULL;
    int r = rs_luks_seal(w->copy.memfd, len);
    if (r != 0) return rs_task_fail(w->task, r, "the new header cannot be handed over");
    w->task->out_fd = w->copy.memfd;
    w->copy.memfd = -1;
    return 0;
}

/* The pass phrase of the owner; wiped by rs_secret_free(). */
static int read_pass(struct rs_task *t, unsigned fd, struct rs_secret_text *pass)
{
    *pass = (struct rs_secret_text){0};
    int r = fd < t->nfds ? rs_secret_read(t->fds[fd], RS_PASSPHRASE_MAX, pass) : RESEAL_EINVAL;
    if (r == 0 && pass->len == 0) {
        rs_secret_free(pass);
        r = RESEAL_EPASS;
    }
    return r == 0
               ? 0
               : rs_task_fail(
                     t, r, r == RESEAL_EPASS ? "the pass phrase is empty" : "the pass phrase cannot be read");
}

static int yield_volume(struct work *w)
{
    if (rs_secrets_put(&w->task->yields, "volume", w->found->key, w->found->key_len) == 0) return 0;
    return rs_task_fail(w->task, RESEAL_ENOMEM, "key memory is out");
}

/* ---- the tasks ---------------------------------------------------------------------- */

static int run_read(struct rs_task *t)
{
    struct work w;
    int r = begin(t, &w, json_is_true(json_object_get(t->args, "token")));
    if (r == 0) r = give_luks(&w);
    if (r == 0 && w.token.number >= 0) {
        r = give(t, "provider", json_string(w.token.provider));
        if (r == 0) r = give(t, "key", json_string(w.token.key));
        if (r == 0) r = give(t, "keyslot", json_integer(w.token.keyslot));
        json_t *slot = rs_luks_slot_json(w.copy.json, w.token.keyslot);
        if (r == 0 && slot != NULL)
            r = give(t, "slot", slot);
        else
            json_decref(slot);
    }
    return finish(&w, r);
}

/* As begin(), by what the task `read` found in the header: of one that was changed since, no slot opens. */
static int begin_known(struct rs_task *t, struct work *w)
{
    const json_t *luks = json_object_get(t->args, "luks");
    *w = (struct work){.task = t, .copy.memfd = -1, .token.number = -1, .known = luks};
    w->found = rs_keymem_alloc(sizeof(*w->found));
    if (w->found == NULL || t->nfds == 0) return rs_task_fail(t, RESEAL_ENOMEM, "key memory is out");
    w->copy.from = t->fds[0];
    w->copy.json = json_incref(json_object_get(t->args, "slot"));
    w->found->luks.version = (uint32_t)json_integer_value(json_object_get(luks, "version"));
    w->found->luks.key_bits = (uint32_t)json_integer_value(json_object_get(luks, "key_bits"));
    return 0;
}

static int run_open(struct rs_task *t)
{
    struct work w;
    bool known = json_is_object(json_object_get(t->args, "luks"));
    int r = known ? begin_known(t, &w) : begin(t, &w, false);
    const char *uuid = text_of(t, "uuid");
    if (r == 0 && *uuid != '\0' && strcasecmp(uuid, w.found->luks.uuid) != 0)
        r = rs_task_fail(t, RESEAL_EFORMAT, "the header is of another disk: its UUID is %s",
                         w.found->luks.uuid);
    if (r == 0) r = open_slot(&w);
    if (r == 0) r = yield_volume(&w);
    return finish(&w, r);
}

static int run_rewrap(struct rs_task *t)
{
    struct work w;
    int r = begin(t, &w, false);
    if (r == 0) r = open_slot(&w);
    if (r == 0) {
        int slot = w.found->luks.keyslot;
        r = copy_slots(&w);
        if (r == 0 && crypt_keyslot_destroy(w.copy.cd, slot) != 0) r = RESEAL_EIO;
        if (r == 0) r = add_slot(&w, w.copy.cd, slot, w.recovery ? "new-recovery" : "new");
        if (r >= 0) r = set_token(&w, w.copy.cd, slot);
        r = r == 0 ? hand_out(&w) : change_failed(&w, r);
    }
    return finish(&w, r);
}

static int run_adopt(struct rs_task *t)
{
    struct work w;
    struct rs_secret_text pass = {0};
    int r = begin(t, &w, false);
    if (r == 0 && w.token.number >= 0)
        r = rs_task_fail(t, RESEAL_EBUSY,
                         "a key slot of it belongs to key provider %s already: rewrap it instead",
                         w.token.provider);
    if (r == 0) r = read_pass(t, 1, &pass);
    if (r == 0) {
        r = copy_slots(&w);
        if (r == 0) r = rs_luks_volume_key(w.copy.cd, CRYPT_ANY_SLOT, pass.bytes, pass.len, w.found);
        if (r != 0) r = rs_task_fail(t, r, "the image does not open: %s", reseal_strerror(r));
    }
    if (r == 0) {
        int slot = add_slot(&w, w.copy.cd, CRYPT_ANY_SLOT, "phrase");
        r = slot < 0 ? slot : set_token(&w, w.copy.cd, slot);
        w.found->luks.keyslot = slot;
        r = r == 0 ? hand_out(&w) : change_failed(&w, r);
        if (r == 0) r = give_luks(&w);
        if (r == 0) r = give(t, "keyslot", json_integer(slot));
    }
    rs_secret_free(&pass);
    return finish(&w, r);
}

/* The owner's pass phrase opens it already, or gets a slot. */
static int keep_owner(struct work *w, const struct rs_secret_text *pass)
{
    int own = w->found->luks.keyslot;
    RS_KEYMEM struct rs_source_yield *again = rs_keymem_alloc(sizeof(*again));
    if (again == NULL) return RESEAL_ENOMEM;
    again->luks = w->found->luks;
    if (rs_luks_volume_key(w->copy.cd, CRYPT_ANY_SLOT, pass->bytes, pass->len, again) == 0 &&
        again->luks.keyslot != own)
        return 0;
    int slot = add_owner_slot(w, w->copy.cd, pass);
    return slot < 0 ? slot : 0;
}

static int run_release(struct rs_task *t)
{
    struct work w;
    struct rs_secret_text pass = {0};
    int r = begin(t, &w, false);
    if (r == 0) r = open_slot(&w);
    if (r == 0) r = read_pass(t, 1, &pass);
    if (r == 0) {
        r = copy_slots(&w);
        if (r == 0) r = keep_owner(&w, &pass);
        if (r == 0 && crypt_keyslot_destroy(w.copy.cd, w.found->luks.keyslot) != 0) r = RESEAL_EIO;
        if (r == 0 && w.token.number >= 0 && crypt_token_json_set(w.copy.cd, w.token.number, NULL) < 0)
            r = RESEAL_EIO;
        r = r == 0 ? hand_out(&w) : change_failed(&w, r);
    }
    rs_secret_free(&pass);
    return finish(&w, r);
}

static int run_tell(struct rs_task *t)
{
    struct work w;
    int r = begin(t, &w, false);
    if (r == 0 && t->nfds < 2)
        r = rs_task_fail(t, RESEAL_EINVAL, "there is no pipe to write the pass phrase to");
    if (r == 0) r = open_slot(&w);
    if (r == 0) {
        const struct rs_secret *phrase =
            rs_secrets_find(t->secrets, w.recovery ? "phrase-recovery" : "phrase");
        if (phrase == NULL || rs_write_full(t->fds[1], phrase->bytes, phrase->len) != 0)
            r = rs_task_fail(t, RESEAL_EIO, "the pass phrase cannot be written to the pipe");
    }
    return finish(&w, r);
}

/* ---- making ------------------------------------------------------------------------- */

static bool is_detached(const struct rs_task *t)
{
    return json_is_true(json_object_get(t->args, "detached"));
}

static int format_of(const struct rs_task *t, struct rs_msg_luks_format *f)
{
    const char *label = text_of(t, "label");
    if (strlen(label) >= sizeof(f->label)) return RESEAL_EINVAL;
    *f = (struct rs_msg_luks_format){.version = (uint32_t)number_of(t, "version"),
                                     .unit = (uint32_t)number_of(t, "unit"),
                                     .key_bits = (uint32_t)number_of(t, "key_bits"),
                                     .data_offset = number_of(t, "data_offset"),
                                     .data_size = number_of(t, "data_size")};
    memcpy(f->label, label, strlen(label) + 1);
    int r = rs_luks_settle(f);
    /* LUKS1 has no room for a token, and with it no use for a file of its own. */
    return r == 0 && is_detached(t) && f->version != 2 ? RESEAL_EINVAL : r;
}

static int fill(struct work *w, struct crypt_device *cd, const struct rs_msg_luks_format *f,
                const struct rs_secret_text *pass)
{
    int r = fast_pbkdf(cd);
    if (r == 0) r = rs_luks_format(cd, f, text_of(w->task, "uuid"), w->found->key, w->found->key_len);
    if (r != 0) return r;
    int slot = add_slot(w, cd, 0, "phrase");
    if (slot < 0) return slot;
    r = rs_luks_info(cd, &w->found->luks, NULL);
    w->found->luks.keyslot = slot;
    if (r == 0 && pass->len != 0 && (r = add_owner_slot(w, cd, pass)) > 0) r = 0;
    return r == 0 ? set_token(w, cd, slot) : r;
}

/* A header in a file of its own is made beside another device for the data: that is how libcryptsetup tells
 * that its own room is not to be kept free there. */
static int make(struct work *w, const struct rs_msg_luks_format *f, const struct rs_secret_text *pass)
{
    struct crypt_device *cd = NULL;
    struct rs_memfd_path path, data_path;
    bool detached = is_detached(w->task);
    RS_CLOSE int data = detached ? rs_luks_device(f) : -1;
    w->found->key_len = f->key_bits / 4;
    w->copy.memfd = rs_luks_device(f);
    if (w->copy.memfd < 0) return w->copy.memfd;
    if (detached && data < 0) return data;
    if (RAND_priv_bytes(w->found->key, (int)w->found->key_len) != 1 ||
        !rs_raw_key_ok(RESEAL_XTS, w->found->key, w->found->key_len))
        return RESEAL_EIO;
    rs_memfd_path(w->copy.memfd, &path);
    rs_memfd_path(data, &data_path);
    int r = detached ? crypt_init_data_device(&cd, path.text, data_path.text) : crypt_init(&cd, path.text);
    if (r != 0) return RESEAL_EIO;
    r = fill(w, cd, f, pass);
    crypt_free(cd);
    return r;
}

static int run_make(struct rs_task *t)
{
    struct rs_msg_luks_format f;
    struct rs_secret_text pass = {0};
    struct work w = {.task = t, .copy.memfd = -1, .token.number = -1};
    if (format_of(t, &f) != 0)
        return rs_task_fail(
            t, RESEAL_EINVAL,
            "no LUKS header is made like that: version 1 or 2, unit 512 to 4096 (LUKS1: 512), "
            "key_bits 128 or 256, offset and size in whole units, detached with version 2");
    w.found = rs_keymem_alloc(sizeof(*w.found));
    int r = w.found != NULL ? 0 : rs_task_fail(t, RESEAL_ENOMEM, "key memory is out");
    if (r == 0 && json_is_true(json_object_get(t->args, "recovery"))) r = read_pass(t, 0, &pass);
    if (r == 0) {
        rs_luks_quiet();
        r = make(&w, &f, &pass);
        if (r != 0) r = rs_task_fail(t, r, "no LUKS header can be made like that: %s", reseal_strerror(r));
    }
    if (r == 0) r = give_luks(&w);
    if (r == 0) r = yield_volume(&w);
    if (r == 0) r = hand_out(&w);
    rs_secret_free(&pass);
    return finish(&w, r);
}

#define LUKS_TASK(WHAT, AGAIN)                                                                               \
    const struct rs_task_kind rs_task_luks_##WHAT = {                                                        \
        .name = "luks-" #WHAT, .place = RS_TASK_CLOSED, .again = (AGAIN), .run = run_##WHAT}
LUKS_TASK(read, true);
LUKS_TASK(open, true);
LUKS_TASK(make, false);
LUKS_TASK(rewrap, true);
LUKS_TASK(adopt, false);
LUKS_TASK(release, false);
LUKS_TASK(tell, false);
