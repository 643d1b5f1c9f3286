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

/*
 * For a process that forks others, has no key, and never will have one: libcrypto allocates in ordinary
 * memory, to build its tables of algorithms once. A child calls rs_keymem_init() and
 * rs_keymem_hook_openssl(): what is allocated from then on lies in key memory. Nothing that holds a secret
 * may be made before, random numbers included. 0, RESEAL_EBUSY.
 */
RS_MUST_CHECK int rs_keymem_hook_tables(void);

#endif
