/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/client/internal.h"

#include <unistd.h>

#define REQUEST_MAX (64u << 10)

_Static_assert(RESEAL_CALL_FDS + 1 == RS_MSG_FDS, "a request is one message");

/* Text and descriptor of a reply; its status. */
static int take_reply(struct rs_msg *m, char **reply, int *reply_fd)
{
    int status = m->header.status;
    if (status > 0 || m->header.length != 0 || m->nfds < 1 || m->nfds > 2) return RESEAL_EPROTO;
    int r = rs_client_take_text(m->fds[0], reply);
    if (r != 0) return r;
    if (status == 0 && reply_fd != NULL) *reply_fd = rs_msg_take_fd(m, 1);
    return status;
}

int reseal_call(reseal *r, const char *request, const int *fds, unsigned nfds, char **reply, int *reply_fd)
{
    if (reply != NULL) *reply = NULL;
    if (reply_fd != NULL) *reply_fd = -1;
    if (r == NULL || request == NULL || reply == NULL || nfds > RESEAL_CALL_FDS || (fds == NULL && nfds != 0))
        return RESEAL_EINVAL;
    int err = rs_client_check_fork(r);
    size_t len = strnlen(request, REQUEST_MAX + 1);
    if (err == 0 && (len == 0 || len > REQUEST_MAX)) err = RESEAL_EINVAL;
    if (err != 0) return err;
    int send[RS_MSG_FDS] = {rs_msg_text_fd(request, len)};
    if (send[0] < 0) return send[0];
    for (unsigned i = 0; i < nfds; i++) send[i + 1] = fds[i];
    struct rs_msg m;
    err = rs_client_keys_ask(r, RS_MSG_RPC, NULL, 0, send, nfds + 1, &m);
    close(send[0]);
    if (err != 0) return err;
    err = take_reply(&m, reply, reply_fd);
    rs_msg_close_fds(&m);
    return err;
}
