/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed dumps afterwards: what one says about itself, its text, the same under a pass phrase. */
#include "offload/cli/coredump.h"

#include "offload/cli/passphrase.h"
#include "offload/client/keyservice.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct work {
    const struct rs_cores *c;
    const char *file;
    reseal *r;
    int in, phrase;
    int out; /* under the name `part` until it is whole */
    char part[4096];
    json_t *about; /* the answer to file.describe */
    struct rs_failure f;
};

static const char *text_of(const json_t *o, const char *name)
{
    const char *text = json_string_value(json_object_get(o, name));
    return text != NULL ? text : "";
}

/* *result may be NULL. */
static int ask(struct work *w, const char *method, json_t *args, const int *fds, unsigned nfds,
               json_t **result)
{
    char why[RS_KEYSERVICE_WHY];
    json_t *answer = NULL;
    int err = rs_keyservice_call(w->r, method, args, fds, nfds, &answer, NULL, why, sizeof(why));
    /* Not to be told from a damaged one. */
    int code = err == RESEAL_EAUTH ? RS_EXIT_FORMAT : rs_exit_of(err);
    if (err != 0) (void)rs_failure_set(&w->f, code, "%s: %s", w->file, why);
    if (err == 0 && result != NULL)
        *result = answer;
    else
        json_decref(answer);
    return w->f.exit;
}

static int join(struct work *w)
{
    const struct reseal_options options = {.size = sizeof(options), .runtime_dir = w->c->runtime_dir};
    int err = reseal_open(&w->r, &options);
    return err == 0 ? 0 : rs_failure_code(&w->f, err, "the key service");
}

static int begin(struct work *w)
{
    w->in = open(w->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (w->in < 0) return rs_failure_errno(&w->f, errno, "open", w->file);
    if (join(w) != 0) return w->f.exit;
    return ask(w, "file.describe", NULL, &w->in, 1, &w->about);
}

static int end(struct work *w)
{
    rs_cleanup_close(&w->in);
    rs_cleanup_close(&w->out);
    rs_cleanup_close(&w->phrase);
    json_decref(w->about);
    reseal_close(w->r);
    return w->f.exit == 0 ? RS_EXIT_OK : rs_cli_fail(w->f.exit, "coredump", "%s", w->f.text);
}

/* ---- the result's file ------------------------------------------------------------------------ */

static int make_out(struct work *w)
{
    struct stat st;
    const char *to = w->c->out;
    if (to == NULL) return rs_failure_set(&w->f, RS_EXIT_USAGE, "--out FILE must be given");
    if (!w->c->force && lstat(to, &st) == 0)
        return rs_failure_set(&w->f, RS_EXIT_REFUSED, "%s is there already: remove it, or give --force", to);
    int n = snprintf(w->part, sizeof(w->part), "%s.part-%d", to, (int)getpid());
    if (n < 0 || (size_t)n >= sizeof(w->part))
        return rs_failure_set(&w->f, RS_EXIT_USAGE, "--out: too long a name");
    w->out = open(w->part, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return w->out >= 0 ? 0 : rs_failure_errno(&w->f, errno, "make", w->part);
}

/* There is the whole file, or none. */
static int publish(struct work *w)
{
    if (w->f.exit == 0 && fsync(w->out) != 0) (void)rs_failure_errno(&w->f, errno, "write", w->part);
    if (w->f.exit == 0 &&
        renameat2(AT_FDCWD, w->part, AT_FDCWD, w->c->out, w->c->force ? 0 : RENAME_NOREPLACE) != 0)
        (void)rs_failure_errno(&w->f, errno, "write", w->c->out);
    if (w->f.exit != 0 && w->out >= 0) (void)unlink(w->part);
    return w->f.exit;
}

static int open_phrase(struct work *w, bool twice)
{
    const struct rs_passphrase p = {.file = w->c->passphrase_file, .fd = -1};
    return rs_passphrase_open(&p, "dump", w->file, twice, &w->phrase, &w->f);
}

/* ---- commands ----------------------------------------------------------------------------------- */

static void print_about(const json_t *about)
{
    const char *name;
    json_t *value;
    printf("cipher       %s\nsealed by    %s\nsize         %lld\n", text_of(about, "cipher"),
           text_of(about, "keyInfo"), (long long)json_integer_value(json_object_get(about, "size")));
    json_object_foreach(json_object_get(about, "attributes"), name, value)
    {
        printf("%-24s %s\n", name, json_is_string(value) ? json_string_value(value) : "");
    }
}

int rs_coredump_describe(const struct rs_cores *c, const char *file)
{
    struct work w = {.c = c, .file = file, .in = -1, .out = -1, .phrase = -1};
    if (begin(&w) == 0) {
        if (c->json && json_dumpf(w.about, stdout, JSON_COMPACT) == 0) putchar('\n');
        if (!c->json) print_about(w.about);
    }
    return end(&w);
}

int rs_coredump_extract(const struct rs_cores *c, const char *file)
{
    struct work w = {.c = c, .file = file, .in = -1, .out = -1, .phrase = -1};
    if (begin(&w) == 0) {
        const char *key = text_of(w.about, "key");
        bool phrase = strcmp(key, "phrase") == 0;
        if (!phrase && strcmp(key, "host") != 0)
            (void)rs_failure_set(&w.f, RS_EXIT_KEY, "%s is no core dump: it is sealed by %s", file,
                                 text_of(w.about, "keyInfo"));
        if (w.f.exit == 0 && phrase) (void)open_phrase(&w, false);
        if (w.f.exit == 0 && make_out(&w) == 0) {
            const int fds[3] = {w.in, w.out, w.phrase};
            (void)ask(&w, "file.open", json_pack("{s:b}", phrase ? "phrase" : "host", 1), fds, phrase ? 3 : 2,
                      NULL);
            (void)publish(&w);
        }
    }
    return end(&w);
}

int rs_coredump_recrypt(const struct rs_cores *c, const char *file)
{
    struct work w = {.c = c, .file = file, .in = -1, .out = -1, .phrase = -1};
    if (begin(&w) == 0 && open_phrase(&w, true) == 0 && make_out(&w) == 0) {
        const int fds[3] = {w.in, w.out, w.phrase};
        (void)ask(&w, "file.rewrap", json_pack("{s:b, s:s}", "host", 1, "to", "phrase"), fds, 3, NULL);
        (void)publish(&w);
    }
    return end(&w);
}

int rs_coredump_rekey(const struct rs_cores *c)
{
    struct work w = {.c = c, .file = "the key of this host", .in = -1, .out = -1, .phrase = -1};
    json_t *answer = NULL, *args = json_pack("{s:b}", "change", 1);
    if (c->provider != NULL || c->key != NULL)
        json_object_update_new(args, json_pack("{s:s, s:s, s:o}", "provider",
                                               c->provider != NULL ? c->provider : "", "provider_key",
                                               c->key != NULL ? c->key : "", "details", rs_cores_host(NULL)));
    if (join(&w) != 0)
        json_decref(args);
    else if (ask(&w, "host.key", args, NULL, 0, &answer) == 0 && c->json)
        (void)(json_dumpf(answer, stdout, JSON_INDENT(2)), putchar('\n'));
    else if (answer != NULL)
        printf("%s\n", text_of(answer, "key"));
    if (answer != NULL && !c->json && text_of(answer, "provider_key")[0] != '\0')
        printf("from key %s of provider %s\n", text_of(answer, "provider_key"), text_of(answer, "provider"));
    json_decref(answer);
    return end(&w);
}
