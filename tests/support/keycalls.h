/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_KEYCALLS_H
#define RS_TESTS_KEYCALLS_H

/*
 * Named requests to the key service (docs/key-service.md) in tests: what must
 * work works, or the test fails with the service's line; what must be refused is, with its code and words.
 */

#include "offload/client/keyservice.h"

/* The answer, the caller's to drop; takes `args`. *out_fd as reseal_call(); NULL: not wanted. */
json_t *call_works(reseal *r, const char *method, json_t *args, const int *fds, unsigned nfds, int *out_fd);

/* The call fails with this code and a line that has `words` in it. Takes `args`. */
void call_refused(reseal *r, const char *method, json_t *args, const int *fds, unsigned nfds, int code,
                  const char *words);

/* A native key provider, exported, so that it is usable. */
void call_native_provider(reseal *r, const char *name);

/* A member that is a text; the test fails when there is none. */
const char *call_text(const json_t *answer, const char *name);

#endif
