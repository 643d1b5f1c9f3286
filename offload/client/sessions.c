/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/client/internal.h"

#include <stdlib.h>

/* The unit of the zero map when neither side has one; offload/transform/transform.h says the same. */
#define ZERO_UNIT 4096u

/* A compact copy for the wire; the service checks every value. */
static struct rs_msg_side wire_side(const struct reseal_side *side)
{
    return (struct rs_msg_side){
        .cipher = side->cipher, .unit = side->unit, .step = side->step, .key = side->key};
}

static uint32_t zero_unit_of(const struct reseal_transform *t)
{
    if (t->destination.cipher != RESEAL_GCM && t->destination.unit != 0) return t->destination.unit;
    if (t->source.cipher != RESEAL_GCM && t->source.unit != 0) return t->source.unit;
    return ZERO_UNIT;
}

/* A closed session of the list or a new one; under the lock. */
static struct reseal_session *session_take(struct reseal *r)
{
    for (struct reseal_session *s = r->sessions; s != NULL; s = s->next)
        if (!s->open) return s;
    struct reseal_session *s = calloc(1, sizeof(*s));
    if (s == NULL) return NULL;
    s->r = r;
    s->next = r->sessions;
    r->sessions = s;
    return s;
}

/* Opens in the service; under the lock. */
static int session_call(struct reseal *r, const struct rs_msg_transform *wire, struct reseal_session *s)
{
    struct rs_msg_session reply;
    int err = rs_client_call_locked(r, true, RS_MSG_SESSION_OPEN, wire, sizeof(*wire), NULL, 0, &reply,
                                    sizeof(reply), NULL, 0);
    if (err != 0) return err;
    s->transform = *wire;
    atomic_store(&s->handle, reply.session);
    atomic_store(&s->status, 0);
    return 0;
}

int reseal_session_open(reseal *r, const struct reseal_transform *transform, reseal_session **out)
{
    if (r == NULL || transform == NULL || out == NULL) return RESEAL_EINVAL;
    *out = NULL;
    struct reseal_transform t;
    int err = rs_client_check_fork(r);
    if (err == 0) err = rs_client_take_options(&t, sizeof(t), transform);
    if (err != 0) return err;
    struct rs_msg_transform wire = {.stages = t.stages,
                                    .level = t.level,
                                    .counter_at = t.counter_at,
                                    .source = wire_side(&t.source),
                                    .destination = wire_side(&t.destination)};
    /* Under one lock from the reply to the entry in the list: a restart between the two would forget it. */
    pthread_mutex_lock(&r->lock);
    struct reseal_session *s = session_take(r);
    err = s != NULL ? session_call(r, &wire, s) : RESEAL_ENOMEM;
    if (err == 0) {
        s->zero_unit = zero_unit_of(&t);
        s->open = true;
        *out = s;
    }
    pthread_mutex_unlock(&r->lock);
    return err;
}

void reseal_session_close(reseal_session *s)
{
    if (s == NULL || rs_client_check_fork(s->r) != 0) return;
    struct reseal *r = s->r;
    pthread_mutex_lock(&r->lock);
    if (s->open) {
        struct rs_msg_session body = {.session = atomic_load(&s->handle)};
        bool known = atomic_load(&s->status) == 0 && atomic_load(&r->gone) == 0;
        s->open = false;
        atomic_fetch_add(&s->serial, 1);
        /* When the service went away meanwhile, so did the session. */
        int err = known ? rs_msg_call(r->control, RS_MSG_SESSION_CLOSE, &body, sizeof(body), NULL, 0, NULL, 0,
                                      NULL, 0)
                        : 0;
        (void)err;
    }
    pthread_mutex_unlock(&r->lock);
}

int rs_client_reopen_sessions(struct reseal *r, int control)
{
    for (struct reseal_session *s = r->sessions; s != NULL; s = s->next) {
        if (!s->open) continue;
        struct rs_msg_session reply;
        int err = rs_msg_call(control, RS_MSG_SESSION_OPEN, &s->transform, sizeof(s->transform), NULL, 0,
                              &reply, sizeof(reply), NULL, 0);
        if (rs_client_is_loss(err)) return err;
        if (err == 0) atomic_store(&s->handle, reply.session);
        /* The key was there when the session was opened first. */
        atomic_store(&s->status, err == RESEAL_ENOKEY ? RESEAL_EKEYGONE : err);
    }
    return 0;
}
