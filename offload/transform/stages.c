/* SPDX-License-Identifier: Apache-2.0 */

/* The one-shot digests of OpenSSL 3 allocate for each message and keep the key in their own heap; the old
 * interface does neither. */
#define OPENSSL_SUPPRESS_DEPRECATED
/* Compression contexts in memory of ours. */
#define ZSTD_STATIC_LINKING_ONLY

#include "offload/transform/stages.h"

#include "reseal/reseal.h"

#include <lz4.h>
#include <lz4hc.h>
#include <zstd.h>

/* ---- keyed digest ---------------------------------------------------------- */

static void padded(SHA256_CTX *state, const uint8_t block[SHA256_CBLOCK], uint8_t pad)
{
    uint8_t mixed[SHA256_CBLOCK];
    for (size_t i = 0; i < sizeof(mixed); i++) mixed[i] = block[i] ^ pad;
    SHA256_Init(state);
    SHA256_Update(state, mixed, sizeof(mixed));
    rs_wipe(mixed, sizeof(mixed));
}

void rs_hmac_key_init(struct rs_hmac_key *key, const uint8_t *raw, size_t raw_len)
{
    uint8_t block[SHA256_CBLOCK] = {0};
    if (raw_len > sizeof(block)) {
        SHA256(raw, raw_len, block);
    } else {
        memcpy(block, raw, raw_len);
    }
    padded(&key->inner, block, 0x36);
    padded(&key->outer, block, 0x5c);
    rs_wipe(block, sizeof(block));
}

void rs_hmac_begin(struct rs_hmac *h, const struct rs_hmac_key *key)
{
    h->at = key->inner;
}

void rs_hmac_add(struct rs_hmac *h, const void *p, size_t len)
{
    SHA256_Update(&h->at, p, len);
}

void rs_hmac_end(struct rs_hmac *h, const struct rs_hmac_key *key, uint8_t digest[32])
{
    uint8_t inner[SHA256_DIGEST_LENGTH];
    SHA256_Final(inner, &h->at);
    h->at = key->outer;
    SHA256_Update(&h->at, inner, sizeof(inner));
    SHA256_Final(digest, &h->at);
    rs_wipe(inner, sizeof(inner));
    rs_wipe(h, sizeof(*h));
}

/* ---- zero map -------------------------------------------------------------- */

static bool all_zero(const uint8_t *p, size_t len)
{
    /* A byte, then the rest against itself one byte on: memcmp is the fastest loop there is. */
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

void rs_zero_map(uint8_t *map, size_t first, const uint8_t *p, size_t len, size_t unit)
{
    for (size_t i = 0; i < len / unit; i++)
        if (all_zero(p + i * unit, unit)) map[(first + i) / 8] |= (uint8_t)(1u << ((first + i) % 8));
}

/* ---- compression ------------------------------------------------------------ */

#define LZ4_HC_FROM 2u /* levels from this on are LZ4HC */

static ZSTD_compressionParameters zstd_parameters(uint32_t level, size_t len)
{
    return ZSTD_getCParams(level == 0 ? ZSTD_CLEVEL_DEFAULT : (int)level, len, 0);
}

/* What one call uses: the smaller, the less there is to wipe. */
static size_t work_for(uint32_t stages, uint32_t level, size_t len)
{
    if (stages & RESEAL_STAGE_DECOMPRESS) return stages & RESEAL_STAGE_ZSTD ? ZSTD_estimateDCtxSize() : 0;
    if (stages & RESEAL_STAGE_ZSTD) return ZSTD_estimateCCtxSize_usingCParams(zstd_parameters(level, len));
    return (size_t)(level >= LZ4_HC_FROM ? LZ4_sizeofStateHC() : LZ4_sizeofState());
}

size_t rs_packing_size(uint32_t stages, uint32_t level, size_t len)
{
    size_t most = 0;
    /* Not monotonic: the parameters change at sizes of the library's choice. */
    for (size_t n = len; n != 0; n /= 2) most = RS_MAX(most, work_for(stages, level, n));
    return rs_round_up(most, 64);
}

static size_t pack_zstd(uint32_t level, void *work, size_t room, uint8_t *to, size_t cap, const uint8_t *from,
                        size_t len)
{
    ZSTD_CCtx *ctx = ZSTD_initStaticCCtx(work, room);
    if (ctx == NULL) return 0;
    size_t n = ZSTD_compressCCtx(ctx, to, cap, from, len, level == 0 ? ZSTD_CLEVEL_DEFAULT : (int)level);
    return ZSTD_isError(n) ? 0 : n;
}

static size_t pack_lz4(uint32_t level, void *work, uint8_t *to, size_t cap, const uint8_t *from, size_t len)
{
    const char *src = (const char *)from;
    char *dst = (char *)to;
    int n = level >= LZ4_HC_FROM ? LZ4_compress_HC_extStateHC(work, src, dst, (int)len, (int)cap, (int)level)
                                 : LZ4_compress_fast_extState(work, src, dst, (int)len, (int)cap, 1);
    return n > 0 ? (size_t)n : 0;
}

size_t rs_pack(uint32_t stages, uint32_t level, void *work, uint8_t *to, size_t cap, const uint8_t *from,
               size_t len)
{
    size_t room = work_for(stages, level, len), n;
    if (stages & RESEAL_STAGE_ZSTD) {
        n = pack_zstd(level, work, room, to, cap, from, len);
    } else {
        n = pack_lz4(level, work, to, cap, from, len);
    }
    rs_wipe(work, room);
    return n;
}

static int unpack_zstd(void *work, uint8_t *to, size_t raw_len, const uint8_t *from, size_t len)
{
    /* One frame and nothing after it: the library itself would go on to the next. */
    if (ZSTD_findFrameCompressedSize(from, len) != len) return RESEAL_EDATA;
    size_t room = ZSTD_estimateDCtxSize();
    ZSTD_DCtx *ctx = ZSTD_initStaticDCtx(work, room);
    size_t n = ctx == NULL ? 0 : ZSTD_decompressDCtx(ctx, to, raw_len, from, len);
    rs_wipe(work, room);
    return n == raw_len ? 0 : RESEAL_EDATA; /* an error is a huge n */
}

int rs_unpack(uint32_t stages, void *work, uint8_t *to, size_t raw_len, const uint8_t *from, size_t len)
{
    if (stages & RESEAL_STAGE_ZSTD) return unpack_zstd(work, to, raw_len, from, len);
    int n = LZ4_decompress_safe((const char *)from, (char *)to, (int)len, (int)raw_len);
    return n >= 0 && (size_t)n == raw_len ? 0 : RESEAL_EDATA;
}
