/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_ASK_H
#define RS_CLI_ASK_H

/*
 * Commands that are requests to the key service by name and little else: events, audit, tenant, host. They
 * share the options --runtime-dir, --tenant and --json, a connection, and the line for a refusal.
 */

#include "offload/cli/exit.h"
#include "reseal/reseal.h"

#include <jansson.h>

struct rs_ask {
    const char *command; /* for messages: "tenant" */
    const char *runtime_dir, *tenant;
    bool json;
    reseal *r;
};

/* Option letters and rows of getopt_long() for the three. */
#define RS_ASK_OPTIONS                                                                                       \
    {"runtime-dir", required_argument, NULL, 'R'}, {"tenant", required_argument, NULL, 'T'},                 \
        {"json", no_argument, NULL, 'J'},                                                                    \
    {                                                                                                        \
        "help", no_argument, NULL, 'h'                                                                       \
    }

#define RS_ASK_HELP                                                                                          \
    "  --json             the answer as JSON\n"                                                              \
    "  --tenant NAME      the tenant to act for, where a user has several\n"                                 \
    "  --runtime-dir DIR  the service's folder ($RESEAL_RUNTIME_DIR, /run/reseal)\n"

/* True when the option letter was one of the three and is taken. */
bool rs_ask_option(struct rs_ask *a, int letter, const char *value);

/* Connects at the first call. 0, or the exit code after one line on stderr. *result (NULL: not wanted) is the
 * caller's; args are taken; *fd -1 or the caller's (NULL: not wanted). */
RS_MUST_CHECK int rs_ask(struct rs_ask *a, const char *method, json_t *args, const int *fds, unsigned nfds,
                         json_t **result, int *fd);
void rs_ask_end(struct rs_ask *a);

/* Prints a result as JSON, a line for each level. */
void rs_ask_print(const json_t *result);

/* A text of an object, "" when there is none. */
const char *rs_ask_text(const json_t *object, const char *name);

/* A whole number in decimal digits, from 0 to max: true. */
RS_MUST_CHECK bool rs_ask_number(const char *text, int64_t max, int64_t *out);

#endif
