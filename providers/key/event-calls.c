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

/* {"since", "id"}; false: the call has failed. */
static bool filter_of(struct rs_rpc *call, int64_t *since, const char **pattern)
{
    if (!rs_rpc_args(call, "since id")) return false;
    *since = rs_rpc_number(call, "since", INT64_MAX, 0);
    if (*since < 0) return false;
    *pattern = rs_rpc_text(call, "id", 96);
    return *pattern != NULL;
}

/* The lines after `since` that match and that the client may see, at most ANSWER_LINES. */
static json_t *lines_of(const struct rs_rpc *call, const struct rs_journal *j, bool audit, uint64_t since,
                        const char *pattern)
{
    const struct rs_who who = rs_who_of(call->client);
    json_t *list = json_array();
    uint64_t at = RS_MAX(since, j->first - 1) + 1;
    for (; at <= j->last && json_array_size(list) < ANSWER_LINES; at++) {
        const struct rs_journal_line *line = &j->ring[at % RS_JOURNAL_RING];
        if (*pattern != '\0' && !rs_pattern_match(pattern, line->what)) continue;
        if (rs_events_visible(call->d, line, audit, &who))
            (void)json_array_append_new(list, json_loadb(line->text, line->len, 0, NULL));
    }
    return json_pack("{s:o, s:I, s:b}", audit ? "audit" : "events", list, "last", (json_int_t)(at - 1),
                     "more", at <= j->last);
}

void rs_event_list(struct rs_rpc *call)
{
    int64_t since;
    const char *pattern;
    if (filter_of(call, &since, &pattern))
        rs_rpc_answer(call, lines_of(call, &call->d->events->events, false, (uint64_t)since, pattern), -1);
}

void rs_audit_list(struct rs_rpc *call)
{
    int64_t since;
    const char *pattern;
    if (filter_of(call, &since, &pattern))
        rs_rpc_answer(call, lines_of(call, &call->d->events->audit, true, (uint64_t)since, pattern), -1);
}

void rs_event_follow(struct rs_rpc *call)
{
    int64_t since;
    const char *pattern;
    int fd = -1;
    if (!filter_of(call, &since, &pattern)) return;
    const struct rs_who who = rs_who_of(call->client);
    int r = rs_follow(call->d, &who, (uint64_t)since, pattern, &fd);
    if (r == RESEAL_ELIMIT)
        rs_rpc_fail(call, r, "too many followers of events: end one of them");
    else if (r != 0)
        rs_rpc_fail(call, r, "cannot make a socket for events");
    else
        rs_rpc_answer(call, NULL, fd);
}
