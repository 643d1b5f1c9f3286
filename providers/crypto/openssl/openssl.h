/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_OPENSSL_ENGINE_H
#define RS_OPENSSL_ENGINE_H

#include "providers/crypto/engine.h"

/*
 * The portable engine, and the second opinion on every other: every pair of
 * sides through EVP, in two passes. A prepared key holds two EVP contexts,
 * made once; a run only sets IVs. The contexts, and with them copies of the
 * key schedule, are OpenSSL's memory: a process that must keep keys out of its
 * heap gives OpenSSL an allocator over key memory (CRYPTO_set_mem_functions)
 * before anything else.
 */
extern const struct rs_engine rs_engine_openssl;

#endif
