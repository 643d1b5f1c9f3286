/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/transforms.h"

#include "tests/support/reference.h"

#include <stdio.h>
#include <stdlib.h>

struct rs_transform_side fixture_side(unsigned cipher, uint32_t unit)
{
    struct rs_transform_side side = {.cipher = (uint8_t)cipher, .unit = cipher == RS_GCM ? 0 : unit};
    if (cipher != RS_PLAIN) side.bits = 256;
    if (cipher == RS_XTS) side.step = unit / 512;
    return side;
}

void fixture_open(struct fixture *f, const struct rs_transform_config *config)
{
    uint64_t seed = 7;
    memset(f, 0, sizeof(*f));
    reference_random(&seed, f->raw, sizeof(f->raw));
    reference_random(&seed, f->digest_key, sizeof(f->digest_key));
    int err = rs_transform_check(config);
    if (err == 0) {
        size_t key_len = rs_transform_key_size(config);
        f->scratch_len = rs_transform_scratch_size(config);
        guarded_map(&f->key_map, key_len + 1);
        guarded_map(&f->scratch_map, f->scratch_len);
        f->scratch = guarded_at_end(&f->scratch_map, f->scratch_len);
        err = rs_transform_init(&f->t, config, guarded_at_end(&f->key_map, rs_round_up(key_len, 64)),
                                f->raw[0], f->raw[1], f->digest_key);
    }
    if (err == 0) return;
    fprintf(stderr, "fixture_open: %s\n", reseal_strerror(err));
    exit(2);
}

void fixture_close(struct fixture *f)
{
    rs_transform_wipe(&f->t);
    for (size_t i = 0; i < f->key_map.room; i++) {
        if (f->key_map.page[i] == 0) continue;
        fprintf(stderr, "fixture_close: key memory is not wiped\n");
        exit(2);
    }
    guarded_unmap(&f->key_map);
    guarded_unmap(&f->scratch_map);
}

static const struct rs_transform_side *side_of(const struct fixture *f, int which)
{
    return which ? &f->t.config.dst : &f->t.config.src;
}

static void xts(const struct fixture *f, int which, const struct rs_job *job, int encrypt, const uint8_t *in,
                uint8_t *out, size_t len)
{
    const struct rs_transform_side *s = side_of(f, which);
    uint64_t tweak = which ? job->dst_tweak : job->src_tweak;
    reference_xts(encrypt, s->bits, f->raw[which], tweak, 0, s->step, s->unit, in, out, len);
}

void fixture_seal(const struct fixture *f, int which, const struct rs_job *job, const uint8_t *in,
                  uint8_t *out, size_t len, uint8_t tag[RS_TAG_LEN])
{
    const struct rs_transform_side *s = side_of(f, which);
    if (s->cipher == RS_PLAIN) memmove(out, in, len);
    if (s->cipher == RS_XTS) xts(f, which, job, 1, in, out, len);
    if (s->cipher != RS_GCM) return;
    if (which) {
        reference_seal(s->bits, f->raw[1], job->dst_iv, job->dst_aad, job->dst_aad_len, in, out, len, tag);
    } else {
        reference_seal(s->bits, f->raw[0], job->src_iv, job->src_aad, job->src_aad_len, in, out, len, tag);
    }
}

bool fixture_open_side(const struct fixture *f, int which, const struct rs_job *job, const uint8_t *in,
                       uint8_t *out, size_t len, const uint8_t tag[RS_TAG_LEN])
{
    const struct rs_transform_side *s = side_of(f, which);
    if (s->cipher == RS_XTS) {
        xts(f, which, job, 0, in, out, len);
        return true;
    }
    uint8_t made[RS_TAG_LEN], *again = malloc(len);
    if (again == NULL) exit(2);
    fixture_seal(f, which, job, in, out, len, made); /* counter mode is its own inverse */
    fixture_seal(f, which, job, out, again, len, made);
    bool same = memcmp(again, in, len) == 0 && (s->cipher == RS_PLAIN || memcmp(made, tag, RS_TAG_LEN) == 0);
    free(again);
    return same;
}

bool fixture_scratch_holds(const struct fixture *f, const uint8_t needle[16])
{
    static const uint8_t zeros[16]; /* tell nothing */
    return memcmp(needle, zeros, 16) != 0 && memmem(f->scratch, f->scratch_len, needle, 16) != NULL;
}
