/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_GCM_H
#define RS_VAES_GCM_H

/* What the GCM kernels of the three instruction sets share. */

#include "offload/include/reseal/reseal.h"
#include "providers/crypto/vaes/key.h"

/* x^128 + x^127 + x^126 + x^121 + 1, bit-reflected: the upper half; the lower is 1. */
#define RS_GHASH_POLY 0xc200000000000000ull

/* The power H^n (n = 1 to 68) is key->ghash[RS_GHASH_AT(n)]: descending, so that neighbouring lanes get
 * neighbouring powers with one load. */
#define RS_GHASH_AT(n) (RS_GHASH_POWERS - (n))

/* Records from this length on build the table of counter blocks after two rounds. */
#define RS_GCM_TABLE_FROM 16384u

/* Bytes at the start of the scratch that are not for waiting records. */
#define RS_GCM_FRAME 20480u

/* Runs of whole such pieces have fused kernels between XTS and GCM. */
#define RS_XTS_FLIGHT 512u

#endif
