/* SPDX-License-Identifier: Apache-2.0 */
/* GCM with AES-NI and PCLMULQDQ. */
#include "providers/crypto/vaes/forget.h"
#include "providers/crypto/vaes/gcm-bases.h"
#include "providers/crypto/vaes/gcm.h"
#include "providers/crypto/vaes/vector-aesni.h"

#define RUN     rs_gcm_run_aesni
#define XTS_RUN rs_xts_run_aesni
#define BASES   rs_tweak_bases_aesni

#include "providers/crypto/vaes/gcm-kernel.h"
#include "providers/crypto/vaes/gcm-run.h"
