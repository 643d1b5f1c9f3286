/* SPDX-License-Identifier: Apache-2.0 */
/* Streaming GCM with AES-NI and PCLMULQDQ. */
#include "providers/crypto/vaes/forget.h"
#include "providers/crypto/vaes/gcm.h"
#include "providers/crypto/vaes/stream-kernels.h"
#include "providers/crypto/vaes/vector-aesni.h"
#include "providers/crypto/vaes/xts-bases.h"

#define GCM_POWERS  rs_stream_gcm_powers_aesni
#define GCM_START   rs_stream_gcm_start_aesni
#define GCM_AAD     rs_stream_gcm_aad_aesni
#define GCM_ENCRYPT rs_stream_gcm_encrypt_aesni
#define GCM_DECRYPT rs_stream_gcm_decrypt_aesni
#define GCM_TAG     rs_stream_gcm_tag_aesni

#include "providers/crypto/vaes/stream-gcm.h"
