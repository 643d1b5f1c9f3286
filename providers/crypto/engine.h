/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CRYPTO_ENGINE_H
#define RS_CRYPTO_ENGINE_H

/*
 * Crypto engines: what does the work of a transform.
 *
 * A run turns `len` bytes from `in` to `out`, from a source side to a
 * destination side. A side is plain, XTS (IEEE 1619, NIST SP 800-38E) or GCM
 * (NIST SP 800-38D, 96-bit IV, 16-byte tag). Every engine gets prepared keys;
 * none keeps a key of its own, allocates, locks or logs in a run.
 *
 * Threads: an engine is immutable after rs_engine_probe(); prepared keys may
 * be used by one thread at a time; runs on distinct keys are independent.
 */

#include "offload/base/bytes.h"

enum rs_cipher { RS_PLAIN = 0, RS_XTS = 1, RS_GCM = 2 };

#define RS_IV_LEN     12
#define RS_TAG_LEN    16
#define RS_AAD_MAX    128u       /* bytes of AAD a record may carry */
#define RS_UNIT_MIN   16u        /* bytes, smallest XTS data unit */
#define RS_UNIT_MAX   (1u << 24) /* 2^20 blocks, SP 800-38E */
#define RS_RECORD_MAX (1u << 20) /* bytes, largest GCM record */
#define RS_RUN_MAX    (4u << 20) /* bytes, largest run */
#define RS_KEY_ALIGN  64u
#define RS_BATCH_MAX  32u /* runs in one call */

/*
 * One side of a run. For XTS, unit i of the run has the 128-bit tweak
 * (tweak_hi:tweak_lo + i * step), the addition in 64 bits on tweak_lo alone
 * (plain64). A last unit shorter than `unit` is allowed when it has at least
 * 16 bytes (ciphertext stealing). For GCM the whole run is one record.
 */
struct rs_side {
    const void *key;    /* prepared by the engine that runs, NULL for plain */
    const uint8_t *aad; /* GCM; NULL when aad_len is 0 */
    uint64_t tweak_lo;  /* XTS: first data unit's tweak, low half */
    uint64_t tweak_hi;
    uint64_t step; /* XTS: added to tweak_lo for each data unit */
    uint32_t
        unit; /* XTS: bytes in a data unit, a multiple of 16, or any length >= 16 when the run is one unit */
    uint32_t aad_len;        /* GCM: at most RS_AAD_MAX (an engine of its own accord takes any) */
    uint8_t cipher;          /* enum rs_cipher */
    uint8_t iv[RS_IV_LEN];   /* GCM */
    uint8_t tag[RS_TAG_LEN]; /* GCM: expected (source), result (destination) */
};

/*
 * A run. `in` and `out` are identical or disjoint. With a GCM source nothing
 * reaches `out` before the tag verified: the result waits in `scratch`
 * (private memory, rs_engine_scratch_size() bytes, shared by the batch), and
 * an engine wipes what a failed run left there, and leaves no plaintext and no
 * counter table there when it returns. Shared memory has a hostile writer at
 * the other end: each ciphertext byte of a GCM source is loaded once, what is
 * hashed is what was decrypted; the tag of a GCM destination is of the bytes
 * that were made, never of bytes read back from `out`. In a batch the copy of record
 * n-1 may be stitched into record n.
 */
struct rs_run {
    const uint8_t *in;
    uint8_t *out;
    size_t len;         /* 1 to RS_RUN_MAX, RS_RECORD_MAX when a side is GCM */
    struct rs_side src; /* decrypted from */
    struct rs_side dst; /* encrypted to */
    int status;         /* result: 0, RESEAL_EAUTH, RESEAL_EUNIT, RESEAL_EFAULT... */
};

/* What an engine needs to decide whether, and how fast, it does a run. */
struct rs_shape {
    uint8_t src, dst;            /* enum rs_cipher */
    uint16_t src_bits, dst_bits; /* AES key bits of each side: 128 or 256; 0 for plain */
    uint32_t src_unit, dst_unit; /* bytes, XTS sides */
    uint32_t len;                /* bytes in a typical run */
};

/* Flags of rs_engine.run */
#define RS_RUN_UNVERIFIED 1u /* GCM source: write to `out` at once; for `bench --kernel-only` alone */
#define RS_RUN_STREAM     2u /* buffers exceed the cache: stream the stores, prefetch the loads */

struct rs_engine {
    const char *name;    /* "vaes", "ipsec_mb", "openssl" */
    const char *variant; /* "avx512", "avx2", "aesni", library version, ...; set by probe */

    /* 0 when it works on this CPU (CPUID and XCR0), or RESEAL_ENOSUPPORT. Called once. */
    int (*probe)(void);

    bool (*supports)(const struct rs_shape *shape);

    /* Bytes of prepared key for one side; constant for a (cipher, bits). */
    size_t (*key_size)(enum rs_cipher cipher, unsigned bits);

    /*
     * Expands `raw` (XTS: both halves, 2*bits/8 bytes, data key first; GCM:
     * bits/8) into `key`, which is RS_KEY_ALIGN aligned key memory. A prepared
     * key serves both directions. Returns 0, RESEAL_EKEYBAD (equal XTS halves,
     * wrong length), RESEAL_ENOMEM.
     */
    int (*prepare)(void *key, enum rs_cipher cipher, unsigned bits, const uint8_t *raw, size_t raw_len);

    /* Does n runs of one shape; sets each status; returns the number of runs whose status is not 0. */
    size_t (*run)(struct rs_run *runs, size_t n, void *scratch, unsigned flags);

    /* Wipes a prepared key and frees what hangs on it. */
    void (*wipe)(void *key, enum rs_cipher cipher, unsigned bits);
};

/* What every engine may refuse before it starts: 0, RESEAL_EINVAL (cipher, length), RESEAL_EUNIT. (staged.c)
 */
RS_MUST_CHECK int rs_run_check(const struct rs_run *run);

/* ---- registry (engines.c) ------------------------------------------------ */

/*
 * Probes every engine and runs the known-answer self-tests (selftest.h).
 * Idempotent, thread-safe; the calls below do it when nobody did. A few
 * milliseconds. RESEAL_SELFTEST_FAIL="ENGINE" or "ENGINE:PAIR" (such as
 * "openssl:xts-gcm"; comma-separated) makes a test fail on purpose.
 */
void rs_engines_init(void);

/* The engines that probed and passed, best first; NULL-terminated. */
const struct rs_engine *const *rs_engines(void);

/* By name; the name of a family ("vaes") gives its best member. NULL: unknown, or not used (rs_engine_fault()
 * says why). */
RS_MUST_CHECK const struct rs_engine *rs_engine_by_name(const char *name);

/* Every engine that was built in, used or not, best first; NULL-terminated. */
const struct rs_engine *const *rs_engines_known(void);

/*
 * Scratch that a batch of runs of at most `len` bytes needs, in private locked
 * memory, 64-aligned: two records (n waits for its tag while n-1 is copied
 * out), each rounded up to 4096, and 16 KiB for counter tables and tweaks.
 * Engines use no more.
 */
size_t rs_engine_scratch_size(size_t len);

/*
 * Calibration (calibrate.h): the fastest engine for a shape, measured on this
 * machine when the shape is first asked for, kept for the life of the process.
 * Takes a lock and some milliseconds: for the opening of a session, not for a
 * job. RESEAL_ENGINE=NAME overrides it (tests). NULL when no engine that is
 * used, or not the one named, supports the shape.
 */
RS_MUST_CHECK const struct rs_engine *rs_engine_best(const struct rs_shape *shape);

/* Why an engine is not used: "" (it is), "cpu", "selftest failed: xts-gcm 256/128", "unknown engine". Static.
 */
const char *rs_engine_fault(const char *name);

#endif
