/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_SOURCE_H
#define RS_KEY_SOURCE_H

/*
 * Where keys come from. A source turns an order (and the descriptors that
 * came with it) into one raw key and what is known about it. Those that parse
 * what a client gave run in a sandboxed child of their own (nursery.h), one
 * for each order; the others run in reseal-keyd itself. A key provider is one
 * more source.
 */

#include "offload/ring/control.h"
#include "providers/key/internal.h"

enum rs_source_kind { RS_SOURCE_RAW, RS_SOURCE_RANDOM, RS_SOURCE_LUKS, RS_SOURCE_LUKS_FORMAT, RS_SOURCES };

#define RS_SOURCE_FDS 2u /* descriptors an order may carry */

#define RS_PASSPHRASE_MAX (8u << 20) /* bytes, as cryptsetup's key files */

struct rs_source_order {
    uint32_t kind;       /* enum rs_source_kind */
    uint32_t deadline_s; /* seconds a child may take, 1 or more */
    uint32_t cipher;     /* RAW, RANDOM: enum reseal_cipher */
    uint32_t bits;       /* RANDOM: 128 or 256 */
    uint32_t want_key;   /* LUKS: 0: what the header says is enough */
    uint32_t reserved;
    struct rs_msg_luks_format format;
};

/* Lies in key memory. */
struct rs_source_yield {
    int32_t status;
    uint32_t key_len;
    uint8_t key[RS_RAW_KEY_MAX];
    struct rs_msg_luks luks; /* LUKS, LUKS_FORMAT; with RESEAL_ECIPHER the cipher is named too */
};

struct rs_source {
    const char *name;
    unsigned nfds; /* descriptors it needs: LUKS: header, pass phrase */
    bool in_child; /* it parses what a client gave */
    /* Fills `out`, whose status is what is returned; *out_fd: a descriptor that goes to the client, else -1.
     */
    int (*fetch)(const struct rs_source_order *order, const int *fds, struct rs_source_yield *out,
                 int *out_fd);
};

extern const struct rs_source rs_source_raw, rs_source_random, rs_source_luks, rs_source_luks_format;

/* The source of a kind, or NULL. */
const struct rs_source *rs_source_of(uint32_t kind);

/* True when `len` raw bytes make a key for the cipher; XTS halves must differ. */
RS_MUST_CHECK bool rs_raw_key_ok(uint32_t cipher, const uint8_t *key, size_t len);

/*
 * Reads a descriptor to its end, at most `max` bytes, into key memory (64 KiB
 * and less) or scratch. RESEAL_EINVAL when there is more, RESEAL_EIO, RESEAL_ENOMEM.
 */
struct rs_secret_text {
    uint8_t *bytes;
    size_t len;
    size_t room;
};
RS_MUST_CHECK int rs_secret_read(int fd, size_t max, struct rs_secret_text *out);
void rs_secret_free(struct rs_secret_text *text);

#endif
