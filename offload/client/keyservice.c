/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/client/keyservice.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char *request_of(const char *method, json_t *args)
{
    json_t *request = json_pack("{s:s, s:o}", "method", method, "args", args != NULL ? args : json_object());
    char *text = request != NULL ? json_dumps(request, JSON_COMPACT) : NULL;
    json_decref(request);
    return text;
}

static void say(char *why, size_t why_len, int status, const json_t *reply)
{
    const char *line = json_string_value(json_object_get(reply, "error"));
    (void)snprintf(why, why_len, "%s", line != NULL && *line != '\0' ? line : reseal_strerror(status));
}

int rs_keyservice_call(reseal *r, const char *method, json_t *args, const int *fds, unsigned nfds,
                       json_t **result, int *out_fd, char *why, size_t why_len)
{
    if (result != NULL) *result = NULL;
    if (out_fd != NULL) *out_fd = -1;
    RS_FREE char *request = request_of(method, args), *text = NULL;
    int fd = -1;
    int err = request != NULL ? reseal_call(r, request, fds, nfds, &text, &fd) : RESEAL_ENOMEM;
    json_t *reply = text != NULL ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (text != NULL && !json_is_object(reply)) {
        json_decref(reply);
        reply = NULL;
        err = RESEAL_EPROTO;
    }
    if (err != 0) say(why, why_len, err, reply);
    if (err == 0 && out_fd != NULL)
        *out_fd = fd;
    else
        rs_cleanup_close(&fd);
    if (result != NULL)
        *result = reply;
    else
        json_decref(reply);
    return err;
}
