/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_QCOW2_H
#define RS_VM_QCOW2_H

/*
 * qcow2 images, by QEMU's own code: a private qemu-nbd has the image open, and
 * we are its only client. So whatever an image holds is parsed by a confined process that
 * has nothing else, its dirty bitmaps stay current, and its format is never guessed.
 * Of the image itself we read the fixed fields of its header, to refuse what is not taken, and the
 * LUKS header at the start of what it holds (qcow2-peek.c), since that is wanted of every disk of
 * a VM again and again, and starting a program takes longer than all of the rest.
 *
 * The socket has no name any more when the child starts: nobody else can connect. The child ends, and
 * closes the image in order, when its connection does.
 *
 * Threads: an image belongs to one.
 */

#include "offload/base/bytes.h"

#define RS_QCOW2_HEADER  104u        /* bytes of the header that are looked at; older images have 72 */
#define RS_QCOW2_CLUSTER (64u << 10) /* bytes: what images that we make are allocated in */
#define RS_QCOW2_IO_MAX  (32u << 20) /* bytes of one transfer */
#define RS_QCOW2_WHY     512u

/* ---- the header --------------------------------------------------------------------- */

struct rs_qcow2_facts {
    uint64_t size;      /* bytes of the virtual disk */
    uint64_t l1_at;     /* bytes of the file before the table that everything begins with */
    uint32_t l1_len;    /* entries of it */
    uint32_t version;   /* 2 or 3 */
    uint32_t cluster;   /* bytes */
    uint32_t snapshots; /* internal ones */
    uint32_t crypt;     /* encryption of the format's own: 0 none, 1 AES, 2 LUKS */
    const char *bar;    /* why it is not converted or served, for people; NULL: it is */
};

bool rs_qcow2_is(const uint8_t *start, size_t len);

/* RESEAL_EFORMAT: a damaged or unknown header. */
RS_MUST_CHECK int rs_qcow2_facts(const uint8_t *start, size_t len, struct rs_qcow2_facts *out);

/* ---- what an image holds, read from the file itself ----------------------------------- */

struct rs_qcow2_peek {
    int fd;
    uint64_t file_size;
    struct rs_qcow2_facts facts;
};

/*
 * The descriptor stays the caller's. -ENOTSUP, of both: QEMU has to say what it is (compressed clusters,
 * entries that lead out of the file, bits that are not known); or -errno. An image that another program
 * writes reads as what that program brought to the file. For starts of images: two entries of tables are
 * read for each cluster.
 */
RS_MUST_CHECK int rs_qcow2_peek_open(struct rs_qcow2_peek *out, int fd, uint64_t file_size);
RS_MUST_CHECK int rs_qcow2_peek(const struct rs_qcow2_peek *peek, void *buf, size_t len, uint64_t off);

/*
 * The header of a LUKS container in the image at `path`, as a file in memory that is as long as the key
 * service wants it: the caller's to close; *fd is -1 when it holds none. QEMU is asked only where need be.
 * RESEAL_E... of rs_qcow2_open() with one line in `why`.
 */
RS_MUST_CHECK int rs_qcow2_luks_header_at(const char *path, int *fd, char *why, size_t why_len);

/* ---- an image ----------------------------------------------------------------------- */

struct rs_qcow2;

enum rs_qcow2_flags {
    RS_QCOW2_WRITE = 1,
    RS_QCOW2_LOOK = 2,    /* although another program writes it: for those who only look; not with WRITE */
    RS_QCOW2_DISCARD = 4, /* a trim gives room back */
    RS_QCOW2_DIRECT = 8,  /* past the page cache */
    RS_QCOW2_WAIT = 16,   /* for a program that has it open and is about to end, for some seconds */
    RS_QCOW2_DROP = 32,   /* when we die the child does, at once; else it closes the image in order first */
};

/*
 * Opens an image whose header is not barred. One line in `why`: RESEAL_EBUSY: another program has it;
 * RESEAL_EFORMAT: barred, or QEMU refuses it; RESEAL_ENOSUPPORT: no qemu-nbd; RESEAL_ETIMEDOUT;
 * RESEAL_EIO; RESEAL_ENOMEM.
 */
RS_MUST_CHECK int rs_qcow2_open(struct rs_qcow2 **out, const char *path, unsigned flags, char *why,
                                size_t why_len);

/*
 * The same in two halves, so that several images are opened at once: the first
 * starts the child, the second waits until it can be used, and sets *q to NULL when
 * it fails. Between the two nothing but rs_qcow2_close() is called on it.
 */
RS_MUST_CHECK int rs_qcow2_open_begin(struct rs_qcow2 **out, const char *path, unsigned flags, char *why,
                                      size_t why_len);
RS_MUST_CHECK int rs_qcow2_open_end(struct rs_qcow2 **q, char *why, size_t why_len);

/* Has the image closed, and does not wait for that; only rs_qcow2_close() follows. */
void rs_qcow2_close_begin(struct rs_qcow2 *q);

/* Closes the image in order and waits for that. 0 or -errno: what was flushed is there in any case. NULL is
 * allowed. */
int rs_qcow2_close(struct rs_qcow2 *q);

uint64_t rs_qcow2_size(const struct rs_qcow2 *q);
uint32_t rs_qcow2_cluster(const struct rs_qcow2 *q);

/* Whole transfers; 0 or -errno (-ETIMEDOUT: QEMU is stuck; then nothing but rs_qcow2_close() follows). */
RS_MUST_CHECK int rs_qcow2_pread(struct rs_qcow2 *q, void *buf, size_t len, uint64_t off);
RS_MUST_CHECK int rs_qcow2_pwrite(struct rs_qcow2 *q, const void *buf, size_t len, uint64_t off);
RS_MUST_CHECK int rs_qcow2_flush(struct rs_qcow2 *q);

/*
 * The first run of data at or after `pos`: 1 with *start and *end, 0 when only
 * what reads as zeros without being stored is left, -errno. A run may be told in parts.
 */
RS_MUST_CHECK int rs_qcow2_data(struct rs_qcow2 *q, uint64_t pos, uint64_t *start, uint64_t *end);

/* As rs_qcow2_luks_header_at(), of an image that is open. -errno; -EINVAL: it holds none. */
RS_MUST_CHECK int rs_qcow2_luks_header(struct rs_qcow2 *q);

/* ---- transfers that overlap --------------------------------------------------------- */

enum rs_qcow2_what { RS_QCOW2_READ, RS_QCOW2_PUT, RS_QCOW2_TRIM, RS_QCOW2_FLUSH };

/* The caller's, untouched by it until it ended. */
struct rs_qcow2_op {
    /* Called once, from any call on the image. 0 or -errno. */
    void (*ended)(struct rs_qcow2_op *op, int result);
    /* Of a read: this part is not stored and reads as zeros. NULL: not asked. */
    void (*hole)(struct rs_qcow2_op *op, uint64_t off, uint64_t len);
};

/* At most RS_QCOW2_IO_MAX bytes of a transfer, UINT32_MAX of a trim. 0, or -errno: then it does not end. */
RS_MUST_CHECK int rs_qcow2_start(struct rs_qcow2 *q, struct rs_qcow2_op *op, enum rs_qcow2_what what,
                                 void *buf, uint32_t len, uint64_t off);

/* To be polled for these events (POLLIN, POLLOUT), which change with each call; what came is handed on. */
int rs_qcow2_fd(struct rs_qcow2 *q);
short rs_qcow2_events(struct rs_qcow2 *q);
/* False: QEMU is gone; all transfers have ended. */
bool rs_qcow2_turn(struct rs_qcow2 *q);

/* Ends all transfers, when need be by ending QEMU. */
void rs_qcow2_drain(struct rs_qcow2 *q);

/* ---- whole files -------------------------------------------------------------------- */

/* A new image, empty and durable, under its name when it is whole. RESEAL_EIO, RESEAL_ENOSUPPORT,
 * RESEAL_ESPACE, with a line. */
RS_MUST_CHECK int rs_qcow2_create(const char *path, uint64_t size, char *why, size_t why_len);

/* Gives back what a killed writer had taken and not used. Nothing is lost when it fails. */
void rs_qcow2_mend(const char *path);

#endif
