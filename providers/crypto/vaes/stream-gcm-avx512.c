/* SPDX-License-Identifier: Apache-2.0 */
/* Streaming GCM with VAES and VPCLMULQDQ on 512 bits. */
#include "providers/crypto/vaes/forget.h"
#include "providers/crypto/vaes/gcm.h"
#include "providers/crypto/vaes/stream-kernels.h"
#include "providers/crypto/vaes/vector-avx512.h"
#include "providers/crypto/vaes/xts-bases.h"

#define GCM_POWERS  rs_stream_gcm_powers_avx512
#define GCM_START   rs_stream_gcm_start_avx512
#define GCM_AAD     rs_stream_gcm_aad_avx512
#define GCM_ENCRYPT rs_stream_gcm_encrypt_avx512
#define GCM_DECRYPT rs_stream_gcm_decrypt_avx512
#define GCM_TAG     rs_stream_gcm_tag_avx512

#include "providers/crypto/vaes/stream-gcm.h"
