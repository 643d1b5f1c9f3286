/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TRANSFORM_H
#define RS_TRANSFORM_H

/*
 * What a job means: a source side, optional stages, a destination side, and
 * the loop over data units. Knows no ring, no client, no file format.
 *
 * Contents
 *   1. Configuration
 *   2. A transform: keys, engine, life
 *   3. Jobs
 *
 * Without stages a job is one fused pass of an engine: each byte is loaded
 * once and stored once. With stages it is two: the source side is opened into
 * `scratch`, the stages work there, the destination side is sealed from there
 * straight into `out`; what the passes left in scratch is wiped before
 * rs_transform_run() returns.
 *
 * The subkey of a GCM session or record is made before, by rs_derive_subkey()
 * (providers/crypto/derive.h): a transform per subkey.
 *
 * Threads: a transform and its key memory belong to one thread at a time.
 * Nothing here allocates, locks or logs after rs_transform_init().
 *
 * Faults: `in` and `out` of a job may be memory that faults. The caller that
 * leaves rs_transform_run() by siglongjmp() wipes the whole scratch and may
 * go on using the transform. Statuses are set to RESEAL_EFAULT before a batch
 * starts and to their result after it; a job of that batch other than the one
 * that faulted may be run again when it is out of place, with a new IV where
 * its destination is GCM: the old one may have been used already, over bytes
 * that the writer has changed since.
 */

#include "offload/base/bytes.h"
#include "providers/crypto/engine.h"
#include "reseal/reseal.h"

/* ==== 1. Configuration ==================================================== */

#define RS_JOB_MAX     RS_RUN_MAX    /* bytes, largest job */
#define RS_STAGED_MAX  RS_RECORD_MAX /* bytes of plaintext, largest job that compresses or decompresses */
#define RS_DIGEST_LEN  32u
#define RS_ZERO_UNIT   4096u /* zero map: unit when neither side has one */
#define RS_ZSTD_LEVELS 6u    /* highest zstd level: bounds the private memory, 4 MiB */
#define RS_LZ4_LEVELS  12u   /* highest lz4 level; 2 and more are LZ4HC */

struct rs_transform_side {
    uint8_t cipher; /* enum rs_cipher; the values of enum reseal_cipher */
    uint16_t bits;  /* AES key bits, 128 or 256; plain: 0 */
    uint32_t unit; /* XTS: 512 to 65536, a power of two. Plain: the same, or 0 for any length. GCM: ignored */
    uint64_t step; /* XTS: tweak step per data unit, 1 or more */
};

struct rs_transform_config {
    struct rs_transform_side src, dst;
    uint32_t stages;     /* enum reseal_stage, or-ed */
    uint32_t level;      /* compression level, 0: default (lz4 1, zstd 3) */
    uint32_t counter_at; /* GCM destination: offset of the counter in the AAD, or RESEAL_NO_COUNTER */
    uint32_t
        typical_len; /* bytes of a typical job, which the choice of the engine is measured for; 0: 65536 */
};

/*
 * 0 or why it cannot be: RESEAL_EINVAL (unknown cipher, stage or bits, both
 * compressors, a level or counter out of range), RESEAL_EUNIT (data unit out
 * of range). Every field may be hostile.
 */
RS_MUST_CHECK int rs_transform_check(const struct rs_transform_config *config);

/* Bytes of the raw key that a side takes: XTS bits/4, GCM bits/8, plain 0. */
size_t rs_transform_raw_len(const struct rs_transform_side *side);

/* ==== 2. A transform: keys, engine, life ================================== */

struct rs_transform {
    struct rs_transform_config config;
    const struct rs_engine *open; /* does the source side; the whole job when there are no stages */
    const struct rs_engine *seal; /* does the destination side; the same as `open` when there are no stages */
    void *src_key;                /* in key memory, prepared by `open`; NULL for plain */
    void *dst_key;                /* in key memory, prepared by `seal`; NULL for plain */
    void *digest_key;             /* in key memory; NULL without that stage */
    uint32_t zero_unit;           /* bytes per bit of the zero map */
};

/* Bytes of key memory for a checked configuration, whichever engines are chosen; RS_KEY_ALIGN aligned memory.
 */
size_t rs_transform_key_size(const struct rs_transform_config *config);

/* Bytes of private, locked, 64-aligned scratch for a checked configuration; one scratch serves all transforms
 * of a thread when it has the largest size. Holds plaintext while a job runs, none afterwards. */
size_t rs_transform_scratch_size(const struct rs_transform_config *config);

/*
 * Chooses the engines (calibrates when this shape was not asked for before:
 * a few milliseconds) and expands the keys into `key_memory`. Raw keys are
 * rs_transform_raw_len() bytes, NULL for plain; digest_key is RS_DIGEST_LEN
 * bytes or NULL without that stage. The caller wipes the raw ones.
 * RESEAL_EINVAL, RESEAL_EUNIT as rs_transform_check(); RESEAL_EKEYBAD (equal
 * XTS halves); RESEAL_ESELFTEST (no engine is left for it); RESEAL_ENOMEM.
 */
RS_MUST_CHECK int rs_transform_init(struct rs_transform *t, const struct rs_transform_config *config,
                                    void *key_memory, const uint8_t *src_raw, const uint8_t *dst_raw,
                                    const uint8_t *digest_key);

/* Wipes the key memory and frees what engines hung on it. Twice, or after a failed init, is allowed. */
void rs_transform_wipe(struct rs_transform *t);

/* ==== 3. Jobs ============================================================= */

/*
 * One job. Everything but the bytes behind `in` and `out` is private memory of
 * the caller, which has copied it from wherever it came. `in` and `out` may be
 * shared with a hostile writer: each byte of `in` is loaded once, none of
 * `out` is read back.
 *
 * Lengths
 *   no compression     out_len == len.
 *   compression        at most RS_STAGED_MAX bytes in. The result is used when
 *                      it is strictly shorter than len, else the plaintext is
 *                      stored as it is: out_len < len means compressed,
 *                      out_len == len means stored, never longer.
 *                      GCM and plain destination: out_len is the compressed
 *                      length; the unit of a plain destination binds only
 *                      stored results. XTS destination: a 4-byte little-endian
 *                      compressed length, the compressed bytes, zeros up to
 *                      whole data units; all that is strictly shorter than len.
 *                      RESEAL_ESPACE when it does not fit out_cap.
 *   decompression      raw_len is the plaintext's length, len <= raw_len <=
 *                      RS_STAGED_MAX; out_len == raw_len. len == raw_len means
 *                      stored. Anything that does not decompress to exactly
 *                      raw_len bytes, with nothing left over, is RESEAL_EDATA;
 *                      no more than raw_len bytes are ever produced.
 *
 * Buffers: `in` == `out`, or [in, in+len) and [out, out+bytes that may be
 * written) disjoint; in place is allowed with every stage. "May be written" is
 * raw_len when decompressing, else min(len, out_cap).
 *
 * By-products are of the plaintext that is not compressed, and are written
 * only when the job succeeds; the zero map of a job that failed is all zero.
 * The zero map has a bit per whole unit of `zero_unit` bytes (the destination's
 * data unit; when it has none the source's; when neither has one RS_ZERO_UNIT);
 * a partial unit at the end (GCM, plain without a unit) always reads 0.
 */
struct rs_job {
    const uint8_t *in;
    uint8_t *out;
    uint32_t len; /* bytes at `in`: whole data units of both sides, 1 to RS_JOB_MAX; RS_RECORD_MAX with GCM */
    uint32_t out_cap;   /* bytes that `out` can take */
    uint32_t raw_len;   /* decompression: see above; else 0 */
    uint64_t src_tweak; /* XTS: tweak of the first data unit */
    uint64_t dst_tweak;

    /* GCM source, given. */
    uint8_t src_iv[RS_IV_LEN];
    uint8_t src_tag[RS_TAG_LEN];
    const uint8_t *src_aad;
    uint32_t src_aad_len; /* 0 to RS_AAD_MAX */

    /* GCM destination, given: the caller owns the rule that an IV is used once. */
    uint8_t dst_iv[RS_IV_LEN];
    uint64_t
        dst_counter; /* written big-endian to dst_aad + config.counter_at, when the configuration says so */
    uint8_t *dst_aad;
    uint32_t dst_aad_len; /* 0 to RS_AAD_MAX; counter_at + 8 at least */

    /* Results. */
    uint8_t dst_tag[RS_TAG_LEN];   /* GCM destination */
    uint8_t digest[RS_DIGEST_LEN]; /* RESEAL_STAGE_DIGEST: HMAC-SHA-256 */
    uint8_t *zero_map; /* RESEAL_STAGE_ZERO: given, rs_transform_zero_map_len() bytes, private memory */
    uint32_t out_len;  /* bytes written to `out`; 0 when status is not 0 */
    int status;        /* 0 or RESEAL_E... */
};

/*
 * Checks every length and pointer of a job: RESEAL_EINVAL (a length of 0 or
 * too long, aad, raw_len, a missing zero_map), RESEAL_EUNIT (not whole data
 * units), RESEAL_ERANGE (the tweaks of the run overflow 64 bits),
 * RESEAL_ESPACE (out_cap), RESEAL_EOVERLAP. rs_transform_run() calls it for
 * each job; callers use it to refuse early.
 */
RS_MUST_CHECK int rs_transform_check_job(const struct rs_transform *t, const struct rs_job *job);

/* Bytes of the zero map of a job. */
size_t rs_transform_zero_map_len(const struct rs_transform *t, const struct rs_job *job);

/*
 * Runs n jobs, any n; sets status and results of each; returns how many
 * failed. Jobs of one call are one batch for the engine (records stitch, so
 * give at least two GCM records when there are), in groups of RS_BATCH_MAX.
 * Buffers of different jobs of a call may not overlap unless they are the same
 * client's own mistake: the result is then undefined for those jobs alone.
 * `stream` says that the working set of all jobs in flight exceeds the cache
 * (streaming stores and prefetch): rs_transform_streams() has the rule.
 */
size_t rs_transform_run(const struct rs_transform *t, struct rs_job *jobs, size_t n, void *scratch,
                        bool stream);

/* True when `working_set` bytes (all buffers that the jobs in flight cycle through, in and out) do not stay
 * in this core's private cache. */
bool rs_transform_streams(uint64_t working_set);

#endif
