/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_WIRE_FRAME_H
#define RS_WIRE_FRAME_H

/*
 * Messages over a link: a JSON object and, where keys travel, a block of bytes beside it, since
 * no key is ever a JSON text. On the wire, big-endian: 4 bytes the length of what follows (at most
 * RS_WIRE_FRAME_MAX), 4 bytes the length of the JSON text, the text, the block.
 *
 * A request is {"method": NAME, ...}; an answer is {"status": 0, ...} or {"status": RESEAL_E...,
 * "error": "one line", "event": ...}.
 */

#include "providers/key/wire/tls.h"

#include <jansson.h>

#define RS_WIRE_FRAME_MAX (64u << 10)
#define RS_WIRE_HEAD      8u

struct rs_wire_message {
    json_t *json;   /* an object */
    uint8_t *block; /* key memory; NULL: none */
    size_t block_len;
};

/* Wipes and empties. */
void rs_wire_message_free(struct rs_wire_message *m);

/* The whole frame, in key memory, for rs_keymem_free(); NULL: too long, or no memory. */
RS_MUST_CHECK uint8_t *rs_wire_pack(const struct rs_wire_message *m, size_t *len);

/* The bytes after the head that `head` announces; RESEAL_EPROTO: too many. */
RS_MUST_CHECK int rs_wire_head(const uint8_t head[RS_WIRE_HEAD], size_t *rest);

/* A frame as it was received. RESEAL_EPROTO: no object, lengths that do not fit; RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_wire_unpack(const uint8_t *frame, size_t len, struct rs_wire_message *out);

/*
 * One request and its answer; the answer is released by the caller, whatever comes back. The status of the
 * link, as rs_wire_connect() gives it, or of the answer: then error->fault is RS_WIRE_NO_FAULT and error->why
 * is its line.
 */
RS_MUST_CHECK int rs_wire_ask(struct rs_wire_link *link, const struct rs_wire_message *request,
                              struct rs_wire_message *answer, unsigned deadline_ms,
                              struct rs_wire_error *error);

/* {"status": status, "error": line}; NULL: no memory. */
__attribute__((format(printf, 2, 3))) json_t *rs_wire_refusal(int status, const char *format, ...);

/* ---- bytes in JSON --------------------------------------------------------------------- */

/* base64url without padding: `room` for *out is at least len * 4 / 3 + 4. */
void rs_wire_to_text(const void *p, size_t len, char *out);
/* The bytes of a text, at most `room`; -1: no base64url, or more. */
RS_MUST_CHECK int64_t rs_wire_from_text(const char *text, void *out, size_t room);
/* The same as a JSON text; NULL: no memory. */
json_t *rs_wire_json(const void *p, size_t len);
/* Of a member of an object; -1: there is none, or it is no such text. */
RS_MUST_CHECK int64_t rs_wire_member(const json_t *object, const char *name, void *out, size_t room);

#endif
