/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/uses.h"

#include "offload/base/clock.h"
#include "providers/key/events.h"
#include "providers/key/keyd.h"
#include "providers/key/rooms.h"

#include <stdio.h>
#include <stdlib.h>

#define ENDS_MAX    256u                 /* lines that wait, */
#define ENDS_NS     UINT64_C(1000000000) /* so long at most */
#define USES_MAX    65536u               /* sessions that are open; more have no line when they end */
#define OBJECT_ROOM (2 * sizeof(((struct rs_key *)NULL)->name) + 8)

/* A session that is open. */
struct rs_use {
    struct rs_use *next;
    const struct rs_work *work; /* NULL: it has not got its keys yet */
    uint32_t number;
    struct rs_who who;
    reseal_key from, to;
    char object[OBJECT_ROOM];
};

/* Sessions that ended and share a line. */
struct rs_use_end {
    struct rs_use_end *next;
    struct rs_who who;
    char object[OBJECT_ROOM];
    bool lost;
    uint64_t sessions, jobs, bytes, failures;
};

int rs_uses_may(struct rs_keyd *d)
{
    char why[RS_TASK_WHY];
    return rs_audit_works(d, why, sizeof(why)) ? 0 : RESEAL_EAUDIT;
}

/* ---- keys that clients supply ---------------------------------------------------------------- */

static void set_handle(json_t *details, const char *name, const reseal_key *id)
{
    char text[33];
    (void)snprintf(text, sizeof(text), "%016llx%016llx", (unsigned long long)id->id[0],
                   (unsigned long long)id->id[1]);
    (void)json_object_set_new(details, name, json_string(text));
}

/* Who tries again and again is counted: a pass phrase can be guessed at without any right. */
static void audit_refusal(struct rs_keyd *d, const struct rs_who *who, const char *operation,
                          const char *object, int status)
{
    uint64_t times = rs_events_times(d, who, who->tenant, operation, reseal_strerror(status), object);
    if (times == 0) return;
    rs_audit(d, who, operation, object, status,
             times > 1 ? json_pack("{s:I}", "times", (json_int_t)times) : NULL);
}

int rs_uses_supplied(struct rs_keyd *d, const struct rs_client *c, const char *operation, const char *name,
                     const struct rs_key *key, int status)
{
    const struct rs_who who = rs_who_of(c);
    if (key == NULL) {
        audit_refusal(d, &who, operation, name, status);
        return 0;
    }
    json_t *details = json_pack("{s:s, s:i, s:b, s:b}", "cipher", key->cipher == RESEAL_XTS ? "xts" : "gcm",
                                "bits", (int)key->bits, "source", (key->use & RESEAL_USE_SOURCE) != 0,
                                "destination", (key->use & RESEAL_USE_DESTINATION) != 0);
    set_handle(details, "handle", &key->id);
    rs_audit(d, &who, operation, name, 0, details);
    return rs_uses_may(d);
}

/* ---- sessions ---------------------------------------------------------------------------------- */

static struct rs_use **place_of(struct rs_uses *u, uint32_t number)
{
    struct rs_use **at = &u->buckets[number % RS_USE_BUCKETS];
    while (*at != NULL && (*at)->number != number) at = &(*at)->next;
    return at;
}

static void forget(struct rs_uses *u, struct rs_use **at)
{
    struct rs_use *use = *at;
    *at = use->next;
    u->count--;
    free(use);
}

static void object_of(const struct rs_key *from, const struct rs_key *to, char object[OBJECT_ROOM])
{
    (void)snprintf(object, OBJECT_ROOM, "%s -> %s", from != NULL ? from->name : "plain",
                   to != NULL ? to->name : "plain");
}

static struct rs_who who_of(const struct rs_msg_session_request *q, const char *tenant)
{
    struct rs_who who = {.uid = q->uid, .gid = q->gid, .pid = q->pid};
    (void)snprintf(who.tenant, sizeof(who.tenant), "%s", tenant);
    return who;
}

static bool same_key(const reseal_key *id, const struct rs_key *key)
{
    const reseal_key none = {0};
    return memcmp(id, key != NULL ? &key->id : &none, sizeof(*id)) == 0;
}

/* A session that reseald-work has, and whose keys it wants for one more worker, or after a take-over. */
static bool is_open(struct rs_keyd *d, const struct rs_msg_session_request *q, const struct rs_key *from,
                    const struct rs_key *to)
{
    const struct rs_use *use = q->use != 0 ? *place_of(&d->uses, q->use) : NULL;
    return use != NULL && use->who.uid == q->uid && use->who.pid == q->pid && same_key(&use->from, from) &&
           same_key(&use->to, to);
}

static void set_side(json_t *details, const char *name, const char *provider_name, const struct rs_key *key)
{
    if (key == NULL) return;
    set_handle(details, name, &key->id);
    if (key->provider[0] != '\0')
        (void)json_object_set_new(details, provider_name, json_string(key->provider));
}

/* 0: too many, or no memory; the session has its line, and will have none at its end. */
static uint32_t remember(struct rs_uses *u, const struct rs_who *who, const char *object,
                         const struct rs_key *from, const struct rs_key *to)
{
    struct rs_use *use = u->count < USES_MAX ? calloc(1, sizeof(*use)) : NULL;
    if (use == NULL) return 0;
    do u->last++;
    while (u->last == 0 || *place_of(u, u->last) != NULL);
    use->number = u->last;
    use->who = *who;
    if (from != NULL) use->from = from->id;
    if (to != NULL) use->to = to->id;
    (void)snprintf(use->object, sizeof(use->object), "%s", object);
    struct rs_use **at = &u->buckets[use->number % RS_USE_BUCKETS];
    use->next = *at;
    *at = use;
    u->count++;
    return use->number;
}

int rs_uses_begin(struct rs_keyd *d, const struct rs_msg_session_request *q, const char *tenant,
                  const struct rs_key *from, const struct rs_key *to, uint32_t *number)
{
    char object[OBJECT_ROOM];
    *number = q->use;
    if (is_open(d, q, from, to)) return 0;
    *number = 0;
    int r = rs_uses_may(d);
    if (r != 0) return r;
    const struct rs_who who = who_of(q, tenant);
    json_t *details = json_object();
    object_of(from, to, object);
    set_side(details, "source", "source-provider", from);
    set_side(details, "destination", "destination-provider", to);
    rs_audit(d, &who, "session.open", object, 0, details);
    r = rs_uses_may(d);
    if (r == 0) *number = remember(&d->uses, &who, object, from, to);
    return r;
}

void rs_uses_refused(struct rs_keyd *d, const struct rs_msg_session_request *q, const char *tenant,
                     const struct rs_key *from, const struct rs_key *to, int status)
{
    char object[OBJECT_ROOM];
    const struct rs_who who = who_of(q, tenant);
    object_of(from, to, object);
    audit_refusal(d, &who, "session.open", object, status);
}

void rs_uses_owner(struct rs_keyd *d, uint32_t number, const struct rs_work *w)
{
    struct rs_use *use = number != 0 ? *place_of(&d->uses, number) : NULL;
    if (use != NULL) use->work = w;
}

/* ---- ends --------------------------------------------------------------------------------------- */

static void tell(struct rs_keyd *d)
{
    struct rs_uses *u = &d->uses;
    while (u->ended != NULL) {
        struct rs_use_end *end = u->ended;
        u->ended = end->next;
        json_t *details = json_pack("{s:I}", "sessions", (json_int_t)end->sessions);
        if (end->lost)
            (void)json_object_set_new(details, "lost", json_true());
        else
            (void)json_object_update_new(details, json_pack("{s:I, s:I, s:I}", "jobs", (json_int_t)end->jobs,
                                                            "bytes", (json_int_t)end->bytes, "failures",
                                                            (json_int_t)end->failures));
        rs_audit_later(d, &end->who, "session.end", end->object, 0, details);
        free(end);
    }
    u->nended = 0;
    rs_audit_now(d);
}

static struct rs_use_end *end_of(struct rs_keyd *d, const struct rs_use *use, bool lost)
{
    struct rs_uses *u = &d->uses;
    struct rs_use_end **at = &u->ended;
    for (; *at != NULL; at = &(*at)->next) {
        struct rs_use_end *e = *at;
        if (e->lost == lost && e->who.uid == use->who.uid && e->who.pid == use->who.pid &&
            strcmp(e->object, use->object) == 0 && strcmp(e->who.tenant, use->who.tenant) == 0)
            return e;
    }
    if (u->nended == ENDS_MAX) {
        tell(d);
        at = &u->ended;
    }
    struct rs_use_end *e = calloc(1, sizeof(*e));
    if (e == NULL) return NULL;
    e->who = use->who;
    e->lost = lost;
    memcpy(e->object, use->object, sizeof(e->object));
    if (u->nended++ == 0) u->due_ns = rs_now_ns() + ENDS_NS;
    *at = e;
    return e;
}

static void end(struct rs_keyd *d, struct rs_use **at, const struct rs_msg_session_ended *m)
{
    struct rs_use_end *e = end_of(d, *at, m == NULL);
    if (e != NULL) e->sessions++;
    if (e != NULL && m != NULL) {
        e->jobs += m->jobs;
        e->bytes += m->bytes;
        e->failures += m->failures;
    }
    forget(&d->uses, at);
}

void rs_uses_ended(struct rs_keyd *d, const struct rs_work *w, const struct rs_msg_session_ended *list,
                   size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct rs_use **at = place_of(&d->uses, list[i].use);
        if (*at != NULL && (*at)->work == w) end(d, at, &list[i]);
    }
}

void rs_uses_work_gone(struct rs_keyd *d, const struct rs_work *w)
{
    for (unsigned b = 0; b < RS_USE_BUCKETS; b++)
        for (struct rs_use **at = &d->uses.buckets[b]; *at != NULL;)
            if ((*at)->work == w)
                end(d, at, NULL);
            else
                at = &(*at)->next;
}

int rs_uses_tick(struct rs_keyd *d)
{
    struct rs_uses *u = &d->uses;
    uint64_t now = rs_now_ns();
    if (u->ended == NULL) return -1;
    if (now < u->due_ns) return (int)((u->due_ns - now) / 1000000u) + 1;
    tell(d);
    return -1;
}

void rs_uses_close(struct rs_keyd *d)
{
    for (unsigned b = 0; b < RS_USE_BUCKETS; b++)
        while (d->uses.buckets[b] != NULL) forget(&d->uses, &d->uses.buckets[b]);
    tell(d);
}
