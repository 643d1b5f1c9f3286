/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/webhook.h"

#include "offload/base/clock.h"
#include "providers/key/keyd.h"
#include "providers/key/receipt.h"
#include "providers/key/rooms.h"
#include "providers/key/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LINES        32u                /* of one delivery, */
#define LINES_BYTES  ((size_t)64 << 10) /* and their bytes: twice as much, as text of a task, must fit */
#define PAUSE_MAX_S  300u
#define URL_ROOM     512u
#define CA_ROOM      (32u << 10)
#define UID_OF_HOOKS 0xf1000000u /* children of webhooks are counted apart from those of users */

struct rs_webhook {
    struct rs_webhook *next;
    char tenant[64]; /* "": the service's own, which gets all events */
    char pattern[96];
    json_t *config; /* url, ca */
    struct rs_secrets secrets;
    uint64_t at;       /* number of the next event */
    uint64_t until;    /* of the delivery under way: the last event in it */
    uint64_t lost;     /* events that were not delivered in time, not told yet */
    uint64_t again_ns; /* 0: at once */
    unsigned failures;
    bool running;
    char why[RS_TASK_WHY]; /* of the last failure; "": none */
};

/* ---- the store ------------------------------------------------------------------------- */

static void object_name(const char *tenant, const char *suffix, char out[RS_STORE_NAME_MAX])
{
    char digest[65];
    rs_receipt_digest(tenant, strlen(tenant), digest);
    (void)snprintf(out, RS_STORE_NAME_MAX, "webhooks/%.32s.%s", digest, suffix);
}

static int save(struct rs_keyd *d, const struct rs_webhook *w)
{
    char name[RS_STORE_NAME_MAX];
    if (d->store == NULL) return RESEAL_ENOSUPPORT;
    json_t *object = json_pack("{s:s, s:s, s:O, s:I}", "tenant", w->tenant, "id", w->pattern, "config",
                               w->config, "next", (json_int_t)w->at);
    object_name(w->tenant, "json", name);
    int r = object != NULL ? rs_store_put_json(d->store, name, object) : RESEAL_ENOMEM;
    json_decref(object);
    return r;
}

static int save_secrets(struct rs_keyd *d, const struct rs_webhook *w)
{
    char name[RS_STORE_NAME_MAX];
    if (d->store == NULL) return RESEAL_ENOSUPPORT;
    object_name(w->tenant, "sealed", name);
    return rs_store_put_secrets(d->store, name, &w->secrets);
}

static void forget(struct rs_keyd *d, const char *tenant)
{
    char name[RS_STORE_NAME_MAX];
    static const char *const suffixes[] = {"json", "sealed"};
    for (unsigned i = 0; i < 2 && d->store != NULL; i++) {
        object_name(tenant, suffixes[i], name);
        if (rs_store_remove(d->store, name) != 0)
            (void)fprintf(stderr, "reseal-keyd: %s cannot be removed from the state folder\n", name);
    }
}

static void drop(struct rs_keyd *d, struct rs_webhook *w)
{
    struct rs_webhook **at = &d->events->webhooks;
    while (*at != w) at = &(*at)->next;
    *at = w->next;
    rs_task_cancel(d, w);
    json_decref(w->config);
    rs_secrets_free(&w->secrets);
    free(w);
}

static struct rs_webhook *webhook_of(const struct rs_keyd *d, const char *tenant)
{
    struct rs_webhook *w = d->events->webhooks;
    while (w != NULL && strcmp(w->tenant, tenant) != 0) w = w->next;
    return w;
}

/* ---- delivering -------------------------------------------------------------------------- */

/* The next events as a body; NULL: none is there. */
static char *body_of(const struct rs_keyd *d, struct rs_webhook *w)
{
    const struct rs_journal *j = &d->events->events;
    json_t *list = json_array();
    if (w->at < j->first) {
        w->lost += j->first - w->at;
        w->at = j->first;
    }
    uint64_t at = w->at;
    size_t bytes = 0;
    for (; at <= j->last && json_array_size(list) < LINES && bytes < LINES_BYTES; at++) {
        const struct rs_journal_line *line = &j->ring[at % RS_JOURNAL_RING];
        bool its = w->tenant[0] == '\0' || strcmp(w->tenant, line->tenant) == 0;
        if (!its || !rs_pattern_match(w->pattern, line->what)) continue;
        (void)json_array_append_new(list, json_loadb(line->text, line->len, 0, NULL));
        bytes += line->len;
    }
    w->until = at - 1;
    char *text = NULL;
    if (json_array_size(list) != 0) {
        json_t *body = json_pack("{s:O, s:I}", "events", list, "lost", (json_int_t)w->lost);
        text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
        json_decref(body);
    } else {
        w->at = at; /* nothing of it is for this one */
    }
    json_decref(list);
    return text;
}

static void wake(struct rs_keyd *d, struct rs_webhook *w);

static void delivered(struct rs_keyd *d, void *arg, struct rs_task_answer *answer)
{
    struct rs_webhook *w = arg;
    w->running = false;
    if (answer->status == 0) {
        w->at = w->until + 1;
        w->lost = 0;
        w->failures = 0;
        w->again_ns = 0;
        w->why[0] = '\0';
        if (save(d, w) != 0)
            (void)fprintf(stderr, "reseal-keyd: a webhook's place is not in the state folder\n");
        wake(d, w);
        return;
    }
    unsigned pause = RS_MIN(1u << RS_MIN(w->failures, 10u), PAUSE_MAX_S);
    w->failures++;
    w->again_ns = rs_now_ns() + (uint64_t)pause * 1000000000u;
    if (w->why[0] == '\0')
        (void)fprintf(stderr, "reseal-keyd: a webhook of %s%s does not take events: %s\n",
                      w->tenant[0] != '\0' ? "tenant " : "the service", w->tenant, answer->why);
    (void)snprintf(w->why, sizeof(w->why), "%s", answer->why);
}

static void wake(struct rs_keyd *d, struct rs_webhook *w)
{
    if (w->running || (w->again_ns != 0 && rs_now_ns() < w->again_ns)) return;
    w->again_ns = 0;
    RS_FREE char *body = body_of(d, w);
    if (body == NULL) return;
    json_t *args = json_copy(w->config);
    (void)json_object_set_new(args, "body", json_string(body));
    (void)json_object_set_new(args, "time", json_integer((json_int_t)time(NULL)));
    int r = rs_task_start(d, &rs_task_webhook, UID_OF_HOOKS, args, &w->secrets, NULL, 0, delivered, w);
    json_decref(args);
    w->running = r == 0;
    if (r != 0) w->again_ns = rs_now_ns() + 1000000000u;
}

void rs_webhooks_wake(struct rs_keyd *d)
{
    for (struct rs_webhook *w = d->events->webhooks; w != NULL; w = w->next) wake(d, w);
}

int rs_webhooks_tick(struct rs_keyd *d)
{
    uint64_t least = UINT64_MAX, now = rs_now_ns();
    if (d->events == NULL) return -1;
    for (struct rs_webhook *w = d->events->webhooks; w != NULL; w = w->next) {
        if (w->again_ns != 0 && now >= w->again_ns) wake(d, w);
        if (w->again_ns != 0) least = RS_MIN(least, w->again_ns);
    }
    if (least == UINT64_MAX) return -1;
    return least <= now ? 0 : (int)((least - now) / 1000000u) + 1;
}

/* ---- life ---------------------------------------------------------------------------------- */

static struct rs_webhook *add(struct rs_keyd *d, const char *tenant)
{
    struct rs_webhook *w = calloc(1, sizeof(*w));
    if (w == NULL) return NULL;
    (void)snprintf(w->tenant, sizeof(w->tenant), "%s", tenant);
    w->at = d->events->events.last + 1;
    w->next = d->events->webhooks;
    d->events->webhooks = w;
    return w;
}

static int load_one(const char *object, void *arg)
{
    struct rs_keyd *d = arg;
    json_t *json = NULL, *config;
    const char *tenant, *pattern;
    json_int_t next;
    char sealed[RS_STORE_NAME_MAX];
    if (strstr(object, ".json") == NULL || rs_store_get_json(d->store, object, &json) != 0) return 0;
    struct rs_webhook *w = NULL;
    if (json_unpack(json, "{s:s, s:s, s:o, s:I}", "tenant", &tenant, "id", &pattern, "config", &config,
                    "next", &next) == 0 &&
        next > 0)
        w = add(d, tenant);
    if (w != NULL) {
        (void)snprintf(w->pattern, sizeof(w->pattern), "%s", pattern);
        w->config = json_incref(config);
        w->at = RS_MIN((uint64_t)next, w->at);
        object_name(tenant, "sealed", sealed);
        int r = rs_store_get_secrets(d->store, sealed, &w->secrets);
        if (r != 0 && r != RESEAL_ENOKEY) { /* without its secret it would deliver what nobody can believe */
            (void)fprintf(stderr, "reseal-keyd: a webhook was left out: its secret cannot be read\n");
            drop(d, w);
        }
    }
    json_decref(json);
    return 0;
}

void rs_webhooks_open(struct rs_keyd *d)
{
    if (d->store == NULL) return;
    (void)rs_store_each(d->store, "webhooks", load_one, d);
    rs_webhooks_wake(d);
}

void rs_webhooks_close(struct rs_keyd *d)
{
    while (d->events->webhooks != NULL) drop(d, d->events->webhooks);
}

void rs_webhooks_remove(struct rs_keyd *d, const char *tenant)
{
    struct rs_webhook *w = webhook_of(d, tenant);
    if (w != NULL) drop(d, w);
    forget(d, tenant);
}

/* ---- methods --------------------------------------------------------------------------------- */

/* The tenant whose webhook the client may set: its own; of the service, for those who see all. NULL: the call
 * has failed. */
static const char *whose(struct rs_rpc *call)
{
    const struct rs_client *c = call->client;
    int service = rs_rpc_flag(call, "service");
    if (service < 0) return NULL;
    if (service == 0) return c->tenant;
    if (rs_events_all_visible(c->uid) || rs_policy_administrator(call->d->policy, c->uid, c->gid)) return "";
    rs_rpc_fail(call, RESEAL_EPERM,
                "events of all tenants are for root, the user of the service, and \"administrators\" of "
                "reseal-policy(5)");
    return NULL;
}

static void checked(struct rs_keyd *d, void *arg, struct rs_task_answer *answer)
{
    struct rs_rpc *call = arg;
    if (answer->status != 0) {
        rs_rpc_fail_as(call, answer);
        return;
    }
    const char *tenant = json_is_true(json_object_get(call->args, "service")) ? "" : call->client->tenant;
    const char *pattern = json_string_value(json_object_get(call->args, "id"));
    struct rs_webhook *old = webhook_of(d, tenant);
    uint64_t at = old != NULL ? old->at : 0;
    if (old != NULL) drop(d, old);
    struct rs_webhook *w = add(d, tenant);
    int r = w != NULL ? rs_secrets_copy(&w->secrets, answer->secrets) : RESEAL_ENOMEM;
    if (w != NULL) {
        w->config = json_pack("{s:O, s:O*}", "url", json_object_get(call->args, "url"), "ca",
                              json_object_get(call->args, "ca"));
        (void)snprintf(w->pattern, sizeof(w->pattern), "%s",
                       pattern != NULL && *pattern != '\0' ? pattern : "*");
        if (at != 0) w->at = at;
    }
    if (r == 0) r = save_secrets(d, w);
    if (r == 0) r = save(d, w);
    const struct rs_who who = rs_who_of(call->client);
    rs_audit(d, &who, call->method, tenant[0] != '\0' ? tenant : "service", r, NULL);
    if (r != 0) {
        if (w != NULL) drop(d, w);
        rs_rpc_fail(call, r, "the webhook cannot be kept: %s", reseal_strerror(r));
        return;
    }
    wake(d, w);
    rs_rpc_answer(call, NULL, -1);
}

void rs_webhook_set(struct rs_rpc *call)
{
    const char *tenant = rs_rpc_args(call, "url service id ca") ? whose(call) : NULL;
    const char *url = tenant != NULL ? rs_rpc_text(call, "url", URL_ROOM) : NULL;
    if (url == NULL || rs_rpc_text(call, "id", 96) == NULL) return;
    const json_t *ca = json_object_get(call->args, "ca");
    if (ca != NULL && (!json_is_string(ca) || json_string_length(ca) > CA_ROOM)) {
        rs_rpc_fail(call, RESEAL_EINVAL, "ca: certificates as PEM text of at most %u bytes", CA_ROOM);
        return;
    }
    if (*url == '\0') {
        rs_webhooks_remove(call->d, tenant);
        const struct rs_who who = rs_who_of(call->client);
        rs_audit(call->d, &who, call->method, tenant[0] != '\0' ? tenant : "service", 0, NULL);
        rs_rpc_answer(call, NULL, -1);
        return;
    }
    json_t *args = json_pack("{s:s}", "url", url);
    int fd = call->fds[0];
    call->fds[0] = -1;
    int r = rs_task_start(call->d, &rs_task_webhook_check, call->client->uid, args, NULL, &fd,
                          fd >= 0 ? 1 : 0, checked, call);
    json_decref(args);
    if (r != 0) rs_rpc_fail(call, r, NULL);
}

void rs_webhook_show(struct rs_rpc *call)
{
    const char *tenant = rs_rpc_args(call, "service") ? whose(call) : NULL;
    if (tenant == NULL) return;
    const struct rs_webhook *w = webhook_of(call->d, tenant);
    if (w == NULL) {
        rs_rpc_answer(call, json_pack("{s:s}", "url", ""), -1);
        return;
    }
    uint64_t last = call->d->events->events.last;
    rs_rpc_answer(call,
                  json_pack("{s:O, s:s, s:b, s:I, s:I, s:i, s:s}", "url", json_object_get(w->config, "url"),
                            "id", w->pattern, "signed", rs_secrets_find(&w->secrets, "secret") != NULL,
                            "waiting", (json_int_t)(last + 1 - w->at), "lost", (json_int_t)w->lost,
                            "failures", (int)w->failures, "error", w->why),
                  -1);
}
