/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks: LUKS headers with a key slot of a key provider. Headers are read and
 * changed in tasks (luks-tasks.h); KEKs stay here, tasks get the pass phrases of key slots.
 */
#include "offload/base/keymem.h"
#include "providers/key/luks-tasks.h"
#include "providers/key/luks-token.h"
#include "providers/key/providers.h"
#include "providers/key/vm-call.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#define SIZE_MAX_ARG INT64_MAX

/* What a request knows so far; the call's state. */
struct disk {
    struct rs_vm_call v;
    void (*opened)(struct disk *s); /* what to do when the KEK of the header's slot has come */
    uint32_t use;
    int version, keyslot;
    bool recovery;
    char uuid[40];
    char provider[RS_PROVIDER_NAME_MAX], key[RS_KEY_ID_MAX]; /* of the header's slot */
    struct rs_secrets secrets;
    json_t *args; /* of the task that does the work */
};

static void drop(struct rs_rpc *call)
{
    struct disk *s = call->state;
    rs_secrets_free(&s->secrets);
    json_decref(s->args);
    free(s);
}

/* The state of a new call with these arguments only; NULL: it has ended. */
static struct disk *begin(struct rs_rpc *call, const char *args)
{
    struct disk *s = rs_vm_begin(call, args, sizeof(*s), drop);
    if (s == NULL) return NULL;
    s->keyslot = -1;
    s->args = json_object(); /* one that is missing fails with the task */
    return s;
}

/* args["use"]: what a key may be used for; 0: no key is wanted. False: the call has ended. */
static bool take_use(struct disk *s)
{
    int64_t use = rs_rpc_number(s->v.rpc, "use", RESEAL_USE_SOURCE | RESEAL_USE_DESTINATION, 0);
    if (use < 0) return false; /* the call has ended, and `s` with it */
    s->use = (uint32_t)use;
    return true;
}

static void set(struct disk *s, const char *name, json_t *value)
{
    (void)json_object_set_new(s->args, name, value); /* one that is missing is told by the task */
}

static void fail_memory(struct disk *s)
{
    rs_vm_fail(&s->v, RESEAL_ENOMEM, "key memory is out");
}

/* ---- pass phrases of key slots -------------------------------------------------------- */

static int put_phrase(struct disk *s, const char *name, const struct rs_kek *kek, bool recovery)
{
    RS_KEYMEM char *phrase = rs_keymem_alloc(RS_LUKS_PHRASE_LEN + 1);
    if (phrase == NULL) return RESEAL_ENOMEM;
    int r = rs_luks_phrase(kek->bytes, s->uuid, recovery, phrase);
    return r == 0 ? rs_secrets_put(&s->secrets, name, phrase, RS_LUKS_PHRASE_LEN) : r;
}

/* Both that a key can make; false: the call has ended. */
static bool put_phrases(struct disk *s, const char *plain, const char *recovery, const struct rs_kek *kek)
{
    int r = put_phrase(s, plain, kek, false);
    if (r == 0) r = put_phrase(s, recovery, kek, true);
    if (r != 0) rs_vm_fail(&s->v, r, "the key slot's pass phrase cannot be made: %s", reseal_strerror(r));
    return r == 0;
}

/* ---- answers ---------------------------------------------------------------------------- */

/* The members of struct reseal_luks, and whose key it is. */
static json_t *reply_of(const struct disk *s, const json_t *luks)
{
    json_t *reply = json_deep_copy(luks);
    (void)json_object_set_new(reply, "provider", json_string(s->provider));
    (void)json_object_set_new(reply, "key", json_string(s->key));
    return reply;
}

/* Registers the volume key for the client; its handle goes into the reply. */
static int mint(struct disk *s, const struct rs_task_answer *a, bool supplied, json_t *reply)
{
    const struct rs_secret *volume = rs_secrets_find(a->secrets, "volume");
    struct rs_client *c = s->v.rpc->client;
    json_int_t unit = json_integer_value(json_object_get(reply, "unit"));
    json_int_t step = json_integer_value(json_object_get(reply, "step"));
    struct rs_key form = {.cipher = RESEAL_XTS,
                          .use = s->use,
                          .unit = (uint32_t)unit,
                          .step = (uint64_t)step,
                          .client = c->number,
                          .uid = c->uid,
                          .pid = c->pid,
                          .supplied = supplied};
    RS_KEYMEM struct rs_source_yield *y = rs_keymem_alloc(sizeof(*y));
    reseal_key id;
    char text[36];
    if (volume == NULL || unit < 512 || unit > 65536 || step < 1 || volume->len > sizeof(y->key))
        return RESEAL_EIO;
    if (y == NULL) return RESEAL_ENOMEM;
    (void)snprintf(form.name, sizeof(form.name), "luks:%s", s->uuid);
    (void)snprintf(form.provider, sizeof(form.provider), "%s", s->provider);
    memcpy(y->key, volume->bytes, volume->len);
    y->key_len = (uint32_t)volume->len;
    int r = rs_orders_mint(s->v.rpc->d, c, &form, y, &id);
    if (r != 0) return r;
    (void)snprintf(text, sizeof(text), "%016llx%016llx", (unsigned long long)id.id[0],
                   (unsigned long long)id.id[1]);
    return json_object_set_new(reply, "handle", json_string(text));
}

/* The answer of a task that opened or made a header: with a handle where one is wanted. */
static void answer_key(struct disk *s, struct rs_task_answer *a, bool supplied)
{
    json_t *reply = reply_of(s, json_object_get(a->result, "luks"));
    int r = s->use != 0 ? mint(s, a, supplied, reply) : 0, fd = a->fd;
    if (r != 0) {
        json_decref(reply);
        rs_vm_fail(&s->v, r, "the disk's key cannot be kept: %s", reseal_strerror(r));
        return;
    }
    a->fd = -1;
    rs_vm_answer(&s->v, reply, fd);
}

/* The answer of a task that changed a header. */
static void changed(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    (void)d;
    struct disk *s = ((struct rs_rpc *)arg)->state;
    if (a->status != 0) {
        rs_vm_fail_as(&s->v, a);
        return;
    }
    int fd = a->fd;
    a->fd = -1;
    rs_vm_answer(&s->v, reply_of(s, json_object_get(a->result, "luks")), fd);
}

/* ---- the header, and the KEK of its slot -------------------------------------------------- */

static void name_object(struct disk *s)
{
    (void)snprintf(s->v.object, sizeof(s->v.object), "luks:%s", s->uuid);
}

/* One disk has one name, whatever the case its header is written in. */
static bool take_uuid(struct disk *s, const char *uuid)
{
    uint8_t raw[16];
    if (uuid == NULL || !rs_luks_uuid(uuid, raw)) return false;
    for (size_t i = 0; i <= strlen(uuid); i++) s->uuid[i] = (char)tolower((unsigned char)uuid[i]);
    name_object(s);
    return true;
}

/* What the reading task found. False: the call has ended. */
static bool take_header(struct disk *s, const struct rs_task_answer *a)
{
    if (a->status != 0) {
        rs_vm_fail_as(&s->v, a);
        return false;
    }
    const json_t *luks = json_object_get(a->result, "luks"), *slot = json_object_get(a->result, "keyslot");
    const char *uuid = json_string_value(json_object_get(luks, "uuid"));
    const char *provider = json_string_value(json_object_get(a->result, "provider"));
    const char *key = json_string_value(json_object_get(a->result, "key"));
    if (!take_uuid(s, uuid)) {
        rs_vm_fail(&s->v, RESEAL_EFORMAT,
                   "the header's UUID is none: no key slot of a key provider is in it");
        return false;
    }
    s->version = (int)json_integer_value(json_object_get(luks, "version"));
    if (json_is_integer(slot)) s->keyslot = (int)json_integer_value(slot);
    if (s->key[0] != '\0') return true; /* given by the client */
    if (provider != NULL && key != NULL) {
        (void)snprintf(s->provider, sizeof(s->provider), "%s", provider);
        (void)snprintf(s->key, sizeof(s->key), "%s", key);
    }
    return true;
}

static void kek_came(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek, const char *why)
{
    (void)d;
    struct disk *s = ((struct rs_rpc *)arg)->state;
    if (status != 0) {
        rs_vm_fail_kek(&s->v, status, kek, why);
        return;
    }
    (void)snprintf(s->provider, sizeof(s->provider), "%s", kek->provider);
    set(s, "keyslot", json_integer(s->keyslot));
    if (put_phrases(s, "phrase", "phrase-recovery", kek)) s->opened(s);
}

static void get_kek(struct disk *s)
{
    bool bad;
    const json_t *details = rs_vm_details(&s->v, &bad);
    if (!bad) rs_kek_get(s->v.rpc->d, &s->v.who, s->provider, s->key, details, kek_came, s->v.rpc);
}

/* Provider and key of the header's slot, where the client names them itself: for LUKS1, or where a provider
 * is known here by another name. False: the call has ended. */
static bool take_given(struct disk *s, const char *provider_arg, const char *key_arg)
{
    const char *provider = rs_rpc_text(s->v.rpc, provider_arg, sizeof(s->provider));
    if (provider == NULL) return false;
    const char *key = rs_rpc_text(s->v.rpc, key_arg, sizeof(s->key));
    if (key == NULL) return false;
    (void)snprintf(s->provider, sizeof(s->provider), "%s", provider);
    (void)snprintf(s->key, sizeof(s->key), "%s", key);
    return true;
}

/* Reads the header; without provider and key of the client's it must say them. */
static void read_header(struct disk *s, bool need_token, rs_task_done *then)
{
    json_t *args = json_pack("{s:b}", "token", need_token);
    rs_vm_task(&s->v, &rs_task_luks_read, args, NULL, true, then);
    json_decref(args);
}

static bool has_key(struct disk *s)
{
    if (s->key[0] != '\0') return true;
    rs_vm_fail(&s->v, RESEAL_EINVAL,
               "a LUKS1 header cannot say whose key opens it: give the key provider and the key id");
    return false;
}

static void header_read(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    (void)d;
    struct disk *s = ((struct rs_rpc *)arg)->state;
    if (!take_header(s, a) || !has_key(s)) return;
    json_t *slot = json_object_get(a->result, "slot");
    if (slot != NULL) {
        set(s, "luks", json_incref(json_object_get(a->result, "luks")));
        set(s, "slot", json_incref(slot));
    }
    get_kek(s);
}

static void open_slot(struct disk *s, void (*then)(struct disk *s))
{
    s->opened = then;
    read_header(s, s->key[0] == '\0', header_read);
}

/* ---- disk.open ---------------------------------------------------------------------------- */

static void volume_came(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    (void)d;
    struct disk *s = ((struct rs_rpc *)arg)->state;
    if (a->status != 0)
        rs_vm_fail_as(&s->v, a);
    else
        answer_key(s, a, json_is_true(json_object_get(a->result, "recovery")));
}

static void open_volume(struct disk *s)
{
    rs_vm_task(&s->v, &rs_task_luks_open, s->args, &s->secrets, false, volume_came);
}

static void disk_open(struct rs_rpc *call)
{
    struct disk *s = begin(call, "provider key uuid use details");
    if (s == NULL || !take_use(s) || !take_given(s, "provider", "key")) return;
    const char *uuid = rs_rpc_text(call, "uuid", 64);
    if (uuid == NULL) return;
    if (*uuid == '\0') {
        open_slot(s, open_volume);
        return;
    }
    if (s->key[0] == '\0' || !take_uuid(s, uuid)) {
        rs_vm_fail(&s->v, RESEAL_EINVAL, "uuid: wants the UUID of a header, and its provider and key too");
        return;
    }
    /* All that a first reading would find: one task is enough, which compares the UUID. */
    set(s, "uuid", json_string(s->uuid));
    s->opened = open_volume;
    get_kek(s);
}

/* ---- disk.phrase, disk.release: the way out ------------------------------------------------- */

/* What is asked for opens the plain text. */
static bool may_be_plain(struct disk *s)
{
    int r = rs_rpc_may_be_plain(s->v.rpc, s->v.object, s->provider);
    if (r != 0) rs_vm_fail(&s->v, r, RS_RPC_NOT_PLAIN, s->v.object);
    return r == 0;
}

static void header_read_for_plain(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    (void)d;
    struct disk *s = ((struct rs_rpc *)arg)->state;
    if (take_header(s, a) && has_key(s) && may_be_plain(s)) get_kek(s);
}

static void phrase_told(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    (void)d;
    struct disk *s = ((struct rs_rpc *)arg)->state;
    if (a->status != 0)
        rs_vm_fail_as(&s->v, a);
    else
        rs_vm_answer(&s->v, reply_of(s, json_object_get(a->result, "luks")), -1);
}

static void tell_phrase(struct disk *s)
{
    rs_vm_task(&s->v, &rs_task_luks_tell, s->args, &s->secrets, false, phrase_told);
}

static void disk_phrase(struct rs_rpc *call)
{
    struct disk *s = begin(call, "provider key details");
    if (s == NULL || !take_given(s, "provider", "key")) return;
    s->opened = tell_phrase;
    read_header(s, s->key[0] == '\0', header_read_for_plain);
}

/* How long the owner's pass phrase may take. False: the call has ended. */
static bool take_pbkdf(struct disk *s)
{
    int64_t ms = rs_rpc_number(s->v.rpc, "pbkdf_ms", 30000, 0);
    if (ms >= 0) set(s, "pbkdf_ms", json_integer(ms));
    return ms >= 0;
}

static void release_slot(struct disk *s)
{
    rs_vm_task(&s->v, &rs_task_luks_release, s->args, &s->secrets, false, changed);
}

static void disk_release(struct rs_rpc *call)
{
    struct disk *s = begin(call, "provider key pbkdf_ms details");
    if (s == NULL || !rs_rpc_may(call, RS_PRIV_ACCESS)) return;
    if (!take_given(s, "provider", "key") || !take_pbkdf(s)) return;
    s->opened = release_slot;
    read_header(s, s->key[0] == '\0', header_read_for_plain);
}

/* ---- a KEK for a slot that will be made: given by id, or a new one ---------------------------- */

static void new_kek(struct disk *s, const char *provider, rs_kek_done *done)
{
    bool bad;
    const json_t *details = rs_vm_details(&s->v, &bad);
    const char *key = bad ? NULL : rs_rpc_text(s->v.rpc, "key", sizeof(s->key));
    if (key == NULL) return;
    if (*key == '\0')
        rs_kek_make(s->v.rpc->d, &s->v.who, provider, details, done, s->v.rpc);
    else
        rs_kek_get(s->v.rpc->d, &s->v.who, provider, key, details, done, s->v.rpc);
}

/* Takes note of it. False: the call has ended. */
static bool take_kek(struct disk *s, int status, const struct rs_kek *kek, const char *why)
{
    if (status != 0) {
        rs_vm_fail_kek(&s->v, status, kek, why);
        return false;
    }
    (void)snprintf(s->provider, sizeof(s->provider), "%s", kek->provider);
    (void)snprintf(s->key, sizeof(s->key), "%s", kek->key);
    set(s, "provider", json_string(kek->provider));
    set(s, "key", json_string(kek->key));
    return true;
}

/* ---- disk.rewrap ------------------------------------------------------------------------------ */

static void new_kek_came(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek, const char *why)
{
    (void)d;
    struct disk *s = ((struct rs_rpc *)arg)->state;
    if (take_kek(s, status, kek, why) && put_phrases(s, "new", "new-recovery", kek))
        rs_vm_task(&s->v, &rs_task_luks_rewrap, s->args, &s->secrets, false, changed);
}

/* Under another provider's key the disk is what the policy's pairs say of that one. False: the call has
 * ended. */
static bool may_move(struct disk *s, const char *provider)
{
    int r = strcmp(s->provider, provider) == 0
                ? 0
                : rs_rpc_may_move(s->v.rpc, s->v.object, s->provider, provider);
    if (r != 0)
        rs_vm_fail(&s->v, r,
                   "%s, provider:%s -> provider:%s is not granted: the policy must list the pair, see "
                   "reseal-policy(5)",
                   s->v.object, s->provider, provider);
    return r == 0;
}

static void rewrap_slot(struct disk *s)
{
    const char *provider = rs_rpc_text(s->v.rpc, "provider", sizeof(s->provider));
    if (provider == NULL) return;
    if (*provider == '\0') provider = s->provider;
    if (may_move(s, provider)) new_kek(s, provider, new_kek_came);
}

static void disk_rewrap(struct rs_rpc *call)
{
    struct disk *s = begin(call, "provider key old_provider old_key details");
    if (s != NULL && take_given(s, "old_provider", "old_key")) open_slot(s, rewrap_slot);
}

/* ---- disk.adopt -------------------------------------------------------------------------------- */

static void kek_for_adopted(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek,
                            const char *why)
{
    (void)d;
    struct disk *s = ((struct rs_rpc *)arg)->state;
    if (!take_kek(s, status, kek, why)) return;
    if (put_phrase(s, "phrase", kek, true) != 0)
        fail_memory(s);
    else
        rs_vm_task(&s->v, &rs_task_luks_adopt, s->args, &s->secrets, false, changed);
}

static void header_read_for_adopt(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    (void)d;
    struct disk *s = ((struct rs_rpc *)arg)->state;
    if (!take_header(s, a)) return;
    const char *provider = rs_rpc_text(s->v.rpc, "provider", sizeof(s->provider));
    if (provider != NULL) new_kek(s, provider, kek_for_adopted);
}

static void disk_adopt(struct rs_rpc *call)
{
    struct disk *s = begin(call, "provider key details");
    if (s != NULL) read_header(s, false, header_read_for_adopt);
}

/* ---- disk.format --------------------------------------------------------------------------------- */

static void header_made(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    (void)d;
    struct disk *s = ((struct rs_rpc *)arg)->state;
    if (a->status != 0)
        rs_vm_fail_as(&s->v, a);
    else
        answer_key(s, a, s->recovery);
}

static void kek_for_format(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek,
                           const char *why)
{
    (void)d;
    struct disk *s = ((struct rs_rpc *)arg)->state;
    if (!take_kek(s, status, kek, why)) return;
    if (put_phrase(s, "phrase", kek, s->recovery) != 0)
        fail_memory(s);
    else
        rs_vm_task(&s->v, &rs_task_luks_make, s->args, &s->secrets, false, header_made);
}

/* What the header shall be; its numbers are checked by the task. False: the call has ended. */
static bool take_format(struct disk *s)
{
    static const char *const numbers[] = {"version", "unit", "key_bits", "data_offset", "data_size"};
    for (unsigned i = 0; i < RS_ARRAY_LEN(numbers); i++) {
        int64_t n = rs_rpc_number(s->v.rpc, numbers[i], i < 3 ? INT32_MAX : SIZE_MAX_ARG, 0);
        if (n < 0) return false;
        set(s, numbers[i], json_integer(n));
    }
    const char *label = rs_rpc_text(s->v.rpc, "label", 48);
    int recovery = label != NULL ? rs_rpc_flag(s->v.rpc, "recovery") : -1;
    if (recovery < 0) return false;
    int detached = rs_rpc_flag(s->v.rpc, "detached");
    if (detached < 0) return false;
    set(s, "label", json_string(label));
    set(s, "recovery", json_boolean(recovery));
    set(s, "detached", json_boolean(detached));
    s->recovery = recovery == 1;
    return take_pbkdf(s) && take_use(s);
}

static void disk_format(struct rs_rpc *call)
{
    struct disk *s =
        begin(call, "provider key version unit key_bits data_offset data_size detached label use "
                    "recovery pbkdf_ms existing details");
    int existing = s != NULL ? rs_rpc_flag(call, "existing") : -1;
    if (existing < 0 || !rs_rpc_may(call, existing == 1 ? RS_PRIV_ENCRYPT : RS_PRIV_ENCRYPT_NEW)) return;
    if (!take_format(s)) return;
    if (s->recovery != (call->nfds == 1)) {
        rs_vm_fail(&s->v, RESEAL_EINVAL,
                   "recovery: true wants the pass phrase in a descriptor, and nothing else does");
        return;
    }
    if (rs_luks_uuid_new(s->uuid) != 0) {
        fail_memory(s);
        return;
    }
    name_object(s);
    set(s, "uuid", json_string(s->uuid));
    const char *provider = rs_rpc_text(call, "provider", sizeof(s->provider));
    if (provider != NULL) new_kek(s, provider, kek_for_format);
}

const struct rs_rpc_method rs_rpc_disks[] = {
    {"disk.format", 0, 1, RS_NO_PRIVILEGE, disk_format},
    {"disk.open", 1, 1, RS_NO_PRIVILEGE, disk_open},
    {"disk.rewrap", 1, 1, RS_PRIV_RECRYPT, disk_rewrap},
    {"disk.phrase", 2, 2, RS_PRIV_ACCESS, disk_phrase},
    {"disk.adopt", 2, 2, RS_PRIV_ENCRYPT, disk_adopt},
    {"disk.release", 2, 2, RS_PRIV_DECRYPT, disk_release},
    {NULL, 0, 0, 0, NULL},
};
