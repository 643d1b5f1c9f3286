/* SPDX-License-Identifier: Apache-2.0 */
/* Streaming CTR with VAES on 256 bits. */
#include "providers/crypto/vaes/forget.h"
#include "providers/crypto/vaes/stream-kernels.h"
#include "providers/crypto/vaes/vector-avx2.h"

#define CTR rs_stream_ctr_avx2

#include "providers/crypto/vaes/stream-ctr.h"
