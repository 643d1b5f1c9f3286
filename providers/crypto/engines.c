/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/engine.h"

/* Two halves, so that the copy of one verified record runs under the next, and 16 KiB for what else a kernel keeps
 * that is secret: tweaks, counter tables. */
size_t rs_engine_scratch_size(size_t len) { return 2 * rs_round_up(len, 4096) + 16384; }
