/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/policy_data.h"

#include "offload/base/keymem.h"
#include "reseal/reseal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#define RULES_MAX 4096u

struct parser {
    const char *text;
    const struct rs_names *names;
    int folder;
    struct rs_policy *policy;
    const json_t *roles; /* the file's own, or NULL */
    char *why;
    size_t why_len;
};

/* ---- errors ------------------------------------------------------------------- */

/* The line where a string of the file stands first: jansson keeps no positions. */
static unsigned line_of(const char *text, const char *token)
{
    char quoted[160];
    if (token == NULL || snprintf(quoted, sizeof(quoted), "\"%s\"", token) >= (int)sizeof(quoted)) return 0;
    const char *at = strstr(text, quoted);
    if (at == NULL) return 0;
    unsigned line = 1;
    for (const char *c = text; c < at; c++) line += *c == '\n';
    return line;
}

/* Writes the one line; `token` is a string of the file near the fault, or NULL. Always RESEAL_EINVAL. */
__attribute__((format(printf, 3, 4))) static int fail(struct parser *p, const char *token, const char *format,
                                                      ...)
{
    unsigned line = line_of(p->text, token);
    int n = line != 0 ? snprintf(p->why, p->why_len, "line %u: ", line) : 0;
    if (n < 0 || (size_t)n >= p->why_len) return RESEAL_EINVAL;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(p->why + n, p->why_len - (size_t)n, format, args);
    va_end(args);
    return RESEAL_EINVAL;
}

static int no_memory(struct parser *p)
{
    (void)snprintf(p->why, p->why_len, "out of memory");
    return RESEAL_ENOMEM;
}

/* Only members of the list; the first one that is missing or unknown is named. */
static int members_known(struct parser *p, const char *where, json_t *object, const char *const *known)
{
    const char *name;
    json_t *value;
    if (!json_is_object(object)) return fail(p, where, "%s must be an object {...}", where);
    json_object_foreach(object, name, value)
    {
        unsigned i = 0;
        while (known[i] != NULL && strcmp(known[i], name) != 0) i++;
        if (known[i] == NULL)
            return fail(p, name, "unknown member \"%s\" in %s: remove it or mend its name", name, where);
    }
    return 0;
}

/* ---- users and groups ------------------------------------------------------------ */

/* The field of a colon-separated line; length in *len. */
static const char *field(const char *line, unsigned n, size_t *len)
{
    for (; n != 0; n--) {
        line += strcspn(line, ":\n");
        if (*line != ':') return NULL;
        line++;
    }
    *len = strcspn(line, ":\n");
    return line;
}

/* The third field of the line whose first is `name`, and the line; false when there is none. */
static bool lookup(const char *text, const char *name, size_t name_len, uint32_t *id, const char **found)
{
    size_t len = 0;
    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *first = field(line, 0, &len);
        if (len == name_len && memcmp(first, name, len) == 0) {
            const char *number = field(line, 2, &len);
            if (number == NULL || *number < '0' || *number > '9') return false;
            *id = (uint32_t)strtoul(number, NULL, 10);
            if (found != NULL) *found = line;
            return true;
        }
        line = strchr(line, '\n');
        if (line != NULL) line++;
    }
    return false;
}

static bool number_in(const char *text, uint32_t *id)
{
    char *end;
    if (*text < '0' || *text > '9') return false;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    *id = (uint32_t)n;
    return *end == '\0' && errno == 0 && n < UINT32_MAX;
}

/* One more element at the end of an array; NULL: no memory. */
static void *append(void **array, size_t *n, size_t size)
{
    void *more = reallocarray(*array, *n + 1, size);
    if (more == NULL) return NULL;
    *array = more;
    void *at = (uint8_t *)more + *n * size;
    memset(at, 0, size);
    (*n)++;
    return at;
}

static int add_in_group(struct parser *p, uid_t uid, gid_t gid)
{
    struct rs_policy *policy = p->policy;
    struct rs_in_group *g = append((void **)&policy->in_groups, &policy->nin_groups, sizeof(*g));
    if (g == NULL) return no_memory(p);
    *g = (struct rs_in_group){.uid = uid, .gid = gid};
    return 0;
}

/* Who is in a group by group(5); the file knows no more. */
static int add_group_users(struct parser *p, const char *line, gid_t gid)
{
    size_t len = 0;
    const char *users = field(line, 3, &len);
    for (const char *end = users != NULL ? users + len : NULL; users != NULL && users < end;) {
        size_t n = strcspn(users, ",:\n");
        uint32_t uid;
        if (n != 0 && lookup(p->names->passwd, users, n, &uid, NULL)) {
            int r = add_in_group(p, uid, gid);
            if (r != 0) return r;
        }
        users += n + 1;
    }
    return 0;
}

/* The primary group of a user, which group(5) does not list. */
static int add_primary_group(struct parser *p, uid_t uid)
{
    size_t len = 0;
    for (const char *line = p->names->passwd; line != NULL && *line != '\0';) {
        const char *user = field(line, 2, &len), *group = field(line, 3, &len);
        if (user != NULL && group != NULL && *user >= '0' && *user <= '9' && strtoul(user, NULL, 10) == uid)
            return add_in_group(p, uid, (gid_t)strtoul(group, NULL, 10));
        line = strchr(line, '\n');
        if (line != NULL) line++;
    }
    return 0;
}

static int find_user(struct parser *p, const char *name, struct rs_subject *who)
{
    who->kind = RS_SUBJECT_USER;
    if (number_in(name, &who->id) || lookup(p->names->passwd, name, strlen(name), &who->id, NULL))
        return add_primary_group(p, who->id);
    return fail(p, name, "no local user \"%s\": add it to /etc/passwd, or give its number", name);
}

static int find_group(struct parser *p, const char *name, struct rs_subject *who)
{
    const char *line = NULL;
    who->kind = RS_SUBJECT_GROUP;
    if (number_in(name, &who->id)) return 0;
    if (lookup(p->names->group, name, strlen(name), &who->id, &line))
        return add_group_users(p, line, who->id);
    return fail(p, name, "no local group \"%s\": add it to /etc/group, or give its number", name);
}

static int find_tenant(struct parser *p, const char *name, struct rs_subject *who)
{
    who->kind = RS_SUBJECT_TENANT;
    for (size_t i = 0; i < p->policy->ntenants; i++) {
        if (strcmp(p->policy->tenants[i].name, name) != 0) continue;
        who->id = (uint32_t)i;
        return 0;
    }
    return fail(p, name, "no tenant \"%s\": add it under \"tenants\"", name);
}

/* "user:NAME", "group:NAME", "tenant:NAME" or "*"; the text is kept. */
static int subject(struct parser *p, const char *member, json_t *value, struct rs_subject *who)
{
    const char *text = json_string_value(value);
    if (text == NULL)
        return fail(p, member, "\"%s\" must be \"user:...\", \"group:...\", \"tenant:...\" or \"*\"", member);
    who->name = strdup(text);
    if (who->name == NULL) return no_memory(p);
    if (strcmp(text, "*") == 0) {
        who->kind = RS_SUBJECT_ANY;
        return 0;
    }
    if (strncmp(text, "user:", 5) == 0) return find_user(p, text + 5, who);
    if (strncmp(text, "group:", 6) == 0) return find_group(p, text + 6, who);
    if (strncmp(text, "tenant:", 7) == 0) return find_tenant(p, text + 7, who);
    return fail(p, text, "\"%s\" is nobody: write \"user:NAME\", \"group:NAME\", \"tenant:NAME\" or \"*\"",
                text);
}

/* ---- tenants --------------------------------------------------------------------- */

static int read_digest_key(struct parser *p, const char *file, struct rs_tenant *t)
{
    struct stat st;
    if (p->folder < 0 || strchr(file, '/') != NULL)
        return fail(p, file, "digest-key-file \"%s\": name a file in the policy's folder, without a path",
                    file);
    RS_CLOSE int fd = openat(p->folder, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0)
        return fail(p, file, "digest-key-file \"%s\": %s", file, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size != 32 || (st.st_mode & 077) != 0)
        return fail(p, file, "digest-key-file \"%s\": it must have 32 bytes and mode 0600", file);
    t->digest_key = rs_keymem_alloc(32);
    if (t->digest_key == NULL) return no_memory(p);
    if (rs_read_full(fd, t->digest_key, 32) != 0)
        return fail(p, file, "digest-key-file \"%s\": cannot be read", file);
    return 0;
}

static int whole_number(struct parser *p, json_t *object, const char *member, json_int_t least,
                        json_int_t most, uint32_t *out)
{
    json_t *value = json_object_get(object, member);
    if (value == NULL) return 0;
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < least || n > most)
        return fail(p, member, "\"%s\" must be a whole number from %lld to %lld", member, (long long)least,
                    (long long)most);
    *out = (uint32_t)n;
    return 0;
}

static int tenant_members(struct parser *p, json_t *object, const char *member, bool users, uint32_t tenant)
{
    json_t *list = json_object_get(object, member), *value;
    size_t i;
    if (list == NULL) return 0;
    if (!json_is_array(list)) return fail(p, member, "\"%s\" must be a list [...]", member);
    json_array_foreach(list, i, value)
    {
        char number[24];
        const char *name = json_string_value(value);
        if (json_is_integer(value)) {
            (void)snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
            name = number;
        }
        if (name == NULL) return fail(p, member, "\"%s\" must hold names or numbers", member);
        struct rs_member *m = append((void **)&p->policy->members, &p->policy->nmembers, sizeof(*m));
        if (m == NULL || (m->who.name = strdup(name)) == NULL) return no_memory(p);
        m->tenant = tenant;
        int r = users ? find_user(p, name, &m->who) : find_group(p, name, &m->who);
        if (r != 0) return r;
    }
    return 0;
}

/* ---- pairs and privileges ---------------------------------------------------------- */

/* A list of known words as bits. */
static int words(struct parser *p, const char *member, json_t *list, const char *const *known, size_t n,
                 unsigned *bits)
{
    size_t i, k;
    json_t *value;
    if (!json_is_array(list)) return fail(p, member, "\"%s\" must be a list [...]", member);
    json_array_foreach(list, i, value)
    {
        const char *word = json_string_value(value);
        for (k = 0; word != NULL && k < n && strcmp(known[k], word) != 0; k++) continue;
        if (word == NULL) return fail(p, member, "\"%s\" must hold words", member);
        if (k == n)
            return fail(p, word, "\"%s\" is not one of the known %s: see reseal-policy(5)", word, member);
        *bits |= 1u << k;
    }
    return 0;
}

static bool pattern_ok(const char *text)
{
    static const char *const prefixes[] = {"luks:", "raw:", "random:", "provider:", "*"};
    size_t len = strlen(text);
    if (strcmp(text, "plain") == 0) return true;
    if (len == 0 || len > 200) return false;
    for (const char *c = text; *c != '\0'; c++)
        if (*c <= ' ' || *c > '~') return false;
    for (unsigned i = 0; i < RS_ARRAY_LEN(prefixes); i++)
        if (strncmp(text, prefixes[i], strlen(prefixes[i])) == 0) return true;
    return false;
}

static int pattern(struct parser *p, json_t *object, const char *member, char **out)
{
    const char *text = json_string_value(json_object_get(object, member));
    if (text == NULL) return fail(p, member, "a pair needs \"%s\": a key's name or pattern", member);
    if (!pattern_ok(text))
        return fail(p, text,
                    "\"%s\" names no key: write plain, luks:UUID, raw:NAME, random:NAME or provider:NAME, "
                    "with * as wildcard",
                    text);
    *out = strdup(text);
    return *out != NULL ? 0 : no_memory(p);
}

static int one_pair(struct parser *p, json_t *value)
{
    static const char *const known[] = {"for", "from", "to", "grants", NULL};
    int r = members_known(p, "pairs", value, known);
    if (r != 0) return r;
    struct rs_pair *pair = append((void **)&p->policy->pairs, &p->policy->npairs, sizeof(*pair));
    if (pair == NULL) return no_memory(p);
    json_t *grants = json_object_get(value, "grants");
    r = subject(p, "for", json_object_get(value, "for"), &pair->who);
    if (r == 0) r = pattern(p, value, "from", &pair->from);
    if (r == 0) r = pattern(p, value, "to", &pair->to);
    if (r == 0 && grants != NULL) r = words(p, "grants", grants, rs_grant_names, 5, &pair->grants);
    return r;
}

/* The privileges of a role: the file's own, else one that every policy knows. */
static int role(struct parser *p, const char *name, unsigned *bits)
{
    json_t *own = json_object_get(p->roles, name);
    if (own != NULL) return words(p, name, own, rs_privilege_names, RS_PRIVILEGES, bits);
    for (const struct rs_role *r = rs_roles; r->name != NULL; r++) {
        if (strcmp(r->name, name) != 0) continue;
        *bits |= r->privileges;
        return 0;
    }
    return fail(
        p, name,
        "no role \"%s\": add it under \"roles\", or see 'reseal policy show' for those that are known", name);
}

static int add_roles(struct parser *p, json_t *list, struct rs_allow *allow)
{
    size_t i;
    json_t *value;
    if (!json_is_array(list)) return fail(p, "roles", "\"roles\" must be a list of names");
    json_array_foreach(list, i, value)
    {
        const char *name = json_string_value(value);
        if (name == NULL) return fail(p, "roles", "\"roles\" must be a list of names");
        int r = role(p, name, &allow->privileges);
        if (r != 0) return r;
        char *before = allow->roles;
        int n =
            asprintf(&allow->roles, "%s%s%s", before != NULL ? before : "", before != NULL ? "," : "", name);
        free(before);
        if (n < 0) {
            allow->roles = NULL;
            return no_memory(p);
        }
    }
    return 0;
}

/* Every role of the file, also one that nobody has, must name privileges. */
static int parse_roles(struct parser *p, json_t *roles)
{
    const char *name;
    json_t *value;
    if (roles == NULL) return 0;
    if (!json_is_object(roles)) return fail(p, "roles", "\"roles\" must be an object of lists of privileges");
    json_object_foreach(roles, name, value)
    {
        unsigned bits = 0;
        for (const struct rs_role *r = rs_roles; r->name != NULL; r++)
            if (strcmp(r->name, name) == 0)
                return fail(p, name, "the role \"%s\" is known already: name yours otherwise", name);
        int r = words(p, name, value, rs_privilege_names, RS_PRIVILEGES, &bits);
        if (r != 0) return r;
    }
    p->roles = roles;
    return 0;
}

static int one_administrator(struct parser *p, json_t *value)
{
    struct rs_policy *policy = p->policy;
    struct rs_subject *who = append((void **)&policy->administrators, &policy->nadministrators, sizeof(*who));
    if (who == NULL) return no_memory(p);
    int r = subject(p, "administrators", value, who);
    if (r != 0) return r;
    if (who->kind == RS_SUBJECT_USER || who->kind == RS_SUBJECT_GROUP) return 0;
    return fail(p, who->name, "an administrator is a \"user:NAME\" or a \"group:NAME\"");
}

static int one_allow(struct parser *p, json_t *value)
{
    static const char *const known[] = {"to", "allow", "roles", NULL};
    int r = members_known(p, "privileges", value, known);
    if (r != 0) return r;
    struct rs_allow *allow = append((void **)&p->policy->allows, &p->policy->nallows, sizeof(*allow));
    if (allow == NULL) return no_memory(p);
    r = subject(p, "to", json_object_get(value, "to"), &allow->who);
    if (r != 0) return r;
    json_t *roles = json_object_get(value, "roles"), *words_of = json_object_get(value, "allow");
    if (roles != NULL) r = add_roles(p, roles, allow);
    if (r != 0 || (words_of == NULL && roles != NULL)) return r;
    return words(p, "allow", words_of, rs_privilege_names, RS_PRIVILEGES, &allow->privileges);
}

/* ---- a tenant as a whole ------------------------------------------------------------ */

/* Privileges and pairs that stand with the tenant itself. */
static int tenant_rights(struct parser *p, const char *name, json_t *value)
{
    char who[80];
    size_t i;
    json_t *pair, *pairs = json_object_get(value, "pairs");
    (void)snprintf(who, sizeof(who), "tenant:%s", name);
    if (json_object_get(value, "allow") != NULL || json_object_get(value, "roles") != NULL) {
        json_t *rule = json_pack("{s:s, s:O*, s:O*}", "to", who, "allow", json_object_get(value, "allow"),
                                 "roles", json_object_get(value, "roles"));
        int r = rule != NULL ? one_allow(p, rule) : no_memory(p);
        json_decref(rule);
        if (r != 0) return r;
    }
    if (pairs == NULL) return 0;
    if (!json_is_array(pairs)) return fail(p, "pairs", "\"pairs\" must be a list [...]");
    json_array_foreach(pairs, i, pair)
    {
        json_t *rule = json_is_object(pair) ? json_copy(pair) : NULL;
        if (rule == NULL || json_object_get(rule, "for") != NULL) {
            json_decref(rule);
            return fail(p, name, "a pair of tenant \"%s\" is an object without \"for\"", name);
        }
        (void)json_object_set_new(rule, "for", json_string(who));
        int r = one_pair(p, rule);
        json_decref(rule);
        if (r != 0) return r;
    }
    return 0;
}

static int one_tenant(struct parser *p, const char *name, json_t *value)
{
    static const char *const known[] = {"users",     "groups",          "weight", "max-keys", "max-sessions",
                                        "suspended", "digest-key-file", "allow",  "roles",    "pairs",
                                        NULL};
    int r = members_known(p, name, value, known);
    if (r != 0) return r;
    struct rs_tenant *t = append((void **)&p->policy->tenants, &p->policy->ntenants, sizeof(*t));
    uint32_t index = (uint32_t)p->policy->ntenants - 1;
    if (t == NULL) return no_memory(p);
    t->weight = 100;
    t->max_keys = 1024;
    if (strlen(name) == 0 || strlen(name) >= sizeof(t->name))
        return fail(p, name, "a tenant's name has 1 to %zu bytes", sizeof(t->name) - 1);
    memcpy(t->name, name, strlen(name));
    for (size_t i = 0; i < index; i++)
        if (strcmp(p->policy->tenants[i].name, name) == 0)
            return fail(p, name, "there are two tenants \"%s\"", name);
    json_t *suspended = json_object_get(value, "suspended");
    if (suspended != NULL && !json_is_boolean(suspended))
        return fail(p, "suspended", "\"suspended\" must be true or false");
    t->suspended = json_is_true(suspended);
    r = whole_number(p, value, "weight", 1, 1000, &t->weight);
    if (r == 0) r = whole_number(p, value, "max-keys", 1, 16384, &t->max_keys);
    if (r == 0) r = whole_number(p, value, "max-sessions", 1, 65536, &t->max_sessions);
    json_t *digest = json_object_get(value, "digest-key-file");
    if (r == 0 && digest != NULL) {
        const char *file = json_string_value(digest);
        r = file != NULL ? read_digest_key(p, file, t)
                         : fail(p, "digest-key-file", "\"digest-key-file\" must be text");
    }
    if (r == 0) r = tenant_members(p, value, "users", true, index);
    if (r == 0) r = tenant_members(p, value, "groups", false, index);
    return r != 0 ? r : tenant_rights(p, name, value);
}

static int parse_tenants(struct parser *p, json_t *tenants)
{
    const char *name;
    json_t *value;
    int r = 0;
    if (!json_is_object(tenants) || json_object_size(tenants) == 0)
        return fail(p, "tenants", "\"tenants\" must be an object with at least one tenant");
    if (json_object_size(tenants) > RULES_MAX) return fail(p, "tenants", "more than %u tenants", RULES_MAX);
    json_object_foreach(tenants, name, value)
    {
        r = one_tenant(p, name, value);
        if (r != 0) break;
    }
    return r;
}

static int each(struct parser *p, json_t *root, const char *member, int (*one)(struct parser *, json_t *))
{
    json_t *list = json_object_get(root, member), *value;
    size_t i;
    if (list == NULL) return 0;
    if (!json_is_array(list)) return fail(p, member, "\"%s\" must be a list [...]", member);
    if (json_array_size(list) > RULES_MAX)
        return fail(p, member, "more than %u entries in \"%s\"", RULES_MAX, member);
    json_array_foreach(list, i, value)
    {
        int r = one(p, value);
        if (r != 0) return r;
    }
    return 0;
}

static int parse_root(struct parser *p, json_t *root)
{
    static const char *const known[] = {"version",    "tenants", "roles", "administrators",
                                        "privileges", "pairs",   NULL};
    int r = members_known(p, "the policy", root, known);
    if (r != 0) return r;
    if (json_integer_value(json_object_get(root, "version")) != 1)
        return fail(p, "version", "\"version\" must be 1: this program knows no other");
    r = parse_roles(p, json_object_get(root, "roles"));
    if (r == 0) r = parse_tenants(p, json_object_get(root, "tenants"));
    if (r == 0) r = each(p, root, "administrators", one_administrator);
    if (r == 0) r = each(p, root, "privileges", one_allow);
    if (r == 0) r = each(p, root, "pairs", one_pair);
    return r;
}

int rs_policy_parse(const char *text, size_t len, const struct rs_names *names, int folder_fd,
                    struct rs_policy **out, char *why, size_t why_len)
{
    json_error_t error;
    struct parser p = {.names = names, .folder = folder_fd, .why = why, .why_len = why_len};
    *out = NULL;
    if (memchr(text, '\0', len) != NULL) {
        (void)snprintf(why, why_len, "the file has a zero byte: it must be JSON text");
        return RESEAL_EINVAL;
    }
    RS_FREE char *copy = strndup(text, len);
    p.text = copy;
    p.policy = calloc(1, sizeof(*p.policy));
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    int r = 0;
    if (copy == NULL || p.policy == NULL)
        r = no_memory(&p);
    else if (root == NULL) {
        (void)snprintf(why, why_len, "line %d: not JSON: %s", error.line, error.text);
        r = RESEAL_EINVAL;
    }
    if (r == 0) r = parse_root(&p, root);
    json_decref(root);
    if (r == 0) {
        *out = p.policy;
        return 0;
    }
    rs_policy_free(p.policy);
    /* It may quote the file: one line, and nothing for a terminal to obey. */
    for (char *c = why; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
    return r;
}

/* ---- tenants that were added while the service ran ---------------------------------------- */

static void free_subject(struct rs_subject *who)
{
    free(who->name);
    who->name = NULL;
}

/* What one_tenant() added before it failed. */
static void take_back(struct rs_policy *policy, const struct rs_policy *before)
{
    while (policy->ntenants > before->ntenants)
        rs_keymem_free(policy->tenants[--policy->ntenants].digest_key);
    while (policy->nmembers > before->nmembers) free_subject(&policy->members[--policy->nmembers].who);
    while (policy->nallows > before->nallows) {
        struct rs_allow *allow = &policy->allows[--policy->nallows];
        free_subject(&allow->who);
        free(allow->roles);
    }
    while (policy->npairs > before->npairs) {
        struct rs_pair *pair = &policy->pairs[--policy->npairs];
        free_subject(&pair->who);
        free(pair->from);
        free(pair->to);
    }
}

int rs_policy_add_tenant(struct rs_policy *policy, const struct rs_names *names, const char *name,
                         const json_t *value, char *why, size_t why_len)
{
    const struct rs_policy before = *policy;
    struct parser p = {
        .text = "", .names = names, .folder = -1, .policy = policy, .why = why, .why_len = why_len};
    int r = one_tenant(&p, name, (json_t *)(uintptr_t)value);
    if (r != 0)
        take_back(policy, &before);
    else
        policy->tenants[policy->ntenants - 1].run_time = true;
    for (char *c = why; r != 0 && *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
    return r;
}
