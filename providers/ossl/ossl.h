/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_OSSL_H
#define RS_OSSL_H

/*
 * The OpenSSL 3 provider "reseal": what its files share. Everything is in the
 * static library rs_ossl, so that tests, the fuzzer and the benchmark can add
 * it as a built-in (OSSL_PROVIDER_add_builtin(ctx, "reseal", rs_ossl_init));
 * module.c makes reseal.so of it. (docs/openssl-provider.md)
 */

#include "offload/base/bytes.h"

#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <stdbool.h>
#include <stddef.h>

struct rs_stream;

/* The provider of one library context. (provider.c) */
struct rs_ossl {
    const OSSL_CORE_HANDLE *handle;
    OSSL_LIB_CTX *libctx; /* the application's; NULL: its default one, or it is foreign */
    bool foreign;         /* the application has another libcrypto than the one that we are linked with */
    char engine[32];      /* "engine" of the configuration: "auto", a kernel set's name, or "openssl" */
    OSSL_ALGORITHM ciphers[9];       /* as chosen; made at the first query */
    const struct rs_stream *kernels; /* that our implementations use; never NULL when they are reached */
    char text[320];                  /* rs_ossl_choice_text() */
    bool chosen;                     /* atomic: what rs_ossl_choose() makes is there */
};

/* provider(7): the entry point. */
OSSL_provider_init_fn rs_ossl_init;

/* Random bytes, at most 256, as the default provider would draw them: from the application's library context.
 * From the kernel when that is foreign. False: there are none, and `out` may be changed. Threads: any. */
bool rs_ossl_random(const struct rs_ossl *p, uint8_t *out, size_t len);

/* ---- ciphers: our implementations (gcm.c, xts.c, ctr.c) --------------------- */

extern const OSSL_DISPATCH rs_ossl_aes128gcm[], rs_ossl_aes192gcm[], rs_ossl_aes256gcm[];
extern const OSSL_DISPATCH rs_ossl_aes128xts[], rs_ossl_aes256xts[];
extern const OSSL_DISPATCH rs_ossl_aes128ctr[], rs_ossl_aes192ctr[], rs_ossl_aes256ctr[];

/* ---- which implementation is offered (choice.c) ------------------------------ */

/*
 * Fills p->ciphers: each algorithm with our implementation or with that of
 * OpenSSL's own default provider, whichever is faster on this CPU with this
 * libcrypto: raced once in a process, in a millisecond or two. The
 * configuration's "engine", or RESEAL_OSSL_ENGINE in the environment (tests),
 * decides instead: "openssl" delegates all. Delegated algorithms are the
 * default provider's own functions, with nothing in between but newctx and a
 * look at the halves of XTS keys.
 * Cheap when it is done already. Threads: any, at once.
 */
void rs_ossl_choose(struct rs_ossl *p);

/* One line: "AES-256-GCM=vaes-avx512 AES-256-XTS=openssl ...". Valid as long as p. */
const char *rs_ossl_choice_text(struct rs_ossl *p);

/* At the teardown of p; the last one frees what choosing made in the process. */
void rs_ossl_choice_release(struct rs_ossl *p);

/* ---- memory of contexts (memory.c) -------------------------------------------- */

/* "key-memory" of the configuration, before acquire(): "auto", or the kind to begin with. The first provider
 * of a process decides. False: unknown. */
bool rs_ossl_memory_prefer(const char *kind);

/* Key memory of the module, 4 MiB or half of the limit of locked memory where that is less: survives a fork
 * (each process has its own copy). Reference counted over providers. */
void rs_ossl_memory_acquire(void);
void rs_ossl_memory_release(void);

/* "secret", "locked" or "plain": the weakest that a context lies in at this moment. */
const char *rs_ossl_memory_kind(void);

/* Zeroed, 64-byte aligned; key memory as long as there is some, then ordinary memory kept out of dumps.
 * NULL when memory is out. */
void *rs_ossl_alloc(size_t len);

/* Wipes and frees what rs_ossl_alloc(len) gave. NULL is allowed. */
void rs_ossl_free(void *p, size_t len);

#endif
