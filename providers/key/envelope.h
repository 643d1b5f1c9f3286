/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_ENVELOPE_H
#define RS_KEY_ENVELOPE_H

/*
 * Envelope files (*.ve): a file sealed as a whole under one key, in a layout
 * that others read too. All numbers are little-endian.
 *
 *   header, 4096 bytes   "DataTransformEnvelope", zeros to 504, u32 room of the
 *                        attributes (3584), u32 version 2; attributes from 512
 *   body                 AES-256-GCM of: the text, zeros to a multiple of 4096,
 *                        and a block of 4096 whose last 512 bytes are
 *                        "DataTransformCryptoFooter", zeros, u32 padding, u32 version 1
 *   footer, 4096 bytes   "DataTransformAeadFooter", zeros to 32, the tag in a
 *                        room of 4056, u32 16, u32 version 1
 *
 * An attribute is u8 type, u8 flag, two zero bytes, a name that ends in NUL,
 * and a value: type 11 a text that ends in NUL, type 12 u64 length and bytes.
 * Four zero bytes end the list. "vmware.keyInfo", "vmware.cipherName"
 * ("AES-256-GCM"), "vmware.keyHash" (SHA-256 of cipher name and key) and
 * "vmware.iv" are always there. The additional authenticated data are the whole
 * header and then what the caller agreed upon ("ESXConfiguration").
 *
 * Ours is how the key comes about. A key that is kept (of a host, of a VM's
 * bundle) never seals a file itself: "reseal.salt" makes a key for each file
 * of it, so that no two files share one and no IV can come twice under it.
 * "reseal.pass2key" is the dictionary of a pass phrase (providers/key/locked.h).
 * A file of others has neither; the key that is given is then the key.
 *
 * What is read is hostile until its tag was seen to be right. Threads: no state.
 */

#include "offload/base/bytes.h"

#define RS_ENVELOPE_BLOCK      4096u
#define RS_ENVELOPE_KEY        32u
#define RS_ENVELOPE_ATTRIBUTES 32u
#define RS_ENVELOPE_WHY        160u /* room for one line */

/* Bytes that GCM may process under one IV: text, padding and inner block together. */
#define RS_ENVELOPE_BODY_MAX ((UINT64_C(1) << 36) - 32)
/* Bytes of the longest text: 64 GiB less two blocks. */
#define RS_ENVELOPE_TEXT_MAX ((UINT64_C(1) << 36) - 2 * RS_ENVELOPE_BLOCK)

#define RS_ENVELOPE_KEY_INFO "vmware.keyInfo"
#define RS_ENVELOPE_CIPHER   "vmware.cipherName"
#define RS_ENVELOPE_KEY_HASH "vmware.keyHash"
#define RS_ENVELOPE_IV       "vmware.iv"
#define RS_ENVELOPE_SALT     "reseal.salt"
#define RS_ENVELOPE_PASS2KEY "reseal.pass2key"

enum rs_envelope_type { RS_ENVELOPE_TEXT = 11, RS_ENVELOPE_BYTES = 12 };

struct rs_envelope_attribute {
    uint8_t type, flag;
    const char *name;     /* in the header block, as the value is */
    const uint8_t *value; /* a text has its NUL, which `len` does not count */
    size_t len;
};

/* A header: what was read, or what is being made. Must not be moved: attributes point into it. */
struct rs_envelope {
    uint8_t block[RS_ENVELOPE_BLOCK];
    struct rs_envelope_attribute at[RS_ENVELOPE_ATTRIBUTES];
    unsigned n;
    size_t end; /* of the attributes in the block */
};

/* ---- headers (envelope.c) --------------------------------------------------------- */

/* Reads e->block. RESEAL_EFORMAT, RESEAL_ECIPHER, with a line in `why`. */
RS_MUST_CHECK int rs_envelope_parse(struct rs_envelope *e, char why[RS_ENVELOPE_WHY]);

/* NULL when there is none of that name (and of that type, of `rs_envelope_text`). */
const struct rs_envelope_attribute *rs_envelope_find(const struct rs_envelope *e, const char *name);
const char *rs_envelope_text(const struct rs_envelope *e, const char *name);

/* A header without attributes. */
void rs_envelope_new(struct rs_envelope *e);
/* RESEAL_EINVAL: an empty name, or one that is there; RESEAL_ESPACE: the header is full. */
RS_MUST_CHECK int rs_envelope_put_text(struct rs_envelope *e, const char *name, const char *text);
RS_MUST_CHECK int rs_envelope_put_bytes(struct rs_envelope *e, const char *name, const uint8_t *bytes,
                                        size_t len);

/* The key of a file: HKDF-SHA-256(key, "reseal.salt", "reseal envelope v1"), or `key` where there is no salt.
 * RESEAL_EFORMAT, RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_envelope_file_key(const struct rs_envelope *e, const uint8_t key[RS_ENVELOPE_KEY],
                                       uint8_t out[RS_ENVELOPE_KEY]);
/* Adds a fresh "reseal.salt". RESEAL_EIO, RESEAL_ESPACE. */
RS_MUST_CHECK int rs_envelope_put_salt(struct rs_envelope *e);

/*
 * The key that a pass phrase makes by "reseal.pass2key"; RESEAL_EFORMAT when the envelope has none. The
 * second adds one: PBKDF2-HMAC-SHA-256, RS_ENVELOPE_ROUNDS, 16 random bytes of salt.
 */
#define RS_ENVELOPE_ROUNDS 600000u
RS_MUST_CHECK int rs_envelope_phrase_key(const struct rs_envelope *e, const char *phrase, size_t len,
                                         uint8_t out[RS_ENVELOPE_KEY]);
RS_MUST_CHECK int rs_envelope_put_phrase(struct rs_envelope *e);

/* ---- sealing (envelope-seal.c) ---------------------------------------------------- */

/*
 * Writes as the text comes, so that both ends may be pipes. What fails leaves a
 * file without a footer, which nobody can take for a whole one; the caller removes it.
 */
struct rs_envelope_seal;

/*
 * Completes the header `e` (cipher, key hash, a fresh IV) and writes it. `key` is the file's key, used for
 * this file alone. RESEAL_ENOMEM, RESEAL_ESPACE (too many attributes), RESEAL_EIO with errno.
 */
RS_MUST_CHECK int rs_envelope_seal_begin(struct rs_envelope *e, const uint8_t key[RS_ENVELOPE_KEY],
                                         const char *aad, int fd, struct rs_envelope_seal **out);

/* RESEAL_ELIMIT: longer than RS_ENVELOPE_TEXT_MAX; RESEAL_EIO with errno. */
RS_MUST_CHECK int rs_envelope_seal_write(struct rs_envelope_seal *s, const uint8_t *text, size_t len);

/* Padding, inner block, footer. The file is not flushed to its disk. */
RS_MUST_CHECK int rs_envelope_seal_end(struct rs_envelope_seal *s);

/* Wipes and frees; NULL is allowed. */
void rs_envelope_seal_free(struct rs_envelope_seal *s);

/* ---- opening (envelope-open.c) ---------------------------------------------------- */

/*
 * Opening reads the file twice. The first time everything is decrypted into
 * private memory, and nothing of it kept: that shows whether the tag is right, and
 * how long the text is. Only then the text is given out, from the second
 * reading. Whoever owns the file may change it between the two; so the first
 * reading leaves a MAC of every piece of ciphertext, under a key of its own, and
 * a piece that does not match is not decrypted. What comes out is what was authenticated.
 */
struct rs_envelope_file {
    struct rs_envelope header;
    uint8_t tag[16];
    uint64_t body; /* bytes between header and footer */
    int fd;        /* the caller's */
};

/* Reads header and footer of a regular file. RESEAL_EFORMAT, RESEAL_ECIPHER, RESEAL_EIO, with a line. */
RS_MUST_CHECK int rs_envelope_load(struct rs_envelope_file *f, int fd, char why[RS_ENVELOPE_WHY]);

/* Gets the text in order, from private memory; what it returns ends the opening if it is not 0. */
typedef int rs_envelope_sink(void *arg, const uint8_t *text, size_t len);

/*
 * `key` is the file's key. *len: bytes of the text. Without a sink the file is authenticated, no more. After
 * a failure with RESEAL_EKEYBAD (another key) or RESEAL_EAUTH nothing was given to the sink; if the file is
 * changed while it is read, RESEAL_EAUTH can come after a part, all of which was right.
 * RESEAL_EFORMAT, RESEAL_EIO, RESEAL_ENOMEM.
 */
RS_MUST_CHECK int rs_envelope_open(const struct rs_envelope_file *f, const uint8_t key[RS_ENVELOPE_KEY],
                                   const char *aad, rs_envelope_sink *sink, void *arg, uint64_t *len,
                                   char why[RS_ENVELOPE_WHY]);

#endif
