/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_DISK_LUKS_H
#define RS_VM_DISK_LUKS_H

/* What a LUKS header says without a key: enough to show a disk and to know which key to ask for. Whether it
 * is sound, libcryptsetup decides in the key service. */

#include "offload/vm/disk.h"

#define RS_LUKS_START 512u /* bytes that both of these look at first */

/* 0 or RESEAL_EFORMAT. A size of 0 in the result: to the end of the file. */
RS_MUST_CHECK int rs_disk_luks1(const uint8_t start[RS_LUKS_START], struct rs_disk *disk);
/* The same, with its JSON area from the descriptor; RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_disk_luks2(int fd, const uint8_t start[RS_LUKS_START], struct rs_disk *disk);

#endif
