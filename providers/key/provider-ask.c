/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to key providers: one child for each, a few of one provider at a time, and what their answers
 * say about the provider itself.
 */
#include "providers/key/events.h"
#include "providers/key/keyd.h"
#include "reseal/reseal.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Children are counted for each user; those of a provider count for the provider, so that one that hangs
 * takes none from the users' other work. */
#define UID_OF_PROVIDERS 0xf0000000u

#define CHILDREN_OF_OTHERS 8u /* of RS_KEYD_CHILDREN: hosts, webhooks, certificates to be shown */

#define DAY_S     86400
#define WARNING_S (30 * DAY_S)

struct rs_asked {
    struct rs_asked *next;
    uint32_t provider; /* serial */
    uint32_t sealed;   /* of the provider, when it was started */
    bool started, ended, test;
    json_t *args;
    rs_task_done *done;
    void *arg;
};

/* ---- what answers say of the provider ------------------------------------------------ */

/* True when the end of a certificate is near and was not told within a day. */
static bool worth_telling(int64_t end, int64_t *told)
{
    int64_t now = (int64_t)time(NULL);
    if (end == 0 || end - now > WARNING_S || (*told != 0 && now - *told < DAY_S)) return false;
    *told = now;
    return true;
}

static void tell_end(struct rs_keyd *d, const struct rs_provider *p, const char *id, const char *whose,
                     int64_t end)
{
    char line[200], date[40] = "";
    struct tm tm;
    time_t when = (time_t)end;
    if (gmtime_r(&when, &tm) != NULL) (void)strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S UTC", &tm);
    (void)snprintf(line, sizeof(line), "the certificate of %s of key provider %s %s %s", whose, p->name,
                   end <= (int64_t)time(NULL) ? "expired on" : "expires on", date);
    rs_event(d, p->tenant, id, line, json_pack("{s:s, s:s}", "provider", p->name, "expires", date));
}

static void look_at_ends(struct rs_keyd *d, struct rs_provider *p, const json_t *expires)
{
    int64_t client = json_integer_value(json_object_get(expires, "client"));
    int64_t server = json_integer_value(json_object_get(expires, "server"));
    bool remote = p->kind == &rs_provider_trusted; /* its service is the client, not we */
    if (worth_telling(client, &p->told_client))
        tell_end(d, p, remote ? RS_EVENT_TA_CLIENT_CERT : RS_EVENT_CLIENT_CERT,
                 remote ? "the service, for its key server," : "the client", client);
    if (worth_telling(server, &p->told_server))
        tell_end(d, p, remote ? RS_EVENT_TA_SERVER_CERT : RS_EVENT_SERVER_CERT,
                 remote ? "the service's key server" : "the server", server);
}

static void tell_down(struct rs_keyd *d, const struct rs_provider *p, const json_t *down)
{
    size_t i;
    json_t *server;
    json_array_foreach(down, i, server)
    {
        const char *address = json_string_value(json_object_get(server, "address"));
        const char *why = json_string_value(json_object_get(server, "why"));
        const char *event = json_string_value(json_object_get(server, "event"));
        if (address == NULL || why == NULL) continue;
        rs_event(d, p->tenant, event != NULL ? event : RS_EVENT_KMS_UNREACHABLE, why,
                 json_pack("{s:s, s:s}", "provider", p->name, "server", address));
    }
}

/* A task may put other secrets and another configuration in place, for instance a renewed token. */
static void take_changes(struct rs_keyd *d, struct rs_provider *p, const struct rs_task_answer *a)
{
    json_t *config = json_object_get(a->result, "config");
    bool changed = json_is_object(config);
    if (changed) {
        json_decref(p->config);
        p->config = json_incref(config);
    }
    for (unsigned i = 0; a->secrets != NULL && i < a->secrets->n; i++) {
        const struct rs_secret *s = &a->secrets->at[i];
        if (strcmp(s->name, "kek") == 0) continue;
        changed = rs_secrets_put(&p->secrets, s->name, s->bytes, s->len) == 0 || changed;
    }
    if (changed && rs_providers_save(d, p) != 0)
        (void)fprintf(stderr, "reseal-keyd: key provider %s could not be written to the state folder\n",
                      p->name);
}

/* `sealed`: of the provider when it was asked. What an answer wants to change is left out when others changed
 * it meanwhile. */
static void look_at_answer(struct rs_keyd *d, struct rs_provider *p, uint32_t sealed,
                           const struct rs_task_answer *a)
{
    json_t *state = json_object_get(a->result, "state");
    if (json_is_object(state)) {
        json_decref(p->state);
        p->state = json_deep_copy(state);
    }
    tell_down(d, p, json_object_get(a->result, "down"));
    look_at_ends(d, p, json_object_get(a->result, "expires"));
    if (a->status == 0 && p->sealed == sealed) take_changes(d, p, a);
}

/* ---- the list of requests --------------------------------------------------------------- */

static void asked_free(struct rs_keyd *d, struct rs_asked *q)
{
    struct rs_asked **at = &d->providers.asked;
    while (*at != q) at = &(*at)->next;
    *at = q->next;
    json_decref(q->args);
    free(q);
}

static void fail_with(struct rs_keyd *d, struct rs_asked *q, int status, const char *why)
{
    json_t *nothing = json_object();
    const struct rs_secrets none = {0};
    struct rs_task_answer a = {
        .status = status, .result = nothing, .secrets = &none, .fd = -1, .why = why, .event = ""};
    rs_task_done *done = q->done;
    void *arg = q->arg;
    asked_free(d, q);
    done(d, arg, &a);
    json_decref(nothing);
}

static bool cannot_be_reached(int status)
{
    return status == RESEAL_ENOSERVICE || status == RESEAL_ETIMEDOUT || status == RESEAL_EAUTH;
}

/* Each call may add and end others, so the list is looked at from its start again. */
static void fail_waiting(struct rs_keyd *d, uint32_t serial, bool started_too, int status, const char *why)
{
    char line[RS_TASK_WHY];
    (void)snprintf(line, sizeof(line), "%s", why);
    for (struct rs_asked *q = d->providers.asked; q != NULL; q = q->next)
        if (q->provider == serial && (started_too || !q->started)) q->ended = true;
    for (;;) {
        struct rs_asked *q = d->providers.asked;
        while (q != NULL && !q->ended) q = q->next;
        if (q == NULL) return;
        if (q->started) rs_task_cancel(d, q);
        fail_with(d, q, status, line);
    }
}

static void start_all_waiting(struct rs_keyd *d);

/* It was started, and runs no more. */
static void ended(struct rs_provider *p, const struct rs_asked *q)
{
    p->running--;
    p->testing -= q->test;
}

static void answered(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    struct rs_asked *q = arg;
    uint32_t serial = q->provider, sealed = q->sealed;
    struct rs_provider *p = rs_providers_by_serial(d, serial);
    rs_task_done *done = q->done;
    void *whose = q->arg;
    if (p != NULL) ended(p, q);
    asked_free(d, q);
    if (p != NULL) look_at_answer(d, p, sealed, a);
    done(d, whose, a);
    if (cannot_be_reached(a->status)) fail_waiting(d, serial, false, a->status, a->why);
    start_all_waiting(d);
}

/* As the provider is now: it may have been changed while this waited. */
static void start(struct rs_keyd *d, struct rs_provider *p, struct rs_asked *q)
{
    (void)json_object_set(q->args, "config", p->config);
    if (p->state != NULL) (void)json_object_set(q->args, "state", p->state);
    q->started = true;
    q->sealed = p->sealed;
    int r = rs_task_start(d, p->kind->task, UID_OF_PROVIDERS + p->serial, q->args, &p->secrets, NULL, 0,
                          answered, q);
    if (r == 0) {
        p->running++;
        p->testing += q->test;
    } else {
        fail_with(d, q, r, reseal_strerror(r));
    }
}

/*
 * A tenant gets half of the children that others' providers leave, and one at least: however many of its key
 * servers hang, those of others are asked. Each of its providers comes before the second child of any.
 */
static bool may_start(const struct rs_keyd *d, const struct rs_provider *p)
{
    unsigned own = 0, others = CHILDREN_OF_OTHERS;
    for (const struct rs_provider *at = d->providers.first; at != NULL; at = at->next)
        *(strcmp(at->tenant, p->tenant) == 0 ? &own : &others) += at->running;
    unsigned most = others < RS_KEYD_CHILDREN ? (RS_KEYD_CHILDREN - others) / 2 : 0;
    return own < RS_MAX(p->running == 0 ? most : most / 2, 1u);
}

/* The next of a provider that waits. Who tests it wants to know now, and who needs a key waits for no test:
 * each has places of its own. */
static struct rs_asked *next_of(const struct rs_keyd *d, const struct rs_provider *p)
{
    struct rs_asked *q = d->providers.asked;
    while (q != NULL && (q->started || q->provider != p->serial ||
                         (q->test ? p->testing : p->running - p->testing) >= RS_PROVIDER_TASKS))
        q = q->next;
    return q;
}

static void start_waiting(struct rs_keyd *d, struct rs_provider *p)
{
    uint32_t serial = p->serial;
    while (p != NULL && may_start(d, p)) {
        struct rs_asked *q = next_of(d, p);
        if (q == NULL) return;
        start(d, p, q);
        p = rs_providers_by_serial(d, serial);
    }
}

/* Room for others may have come. One that cannot start ends at once, and who hears that may change the list.
 */
static void start_all_waiting(struct rs_keyd *d)
{
    uint32_t last = 0;
    for (struct rs_provider *p = d->providers.first; p != NULL;) {
        last = p->serial;
        start_waiting(d, p);
        p = d->providers.first;
        while (p != NULL && p->serial <= last) p = p->next;
    }
}

/* ---- calls --------------------------------------------------------------------------------- */

static json_t *arguments(const struct rs_provider *p, const char *op, json_t *more)
{
    json_t *args = json_pack("{s:s, s:s, s:O}", "op", op, "name", p->name, "config", p->config);
    if (args != NULL && more != NULL && json_object_update(args, more) != 0) {
        json_decref(args);
        args = NULL;
    }
    json_decref(more);
    return args;
}

static void ask_here(struct rs_keyd *d, struct rs_provider *p, const json_t *args, rs_task_done *done,
                     void *arg)
{
    struct rs_task_own own = {0};
    rs_task_run_here(p->kind->task, args, &p->secrets, &own);
    look_at_answer(d, p, p->sealed, &own.answer);
    done(d, arg, &own.answer);
    rs_task_own_free(&own);
}

void rs_provider_ask(struct rs_keyd *d, struct rs_provider *p, const char *op, json_t *more,
                     rs_task_done *done, void *arg)
{
    json_t *args = arguments(p, op, more);
    if (args != NULL && p->kind->here) {
        ask_here(d, p, args, done, arg);
        json_decref(args);
        return;
    }
    struct rs_asked *q = calloc(1, sizeof(*q));
    if (q == NULL || args == NULL) {
        json_t *nothing = json_object();
        struct rs_task_answer a = {
            .status = RESEAL_ENOMEM, .result = nothing, .fd = -1, .why = "out of memory", .event = ""};
        json_decref(args);
        free(q);
        done(d, arg, &a);
        json_decref(nothing);
        return;
    }
    *q = (struct rs_asked){
        .provider = p->serial, .test = strcmp(op, "test") == 0, .args = args, .done = done, .arg = arg};
    struct rs_asked **at = &d->providers.asked;
    while (*at != NULL) at = &(*at)->next;
    *at = q;
    start_waiting(d, p);
}

void rs_provider_cancel(struct rs_keyd *d, const void *arg)
{
    struct rs_asked *next;
    for (struct rs_asked *q = d->providers.asked; q != NULL; q = next) {
        next = q->next;
        if (q->arg != arg) continue;
        struct rs_provider *p = rs_providers_by_serial(d, q->provider);
        if (q->started) rs_task_cancel(d, q);
        if (q->started && p != NULL) ended(p, q);
        asked_free(d, q);
    }
    start_all_waiting(d);
}

void rs_provider_give_up(struct rs_keyd *d, const struct rs_provider *p, int status, const char *why)
{
    fail_waiting(d, p->serial, true, status, why);
}
