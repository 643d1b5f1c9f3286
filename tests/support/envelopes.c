/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/envelopes.h"

#include "reseal/reseal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static void must(bool ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "envelopes: %s failed\n", what);
    abort();
}

static int empty_file(void)
{
    int fd = memfd_create("envelope", MFD_CLOEXEC);
    must(fd >= 0, "memfd_create");
    return fd;
}

/* Bytes that do not repeat with any block size. */
static void fill(uint8_t *to, size_t len, uint32_t *state)
{
    for (size_t i = 0; i < len; i++) {
        *state = *state * 1664525u + 1013904223u;
        to[i] = (uint8_t)(*state >> 24);
    }
}

int pattern_file(uint64_t len, uint32_t seed)
{
    uint8_t piece[8192];
    int fd = empty_file();
    while (len != 0) {
        size_t n = (size_t)RS_MIN((uint64_t)sizeof(piece), len);
        fill(piece, n, &seed);
        must(rs_write_full(fd, piece, n) == 0, "write");
        len -= n;
    }
    return fd;
}

int sealed_file(uint64_t len, uint32_t seed, const uint8_t key[RS_ENVELOPE_KEY], const char *aad)
{
    struct rs_envelope e;
    struct rs_envelope_seal *s;
    uint8_t piece[5000]; /* no multiple of anything */
    int fd = empty_file();
    rs_envelope_new(&e);
    must(rs_envelope_put_text(&e, RS_ENVELOPE_KEY_INFO, "test") == 0, "put");
    must(rs_envelope_seal_begin(&e, key, aad, fd, &s) == 0, "begin");
    while (len != 0) {
        size_t n = (size_t)RS_MIN((uint64_t)sizeof(piece), len);
        fill(piece, n, &seed);
        must(rs_envelope_seal_write(s, piece, n) == 0, "seal");
        len -= n;
    }
    must(rs_envelope_seal_end(s) == 0, "end");
    rs_envelope_seal_free(s);
    return fd;
}

static int keep(void *arg, const uint8_t *text, size_t len)
{
    return rs_write_full(*(int *)arg, text, len) == 0 ? 0 : RESEAL_EIO;
}

int open_file(int envelope, const uint8_t key[RS_ENVELOPE_KEY], const char *aad, int *text)
{
    static struct rs_envelope_file f;
    char why[RS_ENVELOPE_WHY] = "";
    uint64_t len;
    *text = empty_file();
    int r = rs_envelope_load(&f, envelope, why);
    if (r == 0) r = rs_envelope_open(&f, key, aad, keep, text, &len, why);
    must((r == 0) == (why[0] == '\0'), "a line for each failure, and none without");
    if (r == 0) must(length_of(*text) == len, "length");
    return r;
}

uint64_t length_of(int fd)
{
    struct stat st;
    must(fstat(fd, &st) == 0, "fstat");
    return (uint64_t)st.st_size;
}

bool same_bytes(int a, int b)
{
    uint8_t one[8192], two[8192];
    uint64_t len = length_of(a);
    if (length_of(b) != len) return false;
    for (uint64_t at = 0; at < len; at += sizeof(one)) {
        size_t n = (size_t)RS_MIN((uint64_t)sizeof(one), len - at);
        must(rs_pread_full(a, one, n, at) == 0 && rs_pread_full(b, two, n, at) == 0, "read");
        if (memcmp(one, two, n) != 0) return false;
    }
    return true;
}
