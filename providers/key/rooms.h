/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_ROOMS_H
#define RS_KEY_ROOMS_H

/* Methods event.*, audit.* and tenant.*, for the table in tenants.c. */

#include "providers/key/events.h"
#include "providers/key/rpc.h"

struct rs_who rs_who_of(const struct rs_client *c);

/* ---- event-calls.c ---- */
void rs_event_list(struct rs_rpc *call);
void rs_event_follow(struct rs_rpc *call);
void rs_audit_list(struct rs_rpc *call);

/* ---- webhook.c ---- */
void rs_webhook_set(struct rs_rpc *call);
void rs_webhook_show(struct rs_rpc *call);
/* Sends what is new to every webhook. */
void rs_webhooks_wake(struct rs_keyd *d);
/* Milliseconds until one tries again, -1: none. */
int rs_webhooks_tick(struct rs_keyd *d);
void rs_webhooks_open(struct rs_keyd *d);
void rs_webhooks_close(struct rs_keyd *d);
/* Ends and forgets that of a tenant. */
void rs_webhooks_remove(struct rs_keyd *d, const char *tenant);

/* ---- tenants.c ---- */

/* Reads the tenants of the store. Before the policy is loaded. */
RS_MUST_CHECK int rs_tenants_open(struct rs_keyd *d);
void rs_tenants_close(struct rs_keyd *d);

/* The policy of the file with the tenants of the store; d->policy is as before when it fails. */
RS_MUST_CHECK int rs_tenants_load_policy(struct rs_keyd *d, char *why, size_t why_len);

/* True for root, the user of the service and the policy's administrators; else the call has failed. */
RS_MUST_CHECK bool rs_tenants_may(struct rs_rpc *call);

/* Closes what a tenant has open. */
void rs_tenants_end_clients(struct rs_keyd *d, const char *tenant);

/* Closes what users have open that the policy has in their tenant no more; the others get its limits. Not
 * from within a call. How many. */
unsigned rs_tenants_end_strangers(struct rs_keyd *d);

/* Suspends or not, forgets one that was added, in the store and the policy. RESEAL_E..., with `why`. */
enum rs_tenant_change { RS_TENANT_SUSPEND, RS_TENANT_RESUME, RS_TENANT_GONE };
RS_MUST_CHECK int rs_tenants_change(struct rs_keyd *d, const char *name, enum rs_tenant_change change,
                                    char *why, size_t why_len);

/* Notes that a provider made a key for a tenant, so that it can be retired with it. */
void rs_tenants_key_made(struct rs_keyd *d, const char *tenant, const char *provider, const char *key);

/* ---- tenant-offboard.c ---- */
void rs_tenant_offboard(struct rs_rpc *call);
void rs_tenant_audit_key(struct rs_rpc *call);

#endif
