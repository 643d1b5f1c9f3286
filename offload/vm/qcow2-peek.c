/* SPDX-License-Identifier: Apache-2.0 */
/* Two tables lead from a byte of the virtual disk to its cluster: numbers, big-endian, of 64 bits. */
#include <errno.h>

#include "offload/vm/qcow2.h"

#define OFFSET_BITS 0x00fffffffffffe00ull /* of an entry: where in the file */
#define COPIED      (1ull << 63)          /* nobody else has it: says nothing to who reads */
#define ZEROS       1ull                  /* of the second table, since version 3 */
#define ENTRY       8u

/* An entry of a table at `table`; -ENOTSUP when it is not in the file. */
static int entry(const struct rs_qcow2_peek *p, uint64_t table, uint64_t index, uint64_t *out)
{
    uint8_t raw[ENTRY];
    if (index > UINT64_MAX / ENTRY || !rs_range_ok(table, (index + 1) * ENTRY, p->file_size)) return -ENOTSUP;
    int code = rs_pread_full(p->fd, raw, sizeof(raw), table + index * ENTRY);
    *out = rs_load_be64(raw);
    return code;
}

/* Where a cluster is; 0: it is not stored. Bits that are not known, compressed ones too, are QEMU's business,
 * as is what does not lie in the file. */
static int find(const struct rs_qcow2_peek *p, uint64_t cluster, uint64_t *at)
{
    uint64_t per_table = p->facts.cluster / ENTRY, first = 0, second = 0;
    *at = 0;
    if (cluster / per_table >= p->facts.l1_len) return -ENOTSUP;
    int code = entry(p, p->facts.l1_at, cluster / per_table, &first);
    if (code != 0) return code;
    uint64_t table = first & OFFSET_BITS;
    if ((first & ~(OFFSET_BITS | COPIED)) != 0 || table % p->facts.cluster != 0) return -ENOTSUP;
    if (table == 0) return 0;
    code = entry(p, table, cluster % per_table, &second);
    if (code != 0) return code;
    uint64_t zeros = p->facts.version >= 3 ? ZEROS : 0, data = second & OFFSET_BITS;
    if ((second & ~(OFFSET_BITS | COPIED | zeros)) != 0 || data % p->facts.cluster != 0) return -ENOTSUP;
    if (!rs_range_ok(data, p->facts.cluster, p->file_size)) return -ENOTSUP;
    *at = (second & zeros) != 0 ? 0 : data;
    return 0;
}

int rs_qcow2_peek_open(struct rs_qcow2_peek *p, int fd, uint64_t file_size)
{
    uint8_t start[RS_QCOW2_HEADER];
    *p = (struct rs_qcow2_peek){.fd = fd, .file_size = file_size};
    if (file_size < sizeof(start)) return -ENOTSUP;
    int code = rs_pread_full(fd, start, sizeof(start), 0);
    if (code != 0) return code;
    if (rs_qcow2_facts(start, sizeof(start), &p->facts) != 0 || p->facts.bar != NULL) return -ENOTSUP;
    return p->facts.l1_at % p->facts.cluster == 0 ? 0 : -ENOTSUP;
}

int rs_qcow2_peek(const struct rs_qcow2_peek *p, void *buf, size_t len, uint64_t off)
{
    uint8_t *to = buf;
    if (!rs_range_ok(off, len, p->facts.size)) return -ENODATA;
    while (len > 0) {
        uint64_t in = off % p->facts.cluster, at;
        size_t n = (size_t)RS_MIN((uint64_t)len, p->facts.cluster - in);
        int code = find(p, off / p->facts.cluster, &at);
        if (code == 0 && at != 0) code = rs_pread_full(p->fd, to, n, at + in);
        if (code != 0) return code;
        if (at == 0) memset(to, 0, n);
        to += n;
        off += n;
        len -= n;
    }
    return 0;
}
