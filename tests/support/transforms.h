/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_TRANSFORMS_H
#define RS_TESTS_TRANSFORMS_H

/* A transform with keys and a scratch of exactly the documented size, between guard pages; and its two sides
 * done by OpenSSL. */

#include "offload/transform/transform.h"
#include "tests/support/guarded.h"

struct fixture {
    struct rs_transform t;
    struct guarded key_map, scratch_map;
    uint8_t *scratch;
    size_t scratch_len;
    uint8_t raw[2][64]; /* source, destination */
    uint8_t digest_key[RS_DIGEST_LEN];
};

/* A side by its cipher ("plain" any length): AES-256, unit and a step of unit / 512. */
struct rs_transform_side fixture_side(unsigned cipher, uint32_t unit);

/* rs_transform_init() with keys of the fixture's own. Ends the program when it fails. */
void fixture_open(struct fixture *f, const struct rs_transform_config *config);
void fixture_close(struct fixture *f);

/* Encrypts plaintext as the source (0) or destination (1) side of a job would have it: IV, AAD and tweak of
 * the job. `tag` for GCM. */
void fixture_seal(const struct fixture *f, int which, const struct rs_job *job, const uint8_t *in,
                  uint8_t *out, size_t len, uint8_t tag[RS_TAG_LEN]);

/* Decrypts what a job wrote (side 1) or would read (side 0); false when `tag` is not right. */
bool fixture_open_side(const struct fixture *f, int which, const struct rs_job *job, const uint8_t *in,
                       uint8_t *out, size_t len, const uint8_t tag[RS_TAG_LEN]);

/* True when the 16 bytes lie anywhere in the scratch. */
bool fixture_scratch_holds(const struct fixture *f, const uint8_t needle[16]);

#endif
