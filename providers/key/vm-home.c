/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/vm-home.h"

#include "offload/base/keymem.h"
#include "offload/vm/locator.h"
#include "reseal/reseal.h"

#include <openssl/rand.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define MAC_NAME   "HMAC-SHA-256"
#define ROUNDS     600000u /* of PBKDF2-HMAC-SHA-256: some tenths of a second; readers take any number */
#define LOCKED_MAX 4096u   /* bytes locked in a pair: a dictionary of a few keys */

__attribute__((format(printf, 4, 5))) static int refuse(char *why, size_t why_len, int err,
                                                        const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why, why_len, format, args);
    va_end(args);
    return err;
}

/* ---- the lock: which key a text waits for ------------------------------------------- */

static bool locked_by(const struct rs_locator *pair, enum rs_home_locker locker)
{
    const struct rs_locator *by = pair->child;
    if (pair->type != RS_LOCATOR_PAIR || by == NULL || pair->fields[RS_PAIR_MAC] == NULL ||
        pair->fields[RS_PAIR_DATA] == NULL)
        return false;
    if (locker == RS_HOME_BY_PHRASE)
        return by->type == RS_LOCATOR_PHRASE && by->fields[RS_PHRASE_DICTIONARY] != NULL;
    return by->type == RS_LOCATOR_FQID && by->fields[RS_FQID_PROVIDER] != NULL &&
           by->fields[RS_FQID_KEY] != NULL;
}

static const struct rs_locator *find_pair(const struct rs_locator *l, enum rs_home_locker locker)
{
    if (l->type != RS_LOCATOR_LIST) return locked_by(l, locker) ? l : NULL;
    for (const struct rs_locator *p = l->child; p != NULL; p = p->next)
        if (locked_by(p, locker)) return p;
    return NULL;
}

static json_t *lock_of(const struct rs_locator *pair, enum rs_home_locker locker)
{
    const struct rs_locator *by = pair->child;
    const char *mac = pair->fields[RS_PAIR_MAC], *data = pair->fields[RS_PAIR_DATA];
    if (locker == RS_HOME_BY_PHRASE)
        return json_pack("{ss ss ss}", "mac", mac, "data", data, "dictionary",
                         by->fields[RS_PHRASE_DICTIONARY]);
    return json_pack("{ss ss ss ss}", "mac", mac, "data", data, "provider", by->fields[RS_FQID_PROVIDER],
                     "key", by->fields[RS_FQID_KEY]);
}

int rs_home_lock(const char *text, enum rs_home_locker locker, json_t **out, char *why, size_t why_len)
{
    struct rs_locator *l;
    enum rs_locked_mac mac;
    size_t len = strlen(text);
    *out = NULL;
    if (len > RS_HOME_TEXT_MAX)
        return refuse(why, why_len, RESEAL_EFORMAT, "the key safe or bundle is longer than 64 KiB");
    int r = rs_locator_parse(text, len, &l, why, why_len);
    if (r != 0) return r;
    const struct rs_locator *pair = find_pair(l, locker);
    if (pair == NULL)
        r = refuse(why, why_len, RESEAL_ENOKEY,
                   locker == RS_HOME_BY_PHRASE ? "it is not locked with a pass phrase"
                                               : "it is not locked with a key of a key provider");
    else if (rs_locked_mac_by_name(pair->fields[RS_PAIR_MAC], &mac) != 0)
        r = refuse(why, why_len, RESEAL_ECIPHER, "its MAC is none that Reseal knows");
    else if ((*out = lock_of(pair, locker)) == NULL) /* also for bytes that are no UTF-8 */
        r = refuse(why, why_len, RESEAL_EFORMAT, "a name in the key safe or bundle is no UTF-8 text");
    rs_locator_free(l);
    return r;
}

/* ---- opening and locking a pair ----------------------------------------------------- */

void rs_home_locker_of_kek(const uint8_t kek[RS_HOME_KEK_LEN], struct rs_locked_key *locker)
{
    memset(locker, 0, sizeof(*locker));
    (void)snprintf(locker->cipher, sizeof(locker->cipher), "AES-256");
    memcpy(locker->key, kek, RS_HOME_KEK_LEN);
    locker->len = RS_HOME_KEK_LEN;
}

int rs_home_locker_of_phrase(const uint8_t *phrase, size_t len, char dictionary[RS_HOME_DICTIONARY],
                             struct rs_locked_key *locker)
{
    int r = rs_locked_phrase_dictionary(ROUNDS, dictionary, RS_HOME_DICTIONARY);
    return r == 0 ? rs_locked_key_of_phrase(dictionary, (const char *)phrase, len, locker) : r;
}

/* The locked text, NUL-ended, in key memory. */
static int open_pair(const json_t *lock, const struct rs_locked_key *locker, enum rs_locked_mac *mac,
                     char **out, char *why, size_t why_len)
{
    const char *name = json_string_value(json_object_get(lock, "mac"));
    const char *data = json_string_value(json_object_get(lock, "data"));
    uint8_t blob[LOCKED_MAX + RS_LOCKED_OVERHEAD + 3];
    size_t len = 0, n = 0;
    *out = NULL;
    if (name == NULL || data == NULL || rs_locked_mac_by_name(name, mac) != 0)
        return refuse(why, why_len, RESEAL_EFORMAT, "it is not locked as Reseal knows it");
    if (rs_base64_decode(data, blob, sizeof(blob), &len) != 0)
        return refuse(why, why_len, RESEAL_EFORMAT, "what is locked is no base64, or too long");
    char *text = rs_keymem_alloc(len + 1);
    if (text == NULL) return refuse(why, why_len, RESEAL_ENOMEM, "key memory is out");
    int r = rs_locked_open(locker, *mac, blob, len, (uint8_t *)text, &n);
    if (r == RESEAL_EFORMAT) (void)refuse(why, why_len, r, "what is locked is cut short");
    if (r == RESEAL_EAUTH)
        (void)refuse(why, why_len, r, "it does not open with its key: it was changed, or is another VM's");
    if (r == 0 && memchr(text, '\0', n) != NULL)
        r = refuse(why, why_len, RESEAL_EFORMAT, "what is locked is no text");
    if (r != 0) {
        rs_keymem_free(text);
        return r;
    }
    text[n] = '\0';
    *out = text;
    return 0;
}

/* vmware:key/list/(pair/(LOCKER,MAC,LOCKED)); takes `by`. */
static char *list_of(struct rs_locator *by, const char *data)
{
    const char *locked[] = {MAC_NAME, data};
    struct rs_locator *pair = rs_locator_new(RS_LOCATOR_PAIR, locked);
    struct rs_locator *list = rs_locator_new(RS_LOCATOR_LIST, NULL);
    char *text = NULL;
    if (by != NULL && pair != NULL && list != NULL) {
        rs_locator_add(pair, by);
        rs_locator_add(list, pair);
        text = rs_locator_text(list);
    } else {
        rs_locator_free(by);
        rs_locator_free(pair);
    }
    rs_locator_free(list);
    return text;
}

/* Takes `by`. */
static int seal_pair(struct rs_locator *by, const struct rs_locked_key *locker, const char *dictionary,
                     char **text)
{
    uint8_t blob[LOCKED_MAX + RS_LOCKED_OVERHEAD];
    char data[(sizeof(blob) + 2) / 3 * 4 + 1];
    size_t len;
    *text = NULL;
    int r = by != NULL && strlen(dictionary) <= LOCKED_MAX ? 0 : RESEAL_ENOMEM;
    if (r == 0)
        r = rs_locked_seal(locker, RS_LOCKED_HMAC_SHA256, (const uint8_t *)dictionary, strlen(dictionary),
                           blob, &len);
    if (r == 0) r = rs_base64_encode(blob, len, data, sizeof(data));
    if (r != 0) {
        rs_locator_free(by);
        return r;
    }
    *text = list_of(by, data);
    return *text != NULL ? 0 : RESEAL_ENOMEM;
}

static int seal_pair_kek(const char *provider, const char *key, const uint8_t kek[RS_HOME_KEK_LEN],
                         const char *dictionary, char **text)
{
    RS_KEYMEM struct rs_locked_key *locker = rs_keymem_alloc(sizeof(*locker));
    const char *by[] = {NULL, provider, key};
    *text = NULL;
    if (locker == NULL) return RESEAL_ENOMEM;
    rs_home_locker_of_kek(kek, locker);
    return seal_pair(rs_locator_new(RS_LOCATOR_FQID, by), locker, dictionary, text);
}

/* ---- bundles ------------------------------------------------------------------------ */

#define FILE_KEY_TEXT ((RS_FILE_KEY_LEN + 2) / 3 * 4 + 2 + 1) /* base64; in a dictionary its '=' is %3d */

static int take_file_key(const char *dictionary, uint8_t file_key[RS_FILE_KEY_LEN])
{
    char word[16], text[FILE_KEY_TEXT];
    uint8_t raw[RS_FILE_KEY_LEN + 3];
    size_t len = 0;
    bool ok = rs_dictionary_get(dictionary, "type", word, sizeof(word)) == 0 && strcmp(word, "bundle") == 0 &&
              rs_dictionary_get(dictionary, "version", word, sizeof(word)) == 0 && strcmp(word, "1") == 0 &&
              rs_dictionary_get(dictionary, "fileKey", text, sizeof(text)) == 0 &&
              rs_base64_decode(text, raw, sizeof(raw), &len) == 0 && len == RS_FILE_KEY_LEN;
    if (ok) memcpy(file_key, raw, len);
    rs_wipe(text, sizeof(text));
    rs_wipe(raw, sizeof(raw));
    return ok ? 0 : RESEAL_EFORMAT;
}

int rs_bundle_open(const json_t *lock, const uint8_t kek[RS_HOME_KEK_LEN], uint8_t file_key[RS_FILE_KEY_LEN],
                   char *why, size_t why_len)
{
    RS_KEYMEM struct rs_locked_key *locker = rs_keymem_alloc(sizeof(*locker));
    enum rs_locked_mac mac;
    char *text;
    if (locker == NULL) return refuse(why, why_len, RESEAL_ENOMEM, "key memory is out");
    rs_home_locker_of_kek(kek, locker);
    int r = open_pair(lock, locker, &mac, &text, why, why_len);
    if (r != 0) return r;
    r = take_file_key(text, file_key);
    rs_keymem_free(text);
    return r == 0 ? 0
                  : refuse(why, why_len, r,
                           "the bundle opens, and its layout is not Reseal's: files of this "
                           "VM that another product locked cannot be opened");
}

int rs_bundle_seal(const char *provider, const char *key, const uint8_t kek[RS_HOME_KEK_LEN],
                   const uint8_t file_key[RS_FILE_KEY_LEN], char **text)
{
    char *dictionary = rs_keymem_alloc(256), *encoded = rs_keymem_alloc(FILE_KEY_TEXT);
    int r = dictionary != NULL && encoded != NULL ? 0 : RESEAL_ENOMEM;
    *text = NULL;
    if (r == 0) r = rs_base64_encode(file_key, RS_FILE_KEY_LEN, encoded, FILE_KEY_TEXT);
    if (r == 0) r = rs_dictionary_put(dictionary, 256, "type", "bundle");
    if (r == 0) r = rs_dictionary_put(dictionary, 256, "version", "1");
    if (r == 0) r = rs_dictionary_put(dictionary, 256, "fileKey", encoded);
    if (r == 0) r = seal_pair_kek(provider, key, kek, dictionary, text);
    rs_keymem_free(dictionary);
    rs_keymem_free(encoded);
    return r;
}

/* ---- key safes ---------------------------------------------------------------------- */

int rs_keysafe_open(const json_t *lock, const struct rs_locked_key *locker, struct rs_locked_key *config,
                    enum rs_locked_mac *mac, char *why, size_t why_len)
{
    char *text;
    int r = open_pair(lock, locker, mac, &text, why, why_len);
    if (r != 0) return r;
    r = rs_locked_key_parse(text, config);
    rs_keymem_free(text);
    return r == 0 ? 0
                  : refuse(why, why_len, r, "the key safe opens, and holds no key of a kind that is known");
}

int rs_keysafe_seal(const char *provider, const char *key, const uint8_t kek[RS_HOME_KEK_LEN],
                    const struct rs_locked_key *config, char **text)
{
    RS_KEYMEM char *dictionary = rs_keymem_alloc(160);
    *text = NULL;
    if (dictionary == NULL) return RESEAL_ENOMEM;
    int r = rs_locked_key_text(config, dictionary, 160);
    return r == 0 ? seal_pair_kek(provider, key, kek, dictionary, text) : r;
}

int rs_keysafe_seal_phrase(const char *dictionary, const struct rs_locked_key *locker,
                           const struct rs_locked_key *config, char **text)
{
    RS_KEYMEM char *safe = rs_keymem_alloc(160);
    uint8_t raw[8];
    char id[16];
    const char *by[] = {id, dictionary};
    *text = NULL;
    if (safe == NULL) return RESEAL_ENOMEM;
    int r =
        RAND_bytes(raw, sizeof(raw)) == 1 ? rs_base64_encode(raw, sizeof(raw), id, sizeof(id)) : RESEAL_EIO;
    if (r == 0) r = rs_locked_key_text(config, safe, 160);
    return r == 0 ? seal_pair(rs_locator_new(RS_LOCATOR_PHRASE, by), locker, safe, text) : r;
}

int rs_config_key_make(struct rs_locked_key *config)
{
    memset(config, 0, sizeof(*config));
    (void)snprintf(config->cipher, sizeof(config->cipher), "XTS-AES-256");
    config->len = rs_locked_key_len(config->cipher);
    return RAND_priv_bytes(config->key, (int)config->len) == 1 ? 0 : RESEAL_EIO;
}
