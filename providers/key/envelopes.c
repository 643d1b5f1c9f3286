/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Methods file.*: envelopes sealed, opened, sealed anew, described. What is read and written are
 * descriptors of the client, which a child works on (envelope-tasks.h); here is found which key it
 * takes. A VM's bundle must be read first, by a child of its own, to know which KEK opens it.
 */
#include "providers/key/envelope-tasks.h"
#include "providers/key/envelope.h"
#include "providers/key/events.h"
#include "providers/key/host-key.h"
#include "providers/key/providers.h"
#include "providers/key/rpc.h"
#include "providers/key/vm-home.h"

#include <stdlib.h>

#define AAD_MAX     256u
#define TEXT_MAX    512u /* bytes of an attribute's text, with NUL */
#define OBJECT_MAX  (RS_PROVIDER_NAME_MAX + RS_KEY_ID_MAX + 8u)
#define MAX_ALLOWED ((int64_t)RS_ENVELOPE_TEXT_MAX)

struct job {
    const struct rs_task_kind *task;
    json_t *args;              /* of the task */
    struct rs_secrets secrets; /* of the task: KEKs */
    const char *bundles[2];    /* whose KEKs are asked for, one after the other; texts of the call */
    unsigned nbundles, asked;
    bool to_plain; /* what a bundle's key opens goes out, or to a pass phrase: who has it can read it */
    char object[OBJECT_MAX];
};

/* What the first bundle and the second are to the task. */
static const char *const lock_names[] = {"lock", "to_lock"}, *const kek_names[] = {"kek", "to_kek"};

static void audit(const struct rs_rpc *call, int status)
{
    const struct job *j = call->state;
    struct rs_who who = rs_rpc_who(call);
    rs_audit(call->d, &who, call->method, j->object, status, NULL);
}

static void drop_job(struct rs_rpc *call)
{
    struct job *j = call->state;
    json_decref(j->args);
    rs_secrets_free(&j->secrets);
    free(j);
}

/* False: the call has failed. */
static bool make_job(struct rs_rpc *call, const struct rs_task_kind *task)
{
    struct job *j = calloc(1, sizeof(*j));
    json_t *args = json_object();
    if (j == NULL || args == NULL) {
        free(j);
        json_decref(args);
        rs_rpc_fail(call, RESEAL_ENOMEM, NULL);
        return false;
    }
    *j = (struct job){.task = task, .args = args};
    call->state = j;
    call->drop = drop_job;
    return true;
}

static bool set(struct rs_rpc *call, const char *name, json_t *value)
{
    struct job *j = call->state;
    if (json_object_set_new(j->args, name, value) == 0) return true;
    rs_rpc_fail(call, RESEAL_ENOMEM, NULL);
    return false;
}

/* ---- the work ------------------------------------------------------------------------- */

/* A sealed core dump is something that administrators want to hear of. */
static void tell_of_core(const struct rs_rpc *call)
{
    const struct job *j = call->state;
    const char *what = json_string_value(json_object_get(call->args, "what"));
    if (what == NULL || strcmp(what, "core") != 0) return;
    json_t *details = json_deep_copy(json_object_get(j->args, "attributes"));
    rs_event(call->d, "", RS_EVENT_CORE_DUMPED,
             "a program crashed; its memory was sealed under the host's key", details);
}

static void worked(struct rs_keyd *d, void *arg, struct rs_task_answer *answer)
{
    struct rs_rpc *call = arg;
    struct job *j = call->state;
    (void)d;
    if (j->object[0] != '\0') audit(call, answer->status);
    if (answer->status != 0) {
        rs_rpc_fail_as(call, answer);
        return;
    }
    if (j->task == &rs_task_file_seal) tell_of_core(call);
    rs_rpc_answer(call, json_deep_copy(answer->result), -1);
}

static void work(struct rs_rpc *call, const struct rs_secrets *secrets)
{
    struct job *j = call->state;
    int fds[RS_TASK_FDS] = {-1, -1, -1};
    unsigned nfds = call->nfds;
    for (unsigned i = 0; i < nfds; i++) {
        fds[i] = call->fds[i];
        call->fds[i] = -1;
    }
    int r = rs_task_start(call->d, j->task, call->client->uid, j->args, secrets, fds, nfds, worked, call);
    if (r != 0) rs_rpc_fail(call, r, NULL);
}

/* ---- keys ----------------------------------------------------------------------------- */

static void with_host_key(struct rs_rpc *call)
{
    struct job *j = call->state;
    struct rs_who who = rs_rpc_who(call);
    struct rs_secrets keys;
    char info[sizeof(RS_KEYINFO_HOST) + RS_HOST_KEY_ID];
    int r = rs_host_key(call->d, &who, &keys);
    if (r != 0) {
        rs_rpc_fail(call, r, "the key of this host cannot be read from the state folder: %s",
                    reseal_strerror(r));
        return;
    }
    (void)snprintf(info, sizeof(info), RS_KEYINFO_HOST "%s", keys.at[0].name);
    (void)snprintf(j->object, sizeof(j->object), "host-key:%s", keys.at[0].name);
    if (set(call, "keyInfo", json_string(info))) work(call, &keys);
    rs_secrets_free(&keys);
}

static void next_bundle(struct rs_rpc *call);

static void with_kek(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek, const char *why)
{
    struct rs_rpc *call = arg;
    struct job *j = call->state;
    (void)d;
    int r = status;
    if (r == 0) r = rs_secrets_put(&j->secrets, kek_names[j->asked], kek->bytes, RS_KEK_LEN);
    j->asked++;
    if (r == 0)
        next_bundle(call);
    else
        rs_rpc_fail(call, r, "%s", status != 0 ? why : reseal_strerror(r));
}

/* What this provider's key opens may go out, as it is or to a pass phrase; false: the call has failed. */
static bool may_be_plain(struct rs_rpc *call, const char *provider)
{
    char name[RS_PROVIDER_NAME_MAX + 16];
    (void)snprintf(name, sizeof(name), "provider:%s", provider);
    int r = rs_rpc_may_be_plain(call, name, provider);
    if (r == 0) return true;
    audit(call, r);
    rs_rpc_fail(call, r, RS_RPC_NOT_PLAIN, name);
    return false;
}

/* From the first bundle's provider to the second's; false: the call has failed. */
static bool may_rewrap(struct rs_rpc *call, const char *other)
{
    const struct job *j = call->state;
    const char *provider =
        json_string_value(json_object_get(json_object_get(j->args, lock_names[0]), "provider"));
    int r = rs_rpc_may_rewrap(call, provider, other);
    if (r == 0) return true;
    audit(call, r);
    rs_rpc_fail(call, r, RS_RPC_NOT_REWRAPPED, provider, other);
    return false;
}

static void bundle_read(struct rs_keyd *d, void *arg, struct rs_task_answer *answer)
{
    struct rs_rpc *call = arg;
    struct job *j = call->state;
    struct rs_who who = rs_rpc_who(call);
    if (answer->status != 0) {
        rs_rpc_fail_as(call, answer);
        return;
    }
    json_t *lock = json_deep_copy(answer->result);
    const char *provider = json_string_value(json_object_get(lock, "provider"));
    const char *key = json_string_value(json_object_get(lock, "key"));
    bool ok = provider != NULL && key != NULL && strlen(provider) < RS_PROVIDER_NAME_MAX &&
              strlen(key) < RS_KEY_ID_MAX;
    if (!ok) {
        json_decref(lock);
        rs_rpc_fail(call, RESEAL_EFORMAT, "bundle: names no key provider and key");
        return;
    }
    (void)snprintf(j->object, sizeof(j->object), "kek:%s/%s", provider, key);
    if ((j->to_plain && !may_be_plain(call, provider)) || (j->asked == 1 && !may_rewrap(call, provider))) {
        json_decref(lock);
        return;
    }
    /* It lives in the arguments from here on, and the two texts with it. */
    if (set(call, lock_names[j->asked], lock)) rs_kek_get(d, &who, provider, key, NULL, with_kek, call);
}

/* Asks for the KEK of the bundle whose turn it is; then for the work. */
static void next_bundle(struct rs_rpc *call)
{
    struct job *j = call->state;
    if (j->asked == j->nbundles) {
        if (set(call, "keyInfo", json_string(RS_KEYINFO_BUNDLE))) work(call, &j->secrets);
        return;
    }
    json_t *args = json_pack("{ss}", "text", j->bundles[j->asked]);
    int r = args != NULL ? rs_task_start(call->d, &rs_task_home_lock, call->client->uid, args, NULL, NULL, 0,
                                         bundle_read, call)
                         : RESEAL_ENOMEM;
    json_decref(args);
    if (r != 0) rs_rpc_fail(call, r, NULL);
}

static void with_bundles(struct rs_rpc *call, const char *bundle, const char *to)
{
    struct job *j = call->state;
    j->bundles[0] = bundle;
    j->bundles[1] = to;
    j->nbundles = to != NULL ? 2 : 1;
    next_bundle(call);
}

/* What the request names as the key; NULL: the call has failed. Exactly one of the three. */
static const char *named_key(struct rs_rpc *call, const char **bundle)
{
    int host = rs_rpc_flag(call, "host");
    if (host < 0) return NULL;
    int phrase = rs_rpc_flag(call, "phrase");
    if (phrase < 0) return NULL;
    *bundle = rs_rpc_text(call, "bundle", RS_HOME_TEXT_MAX);
    if (*bundle == NULL) return NULL;
    if (host + phrase + (**bundle != '\0') != 1) {
        rs_rpc_fail(call, RESEAL_EINVAL, "one of host, bundle and phrase must be given, and no other");
        return NULL;
    }
    return host == 1 ? "host" : phrase == 1 ? "phrase" : "bundle";
}

/* False: the call has failed. */
static bool take_aad(struct rs_rpc *call)
{
    const char *aad = rs_rpc_text(call, "aad", AAD_MAX);
    return aad != NULL && set(call, "aad", json_string(aad));
}

/* ---- methods ---------------------------------------------------------------------------- */

/* Attributes that the client wants in the header; false: the call has failed. */
static bool take_attributes(struct rs_rpc *call)
{
    const json_t *given = json_object_get(call->args, "attributes");
    const char *name;
    json_t *value;
    if (given != NULL && (!json_is_object(given) || json_object_size(given) > RS_FILE_ATTRIBUTES)) {
        rs_rpc_fail(call, RESEAL_EINVAL, "attributes: wants an object of at most %u texts",
                    RS_FILE_ATTRIBUTES);
        return false;
    }
    json_object_foreach((json_t *)(uintptr_t)given, name, value)
    {
        if (rs_file_attribute_ok(name) && json_is_string(value) && json_string_length(value) < TEXT_MAX)
            continue;
        rs_rpc_fail(
            call, RESEAL_EINVAL,
            "attributes: %.48s: wants a name of letters, digits, '.', '-' and '_' that does not begin with "
            "vmware. or reseal., and a text of at most %u bytes",
            name, TEXT_MAX - 1);
        return false;
    }
    return set(call, "attributes", given != NULL ? json_deep_copy(given) : json_object());
}

static void file_seal(struct rs_rpc *call)
{
    const char *bundle = "";
    if (!rs_rpc_args(call, "bundle host phrase aad attributes what max") ||
        !make_job(call, &rs_task_file_seal))
        return;
    const char *by = named_key(call, &bundle);
    if (by == NULL) return;
    bool phrase = strcmp(by, "phrase") == 0;
    if (call->nfds != (phrase ? 3u : 2u)) {
        rs_rpc_fail(call, RESEAL_EINVAL,
                    "file.seal wants a plain text, a file to write, and with phrase: true a third descriptor "
                    "that the pass phrase is read from");
        return;
    }
    /* Whoever may use the service may have its core dumps sealed. */
    if (strcmp(by, "host") != 0 && !rs_rpc_may(call, RS_PRIV_ENCRYPT)) return;
    const char *what = rs_rpc_text(call, "what", 32);
    if (what == NULL) return;
    int64_t max = rs_rpc_number(call, "max", MAX_ALLOWED, 0);
    if (max < 0 || !set(call, "max", json_integer(max)) || !take_aad(call) || !take_attributes(call)) return;
    if (phrase) {
        if (set(call, "keyInfo", json_string(RS_KEYINFO_PHRASE))) work(call, NULL);
    } else if (strcmp(by, "host") == 0) {
        with_host_key(call);
    } else {
        with_bundles(call, bundle, NULL);
    }
}

static void file_open(struct rs_rpc *call)
{
    const char *bundle = "";
    if (!rs_rpc_args(call, "bundle host phrase aad") || !make_job(call, &rs_task_file_open)) return;
    const char *by = named_key(call, &bundle);
    if (by == NULL) return;
    bool phrase = strcmp(by, "phrase") == 0;
    if (call->nfds != (phrase ? 3u : 2u)) {
        rs_rpc_fail(call, RESEAL_EINVAL,
                    "file.open wants an envelope, a file to write, and with phrase: true a third "
                    "descriptor that the pass phrase is read from");
        return;
    }
    if (!take_aad(call) || !set(call, "key", json_string(by))) return;
    struct job *j = call->state;
    j->to_plain = strcmp(by, "bundle") == 0;
    if (phrase)
        work(call, NULL);
    else if (strcmp(by, "host") == 0)
        with_host_key(call);
    else
        with_bundles(call, bundle, NULL);
}

/* To a pass phrase: who has that can read it. From bundle to bundle: who may, by the pairs of their
 * providers. */
static void file_rewrap(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "host bundle to aad") || !make_job(call, &rs_task_file_rewrap)) return;
    const char *bundle = "", *by = named_key(call, &bundle);
    if (by == NULL) return;
    struct job *j = call->state;
    bool host = strcmp(by, "host") == 0;
    const char *to = rs_rpc_need(call, "to", RS_HOME_TEXT_MAX);
    bool phrase = to != NULL && strcmp(to, "phrase") == 0;
    if (to == NULL || !rs_rpc_may(call, phrase ? RS_PRIV_ACCESS : RS_PRIV_RECRYPT)) return;
    if ((host && !phrase) || call->nfds != (phrase ? 3u : 2u)) {
        rs_rpc_fail(
            call, RESEAL_EINVAL,
            "file.rewrap goes from host: true or a bundle to \"phrase\", with a third descriptor that "
            "the pass phrase is read from, or from one bundle to another");
        return;
    }
    if (!take_aad(call) || !set(call, "key", json_string(by)) ||
        !set(call, "to", json_string(phrase ? "phrase" : "bundle")))
        return;
    j->to_plain = phrase && !host;
    if (host)
        with_host_key(call);
    else
        with_bundles(call, bundle, phrase ? NULL : to);
}

static void file_describe(struct rs_rpc *call)
{
    if (rs_rpc_args(call, "") && make_job(call, &rs_task_file_describe)) work(call, NULL);
}

const struct rs_rpc_method rs_rpc_envelopes[] = {
    {"file.seal", 2, 3, RS_NO_PRIVILEGE, file_seal}, /* Encrypt for a bundle and a pass phrase */
    {"file.open", 2, 3, RS_PRIV_ACCESS, file_open},
    {"file.rewrap", 2, 3, RS_NO_PRIVILEGE, file_rewrap}, /* Access, or Recrypt between bundles */
    {"file.describe", 1, 1, RS_NO_PRIVILEGE, file_describe},
    {NULL, 0, 0, 0, NULL},
};
