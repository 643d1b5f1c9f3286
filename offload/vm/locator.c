/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/locator.h"

#include "offload/vm/escape.h"
#include "reseal/reseal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define PREFIX    "vmware:key/"
#define NULL_MARK "<VMWARE-NULL>"
#define EMPTY     "<VMWARE-EMPTYSTRING>"

static const struct {
    const char *name;
    unsigned fields;
} types[] = {
    [RS_LOCATOR_NULL] = {"null", 1}, [RS_LOCATOR_RAWKEY] = {"rawkey", 1}, [RS_LOCATOR_PHRASE] = {"phrase", 2},
    [RS_LOCATOR_LDAP] = {"ldap", 6}, [RS_LOCATOR_SCRIPT] = {"script", 3}, [RS_LOCATOR_ROLE] = {"role", 2},
    [RS_LOCATOR_FQID] = {"fqid", 3}, [RS_LOCATOR_LIST] = {"list", 0},     [RS_LOCATOR_PAIR] = {"pair", 2},
};

static bool is_compound(enum rs_locator_type type)
{
    return type == RS_LOCATOR_LIST || type == RS_LOCATOR_PAIR;
}

/* ---- making ------------------------------------------------------------------------- */

void rs_locator_free(struct rs_locator *l)
{
    while (l != NULL) {
        struct rs_locator *next = l->next;
        rs_locator_free(l->child); /* as deep as a parsed text may be */
        for (unsigned i = 0; i < RS_LOCATOR_FIELDS; i++) free(l->fields[i]);
        free(l);
        l = next;
    }
}

struct rs_locator *rs_locator_new(enum rs_locator_type type, const char *const *fields)
{
    struct rs_locator *l = calloc(1, sizeof(*l));
    if (l == NULL) return NULL;
    l->type = type;
    for (unsigned i = 0; i < types[type].fields; i++) {
        if (fields[i] == NULL) continue;
        l->fields[i] = strdup(fields[i]);
        if (l->fields[i] == NULL) {
            rs_locator_free(l);
            return NULL;
        }
    }
    return l;
}

void rs_locator_add(struct rs_locator *to, struct rs_locator *child)
{
    struct rs_locator **at = &to->child;
    while (*at != NULL) at = &(*at)->next;
    *at = child;
}

/* ---- escapes ------------------------------------------------------------------------ */

static bool is_plain(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* ---- parsing ------------------------------------------------------------------------ */

struct parser {
    const char *at, *end;
    unsigned depth, nodes;
    char *why;
    size_t why_len;
};

__attribute__((format(printf, 3, 4))) static int refuse(struct parser *p, int err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(p->why, p->why_len, format, args);
    va_end(args);
    return err;
}

static bool take(struct parser *p, char c)
{
    if (p->at == p->end || *p->at != c) return false;
    p->at++;
    return true;
}

/* The text up to the next comma or closing bracket: members are cut before they are unescaped. */
static size_t member_len(const struct parser *p)
{
    const char *at = p->at;
    while (at < p->end && *at != ',' && *at != ')' && *at != '(') at++;
    return (size_t)(at - p->at);
}

static int set_field(struct parser *p, struct rs_locator *l, unsigned i, const char *text, size_t len)
{
    if (len == sizeof(NULL_MARK) - 1 && memcmp(text, NULL_MARK, len) == 0) return 0;
    if (len == sizeof(EMPTY) - 1 && memcmp(text, EMPTY, len) == 0) len = 0;
    l->fields[i] = malloc(len + 1);
    if (l->fields[i] == NULL) return refuse(p, RESEAL_ENOMEM, "memory is out");
    return rs_unescape(text, len, '%', l->fields[i])
               ? 0
               : refuse(p, RESEAL_EFORMAT, "key locator: a %% in a %s is not followed by two hex digits",
                        types[l->type].name);
}

/* Where a field ends: at a slash; but texts that were shown unescaped have slashes in base64. */
static size_t field_len(const struct rs_locator *l, unsigned i, const char *text, size_t len)
{
    static const char dictionary[] = "/pass2key=";
    const char *slash = memchr(text, '/', len);
    if (i + 1 == types[l->type].fields) return len;
    if (l->type == RS_LOCATOR_PHRASE) {
        const char *d = memmem(text, len, dictionary, sizeof(dictionary) - 1);
        if (d != NULL) return (size_t)(d - text);
    }
    return slash == NULL ? len : (size_t)(slash - text);
}

static int parse_fields(struct parser *p, struct rs_locator *l)
{
    size_t len = member_len(p);
    const char *text = p->at;
    p->at += len;
    for (unsigned i = 0; i < types[l->type].fields; i++) {
        size_t n = field_len(l, i, text, len);
        bool last = i + 1 == types[l->type].fields;
        if (!last && n == len)
            return refuse(p, RESEAL_EFORMAT, "key locator: a %s needs %u fields", types[l->type].name,
                          types[l->type].fields);
        int err = set_field(p, l, i, text, n);
        if (err != 0) return err;
        text += last ? n : n + 1;
        len -= last ? n : n + 1;
    }
    return 0;
}

static int parse_locator(struct parser *p, struct rs_locator **out);

static int parse_child(struct parser *p, struct rs_locator *l)
{
    struct rs_locator *child;
    int err = parse_locator(p, &child);
    if (err == 0) rs_locator_add(l, child);
    return err;
}

static int parse_pair(struct parser *p, struct rs_locator *l)
{
    int err = parse_child(p, l);
    for (unsigned i = 0; i < 2 && err == 0; i++) {
        if (!take(p, ',')) return refuse(p, RESEAL_EFORMAT, "key locator: a pair is (locator,MAC,data)");
        size_t len = member_len(p);
        err = set_field(p, l, i, p->at, len);
        p->at += len;
    }
    return err;
}

static int parse_compound(struct parser *p, struct rs_locator *l)
{
    if (!take(p, '('))
        return refuse(p, RESEAL_EFORMAT, "key locator: '(' is missing after %s/", types[l->type].name);
    int err = l->type == RS_LOCATOR_PAIR ? parse_pair(p, l) : parse_child(p, l);
    while (err == 0 && l->type == RS_LOCATOR_LIST && take(p, ',')) err = parse_child(p, l);
    if (err != 0) return err;
    return take(p, ')')
               ? 0
               : refuse(p, RESEAL_EFORMAT, "key locator: ')' is missing in a %s", types[l->type].name);
}

static int parse_type(struct parser *p, enum rs_locator_type *type)
{
    const char *slash = memchr(p->at, '/', (size_t)(p->end - p->at));
    size_t len = slash == NULL ? 0 : (size_t)(slash - p->at);
    for (unsigned i = 0; i < RS_ARRAY_LEN(types); i++)
        if (len == strlen(types[i].name) && strncasecmp(p->at, types[i].name, len) == 0) {
            p->at = slash + 1;
            *type = (enum rs_locator_type)i;
            return 0;
        }
    return refuse(p, RESEAL_EFORMAT, "key locator: no known type of key at byte %zu from the end",
                  (size_t)(p->end - p->at));
}

static int parse_locator(struct parser *p, struct rs_locator **out)
{
    enum rs_locator_type type = RS_LOCATOR_NULL;
    int err = parse_type(p, &type);
    if (err != 0) return err;
    if (p->depth == RS_LOCATOR_DEPTH_MAX || p->nodes == RS_LOCATOR_NODES_MAX)
        return refuse(p, RESEAL_EFORMAT, "key locator: more than %u deep or %u long", RS_LOCATOR_DEPTH_MAX,
                      RS_LOCATOR_NODES_MAX);
    struct rs_locator *l = calloc(1, sizeof(*l));
    if (l == NULL) return refuse(p, RESEAL_ENOMEM, "memory is out");
    l->type = type;
    p->depth++;
    p->nodes++;
    err = is_compound(type) ? parse_compound(p, l) : parse_fields(p, l);
    p->depth--;
    if (err != 0) {
        rs_locator_free(l);
        return err;
    }
    *out = l;
    return 0;
}

int rs_locator_parse(const char *text, size_t len, struct rs_locator **out, char *why, size_t why_len)
{
    struct parser p = {.at = text, .end = text + len, .why = why, .why_len = why_len};
    size_t prefix = sizeof(PREFIX) - 1;
    if (len > RS_LOCATOR_TEXT_MAX) return refuse(&p, RESEAL_EFORMAT, "key locator: longer than 1 MiB");
    if (len < prefix || strncasecmp(text, PREFIX, prefix) != 0)
        return refuse(&p, RESEAL_EFORMAT, "key locator: does not begin with %s", PREFIX);
    p.at += prefix;
    int err = parse_locator(&p, out);
    if (err != 0) return err;
    if (p.at == p.end) return 0;
    rs_locator_free(*out);
    *out = NULL;
    return refuse(&p, RESEAL_EFORMAT, "key locator: %zu bytes too many at the end", (size_t)(p.end - p.at));
}

/* ---- printing ----------------------------------------------------------------------- */

static void print_field(FILE *f, const char *field)
{
    if (field == NULL || *field == '\0') {
        (void)fputs(field == NULL ? NULL_MARK : EMPTY, f);
        return;
    }
    for (; *field != '\0'; field++) {
        if (is_plain(*field))
            (void)fputc(*field, f);
        else
            (void)fprintf(f, "%%%02x", (unsigned char)*field);
    }
}

static void print_locator(FILE *f, const struct rs_locator *l)
{
    (void)fprintf(f, "%s/", types[l->type].name);
    if (is_compound(l->type)) (void)fputc('(', f);
    for (const struct rs_locator *c = l->child; c != NULL; c = c->next) {
        if (c != l->child) (void)fputc(',', f);
        print_locator(f, c);
    }
    for (unsigned i = 0; i < types[l->type].fields; i++) {
        if (l->type == RS_LOCATOR_PAIR)
            (void)fputc(',', f);
        else if (i > 0)
            (void)fputc('/', f);
        print_field(f, l->fields[i]);
    }
    if (is_compound(l->type)) (void)fputc(')', f);
}

char *rs_locator_text(const struct rs_locator *l)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    if (f == NULL) return NULL;
    (void)fputs(PREFIX, f);
    print_locator(f, l);
    bool failed = ferror(f) != 0;
    if (fclose(f) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}

/* ---- dictionaries ------------------------------------------------------------------- */

int rs_dictionary_get(const char *dictionary, const char *name, char *out, size_t room)
{
    size_t name_len = strlen(name);
    for (const char *item = dictionary; item != NULL;) {
        const char *colon = strchr(item, ':'), *end = colon == NULL ? item + strlen(item) : colon;
        if ((size_t)(end - item) > name_len && item[name_len] == '=' &&
            strncasecmp(item, name, name_len) == 0) {
            const char *value = item + name_len + 1;
            size_t len = (size_t)(end - value);
            return len < room && rs_unescape(value, len, '%', out) ? 0 : RESEAL_EFORMAT;
        }
        item = colon == NULL ? NULL : colon + 1;
    }
    return RESEAL_ENOKEY;
}

/* '=' and what else would be read as something else; '+', '/' and '-' stay as they are. */
static bool dictionary_plain(char c)
{
    return is_plain(c) || c == '+' || c == '/' || c == '-' || c == '.' || c == '_';
}

int rs_dictionary_put(char *dictionary, size_t room, const char *name, const char *value)
{
    size_t used = strlen(dictionary);
    int n = snprintf(dictionary + used, room - used, "%s%s=", used == 0 ? "" : ":", name);
    if (n < 0 || (size_t)n >= room - used) return RESEAL_ESPACE;
    used += (size_t)n;
    for (; *value != '\0'; value++) {
        bool plain = dictionary_plain(*value);
        if (room - used < (plain ? 2u : 4u)) {
            dictionary[used] = '\0';
            return RESEAL_ESPACE;
        }
        if (plain)
            dictionary[used++] = *value;
        else
            used += (size_t)snprintf(dictionary + used, 4, "%%%02x", (unsigned char)*value);
    }
    dictionary[used] = '\0';
    return 0;
}
