/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/cli/vm-home.h"
#include "offload/cli/vm-serve.h"
#include "offload/vm/chain.h"
#include "offload/vm/intent.h"
#include "offload/vm/qcow2-served.h"
#include "offload/vm/state.h"

/* ---- a VM -------------------------------------------------------------------- */

static void add_disk(struct rs_serve *s, const struct rs_disk *disk)
{
    struct rs_serve_image *image = &s->images[s->count++];
    *image =
        (struct rs_serve_image){.look = *disk, .file.fd = -1, .file.io_fd = -1, .header = -1, .headers = -1};
    snprintf(image->name, sizeof(image->name), "%s", disk->node);
}

static void tell_plain(const struct rs_vm *vm)
{
    for (unsigned i = 0; i < vm->ndisks; i++)
        if (!vm->disks[i].disk.encrypted)
            fprintf(stderr, "reseal vm serve: %s is not encrypted: give it to the hypervisor as it is\n",
                    vm->disks[i].disk.node);
}

static int take_disks(struct rs_serve *s, struct rs_vm *vm)
{
    for (unsigned i = 0; i < vm->ndisks; i++) {
        const struct rs_vm_disk *d = &vm->disks[i];
        if (d->problem != 0) return rs_failure_set(&s->f, rs_exit_of(d->problem), "%s", d->why);
        if (d->disk.encrypted) add_disk(s, &d->disk);
    }
    if (s->count == 0)
        return rs_failure_set(&s->f, RS_EXIT_REFUSED, "%s has no encrypted disk to serve", vm->vmx_path);
    tell_plain(vm);
    return 0;
}

/* What a command left half done is finished first: until then disks and keys do not belong together. */
static int refuse_intent(struct rs_serve *s, const struct rs_vm *vm)
{
    struct rs_intent intent;
    char why[RS_VM_WHY];
    int e = rs_intent_load(vm, &intent, why, sizeof(why));
    if (e == RESEAL_ENOKEY) return 0;
    if (e != 0) return rs_failure_set(&s->f, rs_exit_of(e), "%s", why);
    bool only_on = rs_intent_is_commit(&intent);
    int code = rs_failure_set(&s->f, RS_EXIT_REFUSED,
                              "an interrupted 'reseal vm %s' of %s comes first: run it again%s",
                              rs_intent_operation(&intent), vm->name,
                              only_on ? "" : ", or drop it with reseal vm repair --abandon");
    rs_intent_free(&intent);
    return code;
}

/* Locks the VM, and reads it then: before, a command could have been at it. */
static int open_vm(struct rs_serve *s, struct rs_vmc *c)
{
    char why[RS_VM_WHY];
    int code = rs_vmc_open(c, false);
    int e = code == 0 ? rs_vm_lock(c->vm, RS_VM_RUN, &s->lock, why, sizeof(why)) : 0;
    if (e != 0) code = rs_vmc_refuse(c, e, why);
    if (code != 0) return rs_failure_set(&s->f, code, "%s", c->f.text);
    if (s->has_pass && !c->vm->by_phrase)
        return rs_failure_set(
            &s->f, RS_EXIT_USAGE,
            "--passphrase-file: no pass phrase locks %s; its keys come from its key provider", c->vm->name);
    s->has_pass = false; /* it is the home's; its disks have keys of a provider */
    code = refuse_intent(s, c->vm);
    if (code != 0) return code;
    rs_vm_close(c->vm);
    c->vm = NULL;
    code = rs_vmc_open(c, true);
    /* Whoever may use this VM's disks would be given another one's. */
    if (code == 0) code = rs_vmc_same_vm(c);
    if (code != 0) return rs_failure_set(&s->f, code, "%s", c->f.text);
    memcpy(s->vmx, c->vm->vmx_path, sizeof(s->vmx));
    code = take_disks(s, c->vm);
    /* A chain that cannot be read keeps nobody from a disk that can. */
    if (code == 0 && rs_chain_load(c->vm, why, sizeof(why)) == 0) rs_vmc_tell_mixed(c);
    return code;
}

int rs_serve_take_vm(struct rs_serve *s)
{
    struct rs_vmc *c = calloc(1, sizeof(*c));
    if (c == NULL) return rs_failure_set(&s->f, RS_EXIT_FAILED, "out of memory");
    c->lock = -1;
    c->o.vm = s->vm;
    c->o.runtime_dir = s->runtime_dir;
    c->o.tenant = s->tenant;
    c->o.pass = s->pass.file;
    int code = open_vm(s, c);
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
    if (d->bar != NULL) return rs_failure_set(&s->f, RS_EXIT_FORMAT, "%s: %s", d->path, d->bar);
    if (!d->encrypted || d->unit == 0)
        return rs_failure_set(&s->f, RS_EXIT_FORMAT, "%s is no LUKS image: there is nothing to decrypt",
                              d->path);
    return 0;
}

/* Where nothing can be written it can be served all the same, when that is said. */
static int check_writable(struct rs_serve *s, const char *path)
{
    if (s->read_only || faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0) return 0;
    int e = errno;
    if ((e != EROFS && e != EACCES && e != EPERM) || faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) != 0)
        return 0; /* to open it says why */
    return rs_failure_set(&s->f, RS_EXIT_REFUSED,
                          "%s cannot be written: %s: give --read-only to serve it as it is", path,
                          strerror(e));
}

int rs_serve_open_images(struct rs_serve *s)
{
    unsigned flags = (s->read_only ? 0u : RS_FILE_WRITE) | (s->direct ? RS_FILE_DIRECT : 0u);
    unsigned extra = RS_FILE_ORDERLY | (s->discard ? RS_FILE_DISCARD : 0u);
    for (unsigned i = 0; i < s->count; i++) {
        struct rs_serve_image *image = &s->images[i];
        int code = look_at(s, image);
        bool qcow2 = rs_disk_in_qcow2(image->look.format);
        if (code == 0) code = check_writable(s, image->look.data_path);
        if (code == 0)
            code = qcow2 ? rs_file_open_qcow2(&image->file, image->look.data_path, flags | extra, 0, &s->f)
                         : rs_file_open(&image->file, image->look.data_path, flags, &s->f);
        if (code != 0) return code;
        image->header = qcow2 ? rs_qcow2_luks_header(image->file.image)
                              : open(image->look.header_path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (image->header < 0)
            return rs_failure_errno(&s->f, qcow2 ? image->header : errno, "open", image->look.header_path);
        if (!qcow2 || s->read_only) continue;
        image->headers = rs_qcow2_served_listen(image->look.path);
        if (image->headers < 0)
            return rs_failure_errno(&s->f, image->headers, "make a socket for headers beside",
                                    image->look.path);
    }
    return 0;
}

void rs_serve_header(void *arg, unsigned disk)
{
    struct rs_serve_image *image = &((struct rs_serve *)arg)->images[disk];
    if (rs_qcow2_served_take(image->headers, image->file.image, &image->look))
        fprintf(stderr, "reseal vm serve: disk %s: it has a new header\n", image->name);
}

int rs_serve_close_images(struct rs_serve *s)
{
    int code = 0;
    for (unsigned i = 0; i < s->count; i++) {
        if (s->images[i].headers >= 0) rs_qcow2_served_end(s->images[i].look.path, s->images[i].headers);
        s->images[i].headers = -1;
        int e = rs_file_close_qcow2(&s->images[i].file);
        if (e != 0 && s->f.exit == 0) code = rs_failure_errno(&s->f, e, "close", s->images[i].look.path);
    }
    return code;
}

/* ---- sizes ------------------------------------------------------------------- */

/* What the header or descriptor says about the data now. */
static void look_at_size(struct rs_serve_image *image)
{
    char why[RS_VM_WHY];
    RS_FREE struct rs_disk *now = calloc(1, sizeof(*now));
    if (now == NULL) return;
    memcpy(now->path, image->look.path, sizeof(now->path));
    if (rs_disk_look(now, why, sizeof(why)) != 0 || now->data_offset != image->look.data_offset) return;
    image->look.size = now->size;
}

uint64_t rs_serve_size_of(void *arg, unsigned disk, uint64_t *data_size)
{
    struct rs_serve_image *image = &((struct rs_serve *)arg)->images[disk];
    const struct rs_file *file = &image->file;
    if (data_size != NULL) {
        look_at_size(image);
        *data_size = image->look.size;
    }
    uint64_t size = 0;
    struct stat st;
    if (file->image != NULL) return rs_qcow2_size(file->image);
    if (file->block) return ioctl(file->fd, BLKGETSIZE64, &size) == 0 ? size : 0;
    return fstat(file->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}
