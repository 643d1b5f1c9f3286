/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/base/keymem.h"
#include "offload/service/server.h"

#include <stdlib.h>

/* ---- tenants ---------------------------------------------------------------- */

struct rs_tenant *rs_tenant_find(struct rs_server *s, const char *name)
{
    for (struct rs_tenant *t = s->tenants; t != NULL; t = t->next)
        if (strncmp(t->name, name, sizeof(t->name)) == 0) return t;
    struct rs_tenant *t = calloc(1, sizeof(*t));
    if (t == NULL) return NULL;
    memcpy(t->name, name, strnlen(name, sizeof(t->name) - 1));
    atomic_store_explicit(&t->weight, RS_WEIGHT_DEFAULT, memory_order_relaxed);
    t->next = s->tenants;
    s->tenants = t;
    return t;
}

/* The tenant that the policy counts this client for, with its weight of today. */
static void adopt_tenant(struct rs_server *s, struct rs_client *c, const struct rs_msg_session_keys *keys)
{
    struct rs_tenant *t = rs_tenant_find(s, keys->tenant);
    if (t == NULL) return;
    atomic_store_explicit(&t->weight, keys->weight, memory_order_relaxed);
    c->tenant = t;
    for (unsigned w = 0; w < s->nworkers; w++)
        if (c->seats[w] != NULL) atomic_store_explicit(&c->seats[w]->tenant, t, memory_order_relaxed);
}

/* Sessions of all clients of a tenant. */
static unsigned sessions_of_tenant(const struct rs_server *s, const struct rs_tenant *tenant)
{
    unsigned n = 0;
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++) {
        if (s->clients[i] == NULL || s->clients[i]->tenant != tenant) continue;
        for (unsigned slot = 0; slot < RS_SESSIONS_MAX; slot++) n += s->clients[i]->sessions[slot] != NULL;
    }
    return n;
}

/* ---- bindings --------------------------------------------------------------- */

static struct rs_transform_config config_of(const struct rs_msg_transform *asked,
                                            const struct rs_msg_session_keys *keys)
{
    return (struct rs_transform_config){
        .src = {.cipher = (uint8_t)asked->source.cipher,
                .bits = keys->src_bits,
                .unit = asked->source.unit,
                .step = asked->source.step},
        .dst = {.cipher = (uint8_t)asked->destination.cipher,
                .bits = keys->dst_bits,
                .unit = asked->destination.unit,
                .step = asked->destination.step},
        .stages = asked->stages,
        .level = asked->level,
        .counter_at = asked->counter_at,
        .typical_len = RS_TYPICAL_LEN,
    };
}

/* Keys of the length that the configuration needs, or none of it. */
static int check_keys(const struct rs_transform_config *config, const struct rs_msg_session_keys *keys)
{
    if (keys->src_len != rs_transform_raw_len(&config->src)) return RESEAL_EKEYBAD;
    return keys->dst_len == rs_transform_raw_len(&config->dst) ? 0 : RESEAL_EKEYBAD;
}

/* One binding of a session, with keys asked anew: a GCM destination gets a subkey of its own each time. */
static int bind(struct rs_server *s, struct rs_client *c, struct rs_session *session, struct rs_binding **out)
{
    const struct rs_msg_session_keys *keys;
    struct rs_msg_session_request request = {
        .uid = c->uid, .gid = c->gid, .pid = c->pid, .transform = session->asked};
    request.use = session->use;
    memcpy(request.tenant, c->tenant_asked, sizeof(request.tenant));
    int e = rs_keylink_ask(&s->keys, &request, &keys);
    if (e != 0) {
        atomic_fetch_add_explicit(&s->key_failures, 1, memory_order_relaxed);
        s->need_keyd |= s->keys.fd < 0;
        return e;
    }
    session->use = keys->use;
    session->config = config_of(&session->asked, keys);
    e = rs_transform_check(&session->config);
    if (e == 0) e = check_keys(&session->config, keys);
    if (e == 0) e = rs_binding_make(out, &session->config, keys);
    if (e == 0) adopt_tenant(s, c, keys);
    /* This session is among them already. */
    if (e == 0 && keys->max_sessions != 0 && sessions_of_tenant(s, c->tenant) > keys->max_sessions)
        e = RESEAL_ELIMIT;
    rs_keylink_wipe(&s->keys);
    return e;
}

/* A worker's scratch grows before it can get a session that needs more. */
static int grow_scratch(struct rs_server *s, struct rs_client *c, unsigned w,
                        const struct rs_transform_config *config)
{
    size_t need = rs_transform_scratch_size(config);
    if (need <= s->scratch_len[w]) return 0;
    struct rs_note *note = rs_note_new(c, w, RS_NOTE_SCRATCH);
    bool locked = false;
    uint8_t *scratch = note != NULL ? rs_secret_scratch_map(need, &locked) : NULL;
    if (scratch == NULL) {
        free(note);
        return RESEAL_ENOMEM;
    }
    s->scratch_locked &= locked;
    s->scratch_len[w] = need;
    note->base = scratch;
    note->len = need;
    rs_note_send(s, c, note, true);
    return 0;
}

static int bind_at(struct rs_server *s, struct rs_client *c, struct rs_session *session, unsigned w)
{
    struct rs_note *note = rs_note_new(c, w, RS_NOTE_SESSION_ADD);
    if (note == NULL) return RESEAL_ENOMEM;
    int e = bind(s, c, session, &session->bindings[w]);
    if (e == 0) e = grow_scratch(s, c, w, &session->config);
    if (e != 0) {
        rs_binding_free(session->bindings[w]);
        session->bindings[w] = NULL;
        free(note);
        return e;
    }
    note->binding = session->bindings[w];
    note->slot = session->handle & 0xffff;
    note->generation = session->handle >> 16;
    session->bound++;
    rs_note_send(s, c, note, true);
    return 0;
}

/* ---- seats -------------------------------------------------------------------- */

static int seat_make(struct rs_client *c, unsigned w)
{
    struct rs_seat *seat = calloc(1, sizeof(*seat) + RS_SESSIONS_MAX * sizeof(seat->slots[0]));
    struct rs_note *end = rs_note_new(c, w, RS_NOTE_SEAT_END);
    if (seat == NULL || end == NULL) {
        free(seat);
        free(end);
        return RESEAL_ENOMEM;
    }
    c->end_notes[w] = end;
    seat->client = c;
    atomic_store_explicit(&seat->tenant, c->tenant, memory_order_relaxed);
    seat->nslots = RS_SESSIONS_MAX;
    c->seats[w] = seat;
    return 0;
}

int rs_session_seat(struct rs_server *s, struct rs_client *c, unsigned w)
{
    if (c->seats[w] == NULL && seat_make(c, w) != 0) return RESEAL_ENOMEM;
    for (unsigned i = 0; i < RS_SESSIONS_MAX; i++) {
        struct rs_session *session = c->sessions[i];
        if (session == NULL || session->ending || session->bindings[w] != NULL) continue;
        int e = bind_at(s, c, session, w);
        if (e != 0) return e;
    }
    return 0;
}

/* ---- life --------------------------------------------------------------------- */

struct rs_session *rs_session_find(struct rs_client *c, uint32_t handle)
{
    uint32_t slot = handle & 0xffff;
    if (slot >= RS_SESSIONS_MAX || c->sessions[slot] == NULL) return NULL;
    return c->sessions[slot]->handle == handle ? c->sessions[slot] : NULL;
}

static struct rs_session *session_make(struct rs_client *c, const struct rs_msg_transform *asked)
{
    for (uint32_t slot = 0; slot < RS_SESSIONS_MAX; slot++) {
        if (c->sessions[slot] != NULL) continue;
        struct rs_session *session = calloc(1, sizeof(*session));
        if (session == NULL) return NULL;
        /* Never 0: a handle of 0 is nobody's, and an old one is not taken for the new. */
        if (++c->generations[slot] == 0) c->generations[slot] = 1;
        session->handle = (uint32_t)c->generations[slot] << 16 | slot;
        session->asked = *asked;
        c->sessions[slot] = session;
        return session;
    }
    return NULL;
}

/* What it did counts for its session. */
static void binding_drop(struct rs_session *session, unsigned w)
{
    struct rs_binding *b = session->bindings[w];
    if (b == NULL) return;
    session->done.jobs += atomic_load_explicit(&b->jobs, memory_order_relaxed);
    session->done.bytes += atomic_load_explicit(&b->bytes, memory_order_relaxed);
    session->done.failures += atomic_load_explicit(&b->failures, memory_order_relaxed);
    rs_binding_free(b);
    session->bindings[w] = NULL;
}

void rs_session_free(struct rs_server *s, struct rs_client *c, struct rs_session *session)
{
    for (unsigned w = 0; w < RS_WORKERS_MAX; w++) binding_drop(session, w);
    session->done.use = session->use;
    if (session->use != 0) rs_keylink_ended(&s->keys, &session->done);
    c->sessions[session->handle & 0xffff] = NULL;
    free(session);
}

/* Binds a session that was just made wherever its client sits. What could not be bound is undone. */
static int session_bind(struct rs_server *s, struct rs_client *c, struct rs_session *session)
{
    int e = c->seats[c->home] == NULL ? seat_make(c, c->home) : 0;
    for (unsigned w = 0; e == 0 && w < s->nworkers; w++)
        if (c->seats[w] != NULL) e = bind_at(s, c, session, w);
    if (e == 0) return 0;
    if (session->bound != 0)
        rs_session_end(s, c, session, RESEAL_ECANCELED, true);
    else
        rs_session_free(s, c, session);
    return e;
}

static bool sides_known(const struct rs_msg_transform *asked)
{
    return asked->reserved == 0 && asked->source.cipher <= RS_GCM && asked->destination.cipher <= RS_GCM;
}

/* Sessions of all clients of a user. */
static unsigned sessions_of(const struct rs_server *s, uint32_t uid)
{
    unsigned n = 0;
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++) {
        if (s->clients[i] == NULL || s->clients[i]->uid != uid) continue;
        for (unsigned slot = 0; slot < RS_SESSIONS_MAX; slot++) n += s->clients[i]->sessions[slot] != NULL;
    }
    return n;
}

int rs_session_open(struct rs_server *s, struct rs_client *c, const struct rs_msg_transform *asked)
{
    if (!sides_known(asked)) return RESEAL_EINVAL;
    struct rs_session *session = sessions_of(s, c->uid) < RS_SESSIONS_USER ? session_make(c, asked) : NULL;
    if (session == NULL) return RESEAL_ELIMIT;
    int e = session_bind(s, c, session);
    if (e == 0) c->op.session = session;
    return e;
}

int rs_session_restore(struct rs_server *s, struct rs_client *c, uint32_t handle, uint32_t use,
                       const struct rs_msg_transform *asked)
{
    uint32_t slot = handle & 0xffff;
    if (slot >= RS_SESSIONS_MAX || c->sessions[slot] != NULL || !sides_known(asked)) return RESEAL_EPROTO;
    struct rs_session *session = calloc(1, sizeof(*session));
    if (session == NULL) return RESEAL_ENOMEM;
    session->handle = handle;
    session->use = use;
    session->asked = *asked;
    c->generations[slot] = (uint16_t)(handle >> 16);
    c->sessions[slot] = session;
    return session_bind(s, c, session);
}

void rs_session_end(struct rs_server *s, struct rs_client *c, struct rs_session *session, int status, bool op)
{
    if (session->ending) return;
    session->ending = true;
    for (unsigned w = 0; w < s->nworkers; w++) {
        if (session->bindings[w] == NULL) continue;
        struct rs_note *note = rs_note_new(c, w, RS_NOTE_SESSION_END);
        /* A session that cannot be ended must not go on: its client ends, which needs no memory. */
        if (note == NULL) {
            rs_client_end(s, c);
            return;
        }
        note->session = session;
        note->slot = session->handle & 0xffff;
        note->status = status;
        rs_note_send(s, c, note, op);
    }
}

void rs_session_unbound(struct rs_server *s, struct rs_client *c, const struct rs_note *note)
{
    struct rs_session *session = note->session;
    binding_drop(session, note->worker);
    if (--session->bound == 0) rs_session_free(s, c, session);
}

void rs_session_unknown(struct rs_server *s)
{
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++)
        for (unsigned n = 0; s->clients[i] != NULL && n < RS_SESSIONS_MAX; n++)
            if (s->clients[i]->sessions[n] != NULL) s->clients[i]->sessions[n]->use = 0;
}

static bool uses(const struct rs_msg_side *side, const reseal_key *key)
{
    return side->cipher != RS_PLAIN && memcmp(&side->key, key, sizeof(*key)) == 0;
}

void rs_session_revoke(struct rs_server *s, const reseal_key *key)
{
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++) {
        struct rs_client *c = s->clients[i];
        for (unsigned n = 0; c != NULL && !c->ending && n < RS_SESSIONS_MAX; n++) {
            struct rs_session *session = c->sessions[n];
            if (session == NULL) continue;
            if (uses(&session->asked.source, key) || uses(&session->asked.destination, key))
                rs_session_end(s, c, session, RESEAL_EREVOKED, false);
        }
    }
}
