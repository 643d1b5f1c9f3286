/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/engine.h"

size_t rs_engine_scratch_size(size_t len) { return 2 * rs_round_up(len, 4096) + 4096; }
