/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_H
#define RS_VAES_H

/* Our own kernels, one engine for each instruction set; prepared keys are the same for all three (key.h). */

#include "providers/crypto/engine.h"

extern const struct rs_engine rs_engine_vaes_avx512; /* "vaes-avx512": VAES and VPCLMULQDQ on 512 bits */
extern const struct rs_engine rs_engine_vaes_avx2;   /* "vaes-avx2": VAES and VPCLMULQDQ on 256 bits */
extern const struct rs_engine rs_engine_aesni;       /* "vaes-aesni": AES-NI and PCLMULQDQ */

#endif
