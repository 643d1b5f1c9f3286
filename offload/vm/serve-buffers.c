/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "offload/vm/serve-internal.h"

static const uint32_t sizes[RS_VS_SIZES] = {RS_VS_SMALL, RS_VS_CHUNK, RS_VS_PIECE};
static const unsigned counts[RS_VS_SIZES] = {512, 128, 96};

uint64_t rs_vs_buffers_want(void)
{
    uint64_t n = RS_VS_PIECE; /* the zeros */
    for (unsigned i = 0; i < RS_VS_SIZES; i++) n += (uint64_t)sizes[i] * counts[i];
    return n;
}

int rs_vs_buffers_open(struct rs_vs_buffers *b, uint8_t *arena, size_t len)
{
    if (arena == NULL || len < rs_vs_buffers_want()) return RESEAL_ENOMEM;
    b->zeros = arena;
    arena += RS_VS_PIECE;
    for (unsigned i = 0; i < RS_VS_SIZES; i++) {
        b->free[i] = calloc(counts[i], sizeof(*b->free[i]));
        if (b->free[i] == NULL) return RESEAL_ENOMEM;
        b->start[i] = arena;
        for (unsigned k = counts[i]; k-- > 0;) b->free[i][b->count[i]++] = arena + (size_t)k * sizes[i];
        arena += (size_t)counts[i] * sizes[i];
    }
    b->start[RS_VS_SIZES] = arena;
    b->chunks = calloc(counts[1] + counts[2], sizeof(*b->chunks));
    if (b->chunks == NULL) return RESEAL_ENOMEM;
    for (unsigned i = 0; i < counts[1] + counts[2]; i++) {
        b->chunks[i].next = b->free_chunks;
        b->free_chunks = &b->chunks[i];
    }
    return 0;
}

void rs_vs_buffers_close(struct rs_vs_buffers *b)
{
    for (unsigned i = 0; i < RS_VS_SIZES; i++) free(b->free[i]);
    free(b->chunks);
    *b = (struct rs_vs_buffers){0};
}

uint8_t *rs_vs_buffer_take(struct rs_vs_buffers *b, uint32_t len)
{
    for (unsigned i = 0; i < RS_VS_SIZES; i++)
        if (len <= sizes[i] && b->count[i] != 0) return b->free[i][--b->count[i]];
    return NULL;
}

void rs_vs_buffer_give(struct rs_vs_buffers *b, uint8_t *buffer)
{
    if (buffer == NULL) return;
    unsigned i = 0;
    while (buffer >= b->start[i + 1]) i++;
    b->free[i][b->count[i]++] = buffer;
}

struct rs_vs_chunk *rs_vs_chunk_take(struct rs_vs_buffers *b)
{
    struct rs_vs_chunk *c = b->free_chunks;
    uint8_t *base = c != NULL ? rs_vs_buffer_take(b, RS_VS_CHUNK) : NULL;
    if (base == NULL) return NULL;
    b->free_chunks = c->next;
    *c = (struct rs_vs_chunk){.base = base, .refs = 1};
    return c;
}

void rs_vs_chunk_drop(struct rs_vs_buffers *b, struct rs_vs_chunk *c)
{
    if (c == NULL || --c->refs != 0) return;
    rs_vs_buffer_give(b, c->base);
    c->next = b->free_chunks;
    b->free_chunks = c;
}
