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
 * Errors: every function that can fail returns 0 (or a count, or a
 * descriptor) or a negative RESEAL_E... code; reseal_strerror() turns it into
 * one line that says what is wrong and what to do. Nothing prints. Beside the
 * codes named at a function, each may return RESEAL_EINVAL (a NULL or a value
 * out of its documented range), RESEAL_ENOMEM, RESEAL_EFORK (see below),
 * RESEAL_ENOSERVICE (the service is gone and did not come back) and
 * RESEAL_EPROTO (it does not follow the protocol).
 *
 * Threads: a connection, its keys and its sessions may be used from any
 * thread, several at a time. A queue and its buffers belong to one thread at
 * a time: open one queue per thread. Nobody may use a handle while another
 * thread closes it.
 *
 * Ownership: what a function gives out as a handle is closed by the caller or
 * by reseal_close(). Text is freed by the caller with free(). Descriptors that
 * are passed in stay the caller's; descriptors that come out are the caller's
 * to close, with the exception of reseal_queue_fd(). All are close-on-exec.
 *
 * Fork: a child must not use a handle opened by its parent; calls on one
 * return RESEAL_EFORK. Arenas and registered memory are not mapped in the
 * child. A child that lives on calls reseal_close() once, which there only
 * closes the inherited descriptors, and opens a connection of its own.
 *
 * Restart: when the service dies, the library reconnects, opens its sessions
 * again and submits again what was not completed. Out-of-place jobs run again,
 * under a new IV where the destination is GCM; an interrupted in-place job
 * completes with RESEAL_ELOST. A take-over (upgrade) is not visible at all.
 *
 * Lengths and offsets are in bytes, key sizes in bits, times in milliseconds.
 * Structures that grow begin with `size`: set it to sizeof(the structure) and
 * zero the rest. Reserved values and unknown bits are refused.
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
    RESEAL_ENOMEM = -2,      /* no memory, or the limit on locked memory */
    RESEAL_EAGAIN = -3,      /* the ring is full: take completions first */
    RESEAL_ETIMEDOUT = -4,   /* nothing completed in the time that was given */
    RESEAL_ENOSERVICE = -5,  /* no service, or it went away and did not come back */
    RESEAL_EPROTO = -6,      /* the other side broke the protocol */
    RESEAL_EVERSION = -7,    /* no common protocol version */
    RESEAL_EPERM = -8,       /* the policy does not grant it */
    RESEAL_EPAIR = -9,       /* the policy does not list the pair of keys */
    RESEAL_ENOKEY = -10,     /* no such key */
    RESEAL_EKEYGONE = -11,   /* the key was there, and must be supplied again */
    RESEAL_EKEYBAD = -12,    /* the key does not fit: its length, or what it is bound to */
    RESEAL_EKEYUSED = -13,   /* the key reached its usage limit: open a new session */
    RESEAL_EPASS = -14,      /* wrong pass phrase */
    RESEAL_EFORMAT = -15,    /* not a LUKS header, or damaged */
    RESEAL_ECIPHER = -16,    /* a cipher we do not do */
    RESEAL_EAUTH = -17,      /* authentication failed; the destination is unchanged */
    RESEAL_ELOST = -18,      /* an in-place job was interrupted */
    RESEAL_ECANCELED = -19,  /* cancelled before it started */
    RESEAL_EREVOKED = -20,   /* its key was revoked before it started */
    RESEAL_ERANGE = -21,     /* outside the arena and registered memory, or tweaks beyond 64 bits */
    RESEAL_EOVERLAP = -22,   /* input and output overlap in part */
    RESEAL_EUNIT = -23,      /* not whole data units */
    RESEAL_ESPACE = -24,     /* the output does not fit */
    RESEAL_EFAULT = -25,     /* the client's memory could not be touched */
    RESEAL_ELIMIT = -26,     /* a limit of the client, its user or its tenant */
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
    const char *runtime_dir; /* folder of the service's sockets. NULL: $RESEAL_RUNTIME_DIR, else /run/reseal if a
                                service is there or XDG_RUNTIME_DIR is not set, else $XDG_RUNTIME_DIR/reseal */
    const char *tenant;      /* up to 63 bytes; NULL: the one the policy gives this user */
};

/*
 * Connects. `options` may be NULL; its texts are copied. *out is NULL on an error. RESEAL_ENOSERVICE (no
 * service there, it takes no more clients, or does not answer within reconnect_ms), RESEAL_EPERM (socket or
 * tenant is not for this user), RESEAL_EVERSION, RESEAL_ESUSPENDED, RESEAL_ELIMIT (no descriptor is left).
 */
RESEAL_API int reseal_open(reseal **out, const struct reseal_options *options);

/*
 * Closes the connection with its queues, sessions and keys. The service finishes what it began of outstanding
 * jobs and drops the rest; their completions are lost. No other thread may be in a call of this connection.
 * NULL is allowed.
 */
RESEAL_API void reseal_close(reseal *r);

/* ==== 3. Keys ============================================================= */

/*
 * A key in the service, by handle. No call gives the key back. A handle is no secret, and is worth nothing on
 * another connection. The key is wiped when it is closed and when its connection ends.
 */
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
    uint32_t unit;      /* XTS: data unit in bytes, 512 to 65536, a power of two; GCM: 0 */
    uint64_t step;      /* XTS: tweak step per data unit, 1 or more (LUKS: unit / 512); GCM: 0 */
    const char *name;   /* the policy knows it as "raw:NAME", or "random:NAME": printable, no space and no '*', up to 127
                           bytes. NULL: no name. (A key of a LUKS header is "luks:UUID".) */
};

/*
 * A key from a descriptor, which the service reads to its end: XTS 32 or 64
 * bytes (data key, then tweak key), GCM 16 or 32, and not one more. A session
 * into such a key counts as one into plaintext: the caller knows the key.
 * RESEAL_EKEYBAD (another length, or equal XTS halves), RESEAL_ELIMIT,
 * RESEAL_EIO (the descriptor cannot be read), RESEAL_ETIMEDOUT (its end did
 * not come), RESEAL_EAUDIT.
 *
 * This and the other calls about keys connect to the key service when they are
 * first used, and may then fail as reseal_open() does. They are not repeated
 * when the service goes away, since the descriptor may have been read.
 */
RESEAL_API int reseal_key_raw(reseal *r, int fd, const struct reseal_key_use *use, reseal_key *out);

/*
 * A key that the service makes and nobody ever sees. `bits` is 128 or 256. Lost when the connection or
 * reseal-keyd ends. RESEAL_ELIMIT.
 */
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
 * by the service, at most 8 MiB, as cryptsetup reads a key file: a newline at
 * the end counts. `use` is enum reseal_use, or both. `out` and `luks` may be
 * NULL when only the other is wanted; without `out` no pass phrase is needed
 * (passphrase_fd -1). luks->size must be set. Takes as long as the header's
 * key derivation. RESEAL_EPASS (no key slot opens), RESEAL_EFORMAT,
 * RESEAL_ECIPHER (luks->cipher then names it; no error when only information
 * is wanted), RESEAL_EBUSY (the device is being re-encrypted), RESEAL_ENOSUPPORT
 * (the header requires what is not known here), RESEAL_ELIMIT, RESEAL_EIO,
 * RESEAL_ETIMEDOUT, RESEAL_EAUDIT.
 */
RESEAL_API int reseal_key_luks(reseal *r, int header_fd, int passphrase_fd, uint32_t use, reseal_key *out,
                               struct reseal_luks *luks);

struct reseal_luks_format {
    uint32_t size;          /* sizeof(struct reseal_luks_format) */
    uint32_t version;       /* 1 or 2; 0: 2 */
    uint32_t unit;          /* bytes: 512, 1024, 2048, 4096; 0: 4096. LUKS1: 512 only, which is its default */
    uint32_t key_bits;      /* 128 or 256; 0: 256 */
    uint64_t data_offset;   /* bytes, up to 1 GiB, a multiple of 4096 (LUKS1: of 512); 0: libcryptsetup's default. The
                               header is made to fit it. */
    uint64_t data_size;     /* bytes of data the device will hold, whole units */
    uint32_t pbkdf_ms;      /* time to spend in the pass phrase derivation, up to 30,000; 0: libcryptsetup's default */
    uint32_t pbkdf;         /* 0: default (argon2id for LUKS2, pbkdf2 for LUKS1), 1: pbkdf2, 2: argon2id (LUKS2) */
    const char *label;      /* LUKS2, up to 47 bytes; NULL: none */
};

/*
 * Makes a LUKS header with a new volume key. The key stays in the service, as
 * *out; the header comes back as a memfd in *header_fd (the caller closes it),
 * to be written to the start of the device. `passphrase_fd` is read to its end,
 * at most 8 MiB; `use` is enum reseal_use, or both; `luks` may be NULL, else
 * luks->size must be set. RESEAL_ELIMIT, RESEAL_EIO, RESEAL_ETIMEDOUT,
 * RESEAL_EAUDIT.
 */
RESEAL_API int reseal_luks_format(reseal *r, const struct reseal_luks_format *format, int passphrase_fd, uint32_t use,
                                  reseal_key *out, struct reseal_luks *luks, int *header_fd);

/*
 * Wipes a key. Sessions that use it end: their waiting jobs complete with RESEAL_EREVOKED. RESEAL_ENOKEY (no
 * such key of this connection), RESEAL_EKEYGONE.
 */
RESEAL_API int reseal_key_close(reseal *r, reseal_key key);

/* ==== 4. Sessions: what a job means ======================================= */

struct reseal_side {
    uint32_t cipher;        /* enum reseal_cipher */
    uint32_t unit;          /* bytes. XTS: data unit, 512 to 65536, a power of two. Plain: the same, or 0 for any
                               length. GCM: ignored */
    uint64_t step;          /* XTS: tweak step per data unit, 1 or more */
    reseal_key key;         /* plain: zero */
};

/*
 * Stages work on the plaintext inside the service, between the two sides. With compression or decompression a
 * job has at most 1 MiB of plaintext.
 */
enum reseal_stage {
    RESEAL_STAGE_ZERO = 1,       /* zero map: a bit for each whole data unit, 1: all its bytes are zero. The unit is
                                    the destination's; if it has none, the source's; if neither has one, 4096 */
    RESEAL_STAGE_DIGEST = 2,     /* HMAC-SHA-256 of the plaintext under a key of the tenant */
    RESEAL_STAGE_LZ4 = 4,        /* compress. out_len < len: compressed; out_len == len: stored as it was, since it
                                    did not get shorter */
    RESEAL_STAGE_ZSTD = 8,       /* the same with zstd; not both */
    RESEAL_STAGE_DECOMPRESS = 16, /* with LZ4 or ZSTD: decompress to raw_len bytes; len == raw_len: it was stored */
};

#define RESEAL_NO_COUNTER 0xffffffffu

struct reseal_transform {
    uint32_t size;          /* sizeof(struct reseal_transform) */
    uint32_t stages;        /* enum reseal_stage, or-ed; 0: none */
    uint32_t level;         /* of compression: lz4 1 to 12, zstd 1 to 6; 0: the library's default */
    uint32_t counter_at;    /* GCM destination: byte of the AAD at which the service writes the record's 64-bit
                               big-endian counter, 0 to 120; RESEAL_NO_COUNTER: nowhere, and for other destinations */
    struct reseal_side source;
    struct reseal_side destination;
};

typedef struct reseal_session reseal_session;

/*
 * Fixes what the jobs of a session mean; the policy is asked here, once. The
 * first session of a shape measures the engines for some milliseconds. *out is
 * NULL on an error. RESEAL_EPAIR (the policy does not list the two keys),
 * RESEAL_EPERM (a stage, or a plain destination, is not granted), RESEAL_ENOKEY
 * and RESEAL_EKEYGONE (the connection has no such key; or not any more),
 * RESEAL_EKEYBAD (the key is bound to something else), RESEAL_EUNIT (a data
 * unit is out of range), RESEAL_ELIMIT, RESEAL_EAUDIT.
 */
RESEAL_API int reseal_session_open(reseal *r, const struct reseal_transform *transform, reseal_session **out);

/* Ends a session: waiting jobs complete with RESEAL_ECANCELED, begun ones as usual. NULL is allowed. */
RESEAL_API void reseal_session_close(reseal_session *s);

/* ==== 5. Queues and buffers =============================================== */

typedef struct reseal_queue reseal_queue;

struct reseal_queue_options {
    uint32_t size;          /* sizeof(struct reseal_queue_options) */
    uint32_t depth;         /* jobs outstanding, a power of two, 1 to 4096; 0: 64 */
    uint64_t arena;         /* bytes of buffers, up to 1 GiB; 0: 16 MiB */
};

/* Opens a queue with its arena, all of it allocated at once. `options` may be NULL. RESEAL_ELIMIT. */
RESEAL_API int reseal_queue_open(reseal *r, const struct reseal_queue_options *options, reseal_queue **out);

/* Waits for outstanding jobs (they complete unread), then unmaps arena and registered memory. NULL is allowed. */
RESEAL_API void reseal_queue_close(reseal_queue *q);

/*
 * The arena: memory that the service maps too, page aligned, valid until the queue is closed. The caller divides
 * it as it likes; the library takes nothing of it. *len, if not NULL, is its size, at least what was asked for.
 * NULL in a child of the process that opened the queue.
 */
RESEAL_API void *reseal_queue_arena(reseal_queue *q, size_t *len);

/*
 * Adds memory of the caller's own: a memfd of whole pages, at most 4 GiB, with F_SEAL_SHRINK, F_SEAL_GROW and
 * F_SEAL_SEAL set and no write seal; at most 14 for a queue. The library maps it at *base until the queue is
 * closed, and keeps a duplicate of the descriptor. RESEAL_EINVAL (not such a memfd), RESEAL_ELIMIT.
 */
RESEAL_API int reseal_queue_register(reseal_queue *q, int memfd, void **base);

/*
 * A descriptor for poll(2), epoll(7) or io_uring: readable when a completion comes after reseal_poll() found
 * none, and when the service went away. The library's: neither read nor close it. It stays the same when the
 * service restarts. RESEAL_ELIMIT.
 */
RESEAL_API int reseal_queue_fd(reseal_queue *q);

/* ==== 6. Jobs and completions ============================================= */

/* Input and output of the GCM side of a job; required where a side is GCM, else NULL. */
struct reseal_record {
    uint8_t iv[12];         /* source: given. destination: chosen by the service and written here */
    uint8_t tag[16];        /* source: expected. destination: result */
    uint8_t salt[16];       /* destination: the session subkey's salt, result. source: given when derive is 1 */
    uint32_t derive;        /* source: 1: the key is HKDF(key, salt), as a destination session made it; 0: the key itself */
    uint32_t aad_len;       /* bytes, given: 0 to 128 */
    uint8_t aad[128];       /* given; destination: comes back with the counter in it when the session says so */
    uint64_t counter;       /* destination: result, the number of the record under its salt, from 1 */
};

struct reseal_job {
    reseal_session *session; /* of the queue's connection */
    const void *in;         /* in the arena or in registered memory of the queue */
    void *out;              /* likewise; the same as `in`, or disjoint from it */
    uint32_t len;           /* bytes of input: 1 to 4 MiB, whole data units; a record: 1 byte to 1 MiB */
    uint32_t out_cap;       /* bytes that `out` can take; 0: len */
    uint64_t src_tweak;     /* XTS source: tweak of the first data unit */
    uint64_t dst_tweak;     /* XTS destination: the same */
    uint32_t raw_len;       /* DECOMPRESS: bytes the plaintext must have, len to 1 MiB; else 0 */
    uint32_t flags;         /* 0 */
    uint64_t user_data;     /* comes back in the completion; means nothing to the library */
    struct reseal_record *source;      /* GCM source; read at submit */
    struct reseal_record *destination; /* GCM destination; aad read at submit, results written at poll: keep it until then */
    uint8_t *zero_map;      /* STAGE_ZERO: written at poll, (units + 7) / 8 bytes, bit i of byte i/8; 1: the unit is zero */
    uint8_t *digest;        /* STAGE_DIGEST: 32 bytes, written at poll */
};

struct reseal_completion {
    uint64_t user_data;
    int32_t status;         /* 0 or RESEAL_E... of the job: reseal_submit(3) lists them. When it is not 0, `out` is
                               unchanged, with the exception of RESEAL_EFAULT and RESEAL_ELOST: then undefined */
    uint32_t out_len;       /* bytes written to `out`; 0 when status is not 0 */
};

/*
 * Submits up to n jobs, in order. Returns how many were accepted: fewer than n
 * when the ring is full or the next job is wrong; RESEAL_EAGAIN when the ring
 * took none; or what is wrong with the first job. The structures are copied;
 * what a job points to must stay until its completion was taken. What was
 * accepted completes exactly once, in any order. Allocates nothing, and waits
 * only when the service restarted.
 */
RESEAL_API int reseal_submit(reseal_queue *q, const struct reseal_job *jobs, unsigned n);

/*
 * Takes up to max completions (at least 1) without waiting, except for a service that restarted. Returns how
 * many, 0 when there are none, or RESEAL_ENOSERVICE once every outstanding job has been told.
 */
RESEAL_API int reseal_poll(reseal_queue *q, struct reseal_completion *completions, unsigned max);

/*
 * As reseal_poll(), but waits until there is at least one; timeout_ms < 0: for ever. Returns 0 at once when no
 * job is outstanding. Signals do not end it. RESEAL_ETIMEDOUT.
 */
RESEAL_API int reseal_wait(reseal_queue *q, struct reseal_completion *completions, unsigned max, int timeout_ms);

/*
 * Asks that waiting jobs with this user_data complete with RESEAL_ECANCELED; one that was begun completes as
 * usual. 0, also when there is no such job; RESEAL_EAGAIN: take completions first, then ask again.
 */
RESEAL_API int reseal_cancel(reseal_queue *q, uint64_t user_data);

/* ==== 7. The simple call ================================================== */

/*
 * One job from any memory to any memory, which may overlap; waits until it is
 * done. The session is `s`; job->session is not looked at. Copies through an
 * arena of its own (a queue per thread, opened at first use, closed with the
 * thread). Returns the bytes written, or an error of the call or of the job.
 */
RESEAL_API int64_t reseal_run(reseal_session *s, const struct reseal_job *job);

/* ==== 8. Status =========================================================== */

/* The service's state as JSON text (see reseal-status(1)); the caller frees it with free(). NULL on an error. */
RESEAL_API int reseal_status(reseal *r, char **json);

/* ==== 9. Requests by name ================================================= */

#define RESEAL_CALL_FDS 3 /* descriptors that a request may carry */

/*
 * Sends a named request to the key service: about key providers, keys that wrap keys, encrypted disks and VMs,
 * tenants, events. `request` is JSON text of at most 64 KiB, {"method": "provider.list", "args": {...}};
 * `fds` are descriptors (NULL, 0: none) for what must not be in a text. *reply is JSON text that the caller
 * frees with free(): the answer or, if the service refused, {"error": "one line", ...}; NULL when there was no
 * answer. *reply_fd is a descriptor that the caller closes, or -1; NULL: it is not wanted.
 *
 * Waits for the answer, perhaps for minutes if a key server is slow; other calls about keys on this connection
 * wait as long. RESEAL_ENOSERVICE when the service went away during the call: then it is not known whether the
 * request was carried out, and it is not repeated. The methods, and the errors that each returns, are in
 * docs/key-service.md.
 */
RESEAL_API int reseal_call(reseal *r, const char *request, const int *fds, unsigned nfds, char **reply, int *reply_fd);

#ifdef __cplusplus
}
#endif

#endif
