/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_LUKS_SLOT_H
#define RS_KEY_LUKS_SLOT_H

/*
 * Opens a LUKS2 key slot of the form that we make: PBKDF2 of few rounds, AES-XTS, 4000 stripes of SHA-256. It
 * goes by the JSON that libcryptsetup has loaded and checked, or by the part of it that is about the slot.
 * libcryptsetup itself looks its hash function up 16,000 times for a slot, which takes ten times as long as
 * the work; what opens a thousand disks cannot wait for that.
 */

#include "providers/key/luks.h"

/* What a header says of one slot, and no more: enough for rs_luks_slot_open(). The caller's to release; NULL:
 * there is no such slot, or it has another form. */
json_t *rs_luks_slot_json(const json_t *header, int slot);

/*
 * The volume key, as rs_luks_volume_key(), by a slot of the header in file `from`. RESEAL_ENOSUPPORT: the
 * slot has another form; RESEAL_EPASS; RESEAL_EIO, RESEAL_ENOMEM, RESEAL_EKEYBAD.
 */
RS_MUST_CHECK int rs_luks_slot_open(int from, const json_t *header, int slot, const void *pass,
                                    size_t pass_len, struct rs_source_yield *out);

#endif
