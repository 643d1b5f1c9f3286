/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/side.h"
#include "offload/cli/vm-change.h"
#include "offload/cli/vm-copy.h"
#include "offload/vm/nodes.h"
#include "offload/vm/qcow2-served.h"
#include "offload/vm/vmdk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_MAX (64 << 20)

bool rs_vmc_side_header(const struct rs_disk *d, char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, "%s" RS_DISK_HEADER, d->path);
    return n > 0 && n < PATH_MAX;
}

bool rs_vmc_header_path(const struct rs_disk *d, char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, "%s" RS_DISK_HEADER RS_VMC_NEW, d->path);
    return n > 0 && n < PATH_MAX - 8;
}

static int no_memory(struct rs_vmc_change *ch)
{
    return rs_failure_set(&ch->c->f, RS_EXIT_FAILED, "out of memory");
}

/* Notes a step; what it made is durable. */
static int did(struct rs_vmc_change *ch, const char *what, const struct rs_disk *d)
{
    char step[RS_DISK_NODE_MAX + 16];
    (void)snprintf(step, sizeof(step), "%s%s%s", what, d != NULL ? ":" : "", d != NULL ? d->node : "");
    if (rs_intent_did(&ch->intent, step) == 0) return 0;
    return rs_failure_errno(&ch->c->f, errno, "write", ch->intent.path);
}

static bool has(const struct rs_vmc_change *ch, const char *what, const struct rs_disk *d)
{
    char step[RS_DISK_NODE_MAX + 16];
    (void)snprintf(step, sizeof(step), "%s%s%s", what, d != NULL ? ":" : "", d != NULL ? d->node : "");
    return rs_intent_has(&ch->intent, step);
}

static int too_long(struct rs_vmc_change *ch, const char *path)
{
    return rs_failure_set(&ch->c->f, RS_EXIT_USAGE, "the name %s is too long", path);
}

/* ---- the key ------------------------------------------------------------------------ */

/* The key that new headers get; empty id: the service makes one. */
static void get_key(const struct rs_vmc_change *ch, struct rs_vmc_key *key)
{
    const char *id = rs_vmc_get(ch, "kek.id");
    (void)snprintf(key->provider, sizeof(key->provider), "%s",
                   rs_vmc_get(ch, *id != '\0' ? "kek.provider" : "provider"));
    (void)snprintf(key->key, sizeof(key->key), "%s", id);
}

static int set_key(struct rs_vmc_change *ch, const struct rs_vmc_key *key)
{
    int code = rs_vmc_set(ch, "kek.provider", key->provider);
    return code == 0 ? rs_vmc_set(ch, "kek.id", key->key) : code;
}

/* ---- the home ----------------------------------------------------------------------- */

static bool home_is(const struct rs_vmc_change *ch, const char *what)
{
    return strcmp(rs_vmc_get(ch, "home"), what) == 0;
}

/* The home will be locked by a pass phrase. */
static bool to_phrase(const struct rs_vmc_change *ch)
{
    return strcmp(rs_vmc_get(ch, "lock"), "phrase") == 0;
}

/* A home that an earlier run sealed. */
static int take_sealed(struct rs_vmc_change *ch, const char *path)
{
    int code = rs_vmc_seal_at(ch->c, path, &ch->seal);
    return code == 0 && to_phrase(ch) ? rs_vmc_check_phrase_at(ch->c, path) : code;
}

/* Disks get the key of the home, if it has one, unless another provider was chosen for them. */
static int disks_take_key(struct rs_vmc_change *ch)
{
    const char *provider = rs_vmc_get(ch, "provider");
    bool own = *provider != '\0' && strcmp(provider, ch->seal.key.provider) != 0;
    return ch->seal.by_phrase || own ? 0 : set_key(ch, &ch->seal.key);
}

static int sealed(struct rs_vmc_change *ch)
{
    int code = disks_take_key(ch);
    return code == 0 ? did(ch, "home", NULL) : code;
}

/* What the plan changes in the lines. */
static int change_lines(struct rs_vmc_change *ch)
{
    struct rs_vmx *v = ch->c->vm->lines;
    const char *vtpm = rs_vmc_get(ch, "vtpm"), *policy = rs_vmc_get(ch, "policy");
    char file[NAME_MAX + 8];
    int code = 0;
    (void)snprintf(file, sizeof(file), "%s.vtpm", ch->c->vm->name);
    if (strcmp(vtpm, "add") == 0) {
        code = rs_vmx_set(v, "vtpm.present", "TRUE");
        if (code == 0) code = rs_vmx_set(v, "vtpm.fileName", file);
    } else if (strcmp(vtpm, "remove") == 0) {
        (void)rs_vmx_remove(v, "vtpm.present");
        (void)rs_vmx_remove(v, "vtpm.fileName");
    }
    if (code == 0 && *policy != '\0') code = rs_vmx_set(v, "reseal.policy", policy);
    return code == 0 ? 0 : no_memory(ch);
}

static int new_vmx(struct rs_vmc_change *ch, char out[PATH_MAX])
{
    return rs_vmc_new_path(ch->c->vm->vmx_path, out) ? 0 : too_long(ch, ch->c->vm->vmx_path);
}

/* Locks the lines under the new key, into a file that waits for the disks' lines. */
static int seal_lines(struct rs_vmc_change *ch)
{
    struct rs_vmc *c = ch->c;
    char path[PATH_MAX];
    int code = new_vmx(ch, path);
    if (code != 0) return code;
    if (has(ch, "home", NULL)) return take_sealed(ch, path);
    code = change_lines(ch);
    if (code != 0) return code;
    struct rs_vmc_key key;
    get_key(ch, &key);
    if (strcmp(rs_vmc_get(ch, "home.key"), "keep") == 0) key = ch->old.key;
    size_t len = 0;
    char *text = rs_vmx_text(c->vm->lines, &len);
    if (text == NULL) return no_memory(ch);
    code = rs_vmc_home_seal(c, to_phrase(ch) ? NULL : &key, NULL, false, text, len, &ch->seal);
    rs_wipe(text, len);
    free(text);
    if (code == 0) code = rs_vmc_write_sealed(c, &ch->seal, NULL, path);
    return code == 0 ? sealed(ch) : code;
}

/* A home that keeps its lock: only what is said of disks in the clear changes. */
static int keep_lines(struct rs_vmc_change *ch)
{
    if (!ch->c->vm->sealed) return 0;
    int code = rs_vmc_seal_of(ch->c, ch->c->vm->outer, &ch->seal);
    return code != 0 || *rs_vmc_get(ch, "kek.id") != '\0' ? code : disks_take_key(ch);
}

static int rewrap_lines(struct rs_vmc_change *ch)
{
    struct rs_vmc *c = ch->c;
    char path[PATH_MAX];
    int code = new_vmx(ch, path);
    if (code != 0) return code;
    if (has(ch, "home", NULL)) return take_sealed(ch, path);
    struct rs_vmc_key key;
    get_key(ch, &key);
    if (key.provider[0] == '\0') memcpy(key.provider, ch->old.key.provider, sizeof(key.provider));
    code = rs_vmc_home_rewrap(c, to_phrase(ch) ? NULL : &key, &ch->seal);
    if (code != 0) return code;
    ch->seal.data = strdup(ch->old.data);
    if (ch->seal.data == NULL) return no_memory(ch);
    code = rs_vmc_write_sealed(c, &ch->seal, NULL, path);
    return code == 0 ? sealed(ch) : code;
}

static bool is_ours(const char *name)
{
    return strcasecmp(name, "reseal.vm") == 0 || strcasecmp(name, "reseal.policy") == 0 ||
           rs_vm_has_suffix(name, ".keyId");
}

static int find_ours(const char *name, const char *value, void *arg)
{
    (void)value;
    if (!is_ours(name)) return 0;
    *(const char **)arg = name;
    return 1;
}

/* What is of no use in the clear. */
static void drop_ours(struct rs_vmx *v)
{
    char name[RS_VMX_NAME_MAX];
    const char *found;
    while (rs_vmx_each(v, find_ours, &found) != 0) {
        (void)snprintf(name, sizeof(name), "%s", found);
        (void)rs_vmx_remove(v, name);
    }
}

static int open_lines(struct rs_vmc_change *ch)
{
    char path[PATH_MAX];
    int code = new_vmx(ch, path);
    if (code == 0) code = change_lines(ch);
    if (code != 0) return code;
    size_t len = 0;
    drop_ours(ch->c->vm->lines);
    const char *policy = rs_vmc_get(ch, "policy");
    if (*policy != '\0' && rs_vmx_set(ch->c->vm->lines, "reseal.policy", policy) != 0) return no_memory(ch);
    char *text = rs_vmx_text(ch->c->vm->lines, &len);
    if (text == NULL) return no_memory(ch);
    code = rs_vm_write_file(path, text, len);
    rs_wipe(text, len);
    free(text);
    return code == 0 ? 0 : rs_failure_errno(&ch->c->f, code, "write", path);
}

/* The disk that comes, or goes. */
static const char *changed_node(const struct rs_vmc_change *ch)
{
    const char *node = rs_vmc_get(ch, "add.node");
    return *node != '\0' ? node : rs_vmc_get(ch, "remove.node");
}

/* The locked lines are changed by the key service, and stay under the key that they have. */
static int change_locked_disk(struct rs_vmc_change *ch, const char *path)
{
    struct rs_vmc *c = ch->c;
    const char *provider = rs_vmc_get(ch, "provider");
    if (has(ch, "home", NULL)) return take_sealed(ch, path);
    int code = rs_vmc_seal_of(c, c->vm->outer, &ch->seal);
    if (code != 0) return code;
    free(ch->seal.data);
    ch->seal.data = NULL;
    code = rs_vmc_home_disk(c, changed_node(ch), rs_vmc_get(ch, "add.file"), &ch->seal.data);
    if (code == 0) code = rs_vmc_write_sealed(c, &ch->seal, NULL, path);
    /* A disk of another provider gets a key of its own. */
    bool own = *provider != '\0' && strcmp(provider, ch->seal.key.provider) != 0;
    if (code == 0 && !ch->seal.by_phrase && !own) code = set_key(ch, &ch->seal.key);
    return code == 0 ? did(ch, "home", NULL) : code;
}

static int change_plain_disk(struct rs_vmc_change *ch, const char *path)
{
    struct rs_vmx *v = ch->c->vm->lines;
    const char *file = rs_vmc_get(ch, "add.file");
    size_t len = 0;
    if (*file == '\0')
        (void)rs_vm_node_drop(v, changed_node(ch));
    else if (rs_vm_node_put(v, changed_node(ch), file) != 0)
        return no_memory(ch);
    RS_FREE char *text = rs_vmx_text(v, &len);
    if (text == NULL) return no_memory(ch);
    int code = rs_vm_write_file(path, text, len);
    return code == 0 ? did(ch, "home", NULL) : rs_failure_errno(&ch->c->f, code, "write", path);
}

static int change_disk(struct rs_vmc_change *ch)
{
    char path[PATH_MAX];
    int code = new_vmx(ch, path);
    if (code != 0) return code;
    return ch->c->vm->sealed ? change_locked_disk(ch, path) : change_plain_disk(ch, path);
}

static int stage_file(struct rs_vmc_change *ch, const char *path, const char *step)
{
    char fresh[PATH_MAX];
    struct stat st;
    if (path[0] == '\0' || stat(path, &st) != 0 || has(ch, step, NULL)) return 0;
    if (!rs_vmc_new_path(path, fresh)) return too_long(ch, path);
    struct rs_vmc_file_lock was = {.bundle = NULL}, will = {.bundle = NULL};
    if (rs_vmc_is_envelope(path)) was = (struct rs_vmc_file_lock){ch->old.bundle, ch->old.by_phrase};
    if (!home_is(ch, "open")) will = (struct rs_vmc_file_lock){ch->seal.bundle, ch->seal.by_phrase};
    int code = rs_vmc_convert_file(ch->c, path, &was, fresh, &will);
    return code == 0 ? did(ch, step, NULL) : code;
}

static int stage_home(struct rs_vmc_change *ch)
{
    bool files = home_is(ch, "seal") || home_is(ch, "open") || (home_is(ch, "rewrap") && to_phrase(ch));
    /* A rerun must not draw another one. */
    (void)snprintf(ch->c->vm->uuid, sizeof(ch->c->vm->uuid), "%s", rs_vmc_get(ch, "uuid"));
    bool plain = home_is(ch, "open") || (home_is(ch, "disk") && !ch->c->vm->sealed);
    if (!plain && rs_vmx_set(ch->c->vm->lines, "reseal.vm", ch->c->vm->uuid) != 0) return no_memory(ch);
    int code = home_is(ch, "seal")     ? seal_lines(ch)
               : home_is(ch, "rewrap") ? rewrap_lines(ch)
               : home_is(ch, "open")   ? open_lines(ch)
               : home_is(ch, "disk")   ? change_disk(ch)
                                       : keep_lines(ch);
    if (code == 0 && files) code = stage_file(ch, ch->c->vm->nvram, "nvram");
    if (code == 0 && files && strcmp(rs_vmc_get(ch, "vtpm"), "remove") != 0)
        code = stage_file(ch, ch->c->vm->vtpm, "vtpm");
    return code;
}

/* The lines NODE.keyId of disks that will be LUKS1. */
static int disk_lines(struct rs_vmc_change *ch, struct rs_vmx *v)
{
    const struct rs_vm *vm = ch->c->vm;
    for (unsigned i = 0; i < vm->ndisks; i++) {
        const struct rs_disk *d = &vm->disks[i].disk;
        const char *format = rs_vmc_get_disk(ch, d);
        struct rs_vmc_key key;
        char name[RS_DISK_NODE_MAX + 8];
        bool was = rs_disk_is_luks1(d->format);
        /* One that cannot be read now has the line that it had. */
        bool kept = *format == '\0' && (was || (vm->disks[i].problem != 0 && d->key[0] != '\0'));
        bool fresh = rs_disk_name_is_luks1(format) || (strcmp(format, "rewrap") == 0 && was);
        if (!kept && !fresh) continue;
        get_key(ch, &key);
        RS_FREE char *locator =
            fresh ? rs_disk_locator(key.provider, key.key) : rs_disk_locator(d->provider, d->key);
        (void)snprintf(name, sizeof(name), "%s.keyId", d->node);
        if (locator == NULL || rs_vmx_set(v, name, locator) != 0) return no_memory(ch);
    }
    return 0;
}

static int write_home(struct rs_vmc_change *ch)
{
    char path[PATH_MAX];
    if (home_is(ch, "open") || ch->seal.key_safe == NULL) return 0;
    struct rs_vmx *v = rs_vmx_new();
    int code = v == NULL ? no_memory(ch) : new_vmx(ch, path);
    if (code == 0) code = disk_lines(ch, v);
    if (code == 0) code = rs_vmc_write_sealed(ch->c, &ch->seal, v, path);
    rs_vmx_free(v);
    return code;
}

/* ---- disks -------------------------------------------------------------------------- */

static unsigned number(const struct rs_vmc_change *ch, const char *name, unsigned otherwise)
{
    unsigned long n = strtoul(rs_vmc_get(ch, name), NULL, 10);
    return n != 0 ? (unsigned)n : otherwise;
}

/* Bytes of a header up to where only zeros follow, in whole blocks. */
static size_t used(const uint8_t *bytes, size_t len)
{
    static const uint8_t zeros[4096];
    size_t n = (size_t)rs_round_up(len, sizeof(zeros));
    while (n > 0 &&
           memcmp(bytes + n - sizeof(zeros), zeros, RS_MIN(len + sizeof(zeros) - n, sizeof(zeros))) == 0)
        n -= sizeof(zeros);
    return RS_MIN(n, len);
}

/* Where the last data of a file in memory ends: a header is small, and its room is not. */
static off_t end_of_data(int fd, off_t end)
{
    off_t at = 0, hole;
    for (off_t data = 0; (data = lseek(fd, at, SEEK_DATA)) >= 0 && data < end; at = hole)
        if ((hole = lseek(fd, data, SEEK_HOLE)) < 0) return end;
    return at;
}

struct header {
    uint8_t *bytes;
    size_t used, room; /* bytes; what is used, in whole blocks, and with the zeros behind it */
};

/* There are `least` bytes in any case. */
static int read_header(struct rs_vmc_change *ch, int fd, size_t least, struct header *h)
{
    off_t end = lseek(fd, 0, SEEK_END);
    *h = (struct header){.bytes = NULL};
    if (end <= 0 || end > HEADER_MAX) return no_memory(ch);
    size_t n = (size_t)end_of_data(fd, end);
    h->room = (size_t)end;
    h->bytes = calloc(1, RS_MAX(RS_MAX(n, least), 1));
    if (h->bytes == NULL) return no_memory(ch);
    int code = rs_pread_full(fd, h->bytes, n, 0);
    h->used = used(h->bytes, n);
    return code == 0 ? 0 : rs_failure_errno(&ch->c->f, code, "read", "a header");
}

/* The first `n` bytes in a file of their own, which is `len` long. */
static int write_bytes(struct rs_vmc_change *ch, const uint8_t *bytes, size_t n, size_t len, const char *path)
{
    int code = rs_vm_write_file(path, bytes, RS_MIN(n, len));
    if (code == 0 && len > n && truncate(path, (off_t)len) != 0) code = -errno;
    return code == 0 ? 0 : rs_failure_errno(&ch->c->f, code, "write", path);
}

/* A header that the service gave. */
static int write_header_file(struct rs_vmc_change *ch, int fd, const char *path)
{
    struct header h;
    int code = read_header(ch, fd, 0, &h);
    if (code == 0) code = write_bytes(ch, h.bytes, h.used, h.room, path);
    free(h.bytes);
    return code;
}

/* There is no data of it yet. */
static bool is_new(const struct rs_vmc_change *ch, const struct rs_disk *d)
{
    return *rs_vmc_get(ch, "add.size") != '\0' && strcmp(rs_vmc_get(ch, "add.node"), d->node) == 0;
}

static int make_header(struct rs_vmc_change *ch, const struct rs_disk *d, const char *format,
                       const char *path)
{
    if (has(ch, "header", d)) return 0;
    char label[48];
    (void)snprintf(label, sizeof(label), "reseal:%s", ch->c->vm->uuid);
    struct rs_vmc_format f = {.version = rs_disk_name_is_luks1(format) ? 1 : 2,
                              .unit = number(ch, "unit", 4096),
                              .key_bits = number(ch, "key-bits", 256),
                              .size = d->size,
                              .detached = rs_disk_name_has_side_header(format),
                              .start = strcmp(format, "vmdk-xts") == 0 ? d->data_offset : 0,
                              .label = label,
                              .existing = !is_new(ch, d)};
    if (f.version == 1 || d->size % f.unit != 0) f.unit = 512;
    if (d->size % f.unit != 0)
        return rs_failure_set(&ch->c->f, RS_EXIT_FORMAT, "%s (%s) is no whole number of sectors of 512 bytes",
                              d->node, d->path);
    get_key(ch, &f.key);
    RS_CLOSE int header = -1;
    struct rs_vmc_key made;
    int code = rs_vmc_disk_format(ch->c, &f, d->node, &header, &made);
    if (code == 0) code = write_header_file(ch, header, path);
    if (code == 0 && f.key.key[0] == '\0') code = set_key(ch, &made);
    return code == 0 ? did(ch, "header", d) : code;
}

static bool is_plain(const char *format)
{
    return strcmp(format, "raw") == 0 || strcmp(format, "vmdk") == 0 || strcmp(format, "qcow2") == 0;
}

/* The side that a disk will be, by its staged header. */
static int new_side(struct rs_vmc_change *ch, const struct rs_disk *d, const char *format, const char *header,
                    struct rs_vmc_side *side)
{
    char why[256];
    *side = (struct rs_vmc_side){.qcow2 = rs_disk_name_in_qcow2(format)};
    if (!rs_vmc_new_path(d->data_path, side->path)) return too_long(ch, d->data_path);
    if (strncmp(format, "vmdk", 4) == 0) side->offset = d->data_offset;
    if (is_plain(format)) return 0;
    struct rs_disk look = {.encrypted = true};
    RS_CLOSE int fd = open(header, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return rs_failure_errno(&ch->c->f, errno, "open", header);
    if (rs_disk_look_luks(fd, INT64_MAX, &look, why, sizeof(why)) != 0)
        return rs_failure_set(&ch->c->f, RS_EXIT_FORMAT, "%s: %s", header, why);
    memcpy(side->header, header, strlen(header) + 1);
    side->unit = look.unit;
    if (strncmp(format, "luks", 4) == 0) side->offset = look.data_offset;
    if (rs_disk_name_is_luks1(format)) get_key(ch, &side->key);
    return 0;
}

static int put_header_in_qcow2(struct rs_vmc_change *ch, const char *bytes, size_t len, const char *path)
{
    struct rs_file file;
    int code = rs_file_open_qcow2(&file, path, RS_FILE_WRITE, 0, &ch->c->f);
    if (code != 0) return code;
    int err = rs_file_pwrite_sparse(&file, bytes, len, 0);
    if (err == 0) err = rs_file_flush(&file);
    rs_file_close(&file);
    return err == 0 ? 0 : rs_failure_errno(&ch->c->f, err, "write", path);
}

/* The header at the start of the new image, when the data behind it is flushed. */
static int put_header(struct rs_vmc_change *ch, const struct rs_vmc_side *side)
{
    RS_FREE char *bytes = NULL;
    size_t len = 0;
    if (rs_vm_read_made_file(side->header, HEADER_MAX, &bytes, &len) != 0)
        return rs_failure_errno(&ch->c->f, errno, "read", side->header);
    if (len > side->offset) len = (size_t)side->offset;
    if (side->qcow2) return put_header_in_qcow2(ch, bytes, len, side->path);
    RS_CLOSE int fd = open(side->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    int code = fd < 0 ? -errno : rs_pwrite_full(fd, bytes, len, 0);
    if (code == 0 && fsync(fd) != 0) code = -errno;
    return code == 0 ? 0 : rs_failure_errno(&ch->c->f, code, "write", side->path);
}

static int edit_descriptor(struct rs_vmc_change *ch, struct rs_vmdk *v, bool encrypted, unsigned unit)
{
    static const char *const ours[] = {"keyID",           "encryptionKeys",   "ddb.iofilters",
                                       "ddb.reseal.unit", "ddb.reseal.tweak", "ddb.reseal.format"};
    for (unsigned i = 0; i < RS_ARRAY_LEN(ours); i++) rs_vmdk_remove(v, ours[i]);
    if (!encrypted) return 0;
    struct rs_vmc_key key;
    char text[16];
    get_key(ch, &key);
    RS_FREE char *locator = rs_disk_locator(key.provider, key.key);
    (void)snprintf(text, sizeof(text), "%u", unit);
    int code = locator == NULL ? RESEAL_ENOMEM : rs_vmdk_set(v, "keyID", key.key, true);
    if (code == 0) code = rs_vmdk_set(v, "encryptionKeys", locator, true);
    if (code == 0) code = rs_vmdk_set(v, "ddb.iofilters", "vmwarevmcrypt", true);
    if (code == 0)
        code = rs_vmdk_set(v, "ddb.reseal.format", "xts-aes, not VMware's; header beside this file", true);
    if (code == 0) code = rs_vmdk_set(v, "ddb.reseal.unit", text, true);
    if (code == 0) code = rs_vmdk_set(v, "ddb.reseal.tweak", "plain64 by 512", true);
    return code == 0 ? 0 : no_memory(ch);
}

/* The descriptor that says what the extent will be. */
static int new_descriptor(struct rs_vmc_change *ch, const struct rs_disk *d, bool encrypted, unsigned unit)
{
    char fresh[PATH_MAX], why[256];
    RS_FREE char *old = NULL, *text = NULL;
    size_t len = 0;
    struct rs_vmdk *v = NULL;
    if (!rs_vmc_new_path(d->path, fresh)) return too_long(ch, d->path);
    if (rs_vm_read_file(d->path, RS_VMDK_MAX, &old, &len) != 0)
        return rs_failure_errno(&ch->c->f, errno, "read", d->path);
    int err = rs_vmdk_parse(old, len, &v, why, sizeof(why));
    if (err != 0) return rs_failure_set(&ch->c->f, RS_EXIT_FORMAT, "%s: %s", d->path, why);
    int code = edit_descriptor(ch, v, encrypted, unit);
    if (code == 0) text = rs_vmdk_text(v, &len);
    rs_vmdk_free(v);
    if (code != 0 || text == NULL) return code != 0 ? code : no_memory(ch);
    err = rs_vm_write_file(fresh, text, len);
    return err == 0 ? 0 : rs_failure_errno(&ch->c->f, err, "write", fresh);
}

/* A new disk: a hole, of which nothing was ever written. */
static int make_empty(struct rs_vmc_change *ch, const struct rs_vmc_side *side, uint64_t size)
{
    struct rs_file file;
    if (unlink(side->path) != 0 && errno != ENOENT)
        return rs_failure_errno(&ch->c->f, errno, "replace", side->path);
    if (side->qcow2) {
        int code = rs_file_open_qcow2(&file, side->path, RS_FILE_WRITE | RS_FILE_CREATE, side->offset + size,
                                      &ch->c->f);
        if (code != 0) return code;
        int err = rs_file_flush(&file);
        rs_file_close(&file);
        return err == 0 ? 0 : rs_failure_errno(&ch->c->f, err, "write", side->path);
    }
    RS_CLOSE int fd = open(side->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return rs_failure_errno(&ch->c->f, errno, "create", side->path);
    bool made = ftruncate(fd, (off_t)(side->offset + size)) == 0 && fsync(fd) == 0;
    return made ? 0 : rs_failure_errno(&ch->c->f, errno, "write", side->path);
}

static int stage_copy(struct rs_vmc_change *ch, const struct rs_disk *d, const char *format)
{
    char header[PATH_MAX];
    struct rs_vmc_side from, to;
    if (has(ch, "copy", d)) return 0;
    if (!rs_vmc_header_path(d, header)) return too_long(ch, d->path);
    bool encrypted = !is_plain(format);
    int code = encrypted ? make_header(ch, d, format, header) : 0;
    if (code == 0) code = new_side(ch, d, format, header, &to);
    if (code != 0) return code;
    rs_vmc_side_of(d, &from);
    code = is_new(ch, d) ? make_empty(ch, &to, d->size) : rs_vmc_copy(ch->c, &from, &to, d->size);
    rs_intent_step("copied");
    if (code == 0 && strncmp(format, "luks", 4) == 0) code = put_header(ch, &to);
    if (code == 0 && strncmp(format, "vmdk", 4) == 0) code = rs_vmc_copy_around(ch->c, &from, &to, d->size);
    if (code == 0 && strncmp(format, "vmdk", 4) == 0) code = new_descriptor(ch, d, encrypted, to.unit);
    return code == 0 ? did(ch, "copy", d) : code;
}

/* The new header is opened before it counts. */
static int try_header(struct rs_vmc_change *ch, const struct rs_disk *d, const char *path)
{
    char why[RS_KEYSERVICE_WHY];
    struct rs_vmc_key key;
    reseal_key handle;
    struct reseal_luks luks;
    get_key(ch, &key);
    RS_CLOSE int header = rs_vmc_header_copy(path, false);
    if (header < 0) return rs_failure_errno(&ch->c->f, header, "read", path);
    int err = rs_vmc_disk_open(ch->c->service, header, rs_disk_is_luks1(d->format) ? &key : NULL,
                               RESEAL_USE_SOURCE, &handle, &luks, why, sizeof(why));
    if (err != 0)
        return rs_failure_set(&ch->c->f, rs_exit_of(err), "the new header of %s does not open: %s", d->node,
                              why);
    (void)!reseal_key_close(ch->c->service, handle);
    return 0;
}

/*
 * The new header and a copy of the old one. Only as much as either of them uses: the rest is empty in both,
 * and what the old one used is overwritten.
 */
static int write_both(struct rs_vmc_change *ch, const struct rs_disk *d, int was, int fresh, const char *old,
                      const char *path)
{
    struct header a, b = {.bytes = NULL};
    bool side = strcmp(d->header_path, d->path) != 0;
    int code = read_header(ch, was, 0, &a);
    if (code == 0) code = read_header(ch, fresh, a.used, &b);
    if (code == 0) code = write_bytes(ch, a.bytes, a.used, a.used, old);
    if (code == 0) {
        size_t n = RS_MIN(RS_MAX(a.used, b.used), b.room);
        code = write_bytes(ch, b.bytes, n, side ? b.room : n, path);
    }
    free(a.bytes);
    free(b.bytes);
    return code;
}

static int rewrap_header(struct rs_vmc_change *ch, const struct rs_disk *d, const char *path)
{
    struct rs_vmc_key key, was;
    char old[PATH_MAX];
    get_key(ch, &key);
    memcpy(was.provider, d->provider, sizeof(was.provider));
    memcpy(was.key, d->key, sizeof(was.key));
    RS_CLOSE int header = rs_vmc_header_copy(d->header_path, rs_disk_in_qcow2(d->format)), fresh = -1;
    if (header < 0) return rs_failure_errno(&ch->c->f, header, "read the header in", d->header_path);
    int code =
        rs_vmc_disk_rewrap(ch->c, header, rs_disk_is_luks1(d->format) ? &was : NULL, &key, d->node, &fresh);
    if (code != 0) return code;
    if (snprintf(old, sizeof(old), "%s.old", path) >= (int)sizeof(old)) return too_long(ch, path);
    return write_both(ch, d, header, fresh, old, path);
}

/* Only one program can write a qcow2 image: better to learn it before the commit. */
static int try_to_write(struct rs_vmc_change *ch, const struct rs_disk *d)
{
    if (!rs_vm_image_in_use(d->path) || rs_qcow2_served_is(d->path)) return 0;
    return rs_failure_set(&ch->c->f, RS_EXIT_REFUSED, "%s is in use by another program", d->path);
}

/* Not noted when it is done: to do it again costs less than to note it durably. */
static int stage_rewrap(struct rs_vmc_change *ch, const struct rs_disk *d)
{
    char path[PATH_MAX];
    if (!rs_vmc_header_path(d, path)) return too_long(ch, d->path);
    int code = rewrap_header(ch, d, path);
    if (code == 0) code = try_header(ch, d, path);
    if (code == 0 && rs_disk_in_qcow2(d->format)) code = try_to_write(ch, d);
    if (code == 0 && d->format == RS_DISK_VMDK_XTS) code = new_descriptor(ch, d, true, d->unit);
    rs_intent_step("rewrapped");
    return code;
}

int rs_vmc_stage(struct rs_vmc_change *ch)
{
    const struct rs_vm *vm = ch->c->vm;
    int code = stage_home(ch);
    for (unsigned i = 0; code == 0 && i < vm->ndisks; i++) {
        const struct rs_disk *d = &vm->disks[i].disk;
        const char *format = rs_vmc_get_disk(ch, d);
        if (*format == '\0') continue;
        code = strcmp(format, "rewrap") == 0 ? stage_rewrap(ch, d) : stage_copy(ch, d, format);
    }
    if (code == 0) code = write_home(ch);
    if (code != 0) return code;
    /* Programs of others start, and can refuse: that is for before the commit. */
    char why[RS_VM_WHY];
    int err = rs_intent_open_images(&ch->intent, why, sizeof(why));
    return err == 0 ? 0 : rs_vmc_refuse(ch->c, err, why);
}
