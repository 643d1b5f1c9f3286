/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys that a host wants and that are not in memory: each is asked of its provider, one at a time of a
 * provider, while conversations with the host go on. A provider that does not answer is asked again later and
 * keeps no key of another from the host; one that does not have a key any more is not asked for that again.
 */
#include "providers/key/host-agent.h"
#include "providers/key/hosts.h"

#include "offload/base/clock.h"
#include "offload/base/keymem.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SECOND_NS UINT64_C(1000000000)
#define PAUSE_MAX 60u

struct rs_late_key {
    struct rs_late_key *next;
    struct rs_host *host;
    size_t index;   /* of hosts->keys */
    uint8_t *bytes; /* key memory; NULL: not here yet */
    bool asking;    /* its provider */
    bool sending;   /* in the conversation that is under way */
    bool lost;      /* the provider says that it has no such key */
};

static const char *member(const struct rs_keyd *d, size_t index, size_t which)
{
    return json_string_value(json_array_get(json_array_get(d->hosts->keys, index), which));
}

static struct rs_provider *provider_of(struct rs_keyd *d, size_t index)
{
    return rs_providers_of(d, member(d, index, 0), member(d, index, 1));
}

static void late_free(struct rs_keyd *d, struct rs_late_key *l)
{
    struct rs_host *h = l->host;
    struct rs_late_key **at = &h->late;
    while (*at != l) at = &(*at)->next;
    *at = l->next;
    if (l->asking) {
        struct rs_provider *p = provider_of(d, l->index);
        if (p != NULL) p->late_asking = false;
        rs_kek_cancel(d, l);
        rs_late_look_again(d);
    }
    if (l->bytes != NULL) h->ready--;
    rs_keymem_free(l->bytes);
    free(l);
}

/* Which of a host's go. */
static void drop(struct rs_keyd *d, struct rs_host *h, bool sent_only, size_t from)
{
    for (struct rs_late_key *l = h->late, *next; l != NULL; l = next) {
        next = l->next;
        if (sent_only ? l->sending : l->index >= from) late_free(d, l);
    }
}

void rs_late_add(struct rs_host *h, size_t index)
{
    struct rs_late_key *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        (void)fputs("reseal-keyd: no memory: a host misses a key until it begins anew\n", stderr);
        return;
    }
    *l = (struct rs_late_key){.next = h->late, .host = h, .index = index};
    h->late = l;
    h->late_ns = 0;
}

void rs_late_again(struct rs_host *h, size_t index)
{
    struct rs_late_key *l = h->late;
    while (l != NULL && l->index != index) l = l->next;
    if (l == NULL && index < h->at) rs_late_add(h, index);
    if (l != NULL) l->lost = false;
    h->late_ns = 0;
}

void rs_late_clear(struct rs_keyd *d, struct rs_host *h)
{
    drop(d, h, false, 0);
}

void rs_late_found(struct rs_keyd *d, size_t index)
{
    for (struct rs_host *h = d->hosts->first; h != NULL; h = h->next)
        for (struct rs_late_key *l = h->late; l != NULL; l = l->next)
            if (l->index == index && l->lost) {
                l->lost = false;
                h->late_ns = 0;
            }
}

void rs_late_look_again(struct rs_keyd *d)
{
    for (struct rs_host *h = d->hosts->first; h != NULL; h = h->next) h->late_ns = 0;
}

unsigned rs_late_missing(const struct rs_host *h)
{
    unsigned n = 0;
    for (const struct rs_late_key *l = h->late; l != NULL; l = l->next) n += !l->lost;
    return n;
}

/* ---- asking ------------------------------------------------------------------------------- */

static void to_the_end(struct rs_late_key *l)
{
    struct rs_late_key **at = &l->host->late;
    while (*at != l) at = &(*at)->next;
    *at = l->next;
    while (*at != NULL) at = &(*at)->next;
    *at = l;
    l->next = NULL;
}

static void got(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek, const char *why)
{
    struct rs_late_key *l = arg;
    struct rs_provider *p = provider_of(d, l->index);
    (void)why;
    l->asking = false;
    if (p != NULL) p->late_asking = false;
    rs_late_look_again(d);
    if (status == 0 && kek->bytes != NULL && (l->bytes = rs_keymem_alloc(RS_KEK_LEN)) != NULL) {
        memcpy(l->bytes, kek->bytes, RS_KEK_LEN);
        l->host->ready++;
        if (p != NULL) p->late_failures = 0;
    } else if (p == NULL) {
        return; /* it was removed */
    } else if (status == RESEAL_ENOKEY || status == RESEAL_EKEYBAD) {
        l->lost = true;
    } else {
        /* Another key first when it is asked again: it may be this one that it does not like. */
        unsigned pause = RS_MIN(1u << RS_MIN(p->late_failures, 6u), PAUSE_MAX);
        p->late_failures++;
        p->late_ns = rs_now_ns() + pause * SECOND_NS;
        to_the_end(l);
    }
}

void rs_late_fetch(struct rs_keyd *d, struct rs_host *h)
{
    struct rs_who who = {.uid = geteuid(), .gid = getegid(), .pid = (uint32_t)getpid()};
    uint64_t now = rs_now_ns(), least = UINT64_MAX;
    if (h->late_ns > now) return;
    for (struct rs_late_key *l = h->late, *next; l != NULL && h->ready < RS_AGENT_KEYS; l = next) {
        next = l->next;
        struct rs_provider *p = l->bytes == NULL && !l->asking && !l->lost ? provider_of(d, l->index) : NULL;
        if (p == NULL) continue;
        const char *provider = member(d, l->index, 1), *key = member(d, l->index, 2);
        bool cached = rs_kek_cached(d, p->tenant, provider, key), asking = p->late_asking;
        if (!cached && p->late_ns > now) least = RS_MIN(least, p->late_ns);
        if (!cached && (p->late_asking || p->late_ns > now)) continue;
        p->late_asking = l->asking = true;
        (void)snprintf(who.tenant, sizeof(who.tenant), "%s", p->tenant);
        rs_kek_get(d, &who, provider, key, NULL, got, l);
        if (asking) p->late_asking = true; /* that one goes on */
    }
    h->late_ns = least;
}

/* ---- giving ------------------------------------------------------------------------------- */

size_t rs_late_take(struct rs_keyd *d, struct rs_host *h, json_t *batch, uint8_t *keks)
{
    size_t n = 0;
    for (struct rs_late_key *l = h->late; l != NULL && n < RS_AGENT_KEYS; l = l->next) {
        if (l->bytes == NULL) continue;
        memcpy(keks + n++ * RS_KEK_LEN, l->bytes, RS_KEK_LEN);
        (void)json_array_append(batch, json_array_get(d->hosts->keys, l->index));
        l->sending = true;
    }
    return n;
}

void rs_late_given(struct rs_keyd *d, struct rs_host *h)
{
    drop(d, h, true, 0);
    h->late_ns = 0;
}

void rs_late_kept(struct rs_keyd *d, struct rs_host *h)
{
    for (struct rs_late_key *l = h->late; l != NULL; l = l->next) l->sending = false;
    drop(d, h, false, h->at);
}
