/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/transform/transform.h"

#include "offload/transform/stages.h"
#include "offload/transform/work.h"

#include <unistd.h>

#define UNIT_LEAST 512u
#define UNIT_MOST  65536u

/* ---- configuration ----------------------------------------------------------- */

static int check_side(const struct rs_transform_side *side)
{
    if (side->cipher > RS_GCM) return RESEAL_EINVAL;
    if (side->cipher != RS_PLAIN && side->bits != 128 && side->bits != 256) return RESEAL_EINVAL;
    if (side->cipher == RS_XTS && side->step == 0) return RESEAL_EINVAL;
    if (side->cipher == RS_GCM || (side->cipher == RS_PLAIN && side->unit == 0)) return 0;
    return rs_is_pow2(side->unit) && side->unit >= UNIT_LEAST && side->unit <= UNIT_MOST ? 0 : RESEAL_EUNIT;
}

int rs_transform_check(const struct rs_transform_config *c)
{
    const uint32_t known =
        RESEAL_STAGE_ZERO | RESEAL_STAGE_DIGEST | RS_STAGE_PACKERS | RESEAL_STAGE_DECOMPRESS;
    int err = check_side(&c->src);
    if (err == 0) err = check_side(&c->dst);
    if (err != 0) return err;
    uint32_t packers = c->stages & RS_STAGE_PACKERS;
    if ((c->stages & ~known) != 0 || packers == RS_STAGE_PACKERS) return RESEAL_EINVAL;
    if ((c->stages & RESEAL_STAGE_DECOMPRESS) != 0 && packers == 0) return RESEAL_EINVAL;
    if (c->level > (packers == RESEAL_STAGE_ZSTD ? RS_ZSTD_LEVELS : RS_LZ4_LEVELS)) return RESEAL_EINVAL;
    if (c->counter_at == RESEAL_NO_COUNTER) return 0;
    return c->dst.cipher == RS_GCM && c->counter_at <= RS_AAD_MAX - 8 ? 0 : RESEAL_EINVAL;
}

size_t rs_transform_raw_len(const struct rs_transform_side *side)
{
    return side->cipher == RS_XTS ? side->bits / 4u : side->cipher == RS_GCM ? side->bits / 8u : 0;
}

size_t rs_work_piece(const struct rs_transform_config *c)
{
    bool whole = c->src.cipher == RS_GCM || c->dst.cipher == RS_GCM || (c->stages & RS_STAGE_PACKERS) != 0;
    return whole ? RS_RECORD_MAX : RS_PIECE;
}

struct rs_work rs_work_layout(const struct rs_transform_config *c)
{
    size_t piece = rs_work_piece(c);
    bool packs = (c->stages & RS_STAGE_PACKERS) != 0;
    struct rs_work w = {.plain = rs_round_up(rs_engine_scratch_size(piece), 64)};
    w.packed = w.plain + (c->stages != 0 ? piece : 0);
    w.packer = w.packed + (packs ? piece : 0);
    w.digest = w.packer + (packs ? rs_packing_size(c->stages, c->level, RS_STAGED_MAX) : 0);
    w.size = w.digest + (c->stages != 0 ? rs_round_up(sizeof(struct rs_hmac), 64) : 0);
    return w;
}

size_t rs_transform_scratch_size(const struct rs_transform_config *c)
{
    return rs_work_layout(c).size;
}

/* ---- keys and engines ---------------------------------------------------------- */

/* Whichever engine is chosen: the largest. */
static size_t side_key_size(const struct rs_transform_side *side)
{
    size_t most = 0;
    if (side->cipher == RS_PLAIN) return 0;
    for (const struct rs_engine *const *e = rs_engines_known(); *e != NULL; e++)
        most = RS_MAX(most, (*e)->key_size((enum rs_cipher)side->cipher, side->bits));
    return rs_round_up(most, RS_KEY_ALIGN);
}

static size_t digest_key_size(const struct rs_transform_config *c)
{
    return c->stages & RESEAL_STAGE_DIGEST ? rs_round_up(sizeof(struct rs_hmac_key), RS_KEY_ALIGN) : 0;
}

size_t rs_transform_key_size(const struct rs_transform_config *c)
{
    return side_key_size(&c->src) + side_key_size(&c->dst) + digest_key_size(c);
}

static const struct rs_engine *best_for(const struct rs_transform_config *c, bool src, bool dst)
{
    struct rs_shape shape = {.len = c->typical_len != 0 ? c->typical_len : 65536};
    if (src) {
        shape.src = c->src.cipher;
        shape.src_bits = c->src.bits;
        shape.src_unit = c->src.unit;
    }
    if (dst) {
        shape.dst = c->dst.cipher;
        shape.dst_bits = c->dst.bits;
        shape.dst_unit = c->dst.unit;
    }
    return rs_engine_best(&shape);
}

static int choose_engines(struct rs_transform *t)
{
    const struct rs_transform_config *c = &t->config;
    bool src = c->src.cipher != RS_PLAIN, dst = c->dst.cipher != RS_PLAIN;
    if (src && dst && c->stages == 0) {
        t->open = t->seal = best_for(c, true, true);
    } else {
        if (src) t->open = best_for(c, true, false);
        if (dst) t->seal = best_for(c, false, true);
    }
    return (src && t->open == NULL) || (dst && t->seal == NULL) ? RESEAL_ESELFTEST : 0;
}

static int prepare(const struct rs_engine *engine, const struct rs_transform_side *side, void *memory,
                   const uint8_t *raw, void **key)
{
    if (side->cipher == RS_PLAIN) return 0;
    if (raw == NULL) return RESEAL_EINVAL;
    int err =
        engine->prepare(memory, (enum rs_cipher)side->cipher, side->bits, raw, rs_transform_raw_len(side));
    if (err == 0) *key = memory;
    return err;
}

static uint32_t zero_unit_of(const struct rs_transform_config *c)
{
    if (c->dst.cipher != RS_GCM && c->dst.unit != 0) return c->dst.unit;
    if (c->src.cipher != RS_GCM && c->src.unit != 0) return c->src.unit;
    return RS_ZERO_UNIT;
}

int rs_transform_init(struct rs_transform *t, const struct rs_transform_config *config, void *key_memory,
                      const uint8_t *src_raw, const uint8_t *dst_raw, const uint8_t *digest_key)
{
    *t = (struct rs_transform){0};
    int err = rs_transform_check(config);
    if (err != 0) return err;
    t->config = *config;
    t->zero_unit = zero_unit_of(config);
    uint8_t *at = key_memory;
    err = choose_engines(t);
    if (err == 0) err = prepare(t->open, &config->src, at, src_raw, &t->src_key);
    at += side_key_size(&config->src);
    if (err == 0) err = prepare(t->seal, &config->dst, at, dst_raw, &t->dst_key);
    at += side_key_size(&config->dst);
    if (err == 0 && (config->stages & RESEAL_STAGE_DIGEST) != 0) {
        if (digest_key == NULL) {
            err = RESEAL_EINVAL;
        } else {
            rs_hmac_key_init((struct rs_hmac_key *)(void *)at, digest_key, RS_DIGEST_LEN);
            t->digest_key = at;
        }
    }
    if (err != 0) rs_transform_wipe(t);
    return err;
}

void rs_transform_wipe(struct rs_transform *t)
{
    const struct rs_transform_config *c = &t->config;
    if (t->src_key != NULL) t->open->wipe(t->src_key, (enum rs_cipher)c->src.cipher, c->src.bits);
    if (t->dst_key != NULL) t->seal->wipe(t->dst_key, (enum rs_cipher)c->dst.cipher, c->dst.bits);
    if (t->digest_key != NULL) rs_wipe(t->digest_key, digest_key_size(c));
    *t = (struct rs_transform){0};
}

bool rs_transform_streams(uint64_t working_set)
{
    long cache = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return working_set > 2 * (uint64_t)(cache > 0 ? cache : 1 << 20);
}
