/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/openssl-sides.h"

#include <errno.h>
#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reseal/reseal.h"

/* ---- loading ------------------------------------------------------------------- */

/* What OpenSSL recorded first is the cause, the rest its consequences. Of the loader's "filename(PATH): text"
 * the text is enough, as it names the file itself. */
static int fail(struct rs_evp_sides *s, const char *what)
{
    const char *data = NULL;
    int flags = 0;
    unsigned long error = ERR_peek_error_all(NULL, NULL, NULL, &data, &flags);
    const char *why = error == 0 ? NULL : ERR_reason_error_string(error);
    if ((flags & ERR_TXT_STRING) != 0 && data != NULL && data[0] != '\0') why = data;
    const char *loader = why == NULL ? NULL : strstr(why, "): ");
    if (loader != NULL) why = loader + 3;
    if (why == NULL) why = "OpenSSL does not say why";
    bool named = strstr(why, what) != NULL;
    snprintf(s->why, sizeof(s->why), "%.200s%s%.270s", named ? "" : what, named ? "" : ": ", why);
    s->why[strcspn(s->why, "\n")] = '\0';
    ERR_clear_error();
    return RESEAL_EINVAL;
}

/* OpenSSL names a provider by its file: the folder its search path, the name what is left without ".so". */
static int load_module(struct rs_evp_sides *s, const char *path)
{
    char folder[PATH_MAX], name[NAME_MAX + 1];
    const char *slash = strrchr(path, '/');
    int n = slash == NULL ? snprintf(folder, sizeof(folder), ".")
                          : snprintf(folder, sizeof(folder), "%.*s", RS_MAX((int)(slash - path), 1), path);
    const char *file = slash == NULL ? path : slash + 1;
    size_t len = strlen(file), end = len > 3 && strcmp(file + len - 3, ".so") == 0 ? len - 3 : len;
    if (n < 0 || (size_t)n >= sizeof(folder) || end == 0 || end > NAME_MAX) return RESEAL_EINVAL;
    snprintf(name, sizeof(name), "%.*s", (int)end, file);
    if (OSSL_PROVIDER_set_default_search_path(s->ours.libctx, folder) != 1) return RESEAL_ENOMEM;
    s->ours.module = OSSL_PROVIDER_load(s->ours.libctx, name);
    return s->ours.module == NULL ? RESEAL_EINVAL : 0;
}

static int open_side(struct rs_evp_side *side, const char *properties)
{
    side->properties = properties;
    side->libctx = OSSL_LIB_CTX_new();
    if (side->libctx == NULL) return RESEAL_ENOMEM;
    side->fallback = OSSL_PROVIDER_load(side->libctx, "default");
    return side->fallback == NULL ? RESEAL_ENOMEM : 0;
}

/* The loader maps a truncated file as if it were whole, and dies of it: let a child try first. */
static bool deadly(struct rs_evp_sides *s, const char *module)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        close(STDERR_FILENO);
        (void)load_module(s, module);
        _exit(0);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return false;
    return status != 0;
}

int rs_evp_open(struct rs_evp_sides *s, const char *module)
{
    *s = (struct rs_evp_sides){.why = ""};
    ERR_clear_error();
    if (open_side(&s->ours, "?provider=reseal") != 0 || open_side(&s->theirs, "") != 0)
        return fail(s, "OpenSSL's default provider");
    if (deadly(s, module)) {
        snprintf(s->why, sizeof(s->why), "%.400s: it is damaged, loading it kills the program", module);
        return RESEAL_EINVAL;
    }
    return load_module(s, module) == 0 ? 0 : fail(s, module);
}

static void close_side(struct rs_evp_side *side)
{
    if (side->module != NULL) OSSL_PROVIDER_unload(side->module);
    if (side->fallback != NULL) OSSL_PROVIDER_unload(side->fallback);
    OSSL_LIB_CTX_free(side->libctx);
    *side = (struct rs_evp_side){.libctx = NULL};
}

void rs_evp_close(struct rs_evp_sides *s)
{
    close_side(&s->ours);
    close_side(&s->theirs);
}

/* ---- who does it ------------------------------------------------------------------ */

const char *rs_evp_version(void)
{
    return OpenSSL_version(OPENSSL_VERSION_STRING);
}

/* The value of "NAME=VALUE" in a list of such words, as long as it fits. */
static bool value_of(const char *list, const char *name, char *out, size_t room)
{
    size_t len = strlen(name);
    for (const char *at = list; (at = strstr(at, name)) != NULL; at += len) {
        if ((at != list && at[-1] != ' ') || at[len] != '=') continue;
        at += len + 1;
        snprintf(out, room, "%.*s", (int)strcspn(at, " ,;\n"), at);
        return true;
    }
    return false;
}

/* The module says in its build information what it chose, at the latest when something was fetched. */
static bool said(OSSL_PROVIDER *module, const char *cipher, char *out, size_t room)
{
    char *text = NULL;
    OSSL_PARAM want[] = {OSSL_PARAM_construct_utf8_ptr(OSSL_PROV_PARAM_BUILDINFO, &text, 0), OSSL_PARAM_END};
    return OSSL_PROVIDER_get_params(module, want) == 1 && text != NULL && value_of(text, cipher, out, room);
}

void rs_evp_engine(const struct rs_evp_sides *s, const char *cipher, char *out, size_t room)
{
    EVP_CIPHER *c = EVP_CIPHER_fetch(s->ours.libctx, cipher, s->ours.properties);
    bool ours = c != NULL && EVP_CIPHER_get0_provider(c) == s->ours.module;
    if (!ours)
        snprintf(out, room, "openssl");
    else if (!said(s->ours.module, cipher, out, room))
        snprintf(out, room, "reseal");
    EVP_CIPHER_free(c);
    ERR_clear_error();
}
