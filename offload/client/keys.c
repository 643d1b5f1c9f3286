/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/client/internal.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#define LOOK_MS 100 /* between two looks whether to wait on */

/* Copies a text into a fixed field, NUL-ended; RESEAL_EINVAL when it is too long. NULL is the empty text. */
static int put_text(char *to, size_t room, const char *text)
{
    size_t len = text != NULL ? strlen(text) : 0;
    if (len >= room) return RESEAL_EINVAL;
    if (len != 0) memcpy(to, text, len);
    memset(to + len, 0, room - len);
    return 0;
}

/* True when the other end of the keys socket went away since the last call. */
static bool is_stale(int sock)
{
    uint8_t byte;
    ssize_t n = recv(sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/* Under the lock: the socket, connected anew when need be. */
static int connect_keys(struct reseal *r)
{
    struct rs_msg_welcome welcome;
    if (r->keys >= 0 && is_stale(r->keys)) rs_cleanup_close(&r->keys);
    if (r->keys >= 0) return 0;
    int sock = rs_client_connect(r, "keys.sock", r->reconnect_ms, &welcome);
    r->keys = sock >= 0 ? sock : -1;
    return sock >= 0 ? 0 : sock;
}

/*
 * A key server that hangs is waited for as long as its provider says: a program that was told to end ends before.
 * Under the lock. RESEAL_ECANCELED.
 */
static int wait_for_reply(struct reseal *r)
{
    struct pollfd p = {.fd = r->keys, .events = POLLIN};
    if (r->stopped == NULL) return 0;
    for (;;) {
        int n = poll(&p, 1, LOOK_MS);
        if (n > 0 || (n < 0 && errno != EINTR)) return 0;
        if (r->stopped()) return RESEAL_ECANCELED;
    }
}

int rs_client_keys_ask(struct reseal *r, uint16_t type, const void *body, size_t len, const int *fds,
                       unsigned nfds, struct rs_msg *reply)
{
    pthread_mutex_lock(&r->keys_lock);
    int err = connect_keys(r);
    if (err == 0) err = rs_msg_send(r->keys, type, 0, body, len, fds, nfds, 0);
    if (err == 0) err = wait_for_reply(r);
    if (err == 0) err = rs_msg_answer(r->keys, type, reply);
    /* A reply that comes when nobody waits for it would be taken for that to another request. */
    if (rs_client_is_loss(err) || err == RESEAL_ECANCELED) rs_cleanup_close(&r->keys);
    pthread_mutex_unlock(&r->keys_lock);
    return err;
}

/* The same for a request with a reply of fixed form. */
static int keys_call(struct reseal *r, uint16_t type, const void *body, size_t len, const int *fds,
                     unsigned nfds, void *reply, size_t reply_len, int *reply_fds, unsigned reply_nfds)
{
    struct rs_msg msg;
    int err = rs_client_keys_ask(r, type, body, len, fds, nfds, &msg);
    return rs_msg_take(&msg, err, reply, reply_len, reply_fds, reply_nfds);
}

static int wire_use(struct rs_msg_key_use *wire, const struct reseal_key_use *use, unsigned bits)
{
    struct reseal_key_use u;
    int err = rs_client_take_options(&u, sizeof(u), use);
    if (err != 0) return err;
    *wire = (struct rs_msg_key_use){
        .cipher = u.cipher, .use = u.use, .unit = u.unit, .bits = bits, .step = u.step};
    return put_text(wire->name, sizeof(wire->name), u.name);
}

int reseal_key_raw(reseal *r, int fd, const struct reseal_key_use *use, reseal_key *out)
{
    if (r == NULL || fd < 0 || use == NULL || out == NULL) return RESEAL_EINVAL;
    struct rs_msg_key_use wire;
    struct rs_msg_key reply;
    int err = rs_client_check_fork(r);
    if (err == 0) err = wire_use(&wire, use, 0);
    if (err == 0)
        err = keys_call(r, RS_MSG_KEY_RAW, &wire, sizeof(wire), &fd, 1, &reply, sizeof(reply), NULL, 0);
    if (err == 0) *out = reply.key;
    return err;
}

int reseal_key_random(reseal *r, unsigned bits, const struct reseal_key_use *use, reseal_key *out)
{
    if (r == NULL || use == NULL || out == NULL || (bits != 128 && bits != 256)) return RESEAL_EINVAL;
    struct rs_msg_key_use wire;
    struct rs_msg_key reply;
    int err = rs_client_check_fork(r);
    if (err == 0) err = wire_use(&wire, use, bits);
    if (err == 0)
        err = keys_call(r, RS_MSG_KEY_RANDOM, &wire, sizeof(wire), NULL, 0, &reply, sizeof(reply), NULL, 0);
    if (err == 0) *out = reply.key;
    return err;
}

/* What the service says of a header, in the caller's structure; its texts end with NUL whatever was sent. */
static void take_luks(struct reseal_luks *to, const struct rs_msg_luks *from)
{
    uint32_t size = to->size;
    *to = (struct reseal_luks){.size = size,
                               .version = from->version,
                               .unit = from->unit,
                               .key_bits = from->key_bits,
                               .step = from->step,
                               .first_tweak = from->first_tweak,
                               .data_offset = from->data_offset,
                               .data_size = from->data_size,
                               .header_size = from->header_size,
                               .keyslot = from->keyslot};
    memcpy(to->uuid, from->uuid, sizeof(to->uuid) - 1);
    memcpy(to->cipher, from->cipher, sizeof(to->cipher) - 1);
}

int reseal_key_luks(reseal *r, int header_fd, int passphrase_fd, uint32_t use, reseal_key *out,
                    struct reseal_luks *luks)
{
    if (r == NULL || header_fd < 0 || (out == NULL && luks == NULL)) return RESEAL_EINVAL;
    if (out != NULL && passphrase_fd < 0) return RESEAL_EINVAL;
    if (luks != NULL && luks->size < sizeof(*luks)) return RESEAL_EINVAL;
    if (out != NULL && use == 0) return RESEAL_EINVAL;
    int err = rs_client_check_fork(r);
    if (err != 0) return err;
    struct rs_msg_key_use wire = {.cipher = RESEAL_XTS, .use = out != NULL ? use : 0};
    struct rs_msg_luks reply = {0};
    const int fds[2] = {header_fd, passphrase_fd};
    err = keys_call(r, RS_MSG_KEY_LUKS, &wire, sizeof(wire), fds, passphrase_fd >= 0 ? 2 : 1, &reply,
                    sizeof(reply), NULL, 0);
    if (luks != NULL && (err == 0 || err == RESEAL_ECIPHER)) take_luks(luks, &reply);
    if (err == 0 && out != NULL) *out = reply.key;
    return err;
}

int reseal_luks_format(reseal *r, const struct reseal_luks_format *format, int passphrase_fd, uint32_t use,
                       reseal_key *out, struct reseal_luks *luks, int *header_fd)
{
    if (r == NULL || format == NULL || passphrase_fd < 0 || out == NULL || header_fd == NULL)
        return RESEAL_EINVAL;
    if (luks != NULL && luks->size < sizeof(*luks)) return RESEAL_EINVAL;
    struct reseal_luks_format f;
    int err = rs_client_check_fork(r);
    if (err == 0) err = rs_client_take_options(&f, sizeof(f), format);
    if (err != 0) return err;
    struct rs_msg_luks_format wire = {.use = use,
                                      .version = f.version,
                                      .unit = f.unit,
                                      .key_bits = f.key_bits,
                                      .data_offset = f.data_offset,
                                      .data_size = f.data_size,
                                      .pbkdf_ms = f.pbkdf_ms,
                                      .pbkdf = f.pbkdf};
    err = put_text(wire.label, sizeof(wire.label), f.label);
    if (err != 0) return err;
    struct rs_msg_luks reply = {0};
    err = keys_call(r, RS_MSG_LUKS_FORMAT, &wire, sizeof(wire), &passphrase_fd, 1, &reply, sizeof(reply),
                    header_fd, 1);
    if (err != 0) return err;
    if (luks != NULL) take_luks(luks, &reply);
    *out = reply.key;
    return 0;
}

int reseal_key_close(reseal *r, reseal_key key)
{
    if (r == NULL) return RESEAL_EINVAL;
    struct rs_msg_key body = {.key = key};
    int err = rs_client_check_fork(r);
    if (err == 0) err = keys_call(r, RS_MSG_KEY_CLOSE, &body, sizeof(body), NULL, 0, NULL, 0, NULL, 0);
    return err;
}
