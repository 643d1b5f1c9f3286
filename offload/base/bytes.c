/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/base/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

void rs_wipe(void *p, size_t len)
{
    if (len != 0) explicit_bzero(p, len);
}

bool rs_equal_ct(const void *a, const void *b, size_t len)
{
    const volatile uint8_t *x = a, *y = b;
    uint8_t diff = 0;
    for (size_t i = 0; i < len; i++) diff = (uint8_t)(diff | (x[i] ^ y[i]));
    return diff == 0;
}

void rs_hex(const void *p, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = p;
    for (size_t i = 0; i < len; i++) {
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    *out = '\0';
}

int rs_hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool rs_unhex(const char *text, void *out, size_t len)
{
    uint8_t *bytes = out;
    for (size_t i = 0; i < len; i++, text += 2) {
        int high = rs_hex_digit(text[0]), low = high < 0 ? -1 : rs_hex_digit(text[1]);
        if (low < 0) return false;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return *text == '\0';
}

void rs_cleanup_free(void *pp) { free(*(void **)pp); }

void rs_cleanup_close(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

int rs_read_full(int fd, void *p, size_t len)
{
    for (uint8_t *at = p; len != 0;) {
        ssize_t n = read(fd, at, len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        if (n == 0) return -ENODATA;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int rs_write_full(int fd, const void *p, size_t len)
{
    for (const uint8_t *at = p; len != 0;) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int rs_pread_full(int fd, void *p, size_t len, uint64_t off)
{
    for (uint8_t *at = p; len != 0;) {
        ssize_t n = pread(fd, at, len, (off_t)off);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        if (n == 0) return -ENODATA;
        at += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

int rs_pwrite_full(int fd, const void *p, size_t len, uint64_t off)
{
    for (const uint8_t *at = p; len != 0;) {
        ssize_t n = pwrite(fd, at, len, (off_t)off);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        at += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}
