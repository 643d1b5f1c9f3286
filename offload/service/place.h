/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_SERVICE_PLACE_H
#define RS_SERVICE_PLACE_H

/*
 * Where workers run: which logical processors, by hwloc. One per physical
 * core first; the first core of the machine, where interrupts and everybody
 * else run, last.
 */

#include "offload/base/bytes.h"

/*
 * Chooses processors for workers into cpus[max]; returns how many (at least
 * one). `list` ("1,3-5") names them; else `workers` says how many; both absent
 * (NULL, 0): all allowed cores but one, at least one. With a single allowed
 * processor the one entry is -1: not pinned, so that clients can run too.
 * Negative RESEAL_EINVAL: a list that cannot be read, or names a processor
 * that is not allowed.
 */
RS_MUST_CHECK int rs_place_workers(int *cpus, unsigned max, unsigned workers, const char *list);

#endif
