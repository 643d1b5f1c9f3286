/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RESEAL_H
#define RESEAL_H

/*
 * Reseal: decrypt with one key and re-encrypt with another, in a service,
 * through shared memory; the caller sees neither key nor, where it can be
 * avoided, plaintext.
 *
 * Contents
 *   1. Errors
 *   2. Connection
 *   3. Keys
 *   4. Sessions: what a job means
 *   5. Queues and buffers
 *   6. Jobs and completions
 *   7. The simple call
 *   8. Status
 *   9. Requests by name
 *
 * Every function that can fail returns 0 (or a count) or a negative
 * RESEAL_E... code; reseal_strerror() turns it into one line that says what is
 * wrong and what to do. Nothing prints.
 *
 * Threads: a connection, its keys and its sessions may be used from any
 * thread. A queue and its buffers belong to one thread at a time: open one
 * queue per thread.
 *
 * Fork: a child must not use a handle opened by its parent; calls on one
 * return RESEAL_EFORK. Arenas are not inherited. Open anew in the child.
 *
 * Restart: when the service dies, the library reconnects, opens its sessions
 * again and submits again what was not completed. Out-of-place jobs run again,
 * under a new IV where the destination is GCM; an interrupted in-place job
 * completes with RESEAL_ELOST. A take-over (upgrade) is not visible at all.
 *
 * Lengths and offsets are in bytes. Structures that grow begin with `size`:
 * set it to sizeof(the structure) and zero the rest.
 */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RESEAL_API __attribute__((visibility("default")))

/* ==== 1. Errors =========================================================== */

enum reseal_error {
    RESEAL_EINVAL = -1,      /* an argument is out of its documented range */
    RESEAL_ENOMEM = -2,      /* memory, or the locked-memory limit */
    RESEAL_EAGAIN = -3,      /* the ring is full */
    RESEAL_ETIMEDOUT = -4,
    RESEAL_ENOSERVICE = -5,  /* no service, or it went away and did not come back */
    RESEAL_EPROTO = -6,      /* the other side broke the protocol */
    RESEAL_EVERSION = -7,    /* no common protocol version */
    RESEAL_EPERM = -8,       /* the policy does not grant it */
    RESEAL_EPAIR = -9,       /* the policy does not list the pair of keys */
    RESEAL_ENOKEY = -10,     /* no such key */
    RESEAL_EKEYGONE = -11,   /* it was there, and must be supplied again */
    RESEAL_EKEYBAD = -12,    /* it does not fit the side */
    RESEAL_EKEYUSED = -13,   /* usage limit reached */
    RESEAL_EPASS = -14,      /* wrong pass phrase */
    RESEAL_EFORMAT = -15,    /* not a LUKS header, or damaged */
    RESEAL_ECIPHER = -16,    /* a cipher we do not do */
    RESEAL_EAUTH = -17,      /* authentication failed; the destination is unchanged */
    RESEAL_ELOST = -18,      /* an in-place job was interrupted */
    RESEAL_ECANCELED = -19,  /* cancelled before it started */
    RESEAL_EREVOKED = -20,   /* its key was revoked before it started */
    RESEAL_ERANGE = -21,     /* outside its region */
    RESEAL_EOVERLAP = -22,   /* partial overlap */
    RESEAL_EUNIT = -23,      /* not whole data units */
    RESEAL_ESPACE = -24,     /* destination too small */
    RESEAL_EFAULT = -25,     /* the client's memory faulted */
    RESEAL_ELIMIT = -26,     /* a limit of the client, or of its tenant */
    RESEAL_ESELFTEST = -27,  /* a kernel failed its self-test */
    RESEAL_EIO = -28,        /* input/output error; errno has more */
    RESEAL_EDATA = -29,      /* malformed compressed data */
    RESEAL_EFORK = -30,      /* handle of another process */
    RESEAL_ENOSUPPORT = -31, /* not supported here */
    RESEAL_EBUSY = -32,      /* in use */
    RESEAL_ESUSPENDED = -33, /* the tenant is suspended */
    RESEAL_EAUDIT = -34,     /* the audit cannot be written, so no key is used */
};

/* One line for a code; static storage; never NULL. */
RESEAL_API const char *reseal_strerror(int code);

/* ==== 2. Connection ======================================================= */

typedef struct reseal reseal;

struct reseal_options {
    uint32_t size;           /* sizeof(struct reseal_options) */
    uint32_t reconnect_ms;   /* how long to wait for a service that went away; 0: 10,000 */
    const char *runtime_dir; /* NULL: $RESEAL_RUNTIME_DIR, /run/reseal, $XDG_RUNTIME_DIR/reseal, the first that is there */
    const char *tenant;      /* NULL: the one the policy gives this user */
};

/* Connects. `options` may be NULL. RESEAL_ENOSERVICE, RESEAL_EVERSION, RESEAL_EPERM. */
RESEAL_API int reseal_open(reseal **out, const struct reseal_options *options);

/* Closes queues, sessions and keys too. Outstanding jobs are drained by the service. NULL is allowed. */
RESEAL_API void reseal_close(reseal *r);

/* ==== 3. Keys ============================================================= */

/* A key in the service, by handle. No call gives the key back. Handles are not secrets and are worth nothing to others. */
typedef struct reseal_key {
    uint64_t id[2];
} reseal_key;

enum reseal_cipher { RESEAL_PLAIN = 0, RESEAL_XTS = 1, RESEAL_GCM = 2 };

/* Uses a key may be bound to. */
enum reseal_use {
    RESEAL_USE_SOURCE = 1,      /* decrypts */
    RESEAL_USE_DESTINATION = 2, /* encrypts */
};

/*
 * What a key is bound to for its life: one algorithm, use, data unit and
 * tweak rule. A session that asks for anything else gets RESEAL_EKEYBAD.
 */
struct reseal_key_use {
    uint32_t size;      /* sizeof(struct reseal_key_use) */
    uint32_t cipher;    /* enum reseal_cipher: RESEAL_XTS or RESEAL_GCM */
    uint32_t use;       /* enum reseal_use, or both */
    uint32_t unit;      /* XTS: data unit, 512 to 65536, a power of two */
    uint64_t step;      /* XTS: tweak step per data unit (LUKS: unit / 512) */
    const char *name;   /* the reference by which the policy knows it: "luks:UUID" when NULL and LUKS, else "raw:NAME" */
};

/*
 * A key from a descriptor: XTS 32 or 64 bytes (data key, then tweak key), GCM
 * 16 or 32. The service reads exactly that and the end of file. A session into
 * such a destination counts as plain: the caller knows the key.
 * RESEAL_EKEYBAD when the length is another or the XTS halves are equal.
 */
RESEAL_API int reseal_key_raw(reseal *r, int fd, const struct reseal_key_use *use, reseal_key *out);

/* A key that the service makes and nobody ever sees. `bits` is 128 or 256. Lost when the service ends. */
RESEAL_API int reseal_key_random(reseal *r, unsigned bits, const struct reseal_key_use *use, reseal_key *out);

/* What a LUKS header says. */
struct reseal_luks {
    uint32_t size;          /* sizeof(struct reseal_luks) */
    uint32_t version;       /* 1 or 2 */
    uint32_t unit;          /* bytes in a data unit (sector) */
    uint32_t key_bits;      /* AES key bits: 128 or 256 */
    uint64_t step;          /* tweak step per data unit */
    uint64_t first_tweak;   /* of the first data unit */
    uint64_t data_offset;   /* bytes from the start of the device */
    uint64_t data_size;     /* bytes; 0: to the end of the device */
    uint64_t header_size;   /* bytes before data_offset that the header needs */
    int32_t keyslot;        /* the one that opened */
    char uuid[40];
    char cipher[64];        /* "aes-xts-plain64" */
};

/*
 * The volume key of a LUKS1 or LUKS2 header. `header_fd` is the image or a
 * copy of its header (read, never written); `passphrase_fd` is read to its end
 * by the service, at most 8 MiB, as cryptsetup reads a key file. `out` and
 * `luks` may be NULL when only the other is wanted; without `out` no pass
 * phrase is needed (passphrase_fd -1). RESEAL_EPASS, RESEAL_EFORMAT, RESEAL_ECIPHER (luks->cipher then names it).
 */
RESEAL_API int reseal_key_luks(reseal *r, int header_fd, int passphrase_fd, uint32_t use, reseal_key *out,
                               struct reseal_luks *luks);

struct reseal_luks_format {
    uint32_t size;          /* sizeof(struct reseal_luks_format) */
    uint32_t version;       /* 1 or 2; 0: 2 */
    uint32_t unit;          /* 512, 1024, 2048, 4096; 0: 4096 for LUKS2, 512 for LUKS1 */
    uint32_t key_bits;      /* 128 or 256; 0: 256 */
    uint64_t data_offset;   /* bytes; 0: libcryptsetup's default. The header is made to fit it. */
    uint64_t data_size;     /* bytes of data the device will hold */
    uint32_t pbkdf_ms;      /* time to spend in the pass phrase derivation; 0: libcryptsetup's default */
    uint32_t pbkdf;         /* 0: default (argon2id for LUKS2), 1: pbkdf2, 2: argon2id */
    const char *label;      /* LUKS2; NULL: none */
};

/*
 * Makes a LUKS header with a new volume key. The key stays in the service; the
 * header comes back as a memfd in `header_fd` (the caller closes it), to be
 * written to the start of the device.
 */
RESEAL_API int reseal_luks_format(reseal *r, const struct reseal_luks_format *format, int passphrase_fd, uint32_t use,
                                  reseal_key *out, struct reseal_luks *luks, int *header_fd);

/* Forgets a key. Sessions that use it end: their waiting jobs complete with RESEAL_EREVOKED. */
RESEAL_API int reseal_key_close(reseal *r, reseal_key key);

/* ==== 4. Sessions: what a job means ======================================= */

struct reseal_side {
    uint32_t cipher;        /* enum reseal_cipher */
    uint32_t unit;          /* XTS and plain: data unit, 512 to 65536, a power of two */
    uint64_t step;          /* XTS: tweak step per data unit, 1 or more */
    reseal_key key;         /* not for plain */
};

enum reseal_stage {
    RESEAL_STAGE_ZERO = 1,       /* zero map: one bit per destination data unit */
    RESEAL_STAGE_DIGEST = 2,     /* HMAC-SHA-256 of the plaintext under a key of the tenant */
    RESEAL_STAGE_LZ4 = 4,        /* compress after the source side */
    RESEAL_STAGE_ZSTD = 8,
    RESEAL_STAGE_DECOMPRESS = 16, /* with LZ4 or ZSTD: the other way */
};

#define RESEAL_NO_COUNTER 0xffffffffu

struct reseal_transform {
    uint32_t size;          /* sizeof(struct reseal_transform) */
    uint32_t stages;        /* enum reseal_stage, or-ed; 0: none */
    uint32_t level;         /* compression level; 0: the library's default */
    uint32_t counter_at;    /* GCM destination: where in the AAD the service writes the record's 64-bit big-endian
                               counter; RESEAL_NO_COUNTER: nowhere */
    struct reseal_side source;
    struct reseal_side destination;
};

typedef struct reseal_session reseal_session;

/*
 * RESEAL_EPAIR, RESEAL_EPERM (a stage, or a plain destination, is not
 * granted), RESEAL_ENOKEY, RESEAL_EKEYBAD, RESEAL_EKEYGONE, RESEAL_ELIMIT.
 */
RESEAL_API int reseal_session_open(reseal *r, const struct reseal_transform *transform, reseal_session **out);

/* Waiting jobs complete with RESEAL_ECANCELED. */
RESEAL_API void reseal_session_close(reseal_session *s);

/* ==== 5. Queues and buffers =============================================== */

typedef struct reseal_queue reseal_queue;

struct reseal_queue_options {
    uint32_t size;          /* sizeof(struct reseal_queue_options) */
    uint32_t depth;         /* jobs outstanding, a power of two, 1 to 4096; 0: 64 */
    uint64_t arena;         /* bytes of buffers, up to 1 GiB; 0: 16 MiB */
};

RESEAL_API int reseal_queue_open(reseal *r, const struct reseal_queue_options *options, reseal_queue **out);

/* Waits for outstanding jobs (they complete unread), then unmaps the arena. */
RESEAL_API void reseal_queue_close(reseal_queue *q);

/* The arena: memory that the service sees too. Page aligned; the library takes nothing of it. */
RESEAL_API void *reseal_queue_arena(reseal_queue *q, size_t *len);

/*
 * Adds memory of the caller's own: a memfd of at most 4 GiB with F_SEAL_SHRINK, F_SEAL_GROW
 * and F_SEAL_SEAL set. The library maps it; *base is the address. At most 14.
 */
RESEAL_API int reseal_queue_register(reseal_queue *q, int memfd, void **base);

/* Becomes readable when a completion waits and reseal_poll() last found none. For poll(2); do not read it. */
RESEAL_API int reseal_queue_fd(reseal_queue *q);

/* ==== 6. Jobs and completions ============================================= */

/*
 * Per-record input and output of a GCM side. NULL in a job whose sides need
 * none; required where a side is GCM.
 */
struct reseal_record {
    uint8_t iv[12];         /* source: given. destination: chosen by the service and written here */
    uint8_t tag[16];        /* source: expected. destination: result */
    uint8_t salt[16];       /* destination: the session subkey's salt, result. source: given when derive is 1 */
    uint32_t derive;        /* source: 1: the key is HKDF(key, salt), as a destination session made it; 0: the key itself */
    uint32_t aad_len;       /* 0 to 128 */
    uint8_t aad[128];       /* destination: with the counter written in when the session says so */
    uint64_t counter;       /* destination: result */
};

struct reseal_job {
    reseal_session *session;
    const void *in;         /* in the arena or a registered memory */
    void *out;              /* the same as `in`, or disjoint */
    uint32_t len;           /* bytes of input: whole data units, at most 4 MiB; a record: at most 1 MiB */
    uint32_t out_cap;       /* bytes that `out` can take; 0: len */
    uint64_t src_tweak;     /* XTS: tweak of the first data unit */
    uint64_t dst_tweak;
    uint32_t raw_len;       /* DECOMPRESS: bytes the plaintext must have; else 0 */
    uint32_t flags;         /* 0 */
    uint64_t user_data;     /* comes back */
    struct reseal_record *source;      /* GCM source; read at submit */
    struct reseal_record *destination; /* GCM destination; aad read at submit, results written at poll: keep it until then */
    uint8_t *zero_map;      /* STAGE_ZERO: written at poll, (units + 7) / 8 bytes, bit i of byte i/8; 1: the unit is zero */
    uint8_t *digest;        /* STAGE_DIGEST: 32 bytes, written at poll */
};

struct reseal_completion {
    uint64_t user_data;
    int32_t status;         /* 0 or RESEAL_E... of the job; nothing was written unless it says so */
    uint32_t out_len;       /* bytes written to `out` */
};

/*
 * Submits up to n jobs, in order. Returns how many were accepted (fewer when
 * the ring is full), RESEAL_EAGAIN when none, or an error of the first job.
 * What was accepted completes exactly once, in any order.
 */
RESEAL_API int reseal_submit(reseal_queue *q, const struct reseal_job *jobs, unsigned n);

/* Takes up to max completions without waiting. Returns how many, or RESEAL_ENOSERVICE. */
RESEAL_API int reseal_poll(reseal_queue *q, struct reseal_completion *completions, unsigned max);

/* As reseal_poll(), but waits for at least one; timeout_ms < 0: for ever. RESEAL_ETIMEDOUT. */
RESEAL_API int reseal_wait(reseal_queue *q, struct reseal_completion *completions, unsigned max, int timeout_ms);

/* Asks that waiting jobs with this user_data complete with RESEAL_ECANCELED; one that started completes as usual. */
RESEAL_API int reseal_cancel(reseal_queue *q, uint64_t user_data);

/* ==== 7. The simple call ================================================== */

/*
 * One job from any memory to any memory, waiting for it; copies through an
 * arena of its own (a queue per thread, opened at first use). Returns bytes
 * written or an error. At most 4 MiB.
 */
RESEAL_API int64_t reseal_run(reseal_session *s, const struct reseal_job *job);

/* ==== 8. Status =========================================================== */

/* The service's state as JSON text (see reseal-status(1)); the caller frees it with free(). */
RESEAL_API int reseal_status(reseal *r, char **json);

/* ==== 9. Requests by name ================================================= */

#define RESEAL_CALL_FDS 3 /* descriptors that a request may carry */

/*
 * Asks the key service by name: providers of keys, keys that wrap keys, encrypted disks and VMs, tenants,
 * events. `request` is JSON text, {"method": "provider.list", "args": {...}}, at most 64 KiB; descriptors
 * (NULL, 0: none) carry what must not be in a text, and stay the caller's. *reply is JSON text that the caller
 * frees with free(): the answer, or, when the service refused, {"error": "one line", ...}; NULL when there
 * was no answer. *reply_fd is a descriptor that the caller closes, -1: none; NULL: it is not wanted.
 *
 * Waits for the answer, for minutes where a key server is slow; other calls about keys on this connection
 * wait too. Not repeated when the service went away: RESEAL_ENOSERVICE, and nobody knows whether it was
 * done. The methods are listed in docs/key-service.md.
 */
RESEAL_API int reseal_call(reseal *r, const char *request, const int *fds, unsigned nfds, char **reply, int *reply_fd);

#ifdef __cplusplus
}
#endif

#endif
