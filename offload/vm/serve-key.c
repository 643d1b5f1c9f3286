/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/base/clock.h"
#include "offload/vm/serve-internal.h"

/* A key that could not be opened again is tried again after this. */
#define AGAIN_NS 1000000000ull

static int open_session(struct rs_vmserve *s, const struct rs_vs_disk *d, bool seal, reseal_session **out)
{
    struct reseal_side xts = {
        .cipher = RESEAL_XTS, .unit = d->luks.unit, .step = d->luks.step, .key = d->key};
    struct reseal_side plain = {.cipher = RESEAL_PLAIN, .unit = d->luks.unit};
    struct reseal_transform t = {.size = sizeof(t),
                                 .counter_at = RESEAL_NO_COUNTER,
                                 .source = seal ? plain : xts,
                                 .destination = seal ? xts : plain};
    return reseal_session_open(s->o.service, &t, out);
}

static int open_sessions(struct rs_vmserve *s, struct rs_vs_disk *d)
{
    int code = open_session(s, d, false, &d->open);
    if (code == 0 && !d->spec->read_only) code = open_session(s, d, true, &d->seal);
    return code;
}

void rs_vs_key_close(struct rs_vs_disk *d)
{
    reseal_session_close(d->open);
    reseal_session_close(d->seal);
    d->open = d->seal = NULL;
}

/* A key that nobody uses any more counts for its user until it is closed; one that went with the service is
 * not known there. */
static void give_up(struct rs_vmserve *s, struct rs_vs_disk *d)
{
    rs_vs_key_close(d);
    if (d->has_key) (void)reseal_key_close(s->o.service, d->key);
    d->has_key = false;
}

int rs_vs_key_open(struct rs_vmserve *s, unsigned disk)
{
    struct rs_vs_disk *d = &s->disks[disk];
    struct reseal_luks luks = {.size = sizeof(luks)};
    reseal_key key;
    int code = s->o.open_key(s->o.arg, disk, &key, &luks);
    if (code != 0) return code;
    /* The same header, or what is read with this key would not be what was written with the last one. */
    if (d->keys != 0 && (luks.unit != d->luks.unit || luks.step != d->luks.step ||
                         luks.first_tweak != d->luks.first_tweak || luks.data_offset != d->luks.data_offset ||
                         memcmp(luks.uuid, d->luks.uuid, sizeof(luks.uuid)) != 0)) {
        (void)reseal_key_close(s->o.service, key);
        return RESEAL_EFORMAT;
    }
    give_up(s, d);
    d->luks = luks;
    d->key = key;
    d->has_key = true;
    code = open_sessions(s, d);
    if (code == 0)
        d->keys++;
    else
        give_up(s, d);
    return code;
}

bool rs_vs_key_again(struct rs_vmserve *s, struct rs_vs_disk *d)
{
    uint64_t now = rs_now_ns();
    if (d->no_key_ns != 0 && now - d->no_key_ns < AGAIN_NS) return false;
    int code = rs_vs_key_open(s, (unsigned)(d - s->disks));
    if (code == 0) {
        rs_vs_say(s, "disk %s: its key was opened again", d->spec->name);
        d->no_key_ns = 0;
        return true;
    }
    if (d->no_key_ns == 0)
        rs_vs_say(s, "disk %s: requests fail, its key cannot be opened again: %s", d->spec->name,
                  reseal_strerror(code));
    d->no_key_ns = now;
    return false;
}
