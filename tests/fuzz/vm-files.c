/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzer of the files of a VM that are read without a key: the first byte says as what the rest is read. */
#include "offload/vm/disk.h"
#include "offload/vm/policy.h"
#include "offload/vm/qcow2.h"
#include "offload/vm/vmdk.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void vmdk(const char *text, size_t len)
{
    struct rs_vmdk *v = NULL;
    struct rs_vmdk_extent extent;
    char why[256];
    size_t n = 0;
    if (rs_vmdk_parse(text, len, &v, why, sizeof(why)) != 0) return;
    (void)!rs_vmdk_extent(v, &extent, why, sizeof(why));
    (void)rs_vmdk_get(v, "encryptionKeys");
    rs_vmdk_remove(v, "keyID");
    (void)!rs_vmdk_set(v, "ddb.reseal.unit", "4096", true);
    free(rs_vmdk_text(v, &n));
    rs_vmdk_free(v);
}

static void luks(const uint8_t *data, size_t len)
{
    struct rs_disk d = {.encrypted = true};
    char why[256];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0) abort();
    if (rs_pwrite_full(fd, data, len, 0) == 0) (void)!rs_disk_look_luks(fd, len, &d, why, sizeof(why));
    close(fd);
}

static void qcow2(const uint8_t *data, size_t len)
{
    struct rs_qcow2_peek peek;
    uint8_t buf[3000];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0) abort();
    if (rs_pwrite_full(fd, data, len, 0) == 0 && rs_qcow2_peek_open(&peek, fd, len) == 0)
        for (uint64_t off = 0; off < 1 << 20; off += 60001)
            if (rs_qcow2_peek(&peek, buf, sizeof(buf), off) != 0) break;
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct rs_vm_policy policy;
    struct rs_qcow2_facts facts;
    char why[256], provider[RS_DISK_PROVIDER_MAX], key[RS_DISK_KEY_MAX];
    if (len == 0) return 0;
    char *text = malloc(len);
    if (text == NULL) return 0;
    memcpy(text, data + 1, len - 1);
    text[len - 1] = '\0';
    switch (data[0] % 6) {
    case 0:
        vmdk(text, len - 1);
        break;
    case 1:
        luks(data + 1, len - 1);
        break;
    case 2:
        (void)!rs_vm_policy_parse(text, len - 1, &policy, why, sizeof(why));
        break;
    case 3:
        (void)!rs_qcow2_facts(data + 1, len - 1, &facts);
        break;
    case 4:
        qcow2(data + 1, len - 1);
        break;
    default:
        (void)!rs_disk_take_locator(text, provider, key);
    }
    free(text);
    return 0;
}
