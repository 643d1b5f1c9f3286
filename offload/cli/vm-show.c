/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/base/text.h"
#include "offload/cli/progress.h"
#include "offload/cli/vm-copy.h"
#include "offload/cli/vm-home.h"
#include "offload/vm/chain.h"
#include "offload/vm/intent.h"
#include "offload/vm/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* What a file of the home is: absent, plain, or an envelope. */
static const char *file_state(const char *path)
{
    struct stat st;
    if (path[0] == '\0') return "none";
    if (stat(path, &st) != 0) return "missing";
    return rs_vmc_is_envelope(path) ? "encrypted" : "not encrypted";
}

/* "available", "KeyStateMissingInCache: ...", or that nobody can tell. */
static json_t *key_json(struct rs_vmc *c, const struct rs_vmc_key *key)
{
    struct rs_vmc_state state = {.known = false};
    json_t *o = json_pack("{s:s, s:s}", "provider", key->provider, "key", key->key);
    if (c->service != NULL) rs_vmc_key_state(c, key, &state);
    if (!state.known) {
        json_object_set_new(o, "available", json_null());
    } else {
        json_object_set_new(o, "available", json_boolean(state.available));
        if (!state.available) json_object_set_new(o, "reason", json_string(state.reason));
    }
    return o;
}

/* That the key can be had does not say that it is the disk's: other headers name theirs themselves. */
static void try_luks1(const struct rs_vmc *c, const struct rs_disk *d, const struct rs_vmc_key *key,
                      json_t *o)
{
    char why[RS_KEYSERVICE_WHY];
    struct reseal_luks luks;
    reseal_key handle;
    if (d->format != RS_DISK_LUKS1 || !json_is_true(json_object_get(o, "available"))) return;
    RS_CLOSE int header = rs_vmc_header_copy(d->header_path, false);
    if (header < 0) return;
    int err = rs_vmc_disk_open(c->service, header, key, RESEAL_USE_SOURCE, &handle, &luks, why, sizeof(why));
    if (err == 0) (void)!reseal_key_close(c->service, handle);
    if (err == RESEAL_EPASS) json_object_set_new(o, "problem", json_string(why));
}

static json_t *disk_json(struct rs_vmc *c, const struct rs_vm_disk *v)
{
    const struct rs_disk *d = &v->disk;
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:b, s:I}", "node", d->node, "path", d->path, "format",
                  rs_disk_format_name(d->format), "encrypted", d->encrypted, "size", (json_int_t)d->size);
    if (o == NULL) return NULL;
    if (v->problem != 0) json_object_set_new(o, "problem", json_string(v->why));
    if (d->bar != NULL) json_object_set_new(o, "problem", json_string(d->bar));
    if (!rs_chain_is_parent(d) && rs_chain_is_mixed(c->vm, d))
        json_object_set_new(o, "mixed_keys", json_true());
    if (!d->encrypted) return o;
    json_object_set_new(o, "unit", json_integer((json_int_t)d->unit));
    json_object_set_new(o, "uuid", json_string(d->uuid));
    if (d->provider[0] == '\0') return o;
    struct rs_vmc_key key;
    memcpy(key.provider, d->provider, sizeof(key.provider));
    memcpy(key.key, d->key, sizeof(key.key));
    json_t *state = key_json(c, &key);
    if (state != NULL) json_object_update_new(o, state);
    try_luks1(c, d, &key, o);
    if (json_is_false(json_object_get(o, "available")))
        json_object_set_new(o, "problem",
                            json_string("the disk is encrypted and a required key was not found"));
    return o;
}

static void put_home(struct rs_vmc *c, json_t *o, const struct rs_failure *locked)
{
    const struct rs_vm *vm = c->vm;
    json_object_set_new(o, "encrypted", json_boolean(vm->sealed));
    if (vm->sealed) {
        json_object_set_new(o, "locked", json_boolean(vm->lines == NULL));
        if (vm->by_phrase) json_object_set_new(o, "by", json_string("phrase"));
        if (vm->provider[0] != '\0') {
            struct rs_vmc_key key;
            memcpy(key.provider, vm->provider, sizeof(key.provider));
            memcpy(key.key, vm->key, sizeof(key.key));
            json_t *state = key_json(c, &key);
            if (state != NULL) json_object_update_new(o, state);
        }
    }
    if (vm->lines == NULL) {
        json_object_set_new(o, "why", json_string(locked->text));
        return;
    }
    const char *policy = rs_vmx_get(vm->lines, "reseal.policy");
    if (policy != NULL) json_object_set_new(o, "policy", json_string(policy));
    json_object_set_new(o, "vtpm", json_boolean(vm->has_vtpm));
    json_object_set_new(o, "vtpm_state", json_string(file_state(vm->vtpm)));
    json_object_set_new(o, "nvram", json_string(file_state(vm->nvram)));
}

static void put_state(struct rs_vmc *c, json_t *o)
{
    char why[RS_VM_WHY];
    struct rs_vm_snapshots snapshots;
    bool off = !rs_vm_is_run(c->vm) && rs_vm_powered_off(c->vm, why, sizeof(why)) == 0;
    json_object_set_new(o, "power", json_string(off ? "off" : "on"));
    if (rs_vm_find_snapshots(c->vm, &snapshots, why, sizeof(why)) == 0)
        json_object_set_new(o, "snapshots",
                            json_string(snapshots.count == 0 ? "none"
                                        : snapshots.tree     ? "tree"
                                                             : "chain"));
}

/* A .vmx that was put here from elsewhere: no command changes such a VM. */
static void put_other_vm(struct rs_vmc *c, json_t *o)
{
    struct rs_failure before = c->f;
    if (rs_vmc_same_vm(c) != 0) json_object_set_new(o, "problem", json_string(c->f.text));
    c->f = before;
}

/* A change that did not come to its end, and what to do about it. */
static void put_interrupted(struct rs_vmc *c, json_t *o)
{
    char why[RS_VM_WHY], todo[PATH_MAX + 256];
    struct rs_intent intent;
    int err = rs_intent_load(c->vm, &intent, why, sizeof(why));
    if (err == RESEAL_ENOKEY) return;
    if (err != 0) {
        json_object_set_new(o, "interrupted", json_pack("{s:s}", "todo", why));
        return;
    }
    const char *operation = rs_intent_operation(&intent);
    const char *asked = rs_intent_get(&intent, "asked");
    bool over = rs_intent_is_commit(&intent);
    (void)snprintf(todo, sizeof(todo), "'%.64s%s%s' was interrupted: run it again%s", operation,
                   asked != NULL ? " " : "", asked != NULL ? asked : "",
                   over ? " to finish it" : ", or drop it with reseal vm repair --abandon");
    json_object_set_new(
        o, "interrupted",
        json_pack("{s:s, s:b, s:s}", "operation", operation, "must-finish", over, "todo", todo));
    rs_intent_free(&intent);
}

/* The links of chains are shown as disks of their own. */
static void put_disks(struct rs_vmc *c, json_t *o)
{
    char why[RS_VM_WHY];
    json_t *disks = json_array();
    if (c->vm->lines != NULL && rs_chain_load(c->vm, why, sizeof(why)) != 0)
        json_object_set_new(o, "chain_problem", json_string(why));
    for (unsigned i = 0; i < c->vm->ndisks; i++) json_array_append_new(disks, disk_json(c, &c->vm->disks[i]));
    json_object_set_new(o, "disks", disks);
}

static const char *text_of(const json_t *o, const char *name, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(o, name));
    return text != NULL ? text : otherwise;
}

static void print_key(const json_t *o)
{
    const char *provider = text_of(o, "provider", NULL);
    const json_t *available = json_object_get(o, "available");
    if (provider == NULL) {
        printf(strcmp(text_of(o, "by", ""), "phrase") == 0 ? ", by a pass phrase"
                                                           : ", its key is not of a provider");
        return;
    }
    printf(", provider %s, key %s (%s)", provider, text_of(o, "key", ""),
           json_is_true(available)    ? "available"
           : json_is_false(available) ? text_of(o, "reason", "not available")
                                      : "the service cannot tell");
}

static void print_disk(const json_t *d)
{
    char size[24];
    rs_bytes_text((uint64_t)json_integer_value(json_object_get(d, "size")), size, sizeof(size));
    printf("  %-10s %s, %s, %s", text_of(d, "node", ""), text_of(d, "path", ""), text_of(d, "format", ""),
           size);
    if (json_is_true(json_object_get(d, "encrypted")))
        print_key(d);
    else
        printf(", not encrypted");
    if (json_is_true(json_object_get(d, "mixed_keys"))) printf(", its chain uses more than one key");
    if (json_object_get(d, "problem") != NULL) printf(": %s", text_of(d, "problem", ""));
    putchar('\n');
}

static const char *state_text(const char *state)
{
    return strcmp(state, "missing") == 0 ? "missing (of a new VM the hypervisor makes it)" : state;
}

/* Names in a .vmx and in headers are anybody's: a terminal gets none of their control characters. */
static void clean(json_t *o)
{
    const char *name;
    json_t *value;
    size_t i;
    if (json_is_string(o)) rs_line_clean((char *)(uintptr_t)json_string_value(o)); /* as long as before */
    json_object_foreach(o, name, value) clean(value);
    json_array_foreach(o, i, value) clean(value);
}

static void print(const struct rs_vmc *c)
{
    const json_t *o = c->result;
    size_t i;
    json_t *disk;
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s", c->vm->vmx_path);
    rs_line_clean(path);
    clean(c->result);
    printf("%s (%s), power %s, snapshots: %s\n", text_of(o, "vm", ""), path, text_of(o, "power", "unknown"),
           text_of(o, "snapshots", "unknown"));
    const json_t *interrupted = json_object_get(o, "interrupted");
    if (interrupted != NULL) printf("  %-10s %s\n", "change", text_of(interrupted, "todo", ""));
    if (json_object_get(o, "problem") != NULL) printf("  %-10s %s\n", "problem", text_of(o, "problem", ""));
    printf("  %-10s ", "home");
    if (c->vm->sealed) {
        printf("encrypted");
        print_key(o);
        printf(c->vm->lines == NULL ? ": locked: %s\n" : "\n", text_of(o, "why", ""));
    } else {
        printf("not encrypted\n");
    }
    if (c->vm->lines == NULL) return;
    if (json_object_get(o, "policy") != NULL) printf("  %-10s %s\n", "policy", text_of(o, "policy", ""));
    printf("  %-10s %s\n", "nvram", state_text(text_of(o, "nvram", "")));
    if (c->vm->has_vtpm) printf("  %-10s state: %s\n", "vTPM", state_text(text_of(o, "vtpm_state", "")));
    json_array_foreach(json_object_get(o, "disks"), i, disk) print_disk(disk);
    if (json_object_get(o, "chain_problem") != NULL)
        printf("  %-10s %s\n", "chain", text_of(o, "chain_problem", ""));
}

/* Nobody is asked for a pass phrase where something is only looked at. */
static int open_home(struct rs_vmc *c)
{
    if (!c->vm->by_phrase || c->o.pass != NULL) return rs_vmc_home_open(c);
    return rs_failure_set(&c->f, RS_EXIT_KEY, "its pass phrase opens it: --passphrase-file FILE");
}

static bool only_locked(const struct rs_failure *f)
{
    return f->exit == RS_EXIT_KEY || f->exit == RS_EXIT_SERVICE;
}

int rs_vmc_show(struct rs_vmc *c)
{
    int code = rs_vmc_open(c, false);
    if (code != 0) return code;
    /* A locked VM, and one that is looked at without a service, can still be shown. */
    struct rs_failure locked = {.exit = 0};
    code = rs_vmc_connect(c);
    if (code == 0 && c->vm->sealed) code = open_home(c);
    if (code != 0) {
        locked = c->f;
        if (c->vm->sealed && !only_locked(&locked)) return code;
        c->f = (struct rs_failure){.exit = 0};
    }
    c->result = json_pack("{s:s, s:s, s:s}", "vm", c->vm->name, "folder", c->vm->folder, "uuid", c->vm->uuid);
    if (c->result == NULL) return rs_failure_set(&c->f, RS_EXIT_FAILED, "out of memory");
    put_home(c, c->result, &locked);
    put_state(c, c->result);
    put_other_vm(c, c->result);
    put_interrupted(c, c->result);
    put_disks(c, c->result);
    if (!c->o.json) print(c);
    return 0;
}
