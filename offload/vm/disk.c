/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/disk.h"

#include "offload/vm/disk-luks.h"
#include "offload/vm/files.h"
#include "offload/vm/locator.h"
#include "offload/vm/qcow2.h"
#include "offload/vm/vmdk.h"
#include "reseal/reseal.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

const char *rs_disk_format_name(enum rs_disk_format format)
{
    static const char *const names[RS_DISK_FORMATS] = {"raw",         "luks1",      "luks2", "xts",
                                                       "vmdk",        "vmdk-xts",   "qcow2", "qcow2-luks",
                                                       "luks1-qcow2", "luks2-qcow2"};
    return (unsigned)format < RS_DISK_FORMATS ? names[format] : "unknown";
}

bool rs_disk_in_qcow2(enum rs_disk_format format)
{
    return format == RS_DISK_QCOW2 || format == RS_DISK_LUKS1_QCOW2 || format == RS_DISK_LUKS2_QCOW2;
}

bool rs_disk_is_luks1(enum rs_disk_format format)
{
    return format == RS_DISK_LUKS1 || format == RS_DISK_LUKS1_QCOW2;
}

static bool named(const char *name, bool (*is)(enum rs_disk_format format))
{
    for (unsigned i = 0; i < RS_DISK_FORMATS; i++)
        if (strcmp(name, rs_disk_format_name((enum rs_disk_format)i)) == 0) return is((enum rs_disk_format)i);
    return false;
}

bool rs_disk_name_in_qcow2(const char *format)
{
    return named(format, rs_disk_in_qcow2);
}

bool rs_disk_name_is_luks1(const char *format)
{
    return named(format, rs_disk_is_luks1);
}

bool rs_disk_name_has_side_header(const char *format)
{
    return strcmp(format, rs_disk_format_name(RS_DISK_XTS)) == 0 ||
           strcmp(format, rs_disk_format_name(RS_DISK_VMDK_XTS)) == 0;
}

/* ---- locators ----------------------------------------------------------------------- */

static const struct rs_locator *find_fqid(const struct rs_locator *l)
{
    for (; l != NULL; l = l->next) {
        const struct rs_locator *found = l->type == RS_LOCATOR_FQID ? l : find_fqid(l->child);
        if (found != NULL) return found;
    }
    return NULL;
}

int rs_disk_take_locator(const char *text, char provider[RS_DISK_PROVIDER_MAX], char key[RS_DISK_KEY_MAX])
{
    struct rs_locator *l = NULL;
    char why[128];
    int err = rs_locator_parse(text, strlen(text), &l, why, sizeof(why));
    const struct rs_locator *f = err == 0 ? find_fqid(l) : NULL;
    if (err == 0 && (f == NULL || f->fields[RS_FQID_PROVIDER] == NULL || f->fields[RS_FQID_KEY] == NULL ||
                     strlen(f->fields[RS_FQID_PROVIDER]) >= RS_DISK_PROVIDER_MAX ||
                     strlen(f->fields[RS_FQID_KEY]) >= RS_DISK_KEY_MAX))
        err = RESEAL_EFORMAT;
    if (err == 0) {
        (void)stpcpy(provider, f->fields[RS_FQID_PROVIDER]);
        (void)stpcpy(key, f->fields[RS_FQID_KEY]);
    }
    rs_locator_free(l);
    return err;
}

char *rs_disk_locator(const char *provider, const char *key)
{
    const char *fields[RS_LOCATOR_FIELDS] = {NULL, provider, key};
    struct rs_locator *l = rs_locator_new(RS_LOCATOR_FQID, fields);
    char *text = l == NULL ? NULL : rs_locator_text(l);
    rs_locator_free(l);
    return text;
}

/* ---- files -------------------------------------------------------------------------- */

/* A file that another one names: beside it unless it is absolute. */
static bool beside(const char *of, const char *name, char out[PATH_MAX])
{
    char copy[PATH_MAX];
    (void)snprintf(copy, sizeof(copy), "%s", of);
    return rs_vm_resolve(dirname(copy), name, out);
}

static int failed_errno(const char *path, char *why, size_t why_len)
{
    return rs_vm_refuse(RESEAL_EIO, why, why_len, "cannot read %s: %s", path, strerror(errno));
}

static bool side_header(struct rs_disk *d)
{
    struct stat st;
    char path[PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s" RS_DISK_HEADER, d->path);
    if (n <= 0 || (size_t)n >= sizeof(path) || stat(path, &st) != 0) return false;
    memcpy(d->header_path, path, sizeof(path));
    return true;
}

/* libcryptsetup wants room for a header before data that does not begin at byte 0, needed or not. */
#define SAID_LEAST ((uint64_t)1 << 20)
#define SAID_UNIT  4096u
#define SAID_ONCE  ((uint64_t)16 << 20) /* see said_ok() */

uint64_t rs_disk_said_offset(uint64_t start)
{
    return start >= SAID_LEAST && start % SAID_UNIT == 0 ? start : 0;
}

/* Headers of our first disks say 16 MiB, as one at the start of its image does, though their data begins at
 * the start: the place is that of the file or the descriptor, and the header only must not gainsay it. */
static bool said_ok(uint64_t said, uint64_t start)
{
    return said == 0 || said == start || said == SAID_ONCE;
}

/* Ciphertext whose header is elsewhere. */
static int look_side_header(struct rs_disk *d, char *why, size_t why_len)
{
    uint64_t size = d->size, offset = d->data_offset;
    RS_CLOSE int fd = open(d->header_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) return failed_errno(d->header_path, why, why_len);
    if (!S_ISREG(st.st_mode))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "%s is no file: it holds no LUKS header",
                            d->header_path);
    int err = rs_disk_look_luks(fd, UINT64_MAX, d, why, why_len);
    if (err == 0 && !said_ok(d->data_offset, offset))
        err = rs_vm_refuse(RESEAL_EFORMAT, why, why_len,
                           "the header in %s says that the data begins at byte %llu, but it begins at %llu",
                           d->header_path, (unsigned long long)d->data_offset, (unsigned long long)offset);
    d->header_size = RS_MIN(d->header_size, (uint64_t)st.st_size);
    d->header_used = RS_MIN(d->header_used, d->header_size);
    d->size = size;
    d->data_offset = offset;
    return err;
}

/* A descriptor comes from others, and is written through: its extent lies beside it. */
static int find_extent(struct rs_disk *d, const char *name, struct stat *st, char *why, size_t why_len)
{
    struct stat own;
    if (strchr(name, '/') != NULL)
        return rs_vm_refuse(RESEAL_ENOSUPPORT, why, why_len,
                            "its extent %s is in another folder: only one beside the descriptor is supported",
                            name);
    if (!beside(d->path, name, d->data_path))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "the name of its extent is too long");
    if (lstat(d->data_path, st) != 0 || stat(d->path, &own) != 0)
        return failed_errno(d->data_path, why, why_len);
    if (!S_ISREG(st->st_mode))
        return rs_vm_refuse(RESEAL_ENOSUPPORT, why, why_len, "its extent %s is %s: only a file is supported",
                            name, S_ISLNK(st->st_mode) ? "a symbolic link" : "no file");
    if (st->st_dev == own.st_dev && st->st_ino == own.st_ino)
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "its extent is the descriptor itself");
    return 0;
}

static int look_vmdk(struct rs_disk *d, const struct rs_vmdk *v, char *why, size_t why_len)
{
    struct rs_vmdk_extent extent;
    int err = rs_vmdk_extent(v, &extent, why, why_len);
    if (err != 0) return err;
    struct stat st;
    err = find_extent(d, extent.file, &st, why, why_len);
    if (err != 0) return err;
    d->size = extent.sectors * 512;
    d->data_offset = extent.first * 512;
    if (!rs_range_ok(d->data_offset, d->size, (uint64_t)st.st_size))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "its extent %s is truncated", d->data_path);
    const char *hint = rs_vmdk_get(v, "parentFileNameHint");
    if (hint != NULL && !beside(d->path, hint, d->parent))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "the name of its parent is too long");
    const char *keys = rs_vmdk_get(v, "encryptionKeys");
    d->format = keys != NULL ? RS_DISK_VMDK_XTS : RS_DISK_VMDK;
    if (keys == NULL) return 0;
    d->encrypted = true;
    if (rs_disk_take_locator(keys, d->provider, d->key) != 0)
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "its encryptionKeys line is no key locator");
    if (!side_header(d))
        return rs_vm_refuse(RESEAL_ENOSUPPORT, why, why_len,
                            "it is encrypted by another program (there is no %s" RS_DISK_HEADER
                            "): only that "
                            "program can read it",
                            d->path);
    return look_side_header(d, why, why_len);
}

/* ---- LUKS --------------------------------------------------------------------------- */

static const uint8_t luks_magic[6] = {'L', 'U', 'K', 'S', 0xba, 0xbe};

int rs_disk_look_luks(int fd, uint64_t file_size, struct rs_disk *d, char *why, size_t why_len)
{
    uint8_t start[512];
    int code = rs_pread_full(fd, start, sizeof(start), 0);
    if (code != 0 || memcmp(start, luks_magic, sizeof(luks_magic)) != 0)
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "it holds no LUKS header, or a damaged one");
    unsigned version = (unsigned)start[6] << 8 | start[7];
    if (version != 1 && version != 2)
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "its LUKS header is of version %u", version);
    code = version == 1 ? rs_disk_luks1(start, d) : rs_disk_luks2(fd, start, d);
    if (code == RESEAL_ENOMEM) return code;
    if (code != 0) return rs_vm_refuse(code, why, why_len, "its LUKS%u header is damaged", version);
    if (d->data_offset > file_size || (d->size != 0 && !rs_range_ok(d->data_offset, d->size, file_size)))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "it is truncated: its data begins at byte %llu",
                            (unsigned long long)d->data_offset);
    if (d->size == 0) d->size = file_size - d->data_offset;
    d->encrypted = true;
    return 0;
}

/* ---- all of it ---------------------------------------------------------------------- */

/* What is in a qcow2 image: a LUKS header, or not. */
static int look_in_qcow2(struct rs_disk *d, char *why, size_t why_len)
{
    RS_CLOSE int header = -1;
    uint64_t virtual = d->size;
    int err = rs_qcow2_luks_header_at(d->path, &header, why, why_len);
    if (err != 0 || header < 0) return err;
    d->size = 0;
    err = rs_disk_look_luks(header, virtual, d, why, why_len);
    if (err != 0) return err;
    uint8_t start[8];
    if (rs_pread_full(header, start, sizeof(start), 0) != 0) return RESEAL_EIO;
    memcpy(d->header_path, d->path, sizeof(d->header_path));
    d->format = start[7] == 1 ? RS_DISK_LUKS1_QCOW2 : RS_DISK_LUKS2_QCOW2;
    return 0;
}

static int look_qcow2(struct rs_disk *d, const uint8_t *start, size_t have, char *why, size_t why_len)
{
    struct rs_qcow2_facts facts;
    d->format = RS_DISK_QCOW2;
    if (rs_qcow2_facts(start, have, &facts) != 0)
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "its qcow2 header is damaged");
    d->size = facts.size;
    d->snapshots = facts.snapshots;
    d->bar = facts.bar;
    d->encrypted = facts.crypt != 0;
    if (d->encrypted) d->format = RS_DISK_QCOW2_LUKS;
    return d->bar != NULL ? 0 : look_in_qcow2(d, why, why_len);
}

static bool has_at(int fd, uint64_t at, const void *what, size_t len)
{
    uint8_t have[16];
    return rs_pread_full(fd, have, len, at) == 0 && memcmp(have, what, len) == 0;
}

/* Something else was made over what is left of a LUKS2 container. */
static bool holds_other(int fd)
{
    return has_at(fd, 510, "\x55\xaa", 2) || has_at(fd, 1080, "\x53\xef", 2) || has_at(fd, 0, "XFSB", 4) ||
           has_at(fd, 512, "LABELONE", 8) || has_at(fd, 4086, "SWAPSPACE2", 10) ||
           has_at(fd, 65600, "_BHRfS_M", 8);
}

/*
 * A LUKS2 container whose first header was overwritten: taken for a disk in the clear it would be encrypted
 * once more, or given to a guest as it is. A second header says where it is itself.
 */
static bool has_second_header(int fd)
{
    for (uint64_t at = 0x4000; at <= 0x400000; at *= 2) {
        uint8_t offset[8];
        if (!has_at(fd, at, "SKUL\xba\xbe", 6) || rs_pread_full(fd, offset, sizeof(offset), at + 256) != 0)
            continue;
        if (rs_load_be64(offset) == at) return !holds_other(fd);
    }
    return false;
}

/* What is no disk in the clear, though it is none that can be opened either. */
static int look_damaged(int fd, const uint8_t *start, size_t have, char *why, size_t why_len)
{
    if (have >= 6 && memcmp(start, "LUKS\xde\xad", 6) == 0)
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len,
                            "it is being re-encrypted in place, or that was interrupted: run the same reseal "
                            "transcode --in-place again");
    if (has_second_header(fd))
        return rs_vm_refuse(
            RESEAL_EFORMAT, why, why_len,
            "its first LUKS2 header is damaged, and its second one is there: cryptsetup repair "
            "puts the first back");
    return 0;
}

static int look_image(struct rs_disk *d, int fd, uint64_t size, const uint8_t *start, size_t have, char *why,
                      size_t why_len)
{
    memcpy(d->data_path, d->path, sizeof(d->data_path));
    d->size = size;
    if (rs_qcow2_is(start, have)) return look_qcow2(d, start, have, why, why_len);
    if (have >= 6 && memcmp(start, luks_magic, sizeof(luks_magic)) == 0) {
        memcpy(d->header_path, d->path, sizeof(d->header_path));
        d->size = 0;
        int err = rs_disk_look_luks(fd, size, d, why, why_len);
        if (err == 0 && d->data_offset < d->header_size)
            err = rs_vm_refuse(RESEAL_EFORMAT, why, why_len,
                               "it is the header of a disk whose data is in another file: name that one");
        d->format = have > 7 && start[7] == 1 ? RS_DISK_LUKS1 : RS_DISK_LUKS2;
        return err;
    }
    /* Of desktop products, streams of exports among them, and of hosts. */
    if (have >= 4 && (memcmp(start, "KDMV", 4) == 0 || memcmp(start, "COWD", 4) == 0))
        return rs_vm_refuse(RESEAL_ENOSUPPORT, why, why_len, "it is a sparse VMDK: " RS_VMDK_FLATTEN);
    if (!side_header(d)) return look_damaged(fd, start, have, why, why_len);
    d->format = RS_DISK_XTS;
    d->encrypted = true;
    return look_side_header(d, why, why_len);
}

static void clear(struct rs_disk *d)
{
    d->format = RS_DISK_RAW;
    d->encrypted = false;
    d->data_offset = d->size = d->header_size = d->header_used = d->unit = 0;
    d->snapshots = 0;
    d->bar = NULL;
    d->data_path[0] = d->header_path[0] = d->parent[0] = d->uuid[0] = d->label[0] = '\0';
}

int rs_disk_look(struct rs_disk *d, char *why, size_t why_len)
{
    clear(d);
    RS_CLOSE int fd = open(d->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    uint8_t start[RS_QCOW2_HEADER];
    ssize_t have = size < 0 ? -1 : pread(fd, start, sizeof(start), 0);
    if (have < 0) return failed_errno(d->path, why, why_len);
    if (!rs_vmdk_is(start, (size_t)have))
        return look_image(d, fd, (uint64_t)size, start, (size_t)have, why, why_len);
    size_t len = 0;
    RS_FREE char *text = NULL;
    int err = rs_vm_read_file(d->path, RS_VMDK_MAX, &text, &len);
    if (err == RESEAL_EIO) return failed_errno(d->path, why, why_len);
    if (err != 0) return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "it is too large for a VMDK descriptor");
    struct rs_vmdk *v = NULL;
    err = rs_vmdk_parse(text, len, &v, why, why_len);
    if (err == 0) err = look_vmdk(d, v, why, why_len);
    rs_vmdk_free(v);
    return err;
}
