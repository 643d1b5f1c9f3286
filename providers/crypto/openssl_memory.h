/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CRYPTO_OPENSSL_MEMORY_H
#define RS_CRYPTO_OPENSSL_MEMORY_H

/*
 * Puts everything that libcrypto allocates into key memory. Its own secure
 * heap is not enough: key schedules inside cipher contexts stay outside it.
 */

#include "offload/base/bytes.h"

/*
 * Call it after rs_keymem_init() and before anything else of libcrypto; a second call does no
 * harm. 0, RESEAL_EINVAL (no key memory yet), RESEAL_EBUSY (libcrypto has allocated already).
 */
RS_MUST_CHECK int rs_keymem_hook_openssl(void);

#endif
