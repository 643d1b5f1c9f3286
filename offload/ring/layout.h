/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_RING_LAYOUT_H
#define RS_RING_LAYOUT_H

/*
 * The shared-memory contract, protocol version 1: what lies where in the
 * memfd of a queue. docs/ring-protocol.md tells it to the byte. Little-endian.
 *
 * A queue is one submission ring and one completion ring, each with a single
 * producer and a single consumer. Indices are free-running 32-bit counters;
 * entry i lies at slot i & (depth - 1). Both ends copy the geometry into
 * private memory at attach and never read it again.
 *
 *   0                 geometry                      immutable
 *   64                submission producer line      written by the client
 *   128               submission consumer line      written by the service
 *   192               completion producer line      written by the service
 *   256               completion consumer line      written by the client
 *   4096              submission entries            depth * 64
 *   4096 + depth*64   completion entries            depth * 64
 *   data_offset       region 0: auxiliary blocks (depth * RS_AUX_SIZE), then the arena
 */

#include <stdatomic.h>
#include <stdint.h>

#define RS_RING_MAGIC   0x31514c4145534552ull /* the bytes "RESEALQ1" */
#define RS_RING_VERSION 1u
#define RS_RING_ENTRY   64u
#define RS_DEPTH_MAX    4096u
#define RS_ARENA_MAX    (1ull << 30)
#define RS_REGION_MAX   15u            /* region 0 and 14 registered ones */
#define RS_REGION_BYTES_MAX (4ull << 30)
#define RS_AUX_SIZE     2048u
#define RS_AUX_NONE     0xffffffffu
#define RS_ZERO_MAP_MAX 1024u          /* bytes: 4 MiB of 512-byte units */

struct rs_ring_geometry {
    uint64_t magic;
    uint32_t version;
    uint32_t depth;       /* entries of each ring, a power of two */
    uint64_t total;       /* bytes of the memfd */
    uint64_t data_offset; /* start of region 0; a multiple of 4096 */
    uint64_t arena_offset; /* within region 0: depth * RS_AUX_SIZE rounded up to 4096 */
    uint64_t reserved[3];
};

/* Written by one side only; the other side's line is never written. */
struct rs_ring_line {
    _Atomic uint32_t index;     /* producer: entries published; consumer: entries taken */
    _Atomic uint32_t need_wake; /* consumer lines: 1: send a byte on the wake socket after the next publish */
    uint32_t reserved[14];
};

struct rs_ring_control {
    struct rs_ring_geometry geometry;
    struct rs_ring_line sq_producer; /* client */
    struct rs_ring_line sq_consumer; /* service */
    struct rs_ring_line cq_producer; /* service */
    struct rs_ring_line cq_consumer; /* client */
};

enum rs_op {
    RS_OP_TRANSFORM = 1,
    RS_OP_CANCEL = 2, /* waiting jobs whose user_data equals src_tweak are cancelled; completes itself with 0 */
    RS_OP_NOP = 3,    /* completes with 0: a round trip without work */
};

struct rs_sqe {
    uint8_t op;         /* enum rs_op */
    uint8_t flags;      /* 0 */
    uint8_t in_region;  /* 0: the queue's own */
    uint8_t out_region;
    uint32_t session;   /* handle from SESSION_OPEN: generation << 16 | slot */
    uint64_t user_data;
    uint64_t in_off;    /* within the region */
    uint64_t out_off;
    uint32_t len;       /* bytes of input */
    uint32_t out_cap;   /* bytes the output may take */
    uint64_t src_tweak; /* XTS: tweak of the first data unit */
    uint64_t dst_tweak;
    uint32_t aux;       /* auxiliary block: byte offset in region 0, a multiple of 64; RS_AUX_NONE */
    uint32_t raw_len;   /* DECOMPRESS: bytes the plaintext must have */
};

struct rs_cqe {
    uint64_t user_data;
    int32_t status;     /* 0 or RESEAL_E... */
    uint32_t out_len;   /* bytes written to the output */
    uint64_t reserved[6];
};

/* One GCM side in an auxiliary block. */
struct rs_aux_record {
    uint8_t iv[12];
    uint32_t aad_len;   /* 0 to 128 */
    uint8_t tag[16];
    uint8_t salt[16];
    uint64_t counter;
    uint32_t derive;    /* source: 1: the key is HKDF(key, salt) */
    uint32_t reserved;
    uint8_t aad[128];
};

/* Inputs are copied once by the service; results are written before the completion is published. */
struct rs_aux {
    struct rs_aux_record source;      /* in */
    struct rs_aux_record destination; /* aad in; iv, tag, salt, counter and aad out */
    uint8_t digest[32];               /* out */
    uint32_t zero_units;              /* out: bits in the map */
    uint32_t reserved[119];
    uint8_t zero_map[RS_ZERO_MAP_MAX]; /* out */
};

_Static_assert(sizeof(struct rs_ring_geometry) == 64, "geometry is one line");
_Static_assert(sizeof(struct rs_ring_line) == 64, "a line is a line");
_Static_assert(sizeof(struct rs_ring_control) == 320, "five lines");
_Static_assert(sizeof(struct rs_sqe) == RS_RING_ENTRY, "submission entry");
_Static_assert(sizeof(struct rs_cqe) == RS_RING_ENTRY, "completion entry");
_Static_assert(sizeof(struct rs_aux_record) == 192, "record of a side");
_Static_assert(sizeof(struct rs_aux) <= RS_AUX_SIZE, "auxiliary block");

#endif
