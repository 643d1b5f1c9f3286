/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests on keys.sock: the input is a row of messages (type, length, number
 * of descriptors, body) of one client. Orders are queued but no child runs.
 */
#include "offload/base/keymem.h"
#include "providers/key/keyd.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct rs_keyd d;

static void start(void)
{
    if (rs_keymem_init(0) != 0) abort();
    d.policy = rs_policy_private(getuid());
    d.nursery.sock = -1;
    if (d.policy == NULL || rs_keyd_init(&d) != 0) abort();
}

static void drain(int fd)
{
    struct rs_msg m;
    while (rs_msg_recv(fd, &m, MSG_DONTWAIT) == 0) rs_msg_close_fds(&m);
}

/* One message from the input into d.msg; the bytes it took, 0 when there is none. */
static size_t next_message(const uint8_t *data, size_t size)
{
    static const uint16_t types[] = {RS_MSG_HELLO,       RS_MSG_STATUS,    RS_MSG_POLICY,
                                     RS_MSG_KEY_RAW,     RS_MSG_KEY_LUKS,  RS_MSG_KEY_CLOSE,
                                     RS_MSG_LUKS_FORMAT, RS_MSG_KEY_RANDOM};
    struct rs_msg *m = d.msg;
    if (size < 4) return 0;
    size_t len = RS_MIN((size_t)(data[1] | (data[2] & 3) << 8), size - 4);
    memset(m, 0, sizeof(*m));
    m->header.type = data[0] < 240 ? types[data[0] % RS_ARRAY_LEN(types)] : data[0];
    m->header.length = (uint32_t)len;
    m->nfds = data[3] % 4;
    for (unsigned i = 0; i < RS_MSG_FDS; i++)
        m->fds[i] = i < m->nfds ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;
    memcpy(m->body, data + 4, len);
    return len + 4;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2];
    if (d.msg == NULL) start();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) abort();
    struct rs_client *c = rs_keyd_accept(&d, pair[0]);
    bool keep = c != NULL;
    for (size_t n; keep && c->order == NULL && (n = next_message(data, size)) != 0;) {
        keep = rs_keyd_request(&d, c);
        rs_msg_close_fds(d.msg);
        drain(pair[1]);
        data += n;
        size -= n;
    }
    if (c != NULL) rs_keyd_drop(&d, c);
    close(pair[1]);
    if (d.keys.count != 0 || d.orders != NULL || d.clients != NULL) abort();
    return 0;
}
