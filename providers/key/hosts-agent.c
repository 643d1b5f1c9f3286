/* SPDX-License-Identifier: Apache-2.0 */
/* A host's side: what its agent hands over from managers. */
#include "providers/key/events.h"
#include "providers/key/host-agent.h"
#include "providers/key/host-key.h"
#include "providers/key/hosts.h"

#include "offload/base/keymem.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

const char *rs_hosts_state(struct rs_keyd *d)
{
    if (json_object_size(d->hosts->managers) == 0) return "incapable";
    return rs_host_key_exists(d) ? "safe" : "prepared";
}

static struct rs_who self(void)
{
    return (struct rs_who){.uid = geteuid(), .gid = getegid(), .pid = (uint32_t)getpid()};
}

static bool is_trusted(const struct rs_keyd *d, const uint8_t caller[32], char fingerprint[65])
{
    rs_hex(caller, 32, fingerprint);
    return json_object_get(d->hosts->managers, fingerprint) != NULL;
}

/* ---- native providers ---------------------------------------------------------------------- */

static void given_name(const struct rs_agent_ask *a, char out[140])
{
    (void)snprintf(out, 140, "%s/%s", a->tenant, a->provider);
}

/* One of that name that no manager gave is this host's own, and stays. */
static int take_kdk(struct rs_keyd *d, const struct rs_agent_ask *a, char *why, size_t why_len)
{
    char name[140];
    struct rs_secrets secrets = {0};
    json_t *config = json_object();
    given_name(a, name);
    struct rs_provider *p = rs_providers_of(d, a->tenant, a->provider);
    if (a->secret_len != RS_AGENT_SECRET || !rs_provider_name_ok(a->provider)) return RESEAL_EINVAL;
    if (p != NULL && json_object_get(d->hosts->given, name) == NULL) {
        (void)snprintf(why, why_len, "this host has a key provider %s of its own: rename one of them",
                       a->provider);
        return RESEAL_EBUSY;
    }
    int r = rs_secrets_put(&secrets, "kdk", a->secret, a->secret_len);
    if (r == 0) r = rs_provider_native.check(config, &secrets, why, why_len);
    if (r == 0 && p != NULL && json_equal(json_object_get(p->config, "id"), json_object_get(config, "id")) &&
        json_equal(json_object_get(p->config, "check"), json_object_get(config, "check"))) {
        json_decref(config); /* it has that one already */
        rs_secrets_free(&secrets);
        return 0;
    }
    if (r == 0 && p != NULL) r = rs_providers_remove(d, p);
    if (r == 0) {
        (void)json_object_set_new(d->hosts->given, name, json_true());
        r = rs_hosts_save(d);
    }
    if (r != 0) {
        json_decref(config);
        rs_secrets_free(&secrets);
        return r;
    }
    const struct rs_provider_new fresh = {.name = a->provider,
                                          .tenant = a->tenant,
                                          .kind = &rs_provider_native,
                                          .config = config,
                                          .secrets = &secrets,
                                          .usable = true};
    return rs_providers_add(d, &fresh, &p);
}

static int drop_kdk(struct rs_keyd *d, const struct rs_agent_ask *a)
{
    char name[140];
    given_name(a, name);
    if (json_object_get(d->hosts->given, name) == NULL) return 0;
    struct rs_provider *p = rs_providers_of(d, a->tenant, a->provider);
    int r = p != NULL ? rs_providers_remove(d, p) : 0;
    if (r != 0) return r;
    (void)json_object_del(d->hosts->given, name);
    return rs_hosts_save(d);
}

/* ---- what is asked ---------------------------------------------------------------------------- */

static int prepare(struct rs_keyd *d)
{
    struct rs_secrets keys = {0};
    const struct rs_who who = self();
    int r = rs_host_key(d, &who, &keys);
    rs_secrets_free(&keys);
    return r;
}

static int serve(struct rs_keyd *d, const struct rs_agent_ask *a, char *why, size_t why_len)
{
    switch (a->what) {
    case RS_AGENT_HELLO:
        return 0;
    case RS_AGENT_PUT:
        if (a->secret_len != RS_KEK_LEN) return RESEAL_EINVAL;
        return rs_kek_put(d, a->tenant, a->provider, a->key, a->secret);
    case RS_AGENT_FORGET:
        (void)rs_kek_forget(d, a->tenant, a->provider, a->key[0] != '\0' ? a->key : NULL);
        return 0;
    case RS_AGENT_KDK:
        return take_kdk(d, a, why, why_len);
    case RS_AGENT_NO_KDK:
        (void)rs_kek_forget(d, a->tenant, a->provider, NULL);
        return drop_kdk(d, a);
    case RS_AGENT_PREPARE:
        return prepare(d);
    default:
        return RESEAL_EPROTO;
    }
}

/* Strangers may ask as often as they like, in any tenant's name: their lines are nobody's, and counted. */
static void audit_stranger(struct rs_keyd *d, const char *fingerprint)
{
    struct rs_who who = self();
    uint64_t times = rs_events_times(d, &who, "", "host.refused", "", "host");
    if (times == 0) return;
    json_t *details = json_pack("{s:s}", "manager", fingerprint);
    if (times > 1) (void)json_object_set_new(details, "times", json_integer((json_int_t)times));
    rs_audit(d, &who, "host.refused", "host", RESEAL_EPERM, details);
}

static void audit(struct rs_keyd *d, const struct rs_agent_ask *a, const char *fingerprint, int status)
{
    static const char *const operations[] = {"",         "host.put",    "host.forget",
                                             "host.kdk", "host.no_kdk", "host.prepare"};
    char object[RS_PROVIDER_NAME_MAX + RS_KEY_ID_MAX + 8];
    struct rs_who who = self();
    if (a->what == RS_AGENT_HELLO && status == 0) return;
    (void)snprintf(who.tenant, sizeof(who.tenant), "%s", a->tenant);
    (void)snprintf(object, sizeof(object), "kek:%s/%s", a->provider, a->key);
    rs_audit(d, &who, a->what < RS_ARRAY_LEN(operations) && a->what != 0 ? operations[a->what] : "host.hello",
             object, status, json_pack("{s:s}", "manager", fingerprint));
}

/* Texts of the agent end within their room, whatever it was made to send. */
static void terminate(struct rs_agent_ask *a)
{
    a->tenant[sizeof(a->tenant) - 1] = a->provider[sizeof(a->provider) - 1] = a->key[sizeof(a->key) - 1] =
        '\0';
    if (a->secret_len > sizeof(a->secret)) a->secret_len = 0;
}

static bool on_ask(struct rs_keyd *d, struct rs_agent_ask *a)
{
    struct rs_agent_answer answer = {0};
    char fingerprint[65];
    terminate(a);
    memcpy(answer.instance, d->instance, sizeof(answer.instance));
    bool trusted = is_trusted(d, a->caller, fingerprint);
    if (!trusted) {
        answer.status = RESEAL_EPERM;
        (void)snprintf(answer.why, sizeof(answer.why),
                       "the host does not trust this manager: on the host, 'reseal host trust %s'",
                       fingerprint);
    } else if (a->what != RS_AGENT_HELLO && !rs_audit_works(d, answer.why, sizeof(answer.why))) {
        answer.status = RESEAL_EIO;
    } else {
        answer.status = serve(d, a, answer.why, sizeof(answer.why));
    }
    if (answer.status != 0 && answer.why[0] == '\0')
        (void)snprintf(answer.why, sizeof(answer.why), "%s", reseal_strerror(answer.status));
    (void)snprintf(answer.state, sizeof(answer.state), "%s", rs_hosts_state(d));
    if (trusted)
        audit(d, a, fingerprint, answer.status);
    else
        audit_stranger(d, fingerprint);
    return rs_msg_send(d->hosts->agent.fd, RS_MSG_AGENT_ASK | RS_MSG_REPLY, 0, &answer, sizeof(answer), NULL,
                       0, MSG_DONTWAIT) == 0;
}

static void agent_ready(struct rs_keyd *d, struct rs_watch *w, uint32_t events)
{
    (void)events;
    RS_KEYMEM struct rs_agent_ask *a = rs_keymem_alloc(sizeof(*a));
    int r = rs_msg_recv(w->fd, d->msg, MSG_DONTWAIT);
    if (r == RESEAL_EAGAIN) return;
    bool ok =
        r == 0 && a != NULL && d->msg->header.type == RS_MSG_AGENT_ASK && d->msg->header.length == sizeof(*a);
    if (ok) {
        memcpy(a, d->msg->body, sizeof(*a));
        rs_wipe(d->msg->body, sizeof(*a));
        ok = on_ask(d, a);
    }
    if (r == 0) rs_msg_close_fds(d->msg);
    if (ok) return;
    /* As without the nursery: reseald starts us again, with a new one. */
    (void)fputs("reseal-keyd: the agent of this host ended: ending too, to begin anew\n", stderr);
    d->ended = d->failed = true;
}

int rs_hosts_agent(struct rs_keyd *d, const char *address, int sock, char *why, size_t why_len)
{
    const struct rs_secret *cert = rs_secrets_find(&d->hosts->identity, "cert");
    const struct rs_secret *key = rs_secrets_find(&d->hosts->identity, "key");
    if (cert == NULL || key == NULL ||
        rs_msg_send(sock, RS_MSG_AGENT_CERT, 0, cert->bytes, cert->len, NULL, 0, 0) != 0 ||
        rs_msg_send(sock, RS_MSG_AGENT_KEY, 0, key->bytes, key->len, NULL, 0, 0) != 0 ||
        rs_msg_recv(sock, d->msg, 0) != 0 || d->msg->header.type != RS_MSG_AGENT_READY) {
        (void)snprintf(why, why_len, "the agent does not start");
        close(sock);
        return RESEAL_EIO;
    }
    if (d->msg->header.status != 0) {
        d->msg->body[RS_MIN(d->msg->header.length, RS_MSG_BODY_MAX - 1)] = '\0';
        (void)snprintf(why, why_len, "%s: %s", address, (const char *)d->msg->body);
        close(sock);
        return RESEAL_EIO;
    }
    d->hosts->agent_address = address;
    d->hosts->agent = (struct rs_watch){.fd = sock, .ready = agent_ready};
    return rs_keyd_watch(d, &d->hosts->agent);
}
