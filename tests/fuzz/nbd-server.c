/* SPDX-License-Identifier: Apache-2.0 */
/* An NBD client that sends anything: from its flags on, through options, to requests and their replies. */
#include "offload/vm/nbd-protocol.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct rs_nbd_export exports[] = {
    {.name = "disk", .size = 1 << 20, .minimum = 512, .preferred = 4096},
    {.name = "read-only", .size = UINT64_MAX - 511, .read_only = true, .minimum = 512, .preferred = 4096},
};
static const struct rs_nbd_server server = {.exports = exports, .count = 2};

/* Bytes of a known size each, so that the sanitizer sees a read or write beyond it. */
static size_t step(struct rs_nbd_client *c, const uint8_t *data, size_t size)
{
    size_t len = size < RS_NBD_OPTION_MAX + 16 ? size : RS_NBD_OPTION_MAX + 16, out_len;
    uint8_t *in = malloc(len != 0 ? len : 1), *out = malloc(RS_NBD_REPLY_MAX);
    if (in == NULL || out == NULL) abort();
    memcpy(in, data, len);
    int n = rs_nbd_negotiate(c, &server, in, len, out, &out_len);
    if (n > (int)len || out_len > RS_NBD_REPLY_MAX) abort();
    if (n < 0 && c->why == NULL) abort();
    if (n == 0 && len == RS_NBD_OPTION_MAX + 16) abort(); /* it would wait for ever */
    free(in);
    free(out);
    return n > 0 ? (size_t)n : 0;
}

static void reply(const struct rs_nbd_client *c, const struct rs_nbd_request *r, uint32_t error)
{
    uint8_t *out = malloc(RS_NBD_HEADER_MAX);
    if (out == NULL) abort();
    if (rs_nbd_done(c, r, error, out) > RS_NBD_HEADER_MAX) abort();
    if (rs_nbd_data(c, r, r->offset, r->len, true, out) > RS_NBD_HEADER_MAX) abort();
    if (rs_nbd_late_error(r, error, out) > RS_NBD_HEADER_MAX) abort();
    if (rs_nbd_status(r, out) > RS_NBD_HEADER_MAX) abort();
    free(out);
}

static void requests(struct rs_nbd_client *c, const uint8_t *data, size_t size)
{
    struct rs_nbd_request r;
    for (int n; size != 0 && (n = rs_nbd_request(c, data, size, &r)) > 0;) {
        const struct rs_nbd_export *e = &exports[c->export];
        data += n;
        size -= (size_t)n;
        uint32_t error = rs_nbd_check(c, e, &r);
        bool changes = r.type == RS_NBD_WRITE || r.type == RS_NBD_ZERO || r.type == RS_NBD_TRIM;
        if (error == 0 && (r.offset > e->size || r.len > e->size - r.offset)) abort();
        if (error == 0 && changes && e->read_only) abort();
        reply(c, &r, error);
        if (r.type == RS_NBD_DISCONNECT) return;
        size_t skip = r.type == RS_NBD_WRITE ? r.len : 0;
        skip = skip < size ? skip : size;
        data += skip;
        size -= skip;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rs_nbd_client c = {0};
    for (size_t n; c.phase < RS_NBD_TRANSMISSION && (n = step(&c, data, size)) != 0;) {
        data += n;
        size -= n;
    }
    if (c.phase != RS_NBD_TRANSMISSION) return 0;
    if (c.export >= server.count) abort();
    requests(&c, data, size);
    return 0;
}
