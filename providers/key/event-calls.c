/* SPDX-License-Identifier: Apache-2.0 */
/* The methods event.* and audit.*: who may read what has happened. */
#include "providers/key/events.h"
#include "providers/key/rooms.h"

#include <unistd.h>

#define ANSWER_LINES 256u

struct rs_who rs_who_of(const struct rs_client *c)
{
    struct rs_who who = {.uid = c->uid, .gid = c->gid, .pid = c->pid};
    memcpy(who.tenant, c->tenant, sizeof(who.tenant));
    return who;
}

/* Which lines are wanted. */
struct question {
    const struct rs_keyd *d;
    const struct rs_journal *j;
    struct rs_who who;
    bool audit;
    int64_t since, user; /* user -1: any */
    const char *id, *from, *tenant, *object;
    json_t *list;
};

/* False: the call has failed. */
static bool numbers_of(struct rs_rpc *call, struct question *q)
{
    q->user = -1;
    q->since = rs_rpc_number(call, "since", INT64_MAX, 0);
    if (q->since >= 0 && json_object_get(call->args, "user") != NULL) {
        q->user = rs_rpc_number(call, "user", UINT32_MAX, 0);
        return q->user >= 0;
    }
    return q->since >= 0;
}

static bool question_of(struct rs_rpc *call, bool audit, struct question *q)
{
    *q = (struct question){.d = call->d, .who = rs_who_of(call->client), .audit = audit};
    q->j = audit ? &call->d->events->audit : &call->d->events->events;
    if (!rs_rpc_args(call, audit ? "since id from of_tenant user object" : "since id from of_tenant"))
        return false;
    if (!numbers_of(call, q)) return false;
    q->id = rs_rpc_text(call, "id", 96);
    q->from = q->id != NULL ? rs_rpc_text(call, "from", 32) : NULL;
    q->tenant = q->from != NULL ? rs_rpc_text(call, "of_tenant", 64) : NULL;
    q->object = q->tenant != NULL ? rs_rpc_text(call, "object", RS_KEY_ID_MAX + RS_PROVIDER_NAME_MAX) : NULL;
    return q->object != NULL;
}

static bool fits(const char *pattern, const char *text)
{
    return *pattern == '\0' || rs_pattern_match(pattern, text);
}

static const char *member(const json_t *line, const char *name)
{
    const char *text = json_string_value(json_object_get(line, name));
    return text != NULL ? text : "";
}

/* Takes the line, when it is one that is asked for and may be seen. */
static void take(struct question *q, const struct rs_journal_line *line, json_t *object)
{
    bool wanted = object != NULL && rs_events_visible(q->d, line, q->audit, &q->who) &&
                  (q->user < 0 || line->uid == (uint64_t)q->user) &&
                  (*q->tenant == '\0' || strcmp(q->tenant, line->tenant) == 0) &&
                  (*q->from == '\0' || strcmp(member(object, "time"), q->from) >= 0) &&
                  fits(q->object, member(object, "object"));
    if (wanted)
        (void)json_array_append_new(q->list, object);
    else
        json_decref(object);
}

static bool take_text(void *arg, const char *text, size_t len)
{
    struct question *q = arg;
    struct rs_journal_line line;
    json_t *object = rs_journal_parse(q->j, text, len, &line);
    if (object != NULL && fits(q->id, line.what))
        take(q, &line, object);
    else
        json_decref(object);
    return json_array_size(q->list) < ANSWER_LINES;
}

/* The lines after `since` that match and that the client may see, at most ANSWER_LINES: from the files, then
 * from memory; one call reads only so much of the files that nobody waits for it. */
static json_t *lines_of(struct rs_rpc *call, struct question *q)
{
    struct rs_store *store = call->d->events->store;
    const struct rs_journal *j = q->j;
    q->list = json_array();
    uint64_t since = RS_MIN((uint64_t)q->since, j->last);
    uint64_t at = rs_journal_look(j, store, since, take_text, q);
    if (store == NULL) at = RS_MAX(at, j->first - 1);
    for (; at + 1 >= j->first && at < j->last && json_array_size(q->list) < ANSWER_LINES; at++) {
        const struct rs_journal_line *line = &j->ring[(at + 1) % RS_JOURNAL_RING];
        if (fits(q->id, line->what)) take(q, line, json_loadb(line->text, line->len, 0, NULL));
    }
    return json_pack("{s:o, s:I, s:b}", q->audit ? "audit" : "events", q->list, "last",
                     (json_int_t)RS_MAX(at, (uint64_t)q->since), "more", at < j->last);
}

void rs_event_list(struct rs_rpc *call)
{
    struct question q;
    if (question_of(call, false, &q)) rs_rpc_answer(call, lines_of(call, &q), -1);
}

void rs_audit_list(struct rs_rpc *call)
{
    struct question q;
    if (question_of(call, true, &q)) rs_rpc_answer(call, lines_of(call, &q), -1);
}

void rs_event_follow(struct rs_rpc *call)
{
    int fd = -1;
    if (!rs_rpc_args(call, "since id")) return;
    int64_t since = rs_rpc_number(call, "since", INT64_MAX, 0);
    const char *pattern = since >= 0 ? rs_rpc_text(call, "id", 96) : NULL;
    if (pattern == NULL) return;
    const struct rs_who who = rs_who_of(call->client);
    int r = rs_follow(call->d, &who, (uint64_t)since, pattern, &fd);
    if (r == RESEAL_ELIMIT)
        rs_rpc_fail(call, r, "too many followers of events: end one of them");
    else if (r != 0)
        rs_rpc_fail(call, r, "cannot make a socket for events");
    else
        rs_rpc_answer(call, NULL, fd);
}
