/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a LUKS2 header says of a key slot, as strangers may write it: what is taken for a slot of our form
 * opens as such, or is refused, also by what of it goes from one task to the next. Ten rounds at most, for
 * speed.
 */
#include "providers/key/luks-slot.h"
#include "offload/base/keymem.h"
#include "reseal/reseal.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fewer_rounds(json_t *value)
{
    const char *name;
    json_t *member;
    json_object_foreach(value, name, member)
    {
        if (strcmp(name, "iterations") == 0 && json_integer_value(member) > 10)
            (void)json_integer_set(member, 10);
        fewer_rounds(member);
    }
}

static int open_slot(const json_t *header, int slot, int fd, uint32_t bits, struct rs_source_yield *y)
{
    memset(y, 0, sizeof(*y));
    y->luks.version = 2;
    y->luks.key_bits = bits;
    int r = rs_luks_slot_open(fd, header, slot, "phrase", 6, y);
    if (r > 0 || (r != 0 && y->key_len != 0)) abort();
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rs_source_yield *y;
    static int fd = -1;
    if (y == NULL) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        if (fd < 0 || ftruncate(fd, 1 << 20) != 0 || rs_keymem_init(0) != 0) abort();
        y = rs_keymem_alloc(sizeof(*y));
        if (y == NULL) abort();
    }
    json_t *header = json_loadb((const char *)data, size, 0, NULL);
    if (header == NULL) return 0;
    fewer_rounds(header);
    for (int slot = 0; slot < 3; slot++)
        for (uint32_t bits = 128; bits <= 256; bits += 128) {
            json_t *one = rs_luks_slot_json(header, slot);
            int whole = open_slot(header, slot, fd, bits, y);
            if (one == NULL ? whole != RESEAL_ENOSUPPORT : open_slot(one, slot, fd, bits, y) != whole)
                abort();
            json_decref(one);
        }
    json_decref(header);
    return 0;
}
