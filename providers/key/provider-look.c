/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Key providers that nobody asks for anything, since their keys are in memory: each is looked at once a day,
 * so that a certificate near its end and a server that went away are told of before a key is missed.
 */
#include "offload/base/clock.h"
#include "providers/key/events.h"
#include "providers/key/keyd.h"

#include <limits.h>

#define SECOND UINT64_C(1000000000)
#define FIRST  UINT64_C(600) /* seconds after the start, or after the provider is new here */
#define DAY    UINT64_C(86400)

/* What is to be told was told with the answer, provider-ask.c. */
static void looked(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    (void)d, (void)arg, (void)a;
}

int rs_providers_tick(struct rs_keyd *d)
{
    static char nobody; /* who asks is told apart by this pointer */
    uint64_t now = rs_now_ns(), next = UINT64_MAX;
    struct rs_provider *due = NULL;
    for (struct rs_provider *p = d->providers.first; p != NULL; p = p->next) {
        if (p->kind->here) continue;
        if (p->look_ns == 0) p->look_ns = now + (d->look_s != 0 ? d->look_s : FIRST) * SECOND;
        if (p->look_ns <= now && due == NULL) due = p;
        next = RS_MIN(next, p->look_ns);
    }
    if (due != NULL) {
        /* One at a time: asking may change the list. */
        due->look_ns = now + (d->look_s != 0 ? d->look_s : DAY) * SECOND;
        rs_provider_ask(d, due, "test", NULL, looked, &nobody);
        return 0;
    }
    if (next == UINT64_MAX) return -1;
    uint64_t ms = (next - now) / 1000000u + 1;
    return (int)RS_MIN(ms, (uint64_t)INT_MAX);
}
