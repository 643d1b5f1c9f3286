/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/provider.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- confirming a certificate --------------------------------------------------------------- */

/* Shows it, on stderr where there is no terminal, and wants a "yes" to it. */
static int ask_yes(const char *shown, struct rs_failure *f)
{
    static const char question[] = "Is this the key server's? Type yes to trust it: ";
    RS_CLOSE int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    char answer[16] = "";
    size_t n = 0;
    if (tty < 0) {
        fputs(shown, stderr);
        return rs_failure_set(
            f, RS_EXIT_REFUSED,
            "no terminal to confirm the certificate on: compare this fingerprint with the one on the server "
            "and give it with --fingerprint, or give its CA with --ca");
    }
    int r = rs_write_full(tty, shown, strlen(shown));
    if (r == 0) r = rs_write_full(tty, question, sizeof(question) - 1);
    if (r != 0) return rs_failure_errno(f, r, "write to", "the terminal");
    while (n + 1 < sizeof(answer) && read(tty, &answer[n], 1) == 1 && answer[n] != '\n') n++;
    answer[n] = '\0';
    if (strcmp(answer, "yes") == 0) return 0;
    return rs_failure_set(f, RS_EXIT_REFUSED, "not confirmed; nothing was changed");
}

/* Shows what a server presents, and adds it to the list once it is confirmed. */
static int confirm_one(struct rs_provider_run *p, const char *server, const char *proxy, json_t *list)
{
    json_t *shown = NULL, *known;
    char text[1024];
    size_t i;
    json_t *args = json_pack("{s:s, s:s*}", "address", server, "proxy", proxy);
    int r = rs_provider_call(p, "provider.presented", args, NULL, 0, &shown, NULL);
    if (r != 0) return r;
    json_t *fingerprint = json_object_get(shown, "fingerprint");
    json_array_foreach(list, i, known) if (json_equal(known, fingerprint)) goto out;
    (void)snprintf(text, sizeof(text),
                   "%s shows a certificate with the SHA-256 fingerprint\n  %s\n  %.512s\n", server,
                   rs_provider_member(shown, "fingerprint"), rs_provider_member(shown, "certificate"));
    if (p->o.yes)
        fputs(text, stderr);
    else
        r = ask_yes(text, &p->f);
    if (r == 0 && json_array_append(list, fingerprint) != 0)
        r = rs_failure_code(&p->f, RESEAL_ENOMEM, "reseal");
out:
    json_decref(shown);
    return r;
}

/* ---- configurations ---------------------------------------------------------------------------- */

static int set_file(json_t *config, const char *member, const char *path, struct rs_failure *f)
{
    RS_FREE char *text = NULL;
    int r = path != NULL ? rs_provider_text(path, &text, f) : 0;
    if (r != 0 || path == NULL) return r;
    return json_object_set_new(config, member, json_string(text)) == 0
               ? 0
               : rs_failure_code(f, RESEAL_ENOMEM, path);
}

/* The proxy of a provider that is there and keeps it; *config is to be freed, and has the text. */
static int kept_proxy(struct rs_provider_run *p, json_t **config, const char **proxy)
{
    json_t *shown = NULL;
    int r = rs_provider_call(p, "provider.show", json_pack("{s:s}", "provider", p->o.name), NULL, 0, &shown,
                             NULL);
    if (r != 0) return r;
    *config = json_incref(json_object_get(shown, "config"));
    *proxy = json_string_value(json_object_get(*config, "proxy"));
    json_decref(shown);
    return 0;
}

/* What the servers show, by the way that the provider will go. */
static int confirm_servers(struct rs_provider_run *p, bool updates, json_t *list)
{
    const char *proxy = p->o.proxy != NULL && strcmp(p->o.proxy, "none") != 0 ? p->o.proxy : NULL;
    json_t *kept = NULL;
    int r = updates && p->o.proxy == NULL && p->o.nservers != 0 ? kept_proxy(p, &kept, &proxy) : 0;
    for (unsigned i = 0; i < p->o.nservers && r == 0; i++) r = confirm_one(p, p->o.servers[i], proxy, list);
    json_decref(kept);
    return r;
}

/* How the servers are known: CA, a fingerprint that is known, or what they show and is confirmed. */
static int set_trust(struct rs_provider_run *p, bool updates, json_t *config)
{
    const struct rs_provider_options *o = &p->o;
    if (o->ca != NULL && o->fingerprint != NULL)
        return rs_failure_set(&p->f, RS_EXIT_USAGE, "--ca and --fingerprint: give one of them");
    if (o->ca != NULL) {
        (void)json_object_set_new(config, "fingerprints", json_null());
        return set_file(config, "ca", o->ca, &p->f);
    }
    json_t *list = json_array();
    int r = 0;
    if (o->fingerprint != NULL)
        (void)json_array_append_new(list, json_string(o->fingerprint));
    else
        r = confirm_servers(p, updates, list);
    if (r != 0 || json_array_size(list) == 0) {
        json_decref(list);
        return r;
    }
    (void)json_object_set_new(config, "ca", json_null());
    (void)json_object_set_new(config, "fingerprints", list);
    return 0;
}

static int set_config(struct rs_provider_run *p, bool updates, json_t *config)
{
    const struct rs_provider_options *o = &p->o;
    if (o->nservers != 0) {
        json_t *servers = json_array();
        for (unsigned i = 0; i < o->nservers; i++)
            (void)json_array_append_new(servers, json_string(o->servers[i]));
        (void)json_object_set_new(config, "servers", servers);
    }
    if (o->user != NULL) (void)json_object_set_new(config, "user", json_string(o->user));
    if (o->proxy != NULL)
        (void)json_object_set_new(config, "proxy",
                                  strcmp(o->proxy, "none") == 0 ? json_null() : json_string(o->proxy));
    if (o->kmip != NULL) (void)json_object_set_new(config, "version", json_string(o->kmip));
    if (o->cache_s >= 0) (void)json_object_set_new(config, "cache_s", json_integer(o->cache_s));
    if (o->timeout_s >= 0) {
        (void)json_object_set_new(config, "connect_s", json_integer(o->timeout_s));
        (void)json_object_set_new(config, "request_s", json_integer(o->timeout_s));
    }
    int r = set_file(config, "certificate", o->cert, &p->f);
    if (r == 0 && (o->nservers != 0 || o->ca != NULL || o->fingerprint != NULL))
        r = set_trust(p, updates, config);
    return r;
}

/* ---- secrets as descriptors ------------------------------------------------------------------------ */

struct given {
    json_t *names;
    int fds[2];
    unsigned n;
};

static void given_free(struct given *g)
{
    json_decref(g->names);
    for (unsigned i = 0; i < g->n; i++) close(g->fds[i]);
}

static int open_secrets(struct rs_provider_run *p, struct given *g)
{
    const struct rs_provider_options *o = &p->o;
    *g = (struct given){.names = json_array()};
    if (o->key != NULL) {
        int fd = open(o->key, O_RDONLY | O_CLOEXEC);
        if (fd < 0) return rs_failure_errno(&p->f, errno, "open", o->key);
        rs_passphrase_warn(o->key, fd);
        g->fds[g->n++] = fd;
        (void)json_array_append_new(g->names, json_string("key"));
    }
    if (o->user != NULL || o->password.file != NULL) {
        const struct rs_passphrase from = {.file = o->password.file, .fd = -1, .options = "--password-file"};
        int fd, r = rs_passphrase_open(&from, "key server's user", o->user != NULL ? o->user : "", false, &fd,
                                       &p->f);
        if (r != 0) return r;
        g->fds[g->n++] = fd;
        (void)json_array_append_new(g->names, json_string("password"));
    }
    return 0;
}

/* ---- add and update ------------------------------------------------------------------------------------ */

static int send_change(struct rs_provider_run *p, const char *method, json_t *args, json_t *config)
{
    struct given g;
    int r = open_secrets(p, &g);
    if (r == 0) {
        (void)json_object_set(args, "config", config);
        if (g.n != 0) (void)json_object_set(args, "secrets", g.names);
        if (p->o.is_default) (void)json_object_set_new(args, "default", json_true());
        r = rs_provider_call(p, method, json_incref(args), g.fds, g.n, &p->result, NULL);
    }
    given_free(&g);
    json_decref(args);
    json_decref(config);
    return r;
}

/* Members that are null mean nothing in a new configuration. */
static void drop_nulls(json_t *config)
{
    void *next;
    const char *name;
    json_t *value;
    json_object_foreach_safe(config, next, name, value) if (json_is_null(value))(void)
        json_object_del(config, name);
}

/* The published file as it is: the service checks it. */
static int set_published(struct rs_provider_run *p, json_t *config)
{
    json_error_t error;
    json_t *published = json_load_file(p->o.trusted, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(published)) {
        json_decref(published);
        return rs_failure_set(&p->f, RS_EXIT_FORMAT,
                              "%s: is not what 'reseal-keyproviderd --publish' prints: %s", p->o.trusted,
                              error.text[0] != '\0' ? error.text : "no object");
    }
    (void)json_object_update(config, published);
    json_decref(published);
    if (p->o.tpm != NULL) (void)json_object_set_new(config, "tpm", json_string(p->o.tpm));
    return 0;
}

static void say_added(const struct rs_provider_run *p, bool native)
{
    if (p->o.json) return;
    const char *name = rs_provider_member(p->result, "name");
    printf("key provider %s was added%s\n", name,
           json_is_true(json_object_get(p->result, "default")) ? "; it is the default" : "");
    if (native)
        printf("it can be used once it has a backup: reseal provider export %s --output %s.p12\n", name,
               name);
    else if (p->o.cert == NULL && p->o.trusted == NULL)
        printf("it has no client certificate yet: reseal provider csr %s\n", name);
    else
        printf("to see whether its servers answer: reseal provider test %s\n", name);
}

int rs_provider_add(struct rs_provider_run *p)
{
    const struct rs_provider_options *o = &p->o;
    bool standard_options =
        o->nservers != 0 || o->ca || o->fingerprint || o->cert || o->key || o->user || o->kmip || o->proxy;
    if ((o->trusted != NULL && (standard_options || o->native)) || (o->tpm != NULL && o->trusted == NULL))
        return rs_failure_set(&p->f, RS_EXIT_USAGE,
                              "--trusted and --tpm go together, without --native and the options of servers");
    if (o->native && standard_options)
        return rs_failure_set(
            &p->f, RS_EXIT_USAGE,
            "a native provider has no server: leave out --native, or the options of servers");
    if (!o->native && o->trusted == NULL && o->nservers == 0)
        return rs_failure_set(
            &p->f, RS_EXIT_USAGE,
            "which kind? --native, --server HOST[:PORT] for a KMIP key server, or --trusted FILE");
    if ((o->cert == NULL) != (o->key == NULL))
        return rs_failure_set(
            &p->f, RS_EXIT_USAGE,
            "--cert and --key go together; without both, 'reseal provider csr' makes a key");
    json_t *config = json_object();
    int r = set_config(p, false, config);
    if (r == 0 && o->trusted != NULL) r = set_published(p, config);
    if (r != 0) {
        json_decref(config);
        return r;
    }
    drop_nulls(config);
    const char *kind = o->native ? "native" : o->trusted != NULL ? "trusted" : "standard";
    json_t *args = json_pack("{s:s, s:s}", "name", o->name, "kind", kind);
    if (o->shared) (void)json_object_set_new(args, "shared", json_true());
    r = send_change(p, "provider.add", args, config);
    if (r == 0) say_added(p, o->native);
    return r;
}

int rs_provider_update(struct rs_provider_run *p)
{
    json_t *config = json_object();
    int r = set_config(p, true, config);
    if (r != 0) {
        json_decref(config);
        return r;
    }
    r = send_change(p, "provider.update", json_pack("{s:s}", "provider", p->o.name), config);
    if (r == 0 && !p->o.json) printf("key provider %s was changed\n", p->o.name);
    return r;
}

/* ---- certificates ----------------------------------------------------------------------------------------
 */

int rs_provider_certificate(struct rs_provider_run *p)
{
    RS_FREE char *pem = NULL;
    if (p->o.cert == NULL) return rs_failure_set(&p->f, RS_EXIT_USAGE, "which certificate? --cert FILE");
    if (p->o.key != NULL) return rs_provider_update(p);
    int r = rs_provider_text(p->o.cert, &pem, &p->f);
    if (r == 0)
        r = rs_provider_call(p, "provider.certificate",
                             json_pack("{s:s, s:s}", "provider", p->o.name, "certificate", pem), NULL, 0,
                             &p->result, NULL);
    if (r == 0 && !p->o.json) {
        const json_t *client = json_object_get(json_object_get(p->result, "config"), "client");
        printf("key provider %s shows its servers the certificate of %s, until %s\n", p->o.name,
               rs_provider_member(client, "subject"), rs_provider_member(client, "expires"));
    }
    return r;
}

static int write_new(const char *path, const char *text, struct rs_failure *f)
{
    RS_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) return rs_failure_errno(f, errno, "make", path);
    int r = rs_write_full(fd, text, strlen(text));
    return r == 0 ? 0 : rs_failure_errno(f, r, "write", path);
}

int rs_provider_csr(struct rs_provider_run *p)
{
    const char *subject = p->o.subject != NULL ? p->o.subject : "";
    int r = rs_provider_call(p, "provider.csr",
                             json_pack("{s:s, s:s}", "provider", p->o.name, "subject", subject), NULL, 0,
                             &p->result, NULL);
    if (r != 0) return r;
    const char *csr = rs_provider_member(p->result, "csr");
    if (p->o.output != NULL) r = write_new(p->o.output, csr, &p->f);
    if (r != 0 || p->o.json) return r;
    if (p->o.output == NULL)
        fputs(csr, stdout);
    else
        printf("have %s signed, then: reseal provider certificate %s --cert FILE\n", p->o.output, p->o.name);
    return 0;
}

/* ---- trust, default, remove
 * --------------------------------------------------------------------------------- */

/* The servers that are configured, shown and confirmed one after the other. */
static int confirm_all(struct rs_provider_run *p)
{
    json_t *shown = NULL, *server, *fingerprint;
    size_t i;
    int r = rs_provider_call(p, "provider.show", json_pack("{s:s}", "provider", p->o.name), NULL, 0, &shown,
                             NULL);
    if (r != 0) return r;
    const json_t *config = json_object_get(shown, "config");
    const char *proxy = json_string_value(json_object_get(config, "proxy"));
    json_t *list = json_array(), *known = json_object_get(config, "fingerprints");
    if (known != NULL) (void)json_array_extend(list, known);
    size_t before = json_array_size(list);
    json_array_foreach(json_object_get(config, "servers"), i, server) if (r == 0) r =
        confirm_one(p, json_string_value(server), proxy, list);
    json_array_foreach(list, i, fingerprint)
    {
        if (i < before || r != 0) continue;
        json_decref(p->result);
        p->result = NULL;
        r = rs_provider_call(p, "provider.trust",
                             json_pack("{s:s, s:O}", "provider", p->o.name, "fingerprint", fingerprint), NULL,
                             0, &p->result, NULL);
    }
    if (r == 0 && !p->o.json)
        printf(json_array_size(list) > before ? "the certificates are trusted now\n"
                                              : "the servers show certificates that are trusted already\n");
    json_decref(list);
    json_decref(shown);
    return r;
}

int rs_provider_trust(struct rs_provider_run *p)
{
    RS_FREE char *pem = NULL;
    if (p->o.ca != NULL && p->o.fingerprint != NULL)
        return rs_failure_set(&p->f, RS_EXIT_USAGE, "--ca and --fingerprint: give one of them");
    if (p->o.ca == NULL && p->o.fingerprint == NULL) return confirm_all(p);
    int r = p->o.ca != NULL ? rs_provider_text(p->o.ca, &pem, &p->f) : 0;
    if (r != 0) return r;
    json_t *args = json_pack("{s:s, s:s}", "provider", p->o.name, pem != NULL ? "ca" : "fingerprint",
                             pem != NULL ? pem : p->o.fingerprint);
    return rs_provider_call(p, "provider.trust", args, NULL, 0, &p->result, NULL);
}

int rs_provider_default(struct rs_provider_run *p)
{
    return rs_provider_call(p, "provider.default", json_pack("{s:s}", "provider", p->o.name), NULL, 0,
                            &p->result, NULL);
}

int rs_provider_remove(struct rs_provider_run *p)
{
    json_t *args = json_pack("{s:s, s:b}", "provider", p->o.name, "force", p->o.force);
    return rs_provider_call(p, "provider.remove", args, NULL, 0, &p->result, NULL);
}
