/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program keys contexts of each algorithm through EVP with our kernels, wipes
 * its own copy of the keys, and root reads its memory and a core dump of it:
 * neither a key nor a round key nor a hash key is there, with contexts that are
 * keyed, in the middle of a message, duplicated and freed, and in a child that
 * it forked. The program gets its keys by a descriptor and never reads more.
 */
#include "offload/base/bytes.h"
#include "providers/ossl/ossl.h"
#include "tests/support/needles.h"

#include <errno.h>
#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct {
    const char *name;
    unsigned bits, keys; /* of AES */
} algorithms[] = {{"AES-256-GCM", 256, 1}, {"AES-192-GCM", 192, 1}, {"AES-128-GCM", 128, 1},
                  {"AES-256-XTS", 256, 2}, {"AES-128-XTS", 128, 2}, {"AES-256-CTR", 256, 1},
                  {"AES-192-CTR", 192, 1}, {"AES-128-CTR", 128, 1}};
#define ALGORITHMS RS_ARRAY_LEN(algorithms)

static void must(bool right, const char *what)
{
    if (right) return;
    fprintf(stderr, "ossl-secrets-in-memory: %s failed: %s\n", what, strerror(errno));
    exit(2);
}

/* ---- the program that is looked at -------------------------------------------------- */

enum { KEYED, BEGUN, ENDED, DUPLICATED, STAGES };

static EVP_CIPHER_CTX *contexts[ALGORITHMS][STAGES];

/* Lengths that every kernel meets: whole runs, single blocks, a block that is begun. XTS: units of them. */
static void some_text(EVP_CIPHER_CTX *ctx)
{
    static const int lengths[] = {16384, 1040, 256, 100, 64, 16, 33};
    static uint8_t text[16384 + 16];
    int n;
    for (unsigned i = 0; i < RS_ARRAY_LEN(lengths); i++)
        must(EVP_CipherUpdate(ctx, text, &n, text, lengths[i]) == 1 && n == lengths[i], "update");
}

static void end(EVP_CIPHER_CTX *ctx)
{
    uint8_t tag[16];
    int n;
    must(EVP_CipherFinal_ex(ctx, tag, &n) == 1, "final");
    if (EVP_CIPHER_CTX_get_mode(ctx) == EVP_CIPH_GCM_MODE)
        must(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, tag) == 1, "tag");
}

static EVP_CIPHER_CTX *keyed(const EVP_CIPHER *cipher, const uint8_t *key, int encrypting)
{
    static const uint8_t iv[16] = {1, 2, 3}, aad[13] = {4};
    int n;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    must(ctx != NULL && EVP_CipherInit_ex2(ctx, cipher, key, NULL, encrypting, NULL) == 1 &&
             EVP_CipherInit_ex2(ctx, NULL, NULL, iv, encrypting, NULL) == 1,
         "init");
    if (EVP_CIPHER_get_mode(cipher) == EVP_CIPH_GCM_MODE)
        must(EVP_CipherUpdate(ctx, NULL, &n, aad, sizeof(aad)) == 1, "AAD");
    return ctx;
}

/* One algorithm in all its stages; the other direction, and a context that is gone. */
static void use(unsigned a, const EVP_CIPHER *cipher, const uint8_t *key)
{
    for (unsigned stage = 0; stage < STAGES; stage++) contexts[a][stage] = keyed(cipher, key, 1);
    for (unsigned stage = BEGUN; stage < STAGES; stage++) some_text(contexts[a][stage]);
    end(contexts[a][ENDED]);
    EVP_CIPHER_CTX *copy = EVP_CIPHER_CTX_new();
    must(EVP_CIPHER_CTX_copy(copy, contexts[a][DUPLICATED]) == 1, "copy");
    EVP_CIPHER_CTX_free(contexts[a][DUPLICATED]);
    contexts[a][DUPLICATED] = copy;
    EVP_CIPHER_CTX *other = keyed(cipher, key, 0);
    some_text(other);
    EVP_CIPHER_CTX_free(other);
}

static bool offers_ours(const OSSL_PROVIDER *provider)
{
    char *info = NULL;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_ptr(OSSL_PROV_PARAM_BUILDINFO, &info, 0),
                           OSSL_PARAM_construct_end()};
    must(OSSL_PROVIDER_get_params(provider, params) == 1, "buildinfo");
    const char *engine = getenv("RESEAL_OSSL_ENGINE");
    return strstr(info, "key-memory=secret") != NULL && strstr(info, engine) != NULL;
}

/* Tells "y" on descriptor 4, or "n" when there is nothing to be seen here; keys come on 3; "k": they are in
 * use. */
static int program(void)
{
    uint8_t key[64];
    char c = 'n';
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();
    must(OSSL_PROVIDER_add_builtin(libctx, "reseal", rs_ossl_init) == 1, "add_builtin");
    OSSL_PROVIDER *provider = OSSL_PROVIDER_load(libctx, "reseal");
    must(provider != NULL, "load");
    if (offers_ours(provider)) c = 'y';
    must(write(4, &c, 1) == 1, "telling");
    if (c == 'n') return 0;
    for (unsigned a = 0; a < ALGORITHMS; a++) {
        EVP_CIPHER *cipher = EVP_CIPHER_fetch(libctx, algorithms[a].name, "provider=reseal");
        must(cipher != NULL && rs_read_full(3, key, algorithms[a].keys * algorithms[a].bits / 8) == 0, "key");
        use(a, cipher, key);
        rs_wipe(key, sizeof(key));
    }
    must(fork() >= 0, "fork"); /* both go on */
    for (unsigned a = 0; a < ALGORITHMS; a++) some_text(contexts[a][BEGUN]);
    c = 'k';
    must(write(4, &c, 1) == 1, "telling");
    pause();
    return 0;
}

/* ---- who looks ------------------------------------------------------------------------ */

static void give_keys(int fd)
{
    uint8_t key[64];
    for (unsigned a = 0; a < ALGORITHMS; a++) {
        size_t len = algorithms[a].bits / 8;
        must(getrandom(key, sizeof(key), 0) == (ssize_t)sizeof(key), "getrandom");
        for (unsigned k = 0; k < algorithms[a].keys; k++)
            needles_add_key(key + k * len, algorithms[a].bits, algorithms[a].name);
        must(rs_write_full(fd, key, algorithms[a].keys * len) == 0, "keys");
        if (a == 0) needles_check_scanner(key);
    }
}

static pid_t start(const char *engine, int *keys, int *told)
{
    int down[2], up[2];
    must(pipe(down) == 0 && pipe(up) == 0, "pipe");
    pid_t pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) {
        setenv("RESEAL_OSSL_ENGINE", engine, 1);
        setpgid(0, 0);
        /* Above the two that they become. */
        int in = dup(down[0]), out = dup(up[1]);
        must(in > 4 && out > 4 && dup2(in, 3) == 3 && dup2(out, 4) == 4, "dup");
        execl("/proc/self/exe", "program", "--program", (char *)NULL);
        _exit(127);
    }
    setpgid(pid, pid);
    close(down[0]);
    close(up[1]);
    *keys = down[1];
    *told = up[0];
    return pid;
}

static pid_t child_of(pid_t pid)
{
    char path[64];
    int child = 0;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *f = fopen(path, "re");
    must(f != NULL && fscanf(f, "%d", &child) == 1, "the child's number");
    fclose(f);
    return child;
}

/* 0: nothing found, 1: found, 77: these kernels or memfd_secret are not here. */
static int look_at(const char *engine)
{
    char folder[] = "/tmp/reseal-scan-XXXXXX", c;
    int keys, told, result = 77;
    needles_clear();
    pid_t pid = start(engine, &keys, &told);
    must(read(told, &c, 1) == 1, "the program");
    if (c == 'y') {
        give_keys(keys);
        must(read(told, &c, 1) == 1 && read(told, &c, 1) == 1 && mkdtemp(folder) != NULL,
             "the program and its child");
        pid_t child = child_of(pid);
        size_t total = needles_scan_process(pid, "the program") + needles_scan_process(child, "its child");
        needles_scan_core(pid, folder, "core of the program");
        needles_scan_core(child, folder, "core of its child");
        rmdir(folder);
        printf("%s: %zu MiB read, %u needles, %u found\n", engine, total >> 20, needles_count(),
               needles_found());
        result = needles_found() == 0 ? 0 : 1;
    }
    kill(-pid, SIGKILL);
    must(waitpid(pid, NULL, 0) == pid, "waitpid");
    close(keys);
    close(told);
    return result;
}

int main(int argc, char **argv)
{
    static const char *const engines[] = {"vaes-avx512", "vaes-avx2", "vaes-aesni"};
    if (argc == 2 && strcmp(argv[1], "--program") == 0) return program();
    if (getuid() != 0) {
        printf("only root can read the memory of another program\n");
        return 77;
    }
    signal(SIGPIPE, SIG_IGN);
    needles_check_expansion();
    int result = 77;
    for (unsigned e = 0; e < RS_ARRAY_LEN(engines); e++) {
        int r = look_at(engines[e]);
        if (r != 77) result = result == 1 ? 1 : r;
    }
    if (result == 77)
        printf("no kernels of ours here, or no memfd_secret: buildinfo of the provider says so\n");
    return result;
}
