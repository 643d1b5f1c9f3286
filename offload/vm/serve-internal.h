/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_SERVE_INTERNAL_H
#define RS_VM_SERVE_INTERNAL_H

/* What the files of the disk server share; serve.h says which does what. */

#include <liburing.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "offload/vm/nbd-protocol.h"
#include "offload/vm/serve.h"

#define RS_VS_CLIENTS  64u          /* connections at a time */
#define RS_VS_REQUESTS 1024u        /* requests of all connections */
#define RS_VS_INFLIGHT 256u         /* of one connection */
#define RS_VS_PIECE    (256u << 10) /* bytes; requests are cut at its multiples on the disk */
#define RS_VS_WINDOW   4u           /* pieces of a request under way at a time */
#define RS_VS_SMALL    (16u << 10)  /* payloads up to this are used where they were received */
#define RS_VS_CHUNK    (64u << 10)  /* bytes received at a time */
#define RS_VS_IOVS     64u          /* parts of one send */
#define RS_VS_DEPTH    512u         /* jobs in the ring */

struct rs_vmserve;
struct rs_vs_client;
struct rs_vs_request;

/* ---- serve-ring.c: input and output ---------------------------------------- */

enum rs_vs_what {
    RS_VS_ACCEPT,
    RS_VS_SIGNAL,
    RS_VS_WAKE, /* the ring's descriptor: jobs are done */
    RS_VS_RECEIVE,
    RS_VS_SEND,
    RS_VS_FILE_READ,
    RS_VS_FILE_WRITE,
    RS_VS_FILE_FLUSH,
    RS_VS_FILE_HOLE,
    RS_VS_IMAGE_IN,     /* the connection to QEMU can be read, */
    RS_VS_IMAGE_HEADER, /* somebody has a header for it */
    RS_VS_IMAGE_OUT,    /* written */
};

/* An operation of the kernel; the first member of what it belongs to, or found from it by its kind. */
struct rs_vs_op {
    enum rs_vs_what what;
    int result; /* a count, or -errno */
    void *owner;
    struct rs_qcow2_op image; /* when QEMU carries it out: then the owner is the server, */
    struct rs_vs_op *next;    /* and it is in the list of those that ended */
};

/* 0 or -errno. */
RS_MUST_CHECK int rs_vs_ring_open(struct rs_vmserve *s);
/* From here on only the calling thread uses it. 0 or -errno. */
RS_MUST_CHECK int rs_vs_ring_begin(struct rs_vmserve *s);
void rs_vs_ring_close(struct rs_vmserve *s);
/* An entry to prepare, */
struct io_uring_sqe *rs_vs_sqe(struct rs_vmserve *s);
/* and, after that, whom it tells of its end. */
void rs_vs_tells(struct io_uring_sqe *sqe, struct rs_vs_op *op, enum rs_vs_what what);
/* An operation that ended, or NULL. */
struct rs_vs_op *rs_vs_ended(struct rs_vmserve *s);
/* Hands entries to the kernel and looks what has ended. */
void rs_vs_submit(struct rs_vmserve *s);
/* True when something ended, or will with the next call of the kernel. No call. */
bool rs_vs_has_ended(const struct rs_vmserve *s);
/* Submits, and waits for an end, for at most `ms`. */
void rs_vs_sleep(struct rs_vmserve *s, int ms);

/* ---- serve-image.c: qcow2 images -------------------------------------------- */

struct rs_vs_disk;
struct rs_vs_piece;

/* Learns what is stored. RESEAL_EIO, RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_vs_image_open(struct rs_vs_disk *d);
void rs_vs_image_close(struct rs_vs_disk *d);
/* Starts an operation of a kind RS_VS_FILE_...; it ends as those of the ring do. */
void rs_vs_image_start(struct rs_vmserve *s, const struct rs_vs_disk *d, struct rs_vs_op *op,
                       enum rs_vs_what what, uint8_t *buf, uint32_t len, uint64_t off);
/* Asks the ring about connections that are waited for. */
void rs_vs_image_poll(struct rs_vmserve *s);
/* Ends what QEMU has not ended yet, when the server cannot wait any longer. */
void rs_vs_image_give_up(struct rs_vmserve *s);
/* RS_VS_IMAGE_... */
void rs_vs_image_ready(struct rs_vmserve *s, struct rs_vs_op *op);
/* A write that is about to lock its range: of a cluster that is stored already, only the grains that it
 * touches. */
void rs_vs_image_settle(struct rs_vs_piece *p);
/* What a range is from now on: stored, or not. */
void rs_vs_image_mark(struct rs_vs_disk *d, uint64_t start, uint64_t len, bool stored);
/* After a job: what is not stored is zeros. */
void rs_vs_image_zero(struct rs_vs_piece *p);

/* ---- serve-buffers.c ------------------------------------------------------- */

enum { RS_VS_SIZES = 3 }; /* 16, 64 and 256 KiB */

/* What was received: requests, and payloads that are used in place. */
struct rs_vs_chunk {
    uint8_t *base;
    uint32_t refs; /* pieces that use it, and the connection that fills it */
    uint32_t fill; /* bytes received */
    struct rs_vs_chunk *next;
};

struct rs_vs_buffers {
    uint8_t **free[RS_VS_SIZES]; /* stacks: what was used last is in the cache */
    unsigned count[RS_VS_SIZES];
    uint8_t *start[RS_VS_SIZES + 1]; /* of each size in the arena */
    uint8_t *zeros;                  /* RS_VS_PIECE of them */
    struct rs_vs_chunk *chunks, *free_chunks;
};

/* Bytes of arena that the buffers want. */
uint64_t rs_vs_buffers_want(void);
RS_MUST_CHECK int rs_vs_buffers_open(struct rs_vs_buffers *b, uint8_t *arena, size_t len);
void rs_vs_buffers_close(struct rs_vs_buffers *b);
/* `len` bytes, at most RS_VS_PIECE, page aligned; NULL: none is free. */
uint8_t *rs_vs_buffer_take(struct rs_vs_buffers *b, uint32_t len);
void rs_vs_buffer_give(struct rs_vs_buffers *b, uint8_t *buffer);
/* RS_VS_CHUNK bytes with one reference. */
struct rs_vs_chunk *rs_vs_chunk_take(struct rs_vs_buffers *b);
void rs_vs_chunk_drop(struct rs_vs_buffers *b, struct rs_vs_chunk *c);

/* ---- disks ----------------------------------------------------------------- */

struct rs_vs_piece;

struct rs_vs_disk {
    const struct rs_vmserve_disk *spec;
    struct reseal_luks luks;
    uint32_t grain; /* bytes: what is read and written whole */
    reseal_key key;
    bool has_key;                     /* `key` was opened and not closed */
    reseal_session *open, *seal;      /* XTS -> plain and back */
    uint32_t keys;                    /* how often the key was opened */
    uint64_t no_key_ns;               /* when that failed last; 0: it did not */
    struct rs_vs_piece *first, *last; /* pieces that lock a range, in the order they came */
    unsigned writers;                 /* of these, those that write */
    unsigned waiting;                 /* of these, those that wait for others */
    struct rs_nbd_export *export;
    /*
     * A thin qcow2 image: what it does not store is zeros, not noise; so the first write to a cluster fills
     * all of it. A bit for each cluster that is stored; NULL: the disk is none.
     */
    uint64_t *stored;
    uint32_t cluster; /* bytes, at least a grain */
    unsigned trims;   /* waiting or under way: until then writes take whole clusters */
    struct rs_vs_op in, out;
    struct rs_vs_op header;
    bool in_armed, out_armed, header_armed, gone;
};

/* ---- requests and pieces --------------------------------------------------- */

enum rs_vs_state {
    RS_VS_FREE,
    RS_VS_RECEIVING, /* its payload comes */
    RS_VS_WAITING,   /* for pieces that it overlaps */
    RS_VS_READING,
    RS_VS_OPENING, /* XTS -> plain */
    RS_VS_SEALING, /* plain -> XTS */
    RS_VS_WRITING,
    RS_VS_READY, /* plain text that a client waits for */
    RS_VS_SENDING,
};

/* A part of a request that lies in one RS_VS_PIECE of the disk. */
struct rs_vs_piece {
    struct rs_vs_op op;
    struct rs_vs_request *request;
    struct rs_vs_piece *next, *prev; /* in the disk's list */
    uint64_t start;                  /* on the disk: whole grains that cover it */
    uint32_t span;                   /* bytes of them */
    uint32_t head;                   /* where its data begins in them */
    uint32_t len;                    /* bytes of data */
    uint32_t done;                   /* bytes read or written so far */
    enum rs_vs_state state;
    uint32_t keys;                         /* the key's number when the job was submitted */
    uint32_t unstored;                     /* bytes that were read and are not stored */
    uint64_t hole[RS_VS_PIECE / 512 / 64]; /* which of them: a bit for each 512 */
    bool locked;                           /* in the disk's list */
    uint8_t *buf;                          /* `span` bytes: ciphertext, or plain text for a client */
    uint8_t *own;                          /* what a large payload is received into */
    const uint8_t *in;                     /* the payload */
    struct rs_vs_chunk *chunk;             /* that it lies in, or NULL */
    uint8_t header[RS_NBD_HEADER_MAX];
};

struct rs_vs_request {
    struct rs_vs_op op; /* flush, hole */
    struct rs_vs_client *client;
    struct rs_vs_disk *disk;
    struct rs_nbd_request nbd;
    uint32_t error;   /* of the protocol */
    uint32_t pieces;  /* in all */
    uint32_t begun;   /* pieces given out, in order */
    uint32_t ended;   /* pieces that need nothing more */
    uint32_t ready;   /* read: pieces that were ready */
    uint32_t emitted; /* read: pieces handed to a send */
    uint32_t busy;    /* pieces under way */
    bool queued;      /* in the client's list of replies */
    bool by_client;   /* write: its pieces begin when the client has sent them */
    struct rs_vs_request *next;
    uint8_t header[RS_NBD_HEADER_MAX];
    struct rs_vs_piece piece[RS_VS_WINDOW];
};

/* The bytes of a piece of a request, by number. */
void rs_vs_piece_place(struct rs_vs_request *r, uint32_t number, struct rs_vs_piece *p);

/*
 * Starts a request that has passed its checks. False: no room now, nothing was
 * started. `payload` is a write's, in `chunk`; NULL: it will be received into
 * pieces, by the two calls below.
 */
RS_MUST_CHECK bool rs_vs_request_start(struct rs_vs_client *c, const struct rs_nbd_request *nbd,
                                       const uint8_t *payload, struct rs_vs_chunk *chunk);
/* Answers with an error, without doing anything. False: no room now. */
RS_MUST_CHECK bool rs_vs_request_refuse(struct rs_vs_client *c, const struct rs_nbd_request *nbd,
                                        uint32_t error);
/* The next piece of a large write to receive into, or NULL: the window is full. */
struct rs_vs_piece *rs_vs_piece_next(struct rs_vs_request *r);
/* Its payload is there. */
void rs_vs_piece_received(struct rs_vs_piece *p);
/* Large write whose client went: the pieces still to be received never come. */
void rs_vs_request_cut(struct rs_vs_request *r);

/* Nobody waits for it any more. */
void rs_vs_request_discard(struct rs_vs_request *r);

void rs_vs_file_ended(struct rs_vmserve *s, struct rs_vs_op *op);
/* Gives what is ready to the service. */
void rs_vs_jobs_submit(struct rs_vmserve *s);
/* Takes what it finished; true when something was. When nothing was, the queue's descriptor tells of what
 * comes. */
bool rs_vs_jobs_take(struct rs_vmserve *s);
/* A job is finished. Looks at memory only. */
bool rs_vs_jobs_ready(const struct rs_vmserve *s);
/* A piece of a read was sent, or will never be. */
void rs_vs_piece_sent(struct rs_vs_piece *p);
/* The reply is out, or will never be. */
void rs_vs_request_free(struct rs_vs_request *r);

/* ---- connections ----------------------------------------------------------- */

struct rs_vs_client {
    struct rs_vs_op receive, send;
    struct rs_vmserve *server;
    int fd; /* -1: free */
    unsigned number;
    struct rs_nbd_client nbd;
    struct rs_vs_chunk *chunk;              /* what is received into */
    uint32_t pos;                           /* of it that was looked at */
    uint64_t skip;                          /* bytes of a refused payload to come */
    struct rs_vs_request *taking;           /* large write whose payload comes */
    struct rs_vs_piece *into[RS_VS_WINDOW]; /* pieces that it goes into */
    uint32_t into_got;                      /* bytes of the first of them */
    unsigned into_count;
    bool receiving, sending;
    bool large;   /* the last write was large: header by header */
    bool stalled; /* wants a buffer or a request */
    bool leaving; /* no more requests; goes when all is answered */
    bool dead;    /* nothing can be sent any more */
    unsigned requests;
    struct rs_vs_request *first, *last; /* replies to send */
    uint8_t *answer;                    /* of the negotiation */
    uint32_t answer_len;
    struct msghdr in_msg, out_msg;
    struct iovec in_iov[RS_VS_WINDOW + 1];
    struct iovec out_iov[RS_VS_IOVS];
    unsigned out_first, out_count;
    /* What each part of the send ends: a request's reply, a piece of a read, or nothing. */
    struct rs_vs_request *out_request[RS_VS_IOVS];
    struct rs_vs_piece *out_piece[RS_VS_IOVS];
};

void rs_vs_client_accept(struct rs_vmserve *s, int fd);
void rs_vs_client_received(struct rs_vs_client *c);
void rs_vs_client_sent(struct rs_vs_client *c);
/* Looks at what there is to send, to receive, to start; closes it when it is over. */
void rs_vs_client_go(struct rs_vs_client *c);
/* Puts a request into the list of replies. */
void rs_vs_client_reply(struct rs_vs_client *c, struct rs_vs_request *r);
/* No more requests are taken. */
void rs_vs_client_leave(struct rs_vs_client *c);
/* Drops it, with a line for the log when `why` is not NULL. */
void rs_vs_client_drop(struct rs_vs_client *c, const char *why);

/* ---- serve-key.c ----------------------------------------------------------- */

RS_MUST_CHECK int rs_vs_key_open(struct rs_vmserve *s, unsigned disk);
/* After a job said that its key or session is gone: true when there is a new one. */
RS_MUST_CHECK bool rs_vs_key_again(struct rs_vmserve *s, struct rs_vs_disk *d);
void rs_vs_key_close(struct rs_vs_disk *d);

/* ---- serve-size.c ---------------------------------------------------------- */

/* The size that clients see at first. RESEAL_EFORMAT: the image is truncated. */
RS_MUST_CHECK int rs_vs_size_at_start(struct rs_vs_disk *d);
/* Images that became larger or smaller; with `headers` what says how much of them is data, too. */
void rs_vs_sizes_look(struct rs_vmserve *s, bool headers);
/* The same once in a while. */
void rs_vs_sizes_tick(struct rs_vmserve *s);

/* ---- the server ------------------------------------------------------------ */

struct rs_vmserve {
    struct rs_vmserve_options o;
    struct rs_vs_disk *disks;
    struct rs_nbd_export *exports;
    struct rs_nbd_server nbd;
    reseal_queue *queue;
    struct rs_vs_buffers buffers;
    struct io_uring ring;
    struct rs_vs_op *ended_first, *ended_last; /* that QEMU carried out */
    unsigned images;                           /* disks that are qcow2 */
    bool ring_open, ring_disabled;
    struct rs_vs_op accept, signal, wake;
    bool accepting, waking;
    bool armed; /* the last poll of the queue found nothing: its descriptor tells of what comes */
    unsigned spins_lost, spins_off; /* looks at the queue in vain, in a row; sleeps without one to come */
    bool stopping;
    uint64_t stop_ns, told_ns, sized_ns;
    uint64_t accept_ns; /* when a connection could not be taken last; 0: each could */
    int failed;         /* RESEAL_E...: what ended it */
    struct rs_vs_client *clients;
    unsigned connected;
    struct rs_vs_request *requests, *free_requests;
    struct rs_vs_piece *jobs[RS_VS_REQUESTS * RS_VS_WINDOW]; /* to be submitted: a ring */
    uint32_t jobs_first, jobs_count;
    unsigned in_jobs; /* submitted */
    bool again;       /* something ended without the kernel telling: look at clients once more */
    bool freed;       /* since stalled clients were looked at */
};

__attribute__((format(printf, 2, 3))) void rs_vs_say(struct rs_vmserve *s, const char *format, ...);

/* An image was written to or read: what the kernel said, for the log, once in a while. */
void rs_vs_file_failed(struct rs_vmserve *s, const struct rs_vs_disk *d, const char *verb, int error);

#endif
