/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_PROVIDERS_H
#define RS_KEY_PROVIDERS_H

/* The methods provider.*: providers.c has the table, provider-change.c those that change a configuration,
 * provider-backup.c those of native providers. */

#include "providers/key/events.h"
#include "providers/key/rpc.h"

struct rs_who rs_rpc_who(const struct rs_rpc *call);

/* The provider that args name, for this client; NULL: the call has failed. */
struct rs_provider *rs_rpc_provider(struct rs_rpc *call);
/* The same, when the client may also change it: it is its tenant's, or it is the service's own user. */
struct rs_provider *rs_rpc_own_provider(struct rs_rpc *call);

/* The tenant that a new provider belongs to: the client's, or with "shared": true none, which only root and
 * the service's own user may say. NULL: the call has failed. */
const char *rs_rpc_new_tenant(struct rs_rpc *call);

/* What provider.show answers. */
json_t *rs_provider_shown(const struct rs_keyd *d, const char *tenant, const struct rs_provider *p);

/* Ends a call with an audit line about provider `name`. */
void rs_rpc_done(struct rs_rpc *call, const char *name, json_t *result, int fd);
__attribute__((format(printf, 4, 5))) void rs_rpc_refuse(struct rs_rpc *call, const char *name, int status,
                                                         const char *format, ...);
void rs_rpc_refuse_as(struct rs_rpc *call, const char *name, const struct rs_task_answer *answer);

/* A new provider becomes the default where there is none, or where `want` says so. */
void rs_provider_may_be_default(struct rs_keyd *d, const struct rs_provider *p, bool want);

/* The member "details", an object of texts "x-...", or NULL; false: the call has failed. */
RS_MUST_CHECK bool rs_rpc_key_details(struct rs_rpc *call, const json_t **out);

/* Methods. */
void rs_provider_add(struct rs_rpc *call);
void rs_provider_update(struct rs_rpc *call);
void rs_provider_trust(struct rs_rpc *call);
void rs_provider_csr(struct rs_rpc *call);
void rs_provider_certificate(struct rs_rpc *call);
void rs_provider_export(struct rs_rpc *call);
void rs_provider_import(struct rs_rpc *call);

#endif
