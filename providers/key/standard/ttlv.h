/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KMIP_TTLV_H
#define RS_KMIP_TTLV_H

/*
 * TTLV, the encoding of KMIP 1.0 to 1.4 messages (KMIP specification 1.1,
 * section 9.1): tag 3 bytes, type 1, length 4, value, zeros up to a multiple
 * of 8 that the length does not count; all big endian.
 *
 * The reader is for what a server sends, which is hostile: it looks at
 * nothing outside the bytes that it was given, keeps no copy, allocates
 * nothing, and every item must lie inside its parent. Unknown tags are for the
 * caller to step over. The writer fills a buffer of the caller's; an overflow
 * is remembered and told by rs_ttlv_finish().
 *
 * Values may be secret (KeyMaterial): buffers belong to key memory, and their
 * owner wipes them. Threads: no state but the caller's.
 */

#include "offload/base/bytes.h"

#define RS_TTLV_HEADER      8u
#define RS_TTLV_MESSAGE_MAX (1u << 20) /* bytes of a message that is read */
#define RS_TTLV_DEPTH_MAX   16u
#define RS_TTLV_ITEMS_MAX   4096u /* in one message */

enum rs_ttlv_type {
    RS_TTLV_STRUCTURE = 1,
    RS_TTLV_INTEGER = 2,
    RS_TTLV_LONG = 3,
    RS_TTLV_BIG_INTEGER = 4,
    RS_TTLV_ENUMERATION = 5,
    RS_TTLV_BOOLEAN = 6,
    RS_TTLV_TEXT = 7,
    RS_TTLV_BYTES = 8,
    RS_TTLV_DATE_TIME = 9,
    RS_TTLV_INTERVAL = 10,
};

/* ---- reading ------------------------------------------------------------------ */

/* One item; `value` points into the message. */
struct rs_ttlv {
    uint32_t tag; /* 0x420000 to 0x42ffff, or an extension 0x54xxxx */
    uint8_t type; /* enum rs_ttlv_type */
    uint32_t len; /* bytes of value, without padding */
    const uint8_t *value;
};

/* The items of one structure, in order. */
struct rs_ttlv_reader {
    const uint8_t *at, *end;
};

/*
 * Length in bytes of the whole message that begins with these 8 bytes.
 * RESEAL_EPROTO when it is no structure with tag `tag`, or beyond
 * RS_TTLV_MESSAGE_MAX; so a stream is never read further than that.
 */
RS_MUST_CHECK int rs_ttlv_message_len(const uint8_t header[RS_TTLV_HEADER], uint32_t tag, size_t *len);

/*
 * Checks a whole message: every length, type and nesting, UTF-8 of texts
 * without a NUL byte, depth and number of items. RESEAL_EPROTO. The calls
 * below are safe without it too; after it they cannot fail for the form.
 */
RS_MUST_CHECK int rs_ttlv_check(const uint8_t *message, size_t len);

/* Begins with the items of a message, or of an item that is a structure (else RESEAL_EPROTO). */
RS_MUST_CHECK int rs_ttlv_open(struct rs_ttlv_reader *r, const uint8_t *message, size_t len, uint32_t tag);
RS_MUST_CHECK int rs_ttlv_enter(struct rs_ttlv_reader *r, const struct rs_ttlv *item);

/* The next item: 1; the end: 0; RESEAL_EPROTO. */
RS_MUST_CHECK int rs_ttlv_next(struct rs_ttlv_reader *r, struct rs_ttlv *item);

/* The first item with that tag from here to the end; the reader stays. 1, 0 when there is none,
 * RESEAL_EPROTO. */
RS_MUST_CHECK int rs_ttlv_find(const struct rs_ttlv_reader *r, uint32_t tag, struct rs_ttlv *item);

/* The value of an item of just that type. RESEAL_EPROTO. */
RS_MUST_CHECK int rs_ttlv_integer(const struct rs_ttlv *item, int32_t *out);
RS_MUST_CHECK int rs_ttlv_enumeration(const struct rs_ttlv *item, uint32_t *out);
RS_MUST_CHECK int rs_ttlv_long(const struct rs_ttlv *item, int64_t *out); /* also DATE_TIME */
RS_MUST_CHECK int rs_ttlv_boolean(const struct rs_ttlv *item, bool *out);

/* Copies a text, NUL-ended. RESEAL_EPROTO when it is no text, not UTF-8, holds a NUL, or has `room` bytes or
 * more. */
RS_MUST_CHECK int rs_ttlv_text(const struct rs_ttlv *item, char *out, size_t room);

/* ---- writing ------------------------------------------------------------------ */

struct rs_ttlv_writer {
    uint8_t *start;
    size_t room, used;
    size_t open[RS_TTLV_DEPTH_MAX]; /* where the structures begin that are not ended */
    unsigned depth;
    bool broken; /* the room is used up, or begin and end do not match */
};

void rs_ttlv_writer_init(struct rs_ttlv_writer *w, uint8_t *buffer, size_t room);

void rs_ttlv_begin(struct rs_ttlv_writer *w, uint32_t tag);
void rs_ttlv_end(struct rs_ttlv_writer *w);

void rs_ttlv_put_integer(struct rs_ttlv_writer *w, uint32_t tag, int32_t value);
void rs_ttlv_put_long(struct rs_ttlv_writer *w, uint32_t tag, int64_t value);
void rs_ttlv_put_enumeration(struct rs_ttlv_writer *w, uint32_t tag, uint32_t value);
void rs_ttlv_put_boolean(struct rs_ttlv_writer *w, uint32_t tag, bool value);
void rs_ttlv_put_text(struct rs_ttlv_writer *w, uint32_t tag, const char *text);
void rs_ttlv_put_bytes(struct rs_ttlv_writer *w, uint32_t tag, const uint8_t *bytes, size_t len);
void rs_ttlv_put_date_time(struct rs_ttlv_writer *w, uint32_t tag, int64_t seconds);

/* Length of the message, when every structure is ended; RESEAL_ESPACE when it did not fit. */
RS_MUST_CHECK int rs_ttlv_finish(const struct rs_ttlv_writer *w, size_t *len);

#endif
