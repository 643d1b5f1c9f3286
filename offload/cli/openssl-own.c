/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/openssl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/command.h"
#include "offload/cli/exit.h"

static const char layer[] = "activation";

/* ---- the probe ------------------------------------------------------------------ */

/* LD_LIBRARY_PATH with the folder of that OpenSSL's library in front; freed by the caller. */
static char *search_path(const struct rs_openssl *o)
{
    char folder[PATH_MAX], *text = NULL;
    const char *now = getenv("LD_LIBRARY_PATH");
    rs_openssl_folder(o->library, folder, sizeof(folder));
    bool more = now != NULL && now[0] != '\0';
    if (asprintf(&text, "LD_LIBRARY_PATH=%s%s%s", folder, more ? ":" : "", more ? now : "") < 0) return NULL;
    return text;
}

static void copy_text(const json_t *o, const char *key, char *out, size_t len)
{
    const char *text = json_string_value(json_object_get(o, key));
    snprintf(out, len, "%s", text == NULL ? "" : text);
}

static void read_providers(struct rs_openssl_own *own, const json_t *list)
{
    size_t i;
    json_t *name;
    json_array_foreach(list, i, name)
    {
        const char *text = json_string_value(name);
        if (text == NULL) continue;
        own->has_reseal |= strcmp(text, "reseal") == 0;
        own->has_default |= strcmp(text, "default") == 0;
    }
}

static void read_answer(struct rs_openssl_check *c, const json_t *o)
{
    struct rs_openssl_own *own = &c->own;
    char library[PATH_MAX];
    /* Only an answer of the library that the program uses counts. */
    const char *at = json_string_value(json_object_get(o, "library"));
    if (at == NULL || realpath(at, library) == NULL || strcmp(library, c->o.library) != 0) return;
    own->known = true;
    const json_t *conf = json_object_get(o, "configuration");
    /* The name without links: OPENSSLDIR often is one. */
    const char *file = json_string_value(json_object_get(conf, "file"));
    if (file == NULL || realpath(file, own->config) == NULL)
        copy_text(conf, "file", own->config, sizeof(own->config));
    copy_text(conf, "error", own->config_error, sizeof(own->config_error));
    copy_text(conf, "module", own->module, sizeof(own->module));
    copy_text(conf, "why_not", own->why_not, sizeof(own->why_not));
    copy_text(conf, "properties", own->properties, sizeof(own->properties));
    own->named = json_is_true(json_object_get(conf, "named"));
    own->activated = json_is_true(json_object_get(conf, "activated"));
    read_providers(own, json_object_get(o, "providers"));
    for (unsigned i = 0; i < RS_OPENSSL_CIPHERS; i++) {
        copy_text(json_object_get(o, "fetched"), rs_openssl_ciphers[i], own->fetched[i],
                  sizeof(own->fetched[i]));
        copy_text(json_object_get(o, "compared"), rs_openssl_ciphers[i], own->compared[i],
                  sizeof(own->compared[i]));
    }
}

static void probe(struct rs_openssl_check *c)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *path = c->o.library[0] == '\0' || n <= 0 ? NULL : search_path(&c->o);
    if (path == NULL) return;
    self[n] = '\0';
    const char *const argv[] = {self, "openssl", "probe", "--module", c->m.path, NULL};
    struct rs_command_text t;
    int r = rs_command_output(argv, (const char *const[]){path, NULL}, 60, &t);
    free(path);
    if (r != 0) return;
    json_t *o = json_loads(t.out, 0, NULL);
    if (o != NULL && t.status == 0) read_answer(c, o);
    json_decref(o);
    rs_command_text_free(&t);
}

/* ---- what it means ---------------------------------------------------------------- */

/* Ciphers of the module that an unqualified fetch takes from it; `of`: those that the module has. */
static unsigned effective(const struct rs_openssl_check *c, unsigned *of)
{
    unsigned n = 0;
    *of = 0;
    for (unsigned i = 0; i < RS_OPENSSL_CIPHERS; i++) {
        if (strcmp(c->own.compared[i], "absent") == 0) continue;
        (*of)++;
        n += strcmp(c->own.fetched[i], "reseal") == 0;
    }
    return n;
}

static void not_loaded(struct rs_openssl_check *c)
{
    const struct rs_openssl_own *own = &c->own;
    static const char remedy[] = "put in its place what 'reseal openssl config' prints";
    if (!own->activated)
        rs_openssl_fails(c, RS_EXIT_FAILED, layer, "add 'activate = 1' to the provider's section",
                         "%.200s names the provider, but does not activate it", own->config);
    else if (own->module[0] == '\0')
        rs_openssl_fails(c, RS_EXIT_FAILED, layer, remedy,
                         "%.120s names no 'module', and there is no reseal.so that loads in %.120s",
                         own->config, getenv("OPENSSL_MODULES") != NULL ? "OPENSSL_MODULES" : c->o.modules);
    else if (own->module[0] == '/' && access(own->module, R_OK) != 0)
        rs_openssl_fails(c, RS_EXIT_FAILED, layer, remedy, "%.110s names the module %.110s: %s", own->config,
                         own->module, strerror(errno));
    else
        rs_openssl_fails(c, RS_EXIT_FAILED, layer, remedy,
                         "the module that %.80s names does not load: %.200s", own->config,
                         own->why_not[0] == '\0' ? own->module : own->why_not);
}

static void loaded(struct rs_openssl_check *c)
{
    const struct rs_openssl_own *own = &c->own;
    unsigned of, n = effective(c, &of);
    if (!own->has_default) {
        rs_openssl_fails(
            c, RS_EXIT_FAILED, layer, "add 'default = default_sect' and its section with 'activate = 1'",
            "%.150s activates reseal without the default provider: no digests, no keys, no TLS", own->config);
        return;
    }
    if (n < of) {
        rs_openssl_fails(c, RS_EXIT_FAILED, layer,
                         "add 'alg_section' with 'default_properties = ?provider=reseal,?reseal.fast=yes'",
                         "%.120s loads it, but %u of %u ciphers still come from elsewhere "
                         "(default_properties: %.60s)",
                         own->config, of - n, of, own->properties[0] == '\0' ? "none" : own->properties);
        return;
    }
    rs_find(&c->f, layer, RS_FINDING_OK, "%.150s activates it, and programs get its ciphers", own->config);
}

static void compared(struct rs_openssl_check *c)
{
    unsigned same = 0, of = 0;
    for (unsigned i = 0; i < RS_OPENSSL_CIPHERS; i++) {
        const char *r = c->own.compared[i];
        if (r[0] == '\0' || strcmp(r, "absent") == 0) continue;
        of++;
        if (strcmp(r, "same") == 0)
            same++;
        else
            rs_openssl_fails(
                c, RS_EXIT_FAILED, "ciphers",
                "deactivate the module: RESEAL_OSSL_ENGINE=openssl, or take it out of openssl.cnf", "%s %s",
                rs_openssl_ciphers[i],
                strcmp(r, "differs") == 0 ? "does not compute what OpenSSL's own does"
                                          : "fails where OpenSSL's own does not");
    }
    if (of == 0 && strncmp(c->m.buildinfo, "reseal ", 7) == 0)
        rs_find(&c->f, "ciphers", RS_FINDING_LIMITS,
                "this build has no kernels for this processor: the module offers none");
    else if (of == 0)
        rs_openssl_fails(c, RS_EXIT_FAILED, "ciphers", "name Reseal's reseal.so with --module",
                         "%.200s offers none of Reseal's ciphers", c->m.path);
    else if (same == of)
        rs_find(&c->f, "ciphers", RS_FINDING_OK, "%u ciphers compute what OpenSSL's own do", of);
}

void rs_openssl_activated(struct rs_openssl_check *c)
{
    const struct rs_openssl_own *own = &c->own;
    probe(c);
    if (!own->known) {
        struct rs_finding *f = rs_find(&c->f, layer, RS_FINDING_LIMITS,
                                       "not known: this OpenSSL has no shared library that can be asked");
        rs_remedy(f, "compare 'openssl speed -evp aes-256-gcm' with and without OPENSSL_CONF");
        return;
    }
    compared(c);
    if (own->config_error[0] != '\0')
        rs_openssl_fails(c, RS_EXIT_FAILED, layer, "mend that line", "%.150s cannot be read: %.120s",
                         own->config, own->config_error);
    else if (own->has_reseal)
        loaded(c);
    else if (own->named)
        not_loaded(c);
    else
        rs_remedy(
            rs_find(&c->f, layer, RS_FINDING_LIMITS,
                    "%.150s does not name it: only programs that ask for it use it", own->config),
            "reseal openssl config >/etc/ssl/reseal.cnf, then '.include /etc/ssl/reseal.cnf' as the last "
            "line of %.100s",
            own->config);
}
