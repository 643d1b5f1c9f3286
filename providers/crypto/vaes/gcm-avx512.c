/* SPDX-License-Identifier: Apache-2.0 */
/* GCM with VAES and VPCLMULQDQ on 512 bits. */
#include "providers/crypto/vaes/forget.h"
#include "providers/crypto/vaes/gcm.h"
#include "providers/crypto/vaes/vector-avx512.h"
#include "providers/crypto/vaes/xts-bases.h"

#define RUN     rs_gcm_run_avx512
#define XTS_RUN rs_xts_run_avx512
#define BASES   rs_tweak_bases_avx512

#include "providers/crypto/vaes/gcm-kernel.h"
#include "providers/crypto/vaes/gcm-run.h"
