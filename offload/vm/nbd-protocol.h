/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_NBD_PROTOCOL_H
#define RS_VM_NBD_PROTOCOL_H

/*
 * The server's side of NBD (network block device), fixed newstyle: the
 * negotiation, requests and the headers of replies, over byte buffers. Nothing
 * here does input or output, keeps data or allocates.
 *
 *   1. Exports and connections
 *   2. Negotiation
 *   3. Requests
 *   4. Replies
 *
 * A client is hostile: what it sends is checked for length before it is looked
 * at. Threads: no state but the connection's, which is the caller's.
 */

#include "offload/base/bytes.h"

/* ==== 1. Exports and connections ========================================== */

#define RS_NBD_NAME_MAX    255u        /* bytes of an export's name, without NUL */
#define RS_NBD_EXPORTS_MAX 64u         /* of a server */
#define RS_NBD_OPTION_MAX  8192u       /* bytes of data of an option; a client that sends more is dropped */
#define RS_NBD_REPLY_MAX   32768u      /* bytes that one step of the negotiation writes, at most */
#define RS_NBD_DATA_MAX    (32u << 20) /* bytes of a read or write */
#define RS_NBD_WRITE_DROP  (64u << 20) /* a client that announces more is dropped */

enum rs_nbd_export_flag {
    RS_NBD_HAS_FLAGS = 1,
    RS_NBD_READ_ONLY = 2,
    RS_NBD_SEND_FLUSH = 4,
    RS_NBD_SEND_FUA = 8,
    RS_NBD_SEND_TRIM = 32,
    RS_NBD_SEND_WRITE_ZEROES = 64,
    RS_NBD_SEND_DF = 128,
    RS_NBD_CAN_MULTI_CONN = 256,
    RS_NBD_SEND_CACHE = 1024,
};

struct rs_nbd_export {
    char name[RS_NBD_NAME_MAX + 1];
    uint64_t size; /* bytes */
    bool read_only;
    uint32_t minimum;   /* block sizes: powers of two, 1 to 65536 */
    uint32_t preferred; /* at least `minimum` */
};

/* The flags that go with an export. */
uint16_t rs_nbd_export_flags(const struct rs_nbd_export *e, bool structured);

struct rs_nbd_server {
    const struct rs_nbd_export *exports; /* the first is the default one, too */
    unsigned count;                      /* 1 to RS_NBD_EXPORTS_MAX */
};

enum rs_nbd_phase { RS_NBD_CLIENT_FLAGS, RS_NBD_OPTIONS, RS_NBD_TRANSMISSION, RS_NBD_ENDED };

/* All zero at the start. */
struct rs_nbd_client {
    enum rs_nbd_phase phase;
    bool fixed;      /* the client knows fixed newstyle */
    bool no_zeroes;  /* and does without 124 zeros */
    bool structured; /* structured replies were asked for */
    bool allocation; /* so was base:allocation, for export `context_of` */
    unsigned context_of;
    unsigned export; /* in the transmission */
    const char *why; /* after an error: what the client did wrong; static text */
};

/* ==== 2. Negotiation ====================================================== */

#define RS_NBD_GREETING 18u

/* What the server sends first: RS_NBD_GREETING bytes. */
void rs_nbd_greet(uint8_t out[RS_NBD_GREETING]);

/*
 * Takes one message of the negotiation from `in` and writes the answer, at
 * most RS_NBD_REPLY_MAX bytes, to `out`. Returns the bytes it used up, 0 when
 * more must come first (at most RS_NBD_OPTION_MAX + 16 in all), or
 * RESEAL_EPROTO with client->why. The phase tells when it is over.
 */
RS_MUST_CHECK int rs_nbd_negotiate(struct rs_nbd_client *client, const struct rs_nbd_server *server,
                                   const uint8_t *in, size_t len, uint8_t *out, size_t *out_len);

/* ==== 3. Requests ========================================================= */

#define RS_NBD_REQUEST 28u

enum rs_nbd_command {
    RS_NBD_READ = 0,
    RS_NBD_WRITE = 1,
    RS_NBD_DISCONNECT = 2,
    RS_NBD_FLUSH = 3,
    RS_NBD_TRIM = 4,
    RS_NBD_CACHE = 5,
    RS_NBD_ZERO = 6,
    RS_NBD_BLOCK_STATUS = 7,
};

enum rs_nbd_request_flag {
    RS_NBD_FUA = 1,
    RS_NBD_NO_HOLE = 2,
    RS_NBD_DF = 4,
    RS_NBD_REQ_ONE = 8,
};

/* Errors as they go over the wire. */
enum rs_nbd_error {
    RS_NBD_EPERM = 1,
    RS_NBD_EIO = 5,
    RS_NBD_EINVAL = 22,
    RS_NBD_ENOSPC = 28,
    RS_NBD_EOVERFLOW = 75,
    RS_NBD_ESHUTDOWN = 108,
};

struct rs_nbd_request {
    uint16_t flags; /* enum rs_nbd_request_flag */
    uint16_t type;  /* enum rs_nbd_command, or anything */
    uint64_t cookie;
    uint64_t offset;
    uint32_t len;
};

/*
 * Reads a request's header. RS_NBD_REQUEST, 0 when more must come first, or
 * RESEAL_EPROTO with client->why: drop the client. `len` bytes of payload
 * follow a write, whether it will be done or refused.
 */
RS_MUST_CHECK int rs_nbd_request(struct rs_nbd_client *client, const uint8_t *in, size_t len,
                                 struct rs_nbd_request *out);

/* 0 when a request may be done on its export, or the error it gets. Not for RS_NBD_DISCONNECT. */
RS_MUST_CHECK uint32_t rs_nbd_check(const struct rs_nbd_client *client, const struct rs_nbd_export *e,
                                    const struct rs_nbd_request *r);

/* ==== 4. Replies ========================================================== */

#define RS_NBD_HEADER_MAX 48u

/* All data of a read goes behind one header: no error can come after some of it. */
bool rs_nbd_in_one(const struct rs_nbd_client *client, const struct rs_nbd_request *r);

/*
 * Headers, into `out` (RS_NBD_HEADER_MAX bytes). They return their length.
 *
 * rs_nbd_done: a request without data is done, or failed with `error`.
 * rs_nbd_data: `len` bytes of data follow. A simple reply has one header, with
 * the first piece (`offset` is that of the request), and so has a structured one that must not be
 * fragmented; others have one for each, `last` with the last.
 * rs_nbd_late_error: after some data was sent; structured replies only.
 * rs_nbd_status: one extent that is allocated.
 */
unsigned rs_nbd_done(const struct rs_nbd_client *client, const struct rs_nbd_request *r, uint32_t error,
                     uint8_t *out);
unsigned rs_nbd_data(const struct rs_nbd_client *client, const struct rs_nbd_request *r, uint64_t offset,
                     uint32_t len, bool last, uint8_t *out);
unsigned rs_nbd_late_error(const struct rs_nbd_request *r, uint32_t error, uint8_t *out);
unsigned rs_nbd_status(const struct rs_nbd_request *r, uint8_t *out);

#endif
