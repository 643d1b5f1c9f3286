/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/openssl.h"

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/command.h"
#include "offload/cli/exit.h"

/* ---- why it does not load --------------------------------------------------- */

/* Copies the text after `key`, to the end of its line. False when it is not there. */
static bool after(const char *text, const char *key, char *out, size_t len)
{
    const char *at = strstr(text, key);
    if (at == NULL) return false;
    at += strlen(key);
    snprintf(out, len, "%.*s", (int)strcspn(at, "\n"), at);
    return true;
}

static int explain(struct rs_openssl_check *c, const struct rs_command_text *t)
{
    char why[400], key[PATH_MAX + 16];
    if (strstr(t->err, "no provider init function") != NULL)
        return rs_openssl_fails(c, RS_EXIT_FORMAT, "load", "name Reseal's reseal.so with --module",
                                "%.200s is a library, but no provider", c->m.path);
    /* The loader's own words: "filename(FILE): reason". */
    snprintf(key, sizeof(key), "filename(%s): ", c->m.path);
    if (after(t->err, key, why, sizeof(why)))
        return rs_openssl_fails(c, RS_EXIT_FORMAT, "load",
                                "install the module again, from a build against this system's libraries",
                                "the loader refuses it: %.250s", why);
    if (strstr(t->err, "init fail") != NULL)
        return rs_openssl_fails(c, RS_EXIT_FAILED, "load",
                                "'reseal engines' says which kernels pass their self-test",
                                "the module starts, and gives up");
    /* Such a build says no more than that provider_init() failed in what it calls DSO, and DSO itself says
     * nothing. */
    if (strstr(t->err, "functionality not supported") != NULL ||
        (strstr(t->err, ":provider_init:") != NULL && strstr(t->err, "DSO support routines") == NULL))
        return rs_openssl_fails(c, RS_EXIT_SERVICE, "load",
                                "use an OpenSSL that was configured without no-dso and no-module",
                                "this OpenSSL was built without loadable modules");
    if (t->status > 128 && t->status < 128 + SIGRTMAX)
        return rs_openssl_fails(c, RS_EXIT_FORMAT, "load", "install the module again",
                                "loading it ends the program (%s): the file is damaged",
                                strsignal(t->status - 128));
    const char *line = t->err;
    return rs_openssl_fails(c, RS_EXIT_FAILED, "load", "run it by hand: openssl list -providers",
                            "'list -providers' is exit code %d: %.*s", t->status,
                            (int)RS_MIN(strcspn(line, "\n"), 200u), line);
}

/* ---- what it says of itself ------------------------------------------------- */

/* The value of "    KEY: value" in the block of one provider: lines with more than two spaces after "  NAME".
 */
static bool field(const char *block, const char *key, char *out, size_t len)
{
    size_t n = strlen(key);
    for (const char *line = block; line != NULL && strncmp(line, "    ", 4) == 0;) {
        if (strncmp(line + 4, key, n) == 0 && strncmp(line + 4 + n, ": ", 2) == 0) {
            snprintf(out, len, "%.*s", (int)strcspn(line + 6 + n, "\n"), line + 6 + n);
            return true;
        }
        line = strchr(line, '\n');
        if (line != NULL) line++;
    }
    return false;
}

/* NULL: it is not in the list. */
static const char *block_of(const char *list, const char *provider)
{
    char key[NAME_MAX + 8];
    snprintf(key, sizeof(key), "\n  %s\n", provider);
    const char *at = strstr(list, key);
    return at == NULL ? NULL : at + strlen(key);
}

/* "AES-256-GCM=vaes-avx512" among other words. */
static void word(const char *text, const char *key, char *out, size_t len)
{
    size_t n = strlen(key);
    for (const char *at = text; (at = strstr(at, key)) != NULL; at += n) {
        if ((at > text && !isspace((unsigned char)at[-1])) || at[n] != '=') continue;
        snprintf(out, len, "%.*s", (int)strcspn(at + n + 1, " ,;\n"), at + n + 1);
        return;
    }
}

static int understand(struct rs_openssl_check *c, const struct rs_command_text *t)
{
    struct rs_openssl_module *m = &c->m;
    const char *block = block_of(t->out, m->name);
    if (t->status != 0 || block == NULL) return explain(c, t);
    (void)field(block, "version", m->version, sizeof(m->version));
    (void)field(block, "build info", m->buildinfo, sizeof(m->buildinfo));
    for (unsigned i = 0; i < RS_OPENSSL_CIPHERS; i++)
        word(m->buildinfo, rs_openssl_ciphers[i], m->engines[i], sizeof(m->engines[i]));
    word(m->buildinfo, "key-memory", m->key_memory, sizeof(m->key_memory));
    rs_find(&c->f, "module", RS_FINDING_OK, "%.230s %.20s loads", m->path, m->version);
    return 0;
}

static void key_memory(struct rs_openssl_check *c)
{
    const char *kind = c->m.key_memory;
    if (kind[0] == '\0' || strcmp(kind, "secret") == 0) {
        rs_find(&c->f, "key memory", RS_FINDING_OK, "%s", kind[0] == '\0' ? "not said" : kind);
        return;
    }
    bool locked = strcmp(kind, "locked") == 0;
    struct rs_finding *f = rs_find(&c->f, "key memory", RS_FINDING_LIMITS, "%.15s: %s", kind,
                                   locked ? "root can read keys in a process's memory"
                                          : "keys can reach the swap, and root can read them");
    rs_remedy(f, "secretmem.enable=1 on the kernel's command line%s; 'reseal doctor'",
              locked ? "" : ", LimitMEMLOCK=8M for a service");
}

bool rs_openssl_forced(void)
{
    const char *name = getenv("RESEAL_OSSL_ENGINE");
    return name != NULL && name[0] != '\0' && strcmp(name, "auto") != 0;
}

static void engines(struct rs_openssl_check *c)
{
    unsigned own = 0, delegated = 0;
    for (unsigned i = 0; i < RS_OPENSSL_CIPHERS; i++) {
        if (c->m.engines[i][0] == '\0') continue;
        if (strcmp(c->m.engines[i], "openssl") == 0)
            delegated++;
        else
            own++;
    }
    if (own + delegated == 0)
        rs_find(&c->f, "engines", RS_FINDING_LIMITS, "the module does not say which it uses");
    else
        rs_find(&c->f, "engines", own > 0 ? RS_FINDING_OK : RS_FINDING_LIMITS,
                "%u ciphers by Reseal's kernels, %u delegated to OpenSSL's own code%s", own, delegated,
                rs_openssl_forced() ? ", as RESEAL_OSSL_ENGINE says" : "");
}

int rs_openssl_load(struct rs_openssl_check *c)
{
    /* Without a configuration: what the machine's says is another layer. */
    static const char *const env[] = {"OPENSSL_CONF=/dev/null", NULL};
    struct rs_command_text t;
    const char *const argv[] = {c->o.program,     "list",        "-providers", "-verbose",
                                "-provider-path", c->o.provider, "-provider",  c->m.name,
                                "-provider",      "default",     NULL};
    if (rs_command_output(argv, env, 60, &t) != 0)
        return rs_openssl_fails(c, RS_EXIT_FAILED, "load", "", "no process or no memory to ask it");
    int r = understand(c, &t);
    rs_command_text_free(&t);
    if (r != 0) return r;
    engines(c);
    key_memory(c);
    return 0;
}
