/* SPDX-License-Identifier: Apache-2.0 */
/* GCM with VAES and VPCLMULQDQ on 256 bits. */
#include "providers/crypto/vaes/forget.h"
#include "providers/crypto/vaes/gcm-bases.h"
#include "providers/crypto/vaes/gcm.h"
#include "providers/crypto/vaes/vector-avx2.h"

#define RUN     rs_gcm_run_avx2
#define XTS_RUN rs_xts_run_avx2
#define BASES   rs_tweak_bases_aesni

#include "providers/crypto/vaes/gcm-kernel.h"
#include "providers/crypto/vaes/gcm-run.h"
