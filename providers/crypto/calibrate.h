/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CRYPTO_CALIBRATE_H
#define RS_CRYPTO_CALIBRATE_H

/*
 * Which engine serves which shape: measured on this machine, by short samples
 * of all engines in turn (so that noise and clock changes hit all of them), the
 * best of several for each. Done when a shape is first asked for; about five
 * milliseconds each. rs_engine_best() is in engine.h.
 */

#include "providers/crypto/engine.h"

struct rs_calibration_row {
    struct rs_shape shape; /* what was measured: len is the size of its bucket */
    const struct rs_engine *engine;
    double gbps; /* 10^9 bytes of payload a second, one core, buffers in cache */
    bool chosen; /* the fastest of its shape */
};

/*
 * Copies up to `max` rows, shape by shape in the order asked for, and returns
 * how many there are in all (NULL and 0 to ask for that). Thread-safe.
 */
size_t rs_calibration(struct rs_calibration_row *rows, size_t max);

/* The shape that stands for `shape` in the table: its length put into a bucket (4 KiB, 16 KiB, 64 KiB, 256
 * KiB). */
struct rs_shape rs_calibration_bucket(const struct rs_shape *shape);

#endif
