/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/base/clock.h"
#include "offload/vm/serve-internal.h"

/* While there are requests, files are looked at this often. */
#define TICK_NS 100000000u

/* The data that a file of this size has, as its header says or to its end: whole grains. */
static uint64_t visible(const struct rs_vs_disk *d, uint64_t file_size)
{
    const struct reseal_luks *l = &d->luks;
    uint64_t there = file_size > l->data_offset ? file_size - l->data_offset : 0;
    uint64_t size = l->data_size != 0 ? RS_MIN(l->data_size, there) : there;
    uint64_t grain = RS_MAX(d->grain, 512u);
    return size / grain * grain;
}

int rs_vs_size_at_start(struct rs_vs_disk *d)
{
    const struct reseal_luks *l = &d->luks;
    uint64_t file_size = d->spec->size;
    if (l->data_offset > file_size || l->data_size > file_size - l->data_offset) return RESEAL_EFORMAT;
    d->export->size = visible(d, file_size);
    return d->export->size == 0 ? RESEAL_EFORMAT : 0;
}

static void look(struct rs_vmserve *s, unsigned i, bool header)
{
    struct rs_vs_disk *d = &s->disks[i];
    uint64_t *data_size = header ? &d->luks.data_size : NULL;
    uint64_t old = d->export->size, size = visible(d, s->o.size_of(s->o.arg, i, data_size));
    if (size == old) return;
    d->export->size = size;
    rs_vs_say(s, "disk %s: %llu bytes now, %llu before: %s", d->spec->name, (unsigned long long)size,
              (unsigned long long)old,
              size > old ? "clients that connect anew see it" : "requests beyond its end are refused");
}

void rs_vs_sizes_look(struct rs_vmserve *s, bool headers)
{
    s->sized_ns = rs_now_ns();
    for (unsigned i = 0; s->o.size_of != NULL && i < s->o.count; i++)
        /* QEMU has the size of a qcow2 image as it was when it opened it. */
        if (s->disks[i].spec->image == NULL) look(s, i, headers);
}

void rs_vs_sizes_tick(struct rs_vmserve *s)
{
    if (rs_now_ns() - s->sized_ns >= TICK_NS) rs_vs_sizes_look(s, false);
}
