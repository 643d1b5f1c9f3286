/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/ask.h"

#include "offload/client/keyservice.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

bool rs_ask_option(struct rs_ask *a, int letter, const char *value)
{
    if (letter == 'R') a->runtime_dir = value;
    if (letter == 'T') a->tenant = value;
    if (letter == 'J') a->json = true;
    return letter == 'R' || letter == 'T' || letter == 'J';
}

int rs_ask(struct rs_ask *a, const char *method, json_t *args, const int *fds, unsigned nfds, json_t **result,
           int *fd)
{
    char why[RS_KEYSERVICE_WHY];
    json_t *answer = NULL;
    if (a->r == NULL) {
        struct reseal_options options = {
            .size = sizeof(options), .runtime_dir = a->runtime_dir, .tenant = a->tenant};
        int r = reseal_open(&a->r, &options);
        if (r != 0) {
            json_decref(args);
            return rs_cli_fail(rs_exit_of(r), a->command, "%s", reseal_strerror(r));
        }
    }
    int r = rs_keyservice_call(a->r, method, args, fds, nfds, &answer, fd, why, sizeof(why));
    if (r == 0 && result != NULL)
        *result = answer;
    else
        json_decref(answer);
    return r == 0 ? 0 : rs_cli_fail(rs_exit_of(r), a->command, "%s", why);
}

void rs_ask_end(struct rs_ask *a)
{
    reseal_close(a->r);
    a->r = NULL;
}

void rs_ask_print(const json_t *result)
{
    (void)json_dumpf(result, stdout, JSON_INDENT(2));
    putchar('\n');
}

const char *rs_ask_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL ? text : "";
}

bool rs_ask_number(const char *text, int64_t max, int64_t *out)
{
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    *out = n;
    return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0 && n <= max;
}
