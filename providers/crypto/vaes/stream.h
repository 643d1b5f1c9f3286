/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_STREAM_H
#define RS_VAES_STREAM_H

/*
 * AES one message at a time, in pieces of any size: GCM (NIST SP 800-38D), CTR
 * (SP 800-38A) and one XTS data unit (IEEE 1619, SP 800-38E). For callers that
 * get their data in calls they do not choose; runs of whole records and units
 * are faster through engine.h.
 *
 * Keys are struct rs_vaes_key, 64-byte aligned, made by rs_stream_prepare().
 * A state belongs to one message; copying it duplicates the message.
 *
 * Nothing here allocates, locks or fails: lengths, order of calls and limits
 * are the caller's to check (each call says which). `in` and `out` are equal
 * or do not overlap; each needs `len` readable or writable bytes and no more,
 * at any alignment. Every byte of `in` is read once. After a call no vector
 * register and no stack frame of it holds a round key, key stream, tweak or
 * plaintext.
 *
 * Threads: a key may be shared by any number of threads; a state may not.
 */

#include "providers/crypto/vaes/key.h"

#include <stddef.h>
#include <stdint.h>

/* A GCM message under way; secret. All zero before start(). */
struct rs_gcm_stream {
    uint8_t key_stream[128]; /* of the last blocks of text */
    uint8_t hash[16];        /* GHASH of all bytes so far, times H; bytes reversed */
    uint8_t counter[16];     /* of the next block, bytes reversed */
    uint8_t first[16];       /* J0, bytes reversed, or its cipher text: see tag_ready */
    uint64_t aad_len;        /* bytes so far */
    uint64_t len;            /* bytes of text so far */
    uint32_t begun_at; /* where in key_stream the block that is begun lies; of no account when none is */
    bool tag_ready;    /* `first` is E(K, J0) already */
} RS_ALIGNED(64);

/* A CTR message under way; secret. */
struct rs_ctr_stream {
    uint8_t counter[16];    /* of the next block: 128 bits, big endian, wraps around */
    uint8_t key_stream[64]; /* of the last blocks */
    uint32_t begun_at;      /* where in key_stream the block that is begun lies */
    uint32_t used;          /* bytes of it that are used; 0: no block is begun (as OpenSSL's "num") */
} RS_ALIGNED(64);

/* One set of kernels. */
struct rs_stream {
    const char *name; /* "vaes-avx512", "vaes-avx2", "vaes-aesni" */

    /* Begins a message; any iv_len from 1 byte (12 is the fast one). */
    void (*gcm_start)(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *iv,
                      size_t iv_len);
    /* AAD, in pieces of any size; only before the first byte of text; at most 2^61 bytes in all. */
    void (*gcm_aad)(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *aad, size_t len);
    /* Text, in pieces of any size; at most 2^36 - 32 bytes in all. Decrypting releases what is not verified
     * yet. */
    void (*gcm_encrypt)(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *in,
                        uint8_t *out, size_t len);
    void (*gcm_decrypt)(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *in,
                        uint8_t *out, size_t len);
    /* The tag of all that came; ends the message: `s` may only be started again or wiped. */
    void (*gcm_tag)(const struct rs_vaes_key *key, struct rs_gcm_stream *s, uint8_t tag[16]);

    /* Either direction. */
    void (*ctr)(const struct rs_vaes_key *key, struct rs_ctr_stream *s, const uint8_t *in, uint8_t *out,
                size_t len);

    /* One whole data unit, 16 bytes to 2^20 blocks, stealing where it is no multiple of a block. `tweak` as
     * in the standard: the data unit's number before encryption, 16 bytes little endian. */
    void (*xts_encrypt)(const struct rs_vaes_key *key, const uint8_t tweak[16], const uint8_t *in,
                        uint8_t *out, size_t len);
    void (*xts_decrypt)(const struct rs_vaes_key *key, const uint8_t tweak[16], const uint8_t *in,
                        uint8_t *out, size_t len);
};

extern const struct rs_stream rs_stream_avx512, rs_stream_avx2, rs_stream_aesni;

/* The widest that this machine runs, or NULL; and by name, NULL when unknown or not for this machine. */
const struct rs_stream *rs_stream_best(void);
const struct rs_stream *rs_stream_by_name(const char *name);

enum rs_stream_mode { RS_STREAM_GCM, RS_STREAM_CTR, RS_STREAM_XTS };

/*
 * Makes a key. `bits` is 128, 192 or 256 (XTS: 128 or 256, raw is both halves,
 * 2 * bits; equal halves are the caller's to refuse). Cheap: contexts are
 * re-keyed between messages. What the mode does not need is left as it was.
 */
void rs_stream_prepare(struct rs_vaes_key *key, enum rs_stream_mode mode, const uint8_t *raw, unsigned bits);

#endif
