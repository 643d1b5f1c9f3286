/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLIENT_KEYSERVICE_H
#define RS_CLIENT_KEYSERVICE_H

/*
 * Requests to the key service by name (docs/key-service.md), for our own commands: reseal_call() with the
 * texts made and read.
 */

#include "offload/base/bytes.h"
#include "reseal/reseal.h"

#include <jansson.h>

#define RS_KEYSERVICE_WHY 640u /* bytes that hold any line of the service's */

/*
 * `args` is taken (NULL: none). On success *result is an object that the caller drops (NULL: not wanted) and
 * *out_fd a descriptor of the caller's, -1: none (NULL: not wanted). On failure `why` has one line: the
 * service's own, which says what is wrong and what to do, or that of the code. A refusal's object
 * ("event", "privilege") is in *result too, when the service sent one; otherwise *result is NULL.
 */
RS_MUST_CHECK int rs_keyservice_call(reseal *r, const char *method, json_t *args, const int *fds,
                                     unsigned nfds, json_t **result, int *out_fd, char *why, size_t why_len);

/*
 * A call to the key service that still waits when `stopped` says true ends within a tenth of a second, with
 * RESEAL_ECANCELED: what it asked for may be done all the same. `stopped` is set by a signal's handler.
 */
void rs_keyservice_stop_when(reseal *r, bool (*stopped)(void));

/* The key in "handle" of an answer about a disk. RESEAL_EPROTO: there is none. */
RS_MUST_CHECK int rs_keyservice_handle(const json_t *result, reseal_key *out);

/* What an answer about a disk says of its header; luks->size is the caller's. RESEAL_EPROTO: something is
 * missing. */
RS_MUST_CHECK int rs_keyservice_luks(const json_t *result, struct reseal_luks *luks);

#endif
