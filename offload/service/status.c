/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/base/clock.h"
#include "offload/base/keymem.h"
#include "offload/service/server.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static json_t *number(uint64_t v)
{
    return json_integer((json_int_t)v);
}

static uint64_t get(_Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static json_t *worker_json(struct rs_worker *w, unsigned queues)
{
    struct rs_worker_metrics *m = &w->metrics;
    return json_pack("{s:i, s:b, s:b, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "cpu", w->cpu, "pinned",
                     w->pinned, "key_memory_stack", w->stack != NULL, "queues", (int)queues, "jobs",
                     number(get(&m->jobs)), "bytes", number(get(&m->bytes)), "busy_ns",
                     number(get(&m->busy_ns)), "sleeps", number(get(&m->sleeps)), "wakes",
                     number(get(&m->wakes)), "faults", number(get(&m->faults)), "streamed",
                     number(get(&m->streamed)));
}

static json_t *workers_json(struct rs_server *s)
{
    json_t *all = json_array();
    for (unsigned i = 0; i < s->nworkers; i++)
        json_array_append_new(all, worker_json(s->workers[i], s->worker_queues[i]));
    return all;
}

static json_t *queue_json(struct rs_queue *q)
{
    uint32_t fill = atomic_load_explicit(&q->fill, memory_order_relaxed);
    return json_pack("{s:i, s:i, s:i, s:i, s:b, s:o, s:o, s:o}", "queue", (int)q->number, "worker",
                     (int)q->worker, "depth", (int)q->ring.depth, "fill", (int)fill, "huge_pages", q->huge,
                     "memory", number(q->ring.total), "jobs", number(get(&q->jobs)), "bytes",
                     number(get(&q->bytes)));
}

static json_t *side_json(const struct rs_transform_side *side)
{
    static const char *const names[] = {"plain", "xts", "gcm"};
    char text[32];
    if (side->cipher == RS_PLAIN) return json_string("plain");
    snprintf(text, sizeof(text), "%s-%u", names[side->cipher], side->bits);
    return json_string(text);
}

static json_t *session_json(struct rs_session *session)
{
    uint64_t jobs = 0, bytes = 0, failures = 0;
    const struct rs_transform *t = NULL;
    for (unsigned w = 0; w < RS_WORKERS_MAX; w++) {
        struct rs_binding *b = session->bindings[w];
        if (b == NULL) continue;
        t = &b->transform;
        jobs += get(&b->jobs);
        bytes += get(&b->bytes);
        failures += get(&b->failures);
    }
    uint32_t unit = session->config.src.unit != 0 ? session->config.src.unit : session->config.dst.unit;
    return json_pack("{s:o, s:o, s:i, s:s, s:o, s:o, s:o}", "from", side_json(&session->config.src), "to",
                     side_json(&session->config.dst), "unit", (int)unit, "engine",
                     t != NULL && t->open != NULL ? t->open->name : "none", "jobs", number(jobs), "bytes",
                     number(bytes), "failures", number(failures));
}

static json_t *client_json(struct rs_client *c)
{
    json_t *queues = json_array(), *sessions = json_array();
    for (unsigned i = 0; i < RS_QUEUES_MAX; i++)
        if (c->queues[i] != NULL) json_array_append_new(queues, queue_json(c->queues[i]));
    for (unsigned i = 0; i < RS_SESSIONS_MAX; i++)
        if (c->sessions[i] != NULL) json_array_append_new(sessions, session_json(c->sessions[i]));
    return json_pack("{s:i, s:i, s:i, s:s, s:i, s:o, s:o, s:o}", "client", (int)c->number, "pid", (int)c->pid,
                     "uid", (int)c->uid, "tenant", c->tenant->name, "weight",
                     (int)atomic_load_explicit(&c->tenant->weight, memory_order_relaxed), "memory",
                     number(c->memory), "queues", queues, "sessions", sessions);
}

/* A tenant's users see their own and their tenant's; root and the user of the service see all. */
static bool visible(const struct rs_client *c, const struct rs_client *to)
{
    if (to->uid == 0 || to->uid == getuid() || c->uid == to->uid) return true;
    return c->tenant == to->tenant && to->tenant->name[0] != '\0';
}

static json_t *clients_json(struct rs_server *s, const struct rs_client *to)
{
    json_t *all = json_array();
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++)
        if (s->clients[i] != NULL && visible(s->clients[i], to))
            json_array_append_new(all, client_json(s->clients[i]));
    return all;
}

static json_t *engines_json(void)
{
    json_t *all = json_array();
    for (const struct rs_engine *const *e = rs_engines_known(); *e != NULL; e++)
        json_array_append_new(all, json_pack("{s:s, s:s?, s:s}", "name", (*e)->name, "variant", (*e)->variant,
                                             "fault", rs_engine_fault((*e)->name)));
    return all;
}

/* No client runs under the service's own user id: one that does could attach a debugger, were it not for
 * no_dump. */
static bool own_user_id(const struct rs_server *s)
{
    uint32_t uid = getuid();
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++)
        if (s->clients[i] != NULL && s->clients[i]->uid == uid) return false;
    return true;
}

static json_t *protections_json(const struct rs_server *s)
{
    const struct rs_protections *p = &s->protections;
    return json_pack("{s:s, s:o, s:b, s:b, s:b, s:b, s:b, s:b, s:b}", "key_memory", rs_keymem_kind_name(),
                     "landlock", p->landlock != 0 ? json_integer(p->landlock) : json_false(), "seccomp",
                     p->seccomp, "no_new_privs", p->no_new_privs, "non_dumpable", p->no_dump,
                     "no_capabilities", p->no_capabilities, "no_writable_code", p->no_writable_code,
                     "scratch_locked", s->scratch_locked, "own_user_id", own_user_id(s));
}

static json_t *errors_json(struct rs_server *s)
{
    json_t *all = json_object();
    for (unsigned code = 1; code < RS_CODES; code++) {
        uint64_t n = 0;
        char name[16];
        for (unsigned i = 0; i < s->nworkers; i++) n += get(&s->workers[i]->metrics.codes[code]);
        snprintf(name, sizeof(name), "-%u", code);
        if (n != 0) json_object_set_new(all, name, number(n));
    }
    return all;
}

/* How often something weaker or slower than wished was taken, by cause. */
static json_t *fallbacks_json(struct rs_server *s)
{
    int unpinned = 0;
    for (unsigned i = 0; i < s->nworkers; i++) unpinned += !s->workers[i]->pinned;
    return json_pack("{s:o, s:i, s:i, s:i}", "small_pages", number(get(&s->small_pages)), "unpinned_workers",
                     unpinned, "unlocked_scratch", !s->scratch_locked, "weaker_key_memory",
                     rs_keymem_kind() != RS_KEYMEM_SECRET);
}

/* Huge pages were there for every queue that is open; false when there is none. */
static bool huge_pages(const struct rs_server *s)
{
    bool any = false;
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++)
        for (unsigned n = 0; s->clients[i] != NULL && n < RS_QUEUES_MAX; n++) {
            const struct rs_queue *q = s->clients[i]->queues[n];
            if (q == NULL) continue;
            if (!q->huge) return false;
            any = true;
        }
    return any;
}

static json_t *service_json(struct rs_server *s)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "accepted", number(get(&s->accepted)), "refused",
                     number(get(&s->refused)), "protocol_errors", number(get(&s->protocol_errors)),
                     "client_faults", number(get(&s->client_faults)), "key_failures",
                     number(get(&s->key_failures)));
}

int rs_status_fd(struct rs_server *s, const struct rs_client *to)
{
    char instance[33];
    size_t size, used;
    rs_hex(s->instance, sizeof(s->instance), instance);
    rs_keymem_usage(&size, &used);
    json_t *all =
        json_pack("{s:s, s:s, s:i, s:f, s:o, s:o, s:o, s:o, s:b, s:{s:o, s:o}, s:o, s:o, s:o}", "version",
                  RESEAL_VERSION, "instance", instance, "pid", (int)getpid(), "uptime_s",
                  (double)(rs_now_ns() - s->started_ns) / 1e9, "workers", workers_json(s), "clients",
                  clients_json(s, to), "engines", engines_json(), "protections", protections_json(s),
                  "huge_pages", huge_pages(s), "key_memory", "size", number(size), "used", number(used),
                  "errors", errors_json(s), "fallbacks", fallbacks_json(s), "service", service_json(s));
    RS_FREE char *text = all != NULL ? json_dumps(all, JSON_INDENT(1)) : NULL;
    json_decref(all);
    return text != NULL ? rs_msg_text_fd(text, strlen(text)) : RESEAL_ENOMEM;
}
