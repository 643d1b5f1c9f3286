/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_LUKS_TASKS_H
#define RS_KEY_LUKS_TASKS_H

/*
 * What is done with LUKS headers for disk.* (vm-disks.c), each in a closed
 * task. KEKs are not in them: reseal-keyd derives the pass phrase of a key slot and
 * gives that. Descriptor 0 is the client's header (`make`: the pass phrase of the owner), 1 the owner's pass
 * phrase.
 *
 * Every result has "luks": {"version", "unit", "key_bits", "step", "first_tweak", "data_offset", "data_size",
 * "header_size", "keyslot", "uuid", "cipher"}. OLD stands for args "keyslot" (-1: not known) and the secrets
 * "phrase" and "phrase-recovery", of which one opens it (luks-token.h); then "recovery" in the result says
 * which.
 *
 *   read     {"token": true: it must have one}      -> of a LUKS2 token "provider", "key", "keyslot"; "slot":
 * what opens a slot of our own form, NULL: another form open     OLD, "uuid": it must have, "": any     ->
 * secret "volume" or OLD, "luks" and "slot" as `read` gave them: the header is not loaded anew make
 * {"version", "unit", "key_bits", "data_offset", "data_size", "detached": the data is elsewhere, and begins
 * at byte 0 where no offset is given, "label", "uuid", "provider", "key", "recovery": a pass phrase is there
 * too, "pbkdf_ms"}, secret "phrase"  -> secret "volume", out_fd rewrap   OLD, "provider", "key", secrets
 * "new", "new-recovery"     -> out_fd adopt    {"provider", "key"}, secret "phrase"   -> "keyslot", out_fd
 *   release  OLD, "pbkdf_ms"                        -> out_fd
 *   tell     OLD; descriptor 1 is the pipe that the phrase is written to
 */

#include "providers/key/task.h"

extern const struct rs_task_kind rs_task_luks_read, rs_task_luks_open, rs_task_luks_make, rs_task_luks_rewrap,
    rs_task_luks_adopt, rs_task_luks_release, rs_task_luks_tell;

#endif
