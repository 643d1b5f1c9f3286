/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_QCOW2_SERVED_H
#define RS_VM_QCOW2_SERVED_H

/*
 * Only one program can write a qcow2 image. While one is served, who gives its
 * container a new header (reseal vm recrypt --shallow) asks the server to
 * write it, at the socket IMAGE.reseal-served: 8 bytes of length, little-endian, and a
 * descriptor of a file with that many bytes; the answer is 4 bytes, 0 or an errno. A length of 0 asks whether
 * anybody is there. Only the owner of the server, and root, are heard.
 */

#include "offload/vm/disk.h"
#include "offload/vm/qcow2.h"

/* ---- the server --------------------------------------------------------------------- */

/* A listening socket for an image that this process has open to write; -errno. */
RS_MUST_CHECK int rs_qcow2_served_listen(const char *image);

/* Its name goes. */
void rs_qcow2_served_end(const char *image, int listener);

/*
 * Takes one request from the listener, if there is one; waits for at most a second for a peer that is slow. A
 * header is written only when it is one of the container in `disk`: its UUID, data unit and offset. Returns
 * true when one was.
 */
bool rs_qcow2_served_take(int listener, struct rs_qcow2 *q, const struct rs_disk *disk);

/* ---- who asks ----------------------------------------------------------------------- */

/* True when the image has a server. */
bool rs_qcow2_served_is(const char *image);

/*
 * Writes a new header at the start of what an image holds, durably, its first block last: by its server,
 * else by ourselves. In parts, so that the images of a VM are opened at once, and closed at once:
 *
 *   begin   for each image; *out is to be ended whatever comes
 *   ready   waits until it can be written: what is against it is known before anything changes
 *   put     0 or -errno; -EBUSY: another program has it
 *   over    has it closed; nothing but end follows
 *   end     waits for that: 0 or -errno; what was put is there in any case
 *
 * begin and ready: RESEAL_E... of rs_qcow2_open() with one line in `why`. NULL is allowed for over and end.
 */
struct rs_qcow2_put;
RS_MUST_CHECK int rs_qcow2_put_begin(struct rs_qcow2_put **out, const char *image, char *why, size_t why_len);
RS_MUST_CHECK int rs_qcow2_put_ready(struct rs_qcow2_put *put, char *why, size_t why_len);
RS_MUST_CHECK int rs_qcow2_put(struct rs_qcow2_put *put, const void *bytes, size_t len);
void rs_qcow2_put_over(struct rs_qcow2_put *put);
int rs_qcow2_put_end(struct rs_qcow2_put *put);

#endif
