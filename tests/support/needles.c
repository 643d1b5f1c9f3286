/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/needles.h"

#include "bench/command.h"
#include "offload/base/bytes.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define NEEDLES 512

static void must(bool right, const char *what)
{
    if (right) return;
    fprintf(stderr, "needles: %s failed: %s\n", what, strerror(errno));
    exit(2);
}

/* ---- needles ---------------------------------------------------------------- */

static struct needle {
    uint8_t bytes[16];
    const char *what;
} needles[NEEDLES];
static unsigned nneedles;
static uint8_t first[65536 / 8]; /* which first two bytes any of them has */

void needles_add(const uint8_t bytes[16], const char *what)
{
    must(nneedles < NEEDLES, "room for needles");
    unsigned at = (unsigned)bytes[0] << 8 | bytes[1];
    if (at == 0) return; /* rare, and every empty page would match */
    memcpy(needles[nneedles].bytes, bytes, 16);
    needles[nneedles++].what = what;
    first[at / 8] = (uint8_t)(first[at / 8] | 1u << at % 8);
}

static uint8_t twice(uint8_t x)
{
    return (uint8_t)(x << 1 ^ (x >> 7) * 0x1b);
}

static uint8_t times(uint8_t a, uint8_t b)
{
    uint8_t r = 0;
    for (; b != 0; b >>= 1, a = twice(a))
        if ((b & 1) != 0) r ^= a;
    return r;
}

/* FIPS 197, 5.1.1: the inverse in the field (x^254), then the affine map. */
static uint8_t substitute(uint8_t x)
{
    uint8_t inverse = 1, r = 0x63;
    for (unsigned i = 0; i < 254; i++) inverse = times(inverse, x);
    for (unsigned i = 0; i < 5; i++) r ^= (uint8_t)(inverse << i | inverse >> (8 - i));
    return r;
}

/* A round key as the equivalent inverse cipher has it. */
static void inverse_mix(const uint8_t in[16], uint8_t out[16])
{
    for (unsigned c = 0; c < 16; c += 4)
        for (unsigned r = 0; r < 4; r++)
            out[c + r] = (uint8_t)(times(in[c + r], 14) ^ times(in[c + (r + 1) % 4], 11) ^
                                   times(in[c + (r + 2) % 4], 13) ^ times(in[c + (r + 3) % 4], 9));
}

/* The round keys of FIPS 197, 5.2, of which the first are the key. */
static void expand(uint8_t *w, const uint8_t *key, size_t key_len, size_t len)
{
    uint8_t constant = 1;
    memcpy(w, key, key_len);
    for (size_t i = key_len; i < len; i += 4) {
        uint8_t t[4];
        memcpy(t, w + i - 4, 4);
        if (i % key_len == 0) {
            uint8_t head = t[0];
            for (unsigned k = 0; k < 4; k++) t[k] = substitute(k < 3 ? t[k + 1] : head);
            t[0] ^= constant;
            constant = twice(constant);
        } else if (key_len == 32 && i % 32 == 16) {
            for (unsigned k = 0; k < 4; k++) t[k] = substitute(t[k]);
        }
        for (unsigned k = 0; k < 4; k++) w[i + k] = (uint8_t)(w[i + k - key_len] ^ t[k]);
    }
}

static void hash_key(const uint8_t *key, unsigned bits, uint8_t hash[32])
{
    const EVP_CIPHER *aes = bits == 128   ? EVP_aes_128_ecb()
                            : bits == 192 ? EVP_aes_192_ecb()
                                          : EVP_aes_256_ecb();
    const uint8_t zero[16] = {0};
    int n;
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    must(c != NULL && EVP_EncryptInit_ex(c, aes, NULL, key, NULL) == 1 &&
             EVP_EncryptUpdate(c, hash, &n, zero, 16) == 1,
         "AES");
    EVP_CIPHER_CTX_free(c);
}

void needles_add_key(const uint8_t *key, unsigned bits, const char *what)
{
    uint8_t w[15][16], mixed[16], hash[32], turned[16];
    unsigned last = bits / 32 + 6;
    expand(w[0], key, bits / 8, (last + 1) * 16);
    for (unsigned i = 0; i <= last; i++) {
        needles_add(w[i], what);
        inverse_mix(w[i], mixed);
        if (i > 0 && i < last) needles_add(mixed, what);
    }
    hash_key(key, bits, hash);
    for (unsigned i = 0; i < 16; i++) turned[i] = hash[15 - i];
    needles_add(hash, what);
    needles_add(turned, what);
}

void needles_clear(void)
{
    nneedles = 0;
    memset(first, 0, sizeof(first));
}

unsigned needles_count(void)
{
    return nneedles;
}

/* FIPS 197, A.1 to A.3: the keys, and the first words of the last round keys. */
void needles_check_expansion(void)
{
    static const struct {
        unsigned bits;
        uint8_t key[32], last[16];
    } known[] = {
        {128,
         {0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c},
         {0xd0, 0x14, 0xf9, 0xa8, 0xc9, 0xee, 0x25, 0x89, 0xe1, 0x3f, 0x0c, 0xc8, 0xb6, 0x63, 0x0c, 0xa6}},
        {192,
         {0x8e, 0x73, 0xb0, 0xf7, 0xda, 0x0e, 0x64, 0x52, 0xc8, 0x10, 0xf3, 0x2b,
          0x80, 0x90, 0x79, 0xe5, 0x62, 0xf8, 0xea, 0xd2, 0x52, 0x2c, 0x6b, 0x7b},
         {0xe9, 0x8b, 0xa0, 0x6f, 0x44, 0x8c, 0x77, 0x3c, 0x8e, 0xcc, 0x72, 0x04, 0x01, 0x00, 0x22, 0x02}},
        {256,
         {0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77, 0x81,
          0x1f, 0x35, 0x2c, 0x07, 0x3b, 0x61, 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14, 0xdf, 0xf4},
         {0xfe, 0x48, 0x90, 0xd1, 0xe6, 0x18, 0x8d, 0x0b, 0x04, 0x6d, 0xf3, 0x44, 0x70, 0x6c, 0x63, 0x1e}}};
    for (unsigned k = 0; k < RS_ARRAY_LEN(known); k++) {
        bool seen = false;
        needles_add_key(known[k].key, known[k].bits, "test");
        for (unsigned i = 0; i < nneedles; i++)
            seen = seen || memcmp(needles[i].bytes, known[k].last, 16) == 0;
        must(seen, "key expansion");
        needles_clear();
    }
}

/* ---- scanning --------------------------------------------------------------- */

static unsigned found;

unsigned needles_found(void)
{
    return found;
}

static void search(const uint8_t *p, size_t len, const char *where)
{
    for (size_t i = 0; i + 16 <= len; i++) {
        unsigned at = (unsigned)p[i] << 8 | p[i + 1];
        if ((first[at / 8] >> at % 8 & 1) == 0) continue;
        for (unsigned k = 0; k < nneedles; k++) {
            if (memcmp(p + i, needles[k].bytes, 16) != 0) continue;
            if (found++ < 20) printf("FAIL: %s: %s\n", where, needles[k].what);
        }
    }
}

/* A mapping, in windows that overlap by a needle. What cannot be read (secret memory: EIO) is protected. */
static size_t scan_mapping(int mem, unsigned long from, unsigned long to, const char *where)
{
    static uint8_t window[(1 << 20) + 16];
    size_t kept = 0, total = 0;
    for (unsigned long at = from; at < to;) {
        ssize_t n = pread(mem, window + kept, RS_MIN(to - at, sizeof(window) - 16), (off_t)at);
        if (n <= 0) {
            at += 4096;
            kept = 0;
            continue;
        }
        size_t have = kept + (size_t)n;
        search(window, have, where);
        kept = RS_MIN(have, (size_t)15);
        memmove(window, window + have - kept, kept);
        at += (unsigned long)n;
        total += (size_t)n;
    }
    return total;
}

/* False: it is not there, or not any more. */
static bool scan(pid_t pid, const char *name, size_t *total)
{
    char path[64], line[512], where[640];
    unsigned long from, to;
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
    RS_CLOSE int mem = open(path, O_RDONLY | O_CLOEXEC);
    while (maps != NULL && mem >= 0 && fgets(line, sizeof(line), maps) != NULL) {
        if (sscanf(line, "%lx-%lx", &from, &to) != 2) continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(where, sizeof(where), "%s, %s", name, line);
        *total += scan_mapping(mem, from, to, where);
    }
    if (maps != NULL) fclose(maps);
    return maps != NULL && mem >= 0;
}

size_t needles_scan_process(pid_t pid, const char *name)
{
    size_t total = 0;
    must(scan(pid, name, &total), name);
    return total;
}

size_t needles_scan_tree(pid_t pid, unsigned *n)
{
    char path[64], name[64] = "?";
    size_t total = 0;
    int child;
    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    FILE *f = fopen(path, "re");
    if (f != NULL && fgets(name, sizeof(name) - 16, f) != NULL) name[strcspn(name, "\n")] = '\0';
    if (f != NULL) fclose(f);
    snprintf(name + strlen(name), 16, " %d", (int)pid);
    if (scan(pid, name, &total) && n != NULL) (*n)++;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
    f = fopen(path, "re");
    while (f != NULL && fscanf(f, "%d", &child) == 1) total += needles_scan_tree(child, n);
    if (f != NULL) fclose(f);
    return total;
}

/*
 * The memory in a core dump, not its notes: a worker that is stopped in the middle of a record has round keys
 * in its registers, where they must be. SECURITY.md says so.
 */
static void scan_file(const char *path, const char *name)
{
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    if (size < (off_t)sizeof(Elf64_Ehdr)) return;
    uint8_t *p = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);
    must(p != MAP_FAILED, "mmap of a core dump");
    Elf64_Ehdr head;
    Elf64_Phdr part;
    size_t loaded = 0;
    memcpy(&head, p, sizeof(head));
    for (unsigned i = 0; i < head.e_phnum; i++) {
        size_t at = head.e_phoff + i * sizeof(part);
        must(rs_range_ok(at, sizeof(part), (uint64_t)size), "a core dump");
        memcpy(&part, p + at, sizeof(part));
        if (part.p_type != PT_LOAD || !rs_range_ok(part.p_offset, part.p_filesz, (uint64_t)size)) continue;
        search(p + part.p_offset, part.p_filesz, name);
        loaded += part.p_filesz;
    }
    must(loaded > 0, "a core dump with memory");
    munmap(p, (size_t)size);
}

/* As gdb takes it from a live process; root's debugger is what the rest defends against. */
void needles_scan_core(pid_t pid, const char *folder, const char *name)
{
    char prefix[PATH_MAX], file[PATH_MAX + 16], number[16];
    if (!rs_command_known("gcore")) {
        printf("no core dump of %s: gcore is not here\n", name);
        return;
    }
    snprintf(prefix, sizeof(prefix), "%s/core", folder);
    snprintf(number, sizeof(number), "%d", (int)pid);
    snprintf(file, sizeof(file), "%s.%d", prefix, (int)pid);
    const char *const argv[] = {"gcore", "-o", prefix, number, NULL};
    struct rs_command_result result;
    /* gdb complains when it cannot read secret memory; what it could write is what counts. */
    if (rs_command_run(argv, &result) != 0 && access(file, R_OK) != 0) {
        printf("no core dump of %s: %s\n", name, result.why);
        return;
    }
    scan_file(file, name);
    unlink(file);
}

void needles_check_scanner(const uint8_t key[32])
{
    uint8_t *copy = malloc(32);
    must(copy != NULL, "malloc");
    memcpy(copy, key, 32);
    FILE *real = stdout;
    stdout = fopen("/dev/null", "we");
    must(stdout != NULL, "/dev/null");
    needles_scan_process(getpid(), "self");
    fclose(stdout);
    stdout = real;
    must(found > 0, "the scanner");
    found = 0;
    rs_wipe(copy, 32);
    free(copy);
}
