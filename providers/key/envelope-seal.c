/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/envelope-internal.h"

#include "offload/base/keymem.h"
#include "reseal/reseal.h"

#include <errno.h>
#include <openssl/rand.h>

/* The room collects ciphertext, so that a pipe's small pieces make large writes. */
struct rs_envelope_seal {
    EVP_CIPHER_CTX *gcm;
    uint8_t *room; /* RS_ENVELOPE_PIECE bytes */
    size_t filled;
    uint64_t len; /* of the text so far */
    int fd;
};

static int give(int fd, const void *bytes, size_t len)
{
    int r = rs_write_full(fd, bytes, len);
    if (r == 0) return 0;
    errno = -r;
    return RESEAL_EIO;
}

static int complete_header(struct rs_envelope *e, const uint8_t key[RS_ENVELOPE_KEY])
{
    uint8_t hash[RS_ENVELOPE_HASH_LEN], iv[RS_ENVELOPE_IV_LEN];
    int r = rs_envelope_key_hash(key, hash);
    errno = ENOSYS; /* of a missing random device, if anything */
    if (r == 0 && RAND_bytes(iv, sizeof(iv)) != 1) r = RESEAL_EIO;
    if (r == 0) r = rs_envelope_put_text(e, RS_ENVELOPE_CIPHER, RS_ENVELOPE_CIPHER_NAME);
    if (r == 0) r = rs_envelope_put_bytes(e, RS_ENVELOPE_KEY_HASH, hash, sizeof(hash));
    if (r == 0) r = rs_envelope_put_bytes(e, RS_ENVELOPE_IV, iv, sizeof(iv));
    return r;
}

int rs_envelope_seal_begin(struct rs_envelope *e, const uint8_t key[RS_ENVELOPE_KEY], const char *aad, int fd,
                           struct rs_envelope_seal **out)
{
    *out = NULL;
    int r = complete_header(e, key);
    if (r != 0) return r;
    struct rs_envelope_seal *s = rs_keymem_alloc(sizeof(*s));
    if (s == NULL) return RESEAL_ENOMEM;
    s->fd = fd;
    s->gcm = rs_envelope_gcm(e, key, aad, true);
    s->room = rs_scratch_map(RS_ENVELOPE_PIECE, NULL);
    r = s->gcm != NULL && s->room != NULL ? give(fd, e->block, sizeof(e->block)) : RESEAL_ENOMEM;
    if (r == 0)
        *out = s;
    else
        rs_envelope_seal_free(s);
    return r;
}

static int flush(struct rs_envelope_seal *s)
{
    int r = give(s->fd, s->room, s->filled);
    s->filled = 0;
    return r;
}

static int encrypt(struct rs_envelope_seal *s, const uint8_t *text, size_t len)
{
    while (len != 0) {
        size_t n = RS_MIN(len, RS_ENVELOPE_PIECE - s->filled);
        int done;
        if (EVP_CipherUpdate(s->gcm, s->room + s->filled, &done, text, (int)n) != 1) return RESEAL_ENOMEM;
        s->filled += n;
        text += n;
        len -= n;
        int r = s->filled == RS_ENVELOPE_PIECE ? flush(s) : 0;
        if (r != 0) return r;
    }
    return 0;
}

int rs_envelope_seal_write(struct rs_envelope_seal *s, const uint8_t *text, size_t len)
{
    if (!rs_range_ok(s->len, len, RS_ENVELOPE_TEXT_MAX)) return RESEAL_ELIMIT;
    s->len += len;
    return encrypt(s, text, len);
}

int rs_envelope_seal_end(struct rs_envelope_seal *s)
{
    uint8_t block[RS_ENVELOPE_BLOCK] = {0};
    uint32_t padding = (uint32_t)(rs_round_up(s->len, RS_ENVELOPE_BLOCK) - s->len);
    int n, r = encrypt(s, block, padding);
    memcpy(block + RS_ENVELOPE_INNER_AT, RS_ENVELOPE_INNER_MAGIC, sizeof(RS_ENVELOPE_INNER_MAGIC) - 1);
    rs_store_le32(block + RS_ENVELOPE_PADDING_AT, padding);
    rs_store_le32(block + RS_ENVELOPE_VERSION_AT, 1);
    if (r == 0) r = encrypt(s, block, sizeof(block));
    if (r == 0) r = flush(s);
    if (r != 0) return r;
    memset(block, 0, sizeof(block));
    memcpy(block, RS_ENVELOPE_FOOTER_MAGIC, sizeof(RS_ENVELOPE_FOOTER_MAGIC) - 1);
    rs_store_le32(block + RS_ENVELOPE_TAG_SIZE_AT, RS_ENVELOPE_TAG_LEN);
    rs_store_le32(block + RS_ENVELOPE_VERSION_AT, 1);
    if (EVP_CipherFinal_ex(s->gcm, block, &n) != 1 ||
        EVP_CIPHER_CTX_ctrl(s->gcm, EVP_CTRL_AEAD_GET_TAG, RS_ENVELOPE_TAG_LEN, block + RS_ENVELOPE_TAG_AT) !=
            1)
        return RESEAL_ENOMEM;
    return give(s->fd, block, sizeof(block));
}

void rs_envelope_seal_free(struct rs_envelope_seal *s)
{
    if (s == NULL) return;
    EVP_CIPHER_CTX_free(s->gcm);
    rs_scratch_unmap(s->room, RS_ENVELOPE_PIECE);
    rs_keymem_free(s);
}
