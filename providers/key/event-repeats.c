/* SPDX-License-Identifier: Apache-2.0 */
/* What one user makes happen again and again is counted: nobody fills a journal by asking. */
#include "offload/base/clock.h"
#include "offload/base/fnv.h"
#include "providers/key/events.h"
#include "providers/key/keyd.h"

#define WINDOW_NS   (60ull * 1000000000u)
#define OF_ONE_USER 64u /* things that are counted apart in one window; all others together */

/* The byte after each text keeps "a", "bc" and "ab", "c" apart. */
static uint64_t add_text(uint64_t h, const char *text)
{
    return rs_fnv_byte(rs_fnv_text(h, text), 0xff);
}

static uint64_t hash_of(const char *one, const char *two)
{
    return add_text(add_text(RS_FNV_START, one), two);
}

static struct rs_repeat *find(struct rs_events *e, const struct rs_repeat *want)
{
    for (unsigned i = 0; i < RS_REPEATS; i++) {
        struct rs_repeat *r = &e->repeats[i];
        if (r->begun != 0 && r->what == want->what && r->object == want->object && r->uid == want->uid)
            return r;
    }
    return NULL;
}

/* A free row, or the one that began first. */
static struct rs_repeat *take_row(struct rs_events *e, const struct rs_repeat *want)
{
    struct rs_repeat *oldest = &e->repeats[0];
    for (unsigned i = 0; i < RS_REPEATS; i++)
        if (e->repeats[i].begun < oldest->begun) oldest = &e->repeats[i];
    *oldest = *want;
    return oldest;
}

static unsigned rows_of_user(const struct rs_events *e, uint32_t uid, uint64_t now)
{
    unsigned n = 0;
    for (unsigned i = 0; i < RS_REPEATS; i++)
        n += e->repeats[i].begun != 0 && e->repeats[i].uid == uid && now - e->repeats[i].begun < WINDOW_NS;
    return n;
}

/* Who may do nothing with keys but use them; for others a failure of many keys is many failures. */
static bool is_limited(const struct rs_keyd *d, const struct rs_who *who)
{
    return !rs_events_all_visible(who->uid) &&
           !rs_policy_has(d->policy, who->uid, who->gid, who->tenant, RS_PRIV_MANAGE_KEYS);
}

static bool power_of_ten(uint64_t n)
{
    while (n >= 10 && n % 10 == 0) n /= 10;
    return n == 1;
}

uint64_t rs_events_times(struct rs_keyd *d, const struct rs_who *who, const char *tenant, const char *what,
                         const char *says, const char *object)
{
    struct rs_events *e = d->events;
    uint64_t now = rs_now_ns();
    if (e == NULL) return 1;
    struct rs_repeat want = {.what = hash_of(what, says), .object = hash_of(tenant, object), .uid = who->uid};
    struct rs_repeat *r = find(e, &want);
    if (r == NULL && rows_of_user(e, who->uid, now) >= OF_ONE_USER && is_limited(d, who)) {
        want.what = hash_of(what, "");
        want.object = 0;
        r = find(e, &want);
    }
    if (r == NULL) r = take_row(e, &want);
    if (r->begun == 0 || now - r->begun >= WINDOW_NS) {
        r->begun = now;
        r->count = 0;
    }
    r->count++;
    r->untold++;
    if (!power_of_ten(r->count)) return 0;
    uint64_t times = r->untold;
    r->untold = 0;
    return times;
}

void rs_events_went_well(struct rs_keyd *d, const char *tenant, const char *object)
{
    uint64_t which = hash_of(tenant, object);
    for (unsigned i = 0; d->events != NULL && i < RS_REPEATS; i++)
        if (d->events->repeats[i].object == which) d->events->repeats[i].begun = 0;
}
