/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_WEBHOOK_H
#define RS_KEY_WEBHOOK_H

/*
 * Webhooks: events of a tenant, or of all, posted to an address as they come,
 * {"events": [...], "lost": n} with a few in each. A webhook is a place in the journal, as a follower is:
 * what waits for a receiver that is away is bounded by RS_JOURNAL_RING lines, and what it missed is counted.
 * It tries again, with pauses up to five minutes. A delivery that succeeded but was not noted may come twice:
 * events have numbers.
 */

#include "providers/key/task.h"

extern const struct rs_task_kind rs_task_webhook, rs_task_webhook_check;

#endif
