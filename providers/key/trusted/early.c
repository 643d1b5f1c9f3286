/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libjose uses libcrypto in its constructors, and what libcrypto allocated once cannot be moved to key
 * memory. So key memory is set up before the constructors of any library: from .preinit_array, which
 * a program has and a library has not.
 */
#include "offload/base/keymem.h"
#include "offload/base/sandbox.h"
#include "providers/crypto/openssl_memory.h"
#include "providers/key/trusted/daemon.h"
#include "reseal/reseal.h"

#define ARENA (8u << 20) /* frames of 64 KiB for each of 32 connections, and TLS */

static int state = RESEAL_EINVAL;

/* A sanitizer is not ready as early as that: such a build keeps libcrypto in the ordinary heap. */
#if !RS_SANITIZED
static void early(int argc, char **argv, char **env)
{
    (void)argc, (void)argv, (void)env;
    state = rs_keymem_init(ARENA);
    if (state == 0) state = rs_keymem_hook_openssl();
}

__attribute__((section(".preinit_array"), used)) static void (*const hook)(int, char **, char **) = early;
#endif

int rs_daemon_key_memory(void)
{
    if (RS_SANITIZED) state = rs_keymem_init(ARENA);
    return state;
}
