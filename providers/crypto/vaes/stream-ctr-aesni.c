/* SPDX-License-Identifier: Apache-2.0 */
/* Streaming CTR with AES-NI. */
#include "providers/crypto/vaes/forget.h"
#include "providers/crypto/vaes/stream-kernels.h"
#include "providers/crypto/vaes/vector-aesni.h"

#define CTR rs_stream_ctr_aesni

#include "providers/crypto/vaes/stream-ctr.h"
