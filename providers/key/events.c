/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/events.h"

#include "offload/base/clock.h"
#include "providers/key/flush.h"
#include "providers/key/journal-kept.h"
#include "providers/key/rooms.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MESSAGE_MAX 512u
#define COUNT_NS    1000000000u

int rs_events_open(struct rs_keyd *d, struct rs_store *store)
{
    struct rs_events *e = calloc(1, sizeof(*e));
    if (e == NULL) return RESEAL_ENOMEM;
    e->store = store;
    e->events.fd = e->audit.fd = -1;
    e->events.name = "events.jsonl";
    e->events.what = "id";
    e->events.owner = "\"tenant\":\"";
    e->audit.name = "audit.jsonl";
    e->audit.what = "operation";
    e->audit.owner = "\"uid\":";
    e->audit.keep = d->keep_audit != 0 ? d->keep_audit : RS_JOURNAL_KEEP;
    e->events.keep = e->audit.keep / 4;
    rs_journal_empty(&e->events, 0);
    rs_journal_empty(&e->audit, 0);
    rs_journal_read(&e->events, store);
    rs_journal_read(&e->audit, store);
    d->events = e;
    return 0;
}

int rs_events_tick(struct rs_keyd *d)
{
    struct rs_events *e = d->events;
    uint64_t now = rs_now_ns();
    if (e == NULL) return -1;
    if (now < e->count_ns) return (int)((e->count_ns - now) / 1000000u) + 1;
    if (!rs_journal_kept_count(&e->audit, e->store) && !rs_journal_kept_count(&e->events, e->store))
        return -1;
    e->count_ns = now + COUNT_NS;
    return COUNT_NS / 1000000u;
}

void rs_events_close(struct rs_keyd *d)
{
    if (d->events == NULL) return;
    rs_followers_end(d);
    rs_webhooks_close(d);
    rs_journal_close(&d->events->events);
    rs_journal_close(&d->events->audit);
    free(d->events);
    d->events = NULL;
}

/* ---- who may read ---------------------------------------------------------------------- */

bool rs_events_all_visible(uint32_t uid)
{
    return uid == 0 || uid == geteuid();
}

bool rs_events_visible(const struct rs_keyd *d, const struct rs_journal_line *line, bool audit,
                       const struct rs_who *who)
{
    if (rs_events_all_visible(who->uid)) return true;
    bool manager = rs_policy_has(d->policy, who->uid, who->gid, who->tenant, RS_PRIV_MANAGE_KEYS);
    if (line->tenant[0] == '\0') return manager;
    if (strcmp(line->tenant, who->tenant) != 0) return false;
    return !audit || manager || line->uid == who->uid;
}

/* ---- writing --------------------------------------------------------------------------- */

static void set_text(json_t *object, const char *name, const char *text, size_t max)
{
    (void)json_object_set_new(object, name, rs_journal_text(text, max));
}

static void set_details(json_t *object, json_t *details)
{
    if (details != NULL) (void)json_object_set_new(object, "details", rs_journal_details(details, 0));
    json_decref(details);
}

/* Lines that left memory before there was room for them on the disk are told of once there is. */
static void tell_lost(struct rs_keyd *d)
{
    struct rs_events *e = d->events;
    uint64_t lost = e->events.lost + e->audit.lost, n = lost - e->lost_told;
    char line[160];
    if (n == 0 || e->events.failure != 0) return;
    e->lost_told = lost;
    (void)snprintf(line, sizeof(line),
                   "%llu lines of events and audit could not be written, and are lost: their "
                   "numbers are missing",
                   (unsigned long long)n);
    rs_event(
        d, "", RS_EVENT_LINES_LOST, line,
        json_pack("{s:I, s:I}", "events", (json_int_t)e->events.lost, "audit", (json_int_t)e->audit.lost));
}

/* Old lines went, since there is no room for all within what is kept. */
static void tell_dropped(struct rs_keyd *d, const struct rs_journal *j, uint64_t *told, const char *owner)
{
    char line[200];
    uint64_t n = j->dropped - *told;
    if (n == 0) return;
    *told = j->dropped;
    (void)snprintf(line, sizeof(line),
                   "%s has reached its %llu MiB: its %llu oldest lines of those who have the most in it went",
                   j->name, (unsigned long long)(j->keep >> 20), (unsigned long long)n);
    rs_event(d, "", RS_EVENT_LINES_DROPPED, line,
             json_pack("{s:s, s:I, s:s}", "journal", j->name, "lines", (json_int_t)n, owner, j->dropped_of));
}

static void tell_all(struct rs_keyd *d)
{
    tell_lost(d);
    tell_dropped(d, &d->events->audit, &d->events->audit_told, "last-of-user");
    tell_dropped(d, &d->events->events, &d->events->events_told, "last-of-tenant");
}

void rs_event(struct rs_keyd *d, const char *tenant, const char *id, const char *message, json_t *details)
{
    struct rs_journal_line line = {0};
    json_t *object = json_object();
    (void)snprintf(line.tenant, sizeof(line.tenant), "%s", tenant != NULL ? tenant : "");
    (void)snprintf(line.what, sizeof(line.what), "%s", id);
    set_text(object, "id", line.what, sizeof(line.what));
    set_text(object, "message", message, MESSAGE_MAX);
    set_text(object, "tenant", line.tenant, sizeof(line.tenant));
    set_details(object, details);
    if (d->events == NULL) {
        json_decref(object);
        (void)fprintf(stderr, "reseal-keyd: event %s\n", line.what);
        return;
    }
    if (rs_journal_write(&d->events->events, d->events->store, &line, object)) {
        rs_followers_wake(d);
        rs_webhooks_wake(d);
    }
    rs_flush(d);
    tell_all(d);
}

/* What these say to a client of ours is not what they mean here: that a key server, or a service for attested
 * hosts, is away. */
static const char *text_of_status(int status)
{
    return status == RESEAL_ENOSERVICE  ? "who gives the key cannot be reached"
           : status == RESEAL_ETIMEDOUT ? "who gives the key did not answer in time"
                                        : reseal_strerror(status);
}

void rs_audit_later(struct rs_keyd *d, const struct rs_who *who, const char *operation, const char *object,
                    int status, json_t *details)
{
    struct rs_journal_line line = {.uid = who->uid};
    json_t *members = json_pack("{s:I, s:I}", "uid", (json_int_t)who->uid, "pid", (json_int_t)who->pid);
    (void)snprintf(line.tenant, sizeof(line.tenant), "%s", who->tenant);
    (void)snprintf(line.what, sizeof(line.what), "%s", operation);
    set_text(members, "tenant", line.tenant, sizeof(line.tenant));
    set_text(members, "operation", line.what, sizeof(line.what));
    /* A key's id is what the line is about: not cut as other texts are. */
    set_text(members, "object", object, RS_KEY_ID_MAX + RS_PROVIDER_NAME_MAX);
    (void)json_object_set_new(members, "status", json_integer(status));
    if (status != 0) set_text(members, "error", text_of_status(status), RS_JOURNAL_TEXT);
    set_details(members, details);
    if (d->events == NULL) {
        json_decref(members);
        return;
    }
    (void)rs_journal_keep(&d->events->audit, &line, members);
}

void rs_audit_now(struct rs_keyd *d)
{
    if (d->events == NULL) return;
    (void)rs_journal_catch_up(&d->events->audit, d->events->store); /* its failure says it */
    rs_flush(d);
    tell_dropped(d, &d->events->audit, &d->events->audit_told, "last-of-user");
}

void rs_audit(struct rs_keyd *d, const struct rs_who *who, const char *operation, const char *object,
              int status, json_t *details)
{
    rs_audit_later(d, who, operation, object, status, details);
    rs_audit_now(d);
}

bool rs_audit_works(struct rs_keyd *d, char *why, size_t why_len)
{
    struct rs_events *e = d->events;
    if (e == NULL) return true;
    int r = rs_journal_catch_up(&e->audit, e->store);
    if (r == 0) return true;
    rs_flush(d);
    (void)snprintf(why, why_len, "the audit cannot be written (%s): no key is used until there is room in %s",
                   r == RESEAL_ESPACE ? "no space left" : reseal_strerror(r), d->state_folder);
    return false;
}
