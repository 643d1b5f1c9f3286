/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts and clusters: what is kept of them, and the methods host.*. */
#include "providers/key/hosts.h"

#include "offload/base/keymem.h"
#include "providers/key/events.h"
#include "providers/key/receipt.h"
#include "providers/key/rooms.h"
#include "providers/key/store.h"
#include "providers/key/wire/tls.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#define OBJECT   "hosts.json"
#define IDENTITY "host-identity.sealed"
#define KEYS     "cluster-keys.jsonl"
#define KEYS_MAX ((off_t)RS_HOST_KEYS_MAX * 1024)

/* ---- the store --------------------------------------------------------------------------- */

int rs_hosts_save(struct rs_keyd *d)
{
    struct rs_hosts *all = d->hosts;
    json_t *hosts = json_object();
    for (const struct rs_host *h = all->first; h != NULL; h = h->next)
        (void)json_object_set_new(hosts, h->name,
                                  json_pack("{s:s, s:s, s:s, s:O}", "address", h->address, "pin", h->pin,
                                            "cluster", h->cluster, "removals", h->removals));
    json_t *object = json_pack("{s:o, s:O, s:O, s:O}", "hosts", hosts, "clusters", all->clusters, "managers",
                               all->managers, "given", all->given);
    int r = object == NULL     ? RESEAL_ENOMEM
            : d->store == NULL ? RESEAL_ENOSUPPORT
                               : rs_store_put_json(d->store, OBJECT, object);
    json_decref(object);
    return r;
}

static struct rs_host *host_of(const struct rs_keyd *d, const char *name)
{
    struct rs_host *h = d->hosts->first;
    while (h != NULL && strcmp(h->name, name) != 0) h = h->next;
    return h;
}

static void host_free(struct rs_keyd *d, struct rs_host *h)
{
    struct rs_host **at = &d->hosts->first;
    while (*at != h) at = &(*at)->next;
    *at = h->next;
    rs_host_stop(d, h);
    json_decref(h->removals);
    free(h);
}

static struct rs_host *host_new(struct rs_keyd *d, const char *name, const char *address, const char *pin,
                                const char *cluster)
{
    struct rs_host *h = calloc(1, sizeof(*h)), **at = &d->hosts->first;
    if (h == NULL || (h->removals = json_array()) == NULL) {
        free(h);
        return NULL;
    }
    (void)snprintf(h->name, sizeof(h->name), "%s", name);
    (void)snprintf(h->address, sizeof(h->address), "%s", address);
    (void)snprintf(h->pin, sizeof(h->pin), "%s", pin);
    (void)snprintf(h->cluster, sizeof(h->cluster), "%s", cluster);
    (void)snprintf(h->state, sizeof(h->state), "unknown");
    while (*at != NULL) at = &(*at)->next;
    *at = h;
    return h;
}

/* Takes a member that is an object, or an empty one. */
static json_t *object_of(const json_t *root, const char *name)
{
    json_t *value = json_object_get(root, name);
    return json_is_object(value) ? json_incref(value) : json_object();
}

static int load(struct rs_keyd *d)
{
    struct rs_hosts *all = d->hosts;
    json_t *root = NULL, *entry;
    const char *name;
    int r = d->store != NULL ? rs_store_get_json(d->store, OBJECT, &root) : RESEAL_ENOKEY;
    if (r != 0 && r != RESEAL_ENOKEY) return r;
    all->clusters = object_of(root, "clusters");
    all->managers = object_of(root, "managers");
    all->given = object_of(root, "given");
    json_object_foreach(json_object_get(root, "hosts"), name, entry)
    {
        const char *address, *pin, *cluster;
        json_t *removals;
        if (json_unpack(entry, "{s:s, s:s, s:s, s:o}", "address", &address, "pin", &pin, "cluster", &cluster,
                        "removals", &removals) != 0)
            continue;
        struct rs_host *h = host_new(d, name, address, pin, cluster);
        if (h != NULL) (void)json_array_extend(h->removals, removals);
    }
    json_decref(root);
    return 0;
}

static void load_keys(struct rs_keyd *d)
{
    struct stat st;
    RS_CLOSE int fd =
        d->store != NULL ? openat(rs_store_folder(d->store), KEYS, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size > KEYS_MAX) return;
    RS_FREE char *text = calloc(1, (size_t)st.st_size + 1);
    if (text == NULL || rs_pread_full(fd, text, (size_t)st.st_size, 0) != 0) return;
    for (char *at = text, *end; (end = strchr(at, '\n')) != NULL; at = end + 1) {
        json_t *line = json_loadb(at, (size_t)(end - at), 0, NULL);
        bool ok = json_array_size(line) == 3;
        for (size_t i = 0; ok && i < 3; i++) ok = json_is_string(json_array_get(line, i));
        if (!ok || json_array_append(d->hosts->keys, line) != 0)
            (void)fputs("reseal-keyd: a line of " KEYS " is damaged\n", stderr);
        json_decref(line);
    }
}

/* This service's certificate for other machines, made once. */
static int identity(struct rs_keyd *d)
{
    struct rs_secrets *id = &d->hosts->identity;
    struct rs_wire_identity hashes;
    char *cert = NULL, *key = NULL;
    int r = d->store != NULL ? rs_store_get_secrets(d->store, IDENTITY, id) : RESEAL_ENOKEY;
    if (r == RESEAL_ENOKEY) {
        r = rs_wire_make_identity("reseal-keyd", &cert, &key);
        if (r == 0) r = rs_secrets_put(id, "cert", cert, strlen(cert));
        if (r == 0) r = rs_secrets_put(id, "key", key, strlen(key));
        if (r == 0 && d->store != NULL) r = rs_store_put_secrets(d->store, IDENTITY, id);
        OPENSSL_free(cert);
        if (key != NULL) OPENSSL_clear_free(key, strlen(key));
    }
    const char *text = rs_secrets_text(id, "cert");
    if (r == 0) r = text != NULL ? rs_wire_identity_of_pem(text, &hashes) : RESEAL_EFORMAT;
    if (r == 0) rs_hex(hashes.cert, RS_WIRE_HASH_LEN, d->hosts->fingerprint);
    return r;
}

int rs_hosts_open(struct rs_keyd *d)
{
    d->hosts = calloc(1, sizeof(*d->hosts));
    if (d->hosts == NULL) return RESEAL_ENOMEM;
    d->hosts->agent.fd = -1;
    d->hosts->generation = 1;
    d->hosts->keys = json_array();
    int r = d->hosts->keys != NULL ? identity(d) : RESEAL_ENOMEM;
    if (r == 0) r = load(d);
    if (r == 0) load_keys(d);
    return r;
}

void rs_hosts_close(struct rs_keyd *d)
{
    if (d->hosts == NULL) return;
    while (d->hosts->first != NULL) host_free(d, d->hosts->first);
    rs_keyd_unwatch(d, &d->hosts->agent);
    json_decref(d->hosts->clusters);
    json_decref(d->hosts->managers);
    json_decref(d->hosts->given);
    json_decref(d->hosts->keys);
    rs_secrets_free(&d->hosts->identity);
    free(d->hosts);
    d->hosts = NULL;
}

/* ---- keys in use --------------------------------------------------------------------------- */

/* Whose key it is does not matter to who has to see to it: an event of the service. */
static void tell_full(struct rs_keyd *d, const char *tenant, const char *provider, const char *key)
{
    const struct rs_who self = {.uid = geteuid(), .gid = getegid()};
    char line[300];
    (void)snprintf(
        line, sizeof(line),
        "%u keys are in use by hosts, more are not given to them: where many of those are of the past, "
        "stop the service, remove " KEYS " from its state folder and start it again",
        RS_HOST_KEYS_MAX);
    if (rs_events_times(d, &self, "", RS_EVENT_HOST_KEY_ERROR, line, KEYS) == 0) return;
    rs_event(d, "", RS_EVENT_HOST_KEY_ERROR, line,
             json_pack("{s:s, s:s, s:s}", "of", tenant, "provider", provider, "key", key));
}

void rs_hosts_key_used(struct rs_keyd *d, const char *tenant, const char *provider, const char *key)
{
    if (d->hosts == NULL || d->hosts->first == NULL) return;
    const struct rs_provider *p = rs_providers_of(d, tenant, provider);
    /* With a native provider's primary key a host makes its keys itself. */
    if (p != NULL && strcmp(p->kind->name, "native") == 0) return;
    json_t *entry = json_pack("[s, s, s]", tenant, provider, key);
    size_t index = rs_json_index(d->hosts->keys, entry), n = json_array_size(d->hosts->keys);
    if (entry != NULL && index < n) rs_late_found(d, index);
    if (entry == NULL || index < n || n >= RS_HOST_KEYS_MAX) {
        if (entry != NULL && index == n) tell_full(d, tenant, provider, key);
        json_decref(entry);
        return;
    }
    RS_FREE char *text = json_dumps(entry, JSON_COMPACT);
    if (text == NULL || d->store == NULL || rs_store_append(d->store, KEYS, text, strlen(text)) != 0)
        (void)fputs("reseal-keyd: a key in use is missing in " KEYS
                    ": hosts get it until this service ends\n",
                    stderr);
    (void)json_array_append_new(d->hosts->keys, entry);
    rs_hosts_wake(d);
}

void rs_hosts_providers_changed(struct rs_keyd *d)
{
    if (d->hosts == NULL) return;
    d->hosts->generation++;
    rs_hosts_wake(d);
}

void rs_hosts_provider_back(struct rs_keyd *d, struct rs_provider *p)
{
    json_t *entry;
    size_t i;
    p->late_ns = 0;
    p->late_failures = 0;
    if (d->hosts == NULL || d->hosts->first == NULL) return;
    json_array_foreach(d->hosts->keys, i, entry)
    {
        if (strcmp(json_string_value(json_array_get(entry, 0)), p->tenant) != 0 ||
            strcmp(json_string_value(json_array_get(entry, 1)), p->name) != 0)
            continue;
        for (struct rs_host *h = d->hosts->first; h != NULL; h = h->next) rs_late_again(h, i);
    }
}

void rs_hosts_provider_removed(struct rs_keyd *d, const char *tenant, const char *name)
{
    if (d->hosts == NULL || d->hosts->first == NULL) return;
    for (struct rs_host *h = d->hosts->first; h != NULL; h = h->next)
        (void)json_array_append_new(h->removals, json_pack("[s, s]", tenant, name));
    if (rs_hosts_save(d) != 0) (void)fputs("reseal-keyd: " OBJECT " cannot be written\n", stderr);
    rs_hosts_wake(d);
}

void rs_hosts_key_gone(struct rs_keyd *d, const char *tenant, const char *provider, const char *key)
{
    if (d->hosts == NULL || d->hosts->first == NULL) return;
    for (struct rs_host *h = d->hosts->first; h != NULL; h = h->next)
        (void)json_array_append_new(h->removals, json_pack("[s, s, s]", tenant, provider, key));
    rs_hosts_wake(d);
}

struct seed {
    struct rs_keyd *d;
    const char *tenant;
};

static void seed_key(void *arg, const char *provider, const char *key, uint64_t left_s)
{
    const struct seed *s = arg;
    (void)left_s;
    rs_hosts_key_used(s->d, s->tenant, provider, key);
}

static void seed_tenant(void *arg, const struct rs_tenant *t)
{
    struct seed s = {.d = arg, .tenant = t->name};
    rs_kek_each(arg, t->name, seed_key, &s);
}

/* Keys that were in use before there was a host. */
static void seed(struct rs_keyd *d)
{
    struct seed s = {.d = d, .tenant = ""};
    rs_kek_each(d, "", seed_key, &s);
    rs_policy_each_tenant(d->policy, seed_tenant, d);
}

/* ---- methods ---------------------------------------------------------------------------------- */

static void audit(struct rs_rpc *call, const char *name, int status)
{
    char object[RS_HOST_NAME_MAX + 80];
    const struct rs_who who = rs_who_of(call->client);
    (void)snprintf(object, sizeof(object), "host:%s", name);
    rs_audit(call->d, &who, call->method, object, status, NULL);
}

/* A fingerprint as openssl prints it, or without colons: 64 small digits in `out`. */
static bool fingerprint_of(const char *text, char out[65])
{
    size_t n = 0;
    for (; *text != '\0'; text++) {
        char c = *text >= 'A' && *text <= 'F' ? (char)(*text - 'A' + 'a') : *text;
        if (c == ':') continue;
        bool digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
        if (!digit || n == 64) return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return n == 64;
}

static const char *need_fingerprint(struct rs_rpc *call, char out[65])
{
    const char *text = rs_rpc_need(call, "fingerprint", 128);
    if (text == NULL || fingerprint_of(text, out)) return text;
    rs_rpc_fail(call, RESEAL_EINVAL, "fingerprint: SHA-256 of a certificate, 64 hexadecimal digits");
    return NULL;
}

static void ended(struct rs_rpc *call, const char *name, int r)
{
    audit(call, name, r);
    if (r != 0)
        rs_rpc_fail(call, r, "the state folder: %s", reseal_strerror(r));
    else
        rs_rpc_answer(call, NULL, -1);
}

static void show_identity(struct rs_rpc *call)
{
    const struct rs_hosts *all = call->d->hosts;
    const char *manager;
    if (!rs_rpc_args(call, "")) return;
    json_t *value, *managers = json_array();
    json_object_foreach(all->managers, manager, value)(void)
        json_array_append_new(managers, json_string(manager));
    rs_rpc_answer(call,
                  json_pack("{s:s, s:s, s:s, s:o}", "fingerprint", all->fingerprint, "agent",
                            all->agent_address != NULL ? all->agent_address : "", "state",
                            rs_hosts_state(call->d), "managers", managers),
                  -1);
}

static void set_trusted(json_t *managers, const char *fingerprint, bool trusted)
{
    if (trusted)
        (void)json_object_set_new(managers, fingerprint, json_true());
    else
        (void)json_object_del(managers, fingerprint);
}

static void trust(struct rs_rpc *call)
{
    char fingerprint[65];
    int remove = rs_rpc_args(call, "fingerprint remove") && rs_rpc_administrator(call)
                     ? rs_rpc_flag(call, "remove")
                     : -1;
    if (remove < 0 || need_fingerprint(call, fingerprint) == NULL) return;
    json_t *managers = call->d->hosts->managers;
    bool was = json_object_get(managers, fingerprint) != NULL;
    set_trusted(managers, fingerprint, !remove);
    int r = rs_hosts_save(call->d);
    if (r != 0) set_trusted(managers, fingerprint, was); /* what is not on disk is not so */
    ended(call, fingerprint, r);
}

static void add(struct rs_rpc *call)
{
    char pin[65];
    if (!rs_rpc_args(call, "name address fingerprint cluster") || !rs_rpc_administrator(call)) return;
    const char *name = rs_rpc_need(call, "name", RS_HOST_NAME_MAX),
               *address = name != NULL ? rs_rpc_need(call, "address", 300) : NULL;
    const char *cluster = address != NULL ? rs_rpc_text(call, "cluster", RS_HOST_NAME_MAX) : NULL;
    if (cluster == NULL || need_fingerprint(call, pin) == NULL) return;
    if (*cluster == '\0') cluster = "default";
    unsigned n = 0;
    for (const struct rs_host *h = call->d->hosts->first; h != NULL; h = h->next) n++;
    if (!rs_provider_name_ok(name) || !rs_provider_name_ok(cluster)) {
        rs_rpc_fail(call, RESEAL_EINVAL,
                    "names of hosts and clusters are of letters, digits, '.', '-' and '_'");
    } else if (host_of(call->d, name) != NULL) {
        rs_rpc_fail(call, RESEAL_EBUSY, "there is a host %s already: remove it first", name);
    } else if (n >= RS_HOSTS_MAX) {
        rs_rpc_fail(call, RESEAL_ELIMIT, "more than %u hosts", RS_HOSTS_MAX);
    } else {
        struct rs_host *h = host_new(call->d, name, address, pin, cluster);
        int r = h != NULL ? rs_hosts_save(call->d) : RESEAL_ENOMEM;
        if (r == 0) seed(call->d);
        if (r == 0) rs_host_wake(call->d, h);
        if (r != 0 && h != NULL) host_free(call->d, h);
        ended(call, name, r);
    }
}

/* The host that "name" names; NULL: the call has failed. */
static struct rs_host *named(struct rs_rpc *call)
{
    const char *name = rs_rpc_need(call, "name", RS_HOST_NAME_MAX);
    struct rs_host *h = name != NULL ? host_of(call->d, name) : NULL;
    if (name != NULL && h == NULL)
        rs_rpc_fail(call, RESEAL_ENOKEY, "there is no host %s: 'reseal host list' has those there are", name);
    return h;
}

static void prepare(struct rs_rpc *call)
{
    struct rs_host *h = rs_rpc_args(call, "name") && rs_rpc_administrator(call) ? named(call) : NULL;
    if (h == NULL) return;
    h->prepare = true;
    if (h->down) h->again_ns = 0;
    rs_host_wake(call->d, h);
    audit(call, h->name, 0);
    rs_rpc_answer(call, NULL, -1);
}

static void remove_host(struct rs_rpc *call)
{
    char name[RS_HOST_NAME_MAX];
    struct rs_host *h = rs_rpc_args(call, "name") && rs_rpc_administrator(call) ? named(call) : NULL;
    if (h == NULL) return;
    (void)snprintf(name, sizeof(name), "%s", h->name);
    host_free(call->d, h);
    ended(call, name, rs_hosts_save(call->d));
}

/* Whose keys the hosts of a cluster get. */
static void cluster(struct rs_rpc *call)
{
    json_t *name_of, *list = json_object_get(call->args, "providers");
    size_t i;
    const char *name = rs_rpc_args(call, "name providers") && rs_rpc_administrator(call)
                           ? rs_rpc_need(call, "name", RS_HOST_NAME_MAX)
                           : NULL;
    if (name == NULL) return;
    bool ok = json_is_array(list) && json_array_size(list) <= RS_PROVIDERS_MAX;
    json_array_foreach(list, i, name_of) ok =
        ok && json_is_string(name_of) && rs_provider_name_ok(json_string_value(name_of));
    if (!ok) {
        rs_rpc_fail(call, RESEAL_EINVAL, "providers: wants a list of names");
        return;
    }
    (void)json_object_set(call->d->hosts->clusters, name, list);
    int r = rs_hosts_save(call->d);
    for (struct rs_host *h = call->d->hosts->first; h != NULL; h = h->next) {
        rs_late_clear(call->d, h);
        h->at = 0; /* it may want what it did not */
    }
    rs_hosts_providers_changed(call->d);
    ended(call, name, r);
}

static json_t *shown(const struct rs_keyd *d, const struct rs_host *h)
{
    unsigned missing = rs_late_missing(h);
    bool connected = !h->down && h->instance[0] != '\0';
    bool complete = connected && missing == 0 && h->at == json_array_size(d->hosts->keys) &&
                    h->given == d->hosts->generation && h->kdks_again_ns == 0 &&
                    json_array_size(h->removals) == 0 && !h->prepare;
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:i, s:s, s:s}", "name", h->name, "address",
                     h->address, "cluster", h->cluster, "fingerprint", h->pin, "state", h->state, "connected",
                     connected, "complete", complete, "missing", (int)missing, "instance", h->instance,
                     "error", h->why);
}

static void list(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "") || !rs_rpc_administrator(call)) return;
    json_t *hosts = json_array();
    for (const struct rs_host *h = call->d->hosts->first; h != NULL; h = h->next)
        (void)json_array_append_new(hosts, shown(call->d, h));
    rs_rpc_answer(call,
                  json_pack("{s:o, s:O, s:I}", "hosts", hosts, "clusters", call->d->hosts->clusters, "keys",
                            (json_int_t)json_array_size(call->d->hosts->keys)),
                  -1);
}

static void presented_done(struct rs_keyd *d, void *arg, struct rs_task_answer *answer)
{
    struct rs_rpc *call = arg;
    (void)d;
    if (answer->status != 0)
        rs_rpc_fail_as(call, answer);
    else
        rs_rpc_answer(call, json_deep_copy(answer->result), -1);
}

static void presented(struct rs_rpc *call)
{
    const char *address =
        rs_rpc_args(call, "address") && rs_rpc_administrator(call) ? rs_rpc_need(call, "address", 300) : NULL;
    if (address == NULL) return;
    json_t *args = json_pack("{s:s, s:s}", "op", "show", "address", address);
    int r =
        rs_task_start(call->d, &rs_task_host, call->client->uid, args, NULL, NULL, 0, presented_done, call);
    json_decref(args);
    if (r != 0) rs_rpc_fail(call, r, NULL);
}

const struct rs_rpc_method rs_rpc_hosts[] = {
    {"host.identity", 0, 0, RS_NO_PRIVILEGE, show_identity},
    {"host.trust", 0, 0, RS_PRIV_REGISTER_HOST, trust},
    {"host.presented", 0, 0, RS_PRIV_REGISTER_HOST, presented},
    {"host.add", 0, 0, RS_PRIV_REGISTER_HOST, add},
    {"host.list", 0, 0, RS_PRIV_READ_KEY_SERVERS_INFO, list},
    {"host.prepare", 0, 0, RS_PRIV_REGISTER_HOST, prepare},
    {"host.remove", 0, 0, RS_PRIV_REGISTER_HOST, remove_host},
    {"host.cluster", 0, 0, RS_PRIV_REGISTER_HOST, cluster},
    {NULL, 0, 0, 0, NULL},
};
