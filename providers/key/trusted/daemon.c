/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/trusted/daemon.h"

#include "offload/base/keymem.h"
#include "offload/base/sandbox.h"
#include "providers/key/wire/dial.h"
#include "reseal/reseal.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXIT_USAGE 2
#define FILE_MAX   (1u << 20)
#define PUBLISHED  "published.json"
#define IDENTITY   "identity"

static const char *const calls[] = {
    RS_CALLS_OF_ALL, "pread64",     "writev",      "openat",     "open",        "lseek",     "fstat",
    "newfstatat",    "stat",        "statx",       "fcntl",      "flock",       "mkdirat",   "rename",
    "renameat",      "renameat2",   "unlink",      "unlinkat",   "fsync",       "fdatasync", "ftruncate",
    "fchmod",        "getdents64",  "recvfrom",    "sendto",     "accept4",     "shutdown",  "getsockopt",
    "setsockopt",    "getsockname", "getpeername", "epoll_wait", "epoll_pwait", "epoll_ctl", "rt_sigaction",
    "access",        "faccessat",   "faccessat2",  "uname",      "sysinfo",     "poll",      "ppoll",
    "tgkill",        NULL,
};

/* ---- lines --------------------------------------------------------------------------- */

static void print_line(const struct rs_daemon *d, const char *format, va_list args)
{
    char line[1024];
    int n = snprintf(line, sizeof(line), "%s: ", d->name);
    (void)vsnprintf(line + n, sizeof(line) - (size_t)n, format, args);
    for (char *p = line; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 127) *p = '?';
    (void)fprintf(stderr, "%s\n", line);
}

void rs_daemon_log(const struct rs_daemon *d, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line(d, format, args);
    va_end(args);
}

void rs_daemon_die(const struct rs_daemon *d, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line(d, format, args);
    va_end(args);
    exit(1);
}

/* ---- configuration --------------------------------------------------------------------- */

const char *rs_daemon_text(const struct rs_daemon *d, const char *name, const char *otherwise)
{
    const json_t *v = json_object_get(d->config, name);
    if (v == NULL && otherwise != NULL) return otherwise;
    if (!json_is_string(v) || json_string_length(v) == 0 || json_string_length(v) >= 4096)
        rs_daemon_die(d, "configuration: \"%s\" must be a text", name);
    return json_string_value(v);
}

int64_t rs_daemon_number(const struct rs_daemon *d, const char *name, int64_t least, int64_t most,
                         int64_t otherwise)
{
    const json_t *v = json_object_get(d->config, name);
    if (v == NULL) return otherwise;
    if (!json_is_integer(v) || json_integer_value(v) < least || json_integer_value(v) > most)
        rs_daemon_die(d, "configuration: \"%s\" must be a number from %lld to %lld", name, (long long)least,
                      (long long)most);
    return json_integer_value(v);
}

char *rs_daemon_file(const char *path, size_t max, bool secret, size_t *len, char *why, size_t why_len)
{
    struct stat st;
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) {
        (void)snprintf(why, why_len, "%s: %s", path, strerror(errno));
        return NULL;
    }
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > max) {
        (void)snprintf(why, why_len, "%s: no file, or longer than %zu bytes", path, max);
        return NULL;
    }
    if (secret && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        (void)snprintf(why, why_len, "%s: others may read it: chmod 600 it, and think about a new key", path);
        return NULL;
    }
    *len = (size_t)st.st_size;
    char *bytes = rs_keymem_alloc(*len + 1);
    if (bytes == NULL || rs_read_full(fd, bytes, *len) != 0) {
        (void)snprintf(why, why_len, "%s: cannot be read", path);
        rs_keymem_free(bytes);
        return NULL;
    }
    return bytes;
}

static void read_config(struct rs_daemon *d, const char *path)
{
    char why[512];
    size_t len;
    json_error_t error;
    char *text = rs_daemon_file(path, FILE_MAX, false, &len, why, sizeof(why));
    if (text == NULL) rs_daemon_die(d, "configuration: %s", why);
    d->config = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    rs_keymem_free(text);
    if (!json_is_object(d->config))
        rs_daemon_die(d, "configuration %s: line %d: %s", path, error.line, error.text);
}

/* ---- start --------------------------------------------------------------------------- */

/* The TLS key and its certificate: made once, then the same, since others know them by the key's hash. */
static void identity(struct rs_daemon *d)
{
    const char *cert = NULL;
    int err = rs_store_get_secrets(d->store, IDENTITY, &d->secrets);
    if (err == RESEAL_ENOKEY) {
        char *made_cert, *made_key;
        if (rs_wire_make_identity(d->name, &made_cert, &made_key) != 0)
            rs_daemon_die(d, "no TLS key can be made");
        if (rs_secrets_put(&d->secrets, "cert", made_cert, strlen(made_cert)) != 0 ||
            rs_secrets_put(&d->secrets, "key", made_key, strlen(made_key)) != 0 ||
            rs_store_put_secrets(d->store, IDENTITY, &d->secrets) != 0)
            rs_daemon_die(d, "the TLS key cannot be written to the state folder");
        OPENSSL_free(made_cert);
        OPENSSL_clear_free(made_key, strlen(made_key));
        err = 0;
    }
    if (err == 0) cert = rs_secrets_text(&d->secrets, "cert");
    d->key = rs_secrets_text(&d->secrets, "key");
    d->cert = cert == NULL ? NULL : OPENSSL_strdup(cert);
    if (d->cert == NULL || d->key == NULL || rs_wire_identity_of_pem(d->cert, &d->id) != 0)
        rs_daemon_die(d, "the TLS key in the state folder cannot be read: %s",
                      err != 0 ? reseal_strerror(err) : "damaged");
}

static RS_NORETURN void usage(const char *help, int code)
{
    (void)fputs(help, code == 0 ? stdout : stderr);
    exit(code);
}

/* What a running one has published already: its state folder is in use. */
static void print_published(const struct rs_daemon *d)
{
    char path[4200], why[512];
    size_t len;
    (void)snprintf(path, sizeof(path), "%s/" PUBLISHED, rs_daemon_text(d, "state", NULL));
    char *text = rs_daemon_file(path, FILE_MAX, false, &len, why, sizeof(why));
    if (text == NULL) return;
    json_t *v = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(v)) rs_daemon_die(d, "%s: is damaged: remove it and start the service", path);
    (void)json_dumpf(v, stdout, JSON_INDENT(2));
    (void)fputc('\n', stdout);
    json_decref(v);
    json_decref(d->config);
    rs_keymem_free(text);
    exit(fflush(stdout) == 0 ? 0 : 1);
}

bool rs_daemon_start(struct rs_daemon *d, const char *name, const char *help, int argc, char **argv)
{
    static const struct option names[] = {{"config", required_argument, NULL, 'c'},
                                          {"publish", no_argument, NULL, 'p'},
                                          {"help", no_argument, NULL, 'h'},
                                          {"version", no_argument, NULL, 'v'},
                                          {NULL, 0, NULL, 0}};
    const char *path = NULL;
    bool publish = false;
    char why[512];
    *d = (struct rs_daemon){.name = name, .listener = -1};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (c == 'c') path = optarg;
        if (c == 'p') publish = true;
        if (c == 'h') usage(help, 0);
        if (c == 'v') {
            (void)printf("%s %s\n", name, RESEAL_VERSION);
            exit(0);
        }
        if (c == '?') usage(help, EXIT_USAGE);
    }
    if (path == NULL || optind != argc) usage(help, EXIT_USAGE);
    if (rs_daemon_key_memory() != 0) rs_daemon_die(d, "no memory for keys: raise RLIMIT_MEMLOCK");
    (void)signal(SIGPIPE, SIG_IGN);
    struct rs_protections p = {0};
    rs_sandbox_process(&p);
    read_config(d, path);
    if (publish) print_published(d);
    if (rs_store_open(rs_daemon_text(d, "state", NULL), NULL, &d->store, why, sizeof(why)) != 0)
        rs_daemon_die(d, "%s", why);
    identity(d);
    return publish;
}

void rs_daemon_listen(struct rs_daemon *d)
{
    struct rs_wire_error error;
    char host[RS_WIRE_HOST_MAX];
    uint16_t port;
    const char *listen = rs_daemon_text(d, "listen", NULL);
    d->listener = rs_wire_listen(listen, &port, &error);
    if (d->listener < 0) rs_daemon_die(d, "%s", error.why);
    if (!rs_wire_split(listen, 0, host, &port)) rs_daemon_die(d, "listen: '%s'", listen);
    port = rs_wire_port(d->listener);
    (void)snprintf(d->address, sizeof(d->address), strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u", host,
                   port);
    rs_daemon_log(d, "listening on %s; key memory: %s", d->address, rs_keymem_kind_name());
}

void rs_daemon_publish(struct rs_daemon *d, json_t *published)
{
    const char *listen = d->address[0] != '\0' ? d->address : rs_daemon_text(d, "listen", NULL);
    const char *address = rs_daemon_text(d, "address", listen);
    if (strncmp(address, "0.0.0.0:", 8) == 0 || strncmp(address, "[::]:", 5) == 0)
        rs_daemon_die(
            d, "configuration: \"address\" must say where others reach it: \"listen\" names no address");
    if (published == NULL || json_object_set_new(published, "kind", json_string(d->name)) != 0 ||
        json_object_set_new(published, "version", json_integer(1)) != 0 ||
        json_object_set_new(published, "address", json_string(address)) != 0 ||
        json_object_set_new(published, "spki", rs_wire_json(d->id.spki, RS_WIRE_HASH_LEN)) != 0 ||
        rs_store_put_json(d->store, PUBLISHED, published) != 0)
        rs_daemon_die(d, "what it publishes cannot be written to the state folder");
    json_decref(published);
}

void rs_daemon_print(const struct rs_daemon *d)
{
    print_published(d);
    rs_daemon_die(d, "nothing is published yet: start the service once");
}

/* ---- serving ------------------------------------------------------------------------- */

static void confine(const struct rs_daemon *d)
{
    struct rs_protections p = {0};
    const struct rs_path paths[] = {
        {rs_daemon_text(d, "state", NULL), RS_PATH_READ | RS_PATH_WRITE | RS_PATH_MAKE},
        {"/dev/urandom", RS_PATH_READ},
        {"/etc/localtime", RS_PATH_READ},
        {NULL, 0}};
    rs_sandbox_process(&p);
    rs_sandbox_capabilities(&p, 0);
    if (rs_sandbox_files(&p, paths, RS_SANDBOX_SCOPE_SIGNALS) != 0 || rs_sandbox_calls(&p, calls) != 0)
        rs_daemon_die(d, "the sandbox cannot be set up");
    rs_daemon_log(d, "protections: files %s, system calls %s", p.landlock > 0 ? "yes" : "no",
                  p.seccomp ? "yes" : "no");
}

void rs_daemon_serve(struct rs_daemon *d, rs_wire_handle *handle, void (*tick)(void *arg), void *arg)
{
    struct rs_wire_error error;
    const struct rs_wire_server_config config = {.listener = d->listener,
                                                 .trust = {.any = true, .cert = d->cert, .key = d->key},
                                                 .handle = handle,
                                                 .connections = 32,
                                                 .arg = arg};
    if (rs_wire_server_open(&d->server, &config, &error) != 0) rs_daemon_die(d, "%s", error.why);
    confine(d);
    rs_daemon_log(d, "ready");
    for (;;) {
        if (tick != NULL) tick(arg);
        rs_wire_server_work(d->server, tick != NULL ? 1000 : -1);
    }
}

bool rs_daemon_revoked(const struct rs_daemon *d, const char *host)
{
    char path[4200], why[512];
    size_t len;
    (void)snprintf(path, sizeof(path), "%s/revoked", rs_daemon_text(d, "state", NULL));
    if (access(path, F_OK) != 0 && errno == ENOENT) return false;
    char *text = rs_daemon_file(path, FILE_MAX, false, &len, why, sizeof(why));
    bool found = text == NULL; /* a list that cannot be read allows nobody */
    if (found) rs_daemon_log(d, "revoked hosts: %s", why);
    for (char *rest = text, *line; rest != NULL && (line = strsep(&rest, "\n")) != NULL;) {
        line[strcspn(line, " \t\r#")] = '\0';
        found |= strcmp(line, host) == 0;
    }
    rs_keymem_free(text);
    return found;
}
