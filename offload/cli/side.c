/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/side.h"

#include <stdio.h>
#include <stdlib.h>

#define UNIT_MIN 512u
#define UNIT_MAX 65536u

const char *rs_side_kind_name(enum rs_side_kind kind)
{
    return kind == RS_SIDE_LUKS ? "luks" : kind == RS_SIDE_XTS ? "xts" : "plain";
}

/* Copies up to a single comma (",," is one comma of the text); returns what follows it, or NULL when too
 * long. */
static const char *take_word(const char *text, char *out, size_t cap)
{
    size_t n = 0;
    while (*text != '\0') {
        if (*text == ',') {
            if (text[1] != ',') break;
            text++;
        }
        if (n + 1 >= cap) return NULL;
        out[n++] = *text++;
    }
    out[n] = '\0';
    return *text == ',' ? text + 1 : text;
}

static int bad_number(struct rs_failure *f, const char *option)
{
    return rs_failure_set(f, RS_EXIT_USAGE, "'%s': not a number in its range", option);
}

static int take_number(const char *option, const char *value, uint64_t max, uint64_t *out,
                       struct rs_failure *f)
{
    return rs_cli_bytes(value, max, out) != 0 ? bad_number(f, option) : 0;
}

static int take_xts_option(struct rs_side_spec *s, const char *option, const char *value,
                           struct rs_failure *f)
{
    if (strncmp(option, "key=", 4) == 0) {
        snprintf(s->key_path, sizeof(s->key_path), "%s", value);
        return 0;
    }
    if (strncmp(option, "name=", 5) == 0) {
        int n = snprintf(s->key_name, sizeof(s->key_name), "%s", value);
        return n > 0 && (size_t)n < sizeof(s->key_name)
                   ? 0
                   : rs_failure_set(f, RS_EXIT_USAGE, "'%s': a name has 1 to 120 characters", option);
    }
    if (strncmp(option, "unit=", 5) == 0) {
        uint64_t unit;
        if (rs_cli_bytes(value, UNIT_MAX, &unit) != 0 || unit < UNIT_MIN || !rs_is_pow2(unit))
            return rs_failure_set(f, RS_EXIT_USAGE, "'%s': the data unit is a power of two from 512 to 64K",
                                  option);
        s->unit = (uint32_t)unit;
        return 0;
    }
    if (strncmp(option, "tweak=", 6) == 0) return take_number(option, value, UINT64_MAX, &s->tweak, f);
    if (strncmp(option, "step=", 5) == 0) {
        int code = take_number(option, value, UINT64_MAX, &s->step, f);
        return code == 0 && s->step == 0 ? bad_number(f, option) : code;
    }
    return rs_failure_set(f, RS_EXIT_USAGE,
                          "'%s': xts: takes key=, name=, unit=, offset=, tweak=, step= and size=", option);
}

static int take_option(struct rs_side_spec *s, const char *option, struct rs_failure *f)
{
    const char *equals = strchr(option, '=');
    if (equals == NULL || s->kind == RS_SIDE_LUKS)
        return rs_failure_set(f, RS_EXIT_USAGE,
                              "'%s': not an option of %s: (a comma in a name is written twice)", option,
                              rs_side_kind_name(s->kind));
    if (strncmp(option, "offset=", 7) == 0) return take_number(option, equals + 1, INT64_MAX, &s->offset, f);
    if (strncmp(option, "size=", 5) == 0) return take_number(option, equals + 1, INT64_MAX, &s->size, f);
    if (s->kind == RS_SIDE_XTS) return take_xts_option(s, option, equals + 1, f);
    return rs_failure_set(f, RS_EXIT_USAGE, "'%s': plain: takes offset= and size=", option);
}

static const char *take_kind(const char *text, struct rs_side_spec *s)
{
    static const enum rs_side_kind kinds[] = {RS_SIDE_LUKS, RS_SIDE_XTS, RS_SIDE_PLAIN};
    for (size_t i = 0; i < RS_ARRAY_LEN(kinds); i++) {
        size_t n = strlen(rs_side_kind_name(kinds[i]));
        if (strncmp(text, rs_side_kind_name(kinds[i]), n) == 0 && text[n] == ':') {
            s->kind = kinds[i];
            return text + n + 1;
        }
    }
    return NULL;
}

int rs_side_parse(const char *text, struct rs_side_spec *s, struct rs_failure *f)
{
    *s = (struct rs_side_spec){0};
    const char *rest = take_kind(text, s);
    if (rest == NULL)
        return rs_failure_set(f, RS_EXIT_USAGE,
                              "'%s': say what it is: luks:FILE, xts:FILE,key=KEYFILE or plain:FILE", text);
    rest = take_word(rest, s->path, sizeof(s->path));
    if (rest == NULL || s->path[0] == '\0')
        return rs_failure_set(f, RS_EXIT_USAGE, "'%s': the file name is missing or too long", text);
    if (s->kind == RS_SIDE_XTS) {
        s->unit = UNIT_MIN;
        s->step = 1;
    }
    while (*rest != '\0') {
        char option[PATH_MAX];
        rest = take_word(rest, option, sizeof(option));
        if (rest == NULL) return rs_failure_set(f, RS_EXIT_USAGE, "'%s': an option is too long", text);
        int code = take_option(s, option, f);
        if (code != 0) return code;
    }
    if (s->kind == RS_SIDE_XTS && s->key_path[0] == '\0')
        return rs_failure_set(f, RS_EXIT_USAGE, "'%s': the key file is missing: add ,key=KEYFILE", text);
    return 0;
}
