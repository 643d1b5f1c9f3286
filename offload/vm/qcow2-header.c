/* SPDX-License-Identifier: Apache-2.0 */
/* The fixed fields of a qcow2 header, by its published specification. */
#include "offload/vm/qcow2.h"
#include "reseal/reseal.h"

/* Where they are. */
#define VERSION      4u
#define BACKING      8u /* of the backing file's name; 0: none */
#define CLUSTER_BITS 20u
#define SIZE         24u
#define CRYPT        32u
#define L1_LEN       36u
#define L1_AT        40u
#define SNAPSHOTS    60u
#define INCOMPATIBLE 72u
#define V2_SIZE      72u

/* Incompatible features, as bits. */
#define DIRTY       (1ull << 0)
#define CORRUPT     (1ull << 1)
#define DATA_FILE   (1ull << 2)
#define COMPRESSION (1ull << 3)

static uint64_t be(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    while (bytes-- > 0) v = v << 8 | *p++;
    return v;
}

bool rs_qcow2_is(const uint8_t *start, size_t len)
{
    return len >= 4 && memcmp(start, "QFI\xfb", 4) == 0;
}

static const char *bar(const struct rs_qcow2_facts *f, bool backed, uint64_t features)
{
    if (f->crypt == 2)
        return "it is encrypted by qcow2 itself, by another program's key: make a plain image of it "
               "(qemu-img "
               "convert -O qcow2) and encrypt that";
    if (f->crypt != 0)
        return "it is encrypted by qcow2's old AES: make a plain image of it (qemu-img convert -O qcow2)";
    if ((features & CORRUPT) != 0) return "it is marked as corrupt: mend it first (qemu-img check -r all)";
    if ((features & DIRTY) != 0)
        return "it was not closed in order: start and stop its VM, or mend it (qemu-img check -r all)";
    if ((features & DATA_FILE) != 0)
        return "its data is in another file: make one image of it (qemu-img convert -O qcow2)";
    if ((features & ~(DIRTY | CORRUPT | DATA_FILE | COMPRESSION)) != 0)
        return "it uses extensions of the format that are not taken: make a plain image of it (qemu-img "
               "convert "
               "-O qcow2)";
    if (backed) return "it has a backing file: make one image of the chain first (qemu-img convert -O qcow2)";
    if (f->snapshots != 0) return "it has internal snapshots: remove them first (qemu-img snapshot -d)";
    return NULL;
}

int rs_qcow2_facts(const uint8_t *start, size_t len, struct rs_qcow2_facts *f)
{
    *f = (struct rs_qcow2_facts){0};
    if (len < V2_SIZE || !rs_qcow2_is(start, len)) return RESEAL_EFORMAT;
    uint64_t version = be(start + VERSION, 4), bits = be(start + CLUSTER_BITS, 4);
    if ((version != 2 && version != 3) || (version == 3 && len < RS_QCOW2_HEADER)) return RESEAL_EFORMAT;
    f->size = be(start + SIZE, 8);
    if (bits < 9 || bits > 21 || f->size == 0 || f->size > INT64_MAX) return RESEAL_EFORMAT;
    f->cluster = 1u << bits;
    f->version = (uint32_t)version;
    f->l1_at = be(start + L1_AT, 8);
    f->l1_len = (uint32_t)be(start + L1_LEN, 4);
    f->crypt = (uint32_t)be(start + CRYPT, 4);
    f->snapshots = (uint32_t)be(start + SNAPSHOTS, 4);
    f->bar = bar(f, be(start + BACKING, 8) != 0, version == 3 ? be(start + INCOMPATIBLE, 8) : 0);
    return 0;
}
