/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_VM_HOME_TASKS_H
#define RS_KEY_VM_HOME_TASKS_H

/*
 * What is done with the locked texts of a VM's home for home.* (vm-homes.c),
 * each in a closed task. Foreign text is read by `read`, which has no key; LOCKS stands for what it found.
 *
 *   read     {"keySafe", "bundle": may be "", "phrase": true for one that a pass phrase locks}
 *            -> LOCKS: "safe": lock, "bundle": lock, and "provider", "key" of both
 *   open     LOCKS, "check": true: nothing is given out; secret "kek"; descriptor 0: encryption.data
 *            -> out_fd: the lines
 *   phrase   LOCKS; descriptors encryption.data, pass phrase      -> out_fd: the lines
 *            both with "node" and "file" (empty: none any more): the lines are not given out, but get that
 *            disk (offload/vm/nodes.h) and are locked again under the key that they have
 *                                                               -> out_fd: encryption.data
 *   seal     {"provider", "key", "bundle": lock of one to keep}, secrets "kek", and "old" for the bundle;
 *            descriptor 0: the lines -> "keySafe", "bundle", out_fd: encryption.data
 *            with "to_phrase": true descriptor 1 is the pass phrase, and there is no bundle and no secret
 *   rewrap   LOCKS, "provider", "key"; secrets "kek", "new"       -> "keySafe", "bundle"
 *            with "to_phrase": true; secret "kek"; descriptor 0: pass phrase -> "keySafe"
 */

#include "providers/key/task.h"

extern const struct rs_task_kind rs_task_home_read, rs_task_home_open, rs_task_home_phrase, rs_task_home_seal,
    rs_task_home_rewrap;

#endif
