/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "offload/base/clock.h"
#include "offload/cli/vm-home.h"
#include "offload/cli/vm-keys.h"
#include "offload/cli/vm-serve.h"
#include "offload/vm/qcow2.h"
#include "offload/vm/state.h"
#include "offload/vm/vmdk.h"

/* While a command gives the VM another key, header and key id can be at odds: for this long it is waited for.
 */
#define CHANGE_NS (10ull * 1000000000u)
#define CHANGE_MS 20

static int by_passphrase(struct rs_serve *s, const struct rs_serve_image *image, uint32_t use,
                         reseal_key *key, struct reseal_luks *luks)
{
    struct rs_failure f = {0};
    int fd = -1;
    int code = rs_passphrase_open(&s->pass, "disk", image->look.path, false, &fd, &f);
    if (code != 0) {
        snprintf(s->key_why, sizeof(s->key_why), "%s", f.text);
        return code == RS_EXIT_KEY ? RESEAL_EPASS : RESEAL_EKEYGONE;
    }
    code = reseal_key_luks(s->service, image->header, fd, use, key, luks);
    close(fd);
    return code;
}

/* ---- which key ------------------------------------------------------------- */

/* The key of a disk whose header has no room for one, as a .vmx names it. False: none. */
static bool vmx_key(const char *path, const char *node, struct rs_vmc_key *kek)
{
    RS_FREE char *text = NULL;
    char why[RS_VM_WHY], name[RS_DISK_NODE_MAX + 8];
    size_t len = 0;
    struct rs_vmx *vmx = NULL;
    if (rs_vm_read_file(path, RS_VMX_MAX, &text, &len) != 0) return false;
    if (rs_vmx_parse(text, len, &vmx, why, sizeof(why)) != 0) return false;
    snprintf(name, sizeof(name), "%s.keyId", node);
    const char *locator = rs_vmx_get(vmx, name);
    bool found = locator != NULL && rs_disk_take_locator(locator, kek->provider, kek->key) == 0;
    rs_vmx_free(vmx);
    return found;
}

static bool vmdk_key(const char *path, struct rs_vmc_key *kek)
{
    RS_FREE char *text = NULL;
    char why[RS_VM_WHY];
    size_t len = 0;
    struct rs_vmdk *vmdk = NULL;
    if (rs_vm_read_file(path, RS_VMDK_MAX, &text, &len) != 0) return false;
    if (rs_vmdk_parse(text, len, &vmdk, why, sizeof(why)) != 0) return false;
    const char *locator = rs_vmdk_get(vmdk, "encryptionKeys");
    bool found = locator != NULL && rs_disk_take_locator(locator, kek->provider, kek->key) == 0;
    rs_vmdk_free(vmdk);
    return found;
}

/*
 * The key that a file beside the header names: the .vmx for LUKS1, the descriptor for VMDK. With `staged`
 * the file that a command which was interrupted between the two has ready. False: the header names it.
 */
static bool outer_key(const struct rs_serve *s, const struct rs_serve_image *image, bool staged,
                      struct rs_vmc_key *kek)
{
    char path[PATH_MAX];
    bool vmdk = image->look.format == RS_DISK_VMDK_XTS;
    const char *at = vmdk ? image->look.path : s->vmx;
    if (!vmdk && (!rs_disk_is_luks1(image->look.format) || *at == '\0')) return false;
    if (staged && !rs_vmc_new_path(at, path)) return false;
    if (staged) at = path;
    return vmdk ? vmdk_key(at, kek) : vmx_key(at, image->look.node, kek);
}

/* A header can have been given another key since it was looked at (reseal vm recrypt --shallow). */
static void look_again(struct rs_serve *s, struct rs_serve_image *image)
{
    char why[RS_VM_WHY];
    struct rs_vmc_key kek = {.provider = ""};
    RS_FREE struct rs_disk *now = calloc(1, sizeof(*now));
    if (now == NULL) return;
    memcpy(now->path, image->look.path, sizeof(now->path));
    RS_CLOSE int inside = image->file.image != NULL ? rs_qcow2_luks_header(image->file.image) : -1;
    if (inside >= 0) now->encrypted = true;
    if (image->file.image == NULL
            ? rs_disk_look(now, why, sizeof(why)) != 0
            : inside < 0 || rs_disk_look_luks(inside, image->file.size, now, why, sizeof(why)) != 0)
        return;
    if (now->key[0] != '\0') {
        memcpy(image->look.provider, now->provider, sizeof(now->provider));
        memcpy(image->look.key, now->key, sizeof(now->key));
    } else if (outer_key(s, image, false, &kek)) {
        memcpy(image->look.provider, kek.provider, sizeof(kek.provider));
        memcpy(image->look.key, kek.key, sizeof(kek.key));
    }
    int header = inside >= 0 ? fcntl(inside, F_DUPFD_CLOEXEC, 0)
                             : open(now->header_path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (header < 0) return;
    close(image->header);
    image->header = header;
}

/* In the words of the field, with why. */
static int not_found(struct rs_serve *s, int code)
{
    char why[sizeof(s->key_why)];
    if (code != RESEAL_ENOKEY && code != RESEAL_EKEYBAD && code != RESEAL_ENOSERVICE &&
        code != RESEAL_ETIMEDOUT)
        return code;
    memcpy(why, s->key_why, sizeof(why));
    snprintf(s->key_why, sizeof(s->key_why), "the disk is encrypted and a required key was not found: %.900s",
             why);
    return code;
}

static int open_once(struct rs_serve *s, struct rs_serve_image *image, uint32_t use, reseal_key *key,
                     struct reseal_luks *luks)
{
    struct rs_vmc_key kek = {.provider = ""};
    look_again(s, image);
    snprintf(kek.provider, sizeof(kek.provider), "%s", image->look.provider);
    snprintf(kek.key, sizeof(kek.key), "%s", image->look.key);
    if (kek.key[0] == '\0') {
        snprintf(s->key_why, sizeof(s->key_why), "no key provider has its key: give --passphrase-file");
        return RESEAL_ENOKEY;
    }
    int code =
        rs_vmc_disk_open(s->service, image->header, &kek, use, key, luks, s->key_why, sizeof(s->key_why));
    if (code == 0) return 0;
    char why[RS_VM_WHY];
    bool other = outer_key(s, image, true, &kek) && strcmp(kek.key, image->look.key) != 0;
    if (other && rs_vmc_disk_open(s->service, image->header, &kek, use, key, luks, why, sizeof(why)) == 0)
        return 0;
    return not_found(s, code);
}

static int by_provider(struct rs_serve *s, struct rs_serve_image *image, uint32_t use, reseal_key *key,
                       struct reseal_luks *luks)
{
    uint64_t start = rs_now_ns();
    for (;;) {
        /* Asked first: a command that ended since then has left what belongs together. */
        bool changing = rs_vm_is_changing(s->lock);
        int code = open_once(s, image, use, key, luks);
        if (code == 0 || !changing || rs_now_ns() - start > CHANGE_NS) return code;
        (void)poll(NULL, 0, CHANGE_MS);
    }
}

int rs_serve_open_key(void *arg, unsigned disk, reseal_key *key, struct reseal_luks *luks)
{
    struct rs_serve *s = arg;
    struct rs_serve_image *image = &s->images[disk];
    uint32_t use = RESEAL_USE_SOURCE | (s->read_only ? 0u : RESEAL_USE_DESTINATION);
    s->key_why[0] = '\0';
    int code = s->has_pass ? by_passphrase(s, image, use, key, luks) : by_provider(s, image, use, key, luks);
    if (code != 0) return code;
    /* A header that lies beside its data does not know where that is. */
    if (image->look.format == RS_DISK_XTS || image->look.format == RS_DISK_VMDK_XTS) {
        luks->data_offset = image->look.data_offset;
        luks->data_size = image->look.size;
    }
    return 0;
}
