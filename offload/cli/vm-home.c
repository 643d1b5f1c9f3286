/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/vm-home.h"

#include "offload/cli/socket.h"
#include "offload/vm/safe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

static int no_memory(struct rs_vmc *c)
{
    return rs_failure_set(&c->f, RS_EXIT_FAILED, "out of memory");
}

bool rs_vmc_new_path(const char *path, char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, "%s" RS_VMC_NEW, path);
    return n > 0 && n < PATH_MAX;
}

/* ---- the .vmx ----------------------------------------------------------------------- */

static int copy_clear(const char *name, const char *value, void *arg)
{
    bool wanted = rs_vm_is_clear(name) && strncasecmp(name, "encryption.", 11) != 0 &&
                  !rs_vm_has_suffix(name, ".keyId");
    return wanted ? rs_vmx_set(arg, name, value) : 0;
}

static int copy_any(const char *name, const char *value, void *arg)
{
    return rs_vmx_set(arg, name, value);
}

static int put_seal(struct rs_vmx *v, const struct rs_vmc_seal *seal)
{
    RS_FREE char *id = rs_disk_locator(seal->key.provider, seal->key.key);
    int code = id == NULL ? RESEAL_ENOMEM : seal->by_phrase ? 0 : rs_vmx_set(v, "encryption.keyId", id);
    if (code == 0) code = rs_vmx_set(v, "encryption.keySafe", seal->key_safe);
    if (code == 0 && seal->bundle != NULL) code = rs_vmx_set(v, "encryption.bundle", seal->bundle);
    return code == 0 ? rs_vmx_set(v, "encryption.data", seal->data) : code;
}

int rs_vmc_sealed_text(struct rs_vmc *c, const struct rs_vmc_seal *seal, const struct rs_vmx *disks,
                       char **text, size_t *len)
{
    struct rs_vmx *v = rs_vmx_new();
    int code = v == NULL ? RESEAL_ENOMEM : rs_vmx_each(c->vm->lines, copy_clear, v);
    if (code == 0 && disks != NULL) code = rs_vmx_each(disks, copy_any, v);
    if (code == 0) code = put_seal(v, seal);
    *text = code == 0 ? rs_vmx_text(v, len) : NULL;
    rs_vmx_free(v);
    return *text != NULL ? 0 : no_memory(c);
}

/* The text is read back as anybody would, and looked at by the key service. */
static int check_text(struct rs_vmc *c, const char *text, size_t len)
{
    char why[RS_VM_WHY];
    struct rs_vmx *v = NULL;
    int err = rs_vmx_parse(text, len, &v, why, sizeof(why));
    if (err == 0) err = rs_vmc_home_check(c, v, why, sizeof(why));
    rs_vmx_free(v);
    return err == 0 ? 0
                    : rs_failure_set(&c->f, rs_exit_of(err), "the new %s.vmx does not authenticate: %s",
                                     c->vm->name, why);
}

int rs_vmc_write_sealed(struct rs_vmc *c, const struct rs_vmc_seal *seal, const struct rs_vmx *disks,
                        const char *path)
{
    RS_FREE char *text = NULL;
    size_t len = 0;
    int code = rs_vmc_sealed_text(c, seal, disks, &text, &len);
    if (code == 0) code = check_text(c, text, len);
    if (code != 0) return code;
    code = rs_vm_write_file(path, text, len);
    return code == 0 ? 0 : rs_failure_errno(&c->f, code, "write", path);
}

int rs_vmc_seal_of(struct rs_vmc *c, const struct rs_vmx *vmx, struct rs_vmc_seal *seal)
{
    const char *safe = rs_vmx_get(vmx, "encryption.keySafe"), *bundle = rs_vmx_get(vmx, "encryption.bundle");
    const char *data = rs_vmx_get(vmx, "encryption.data");
    *seal = (struct rs_vmc_seal){.key_safe = safe == NULL ? NULL : strdup(safe),
                                 .bundle = bundle == NULL ? NULL : strdup(bundle),
                                 .data = data == NULL ? NULL : strdup(data)};
    if (seal->key_safe == NULL || seal->data == NULL || (bundle != NULL && seal->bundle == NULL))
        return no_memory(c);
    seal->by_phrase = rs_vm_locked_by_phrase(vmx);
    if (seal->by_phrase || rs_disk_take_locator(safe, seal->key.provider, seal->key.key) == 0) return 0;
    return rs_failure_set(
        &c->f, RS_EXIT_FORMAT,
        "%s is locked by neither a key provider nor a pass phrase: open it where it was made", c->vm->name);
}

static int read_at(struct rs_vmc *c, const char *path, struct rs_vmx **v)
{
    RS_FREE char *text = NULL;
    size_t len = 0;
    char why[256];
    if (rs_vm_read_file(path, RS_VMX_MAX, &text, &len) != 0)
        return rs_failure_errno(&c->f, errno, "read", path);
    int err = rs_vmx_parse(text, len, v, why, sizeof(why));
    return err == 0 ? 0 : rs_failure_set(&c->f, RS_EXIT_FORMAT, "%s: %s", path, why);
}

int rs_vmc_seal_at(struct rs_vmc *c, const char *path, struct rs_vmc_seal *seal)
{
    struct rs_vmx *v = NULL;
    int code = read_at(c, path, &v);
    if (code == 0) code = rs_vmc_seal_of(c, v, seal);
    rs_vmx_free(v);
    return code;
}

int rs_vmc_check_phrase_at(struct rs_vmc *c, const char *path)
{
    struct rs_vmx *v = NULL;
    char why[RS_VM_WHY];
    int code = read_at(c, path, &v);
    int err = code == 0 ? rs_vmc_home_check(c, v, why, sizeof(why)) : 0;
    rs_vmx_free(v);
    if (err == RESEAL_EPASS)
        return rs_failure_set(
            &c->f, RS_EXIT_KEY,
            "this is not the pass phrase that the interrupted command began with: give that one, "
            "or drop what was made with reseal vm repair --abandon");
    return err == 0 ? code : rs_failure_set(&c->f, rs_exit_of(err), "%s: %s", path, why);
}

/* ---- NVRAM and vTPM state ----------------------------------------------------------- */

bool rs_vmc_is_envelope(const char *path)
{
    static const char magic[] = "DataTransformEnvelope";
    char start[sizeof(magic) - 1];
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    return fd >= 0 && rs_pread_full(fd, start, sizeof(start), 0) == 0 &&
           memcmp(start, magic, sizeof(start)) == 0;
}

static int copy_all(struct rs_vmc *c, int from, int to, const char *path)
{
    uint8_t buf[64 * 1024];
    ssize_t n;
    uint64_t at = 0;
    while ((n = pread(from, buf, sizeof(buf), (off_t)at)) > 0) {
        int code = rs_pwrite_full(to, buf, (size_t)n, at);
        if (code != 0) return rs_failure_errno(&c->f, code, "write", path);
        at += (uint64_t)n;
    }
    rs_wipe(buf, sizeof(buf));
    return n == 0 ? 0 : rs_failure_errno(&c->f, errno, "read", path);
}

static bool is_open(const struct rs_vmc_file_lock *lock)
{
    return lock->bundle == NULL && !lock->phrase;
}

/* Whose pass phrase is known has the text anyway; it passes through memory, not through a file. */
static int convert_by_memory(struct rs_vmc *c, int in, int out, const struct rs_vmc_file_lock *will,
                             const char *name)
{
    RS_CLOSE int text = memfd_create("reseal-file", MFD_CLOEXEC);
    if (text < 0) return rs_failure_errno(&c->f, errno, "make", "a file in memory");
    int code = rs_vmc_file_open(c, NULL, in, text, name);
    if (code == 0 && lseek(text, 0, SEEK_SET) != 0)
        code = rs_failure_errno(&c->f, errno, "read", "a file in memory");
    return code == 0 ? rs_vmc_file_seal(c, will->bundle, text, out, name) : code;
}

static int convert(struct rs_vmc *c, int in, const struct rs_vmc_file_lock *was, int out,
                   const struct rs_vmc_file_lock *will, const char *from, const char *to)
{
    if (is_open(was))
        return is_open(will) ? copy_all(c, in, out, to) : rs_vmc_file_seal(c, will->bundle, in, out, from);
    if (is_open(will)) return rs_vmc_file_open(c, was->bundle, in, out, from);
    if (was->phrase) return convert_by_memory(c, in, out, will, from);
    return rs_vmc_file_rewrap(c, was->bundle, will->bundle, in, out, from);
}

int rs_vmc_convert_file(struct rs_vmc *c, const char *from, const struct rs_vmc_file_lock *was,
                        const char *to, const struct rs_vmc_file_lock *will)
{
    /* A link was refused when the change was planned. */
    RS_CLOSE int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), out = -1;
    if (in < 0) return rs_failure_errno(&c->f, errno, "open", from);
    (void)unlink(to);
    out = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (out < 0) return rs_failure_errno(&c->f, errno, "create", to);
    int code = convert(c, in, was, out, will, from, to);
    if (code == 0 && fsync(out) != 0) code = rs_failure_errno(&c->f, errno, "flush", to);
    return code;
}

/* ---- the safe copy ------------------------------------------------------------------ */

static bool has_copies(const struct rs_vmc *c, const char *folder)
{
    struct rs_safe_copy have[RS_SAFE_VERSIONS];
    char why[RS_VM_WHY];
    return rs_safe_list(folder, c->vm->vmx_path, have, why, sizeof(why)) > 0;
}

bool rs_vmc_safe_folder(const struct rs_vmc *c, bool to_read, char out[PATH_MAX])
{
    char room[PATH_MAX], other[PATH_MAX];
    if (c->o.safe_dir == NULL &&
        rs_safe_own_folder(rs_socket_folder(c->o.runtime_dir, room, sizeof(room)), out)) {
        /* Those from when it was not the place. */
        if (!to_read || has_copies(c, out) || !rs_safe_folder(NULL, other) || !has_copies(c, other))
            return true;
    }
    return rs_safe_folder(c->o.safe_dir, out);
}

/* The UUID in the newest copy; empty: there is none that says it. */
static void safe_uuid(const char *folder, const char *vmx_path, char out[RS_VM_UUID_LEN])
{
    struct rs_safe_copy have[RS_SAFE_VERSIONS];
    RS_FREE char *text = NULL;
    size_t len = 0;
    char why[RS_VM_WHY];
    struct rs_vmx *v = NULL;
    out[0] = '\0';
    if (rs_safe_list(folder, vmx_path, have, why, sizeof(why)) <= 0) return;
    if (rs_safe_get(folder, vmx_path, have[0].version, &text, &len, why, sizeof(why)) != 0) return;
    if (rs_vmx_parse(text, len, &v, why, sizeof(why)) != 0) return;
    const char *uuid = rs_vmx_get(v, "reseal.vm");
    if (uuid != NULL) (void)snprintf(out, RS_VM_UUID_LEN, "%s", uuid);
    rs_vmx_free(v);
}

int rs_vmc_same_vm(struct rs_vmc *c)
{
    char folder[PATH_MAX], place[RS_SAFE_PLACE_MAX], uuid[RS_VM_UUID_LEN];
    if (!c->vm->sealed || !rs_vmc_safe_folder(c, true, folder) ||
        !rs_safe_place(folder, c->vm->vmx_path, place))
        return 0;
    safe_uuid(folder, c->vm->vmx_path, uuid);
    if (uuid[0] == '\0' || strcmp(uuid, c->vm->uuid) == 0) return 0;
    return rs_failure_set(
        &c->f, RS_EXIT_FORMAT,
        "%s is of another VM: it says %s, and the safe copies of this place are of %s; reseal vm "
        "repair puts the newest back; if the other one is to stay, move %s away",
        c->vm->vmx_path, c->vm->uuid[0] != '\0' ? c->vm->uuid : "no VM", uuid, place);
}

static int safe_failed(struct rs_vmc *c, int err, const char *why)
{
    int code = err == RESEAL_EINVAL ? RS_EXIT_REFUSED : rs_exit_of(err);
    return rs_failure_set(&c->f, code, "no safe copy of %s can be made: %s", c->vm->vmx_path, why);
}

int rs_vmc_safe_place(struct rs_vmc *c)
{
    char why[RS_VM_WHY], folder[PATH_MAX];
    if (!rs_vmc_safe_folder(c, false, folder))
        return rs_failure_set(&c->f, RS_EXIT_USAGE,
                              "there is no place for the safe copy: name one with --safe-dir");
    int err = rs_safe_prepare(folder, c->vm->vmx_path, why, sizeof(why));
    return err == 0 ? 0 : safe_failed(c, err, why);
}

int rs_vmc_keep_safe(struct rs_vmc *c, uint64_t *version)
{
    char why[RS_VM_WHY], folder[PATH_MAX];
    RS_FREE char *text = NULL;
    size_t len = 0;
    struct rs_vmx *v = NULL;
    if (!rs_vmc_safe_folder(c, false, folder))
        return rs_failure_set(&c->f, RS_EXIT_USAGE,
                              "there is no place for the safe copy: name one with --safe-dir");
    if (rs_vm_read_file(c->vm->vmx_path, RS_VMX_MAX, &text, &len) != 0)
        return rs_failure_errno(&c->f, errno, "read", c->vm->vmx_path);
    int err = rs_vmx_parse(text, len, &v, why, sizeof(why));
    if (err == 0) err = rs_vmc_home_check(c, v, why, sizeof(why));
    rs_vmx_free(v);
    if (err == 0) err = rs_safe_put(folder, c->vm->vmx_path, text, len, version, why, sizeof(why));
    return err == 0 ? 0 : safe_failed(c, err, why);
}
