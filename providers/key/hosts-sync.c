/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A manager's side: each host is told what it lacks, in one conversation at a time, and asked now and then
 * whether it is still the one that was told. One that is away hinders no other.
 */
#include "providers/key/events.h"
#include "providers/key/host-messages.h"
#include "providers/key/hosts.h"

#include "offload/base/clock.h"
#include "offload/base/keymem.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SECOND_NS    UINT64_C(1000000000)
#define HEARTBEAT_NS (5 * SECOND_NS)
#define PAUSE_MAX    30u
/* Children of hosts are counted apart from those of users, and of hosts that are away from those of others.
 */
#define UID_OF_HOSTS 0xf2000000u
#define UID_OF_AWAY  0xf2000001u
#define REMOVALS     128u         /* of one conversation */
#define REFUSED_NS   HEARTBEAT_NS /* until a native provider that was refused is given again */

/* ---- what a host is to have ----------------------------------------------------------------- */

/* True when keys of that provider are for the cluster. */
static bool takes(const struct rs_keyd *d, const struct rs_host *h, const char *provider)
{
    const json_t *list = json_object_get(d->hosts->clusters, h->cluster);
    json_t *name;
    size_t i;
    if (json_array_size(list) == 0) return true;
    json_array_foreach(list, i, name)
    {
        if (strcmp(json_string_value(name), provider) == 0) return true;
    }
    return false;
}

static bool lacks(const struct rs_keyd *d, const struct rs_host *h)
{
    return h->instance[0] == '\0' || h->prepare || h->given != d->hosts->generation ||
           json_array_size(h->removals) != 0 || h->at < json_array_size(d->hosts->keys) || h->ready != 0;
}

static void batch_free(struct rs_host *h)
{
    json_decref(h->batch);
    rs_keymem_free(h->keks);
    h->batch = NULL;
    h->keks = NULL;
}

void rs_host_stop(struct rs_keyd *d, struct rs_host *h)
{
    rs_late_clear(d, h);
    rs_task_cancel(d, h);
    batch_free(h);
    h->running = false;
}

/* ---- the outcome ------------------------------------------------------------------------------ */

static void tell_failure(struct rs_keyd *d, struct rs_host *h, const char *why)
{
    char line[500];
    size_t keys = json_array_size(d->hosts->keys);
    (void)snprintf(h->why, sizeof(h->why), "%s", why);
    if (h->down && h->told == keys) return; /* once for an outage, and again for keys that came in it */
    h->told = keys;
    (void)snprintf(line, sizeof(line), "keys could not be added to host %s: %s", h->name, why);
    rs_event(d, "", RS_EVENT_HOST_KEY_ERROR, line,
             json_pack("{s:s, s:s, s:s, s:I}", "host", h->name, "cluster", h->cluster, "address", h->address,
                       "missing", (json_int_t)(keys - h->at + rs_late_missing(h))));
}

static void tell_refused(struct rs_keyd *d, const struct rs_host *h, const json_t *refused)
{
    json_t *one;
    size_t i;
    json_array_foreach(refused, i, one)
    {
        const json_t *entry = json_array_get(one, 0);
        const char *why = json_string_value(json_array_get(one, 1)),
                   *tenant = json_string_value(json_array_get(entry, 0));
        char line[500];
        (void)snprintf(line, sizeof(line), "a key could not be added to host %s: %s", h->name,
                       why != NULL ? why : "");
        rs_event(d, tenant, RS_EVENT_HOST_KEY_ERROR, line,
                 json_pack("{s:s, s:s, s:O?, s:O?}", "host", h->name, "cluster", h->cluster, "provider",
                           json_array_get(entry, 1), "key", json_array_get(entry, 2)));
    }
}

static void failed(struct rs_keyd *d, struct rs_host *h, const char *why)
{
    unsigned pause = RS_MIN(1u << RS_MIN(h->failures, 6u), PAUSE_MAX);
    rs_late_kept(d, h);
    tell_failure(d, h, why);
    h->down = true;
    h->failures++;
    h->again_ns = rs_now_ns() + pause * SECOND_NS;
}

/* It is another than before: what it had is gone. */
static void begin_anew(struct rs_keyd *d, struct rs_host *h, const char *instance)
{
    char line[200];
    if (h->instance[0] != '\0') {
        uint64_t now = rs_now_ns();
        (void)snprintf(line, sizeof(line), "host %s began anew: it gets its keys again", h->name);
        rs_event(d, "", "reseal.host.Restarted", line, json_pack("{s:s}", "host", h->name));
        /* One that says so whenever it is asked is not asked, and told of, without end. */
        h->pause_ns = now - h->anew_ns < 2 * HEARTBEAT_NS ? now + HEARTBEAT_NS : 0;
        h->anew_ns = now;
    }
    (void)snprintf(h->instance, sizeof(h->instance), "%s", instance);
    rs_late_clear(d, h);
    h->at = 0;
    h->given = 0;
    h->kdks_again_ns = 0;
}

/* The host has providers of its own under those names: nothing else waits for them. */
static void tell_kdks(struct rs_keyd *d, struct rs_host *h, const json_t *refused)
{
    json_t *one;
    size_t i;
    h->kdks_again_ns = json_array_size(refused) != 0 ? rs_now_ns() + REFUSED_NS : 0;
    json_array_foreach(refused, i, one)
    {
        const char *tenant = json_string_value(json_array_get(one, 0));
        char line[500];
        (void)snprintf(h->why, sizeof(h->why), "%s", json_string_value(json_array_get(one, 2)));
        (void)snprintf(line, sizeof(line), "a native key provider could not be added to host %s: %s", h->name,
                       h->why);
        if (h->kdks_told != h->giving)
            rs_event(d, tenant, RS_EVENT_HOST_KEY_ERROR, line,
                     json_pack("{s:s, s:s, s:O}", "host", h->name, "cluster", h->cluster, "provider",
                               json_array_get(one, 1)));
    }
    if (json_array_size(refused) != 0) h->kdks_told = h->giving;
}

/* What was given is there. */
static void settle(struct rs_keyd *d, struct rs_host *h, const struct rs_host_told *told)
{
    h->at = RS_MAX(h->at, h->end);
    rs_late_given(d, h);
    if (h->given != h->giving) tell_kdks(d, h, told->kdks_refused);
    h->given = h->giving;
    h->prepare = false;
    bool removed = h->removing != 0;
    for (; h->removing != 0; h->removing--) (void)json_array_remove(h->removals, 0);
    tell_refused(d, h, told->refused);
    if (removed && rs_hosts_save(d) != 0)
        (void)fprintf(stderr, "reseal-keyd: hosts.json cannot be written\n");
}

static void went_well(struct rs_keyd *d, struct rs_host *h, const struct rs_host_told *told)
{
    bool gave = h->removing != 0 || h->giving != h->given || h->prepare || json_array_size(h->batch) != 0;
    (void)snprintf(h->state, sizeof(h->state), "%s", told->state);
    if (h->down) {
        char line[200];
        (void)snprintf(line, sizeof(line), "host %s takes keys again", h->name);
        rs_event(d, "", "reseal.host.Connected", line, json_pack("{s:s}", "host", h->name));
    }
    h->down = false;
    h->failures = 0;
    if (h->kdks_again_ns == 0) h->why[0] = '\0';
    h->again_ns = rs_now_ns() + HEARTBEAT_NS;
    if (strcmp(told->instance, h->instance) != 0)
        begin_anew(d, h, told->instance);
    else if (gave || h->end > h->at)
        settle(d, h, told);
}

static void talked(struct rs_keyd *d, void *arg, struct rs_task_answer *answer)
{
    struct rs_host *h = arg;
    struct rs_host_told told;
    rs_host_told(answer->result, h->batch, &told);
    h->running = false;
    bool well = answer->status == 0 && told.instance[0] != '\0';
    if (well)
        went_well(d, h, &told);
    else
        failed(d, h, answer->status != 0 ? answer->why : "it did not say who it is");
    json_decref(told.refused);
    json_decref(told.kdks_refused);
    batch_free(h);
    if (well) rs_host_wake(d, h);
}

/* ---- a conversation --------------------------------------------------------------------------- */

static int add_kdks(const struct rs_keyd *d, const struct rs_host *h, json_t *args,
                    struct rs_secrets *secrets)
{
    json_t *list = json_array();
    size_t n = 0;
    (void)json_object_set_new(args, "kdks", list);
    RS_KEYMEM uint8_t *all = rs_keymem_alloc((size_t)RS_PROVIDERS_MAX * RS_AGENT_SECRET);
    if (all == NULL) return RESEAL_ENOMEM;
    for (const struct rs_provider *p = d->providers.first; p != NULL && n < RS_PROVIDERS_MAX; p = p->next) {
        const struct rs_secret *kdk = rs_secrets_find(&p->secrets, "kdk");
        if (!p->usable || kdk == NULL || kdk->len != RS_AGENT_SECRET || !takes(d, h, p->name)) continue;
        memcpy(all + n++ * RS_AGENT_SECRET, kdk->bytes, RS_AGENT_SECRET);
        (void)json_array_append_new(list, json_pack("[s, s]", p->tenant, p->name));
    }
    return n != 0 ? rs_secrets_put(secrets, "kdks", all, n * RS_AGENT_SECRET) : 0;
}

/* NULL: no memory. */
static json_t *first_of(const json_t *list, size_t most)
{
    json_t *out = json_array();
    for (size_t i = 0; i < most && i < json_array_size(list); i++)
        (void)json_array_append(out, json_array_get(list, i));
    return out;
}

static void start(struct rs_keyd *d, struct rs_host *h)
{
    struct rs_secrets secrets = {0};
    size_t n = json_array_size(h->batch);
    json_t *args = json_pack("{s:s, s:s, s:s, s:s, s:O, s:b, s:o}", "op", "give", "address", h->address,
                             "pin", h->pin, "instance", h->instance, "keys", h->batch, "prepare", h->prepare,
                             "remove", first_of(h->removals, REMOVALS));
    int r = args != NULL ? rs_secrets_copy(&secrets, &d->hosts->identity) : RESEAL_ENOMEM;
    h->giving = d->hosts->generation;
    h->removing = RS_MIN(json_array_size(h->removals), (size_t)REMOVALS);
    if (r == 0 && h->given != h->giving) r = add_kdks(d, h, args, &secrets);
    if (r == 0 && n != 0) r = rs_secrets_put(&secrets, "keks", h->keks, n * RS_KEK_LEN);
    if (r == 0)
        r = rs_task_start(d, &rs_task_host, h->down ? UID_OF_AWAY : UID_OF_HOSTS, args, &secrets, NULL, 0,
                          talked, h);
    json_decref(args);
    rs_secrets_free(&secrets);
    if (r == 0) return;
    h->running = false;
    rs_late_kept(d, h);
    batch_free(h);
    h->again_ns = rs_now_ns() + SECOND_NS;
}

static void got_key(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek, const char *why)
{
    struct rs_host *h = arg;
    (void)why;
    if (status != 0 || kek->bytes == NULL) {
        rs_late_add(h, h->end);
        return;
    }
    memcpy(h->keks + json_array_size(h->batch) * RS_KEK_LEN, kek->bytes, RS_KEK_LEN);
    (void)json_array_append(h->batch, json_array_get(d->hosts->keys, h->end));
}

/* Collects the next keys that the host lacks and that are in memory; for others it need not wait. */
static void gather(struct rs_keyd *d, struct rs_host *h)
{
    struct rs_who who = {.uid = geteuid(), .gid = getegid(), .pid = (uint32_t)getpid()};
    (void)rs_late_take(d, h, h->batch, h->keks);
    for (; h->end < json_array_size(d->hosts->keys) && json_array_size(h->batch) < RS_AGENT_KEYS; h->end++) {
        const json_t *entry = json_array_get(d->hosts->keys, h->end);
        const char *tenant = json_string_value(json_array_get(entry, 0));
        const char *provider = json_string_value(json_array_get(entry, 1));
        const char *key = json_string_value(json_array_get(entry, 2));
        /* What was removed with its provider is nobody's any more, until one of that name is back. */
        if (!takes(d, h, provider) || rs_providers_of(d, tenant, provider) == NULL) continue;
        if (!rs_kek_cached(d, tenant, provider, key)) {
            rs_late_add(h, h->end);
            continue;
        }
        (void)snprintf(who.tenant, sizeof(who.tenant), "%s", tenant);
        rs_kek_get(d, &who, provider, key, NULL, got_key, h);
    }
}

void rs_host_wake(struct rs_keyd *d, struct rs_host *h)
{
    uint64_t now = rs_now_ns();
    bool due = h->again_ns == 0 || now >= h->again_ns;
    /* A host that is well is told at once; one that is away when its pause is over. */
    if (h->running || now < h->pause_ns || (!due && (h->down || !lacks(d, h)))) return;
    h->batch = json_array();
    h->keks = rs_keymem_alloc((size_t)RS_AGENT_KEYS * RS_KEK_LEN);
    if (h->batch == NULL || h->keks == NULL) {
        batch_free(h);
        h->again_ns = now + SECOND_NS;
        return;
    }
    h->running = true;
    h->again_ns = 0;
    h->end = h->at;
    if (h->kdks_again_ns != 0 && now >= h->kdks_again_ns) h->given = 0;
    /* Before it is known who it is, and while it was away, nothing is prepared for it. */
    if (h->instance[0] != '\0' && !h->down) gather(d, h);
    start(d, h);
}

void rs_hosts_wake(struct rs_keyd *d)
{
    for (struct rs_host *h = d->hosts != NULL ? d->hosts->first : NULL, *next; h != NULL; h = next) {
        next = h->next;
        rs_host_wake(d, h);
    }
}

int rs_hosts_tick(struct rs_keyd *d)
{
    uint64_t least = UINT64_MAX, now = rs_now_ns();
    if (d->hosts == NULL || d->hosts->first == NULL) return -1;
    for (struct rs_host *h = d->hosts->first; h != NULL; h = h->next)
        if (h->instance[0] != '\0' && !h->down) rs_late_fetch(d, h);
    rs_hosts_wake(d);
    for (const struct rs_host *h = d->hosts->first; h != NULL; h = h->next) {
        if (!h->running && (h->again_ns != 0 || h->pause_ns > now))
            least = RS_MIN(least, RS_MAX(h->again_ns, h->pause_ns));
        if (h->late != NULL && h->instance[0] != '\0' && !h->down) least = RS_MIN(least, h->late_ns);
    }
    if (least == UINT64_MAX) return -1;
    return least <= now ? 0 : (int)((least - now) / 1000000u) + 1;
}
