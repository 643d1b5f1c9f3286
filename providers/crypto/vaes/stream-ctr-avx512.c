/* SPDX-License-Identifier: Apache-2.0 */
/* Streaming CTR with VAES on 512 bits. */
#include "providers/crypto/vaes/forget.h"
#include "providers/crypto/vaes/stream-kernels.h"
#include "providers/crypto/vaes/vector-avx512.h"

#define CTR rs_stream_ctr_avx512

#include "providers/crypto/vaes/stream-ctr.h"
