/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/vm-change.h"
#include "offload/vm/safe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct repair {
    struct rs_vmc *c;
    char folder[PATH_MAX]; /* of the safe copies */
    struct rs_safe_copy have[RS_SAFE_VERSIONS];
    unsigned n;
};

/* The path of a .vmx that may be gone: of a folder NAME it is NAME/NAME.vmx unless another one is there. */
static int find_path(struct rs_vmc *c, char why[RS_VM_WHY])
{
    struct rs_vm *vm = NULL;
    char real[PATH_MAX];
    struct stat st;
    int err = rs_vm_open(c->o.vm, &vm, why, RS_VM_WHY);
    c->vm = vm;
    if (err == 0) return 0;
    c->vm = calloc(1, sizeof(*c->vm));
    if (c->vm == NULL) return rs_failure_set(&c->f, RS_EXIT_FAILED, "out of memory");
    (void)snprintf(real, sizeof(real), "%s", c->o.vm);
    bool folder = stat(c->o.vm, &st) == 0 && S_ISDIR(st.st_mode);
    return rs_vm_guess(c->o.vm, folder, c->vm) ? 0 : rs_vmc_refuse(c, err, why);
}

static void time_text(int64_t time, char out[32])
{
    time_t t = (time_t)time;
    struct tm tm;
    if (gmtime_r(&t, &tm) == NULL || strftime(out, 32, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
        (void)stpcpy(out, "?");
}

static int find_copies(struct repair *r)
{
    struct rs_vmc *c = r->c;
    char why[RS_VM_WHY];
    if (!rs_vmc_safe_folder(c, true, r->folder))
        return rs_failure_set(&c->f, RS_EXIT_USAGE,
                              "there is no place of safe copies: name it with --safe-dir");
    int n = rs_safe_list(r->folder, c->vm->vmx_path, r->have, why, sizeof(why));
    if (n < 0) return rs_vmc_refuse(c, n, why);
    r->n = (unsigned)n;
    return 0;
}

static int list(struct repair *r)
{
    json_t *all = json_array();
    for (unsigned i = 0; i < r->n; i++) {
        char when[32];
        time_text(r->have[i].time, when);
        json_array_append_new(all, json_pack("{s:I, s:s, s:I}", "version", (json_int_t)r->have[i].version,
                                             "time", when, "size", (json_int_t)r->have[i].size));
        if (!r->c->o.json)
            printf("%4llu  %s  %llu bytes\n", (unsigned long long)r->have[i].version, when,
                   (unsigned long long)r->have[i].size);
    }
    r->c->result = json_pack("{s:o}", "copies", all);
    if (r->n == 0 && !r->c->o.json) printf("no safe copy in %s\n", r->folder);
    return 0;
}

/* A copy that authenticates; the newest of them when none was named. */
static int choose(struct repair *r, char **text, size_t *len, uint64_t *version)
{
    struct rs_vmc *c = r->c;
    char why[RS_VM_WHY];
    for (unsigned i = 0; i < r->n; i++) {
        struct rs_vmx *v = NULL;
        if (c->o.version != 0 && r->have[i].version != c->o.version) continue;
        *version = r->have[i].version;
        int err = rs_safe_get(r->folder, c->vm->vmx_path, *version, text, len, why, sizeof(why));
        if (err == 0) err = rs_vmx_parse(*text, *len, &v, why, sizeof(why));
        if (err == 0) err = rs_vmc_home_check(c, v, why, sizeof(why));
        rs_vmx_free(v);
        if (err == 0) return 0;
        free(*text);
        *text = NULL;
        if (c->o.version != 0 || (err != RESEAL_EAUTH && err != RESEAL_EFORMAT))
            return rs_failure_set(&c->f, rs_exit_of(err), "safe copy %llu of %s: %s",
                                  (unsigned long long)*version, c->vm->name, why);
    }
    return rs_failure_set(&c->f, RS_EXIT_FAILED,
                          "there is no safe copy of %s in %s that can be used: --list shows them",
                          c->vm->vmx_path, r->folder);
}

/* What was there stays beside it: it may be worth a look. By a second name where there are such, so that
 * there is a .vmx at each moment. */
static int keep_aside(const char *path, const char *aside)
{
    (void)unlink(aside);
    if (link(path, aside) == 0 || errno == ENOENT) return 0;
    return rename(path, aside) == 0 ? 0 : -errno;
}

static int put_back(struct repair *r, const char *text, size_t len, uint64_t version)
{
    struct rs_vmc *c = r->c;
    char aside[PATH_MAX];
    int n = snprintf(aside, sizeof(aside), "%s.before-repair", c->vm->vmx_path);
    if (n <= 0 || (size_t)n >= sizeof(aside))
        return rs_failure_set(&c->f, RS_EXIT_USAGE, "the name is too long");
    int code = keep_aside(c->vm->vmx_path, aside);
    if (code != 0) return rs_failure_errno(&c->f, code, "move aside", c->vm->vmx_path);
    code = rs_vm_replace_file(c->vm->vmx_path, text, len);
    if (code == 0 && access(aside, F_OK) == 0) code = rs_vm_take_after(c->vm->vmx_path, aside);
    if (code != 0) return rs_failure_errno(&c->f, code, "write", c->vm->vmx_path);
    c->result = json_pack("{s:I, s:s}", "version", (json_int_t)version, "vmx", c->vm->vmx_path);
    if (!c->o.quiet && !c->o.json)
        printf("%s is back from safe copy %llu; what was there is %s\n", c->vm->vmx_path,
               (unsigned long long)version, aside);
    return 0;
}

/* A .vmx in the clear is what decrypt left, unless it has an encrypted disk. */
static bool is_decrypted(const struct rs_vm *vm)
{
    if (vm->outer == NULL || vm->sealed) return false;
    for (unsigned i = 0; i < vm->ndisks; i++)
        if (vm->disks[i].disk.encrypted || vm->disks[i].problem != 0) return false;
    return true;
}

/* True when the .vmx that is there is sound: then there is nothing to repair. */
static bool is_sound(struct rs_vmc *c)
{
    char why[RS_VM_WHY];
    if (c->vm->outer == NULL || !c->vm->sealed) return false;
    struct rs_failure before = c->f;
    bool sound = rs_vmc_home_check(c, c->vm->outer, why, sizeof(why)) == 0 && rs_vmc_same_vm(c) == 0;
    c->f = before;
    return sound;
}

static int abandon(struct rs_vmc *c)
{
    struct rs_intent intent;
    char why[RS_VM_WHY];
    int err = rs_intent_load(c->vm, &intent, why, sizeof(why));
    if (err == RESEAL_ENOKEY)
        return rs_failure_set(&c->f, RS_EXIT_FAILED, "no command on %s was interrupted", c->vm->name);
    if (err == 0) err = rs_intent_abandon(&intent, why, sizeof(why));
    rs_intent_free(&intent);
    if (err == 0 && !c->o.quiet && !c->o.json)
        printf("%s: what the interrupted command made is gone\n", c->vm->name);
    return err == 0 ? 0 : rs_vmc_refuse(c, err, why);
}

static int restore(struct rs_vmc *c)
{
    struct repair r = {.c = c};
    int code = find_copies(&r);
    if (code == 0 && c->o.list) return list(&r);
    if (code == 0) code = rs_vmc_connect(c);
    if (code != 0) return code;
    if (c->o.version == 0 && c->vm->outer != NULL && !c->vm->sealed && r.n == 0)
        return rs_failure_set(&c->f, RS_EXIT_REFUSED, "%s is not encrypted and has no safe copy",
                              c->vm->name);
    if (c->o.version == 0 && is_decrypted(c->vm))
        return rs_failure_set(
            &c->f, RS_EXIT_REFUSED,
            "%s is not encrypted, and neither is a disk of it: its safe copies are of before "
            "that; name a --version if one is meant",
            c->vm->name);
    if (c->o.version == 0 && is_sound(c))
        return rs_failure_set(&c->f, RS_EXIT_REFUSED,
                              "%s is sound: name a --version to put another one in its place",
                              c->vm->vmx_path);
    RS_FREE char *text = NULL;
    size_t len = 0;
    uint64_t version = 0;
    code = choose(&r, &text, &len, &version);
    return code == 0 ? put_back(&r, text, len, version) : code;
}

int rs_vmc_repair(struct rs_vmc *c)
{
    char why[RS_VM_WHY];
    int code = find_path(c, why);
    if (code != 0) return code;
    if (!c->o.list) {
        int err = rs_vm_lock(c->vm, RS_VM_OFFLINE, &c->lock, why, sizeof(why));
        if (err != 0) return rs_vmc_refuse(c, err, why);
    }
    return c->o.abandon ? abandon(c) : restore(c);
}
