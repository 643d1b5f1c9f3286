/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an ordinary program gets from the libcrypto that is loaded here, with
 * the environment as it is. `check` runs this with the libraries of the
 * OpenSSL that it looks at, in front of all others.
 */
#include "offload/cli/openssl.h"

#include <dlfcn.h>
#include <link.h>
#include <openssl/conf.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <stdio.h>
#include <stdlib.h>

#include "offload/cli/exit.h"

static json_t *string_or_null(const char *text)
{
    return text == NULL ? json_null() : json_string(text);
}

/* ---- the configuration -------------------------------------------------------- */

/* Names may have a prefix up to a dot, which only makes them different from each other. */
static const char *bare(const char *name)
{
    const char *dot = strchr(name, '.');
    return dot == NULL ? name : dot + 1;
}

static bool is_ours(const char *name, const char *module)
{
    const char *slash = module == NULL ? NULL : strrchr(module, '/');
    return strcmp(name, "reseal") == 0 || (slash != NULL && strcmp(slash + 1, "reseal.so") == 0);
}

/* A configuration that only names the provider, with what `section` says of it. */
static bool write_section(BIO *text, STACK_OF(CONF_VALUE) * section)
{
    bool ok =
        text != NULL && BIO_puts(text, "openssl_conf = a\n[a]\nproviders = b\n[b]\nreseal = c\n[c]\n") > 0;
    for (int i = 0; ok && i < sk_CONF_VALUE_num(section); i++) {
        const CONF_VALUE *v = sk_CONF_VALUE_value(section, i);
        char value[2 * PATH_MAX];
        if (strcmp(bare(v->name), "activate") == 0 || strcmp(bare(v->name), "soft_load") == 0 ||
            rs_openssl_value(v->value, value, sizeof(value)) != 0)
            continue;
        ok = BIO_printf(text, "%s = %s\n", v->name, value) > 0;
    }
    return ok;
}

/* What OpenSSL says of the load that just failed. */
static json_t *first_error(void)
{
    const char *data = NULL;
    int flags = 0;
    unsigned long error = ERR_peek_error_all(NULL, NULL, NULL, &data, &flags);
    bool said = (flags & ERR_TXT_STRING) != 0 && data != NULL && data[0] != '\0';
    return string_or_null(said ? data : ERR_reason_error_string(error));
}

/*
 * Why a provider of a configuration does not load: OpenSSL keeps it to itself
 * when it activates one. So its section is taken over without "activate", and
 * the provider is then loaded by hand.
 */
static json_t *why_not(STACK_OF(CONF_VALUE) * section)
{
    OSSL_LIB_CTX *ctx = OSSL_LIB_CTX_new();
    CONF *conf = NCONF_new_ex(ctx, NULL);
    BIO *text = BIO_new(BIO_s_mem());
    json_t *why = json_null();
    ERR_clear_error();
    if (ctx != NULL && conf != NULL && write_section(text, section) && NCONF_load_bio(conf, text, NULL) > 0 &&
        CONF_modules_load(conf, NULL, 0) > 0) {
        OSSL_PROVIDER *provider = OSSL_PROVIDER_try_load(ctx, "reseal", 1);
        if (provider == NULL)
            why = first_error();
        else
            OSSL_PROVIDER_unload(provider);
    }
    BIO_free(text);
    NCONF_free(conf);
    OSSL_LIB_CTX_free(ctx);
    return why;
}

/* One line of the section of providers: a name and its section. */
static void read_provider(const CONF *conf, const CONF_VALUE *line, json_t *o)
{
    const char *name = bare(line->name), *module = NULL;
    bool activate = false;
    STACK_OF(CONF_VALUE) *section = NCONF_get_section(conf, line->value);
    for (int i = 0; i < sk_CONF_VALUE_num(section); i++) {
        const CONF_VALUE *v = sk_CONF_VALUE_value(section, i);
        if (strcmp(bare(v->name), "identity") == 0) name = v->value;
        if (strcmp(bare(v->name), "module") == 0) module = v->value;
        if (strcmp(bare(v->name), "activate") == 0) activate = strcmp(v->value, "0") != 0;
    }
    if (!is_ours(name, module)) return;
    json_object_set_new(o, "named", json_true());
    json_object_set_new(o, "activated", json_boolean(activate));
    json_object_set_new(o, "module", string_or_null(module));
    json_object_set_new(o, "why_not", why_not(section));
}

static void read_sections(const CONF *conf, json_t *o)
{
    const char *init = NCONF_get_string(conf, NULL, "openssl_conf");
    if (init == NULL) return;
    const char *providers = NCONF_get_string(conf, init, "providers");
    STACK_OF(CONF_VALUE) *lines = providers == NULL ? NULL : NCONF_get_section(conf, providers);
    for (int i = 0; i < sk_CONF_VALUE_num(lines); i++) read_provider(conf, sk_CONF_VALUE_value(lines, i), o);
    const char *alg = NCONF_get_string(conf, init, "alg_section");
    const char *properties = alg == NULL ? NULL : NCONF_get_string(conf, alg, "default_properties");
    json_object_set_new(o, "properties", string_or_null(properties));
}

static json_t *configuration(void)
{
    json_t *o = json_object();
    char *file = CONF_get1_default_config_file();
    CONF *conf = NCONF_new(NULL);
    long line = 0;
    json_object_set_new(o, "file", string_or_null(file));
    if (file != NULL && conf != NULL && NCONF_load(conf, file, &line) > 0) {
        read_sections(conf, o);
    } else if (line > 0) {
        char why[128];
        snprintf(why, sizeof(why), "line %ld: %s", line,
                 ERR_reason_error_string(ERR_peek_last_error()) == NULL
                     ? "not understood"
                     : ERR_reason_error_string(ERR_peek_last_error()));
        json_object_set_new(o, "error", json_string(why));
    }
    NCONF_free(conf);
    OPENSSL_free(file);
    ERR_clear_error();
    return o;
}

/* ---- what a program gets --------------------------------------------------------- */

static json_t *fetched(void)
{
    json_t *o = json_object();
    for (unsigned i = 0; i < RS_OPENSSL_CIPHERS; i++) {
        EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, rs_openssl_ciphers[i], NULL);
        const char *from = cipher == NULL ? NULL : OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher));
        json_object_set_new(o, rs_openssl_ciphers[i], string_or_null(from));
        EVP_CIPHER_free(cipher);
    }
    ERR_clear_error();
    return o;
}

static int add_provider(OSSL_PROVIDER *provider, void *list)
{
    json_array_append_new(list, json_string(OSSL_PROVIDER_get0_name(provider)));
    return 1;
}

static int find_ours(struct dl_phdr_info *info, size_t size, void *o)
{
    (void)size;
    const char *slash = strrchr(info->dlpi_name, '/');
    if (slash == NULL || strcmp(slash + 1, "reseal.so") != 0) return 0;
    json_object_set_new(o, "loaded", json_string(info->dlpi_name));
    return 1;
}

/* ---- the module against the default provider -------------------------------------- */

#define SPAN 16384u

/*
 * The very calls that `openssl speed` makes: one initialisation, then updates
 * in place. Nothing here is secret. False when a call fails, as `speed` does
 * not say.
 */
static bool run(OSSL_LIB_CTX *ctx, const char *name, const char *properties, size_t len, uint8_t *data)
{
    static const uint8_t iv[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    uint8_t key[64];
    for (size_t i = 0; i < sizeof(key); i++) key[i] = (uint8_t)(i * 7 + 1);
    for (size_t i = 0; i < len; i++) data[i] = (uint8_t)(i * 31 + (i >> 8));
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(ctx, name, properties);
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    int n = 0;
    bool ok = cipher != NULL && c != NULL && EVP_CipherInit_ex(c, cipher, NULL, NULL, NULL, 1) == 1 &&
              EVP_CipherInit_ex(c, NULL, NULL, key, iv, -1) == 1;
    for (unsigned i = 0; ok && i < 2; i++)
        ok = EVP_EncryptUpdate(c, data, &n, data, (int)len) == 1 && n == (int)len;
    ok = ok && EVP_EncryptFinal_ex(c, data + len, &n) == 1;
    EVP_CIPHER_CTX_free(c);
    EVP_CIPHER_free(cipher);
    return ok;
}

static const char *compare(OSSL_LIB_CTX *ctx, const char *name)
{
    static const size_t lens[] = {64, 4096, SPAN};
    static uint8_t ours[SPAN + 64], theirs[SPAN + 64];
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(ctx, name, "provider=reseal");
    EVP_CIPHER_free(cipher);
    if (cipher == NULL) return "absent";
    for (size_t i = 0; i < RS_ARRAY_LEN(lens); i++) {
        if (!run(ctx, name, "provider=reseal", lens[i], ours) ||
            !run(ctx, name, "provider=default", lens[i], theirs))
            return "fails";
        if (memcmp(ours, theirs, lens[i]) != 0) return "differs";
    }
    return "same";
}

static json_t *compared(const char *module)
{
    char folder[PATH_MAX], name[NAME_MAX + 1];
    const char *file = strrchr(module, '/');
    rs_openssl_folder(module, folder, sizeof(folder));
    snprintf(name, sizeof(name), "%s", file == NULL ? module : file + 1);
    if (strlen(name) > 3) name[strlen(name) - 3] = '\0';
    OSSL_LIB_CTX *ctx = OSSL_LIB_CTX_new();
    OSSL_PROVIDER *ours = NULL, *theirs = NULL;
    json_t *o = json_object();
    if (ctx != NULL && OSSL_PROVIDER_set_default_search_path(ctx, folder) == 1 &&
        (ours = OSSL_PROVIDER_load(ctx, name)) != NULL &&
        (theirs = OSSL_PROVIDER_load(ctx, "default")) != NULL)
        for (unsigned i = 0; i < RS_OPENSSL_CIPHERS; i++)
            json_object_set_new(o, rs_openssl_ciphers[i], json_string(compare(ctx, rs_openssl_ciphers[i])));
    if (theirs != NULL) OSSL_PROVIDER_unload(theirs);
    if (ours != NULL) OSSL_PROVIDER_unload(ours);
    OSSL_LIB_CTX_free(ctx);
    return o;
}

int rs_openssl_probe(const char *module)
{
    Dl_info self;
    json_t *o = json_object(), *providers = json_array();
    json_object_set_new(o, "version", json_string(OpenSSL_version(OPENSSL_VERSION_STRING)));
    void *in_library = dlsym(RTLD_DEFAULT, "OpenSSL_version");
    if (in_library != NULL && dladdr(in_library, &self) != 0)
        json_object_set_new(o, "library", json_string(self.dli_fname));
    json_object_set_new(o, "configuration", configuration());
    json_object_set_new(o, "fetched", fetched());
    OSSL_PROVIDER_do_all(NULL, add_provider, providers);
    json_object_set_new(o, "providers", providers);
    (void)dl_iterate_phdr(find_ours, o);
    if (module != NULL) json_object_set_new(o, "compared", compared(module));
    int bad = json_dumpf(o, stdout, JSON_INDENT(2)) != 0;
    putchar('\n');
    json_decref(o);
    return bad ? RS_EXIT_FAILED : RS_EXIT_OK;
}
