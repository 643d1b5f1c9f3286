/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/envelope-internal.h"

#include "offload/base/keymem.h"
#include "reseal/reseal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <openssl/err.h>
#include <openssl/rand.h>

#define MAC_LEN 16u

static int read_at(const struct rs_envelope_file *f, void *to, size_t len, uint64_t at,
                   char why[RS_ENVELOPE_WHY])
{
    int r = rs_pread_full(f->fd, to, len, at);
    if (r == -ENODATA)
        return rs_envelope_refuse(why, RESEAL_EAUTH, "envelope: it became shorter while it was read");
    return r == 0 ? 0 : rs_envelope_refuse(why, RESEAL_EIO, "cannot read the envelope: %s", strerror(-r));
}

/* ---- header and footer -------------------------------------------------------------- */

static int take_footer(struct rs_envelope_file *f, char why[RS_ENVELOPE_WHY])
{
    uint8_t block[RS_ENVELOPE_BLOCK];
    int r = read_at(f, block, sizeof(block), RS_ENVELOPE_BLOCK + f->body, why);
    if (r != 0) return r;
    if (memcmp(block, RS_ENVELOPE_FOOTER_MAGIC, sizeof(RS_ENVELOPE_FOOTER_MAGIC) - 1) != 0)
        return rs_envelope_refuse(
            why, RESEAL_EFORMAT,
            "envelope: its end is missing: it was cut, or is not yet written to its end");
    if (rs_load_le32(block + RS_ENVELOPE_VERSION_AT) != 1 ||
        rs_load_le32(block + RS_ENVELOPE_TAG_SIZE_AT) != RS_ENVELOPE_TAG_LEN)
        return rs_envelope_refuse(why, RESEAL_EFORMAT,
                                  "envelope: damaged footer, or of a version that is not known");
    memcpy(f->tag, block + RS_ENVELOPE_TAG_AT, sizeof(f->tag));
    return 0;
}

int rs_envelope_load(struct rs_envelope_file *f, int fd, char why[RS_ENVELOPE_WHY])
{
    struct stat st;
    f->fd = fd;
    if (fstat(fd, &st) != 0)
        return rs_envelope_refuse(why, RESEAL_EIO, "cannot read the envelope: %s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return rs_envelope_refuse(why, RESEAL_EINVAL,
                                  "envelope: not a regular file; it is read twice, so no pipe will do");
    uint64_t size = (uint64_t)st.st_size;
    if (size < RS_ENVELOPE_BLOCK)
        return rs_envelope_refuse(why, RESEAL_EFORMAT, "not an envelope file: too short");
    int r = read_at(f, f->header.block, RS_ENVELOPE_BLOCK, 0, why);
    if (r == 0) r = rs_envelope_parse(&f->header, why);
    if (r != 0) return r;
    if (size < 3 * (uint64_t)RS_ENVELOPE_BLOCK)
        return rs_envelope_refuse(why, RESEAL_EFORMAT, "envelope: cut after %llu bytes",
                                  (unsigned long long)size);
    f->body = size - 2 * RS_ENVELOPE_BLOCK;
    if (f->body > RS_ENVELOPE_BODY_MAX)
        return rs_envelope_refuse(why, RESEAL_EFORMAT, "envelope: longer than the 64 GiB that one can be");
    return take_footer(f, why);
}

/* ---- what both readings share ------------------------------------------------------- */

struct reading {
    const struct rs_envelope_file *f;
    EVP_CIPHER_CTX *gcm, *mac;        /* of this reading; the MAC is GMAC */
    uint8_t mac_key[16];              /* random: whoever changes the file does not know it */
    uint8_t (*macs)[MAC_LEN];         /* of each piece of the body, from the first reading */
    uint8_t *in, *out;                /* a piece of ciphertext, and of text */
    size_t room;                      /* of each */
    uint8_t inner[RS_ENVELOPE_BLOCK]; /* the end of the text, with what it says about itself */
};

static size_t piece_len(const struct rs_envelope_file *f, uint64_t i)
{
    return (size_t)RS_MIN((uint64_t)RS_ENVELOPE_PIECE, f->body - i * RS_ENVELOPE_PIECE);
}

static uint64_t pieces(const struct rs_envelope_file *f)
{
    return (f->body + RS_ENVELOPE_PIECE - 1) / RS_ENVELOPE_PIECE;
}

static bool mac_of(struct reading *r, uint64_t i, size_t len, uint8_t mac[MAC_LEN])
{
    uint8_t iv[12] = {0};
    int n;
    rs_store_le64(iv, i);
    return EVP_EncryptInit_ex(r->mac, NULL, NULL, r->mac_key, iv) == 1 &&
           EVP_EncryptUpdate(r->mac, NULL, &n, r->in, (int)len) == 1 &&
           EVP_EncryptFinal_ex(r->mac, iv, &n) == 1 &&
           EVP_CIPHER_CTX_ctrl(r->mac, EVP_CTRL_AEAD_GET_TAG, MAC_LEN, mac) == 1;
}

static void close_reading(struct reading *r)
{
    EVP_CIPHER_CTX_free(r->gcm);
    EVP_CIPHER_CTX_free(r->mac);
    rs_scratch_unmap(r->in, r->room);
    rs_scratch_unmap(r->out, r->room);
    free(r->macs);
    rs_keymem_free(r);
}

static struct reading *new_reading(const struct rs_envelope_file *f)
{
    struct reading *r = rs_keymem_alloc(sizeof(*r));
    if (r == NULL) return NULL;
    r->f = f;
    r->room = piece_len(f, 0);
    r->in = rs_scratch_map(r->room, NULL);
    r->out = rs_scratch_map(r->room, NULL);
    r->macs = calloc((size_t)pieces(f), MAC_LEN);
    r->mac = EVP_CIPHER_CTX_new();
    if (r->in != NULL && r->out != NULL && r->macs != NULL && r->mac != NULL &&
        RAND_bytes(r->mac_key, sizeof(r->mac_key)) == 1 &&
        EVP_EncryptInit_ex(r->mac, EVP_aes_128_gcm(), NULL, NULL, NULL) == 1)
        return r;
    close_reading(r);
    return NULL;
}

/* Begins at the first byte of the body. */
static int start(struct reading *r, const uint8_t key[RS_ENVELOPE_KEY], const char *aad)
{
    EVP_CIPHER_CTX_free(r->gcm);
    r->gcm = rs_envelope_gcm(&r->f->header, key, aad, false);
    return r->gcm != NULL ? 0 : RESEAL_ENOMEM;
}

static int decrypt(struct reading *r, size_t len)
{
    int n;
    return EVP_CipherUpdate(r->gcm, r->out, &n, r->in, (int)len) == 1 ? 0 : RESEAL_ENOMEM;
}

/* ---- the first reading -------------------------------------------------------------- */

/* The last block of the body can lie in two pieces. */
static void keep_inner(struct reading *r, uint64_t at, size_t len)
{
    uint64_t first = r->f->body - RS_ENVELOPE_BLOCK, from = RS_MAX(at, first);
    if (at + len <= first) return;
    memcpy(r->inner + (from - first), r->out + (from - at), (size_t)(at + len - from));
}

static int authenticate(struct reading *r, char why[RS_ENVELOPE_WHY])
{
    uint8_t none[16];
    int n;
    for (uint64_t i = 0; i < pieces(r->f); i++) {
        size_t len = piece_len(r->f, i);
        int e = read_at(r->f, r->in, len, RS_ENVELOPE_BLOCK + i * RS_ENVELOPE_PIECE, why);
        if (e == 0) e = decrypt(r, len);
        if (e == 0 && !mac_of(r, i, len, r->macs[i])) e = RESEAL_ENOMEM;
        if (e != 0) return e;
        keep_inner(r, i * RS_ENVELOPE_PIECE, len);
    }
    ERR_set_mark();
    bool ok = EVP_CIPHER_CTX_ctrl(r->gcm, EVP_CTRL_AEAD_SET_TAG, RS_ENVELOPE_TAG_LEN,
                                  (void *)(uintptr_t)r->f->tag) == 1 &&
              EVP_CipherFinal_ex(r->gcm, none, &n) == 1;
    ERR_pop_to_mark();
    if (ok) return 0;
    rs_wipe(r->inner, sizeof(r->inner));
    return rs_envelope_refuse(
        why, RESEAL_EAUTH, "envelope: it was changed or damaged since it was sealed, or its AAD is another");
}

static int text_len(const struct reading *r, uint64_t *len, char why[RS_ENVELOPE_WHY])
{
    uint64_t padding = rs_load_le32(r->inner + RS_ENVELOPE_PADDING_AT);
    if (memcmp(r->inner + RS_ENVELOPE_INNER_AT, RS_ENVELOPE_INNER_MAGIC,
               sizeof(RS_ENVELOPE_INNER_MAGIC) - 1) != 0 ||
        padding > r->f->body - RS_ENVELOPE_BLOCK)
        return rs_envelope_refuse(why, RESEAL_EFORMAT,
                                  "envelope: authentic, but what is inside has no proper end");
    *len = r->f->body - RS_ENVELOPE_BLOCK - padding;
    return 0;
}

/* ---- the second --------------------------------------------------------------------- */

static int release(struct reading *r, uint64_t text, rs_envelope_sink *sink, void *arg,
                   char why[RS_ENVELOPE_WHY])
{
    for (uint64_t i = 0; text != 0; i++) {
        uint8_t mac[MAC_LEN];
        size_t len = piece_len(r->f, i), of_text = (size_t)RS_MIN((uint64_t)len, text);
        int e = read_at(r->f, r->in, len, RS_ENVELOPE_BLOCK + i * RS_ENVELOPE_PIECE, why);
        if (e == 0 && !mac_of(r, i, len, mac)) e = RESEAL_ENOMEM;
        if (e == 0 && !rs_equal_ct(mac, r->macs[i], MAC_LEN))
            e = rs_envelope_refuse(why, RESEAL_EAUTH, "envelope: it was changed while it was read");
        if (e == 0) e = decrypt(r, len);
        if (e == 0) e = sink(arg, r->out, of_text);
        if (e != 0) return e;
        text -= of_text;
    }
    return 0;
}

static int check_key(const struct rs_envelope_file *f, const uint8_t key[RS_ENVELOPE_KEY],
                     char why[RS_ENVELOPE_WHY])
{
    uint8_t hash[RS_ENVELOPE_HASH_LEN];
    int r = rs_envelope_key_hash(key, hash);
    if (r != 0) return r;
    if (rs_equal_ct(hash, rs_envelope_find(&f->header, RS_ENVELOPE_KEY_HASH)->value, sizeof(hash))) return 0;
    return rs_envelope_refuse(why, RESEAL_EKEYBAD, "envelope: sealed under another key");
}

int rs_envelope_open(const struct rs_envelope_file *f, const uint8_t key[RS_ENVELOPE_KEY], const char *aad,
                     rs_envelope_sink *sink, void *arg, uint64_t *len, char why[RS_ENVELOPE_WHY])
{
    *len = 0;
    int e = check_key(f, key, why);
    if (e != 0) return e;
    struct reading *r = new_reading(f);
    if (r == NULL) return rs_envelope_refuse(why, RESEAL_ENOMEM, "out of memory");
    e = start(r, key, aad);
    if (e == 0) e = authenticate(r, why);
    if (e == 0) e = text_len(r, len, why);
    if (e == 0 && sink != NULL) e = start(r, key, aad);
    if (e == 0 && sink != NULL) e = release(r, *len, sink, arg, why);
    if (e == RESEAL_ENOMEM) (void)rs_envelope_refuse(why, e, "out of memory");
    close_reading(r);
    return e;
}
