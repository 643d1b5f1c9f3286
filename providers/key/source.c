/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/source.h"

#include "offload/base/keymem.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include <openssl/rand.h>

#define SMALL_SECRET ((size_t)64 << 10)

const struct rs_source *rs_source_of(uint32_t kind)
{
    static const struct rs_source *const sources[RS_SOURCES] = {
        [RS_SOURCE_RAW] = &rs_source_raw,
        [RS_SOURCE_RANDOM] = &rs_source_random,
        [RS_SOURCE_LUKS] = &rs_source_luks,
        [RS_SOURCE_LUKS_FORMAT] = &rs_source_luks_format,
    };
    return kind < RS_SOURCES ? sources[kind] : NULL;
}

bool rs_raw_key_ok(uint32_t cipher, const uint8_t *key, size_t len)
{
    if (cipher == RESEAL_GCM) return len == 16 || len == 32;
    if (cipher != RESEAL_XTS || (len != 32 && len != 64)) return false;
    return !rs_equal_ct(key, key + len / 2, len / 2);
}

/* ---- secrets from descriptors ------------------------------------------------ */

static ssize_t read_some(int fd, uint8_t *at, size_t len)
{
    for (;;) {
        ssize_t n = read(fd, at, len);
        if (n >= 0 || (errno != EINTR && errno != EAGAIN)) return n;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (errno == EAGAIN) (void)poll(&p, 1, -1);
    }
}

static int grow(struct rs_secret_text *t, size_t max)
{
    uint8_t *more = rs_scratch_map(max, NULL);
    if (more == NULL) return RESEAL_ENOMEM;
    memcpy(more, t->bytes, t->len);
    rs_keymem_free(t->bytes);
    t->bytes = more;
    t->room = max;
    return 0;
}

int rs_secret_read(int fd, size_t max, struct rs_secret_text *out)
{
    size_t limit = max + 1; /* one more, to see that there is no more */
    *out = (struct rs_secret_text){.room = RS_MIN(limit, SMALL_SECRET)};
    out->bytes = rs_keymem_alloc(out->room);
    int r = out->bytes != NULL ? 0 : RESEAL_ENOMEM;
    while (r == 0) {
        if (out->len == limit) r = RESEAL_EINVAL;
        if (r == 0 && out->len == out->room) r = grow(out, limit);
        if (r != 0) break;
        ssize_t n = read_some(fd, out->bytes + out->len, out->room - out->len);
        if (n == 0) return 0;
        if (n < 0) r = RESEAL_EIO;
        if (n > 0) out->len += (size_t)n;
    }
    rs_secret_free(out);
    return r;
}

void rs_secret_free(struct rs_secret_text *text)
{
    if (rs_keymem_owns(text->bytes))
        rs_keymem_free(text->bytes);
    else
        rs_scratch_unmap(text->bytes, text->room);
    *text = (struct rs_secret_text){0};
}

/* ---- raw and random keys ----------------------------------------------------- */

static int fetch_raw(const struct rs_source_order *order, const int *fds, struct rs_source_yield *out,
                     int *out_fd)
{
    (void)out_fd;
    struct rs_secret_text text;
    int r = rs_secret_read(fds[0], RS_RAW_KEY_MAX, &text);
    if (r != 0) return r == RESEAL_EINVAL ? RESEAL_EKEYBAD : r;
    if (rs_raw_key_ok(order->cipher, text.bytes, text.len)) {
        memcpy(out->key, text.bytes, text.len);
        out->key_len = (uint32_t)text.len;
    } else {
        r = RESEAL_EKEYBAD;
    }
    rs_secret_free(&text);
    return r;
}

static int fetch_random(const struct rs_source_order *order, const int *fds, struct rs_source_yield *out,
                        int *out_fd)
{
    (void)fds, (void)out_fd;
    if (order->bits != 128 && order->bits != 256) return RESEAL_EINVAL;
    uint32_t len = order->bits / 8 * (order->cipher == RESEAL_XTS ? 2 : 1);
    if (RAND_priv_bytes(out->key, (int)len) != 1 || !rs_raw_key_ok(order->cipher, out->key, len))
        return RESEAL_ENOMEM;
    out->key_len = len;
    return 0;
}

const struct rs_source rs_source_raw = {.name = "raw", .nfds = 1, .in_child = true, .fetch = fetch_raw};
const struct rs_source rs_source_random = {.name = "random", .fetch = fetch_random};
