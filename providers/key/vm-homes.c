/* SPDX-License-Identifier: Apache-2.0 */
/* VM homes: encryption.keySafe, encryption.data and encryption.bundle of a .vmx, locked with a KEK. */
#include "offload/base/keymem.h"
#include "offload/vm/nodes.h"
#include "providers/key/providers.h"
#include "providers/key/vm-call.h"
#include "providers/key/vm-home-tasks.h"
#include "providers/key/vm-home.h"

#include <stdio.h>
#include <stdlib.h>

/* What a request knows so far; the call's state. */
struct home {
    struct rs_vm_call v;
    const struct rs_task_kind *work; /* the task that needs the KEK */
    json_t *args;                    /* its arguments */
    struct rs_secrets secrets;       /* "kek", and a second one */
    char provider[RS_PROVIDER_NAME_MAX],
        key[RS_KEY_ID_MAX]; /* what is locked waits for, then shall wait for */
};

static void drop(struct rs_rpc *call)
{
    struct home *s = call->state;
    rs_secrets_free(&s->secrets);
    json_decref(s->args);
    free(s);
}

static struct home *begin(struct rs_rpc *call, const char *args, const struct rs_task_kind *work)
{
    struct home *s = rs_vm_begin(call, args, sizeof(*s), drop);
    if (s == NULL) return NULL;
    s->work = work;
    s->args = json_object(); /* one that is missing fails with the task */
    return s;
}

static void set(struct home *s, const char *name, json_t *value)
{
    (void)json_object_set_new(s->args, name, value); /* one that is missing is told by the task */
}

/* The name by which the audit knows it: that of the key. */
static void name_object(struct home *s)
{
    (void)snprintf(s->v.object, sizeof(s->v.object), "kek:%s/%s", s->provider, s->key);
}

/* ---- the end --------------------------------------------------------------------------- */

static void worked(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    (void)d;
    struct home *s = ((struct rs_rpc *)arg)->state;
    if (a->status != 0) {
        rs_vm_fail_as(&s->v, a);
        return;
    }
    json_t *reply = json_deep_copy(a->result);
    int fd = a->fd;
    a->fd = -1;
    (void)json_object_set_new(reply, "provider", json_string(s->provider));
    (void)json_object_set_new(reply, "key", json_string(s->key));
    rs_vm_answer(&s->v, reply, fd);
}

static void work(struct home *s)
{
    rs_vm_task(&s->v, s->work, s->args, &s->secrets, false, worked);
}

/* Keeps a KEK for the work. False: the call has ended. */
static bool keep_kek(struct home *s, const char *name, int status, const struct rs_kek *kek, const char *why)
{
    if (status != 0) {
        rs_vm_fail_kek(&s->v, status, kek, why);
        return false;
    }
    (void)snprintf(s->provider, sizeof(s->provider), "%s", kek->provider);
    (void)snprintf(s->key, sizeof(s->key), "%s", kek->key);
    if (rs_secrets_put(&s->secrets, name, kek->bytes, RS_KEK_LEN) == 0) return true;
    rs_vm_fail(&s->v, RESEAL_ENOMEM, "key memory is out");
    return false;
}

/* ---- what is locked, and its KEK ------------------------------------------------------------ */

/* Starts the reading of the texts in the arguments. */
static void read_texts(struct home *s, bool safe, bool phrase, rs_task_done *then)
{
    const char *safe_text = safe ? rs_rpc_need(s->v.rpc, "keySafe", RS_HOME_TEXT_MAX) : "";
    const char *bundle = safe_text != NULL ? rs_rpc_text(s->v.rpc, "bundle", RS_HOME_TEXT_MAX) : NULL;
    if (bundle == NULL) return;
    json_t *args = json_pack("{s:s, s:s, s:b}", "keySafe", safe_text, "bundle", bundle, "phrase", phrase);
    rs_vm_task(&s->v, &rs_task_home_read, args, NULL, true, then);
    json_decref(args);
}

/* The locks go to the task that opens them. False: the call has ended. */
static bool take_locks(struct home *s, const struct rs_task_answer *a)
{
    const char *provider = json_string_value(json_object_get(a->result, "provider"));
    const char *key = json_string_value(json_object_get(a->result, "key"));
    if (a->status != 0) {
        rs_vm_fail_as(&s->v, a);
        return false;
    }
    (void)snprintf(s->provider, sizeof(s->provider), "%s", provider != NULL ? provider : "");
    if (key != NULL && strlen(key) < sizeof(s->key)) (void)snprintf(s->key, sizeof(s->key), "%s", key);
    /* Who reads foreign text may not say what is done with it. */
    (void)json_object_update_missing(s->args, (json_t *)(uintptr_t)a->result);
    if (s->key[0] != '\0' && provider != NULL && strlen(provider) < sizeof(s->provider)) {
        name_object(s);
        return true;
    }
    rs_vm_fail(&s->v, RESEAL_EFORMAT, "the key that it is locked with has no name that could be one");
    return false;
}

static void get_kek(struct home *s, rs_kek_done *then)
{
    bool bad;
    const json_t *details = rs_vm_details(&s->v, &bad);
    if (!bad) rs_kek_get(s->v.rpc->d, &s->v.who, s->provider, s->key, details, then, s->v.rpc);
}

/* ---- home.open, home.check -------------------------------------------------------------------- */

static void kek_came(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek, const char *why)
{
    (void)d;
    struct home *s = ((struct rs_rpc *)arg)->state;
    if (keep_kek(s, "kek", status, kek, why)) work(s);
}

static void texts_read(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    (void)d;
    struct home *s = ((struct rs_rpc *)arg)->state;
    if (take_locks(s, a)) get_kek(s, kek_came);
}

/* What is decrypted for good takes a privilege of its own. */
static bool may_release(struct rs_rpc *call)
{
    int release = rs_rpc_flag(call, "release");
    return release == 0 || (release == 1 && rs_rpc_may(call, RS_PRIV_DECRYPT));
}

static void home_open(struct rs_rpc *call)
{
    struct home *s = begin(call, "keySafe bundle release details", &rs_task_home_open);
    if (s != NULL && may_release(call)) read_texts(s, true, false, texts_read);
}

static void home_check(struct rs_rpc *call)
{
    struct home *s = begin(call, "keySafe bundle details", &rs_task_home_open);
    if (s == NULL) return;
    set(s, "check", json_true());
    read_texts(s, true, false, texts_read);
}

/* ---- home.phrase -------------------------------------------------------------------------------- */

static void phrase_read(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    (void)d;
    struct home *s = ((struct rs_rpc *)arg)->state;
    if (a->status != 0) {
        rs_vm_fail_as(&s->v, a);
        return;
    }
    (void)json_object_update_missing(s->args, (json_t *)(uintptr_t)a->result);
    work(s);
}

static void name_phrase(struct home *s)
{
    (void)snprintf(s->v.object, sizeof(s->v.object), "phrase");
}

static void home_phrase(struct rs_rpc *call)
{
    struct home *s = begin(call, "keySafe bundle release", &rs_task_home_phrase);
    if (s == NULL || !may_release(call)) return;
    name_phrase(s);
    read_texts(s, true, true, phrase_read);
}

/* ---- home.disk ------------------------------------------------------------------------------------ */

/* Which disk, and where. False: the call has ended. */
static bool take_node(struct home *s)
{
    const char *node = rs_rpc_need(s->v.rpc, "node", RS_DISK_NODE_MAX);
    const char *file = node != NULL ? rs_rpc_text(s->v.rpc, "file", PATH_MAX) : NULL;
    if (file == NULL) return false;
    if (!rs_vm_node_ok(node)) {
        rs_vm_fail(&s->v, RESEAL_EINVAL, "%s: no disk can be there; one like scsi0:1 is", node);
        return false;
    }
    set(s, "node", json_string(node));
    set(s, "file", json_string(file));
    return true;
}

static void home_disk(struct rs_rpc *call)
{
    bool phrase = call->nfds == 2;
    struct home *s =
        begin(call, "keySafe bundle node file details", phrase ? &rs_task_home_phrase : &rs_task_home_open);
    if (s == NULL || !take_node(s)) return;
    if (phrase) name_phrase(s);
    read_texts(s, true, phrase, phrase ? phrase_read : texts_read);
}

/* ---- home.rewrap, home.seal: a KEK that is given by id, or a new one ------------------------------ */

static void new_kek(struct home *s, const char *provider, rs_kek_done *then)
{
    bool bad;
    const json_t *details = rs_vm_details(&s->v, &bad);
    const char *key = bad ? NULL : rs_rpc_text(s->v.rpc, "key", sizeof(s->key));
    if (key == NULL) return;
    if (*key == '\0')
        rs_kek_make(s->v.rpc->d, &s->v.who, provider, details, then, s->v.rpc);
    else
        rs_kek_get(s->v.rpc->d, &s->v.who, provider, key, details, then, s->v.rpc);
}

/* The same for a home that has one already: who may use the new provider's keys is not who may use the old
 * one's, and it is they who can open what the bundle guards from now on. */
static void other_kek(struct home *s, const char *provider, rs_kek_done *then)
{
    const char *other = *provider != '\0' ? provider : s->provider;
    int r = rs_rpc_may_rewrap(s->v.rpc, s->provider, other);
    if (r == 0)
        new_kek(s, other, then);
    else
        rs_vm_fail(&s->v, r, RS_RPC_NOT_REWRAPPED, s->provider, other);
}

/* The texts will name this KEK. */
static void use_new(struct home *s, const char *name, int status, const struct rs_kek *kek, const char *why)
{
    if (!keep_kek(s, name, status, kek, why)) return;
    name_object(s);
    set(s, "provider", json_string(s->provider));
    set(s, "key", json_string(s->key));
    work(s);
}

static void new_for_rewrap(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek,
                           const char *why)
{
    (void)d;
    use_new(((struct rs_rpc *)arg)->state, "new", status, kek, why);
}

/* The answer names no key: there is none any more. */
static void kek_came_for_phrase(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek,
                                const char *why)
{
    (void)d;
    struct home *s = ((struct rs_rpc *)arg)->state;
    if (!keep_kek(s, "kek", status, kek, why)) return;
    s->provider[0] = s->key[0] = '\0';
    work(s);
}

static void old_for_rewrap(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek,
                           const char *why)
{
    (void)d;
    struct home *s = ((struct rs_rpc *)arg)->state;
    if (!keep_kek(s, "kek", status, kek, why)) return;
    const char *provider = rs_rpc_text(s->v.rpc, "provider", sizeof(s->provider));
    if (provider != NULL) other_kek(s, provider, new_for_rewrap);
}

static void texts_read_for_rewrap(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    (void)d;
    struct home *s = ((struct rs_rpc *)arg)->state;
    if (take_locks(s, a)) get_kek(s, old_for_rewrap);
}

/* Who has the pass phrase opens the home: the way out. */
static void texts_read_for_phrase(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    (void)d;
    struct home *s = ((struct rs_rpc *)arg)->state;
    if (!take_locks(s, a)) return;
    char name[RS_PROVIDER_NAME_MAX + 16]; /* as a policy writes it */
    (void)snprintf(name, sizeof(name), "provider:%s", s->provider);
    int r = rs_rpc_may_be_plain(s->v.rpc, name, s->provider);
    if (r != 0)
        rs_vm_fail(&s->v, r, RS_RPC_NOT_PLAIN, name);
    else
        get_kek(s, kek_came_for_phrase);
}

/* Whether the descriptor behind the `others` is a pass phrase that shall lock. -1: the call has ended. */
static int to_phrase(struct home *s, unsigned others)
{
    struct rs_rpc *call = s->v.rpc;
    int phrase = rs_rpc_flag(call, "phrase");
    if (phrase < 0) return -1;
    bool given =
        json_object_get(call->args, "provider") != NULL || json_object_get(call->args, "key") != NULL;
    if (call->nfds == others + (unsigned)phrase && !(phrase == 1 && given)) {
        if (phrase == 1) set(s, "to_phrase", json_true());
        return phrase;
    }
    rs_vm_fail(
        &s->v, RESEAL_EINVAL,
        "phrase: true wants the pass phrase in a descriptor and no provider or key; nothing else does");
    return -1;
}

static void home_rewrap(struct rs_rpc *call)
{
    struct home *s = begin(call, "keySafe bundle provider key phrase details", &rs_task_home_rewrap);
    int phrase = s != NULL ? to_phrase(s, 0) : -1;
    if (phrase >= 0) read_texts(s, true, false, phrase == 1 ? texts_read_for_phrase : texts_read_for_rewrap);
}

static void new_for_seal(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek, const char *why)
{
    (void)d;
    use_new(((struct rs_rpc *)arg)->state, "kek", status, kek, why);
}

static void old_for_seal(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek, const char *why)
{
    (void)d;
    struct home *s = ((struct rs_rpc *)arg)->state;
    if (!keep_kek(s, "old", status, kek, why)) return;
    const char *provider = rs_rpc_text(s->v.rpc, "provider", sizeof(s->provider));
    const char *key = provider != NULL ? rs_rpc_text(s->v.rpc, "key", sizeof(s->key)) : NULL;
    if (key == NULL) return;
    if (*provider == '\0' && *key == '\0')
        use_new(s, "kek", status, kek, why); /* the same one again */
    else
        other_kek(s, provider, new_for_seal);
}

static void bundle_read(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    (void)d;
    struct home *s = ((struct rs_rpc *)arg)->state;
    if (take_locks(s, a)) get_kek(s, old_for_seal);
}

static void home_seal(struct rs_rpc *call)
{
    struct home *s = begin(call, "provider key bundle new phrase details", &rs_task_home_seal);
    int new = s != NULL ? rs_rpc_flag(call, "new") : -1;
    if (new < 0 || !rs_rpc_may(call, new == 1 ? RS_PRIV_ENCRYPT_NEW : RS_PRIV_ENCRYPT)) return;
    int phrase = to_phrase(s, 1);
    if (phrase < 0) return;
    if (phrase == 1) {
        name_phrase(s);
        work(s);
        return;
    }
    const char *bundle = rs_rpc_text(call, "bundle", RS_HOME_TEXT_MAX);
    const char *provider = bundle != NULL ? rs_rpc_text(call, "provider", sizeof(s->provider)) : NULL;
    if (provider == NULL) return;
    if (*bundle != '\0')
        read_texts(s, false, false, bundle_read);
    else
        new_kek(s, provider, new_for_seal);
}

const struct rs_rpc_method rs_rpc_homes[] = {
    {"home.seal", 1, 2, RS_NO_PRIVILEGE, home_seal},
    {"home.open", 1, 1, RS_PRIV_REGISTER_VM, home_open},
    {"home.check", 1, 1, RS_NO_PRIVILEGE, home_check},
    {"home.disk", 1, 2, RS_PRIV_ADD_DISK, home_disk},
    {"home.rewrap", 0, 1, RS_PRIV_RECRYPT, home_rewrap},
    {"home.phrase", 2, 2, RS_PRIV_REGISTER_VM, home_phrase},
    {NULL, 0, 0, 0, NULL},
};
