/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/vm-keys.h"

#include "offload/vm/chain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define EVENT_MIXED_KEYS "com.vmware.vc.vm.crypto.DiskchainUsingMixedKeys"

#define TEXT_MAX (16u << 20) /* of encryption.data, and of what is locked in it */

void rs_vmc_seal_free(struct rs_vmc_seal *s)
{
    free(s->key_safe);
    free(s->bundle);
    free(s->data);
    *s = (struct rs_vmc_seal){.key_safe = NULL};
}

/* ---- small things ------------------------------------------------------------------- */

/* A descriptor of a text, to be read from its start; -errno. */
static int text_fd(const char *text, size_t len)
{
    int fd = memfd_create("reseal-text", MFD_CLOEXEC);
    if (fd < 0) return -errno;
    int code = rs_pwrite_full(fd, text, len, 0);
    if (code == 0) return fd;
    close(fd);
    return code;
}

/* What a descriptor holds, NUL-ended; NULL when it cannot be read. */
static char *fd_text(int fd, size_t *len)
{
    off_t end = lseek(fd, 0, SEEK_END);
    if (end < 0 || (uint64_t)end > TEXT_MAX) return NULL;
    *len = (size_t)end;
    char *text = calloc(1, *len + 1);
    if (text == NULL || rs_pread_full(fd, text, *len, 0) == 0) return text;
    free(text);
    return NULL;
}

/* What a key server keeps with the key. */
static json_t *details(const struct rs_vmc *c)
{
    return json_pack("{s:s, s:s, s:s}", "x-Component", "Virtual Machine", "x-Name", c->vm->name,
                     "x-Identifier", c->vm->uuid);
}

/* Members that are left out where they are empty. */
static void put_key(json_t *args, const struct rs_vmc_key *key)
{
    if (key == NULL) return;
    if (key->provider[0] != '\0') json_object_set_new(args, "provider", json_string(key->provider));
    if (key->key[0] != '\0') json_object_set_new(args, "key", json_string(key->key));
}

static bool take_key(const json_t *answer, struct rs_vmc_key *key)
{
    const char *provider = json_string_value(json_object_get(answer, "provider"));
    const char *id = json_string_value(json_object_get(answer, "key"));
    if (provider == NULL || id == NULL || strlen(provider) >= sizeof(key->provider) ||
        strlen(id) >= sizeof(key->key))
        return false;
    (void)stpcpy(key->provider, provider);
    (void)stpcpy(key->key, id);
    return true;
}

static char *take_text(const json_t *answer, const char *name)
{
    const char *text = json_string_value(json_object_get(answer, name));
    return text == NULL ? NULL : strdup(text);
}

/* A refusal's line, with the privilege that was missing where the line does not name it. */
static int fail(struct rs_vmc *c, int err, const char *what, const char *why, const json_t *answer)
{
    const char *privilege = json_string_value(json_object_get(answer, "privilege"));
    int exit_code = err == RESEAL_EAUTH ? RS_EXIT_FORMAT : rs_exit_of(err);
    if (err == RESEAL_ETIMEDOUT) exit_code = RS_EXIT_KEY;
    if (privilege != NULL && strstr(why, privilege) == NULL)
        return rs_failure_set(&c->f, exit_code, "%s: %s (%s is missing)", what, why, privilege);
    return rs_failure_set(&c->f, exit_code, "%s: %s", what, why);
}

static int broken(struct rs_vmc *c, const char *method)
{
    return rs_failure_set(&c->f, RS_EXIT_SERVICE, "the key service gave no proper answer to %s", method);
}

/* One request; on failure c->f says "WHAT: why". */
static int call(struct rs_vmc *c, const char *method, json_t *args, const int *fds, unsigned nfds,
                json_t **answer, int *fd, const char *what)
{
    char why[RS_KEYSERVICE_WHY];
    json_t *got = NULL;
    int err = rs_keyservice_call(c->service, method, args, fds, nfds, &got, fd, why, sizeof(why));
    int code = err == 0 ? 0 : fail(c, err, what, why, got);
    if (code == 0 && answer != NULL)
        *answer = got;
    else
        json_decref(got);
    return code;
}

/* ---- keys --------------------------------------------------------------------------- */

void rs_vmc_key_state(struct rs_vmc *c, const struct rs_vmc_key *key, struct rs_vmc_state *out)
{
    *out = (struct rs_vmc_state){.known = false};
    json_t *args = json_object(), *answer = NULL;
    put_key(args, key);
    int err = rs_keyservice_call(c->service, "kek.status", args, NULL, 0, &answer, NULL, out->why,
                                 sizeof(out->why));
    out->known = err == 0;
    out->available = err == 0 && json_is_true(json_object_get(answer, "available"));
    const char *reason = json_string_value(json_object_get(answer, "reason"));
    if (!out->available && reason != NULL) (void)snprintf(out->reason, sizeof(out->reason), "%s", reason);
    const char *kind = json_string_value(json_object_get(answer, "kind"));
    out->trusted = kind != NULL && strcmp(kind, "trusted") == 0;
    json_decref(answer);
}

/* ---- homes -------------------------------------------------------------------------- */

static json_t *home_args(const struct rs_vmx *vmx)
{
    const char *safe = rs_vmx_get(vmx, "encryption.keySafe"), *bundle = rs_vmx_get(vmx, "encryption.bundle");
    json_t *args = json_pack("{s:s}", "keySafe", safe != NULL ? safe : "");
    if (args != NULL && bundle != NULL) json_object_set_new(args, "bundle", json_string(bundle));
    return args;
}

/* The answer of home.open, home.check or home.phrase, and a descriptor. RESEAL_E... */
static int ask_home(struct rs_vmc *c, const char *method, const struct rs_vmx *vmx, int phrase, int *out,
                    json_t **answer, char *why, size_t why_len)
{
    const char *data = rs_vmx_get(vmx, "encryption.data");
    RS_CLOSE int fd = text_fd(data != NULL ? data : "", data != NULL ? strlen(data) : 0);
    const int fds[2] = {fd, phrase};
    if (fd < 0) {
        (void)snprintf(why, why_len, "%s", strerror(-fd));
        return RESEAL_ENOMEM;
    }
    json_t *args = home_args(vmx);
    if (args != NULL && c->release && strcmp(method, "home.check") != 0)
        json_object_set_new(args, "release", json_true());
    return rs_keyservice_call(c->service, method, args, fds, phrase < 0 ? 1 : 2, answer, out, why, why_len);
}

/* By a key of a provider, or by the pass phrase that it is locked with. c->f is set where that is not there.
 */
static int ask_home_open(struct rs_vmc *c, const char *method, const struct rs_vmx *vmx,
                         enum rs_vmc_which which, int *out, json_t **answer, char *why, size_t why_len)
{
    RS_CLOSE int phrase = -1;
    if (!rs_vm_locked_by_phrase(vmx)) return ask_home(c, method, vmx, -1, out, answer, why, why_len);
    if (rs_vmc_phrase_fd(c, which, &phrase) != 0) {
        (void)snprintf(why, why_len, "%s", c->f.text);
        return RESEAL_EPASS;
    }
    return ask_home(c, "home.phrase", vmx, phrase, out, answer, why, why_len);
}

/* What a provider refuses has a reason: there it is not the file that fails to authenticate. */
static bool is_of_provider(const json_t *answer)
{
    const char *reason = json_string_value(json_object_get(answer, "reason"));
    return reason != NULL && *reason != '\0';
}

/* A key that cannot be had locks the VM; anything else is a fault of the file or of the caller. */
static bool is_locked(int err)
{
    return err == RESEAL_ENOKEY || err == RESEAL_EKEYBAD || err == RESEAL_ENOSERVICE ||
           err == RESEAL_ETIMEDOUT || err == RESEAL_EKEYGONE;
}

static int open_failed(struct rs_vmc *c, int err, const char *why, const json_t *answer)
{
    const struct rs_vm *vm = c->vm;
    bool no_key = is_of_provider(answer);
    if (!no_key && (err == RESEAL_EAUTH || err == RESEAL_EFORMAT))
        return rs_failure_set(&c->f, RS_EXIT_FORMAT,
                              "%s is damaged or not of this VM: %s; reseal vm repair puts the safe copy back",
                              vm->vmx_path, why);
    if (c->f.exit != 0) return c->f.exit; /* there is no pass phrase */
    if (err == RESEAL_EPASS)
        return rs_failure_set(&c->f, RS_EXIT_KEY, "%s: %s (an end of line in the file is part of it)",
                              vm->name, why);
    if ((no_key || is_locked(err)) && vm->provider[0] != '\0')
        return rs_failure_set(&c->f, RS_EXIT_KEY, "%s is locked: its key %s of provider %s cannot be had: %s",
                              vm->name, vm->key, vm->provider, why);
    return fail(c, err, vm->name, why, answer);
}

int rs_vmc_home_open(struct rs_vmc *c)
{
    char why[RS_VM_WHY];
    json_t *answer = NULL;
    RS_CLOSE int fd = -1;
    int err = ask_home_open(c, "home.open", c->vm->outer, RS_VMC_PHRASE_NOW, &fd, &answer, why, sizeof(why));
    int code = err == 0 ? 0 : open_failed(c, err, why, answer);
    json_decref(answer);
    if (code != 0) return code;
    size_t len = 0;
    char *text = fd < 0 ? NULL : fd_text(fd, &len);
    if (text == NULL) return broken(c, "home.open");
    err = rs_vm_take_lines(c->vm, text, len, why, sizeof(why));
    rs_wipe(text, len);
    free(text);
    return err == 0 ? 0 : rs_vmc_refuse(c, err, why);
}

int rs_vmc_home_check(struct rs_vmc *c, const struct rs_vmx *vmx, char *why, size_t why_len)
{
    struct rs_failure before = c->f;
    json_t *answer = NULL;
    int err = ask_home_open(c, "home.check", vmx, RS_VMC_PHRASE_NEW, NULL, &answer, why, why_len);
    c->f = before;
    if ((err == RESEAL_EAUTH || err == RESEAL_EFORMAT) && is_of_provider(answer)) err = RESEAL_ENOKEY;
    json_decref(answer);
    return err;
}

int rs_vmc_home_seal(struct rs_vmc *c, const struct rs_vmc_key *key, const char *bundle, bool fresh,
                     const char *text, size_t len, struct rs_vmc_seal *out)
{
    *out = (struct rs_vmc_seal){.by_phrase = key == NULL};
    RS_CLOSE int fd = text_fd(text, len), phrase = -1, got = -1;
    if (fd < 0) return rs_failure_errno(&c->f, fd, "hand over the lines of", c->vm->vmx_path);
    int code = key == NULL ? rs_vmc_phrase_fd(c, RS_VMC_PHRASE_NEW, &phrase) : 0;
    if (code != 0) return code;
    json_t *args = json_pack("{s:o}", "details", details(c)), *answer = NULL;
    put_key(args, key);
    if (bundle != NULL) json_object_set_new(args, "bundle", json_string(bundle));
    if (fresh) json_object_set_new(args, "new", json_true());
    if (key == NULL) json_object_set_new(args, "phrase", json_true());
    const int fds[2] = {fd, phrase};
    code =
        call(c, "home.seal", args, fds, key == NULL ? 2 : 1, &answer, &got, "cannot encrypt the VM's home");
    if (code != 0) return code;
    size_t data = 0;
    out->key_safe = take_text(answer, "keySafe");
    out->bundle = take_text(answer, "bundle");
    out->data = got < 0 ? NULL : fd_text(got, &data);
    bool ok = take_key(answer, &out->key) && out->key_safe != NULL &&
              (out->bundle != NULL) != out->by_phrase && out->data != NULL && data != 0;
    json_decref(answer);
    return ok ? 0 : broken(c, "home.seal");
}

int rs_vmc_home_disk(struct rs_vmc *c, const char *node, const char *file, char **data)
{
    const char *locked = rs_vmx_get(c->vm->outer, "encryption.data");
    RS_CLOSE int fd = text_fd(locked, strlen(locked)), phrase = -1, got = -1;
    if (fd < 0) return rs_failure_errno(&c->f, fd, "hand over the lines of", c->vm->vmx_path);
    int code = c->vm->by_phrase ? rs_vmc_phrase_fd(c, RS_VMC_PHRASE_NOW, &phrase) : 0;
    if (code != 0) return code;
    json_t *args = home_args(c->vm->outer);
    json_object_set_new(args, "node", json_string(node));
    if (*file != '\0') json_object_set_new(args, "file", json_string(file));
    json_object_set_new(args, "details", details(c));
    const int fds[2] = {fd, phrase};
    code = call(c, "home.disk", args, fds, c->vm->by_phrase ? 2 : 1, NULL, &got,
                "cannot change the disks of the VM");
    if (code != 0) return code;
    size_t len = 0;
    *data = got < 0 ? NULL : fd_text(got, &len);
    return *data != NULL && len != 0 ? 0 : broken(c, "home.disk");
}

int rs_vmc_home_rewrap(struct rs_vmc *c, const struct rs_vmc_key *key, struct rs_vmc_seal *out)
{
    *out = (struct rs_vmc_seal){.by_phrase = key == NULL};
    RS_CLOSE int phrase = -1;
    int code = key == NULL ? rs_vmc_phrase_fd(c, RS_VMC_PHRASE_NEW, &phrase) : 0;
    if (code != 0) return code;
    json_t *args = home_args(c->vm->outer), *answer = NULL;
    put_key(args, key);
    if (key == NULL) json_object_set_new(args, "phrase", json_true());
    json_object_set_new(args, "details", details(c));
    code = call(c, "home.rewrap", args, &phrase, key == NULL ? 1 : 0, &answer, NULL,
                "cannot change the key of the VM's home");
    if (code != 0) return code;
    out->key_safe = take_text(answer, "keySafe");
    out->bundle = take_text(answer, "bundle");
    bool ok = take_key(answer, &out->key) && out->key_safe != NULL;
    json_decref(answer);
    return ok ? 0 : broken(c, "home.rewrap");
}

/* ---- disks -------------------------------------------------------------------------- */

/* A LUKS1 header has no room for its key's name: who has the image too does not learn of a new one. */
static void tell_luks1(int header, char *why, size_t why_len)
{
    uint8_t start[8];
    if (rs_pread_full(header, start, sizeof(start), 0) != 0 || memcmp(start, "LUKS\xba\xbe\0\1", 8) != 0)
        return;
    (void)snprintf(why, why_len,
                   "the LUKS1 header has another key than the .vmx names, as when another VM that uses the "
                   "image was recrypted: copy the line NODE.keyId from the .vmx of that one");
}

static int ask_disk(reseal *service, const char *method, json_t *args, int header, json_t **answer, int *fd,
                    char *why, size_t why_len)
{
    int err = rs_keyservice_call(service, method, args, &header, 1, answer, fd, why, why_len);
    if (err == RESEAL_EPASS) tell_luks1(header, why, why_len);
    return err;
}

int rs_vmc_disk_open(reseal *service, int header, const struct rs_vmc_key *key, uint32_t use, reseal_key *out,
                     struct reseal_luks *luks, char *why, size_t why_len)
{
    json_t *args = json_pack("{s:i}", "use", (int)use), *answer = NULL;
    put_key(args, key);
    int err = ask_disk(service, "disk.open", args, header, &answer, NULL, why, why_len);
    if (err == 0) {
        *luks = (struct reseal_luks){.size = sizeof(*luks)};
        if (rs_keyservice_luks(answer, luks) != 0 || rs_keyservice_handle(answer, out) != 0 ||
            luks->unit == 0 || luks->step == 0) {
            (void)snprintf(why, why_len, "the key service gave no proper answer to disk.open");
            err = RESEAL_EPROTO;
        }
    }
    json_decref(answer);
    return err;
}

int rs_vmc_disk_format(struct rs_vmc *c, const struct rs_vmc_format *f, const char *name, int *header,
                       struct rs_vmc_key *made)
{
    char what[RS_DISK_NODE_MAX + 64];
    (void)snprintf(what, sizeof(what), "cannot make a key for %s", name);
    json_t *args = json_pack("{s:i, s:I, s:I, s:I, s:o}", "version", (int)f->version, "unit",
                             (json_int_t)f->unit, "key_bits", (json_int_t)f->key_bits, "data_size",
                             (json_int_t)f->size, "details", details(c));
    put_key(args, &f->key);
    if (f->label != NULL && f->version == 2) json_object_set_new(args, "label", json_string(f->label));
    if (f->existing) json_object_set_new(args, "existing", json_true());
    if (f->detached) json_object_set_new(args, "detached", json_true());
    if (f->detached && rs_disk_said_offset(f->start) != 0)
        json_object_set_new(args, "data_offset", json_integer((json_int_t)rs_disk_said_offset(f->start)));
    json_t *answer = NULL;
    int code = call(c, "disk.format", args, NULL, 0, &answer, header, what);
    if (code != 0) return code;
    bool ok = take_key(answer, made) && *header >= 0;
    json_decref(answer);
    return ok ? 0 : broken(c, "disk.format");
}

int rs_vmc_disk_rewrap(struct rs_vmc *c, int header, const struct rs_vmc_key *was,
                       const struct rs_vmc_key *key, const char *name, int *fresh)
{
    char what[RS_DISK_NODE_MAX + 64], why[RS_KEYSERVICE_WHY];
    (void)snprintf(what, sizeof(what), "cannot change the key of %s", name);
    json_t *args = json_pack("{s:o}", "details", details(c)), *answer = NULL;
    put_key(args, key);
    if (was != NULL) {
        json_object_set_new(args, "old_provider", json_string(was->provider));
        json_object_set_new(args, "old_key", json_string(was->key));
    }
    int err = ask_disk(c->service, "disk.rewrap", args, header, &answer, fresh, why, sizeof(why));
    int code = err == 0 ? 0 : fail(c, err, what, why, answer);
    json_decref(answer);
    return code != 0 ? code : *fresh >= 0 ? 0 : broken(c, "disk.rewrap");
}

/* ---- files -------------------------------------------------------------------------- */

/* Takes `args`. With `phrase` a third descriptor has the pass phrase. */
static int file(struct rs_vmc *c, const char *method, const char *verb, json_t *args, bool phrase,
                enum rs_vmc_which which, int from, int to, const char *name)
{
    char what[PATH_MAX + 64];
    RS_CLOSE int pass = -1;
    (void)snprintf(what, sizeof(what), "cannot %s %s", verb, name);
    int code = phrase ? rs_vmc_phrase_fd(c, which, &pass) : 0;
    if (code != 0) {
        json_decref(args);
        return code;
    }
    const int fds[3] = {from, to, pass};
    return call(c, method, args, fds, phrase ? 3 : 2, NULL, NULL, what);
}

static json_t *locked_by(const char *bundle)
{
    return bundle != NULL ? json_pack("{s:s}", "bundle", bundle) : json_pack("{s:b}", "phrase", 1);
}

int rs_vmc_file_seal(struct rs_vmc *c, const char *bundle, int from, int to, const char *name)
{
    return file(c, "file.seal", "encrypt", locked_by(bundle), bundle == NULL, RS_VMC_PHRASE_NEW, from, to,
                name);
}

int rs_vmc_file_open(struct rs_vmc *c, const char *bundle, int from, int to, const char *name)
{
    return file(c, "file.open", "decrypt", locked_by(bundle), bundle == NULL, RS_VMC_PHRASE_NOW, from, to,
                name);
}

int rs_vmc_file_rewrap(struct rs_vmc *c, const char *bundle, const char *other, int from, int to,
                       const char *name)
{
    json_t *args = json_pack("{s:s, s:s}", "bundle", bundle, "to", other != NULL ? other : "phrase");
    return file(c, "file.rewrap", "change the key of", args, other == NULL, RS_VMC_PHRASE_NEW, from, to,
                name);
}

/* ---- events ------------------------------------------------------------------------- */

void rs_vmc_event(struct rs_vmc *c, const char *id, const char *message)
{
    if (c->service == NULL && rs_vmc_connect(c) != 0) return;
    char why[RS_KEYSERVICE_WHY], text[1000]; /* what the service takes; a key id can be most of it */
    (void)snprintf(text, sizeof(text), "%s", message);
    json_t *args =
        json_pack("{s:s, s:s, s:s, s:s}", "id", id, "message", text, "vm", c->vm->name, "uuid", c->vm->uuid);
    (void)!rs_keyservice_call(c->service, "vm.tell", args, NULL, 0, NULL, NULL, why, sizeof(why));
}

void rs_vmc_tell_mixed(struct rs_vmc *c)
{
    char message[NAME_MAX + RS_DISK_NODE_MAX + 64];
    for (unsigned i = 0; i < c->vm->ndisks; i++) {
        const struct rs_disk *d = &c->vm->disks[i].disk;
        if (rs_chain_is_parent(d) || !rs_chain_is_mixed(c->vm, d)) continue;
        (void)snprintf(message, sizeof(message), "%s: the chain of %s uses more than one key", c->vm->name,
                       d->node);
        rs_vmc_event(c, EVENT_MIXED_KEYS, message);
    }
}
