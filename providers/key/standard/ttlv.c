/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/standard/ttlv.h"

#include "reseal/reseal.h"

static size_t padded(size_t len)
{
    return (size_t)rs_round_up(len, 8);
}

/* ---- reading ------------------------------------------------------------------ */

/* Whether values of that type can have that length (section 9.1.1.3). */
static bool length_fits(uint8_t type, uint32_t len)
{
    switch (type) {
    case RS_TTLV_STRUCTURE:
    case RS_TTLV_BIG_INTEGER:
        return len % 8 == 0;
    case RS_TTLV_INTEGER:
    case RS_TTLV_ENUMERATION:
    case RS_TTLV_INTERVAL:
        return len == 4;
    case RS_TTLV_LONG:
    case RS_TTLV_BOOLEAN:
    case RS_TTLV_DATE_TIME:
        return len == 8;
    case RS_TTLV_TEXT:
    case RS_TTLV_BYTES:
        return true;
    default:
        return false;
    }
}

int rs_ttlv_message_len(const uint8_t header[RS_TTLV_HEADER], uint32_t tag, size_t *len)
{
    uint64_t value = rs_load_be32(header + 4);
    if (rs_load_be32(header) != (tag << 8 | RS_TTLV_STRUCTURE) || value % 8 != 0) return RESEAL_EPROTO;
    if (value + RS_TTLV_HEADER > RS_TTLV_MESSAGE_MAX) return RESEAL_EPROTO;
    *len = (size_t)value + RS_TTLV_HEADER;
    return 0;
}

int rs_ttlv_next(struct rs_ttlv_reader *r, struct rs_ttlv *item)
{
    size_t left = (size_t)(r->end - r->at);
    if (left == 0) return 0;
    if (left < RS_TTLV_HEADER) return RESEAL_EPROTO;
    uint32_t head = rs_load_be32(r->at), len = rs_load_be32(r->at + 4);
    uint8_t type = (uint8_t)head;
    /* The padding lies inside the parent too; what is in it does not matter. */
    if (rs_round_up(len, 8) > left - RS_TTLV_HEADER || !length_fits(type, len)) return RESEAL_EPROTO;
    *item = (struct rs_ttlv){.tag = head >> 8, .type = type, .len = len, .value = r->at + RS_TTLV_HEADER};
    r->at += RS_TTLV_HEADER + padded(len);
    return 1;
}

int rs_ttlv_find(const struct rs_ttlv_reader *r, uint32_t tag, struct rs_ttlv *item)
{
    struct rs_ttlv_reader copy = *r;
    int more;
    while ((more = rs_ttlv_next(&copy, item)) == 1)
        if (item->tag == tag) return 1;
    return more;
}

int rs_ttlv_enter(struct rs_ttlv_reader *r, const struct rs_ttlv *item)
{
    if (item->type != RS_TTLV_STRUCTURE) return RESEAL_EPROTO;
    *r = (struct rs_ttlv_reader){.at = item->value, .end = item->value + item->len};
    return 0;
}

int rs_ttlv_open(struct rs_ttlv_reader *r, const uint8_t *message, size_t len, uint32_t tag)
{
    struct rs_ttlv_reader whole = {.at = message, .end = message + len};
    struct rs_ttlv item;
    if (rs_ttlv_next(&whole, &item) != 1 || item.tag != tag || whole.at != whole.end) return RESEAL_EPROTO;
    return rs_ttlv_enter(r, &item);
}

int rs_ttlv_integer(const struct rs_ttlv *item, int32_t *out)
{
    if (item->type != RS_TTLV_INTEGER) return RESEAL_EPROTO;
    *out = (int32_t)rs_load_be32(item->value);
    return 0;
}

int rs_ttlv_enumeration(const struct rs_ttlv *item, uint32_t *out)
{
    if (item->type != RS_TTLV_ENUMERATION) return RESEAL_EPROTO;
    *out = rs_load_be32(item->value);
    return 0;
}

int rs_ttlv_long(const struct rs_ttlv *item, int64_t *out)
{
    if (item->type != RS_TTLV_LONG && item->type != RS_TTLV_DATE_TIME) return RESEAL_EPROTO;
    *out = (int64_t)rs_load_be64(item->value);
    return 0;
}

int rs_ttlv_boolean(const struct rs_ttlv *item, bool *out)
{
    if (item->type != RS_TTLV_BOOLEAN || rs_load_be64(item->value) > 1) return RESEAL_EPROTO;
    *out = rs_load_be64(item->value) == 1;
    return 0;
}

/* Bytes of the UTF-8 character at s (RFC 3629: shortest form, no surrogates), or 0. */
static size_t utf8_char(const uint8_t *s, size_t left)
{
    static const struct form {
        uint8_t mask, lead;
        uint32_t least;
    } forms[] = {{0x80, 0x00, 1}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t n = 0; n < RS_ARRAY_LEN(forms); n++) {
        if ((s[0] & forms[n].mask) != forms[n].lead) continue;
        if (n >= left) return 0;
        uint32_t c = s[0] & (uint8_t)~forms[n].mask;
        for (size_t i = 1; i <= n; i++) {
            if ((s[i] & 0xc0) != 0x80) return 0;
            c = c << 6 | (s[i] & 0x3f);
        }
        return c < forms[n].least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n + 1;
    }
    return 0;
}

/* A NUL is none: its code point is below the least. */
static bool text_ok(const struct rs_ttlv *item)
{
    for (size_t at = 0, n; at < item->len; at += n)
        if ((n = utf8_char(item->value + at, item->len - at)) == 0) return false;
    return true;
}

int rs_ttlv_text(const struct rs_ttlv *item, char *out, size_t room)
{
    if (item->type != RS_TTLV_TEXT || item->len >= room || !text_ok(item)) return RESEAL_EPROTO;
    memcpy(out, item->value, item->len);
    out[item->len] = '\0';
    return 0;
}

/* Without recursion: a stack of readers as deep as is allowed. */
int rs_ttlv_check(const uint8_t *message, size_t len)
{
    struct rs_ttlv_reader levels[RS_TTLV_DEPTH_MAX + 1] = {{.at = message, .end = message + len}};
    unsigned depth = 0, items = 0;
    for (;;) {
        struct rs_ttlv item;
        int more = rs_ttlv_next(&levels[depth], &item);
        if (more < 0) return more;
        if (more == 0) {
            if (depth-- == 0) return items == 0 ? RESEAL_EPROTO : 0;
            continue;
        }
        if (++items > RS_TTLV_ITEMS_MAX) return RESEAL_EPROTO;
        if (item.type == RS_TTLV_TEXT && !text_ok(&item)) return RESEAL_EPROTO;
        if (item.type == RS_TTLV_BOOLEAN && rs_load_be64(item.value) > 1) return RESEAL_EPROTO;
        if (item.type != RS_TTLV_STRUCTURE) continue;
        if (depth == RS_TTLV_DEPTH_MAX) return RESEAL_EPROTO;
        levels[++depth] = (struct rs_ttlv_reader){.at = item.value, .end = item.value + item.len};
    }
}

/* ---- writing ------------------------------------------------------------------ */

void rs_ttlv_writer_init(struct rs_ttlv_writer *w, uint8_t *buffer, size_t room)
{
    *w = (struct rs_ttlv_writer){.start = buffer, .room = room};
}

/* Room for an item, its header written and its padding zeroed; NULL when there is none. */
static uint8_t *put(struct rs_ttlv_writer *w, uint32_t tag, enum rs_ttlv_type type, size_t len)
{
    size_t left = w->room - w->used;
    if (w->broken || left < RS_TTLV_HEADER || len > UINT32_MAX - 7 || padded(len) > left - RS_TTLV_HEADER) {
        w->broken = true;
        return NULL;
    }
    uint8_t *at = w->start + w->used;
    rs_store_be32(at, tag << 8 | type);
    rs_store_be32(at + 4, (uint32_t)len);
    memset(at + RS_TTLV_HEADER + len, 0, padded(len) - len);
    w->used += RS_TTLV_HEADER + padded(len);
    return at + RS_TTLV_HEADER;
}

void rs_ttlv_begin(struct rs_ttlv_writer *w, uint32_t tag)
{
    size_t at = w->used;
    if (w->depth == RS_TTLV_DEPTH_MAX) w->broken = true;
    if (put(w, tag, RS_TTLV_STRUCTURE, 0) != NULL) w->open[w->depth++] = at;
}

void rs_ttlv_end(struct rs_ttlv_writer *w)
{
    if (w->depth == 0) w->broken = true;
    if (w->broken) return;
    size_t at = w->open[--w->depth];
    rs_store_be32(w->start + at + 4, (uint32_t)(w->used - at - RS_TTLV_HEADER));
}

static void put32(struct rs_ttlv_writer *w, uint32_t tag, enum rs_ttlv_type type, uint32_t value)
{
    uint8_t *at = put(w, tag, type, 4);
    if (at != NULL) rs_store_be32(at, value);
}

static void put64(struct rs_ttlv_writer *w, uint32_t tag, enum rs_ttlv_type type, uint64_t value)
{
    uint8_t *at = put(w, tag, type, 8);
    if (at != NULL) rs_store_be64(at, value);
}

void rs_ttlv_put_integer(struct rs_ttlv_writer *w, uint32_t tag, int32_t value)
{
    put32(w, tag, RS_TTLV_INTEGER, (uint32_t)value);
}

void rs_ttlv_put_long(struct rs_ttlv_writer *w, uint32_t tag, int64_t value)
{
    put64(w, tag, RS_TTLV_LONG, (uint64_t)value);
}

void rs_ttlv_put_enumeration(struct rs_ttlv_writer *w, uint32_t tag, uint32_t value)
{
    put32(w, tag, RS_TTLV_ENUMERATION, value);
}

void rs_ttlv_put_boolean(struct rs_ttlv_writer *w, uint32_t tag, bool value)
{
    put64(w, tag, RS_TTLV_BOOLEAN, value ? 1 : 0);
}

static void put_string(struct rs_ttlv_writer *w, uint32_t tag, enum rs_ttlv_type type, const void *p,
                       size_t len)
{
    uint8_t *at = put(w, tag, type, len);
    if (at != NULL && len > 0) memcpy(at, p, len);
}

void rs_ttlv_put_text(struct rs_ttlv_writer *w, uint32_t tag, const char *text)
{
    put_string(w, tag, RS_TTLV_TEXT, text, strlen(text));
}

void rs_ttlv_put_bytes(struct rs_ttlv_writer *w, uint32_t tag, const uint8_t *bytes, size_t len)
{
    put_string(w, tag, RS_TTLV_BYTES, bytes, len);
}

void rs_ttlv_put_date_time(struct rs_ttlv_writer *w, uint32_t tag, int64_t seconds)
{
    put64(w, tag, RS_TTLV_DATE_TIME, (uint64_t)seconds);
}

int rs_ttlv_finish(const struct rs_ttlv_writer *w, size_t *len)
{
    if (w->broken || w->depth != 0) return RESEAL_ESPACE;
    *len = w->used;
    return 0;
}
