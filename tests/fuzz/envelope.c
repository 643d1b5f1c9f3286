/* SPDX-License-Identifier: Apache-2.0 */
/* Envelope files of others: what parses can be printed, and what is not ours never opens. */
#include "providers/key/envelope.h"
#include "offload/base/keymem.h"
#include "reseal/reseal.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int count(void *arg, const uint8_t *text, size_t len)
{
    (void)text;
    *(uint64_t *)arg += len;
    return 0;
}

/* A header is four kilobytes: short inputs are its attributes. */
static int file_of(const uint8_t *data, size_t size)
{
    static const uint8_t end[4096] = "DataTransformAeadFooter", sizes[8] = {16, 0, 0, 0, 1};
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    struct rs_envelope e;
    if (fd < 0) abort();
    if (size > 3584) {
        if (rs_pwrite_full(fd, data, size, 0) != 0) abort();
        return fd;
    }
    rs_envelope_new(&e);
    if (size != 0) memcpy(e.block + 512, data, size);
    if (rs_pwrite_full(fd, e.block, 4096, 0) != 0 || rs_pwrite_full(fd, end, 4096, 8192) != 0 ||
        rs_pwrite_full(fd, sizes, 8, 8192 + 4088) != 0)
        abort();
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rs_envelope_file f;
    static const uint8_t key[RS_ENVELOPE_KEY];
    uint8_t file_key[RS_ENVELOPE_KEY];
    char why[RS_ENVELOPE_WHY] = "";
    uint64_t len, got = 0;
    if (rs_keymem_init(0) != 0) return 0;
    int fd = file_of(data, size), r = rs_envelope_load(&f, fd, why);
    if (r != 0 && why[0] == '\0') abort();
    if (r == 0) {
        for (unsigned i = 0; i < f.header.n; i++) {
            const struct rs_envelope_attribute *a = rs_envelope_find(&f.header, f.header.at[i].name);
            if (a != &f.header.at[i] || a->value + a->len > f.header.block + sizeof(f.header.block)) abort();
        }
        if (rs_envelope_file_key(&f.header, key, file_key) == 0 &&
            rs_envelope_open(&f, file_key, "", count, &got, &len, why) != 0 && (got != 0 || why[0] == '\0'))
            abort();
    }
    close(fd);
    return 0;
}
