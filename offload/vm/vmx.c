/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/vmx.h"

#include "offload/vm/escape.h"
#include "reseal/reseal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

struct line {
    char *name;  /* NULL: `value` is the whole line, a comment or blank */
    char *value; /* unescaped */
    char *raw;   /* the line as it was read; NULL: it is not, or its value was changed */
};

/* What editors put before a text in UTF-8. */
static const char mark[] = "\xef\xbb\xbf";
#define MARK_LEN (sizeof(mark) - 1)

struct rs_vmx {
    struct line *lines;
    size_t count, room;
    bool marked;   /* begins with the mark */
    bool returns;  /* lines end with a carriage return too */
    bool open_end; /* the last one does not end */
};

struct rs_vmx *rs_vmx_new(void)
{
    return calloc(1, sizeof(struct rs_vmx));
}

static void drop_value(char *value)
{
    if (value != NULL) rs_wipe(value, strlen(value));
    free(value);
}

static void drop_line(struct line *l)
{
    free(l->name);
    drop_value(l->value);
    drop_value(l->raw);
}

void rs_vmx_free(struct rs_vmx *v)
{
    if (v == NULL) return;
    for (size_t i = 0; i < v->count; i++) drop_line(&v->lines[i]);
    free(v->lines);
    free(v);
}

/* ---- parsing ------------------------------------------------------------------------ */

/* Takes ownership of all texts. */
static int append(struct rs_vmx *v, char *name, char *value, char *raw)
{
    if (v->count == v->room && value != NULL) {
        size_t room = v->room == 0 ? 64 : 2 * v->room;
        struct line *lines = reallocarray(v->lines, room, sizeof(*lines));
        if (lines != NULL) {
            v->lines = lines;
            v->room = room;
        }
    }
    struct line line = {name, value, raw};
    if (value == NULL || v->count == v->room) {
        drop_line(&line);
        return RESEAL_ENOMEM;
    }
    v->lines[v->count++] = line;
    return 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || c == ':';
}

/* A copy without escapes; NULL for a wrong one, a NUL, or when memory is out. */
static char *unescape(const char *text, size_t len)
{
    char *copy = malloc(len + 1);
    if (copy == NULL || rs_unescape(text, len, '|', copy)) return copy;
    free(copy);
    return NULL;
}

/* `name = "value"`, and nothing after it but blanks and a comment. Why it is none, or NULL. */
static const char *parse_setting(struct rs_vmx *v, const char *start, const char *at, const char *end,
                                 int *err)
{
    const char *name = at;
    while (at < end && name_char(*at)) at++;
    size_t name_len = (size_t)(at - name);
    if (name_len == 0 || name_len >= RS_VMX_NAME_MAX) return "no name";
    while (at < end && is_blank(*at)) at++;
    if (at == end || *at++ != '=') return "no '=' after the name";
    while (at < end && is_blank(*at)) at++;
    if (at == end || *at++ != '"') return "the value is not in double quotes";
    const char *close = memchr(at, '"', (size_t)(end - at));
    if (close == NULL) return "the value has no end";
    char *value = unescape(at, (size_t)(close - at));
    if (value == NULL) return "a '|' in the value is not followed by two hex digits";
    for (at = close + 1; at < end && is_blank(*at);) at++;
    if (at < end && *at != '#') {
        drop_value(value);
        return "there is more after the value";
    }
    char *raw = strndup(start, (size_t)(end - start)), *own = strndup(name, name_len);
    *err = append(v, own, value, raw);
    if (*err == 0 && (raw == NULL || own == NULL)) *err = RESEAL_ENOMEM;
    return NULL;
}

__attribute__((format(printf, 3, 4))) static int refuse(char *why, size_t why_len, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why, why_len, format, args);
    va_end(args);
    return RESEAL_EFORMAT;
}

static int parse_line(struct rs_vmx *v, const char *at, const char *end, size_t number, char *why,
                      size_t why_len)
{
    const char *start = at;
    int err = 0;
    while (at < end && is_blank(*at)) at++;
    if (memchr(start, '\0', (size_t)(end - start)) != NULL)
        return refuse(why, why_len, "line %zu holds a NUL byte: this is no .vmx file, or a torn one", number);
    if (at == end || *at == '#') return append(v, NULL, strndup(start, (size_t)(end - start)), NULL);
    const char *wrong = parse_setting(v, start, at, end, &err);
    if (wrong != NULL) return refuse(why, why_len, "line %zu: %s", number, wrong);
    return err;
}

/* What a file that is written again has to look like. */
static void take_form(struct rs_vmx *v, const char *text, size_t len)
{
    const char *first = memchr(text, '\n', len);
    v->marked = len >= MARK_LEN && memcmp(text, mark, MARK_LEN) == 0;
    v->returns = first != NULL && first > text && first[-1] == '\r';
    v->open_end = text[len - 1] != '\n';
}

int rs_vmx_parse(const char *text, size_t len, struct rs_vmx **out, char *why, size_t why_len)
{
    const char *at = text, *end = text + len;
    size_t number = 0, settings = 0;
    int err = 0;
    *out = NULL;
    if (len == 0) return refuse(why, why_len, "the file is empty");
    if (len > RS_VMX_MAX) return refuse(why, why_len, "the file is larger than %u MiB", RS_VMX_MAX >> 20);
    struct rs_vmx *v = rs_vmx_new();
    if (v == NULL) return RESEAL_ENOMEM;
    take_form(v, text, len);
    if (v->marked) at += MARK_LEN;
    while (err == 0 && at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        if (line_end == NULL) line_end = end;
        if (++number > RS_VMX_LINES_MAX)
            err = refuse(why, why_len, "the file has more than %u lines", RS_VMX_LINES_MAX);
        else
            err = parse_line(v, at, line_end, number, why, why_len);
        at = line_end == end ? end : line_end + 1;
    }
    for (size_t i = 0; i < v->count; i++) settings += v->lines[i].name != NULL;
    if (err == 0 && settings == 0) err = refuse(why, why_len, "the file holds no setting");
    if (err != 0) {
        rs_vmx_free(v);
        return err;
    }
    *out = v;
    return 0;
}

/* ---- settings ----------------------------------------------------------------------- */

static struct line *find(const struct rs_vmx *v, const char *name)
{
    for (size_t i = v->count; i-- > 0;)
        if (v->lines[i].name != NULL && strcasecmp(v->lines[i].name, name) == 0) return &v->lines[i];
    return NULL;
}

const char *rs_vmx_get(const struct rs_vmx *v, const char *name)
{
    const struct line *l = find(v, name);
    return l == NULL ? NULL : l->value;
}

static bool name_ok(const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < len; i++)
        if (!name_char(name[i])) return false;
    return len > 0 && len < RS_VMX_NAME_MAX;
}

int rs_vmx_set(struct rs_vmx *v, const char *name, const char *value)
{
    struct line *l = find(v, name);
    if (!name_ok(name)) return RESEAL_EINVAL;
    char *copy = strdup(value);
    if (copy == NULL) return RESEAL_ENOMEM;
    if (l != NULL) {
        if (strcmp(l->value, copy) != 0) {
            drop_value(l->raw);
            l->raw = NULL;
        }
        drop_value(l->value);
        l->value = copy;
        return 0;
    }
    char *own = strdup(name);
    if (own == NULL) {
        drop_value(copy);
        return RESEAL_ENOMEM;
    }
    return append(v, own, copy, NULL);
}

bool rs_vmx_remove(struct rs_vmx *v, const char *name)
{
    size_t kept = 0, count = v->count;
    for (size_t i = 0; i < count; i++) {
        struct line *l = &v->lines[i];
        if (l->name != NULL && strcasecmp(l->name, name) == 0) {
            drop_line(l);
        } else {
            v->lines[kept++] = *l;
        }
    }
    v->count = kept;
    return kept != count;
}

int rs_vmx_each(const struct rs_vmx *v, int (*each)(const char *name, const char *value, void *arg),
                void *arg)
{
    for (size_t i = 0; i < v->count; i++) {
        int stop = v->lines[i].name == NULL ? 0 : each(v->lines[i].name, v->lines[i].value, arg);
        if (stop != 0) return stop;
    }
    return 0;
}

/* ---- writing ------------------------------------------------------------------------ */

static size_t escaped_len(const char *value)
{
    size_t n = 0;
    for (; *value != '\0'; value++)
        n += *value == '"' || *value == '|' || (unsigned char)*value < ' ' || *value == 0x7f ? 3 : 1;
    return n;
}

static char *put_escaped(char *out, const char *value)
{
    static const char digits[] = "0123456789ABCDEF";
    for (; *value != '\0'; value++) {
        unsigned char c = (unsigned char)*value;
        if (c == '"' || c == '|' || c < ' ' || c == 0x7f) {
            *out++ = '|';
            *out++ = digits[c >> 4];
            *out++ = digits[c & 15];
        } else {
            *out++ = (char)c;
        }
    }
    return out;
}

/* A line as it is, or as it came to be; without its end. */
static char *put_line(char *out, const struct rs_vmx *v, const struct line *l)
{
    if (l->name == NULL) return stpcpy(out, l->value);
    if (l->raw != NULL) return stpcpy(out, l->raw);
    out = put_escaped(stpcpy(stpcpy(out, l->name), " = \""), l->value);
    return stpcpy(out, v->returns ? "\"\r" : "\"");
}

/* One block of the right size: a growing buffer would leave pieces of secrets behind. */
char *rs_vmx_text(const struct rs_vmx *v, size_t *len)
{
    size_t room = 1 + MARK_LEN;
    for (size_t i = 0; i < v->count; i++) {
        const struct line *l = &v->lines[i];
        room += 1 + (l->raw != NULL    ? strlen(l->raw)
                     : l->name == NULL ? strlen(l->value)
                                       : strlen(l->name) + escaped_len(l->value) + 6);
    }
    char *text = malloc(room), *at = text;
    if (text == NULL) return NULL;
    if (v->marked) at = stpcpy(at, mark);
    for (size_t i = 0; i < v->count; i++) {
        at = put_line(at, v, &v->lines[i]);
        if (!v->open_end || i + 1 < v->count) *at++ = '\n';
    }
    *at = '\0';
    *len = (size_t)(at - text);
    return text;
}
