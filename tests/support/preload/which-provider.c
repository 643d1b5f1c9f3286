/* SPDX-License-Identifier: Apache-2.0 */

/*
 * For LD_PRELOAD: says which provider's ciphers a program and the libssl below
 * it really fed data to. At exit, and in each process that it forked, one line
 * "PROVIDER CIPHER seal|open BYTES" a cipher and direction goes to the end of
 * the file WHICH_PROVIDER, which is opened at the start: workers that dropped
 * their rights can still write it. Data only: no AAD, no TLS record header.
 */

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/provider.h>

#define ROWS 64u

struct row {
    char provider[32], cipher[32];
    int sealing;
    uint64_t bytes;
};

static struct row rows[ROWS];
static unsigned used;
static int lock; /* spun on: what it guards is a few compares */
static int log_fd = -1;

static int (*real_cipher_update)(EVP_CIPHER_CTX *, unsigned char *, int *, const unsigned char *, int);
static int (*real_encrypt_update)(EVP_CIPHER_CTX *, unsigned char *, int *, const unsigned char *, int);
static int (*real_decrypt_update)(EVP_CIPHER_CTX *, unsigned char *, int *, const unsigned char *, int);
static int (*real_cipher)(EVP_CIPHER_CTX *, unsigned char *, const unsigned char *, unsigned int);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("WHICH_PROVIDER");
    *(void **)&real_cipher_update = dlsym(RTLD_NEXT, "EVP_CipherUpdate");
    *(void **)&real_encrypt_update = dlsym(RTLD_NEXT, "EVP_EncryptUpdate");
    *(void **)&real_decrypt_update = dlsym(RTLD_NEXT, "EVP_DecryptUpdate");
    *(void **)&real_cipher = dlsym(RTLD_NEXT, "EVP_Cipher");
    if (path != NULL) log_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

__attribute__((destructor)) static void end(void)
{
    for (unsigned i = 0; i < used && log_fd >= 0; i++) {
        const struct row *r = &rows[i];
        char line[128];
        int len = snprintf(line, sizeof(line), "%s %s %s %llu\n", r->provider, r->cipher,
                           r->sealing ? "seal" : "open", (unsigned long long)r->bytes);
        if (len <= 0 || write(log_fd, line, (size_t)len) != len) _exit(125);
    }
}

static void add(const EVP_CIPHER_CTX *ctx, uint64_t bytes)
{
    const EVP_CIPHER *cipher = EVP_CIPHER_CTX_get0_cipher(ctx);
    const OSSL_PROVIDER *provider = cipher == NULL ? NULL : EVP_CIPHER_get0_provider(cipher);
    const char *whose = provider == NULL ? "none" : OSSL_PROVIDER_get0_name(provider);
    const char *name = cipher == NULL ? "none" : EVP_CIPHER_get0_name(cipher);
    int sealing = EVP_CIPHER_CTX_is_encrypting(ctx);
    unsigned i = 0;
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
        ;
    while (i < used && (rows[i].sealing != sealing || strcmp(rows[i].provider, whose) != 0 ||
                        strcmp(rows[i].cipher, name) != 0))
        i++;
    if (i == used && used < ROWS) {
        snprintf(rows[i].provider, sizeof(rows[i].provider), "%s", whose);
        snprintf(rows[i].cipher, sizeof(rows[i].cipher), "%s", name);
        rows[i].sealing = sealing;
        used++;
    }
    if (i < used) rows[i].bytes += bytes;
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

int EVP_CipherUpdate(EVP_CIPHER_CTX *ctx, unsigned char *out, int *outl, const unsigned char *in, int inl)
{
    if (out != NULL && inl > 0) add(ctx, (uint64_t)inl);
    return real_cipher_update(ctx, out, outl, in, inl);
}

int EVP_EncryptUpdate(EVP_CIPHER_CTX *ctx, unsigned char *out, int *outl, const unsigned char *in, int inl)
{
    if (out != NULL && inl > 0) add(ctx, (uint64_t)inl);
    return real_encrypt_update(ctx, out, outl, in, inl);
}

int EVP_DecryptUpdate(EVP_CIPHER_CTX *ctx, unsigned char *out, int *outl, const unsigned char *in, int inl)
{
    if (out != NULL && inl > 0) add(ctx, (uint64_t)inl);
    return real_decrypt_update(ctx, out, outl, in, inl);
}

int EVP_Cipher(EVP_CIPHER_CTX *ctx, unsigned char *out, const unsigned char *in, unsigned int inl)
{
    if (out != NULL && inl > 0) add(ctx, inl);
    return real_cipher(ctx, out, in, inl);
}
