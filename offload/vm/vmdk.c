/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/vmdk.h"

#include "offload/vm/files.h"
#include "reseal/reseal.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define MARK "# Disk DescriptorFile"

struct line {
    char *text;  /* as it stands in the file */
    char *value; /* of a setting, without quotes; NULL: none */
    size_t name_len;
};

struct rs_vmdk {
    struct line *lines;
    size_t count, room;
};

bool rs_vmdk_is(const void *start, size_t len)
{
    return len >= sizeof(MARK) - 1 && memcmp(start, MARK, sizeof(MARK) - 1) == 0;
}

void rs_vmdk_free(struct rs_vmdk *v)
{
    if (v == NULL) return;
    for (size_t i = 0; i < v->count; i++) {
        free(v->lines[i].text);
        free(v->lines[i].value);
    }
    free(v->lines);
    free(v);
}

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_';
}

/* Finds `name = value` in a line; false for any other line. */
static bool split(struct line *l)
{
    const char *p = l->text;
    while (name_char(*p)) p++;
    l->name_len = (size_t)(p - l->text);
    while (blank(*p)) p++;
    if (l->name_len == 0 || *p++ != '=') return false;
    while (blank(*p)) p++;
    size_t len = strlen(p);
    while (len > 0 && blank(p[len - 1])) len--;
    if (len >= 2 && p[0] == '"' && p[len - 1] == '"') {
        p++;
        len -= 2;
    }
    l->value = strndup(p, len);
    return true;
}

static int add(struct rs_vmdk *v, char *text)
{
    if (v->count == v->room && text != NULL) {
        size_t room = v->room == 0 ? 32 : 2 * v->room;
        struct line *lines = reallocarray(v->lines, room, sizeof(*lines));
        if (lines != NULL) {
            v->lines = lines;
            v->room = room;
        }
    }
    if (text == NULL || v->count == v->room) {
        free(text);
        return RESEAL_ENOMEM;
    }
    struct line *l = &v->lines[v->count++];
    *l = (struct line){.text = text};
    return split(l) && l->value == NULL ? RESEAL_ENOMEM : 0;
}

int rs_vmdk_parse(const char *text, size_t len, struct rs_vmdk **out, char *why, size_t why_len)
{
    *out = NULL;
    if (!rs_vmdk_is(text, len))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "it does not begin as a VMDK descriptor does");
    if (len > RS_VMDK_MAX || memchr(text, '\0', len) != NULL)
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len,
                            "it is too long for a descriptor, or holds a NUL byte");
    struct rs_vmdk *v = calloc(1, sizeof(*v));
    if (v == NULL) return RESEAL_ENOMEM;
    const char *end = text + len;
    int err = 0;
    while (err == 0 && text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        if (stop == NULL) stop = end;
        err = v->count == RS_VMDK_LINES_MAX
                  ? rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "it has too many lines")
                  : add(v, strndup(text, (size_t)(stop - text)));
        text = stop == end ? end : stop + 1;
    }
    if (err != 0) {
        rs_vmdk_free(v);
        return err;
    }
    *out = v;
    return 0;
}

static struct line *find(const struct rs_vmdk *v, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < v->count; i++) {
        struct line *l = &v->lines[i];
        if (l->value != NULL && l->name_len == len && strncasecmp(l->text, name, len) == 0) return l;
    }
    return NULL;
}

const char *rs_vmdk_get(const struct rs_vmdk *v, const char *name)
{
    const struct line *l = find(v, name);
    return l == NULL ? NULL : l->value;
}

int rs_vmdk_set(struct rs_vmdk *v, const char *name, const char *value, bool quoted)
{
    for (const char *p = value; *p != '\0'; p++)
        if (*p == '"' || (unsigned char)*p < ' ') return RESEAL_EINVAL;
    char *text;
    const char *quote = quoted ? "\"" : "";
    if (asprintf(&text, "%s=%s%s%s", name, quote, value, quote) < 0) return RESEAL_ENOMEM;
    struct line *l = find(v, name);
    if (l == NULL) return add(v, text);
    struct line fresh = {.text = text};
    if (!split(&fresh) || fresh.value == NULL) {
        free(text);
        return RESEAL_ENOMEM;
    }
    free(l->text);
    free(l->value);
    *l = fresh;
    return 0;
}

void rs_vmdk_remove(struct rs_vmdk *v, const char *name)
{
    for (struct line *l; (l = find(v, name)) != NULL;) {
        free(l->text);
        free(l->value);
        memmove(l, l + 1, (size_t)(v->lines + v->count - (l + 1)) * sizeof(*l));
        v->count--;
    }
}

/* RW 20480 FLAT "disk-flat.vmdk" 0: whether it is an extent at all. */
static bool is_extent(const char *line)
{
    return strncmp(line, "RW ", 3) == 0 || strncmp(line, "RDONLY ", 7) == 0 ||
           strncmp(line, "NOACCESS ", 9) == 0;
}

/* A decimal number of sectors that its bytes can be counted of; moves on behind it and the blanks that
 * follow. */
static bool take_sectors(const char **p, uint64_t *out)
{
    *out = 0;
    if (**p < '0' || **p > '9') return false;
    for (; **p >= '0' && **p <= '9'; (*p)++) {
        *out = *out * 10 + (uint64_t)(**p - '0');
        if (*out > INT64_MAX / 512) return false;
    }
    while (blank(**p)) (*p)++;
    return true;
}

static bool take_word(const char **p, char *out, size_t room)
{
    size_t n = strspn(*p, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    if (n == 0 || n >= room) return false;
    memcpy(out, *p, n);
    out[n] = '\0';
    *p += n;
    while (blank(**p)) (*p)++;
    return true;
}

static bool take_name(const char **p, char *out, size_t room)
{
    const char *end = **p == '"' ? strchr(*p + 1, '"') : NULL;
    size_t n = end == NULL ? 0 : (size_t)(end - *p) - 1;
    if (n == 0 || n >= room) return false;
    memcpy(out, *p + 1, n);
    out[n] = '\0';
    *p = end + 1;
    while (blank(**p)) (*p)++;
    return true;
}

/* RW 20480 FLAT "disk-flat.vmdk" 0; the last number may be left out. */
static int read_extent(const char *line, struct rs_vmdk_extent *out, char *why, size_t why_len)
{
    char access[16], kind[16];
    const char *p = line;
    *out = (struct rs_vmdk_extent){.first = 0};
    if (!take_word(&p, access, sizeof(access)) || strcmp(access, "RW") != 0)
        return rs_vm_refuse(RESEAL_ENOSUPPORT, why, why_len,
                            "its extent may not be written: only RW is supported");
    if (!take_sectors(&p, &out->sectors) || out->sectors == 0)
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "the size in its extent line is out of range");
    if (!take_word(&p, kind, sizeof(kind)))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "its extent line cannot be read");
    if (strcmp(kind, "FLAT") != 0 && strcmp(kind, "VMFS") != 0)
        return rs_vm_refuse(RESEAL_ENOSUPPORT, why, why_len, "its extent is of kind %s: " RS_VMDK_FLATTEN,
                            kind);
    if (!take_name(&p, out->file, sizeof(out->file)))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "the name in its extent line cannot be read");
    if (*p != '\0' && (!take_sectors(&p, &out->first) || *p != '\0'))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "the offset in its extent line is out of range");
    return 0;
}

int rs_vmdk_extent(const struct rs_vmdk *v, struct rs_vmdk_extent *out, char *why, size_t why_len)
{
    const char *found = NULL;
    for (size_t i = 0; i < v->count; i++) {
        if (!is_extent(v->lines[i].text)) continue;
        if (found != NULL)
            return rs_vm_refuse(RESEAL_ENOSUPPORT, why, why_len, "it has several extents: " RS_VMDK_FLATTEN);
        found = v->lines[i].text;
    }
    if (found == NULL) return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "it names no extent");
    return read_extent(found, out, why, why_len);
}

char *rs_vmdk_text(const struct rs_vmdk *v, size_t *len)
{
    size_t room = 1;
    for (size_t i = 0; i < v->count; i++) room += strlen(v->lines[i].text) + 1;
    char *text = malloc(room), *at = text;
    if (text == NULL) return NULL;
    for (size_t i = 0; i < v->count; i++) {
        at = stpcpy(at, v->lines[i].text);
        *at++ = '\n';
    }
    *at = '\0';
    *len = (size_t)(at - text);
    return text;
}

char *rs_vmdk_new(const char *file, uint64_t sectors, size_t *len)
{
    char *text;
    int n = asprintf(&text,
                     MARK "\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n"
                          "\n# Extent description\nRW %llu FLAT \"%s\" 0\n\n# The Disk Data Base\n"
                          "ddb.virtualHWVersion = \"19\"\nddb.adapterType = \"lsilogic\"\n",
                     (unsigned long long)sectors, file);
    if (n < 0) return NULL;
    *len = (size_t)n;
    return text;
}
