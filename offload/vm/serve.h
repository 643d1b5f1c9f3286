/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_SERVE_H
#define RS_VM_SERVE_H

/*
 * Encrypted disks as NBD exports on a local socket. Data goes from the image
 * into the arena of a ring, through the service, and from there to the socket,
 * or the other way; no key is ever here, and neither a hypervisor nor this
 * program has one in its memory.
 *
 *   nbd-protocol.c      the protocol, over bytes
 *   serve.c             open, the loop, stop
 *   serve-ring.c        io_uring: all input and output
 *   serve-image.c       qcow2 images: the same by QEMU; what is stored and what is not
 *   serve-buffers.c     buffers in the arena
 *   serve-connection.c  a client: what it sends, what it gets
 *   serve-request.c     a request and its pieces: read, transform, write
 *   serve-size.c        images that become larger or smaller
 *   serve-key.c         keys and sessions, and both again when they went
 *
 * One thread does all of it. Nothing prints; lines for people go to `say`.
 */

#include "offload/base/bytes.h"
#include "offload/vm/qcow2.h"
#include "reseal/reseal.h"

#define RS_VMSERVE_DISKS_MAX 64u

/* A disk to serve. The texts and descriptors are the caller's and outlive the server. */
struct rs_vmserve_disk {
    const char *name;       /* of the export; at most 255 bytes */
    int fd;                 /* of the image, to be read and written at its offsets; it may be O_DIRECT */
    struct rs_qcow2 *image; /* in place of fd; NULL: none */
    int headers;            /* with `image`: a listening socket for options.header; -1: none */
    uint32_t align;         /* of offsets and lengths, and of memory: O_DIRECT; else 0 */
    bool read_only;
    bool discard;  /* a trim makes holes, which then read as noise; else it is taken and ignored */
    uint64_t size; /* bytes of the image file now */
};

struct rs_vmserve_options {
    reseal *service;
    const struct rs_vmserve_disk *disks;
    unsigned count;
    int listener; /* a listening stream socket */
    /* Called when it can be read: headers for a disk (qcow2-served.h). NULL: no disk has one. */
    void (*header)(void *arg, unsigned disk);
    int signals; /* a signalfd: SIGHUP looks at the sizes at once, all others stop */
    /*
     * Opens the key of a disk, at the start and again when the service lost
     * it. *luks says where the data is. RESEAL_E...
     */
    int (*open_key)(void *arg, unsigned disk, reseal_key *key, struct reseal_luks *luks);
    /*
     * The size of an image file now. With data_size what says how much of it is data (header, descriptor) is
     * looked at again, and that is stored there; 0: all to the end.
     */
    uint64_t (*size_of)(void *arg, unsigned disk, uint64_t *data_size);
    /* A line for the log. */
    void (*say)(void *arg, const char *line);
    void *arg;
};

struct rs_vmserve;

/*
 * Opens keys, sessions and the ring. On failure one line in `why`, *disk is
 * the disk that it is about, or `count`. RESEAL_E...
 */
RS_MUST_CHECK int rs_vmserve_open(struct rs_vmserve **out, const struct rs_vmserve_options *options,
                                  unsigned *disk, char *why, size_t why_len);

/* Bytes of a disk that clients see. */
uint64_t rs_vmserve_size(const struct rs_vmserve *s, unsigned disk);

/* Serves until a signal says to stop: then finishes what was begun and flushes. RESEAL_EIO when a flush
 * failed, RESEAL_ENOSERVICE. */
RS_MUST_CHECK int rs_vmserve_run(struct rs_vmserve *s);

/* NULL is allowed. */
void rs_vmserve_close(struct rs_vmserve *s);

#endif
