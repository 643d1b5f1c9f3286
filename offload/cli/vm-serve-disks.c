/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/cli/vm-keys.h"
#include "offload/cli/vm-serve.h"
#include "offload/vm/state.h"

/* ---- a VM -------------------------------------------------------------------- */

static void add_disk(struct rs_serve *s, const struct rs_disk *disk)
{
    struct rs_serve_image *image = &s->images[s->count++];
    *image = (struct rs_serve_image){.look = *disk, .file.fd = -1, .file.io_fd = -1, .header = -1};
    snprintf(image->name, sizeof(image->name), "%s", disk->node);
}

static int take_disks(struct rs_serve *s, struct rs_vm *vm)
{
    for (unsigned i = 0; i < vm->ndisks; i++) {
        const struct rs_vm_disk *d = &vm->disks[i];
        if (d->problem != 0) return rs_failure_set(&s->f, rs_exit_of(d->problem), "%s", d->why);
        if (d->disk.encrypted)
            add_disk(s, &d->disk);
        else
            fprintf(stderr, "reseal vm serve: %s is not encrypted: give it to the hypervisor as it is\n",
                    d->disk.node);
    }
    if (s->count != 0) return 0;
    return rs_failure_set(&s->f, RS_EXIT_REFUSED, "%s has no encrypted disk to serve", vm->vmx_path);
}

int rs_serve_take_vm(struct rs_serve *s)
{
    struct rs_vmc *c = calloc(1, sizeof(*c));
    if (c == NULL) return rs_failure_set(&s->f, RS_EXIT_FAILED, "out of memory");
    char why[RS_VM_WHY];
    c->lock = -1;
    c->o.vm = s->vm;
    c->o.runtime_dir = s->runtime_dir;
    c->o.tenant = s->tenant;
    int code = rs_vmc_open(c, true);
    int e = code == 0 ? rs_vm_lock(c->vm, RS_VM_RUN, &s->lock, why, sizeof(why)) : 0;
    if (e != 0) code = rs_vmc_refuse(c, e, why);
    if (code != 0)
        (void)rs_failure_set(&s->f, code, "%s", c->f.text);
    else
        code = take_disks(s, c->vm);
    rs_vmc_close(c);
    free(c);
    return code;
}

/* ---- images ------------------------------------------------------------------ */

static int look_at(struct rs_serve *s, struct rs_serve_image *image)
{
    char why[RS_VM_WHY];
    struct rs_disk *d = &image->look;
    int code = rs_disk_look(d, why, sizeof(why));
    if (code == RESEAL_EIO) return rs_failure_set(&s->f, RS_EXIT_IO, "%s: %s", d->path, why);
    if (code != 0) return rs_failure_set(&s->f, RS_EXIT_FORMAT, "%s: %s", d->path, why);
    if (!d->encrypted || d->unit == 0)
        return rs_failure_set(&s->f, RS_EXIT_FORMAT, "%s is no LUKS image: there is nothing to decrypt",
                              d->path);
    return 0;
}

int rs_serve_open_images(struct rs_serve *s)
{
    unsigned flags = (s->read_only ? 0u : RS_FILE_WRITE) | (s->direct ? RS_FILE_DIRECT : 0u);
    for (unsigned i = 0; i < s->count; i++) {
        struct rs_serve_image *image = &s->images[i];
        int code = look_at(s, image);
        if (code == 0) code = rs_file_open(&image->file, image->look.data_path, flags, &s->f);
        if (code != 0) return code;
        image->header = open(image->look.header_path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (image->header < 0) return rs_failure_errno(&s->f, errno, "open", image->look.header_path);
    }
    return 0;
}

/* ---- keys -------------------------------------------------------------------- */

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

/* A header can have been given another key since it was looked at (reseal vm recrypt --shallow). */
static void look_again(struct rs_serve_image *image)
{
    char why[RS_VM_WHY];
    struct rs_disk now = {0};
    snprintf(now.path, sizeof(now.path), "%s", image->look.path);
    if (rs_disk_look(&now, why, sizeof(why)) != 0) return;
    if (now.key[0] != '\0') {
        memcpy(image->look.provider, now.provider, sizeof(now.provider));
        memcpy(image->look.key, now.key, sizeof(now.key));
    }
    int header = open(now.header_path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (header < 0) return;
    close(image->header);
    image->header = header;
}

static int by_provider(struct rs_serve *s, struct rs_serve_image *image, uint32_t use, reseal_key *key,
                       struct reseal_luks *luks)
{
    look_again(image);
    struct rs_vmc_key kek;
    snprintf(kek.provider, sizeof(kek.provider), "%s", image->look.provider);
    snprintf(kek.key, sizeof(kek.key), "%s", image->look.key);
    if (kek.key[0] != '\0')
        return rs_vmc_disk_open(s->service, image->header, &kek, use, key, luks, s->key_why,
                                sizeof(s->key_why));
    snprintf(s->key_why, sizeof(s->key_why), "no key provider has its key: give --passphrase-file");
    return RESEAL_ENOKEY;
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

uint64_t rs_serve_size_of(void *arg, unsigned disk)
{
    const struct rs_file *file = &((struct rs_serve *)arg)->images[disk].file;
    uint64_t size = 0;
    struct stat st;
    if (file->block) return ioctl(file->fd, BLKGETSIZE64, &size) == 0 ? size : 0;
    return fstat(file->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}
