/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/secrets.h"

#include "offload/base/keymem.h"
#include "reseal/reseal.h"

/* Packed: for each secret one byte length of the name, the name, four bytes length, the bytes. */
#define LENGTHS (1u + 4u)

static struct rs_secret *find(struct rs_secrets *s, const char *name, size_t len)
{
    for (unsigned i = 0; i < s->n; i++)
        if (strlen(s->at[i].name) == len && memcmp(s->at[i].name, name, len) == 0) return &s->at[i];
    return NULL;
}

static int put(struct rs_secrets *s, const char *name, size_t name_len, const void *bytes, size_t len)
{
    if (name_len == 0 || name_len >= RS_SECRET_NAME_MAX) return RESEAL_EINVAL;
    if (len > RS_SECRETS_ROOM) return RESEAL_ELIMIT;
    struct rs_secret *at = find(s, name, name_len);
    if (at == NULL && s->n == RS_SECRETS_MAX) return RESEAL_ELIMIT;
    uint8_t *copy = rs_keymem_alloc(len + 1);
    if (copy == NULL) return RESEAL_ENOMEM;
    if (len != 0) memcpy(copy, bytes, len);
    if (at == NULL) {
        at = &s->at[s->n++];
        *at = (struct rs_secret){0};
        memcpy(at->name, name, name_len);
    }
    rs_keymem_free(at->bytes);
    at->bytes = copy;
    at->len = len;
    return 0;
}

int rs_secrets_put(struct rs_secrets *s, const char *name, const void *bytes, size_t len)
{
    return put(s, name, strnlen(name, RS_SECRET_NAME_MAX), bytes, len);
}

const struct rs_secret *rs_secrets_find(const struct rs_secrets *s, const char *name)
{
    for (unsigned i = 0; i < s->n; i++)
        if (strcmp(s->at[i].name, name) == 0) return &s->at[i];
    return NULL;
}

const char *rs_secrets_text(const struct rs_secrets *s, const char *name)
{
    const struct rs_secret *found = rs_secrets_find(s, name);
    if (found == NULL || memchr(found->bytes, '\0', found->len) != NULL) return NULL;
    return (const char *)found->bytes;
}

int rs_secrets_copy(struct rs_secrets *to, const struct rs_secrets *from)
{
    *to = (struct rs_secrets){0};
    for (unsigned i = 0; i < from->n; i++) {
        int r = rs_secrets_put(to, from->at[i].name, from->at[i].bytes, from->at[i].len);
        if (r == 0) continue;
        rs_secrets_free(to);
        return r;
    }
    return 0;
}

void rs_secrets_free(struct rs_secrets *s)
{
    for (unsigned i = 0; i < s->n; i++) rs_keymem_free(s->at[i].bytes);
    *s = (struct rs_secrets){0};
}

uint8_t *rs_secrets_pack(const struct rs_secrets *s, size_t *len)
{
    size_t need = 0;
    for (unsigned i = 0; i < s->n; i++) need += LENGTHS + strlen(s->at[i].name) + s->at[i].len;
    uint8_t *bytes = need <= RS_SECRETS_ROOM ? rs_keymem_alloc(need) : NULL;
    if (bytes == NULL) return NULL;
    uint8_t *at = bytes;
    for (unsigned i = 0; i < s->n; i++) {
        const struct rs_secret *one = &s->at[i];
        size_t name = strlen(one->name);
        *at++ = (uint8_t)name;
        memcpy(at, one->name, name);
        rs_store_be32(at + name, (uint32_t)one->len);
        at += name + 4;
        memcpy(at, one->bytes, one->len);
        at += one->len;
    }
    *len = need;
    return bytes;
}

/* The secret at the start of `bytes`; how many bytes it took, or RESEAL_E.... */
static int64_t unpack_one(const uint8_t *bytes, size_t len, struct rs_secrets *out)
{
    size_t name = bytes[0];
    if (name == 0 || name >= RS_SECRET_NAME_MAX || len < LENGTHS + name) return RESEAL_EFORMAT;
    const char *text = (const char *)bytes + 1;
    size_t room = len - LENGTHS - name, n = rs_load_be32(bytes + 1 + name);
    if (n > room || memchr(text, '\0', name) != NULL || find(out, text, name) != NULL) return RESEAL_EFORMAT;
    int r = put(out, text, name, bytes + LENGTHS + name, n);
    return r == RESEAL_ELIMIT ? RESEAL_EFORMAT : r != 0 ? r : (int64_t)(LENGTHS + name + n);
}

int rs_secrets_unpack(const uint8_t *bytes, size_t len, struct rs_secrets *out)
{
    *out = (struct rs_secrets){0};
    for (size_t at = 0; at < len;) {
        int64_t took = unpack_one(bytes + at, len - at, out);
        if (took < 0) {
            rs_secrets_free(out);
            return (int)took;
        }
        at += (size_t)took;
    }
    return 0;
}
