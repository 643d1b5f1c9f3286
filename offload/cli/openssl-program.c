/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/openssl.h"

#include <stdio.h>
#include <stdlib.h>

#include "bench/command.h"
#include "offload/cli/exit.h"

/* The text after `key` in a line that begins with it, up to `end`. */
static void value_of(const char *text, const char *key, char end, char *out, size_t len)
{
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, key, strlen(key)) != 0) continue;
        line += strlen(key);
        size_t n = 0;
        while (line[n] != '\0' && line[n] != '\n' && line[n] != end) n++;
        snprintf(out, len, "%.*s", (int)n, line);
        return;
    }
}

/* "OpenSSL 3.0.22 25 Aug 2026 (Library: OpenSSL 3.0.22 25 Aug 2026)": the library is what counts. */
static void read_version(struct rs_openssl *o, const char *text)
{
    static const char name[] = "OpenSSL ", library[] = "(Library: OpenSSL ";
    const char *at = strstr(text, library);
    if (at != NULL)
        at += sizeof(library) - 1;
    else if (strncmp(text, name, sizeof(name) - 1) == 0)
        at = text + sizeof(name) - 1;
    else
        return;
    snprintf(o->version, sizeof(o->version), "%.*s", (int)strcspn(at, " )\n"), at);
    unsigned long major = strtoul(o->version, NULL, 10);
    o->major = major < 100 ? (unsigned)major : 0;
}

/*
 * The libcrypto that the program starts with, by the loader's own word. It is
 * asked this way, as the program may be a script that starts another one.
 */
static void find_library(struct rs_openssl *o)
{
    static const char key[] = "calling init: ";
    struct rs_command_text t;
    if (rs_command_output((const char *const[]){o->program, "version", NULL},
                          (const char *const[]){"LD_DEBUG=libs", "LD_DEBUG_OUTPUT", NULL}, 30, &t) != 0)
        return;
    for (const char *at = t.err; (at = strstr(at, key)) != NULL;) {
        at += sizeof(key) - 1;
        int n = (int)strcspn(at, "\n");
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "%.*s", n, at);
        const char *file = strrchr(path, '/');
        if (file == NULL || strncmp(file, "/libcrypto.so", 13) != 0) continue;
        if (realpath(path, o->library) == NULL) o->library[0] = '\0';
    }
    rs_command_text_free(&t);
}

static int check_version(struct rs_openssl_check *c, const struct rs_command_text *t)
{
    struct rs_openssl *o = &c->o;
    static const char other[] = "name the program of an OpenSSL 3.0 or newer with --openssl";
    if (t->status != 0)
        return rs_openssl_fails(c, RS_EXIT_SERVICE, "openssl", other,
                                "%.100s does not run: 'version -a' is exit code %d", o->program, t->status);
    read_version(o, t->out);
    if (o->major == 0)
        return rs_openssl_fails(c, RS_EXIT_SERVICE, "openssl", other,
                                "%.100s is not OpenSSL: it calls itself '%.*s'", o->program,
                                (int)RS_MIN(strcspn(t->out, "\n"), 60u), t->out);
    if (o->major < 3)
        return rs_openssl_fails(c, RS_EXIT_SERVICE, "openssl", other,
                                "%.100s is OpenSSL %.20s: providers came with 3.0", o->program, o->version);
    value_of(t->out, "OPENSSLDIR: \"", '"', o->dir, sizeof(o->dir));
    value_of(t->out, "MODULESDIR: \"", '"', o->modules, sizeof(o->modules));
    return 0;
}

int rs_openssl_find_program(struct rs_openssl_check *c)
{
    struct rs_openssl *o = &c->o;
    if (rs_command_find(c->program, o->program, sizeof(o->program)) != 0)
        return rs_openssl_fails(c, RS_EXIT_SERVICE, "openssl",
                                "apt-get install openssl, or --openssl PROGRAM",
                                "there is no program '%.150s'", c->program);
    struct rs_command_text t;
    if (rs_command_output((const char *const[]){o->program, "version", "-a", NULL}, NULL, 30, &t) != 0)
        return rs_openssl_fails(c, RS_EXIT_FAILED, "openssl", "", "no process or no memory to ask it");
    int r = check_version(c, &t);
    rs_command_text_free(&t);
    if (r != 0) return r;
    find_library(o);
    rs_find(&c->f, "openssl", RS_FINDING_OK, "%.80s %.20s, %.90s", o->program, o->version,
            o->library[0] == '\0' ? "without a shared library" : o->library);
    return 0;
}
