/* SPDX-License-Identifier: Apache-2.0 */
/* The host key and what is sealed under it. */
#include "providers/key/store-internal.h"

#include "offload/base/keymem.h"
#include "providers/crypto/derive.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/rand.h>

#define KEY_FILE  "host.key"
#define KEPT_FILE "host.key.json"
/* Sealed with the host key when that was made: whether the one that is there now is the same. */
#define CHECK "host.key.check"

/* A sealed object: magic, salt, tag, ciphertext. Key and IV come of the salt, and serve once. */
#define MAGIC     "RSSEAL1\n"
#define MAGIC_LEN 8u
#define SALT_LEN  32u
#define TAG_LEN   16u
#define HEAD_LEN  (MAGIC_LEN + SALT_LEN + TAG_LEN)
#define KEY_LEN   32u
#define IV_LEN    12u

/* ---- the host key ------------------------------------------------------------------- */

/* From the file; RESEAL_ENOKEY: there is none. */
static int read_key_file(struct rs_store *s, const char *folder, char *why, size_t why_len)
{
    struct stat st;
    RS_CLOSE int fd = openat(s->folder, KEY_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return RESEAL_ENOKEY;
    bool ok = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == RS_HOST_KEY_LEN;
    if (ok && (st.st_mode & 077) != 0)
        return rs_store_fail(why, why_len, RESEAL_EPERM,
                             "%s/" KEY_FILE
                             ": others can read it: whatever it sealed may be known; chmod 600 "
                             "it if you are sure that it is not",
                             folder);
    if (ok && rs_pread_full(fd, s->host_key, RS_HOST_KEY_LEN, 0) == 0) return 0;
    return rs_store_fail(why, why_len, RESEAL_EFORMAT,
                         "%s/" KEY_FILE ": is not %u bytes: restore it from your backup of the folder",
                         folder, RS_HOST_KEY_LEN);
}

/* From what the keeper sealed; RESEAL_ENOKEY: there is none. */
static int read_kept(struct rs_store *s, const char *folder, const struct rs_store_keeper *keeper, char *why,
                     size_t why_len)
{
    json_t *kept;
    int r = rs_store_get_json(s, KEPT_FILE, &kept);
    if (r == RESEAL_ENOKEY) return r;
    if (r != 0)
        return rs_store_fail(why, why_len, r, "%s/" KEPT_FILE ": cannot be read: restore it from your backup",
                             folder);
    const char *name = json_string_value(json_object_get(kept, "keeper"));
    if (name == NULL || keeper == NULL || strcmp(name, keeper->name) != 0)
        r = rs_store_fail(why, why_len, RESEAL_ENOSUPPORT,
                          "%s/" KEPT_FILE
                          ": is sealed by '%.32s', which is not there: start it on the machine "
                          "that sealed it",
                          folder, name != NULL ? name : "nothing");
    else
        r = keeper->unseal(keeper->arg, json_object_get(kept, "sealed"), s->host_key, why, why_len);
    if (r == 0) s->seal = keeper->name;
    json_decref(kept);
    return r;
}

/* Has a keeper seal the new key. RESEAL_ENOSUPPORT: it cannot on this machine. */
static int keep(struct rs_store *s, const struct rs_store_keeper *keeper, char *why, size_t why_len)
{
    json_t *sealed = NULL;
    if (keeper == NULL) return RESEAL_ENOSUPPORT;
    int r = keeper->seal(keeper->arg, s->host_key, &sealed, why, why_len);
    if (r != 0) return r;
    json_t *kept = json_pack("{s:s, s:o}", "keeper", keeper->name, "sealed", sealed);
    r = kept != NULL ? rs_store_put_json(s, KEPT_FILE, kept) : RESEAL_ENOMEM;
    json_decref(kept);
    if (r == 0) s->seal = keeper->name;
    return r != 0 ? rs_store_fail(why, why_len, r, "the sealed host key cannot be written") : 0;
}

static int make_key(struct rs_store *s, const char *folder, const struct rs_store_keeper *keeper, char *why,
                    size_t why_len)
{
    if (RAND_priv_bytes(s->host_key, RS_HOST_KEY_LEN) != 1)
        return rs_store_fail(why, why_len, RESEAL_EIO, "no random numbers for a host key");
    int r = keep(s, keeper, why, why_len);
    if (r != RESEAL_ENOSUPPORT) return r;
    r = rs_store_write(s, KEY_FILE, s->host_key, RS_HOST_KEY_LEN);
    return r != 0 ? rs_store_fail(why, why_len, r, "%s/" KEY_FILE ": cannot be written", folder) : 0;
}

/* A new one would leave everything that is sealed in the folder closed for ever, and not say so. */
static int check_missing(const struct rs_store *s, const char *folder, char *why, size_t why_len)
{
    if (faccessat(s->folder, CHECK, F_OK, AT_SYMLINK_NOFOLLOW) != 0) return 0;
    return rs_store_fail(
        why, why_len, RESEAL_ENOKEY,
        "%s: the host key (" KEY_FILE ", or " KEPT_FILE " where a TPM seals it) is missing, and "
        "what is sealed with it cannot be opened: put it back from your backup, or begin with an "
        "empty folder and add providers and hosts again",
        folder);
}

/* After the key was made: a crash in between leaves a folder without a check, which does no harm. */
static int make_check(struct rs_store *s, const char *folder, char *why, size_t why_len)
{
    struct rs_secrets sealed = {0};
    int r = rs_secrets_put(&sealed, "check", "check", 5);
    if (r == 0) r = rs_store_put_secrets(s, CHECK, &sealed);
    rs_secrets_free(&sealed);
    return r != 0 ? rs_store_fail(why, why_len, r, "%s/" CHECK ": cannot be written", folder) : 0;
}

static int check_key(struct rs_store *s, const char *folder, char *why, size_t why_len)
{
    struct rs_secrets sealed = {0};
    int r = rs_store_get_secrets(s, CHECK, &sealed);
    rs_secrets_free(&sealed);
    if (r == 0 || r == RESEAL_ENOKEY) return 0;
    return rs_store_fail(
        why, why_len, r,
        "%s: the host key is not the one that this folder was sealed with (" CHECK
        " does not open): put the right " KEY_FILE " or " KEPT_FILE
        " back from your backup, or begin with an empty folder and add providers and hosts again",
        folder);
}

int rs_store_take_host_key(struct rs_store *s, const char *folder, const struct rs_store_keeper *keeper,
                           char *why, size_t why_len)
{
    s->seal = "file";
    s->host_key = rs_keymem_alloc(RS_HOST_KEY_LEN);
    if (s->host_key == NULL) return rs_store_fail(why, why_len, RESEAL_ENOMEM, "key memory is full");
    int r = read_kept(s, folder, keeper, why, why_len);
    if (r == RESEAL_ENOKEY) r = read_key_file(s, folder, why, why_len);
    if (r == RESEAL_ENOKEY) {
        r = check_missing(s, folder, why, why_len);
        if (r == 0) r = make_key(s, folder, keeper, why, why_len);
        return r == 0 ? make_check(s, folder, why, why_len) : r;
    }
    return r == 0 ? check_key(s, folder, why, why_len) : r;
}

void rs_store_drop_host_key(struct rs_store *s)
{
    rs_keymem_free(s->host_key);
    s->host_key = NULL;
}

/* ---- sealing ------------------------------------------------------------------------- */

/* AES-256-GCM of `len` bytes with the object's name as AAD; in and out may be the same. */
static int seal_or_open(const struct rs_store *s, const char *name, bool seal, const uint8_t *salt,
                        uint8_t *tag, const uint8_t *in, uint8_t *out, size_t len)
{
    int n = 0, r = RESEAL_ENOMEM;
    RS_KEYMEM uint8_t *key = rs_keymem_alloc(KEY_LEN + IV_LEN);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    if (key != NULL && ctx != NULL)
        r = rs_hkdf(s->host_key, RS_HOST_KEY_LEN, salt, SALT_LEN, "reseal store v1", key, KEY_LEN + IV_LEN);
    bool ok = r == 0 &&
              EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, key + KEY_LEN, seal ? 1 : 0) == 1 &&
              EVP_CipherUpdate(ctx, NULL, &n, (const uint8_t *)name, (int)strlen(name)) == 1 &&
              EVP_CipherUpdate(ctx, out, &n, in, (int)len) == 1;
    if (r == 0 && !ok) r = RESEAL_ENOMEM;
    if (r == 0 && !seal && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_LEN, tag) != 1)
        r = RESEAL_ENOMEM;
    if (r == 0 && EVP_CipherFinal_ex(ctx, out + len, &n) != 1) r = seal ? RESEAL_ENOMEM : RESEAL_EAUTH;
    if (r == 0 && seal && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, tag) != 1)
        r = RESEAL_ENOMEM;
    EVP_CIPHER_CTX_free(ctx);
    return r;
}

int rs_store_put_secrets(struct rs_store *s, const char *name, const struct rs_secrets *secrets)
{
    size_t len;
    RS_KEYMEM uint8_t *packed = rs_secrets_pack(secrets, &len);
    RS_FREE uint8_t *file = packed != NULL ? malloc(HEAD_LEN + len) : NULL;
    if (file == NULL) return RESEAL_ENOMEM;
    uint8_t *salt = file + MAGIC_LEN, *tag = salt + SALT_LEN;
    memcpy(file, MAGIC, MAGIC_LEN);
    if (RAND_bytes(salt, SALT_LEN) != 1) return RESEAL_EIO;
    int r = seal_or_open(s, name, true, salt, tag, packed, file + HEAD_LEN, len);
    return r != 0 ? r : rs_store_write(s, name, file, HEAD_LEN + len);
}

int rs_store_get_secrets(struct rs_store *s, const char *name, struct rs_secrets *out)
{
    RS_FREE uint8_t *file = NULL;
    size_t len;
    int r = rs_store_read(s, name, &file, &len);
    if (r != 0) return r;
    if (len < HEAD_LEN || len - HEAD_LEN > RS_SECRETS_ROOM || memcmp(file, MAGIC, MAGIC_LEN) != 0)
        return RESEAL_EFORMAT;
    len -= HEAD_LEN;
    RS_KEYMEM uint8_t *packed = rs_keymem_alloc(len);
    if (packed == NULL) return RESEAL_ENOMEM;
    uint8_t *salt = file + MAGIC_LEN, *tag = salt + SALT_LEN;
    r = seal_or_open(s, name, false, salt, tag, file + HEAD_LEN, packed, len);
    return r != 0 ? r : rs_secrets_unpack(packed, len, out);
}
