/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/nbd-protocol.h"

#include "reseal/reseal.h"

/* Numbers of the protocol that only this file needs. */
#define MAGIC_SERVER       0x4e42444d41474943ull /* NBDMAGIC */
#define MAGIC_OPTION       0x49484156454f5054ull /* IHAVEOPT */
#define MAGIC_OPTION_REPLY 0x0003e889045565a9ull
#define MAGIC_REQUEST      0x25609513u
#define MAGIC_SIMPLE       0x67446698u
#define MAGIC_CHUNK        0x668e33efu

#define FLAG_FIXED     1u
#define FLAG_NO_ZEROES 2u

enum option {
    OPT_EXPORT_NAME = 1,
    OPT_ABORT = 2,
    OPT_LIST = 3,
    OPT_STARTTLS = 5,
    OPT_INFO = 6,
    OPT_GO = 7,
    OPT_STRUCTURED_REPLY = 8,
    OPT_LIST_META_CONTEXT = 9,
    OPT_SET_META_CONTEXT = 10,
};

enum option_reply {
    REP_ACK = 1,
    REP_SERVER = 2,
    REP_INFO = 3,
    REP_META_CONTEXT = 4,
    REP_ERR = 1 << 30, /* stands for bit 31, see put_reply() */
    REP_ERR_UNSUP = REP_ERR | 1,
    REP_ERR_POLICY = REP_ERR | 2,
    REP_ERR_INVALID = REP_ERR | 3,
    REP_ERR_UNKNOWN = REP_ERR | 6,
};

enum info { INFO_EXPORT = 0, INFO_NAME = 1, INFO_BLOCK_SIZE = 3 };

#define CONTEXT_ID   1u
#define CONTEXT_NAME "base:allocation"

#define CHUNK_DONE         1u
#define CHUNK_DATA         1u
#define CHUNK_BLOCK_STATUS 5u
#define CHUNK_ERROR        0x8001u

/* ---- writing --------------------------------------------------------------- */

static uint8_t *put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
    return p + 2;
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
    rs_store_be32(p, v);
    return p + 4;
}

static uint8_t *put64(uint8_t *p, uint64_t v)
{
    rs_store_be64(p, v);
    return p + 8;
}

static uint32_t get16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

/* ---- negotiation ----------------------------------------------------------- */

/* One message of the negotiation, and where its answer goes. */
struct step {
    struct rs_nbd_client *client;
    const struct rs_nbd_server *server;
    uint32_t option;
    const uint8_t *data;
    uint32_t len;
    uint8_t *out; /* the end of the answer so far */
};

uint16_t rs_nbd_export_flags(const struct rs_nbd_export *e, bool structured)
{
    /* One file is behind all connections, and a flush is of that file: what one wrote the others see, and
     * flush. */
    uint32_t flags =
        RS_NBD_HAS_FLAGS | RS_NBD_SEND_FLUSH | RS_NBD_SEND_FUA | RS_NBD_CAN_MULTI_CONN | RS_NBD_SEND_CACHE;
    flags |= e->read_only ? RS_NBD_READ_ONLY : RS_NBD_SEND_TRIM | RS_NBD_SEND_WRITE_ZEROES;
    if (structured) flags |= RS_NBD_SEND_DF;
    return (uint16_t)flags;
}

void rs_nbd_greet(uint8_t out[RS_NBD_GREETING])
{
    put16(put64(put64(out, MAGIC_SERVER), MAGIC_OPTION), FLAG_FIXED | FLAG_NO_ZEROES);
}

static void put_reply(struct step *s, uint32_t type, const void *data, size_t len)
{
    bool error = (type & REP_ERR) != 0;
    uint32_t wire = error ? (type & ~(uint32_t)REP_ERR) | 1u << 31 : type;
    uint8_t *p = put64(s->out, MAGIC_OPTION_REPLY);
    p = put32(put32(put32(p, s->option), wire), (uint32_t)len);
    if (len != 0) memcpy(p, data, len);
    s->out = p + len;
}

static void put_refusal(struct step *s, uint32_t type, const char *text)
{
    put_reply(s, type, text, strlen(text));
}

/* The export of a name, or -1. */
static int find_export(const struct rs_nbd_server *server, const uint8_t *name, size_t len)
{
    if (len == 0) return 0;
    for (unsigned i = 0; i < server->count; i++) {
        const char *n = server->exports[i].name;
        if (strlen(n) == len && memcmp(n, name, len) == 0) return (int)i;
    }
    return -1;
}

static void do_list(struct step *s)
{
    uint8_t item[4 + RS_NBD_NAME_MAX];
    if (s->len != 0) {
        put_refusal(s, REP_ERR_INVALID, "a list takes no data");
        return;
    }
    for (unsigned i = 0; i < s->server->count; i++) {
        size_t len = strlen(s->server->exports[i].name);
        put32(item, (uint32_t)len);
        memcpy(item + 4, s->server->exports[i].name, len);
        put_reply(s, REP_SERVER, item, 4 + len);
    }
    put_reply(s, REP_ACK, NULL, 0);
}

static void start(struct step *s, int export)
{
    struct rs_nbd_client *c = s->client;
    c->export = (unsigned)export;
    if (c->context_of != c->export) c->allocation = false;
    c->phase = RS_NBD_TRANSMISSION;
}

/* The old way: no refusal exists, so an unknown name ends the connection. */
static int do_export_name(struct step *s)
{
    int export = find_export(s->server, s->data, s->len);
    if (export < 0) {
        s->client->why = "it asked for an export that is not there";
        return RESEAL_EPROTO;
    }
    const struct rs_nbd_export *e = &s->server->exports[export];
    s->out = put16(put64(s->out, e->size), rs_nbd_export_flags(e, s->client->structured));
    if (!s->client->no_zeroes) {
        memset(s->out, 0, 124);
        s->out += 124;
    }
    start(s, export);
    return 0;
}

static void put_infos(struct step *s, const struct rs_nbd_export *e, const uint8_t *wanted, unsigned n)
{
    uint8_t info[2 + RS_NBD_NAME_MAX];
    put16(put64(put16(info, INFO_EXPORT), e->size), rs_nbd_export_flags(e, s->client->structured));
    put_reply(s, REP_INFO, info, 12);
    put32(put32(put32(put16(info, INFO_BLOCK_SIZE), e->minimum), e->preferred), RS_NBD_DATA_MAX);
    put_reply(s, REP_INFO, info, 14);
    for (unsigned i = 0; i < n; i++) {
        if (get16(wanted + 2 * i) != INFO_NAME) continue;
        size_t len = strlen(e->name);
        put16(info, INFO_NAME);
        memcpy(info + 2, e->name, len);
        put_reply(s, REP_INFO, info, 2 + len);
        break; /* once is enough, however often it was asked for */
    }
}

/* INFO and GO. */
static void do_info(struct step *s)
{
    uint32_t name_len = s->len >= 4 ? rs_load_be32(s->data) : 0;
    if (s->len < 6 || name_len > s->len - 6) {
        put_refusal(s, REP_ERR_INVALID, "lengths do not fit");
        return;
    }
    const uint8_t *after = s->data + 4 + name_len;
    unsigned n = get16(after);
    if (s->len != 6 + name_len + 2 * n) {
        put_refusal(s, REP_ERR_INVALID, "lengths do not fit");
        return;
    }
    int export = find_export(s->server, s->data + 4, name_len);
    if (export < 0) {
        put_refusal(s, REP_ERR_UNKNOWN, "no such export");
        return;
    }
    put_infos(s, &s->server->exports[export], after + 2, n);
    put_reply(s, REP_ACK, NULL, 0);
    if (s->option == OPT_GO) start(s, export);
}

static void do_structured(struct step *s)
{
    if (s->len != 0) {
        put_refusal(s, REP_ERR_INVALID, "structured replies take no data");
        return;
    }
    s->client->structured = true;
    put_reply(s, REP_ACK, NULL, 0);
}

/* True when a query of LIST or SET means base:allocation. */
static bool asks_allocation(const uint8_t *query, size_t len, bool list)
{
    if (len == strlen(CONTEXT_NAME) && memcmp(query, CONTEXT_NAME, len) == 0) return true;
    return list && len == 5 && memcmp(query, "base:", 5) == 0;
}

/* The queries in an option's data: 1 when one asks for base:allocation, 0 not, -1 damaged. */
static int read_queries(const uint8_t *p, size_t left, bool list)
{
    if (left < 4) return -1;
    uint32_t n = rs_load_be32(p);
    p += 4;
    left -= 4;
    bool found = n == 0 && list;
    for (uint32_t i = 0; i < n; i++) {
        if (left < 4) return -1;
        uint32_t len = rs_load_be32(p);
        if (len > left - 4) return -1;
        found |= asks_allocation(p + 4, len, list);
        p += 4 + len;
        left -= 4 + len;
    }
    return left != 0 ? -1 : found;
}

static void do_meta_context(struct step *s)
{
    bool list = s->option == OPT_LIST_META_CONTEXT;
    uint32_t name_len = s->len >= 4 ? rs_load_be32(s->data) : UINT32_MAX;
    int found = -1;
    if (!list) s->client->allocation = false;
    if (s->len >= 4 && name_len <= s->len - 4)
        found = read_queries(s->data + 4 + name_len, s->len - 4 - name_len, list);
    if (found < 0 || !s->client->structured) {
        put_refusal(s, REP_ERR_INVALID,
                    found < 0 ? "lengths do not fit" : "structured replies come before contexts");
        return;
    }
    int export = find_export(s->server, s->data + 4, name_len);
    if (export < 0) {
        put_refusal(s, REP_ERR_UNKNOWN, "no such export");
        return;
    }
    if (found > 0) {
        uint8_t reply[4 + sizeof(CONTEXT_NAME) - 1];
        memcpy(put32(reply, list ? 0 : CONTEXT_ID), CONTEXT_NAME, sizeof(CONTEXT_NAME) - 1);
        put_reply(s, REP_META_CONTEXT, reply, sizeof(reply));
        if (!list) {
            s->client->allocation = true;
            s->client->context_of = (unsigned)export;
        }
    }
    put_reply(s, REP_ACK, NULL, 0);
}

static int do_option(struct step *s)
{
    switch (s->option) {
    case OPT_EXPORT_NAME:
        return do_export_name(s);
    case OPT_ABORT:
        put_reply(s, REP_ACK, NULL, 0);
        s->client->phase = RS_NBD_ENDED;
        return 0;
    case OPT_LIST:
        do_list(s);
        return 0;
    case OPT_STARTTLS:
        put_refusal(s, REP_ERR_POLICY, "this is a local socket: there is no TLS on it");
        return 0;
    case OPT_INFO:
    case OPT_GO:
        do_info(s);
        return 0;
    case OPT_STRUCTURED_REPLY:
        do_structured(s);
        return 0;
    case OPT_LIST_META_CONTEXT:
    case OPT_SET_META_CONTEXT:
        do_meta_context(s);
        return 0;
    default:
        put_refusal(s, REP_ERR_UNSUP, "not known here");
        return 0;
    }
}

static int take_flags(struct rs_nbd_client *client, const uint8_t *in, size_t len)
{
    if (len < 4) return 0;
    uint32_t flags = rs_load_be32(in);
    if ((flags & ~(FLAG_FIXED | FLAG_NO_ZEROES)) != 0) {
        client->why = "it answered the greeting with flags that nobody knows";
        return RESEAL_EPROTO;
    }
    client->fixed = (flags & FLAG_FIXED) != 0;
    client->no_zeroes = (flags & FLAG_NO_ZEROES) != 0;
    client->phase = RS_NBD_OPTIONS;
    return 4;
}

int rs_nbd_negotiate(struct rs_nbd_client *client, const struct rs_nbd_server *server, const uint8_t *in,
                     size_t len, uint8_t *out, size_t *out_len)
{
    *out_len = 0;
    if (client->phase == RS_NBD_CLIENT_FLAGS) return take_flags(client, in, len);
    if (len >= 8 && rs_load_be64(in) != MAGIC_OPTION) {
        client->why = "what it sent is no option of the protocol";
        return RESEAL_EPROTO;
    }
    if (len < 16) return 0;
    struct step s = {.client = client,
                     .server = server,
                     .option = rs_load_be32(in + 8),
                     .data = in + 16,
                     .len = rs_load_be32(in + 12),
                     .out = out};
    if (s.len > RS_NBD_OPTION_MAX) {
        client->why = "it sent an option that is too long";
        return RESEAL_EPROTO;
    }
    if (len - 16 < s.len) return 0;
    if (!client->fixed && s.option != OPT_EXPORT_NAME) {
        client->why = "it sent an option without knowing fixed newstyle";
        return RESEAL_EPROTO;
    }
    int code = do_option(&s);
    if (code != 0) return code;
    *out_len = (size_t)(s.out - out);
    return (int)(16 + s.len);
}

/* ---- requests -------------------------------------------------------------- */

int rs_nbd_request(struct rs_nbd_client *client, const uint8_t *in, size_t len, struct rs_nbd_request *out)
{
    if (len >= 4 && rs_load_be32(in) != MAGIC_REQUEST) {
        client->why = "what it sent is no request of the protocol";
        return RESEAL_EPROTO;
    }
    if (len < RS_NBD_REQUEST) return 0;
    *out = (struct rs_nbd_request){.flags = (uint16_t)get16(in + 4),
                                   .type = (uint16_t)get16(in + 6),
                                   .cookie = rs_load_be64(in + 8),
                                   .offset = rs_load_be64(in + 16),
                                   .len = rs_load_be32(in + 24)};
    if (out->type == RS_NBD_WRITE && out->len > RS_NBD_WRITE_DROP) {
        client->why = "it announced more data than a write may have";
        return RESEAL_EPROTO;
    }
    return RS_NBD_REQUEST;
}

/* The flags that a command may have. */
static uint16_t flags_of(const struct rs_nbd_client *c, uint16_t type)
{
    switch (type) {
    case RS_NBD_READ:
        return (uint16_t)(RS_NBD_FUA | (c->structured ? RS_NBD_DF : 0));
    case RS_NBD_ZERO:
        return RS_NBD_FUA | RS_NBD_NO_HOLE;
    case RS_NBD_BLOCK_STATUS:
        return RS_NBD_FUA | RS_NBD_REQ_ONE;
    default:
        return RS_NBD_FUA;
    }
}

uint32_t rs_nbd_check(const struct rs_nbd_client *client, const struct rs_nbd_export *e,
                      const struct rs_nbd_request *r)
{
    bool writes = r->type == RS_NBD_WRITE || r->type == RS_NBD_ZERO || r->type == RS_NBD_TRIM;
    if (r->type > RS_NBD_BLOCK_STATUS || r->type == RS_NBD_DISCONNECT) return RS_NBD_EINVAL;
    if ((r->flags & ~flags_of(client, r->type)) != 0) return RS_NBD_EINVAL;
    if (r->type == RS_NBD_FLUSH) return r->offset == 0 && r->len == 0 ? 0 : RS_NBD_EINVAL;
    if (r->type == RS_NBD_BLOCK_STATUS && !client->allocation) return RS_NBD_EINVAL;
    if (r->len == 0) return RS_NBD_EINVAL;
    if (writes && e->read_only) return RS_NBD_EPERM;
    if (!rs_range_ok(r->offset, r->len, e->size)) return writes ? RS_NBD_ENOSPC : RS_NBD_EINVAL;
    if ((r->type == RS_NBD_READ || r->type == RS_NBD_WRITE) && r->len > RS_NBD_DATA_MAX)
        return RS_NBD_EOVERFLOW;
    return 0;
}

/* ---- replies --------------------------------------------------------------- */

static uint8_t *put_chunk(uint8_t *p, const struct rs_nbd_request *r, unsigned type, bool last, uint32_t len)
{
    p = put16(put16(put32(p, MAGIC_CHUNK), last ? CHUNK_DONE : 0), type);
    return put32(put64(p, r->cookie), len);
}

static unsigned put_error(const struct rs_nbd_request *r, uint32_t error, uint8_t *out)
{
    return (unsigned)(put16(put32(put_chunk(out, r, CHUNK_ERROR, true, 6), error), 0) - out);
}

unsigned rs_nbd_late_error(const struct rs_nbd_request *r, uint32_t error, uint8_t *out)
{
    return put_error(r, error, out);
}

unsigned rs_nbd_done(const struct rs_nbd_client *client, const struct rs_nbd_request *r, uint32_t error,
                     uint8_t *out)
{
    /* What has data when it works, fails in kind. */
    bool chunk = r->type == RS_NBD_READ || r->type == RS_NBD_BLOCK_STATUS;
    if (client->structured && chunk && error != 0) return put_error(r, error, out);
    return (unsigned)(put64(put32(put32(out, MAGIC_SIMPLE), error), r->cookie) - out);
}

bool rs_nbd_in_one(const struct rs_nbd_client *client, const struct rs_nbd_request *r)
{
    return !client->structured || (r->flags & RS_NBD_DF) != 0;
}

unsigned rs_nbd_data(const struct rs_nbd_client *client, const struct rs_nbd_request *r, uint64_t offset,
                     uint32_t len, bool last, uint8_t *out)
{
    bool one = rs_nbd_in_one(client, r);
    if (one && offset != r->offset) return 0;
    if (!client->structured) return rs_nbd_done(client, r, 0, out);
    uint8_t *p = put_chunk(out, r, CHUNK_DATA, one || last, (one ? r->len : len) + 8);
    return (unsigned)(put64(p, offset) - out);
}

unsigned rs_nbd_status(const struct rs_nbd_request *r, uint8_t *out)
{
    uint8_t *p = put_chunk(out, r, CHUNK_BLOCK_STATUS, true, 12);
    return (unsigned)(put32(put32(put32(p, CONTEXT_ID), r->len), 0) - out);
}
