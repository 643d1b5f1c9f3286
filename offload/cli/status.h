/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_STATUS_H
#define RS_CLI_STATUS_H

/* The service's state, as `reseal status` and `reseal top` read it. */

#include <jansson.h>

#include "offload/base/bytes.h"
#include "reseal/reseal.h"

/* Asks a connected service; the caller drops the reference. RESEAL_EPROTO when the answer is not what it
 * should be. */
RS_MUST_CHECK int rs_status_get(reseal *r, json_t **out);

/* A number or text of an object; 0 or "" where there is none, or of another type: nothing is taken on trust.
 */
uint64_t rs_status_number(const json_t *object, const char *name);
const char *rs_status_text(const json_t *object, const char *name);

/* True when a protection's value says that it is in force: true, an ABI number, a kind of key memory that is
 * locked. */
bool rs_status_in_force(const json_t *value);

/* "1.50 G" of anything, in powers of 1000, into a buffer of at least 16 bytes; returns it. */
char *rs_status_amount(double n, char *out, size_t cap);

/* Clients in a line: used by the bare command `reseal`. */
int rs_status_summary(void);

#endif
