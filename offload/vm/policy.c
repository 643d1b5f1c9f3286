/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/policy.h"

#include "offload/vm/files.h"
#include "reseal/reseal.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define POLICY_MAX (64u << 10) /* bytes of a file */
#define CAPABILITY "vmwarevmcrypt@ENCRYPTION"
#define NAMESPACE  "vmwarevmcrypt"

static const char sample[] =
    "{\"name\": \"" RS_VM_POLICY_SAMPLE "\", \"id\": \"4d5f673c-536f-11e6-beb8-9e71128cae77\","
    " \"capabilities\": [{\"namespace\": \"" NAMESPACE "\", \"id\": \"" CAPABILITY "\","
    " \"properties\": {\"AllowCleartextFilters\": false}}]}";

/* ---- one policy --------------------------------------------------------------------- */

static bool known(const json_t *o, const char *const *names, const char **unknown)
{
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)o, *unknown, value)
    {
        unsigned i = 0;
        while (names[i] != NULL && strcmp(names[i], *unknown) != 0) i++;
        if (names[i] == NULL) return false;
    }
    return true;
}

/* A text member; one that is absent leaves `out`. */
static bool take_text(const json_t *o, const char *name, char *out, size_t room)
{
    const json_t *value = json_object_get(o, name);
    if (value == NULL) return true;
    const char *text = json_string_value(value);
    if (text == NULL || strlen(text) >= room || json_string_length(value) != strlen(text)) return false;
    for (const char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f) return false;
    (void)stpcpy(out, text);
    return true;
}

static bool take_number(const json_t *o, const char *name, uint32_t *out)
{
    const json_t *value = json_object_get(o, name);
    if (value == NULL) return true;
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 0 || n > UINT32_MAX) return false;
    *out = (uint32_t)n;
    return true;
}

static int take_disk(const json_t *o, struct rs_vm_policy *p, char *why, size_t why_len)
{
    static const char *const names[] = {"format", "unit", "key-bits", NULL};
    const char *unknown = NULL;
    if (o == NULL) return 0;
    if (!json_is_object(o) || !known(o, names, &unknown))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "\"disk\" has an unknown member \"%.40s\"",
                            unknown != NULL ? unknown : "");
    if (!take_text(o, "format", p->format, sizeof(p->format)) ||
        (strcmp(p->format, "luks2") != 0 && strcmp(p->format, "luks1") != 0 && strcmp(p->format, "xts") != 0))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "\"format\" is luks2, luks1 or xts");
    if (strcmp(p->format, "luks1") == 0) p->unit = 512;
    if (!take_number(o, "unit", &p->unit) || !rs_is_pow2(p->unit) || p->unit < 512 || p->unit > 4096 ||
        (strcmp(p->format, "luks1") == 0 && p->unit != 512))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len,
                            "\"unit\" is 512, 1024, 2048 or 4096, and 512 with luks1");
    if (!take_number(o, "key-bits", &p->key_bits) || (p->key_bits != 128 && p->key_bits != 256))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "\"key-bits\" is 128 or 256");
    return 0;
}

static int take_capability(const json_t *o, struct rs_vm_policy *p, char *why, size_t why_len)
{
    static const char *const names[] = {"namespace", "id", "properties", NULL};
    const char *unknown = NULL;
    const char *id = json_string_value(json_object_get(o, "id"));
    const char *space = json_string_value(json_object_get(o, "namespace"));
    if (!json_is_object(o) || id == NULL || space == NULL || !known(o, names, &unknown))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len,
                            "a capability has \"namespace\", \"id\" and \"properties\"");
    /* Those of others are for others. */
    if (strcmp(space, NAMESPACE) != 0) return 0;
    if (strcmp(id, CAPABILITY) != 0)
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "capability \"%.60s\" is not known: %s is", id,
                            CAPABILITY);
    const json_t *allow = json_object_get(json_object_get(o, "properties"), "AllowCleartextFilters");
    if (allow != NULL && !json_is_boolean(allow))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "\"AllowCleartextFilters\" is true or false");
    p->allows_cleartext_filters = json_is_true(allow);
    p->encrypts = true;
    return 0;
}

static int take_policy(const json_t *o, struct rs_vm_policy *p, char *why, size_t why_len)
{
    static const char *const names[] = {"name",     "id",   "description", "capabilities",
                                        "provider", "disk", NULL};
    const char *unknown = NULL;
    *p = (struct rs_vm_policy){.format = "luks2", .unit = 4096, .key_bits = 256};
    if (!json_is_object(o)) return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "it is no JSON object");
    if (!known(o, names, &unknown))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "member \"%.40s\" is not known", unknown);
    if (!take_text(o, "name", p->name, sizeof(p->name)) || p->name[0] == '\0')
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "\"name\" is a text of 1 to %zu bytes",
                            sizeof(p->name) - 1);
    if (!take_text(o, "id", p->id, sizeof(p->id)) ||
        !take_text(o, "provider", p->provider, sizeof(p->provider)))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "\"id\" or \"provider\" is no text, or too long");
    int code = take_disk(json_object_get(o, "disk"), p, why, why_len);
    const json_t *list = json_object_get(o, "capabilities");
    if (code == 0 && list != NULL && !json_is_array(list))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "\"capabilities\" is no list");
    for (size_t i = 0; code == 0 && i < json_array_size(list); i++)
        code = take_capability(json_array_get(list, i), p, why, why_len);
    return code;
}

int rs_vm_policy_parse(const char *text, size_t len, struct rs_vm_policy *out, char *why, size_t why_len)
{
    json_error_t error;
    if (len > POLICY_MAX) return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "it is too large");
    json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (o == NULL) return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "line %d: %s", error.line, error.text);
    int code = take_policy(o, out, why, why_len);
    json_decref(o);
    return code;
}

/* ---- the folder --------------------------------------------------------------------- */

struct search {
    const char *folder, *name;
    struct rs_vm_policy *out;
    char names[512]; /* of the policies that were passed over, each once */
    char *why;
    size_t why_len;
};

static int read_policy(struct search *s, const char *file, struct rs_vm_policy *p)
{
    char path[PATH_MAX], wrong[256];
    RS_FREE char *text = NULL;
    size_t len = 0;
    if (!rs_vm_resolve(s->folder, file, path)) return RESEAL_EIO;
    int code = rs_vm_read_file(path, POLICY_MAX, &text, &len);
    if (code == RESEAL_EIO)
        return rs_vm_refuse(code, s->why, s->why_len, "cannot read %s: %s", path, strerror(errno));
    if (code != 0)
        return rs_vm_refuse(RESEAL_EFORMAT, s->why, s->why_len, "%s is too large for a policy", path);
    code = rs_vm_policy_parse(text, len, p, wrong, sizeof(wrong));
    return code == 0 ? 0 : rs_vm_refuse(code, s->why, s->why_len, "%s is no storage policy: %s", path, wrong);
}

/* 1: it is the one. */
static int look_at(struct search *s, const struct rs_vm_policy *p)
{
    if (strcmp(p->name, s->name) == 0 || (p->id[0] != '\0' && strcmp(p->id, s->name) == 0)) {
        *s->out = *p;
        return 1;
    }
    char quoted[sizeof(p->name) + 3];
    size_t n = strlen(s->names);
    (void)snprintf(quoted, sizeof(quoted), "\"%s\"", p->name);
    if (strstr(s->names, quoted) == NULL)
        (void)snprintf(s->names + n, sizeof(s->names) - n, "%s%s", n != 0 ? ", " : "", quoted);
    return 0;
}

/* 1: found; 0: not there; RESEAL_E.... */
static int search_folder(struct search *s)
{
    DIR *dir = opendir(s->folder);
    int code = 0;
    for (const struct dirent *e; dir != NULL && code == 0 && (e = readdir(dir)) != NULL;) {
        struct rs_vm_policy p;
        if (!rs_vm_has_suffix(e->d_name, ".json") || e->d_name[0] == '.') continue;
        code = read_policy(s, e->d_name, &p);
        if (code == 0) code = look_at(s, &p);
    }
    if (dir != NULL) closedir(dir);
    return code;
}

/* Where those lie that came with this program; false: nobody knows where the program is. */
static bool installed_folder(char out[PATH_MAX])
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n <= 0) return false;
    self[n] = '\0';
    int len = snprintf(out, PATH_MAX, "%s/" RESEAL_TO_POLICIES, dirname(self));
    return len > 0 && len < PATH_MAX;
}

/* The same in each folder; the first that has it. */
static int search_folders(struct search *s, const char *first, const char *second)
{
    s->folder = first;
    int code = search_folder(s);
    if (code != 0 || second == NULL) return code;
    s->folder = second;
    return search_folder(s);
}

int rs_vm_policy_find(const char *folder, const char *name, struct rs_vm_policy *out, char *why,
                      size_t why_len)
{
    char installed[PATH_MAX];
    struct search s = {.name = name, .out = out, .why = why, .why_len = why_len};
    const char *second = folder == NULL && installed_folder(installed) ? installed : NULL;
    if (folder == NULL) folder = RS_VM_POLICY_DIR;
    int code = search_folders(&s, folder, second);
    if (code != 0) return code == 1 ? 0 : code;
    struct rs_vm_policy p;
    code = rs_vm_policy_parse(sample, sizeof(sample) - 1, &p, why, why_len);
    if (code == 0) code = look_at(&s, &p);
    if (code != 0) return code == 1 ? 0 : code;
    return rs_vm_refuse(RESEAL_ENOKEY, why, why_len,
                        "there is no storage policy \"%.100s\": in %s%s%s there is %s", name, folder,
                        second != NULL ? " and " : "", second != NULL ? second : "", s.names);
}
