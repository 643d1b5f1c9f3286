/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/trusted/primary.h"

#include "offload/base/clock.h"
#include "offload/base/keymem.h"
#include "offload/base/sandbox.h"
#include "providers/key/standard/kmip-client.h"
#include "providers/key/standard/provider.h"
#include "providers/key/wire/dial.h"
#include "reseal/reseal.h"

#include <errno.h>
#include <openssl/hmac.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define FILE_LEN  RS_NATIVE_KDK_LEN
#define PEM_MAX   (64u << 10)
#define RETRY_NS  (UINT64_C(5) * 1000000000u)
#define KMIP_PORT 5696u
#define CACHE_S   3600

/* What the helper answers. */
struct reply {
    uint32_t index;
    int32_t status;
    int64_t ends[2];
    uint8_t key[RS_NATIVE_KDK_LEN];
    char why[256];
};

/* A key names itself, by a version 8 UUID of ours. */
static void name_itself(struct rs_native_kdk *kdk)
{
    static const char label[] = "reseal trusted provider v1";
    uint8_t mac[32];
    (void)HMAC(EVP_sha256(), kdk->key, sizeof(kdk->key), (const uint8_t *)label, sizeof(label) - 1, mac,
               NULL);
    memcpy(kdk->uuid, mac, sizeof(kdk->uuid));
    kdk->uuid[6] = (uint8_t)((kdk->uuid[6] & 0x0f) | 0x80);
    kdk->uuid[8] = (uint8_t)((kdk->uuid[8] & 0x3f) | 0x80);
}

/* ---- files ----------------------------------------------------------------------------- */

static void from_file(struct rs_daemon *d, struct rs_primary *p, const char *path)
{
    size_t len;
    char *bytes = rs_daemon_file(path, FILE_LEN, true, &len, p->why, sizeof(p->why));
    if (bytes == NULL) rs_daemon_die(d, "primary key: %s", p->why);
    if (len != FILE_LEN)
        rs_daemon_die(d, "primary key %s: wants %u bytes: make one with 'openssl rand -out FILE %u'", path,
                      FILE_LEN, FILE_LEN);
    memcpy(p->kdk->key, bytes, FILE_LEN);
    rs_keymem_free(bytes);
    name_itself(p->kdk);
    p->ready = p->from_file = true;
    p->until_ns = UINT64_MAX;
}

/* ---- the helper: one KMIP server set for each key ------------------------------------------ */

struct source {
    const json_t *kmip; /* NULL: a file */
    char *ca, *cert, *key, *password;
    char hosts[RS_KMIP_SERVERS_MAX][RS_KMIP_HOST_MAX];
    struct rs_kmip_config config;
};

static char *named_file(struct rs_daemon *d, const json_t *o, const char *name, bool secret)
{
    const char *path = json_string_value(json_object_get(o, name));
    char why[512];
    size_t len;
    if (path == NULL) return NULL;
    char *text = rs_daemon_file(path, PEM_MAX, secret, &len, why, sizeof(why));
    if (text == NULL) rs_daemon_die(d, "primary key: %s: %s", name, why);
    return text;
}

static void read_source(struct rs_daemon *d, struct source *s, const json_t *kmip)
{
    const json_t *servers = json_object_get(kmip, "servers");
    s->kmip = kmip;
    s->ca = named_file(d, kmip, "ca", false);
    s->cert = named_file(d, kmip, "certificate", false);
    s->key = named_file(d, kmip, "key", true);
    s->password = named_file(d, kmip, "password", true);
    if (s->password != NULL) s->password[strcspn(s->password, "\r\n")] = '\0';
    s->config.user = json_string_value(json_object_get(kmip, "user"));
    s->config.password = s->password;
    s->config.trust = (struct rs_kmip_trust){.ca = s->ca, .cert = s->cert, .key = s->key};
    for (unsigned i = 0; i < json_array_size(servers) && i < RS_KMIP_SERVERS_MAX; i++) {
        const char *text = json_string_value(json_array_get(servers, i));
        uint16_t port;
        if (text == NULL || !rs_wire_split(text, KMIP_PORT, s->hosts[i], &port))
            rs_daemon_die(d, "primary key: \"servers\" wants texts HOST:PORT");
        s->config.servers[i] = (struct rs_kmip_address){.host = s->hosts[i], .port = port};
        s->config.nservers++;
    }
    if (s->config.nservers == 0 || s->ca == NULL || json_string_value(json_object_get(kmip, "id")) == NULL)
        rs_daemon_die(d, "primary key: \"kmip\" wants \"servers\", \"ca\" and \"id\", the key's id there");
}

static void fetch(struct source *s, struct reply *r)
{
    struct rs_kmip_client *c = NULL;
    RS_KEYMEM struct rs_kmip_key *key = rs_keymem_alloc(sizeof(*key));
    r->status = key == NULL ? RESEAL_ENOMEM : rs_kmip_client_open(&c, &s->config);
    if (r->status == 0)
        r->status = rs_kmip_fetch(c, json_string_value(json_object_get(s->kmip, "id")), 256, NULL, key);
    if (r->status == 0)
        memcpy(r->key, key->bytes, sizeof(r->key));
    else
        (void)snprintf(r->why, sizeof(r->why), "%s",
                       c != NULL && rs_kmip_client_error(c)->why[0] != '\0' ? rs_kmip_client_error(c)->why
                                                                            : reseal_strerror(r->status));
    if (s->cert != NULL) r->ends[0] = rs_standard_expires(s->cert);
    if (c != NULL) r->ends[1] = rs_kmip_client_expires(c);
    rs_kmip_client_close(c);
}

static const struct rs_path helper_paths[] = {
    {"/dev/urandom", RS_PATH_READ}, {"/etc", RS_PATH_READ}, {"/run/systemd/resolve", RS_PATH_READ},
    {"/usr/lib", RS_PATH_READ},     {"/lib", RS_PATH_READ}, {NULL, 0}};

/* Answers requests for keys, each a number, until the other end goes. */
static RS_NORETURN void answer(int sock, struct source *sources, unsigned n)
{
    struct reply *r = rs_keymem_alloc(sizeof(*r));
    uint32_t index;
    while (r != NULL && recv(sock, &index, sizeof(index), 0) == (ssize_t)sizeof(index)) {
        memset(r, 0, sizeof(*r));
        r->index = index;
        if (index < n && sources[index].kmip != NULL)
            fetch(&sources[index], r);
        else
            r->status = RESEAL_EINVAL;
        if (send(sock, r, sizeof(*r), MSG_NOSIGNAL) != (ssize_t)sizeof(*r)) break;
        rs_wipe(r, sizeof(*r));
    }
    _exit(0);
}

/* Its first message is the list of primary keys. Credentials of key servers are in the helper alone: it reads
 * them itself, and then says so with one byte. */
void rs_primaries_help(void)
{
    static char text[PEM_MAX];
    const int sock = STDIN_FILENO;
    struct rs_daemon d = {.name = "reseal-keyproviderd"};
    struct rs_protections p = {0};
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    ssize_t len = recv(sock, text, sizeof(text), 0);
    struct source *sources = calloc(RS_PRIMARIES_MAX, sizeof(*sources));
    if (len <= 0) exit(2); /* not started by the service */
    if (sources == NULL || rs_daemon_key_memory() != 0)
        rs_daemon_die(&d, "the helper has no memory for keys");
    json_t *list = json_loadb(text, (size_t)len, 0, NULL);
    unsigned n = RS_MIN((unsigned)json_array_size(list), RS_PRIMARIES_MAX);
    for (unsigned i = 0; i < n; i++) {
        const json_t *kmip = json_object_get(json_array_get(list, i), "kmip");
        if (kmip != NULL) read_source(&d, &sources[i], kmip);
    }
    rs_sandbox_process(&p);
    rs_sandbox_capabilities(&p, 0);
    if (rs_sandbox_files(&p, helper_paths, RS_SANDBOX_SCOPE_SIGNALS | RS_SANDBOX_CONNECT_TCP) != 0)
        rs_daemon_die(&d, "the helper cannot be confined");
    if (send(sock, "", 1, MSG_NOSIGNAL) != 1) exit(0);
    answer(sock, sources, n);
}

/* The same program, begun anew: a child has no key memory of its parent. */
static void start_helper(struct rs_primaries *p)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        rs_daemon_die(p->daemon, "no helper can be started: %s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0) rs_daemon_die(p->daemon, "no helper can be started: %s", strerror(errno));
    if (pid == 0) {
        if (dup2(pair[1], STDIN_FILENO) == STDIN_FILENO)
            execl("/proc/self/exe", "reseal-keyproviderd", RS_PRIMARIES_HELPER, NULL);
        _exit(127);
    }
    close(pair[1]);
    p->helper = pair[0];
}

/* It has said itself what is wrong. */
static void instruct_helper(struct rs_primaries *p, const json_t *list)
{
    char text[PEM_MAX], ready;
    size_t len = json_dumpb(list, text, sizeof(text), JSON_COMPACT);
    if (len == 0 || len > sizeof(text)) rs_daemon_die(p->daemon, "configuration: \"primaries\" is too long");
    if (send(p->helper, text, len, MSG_NOSIGNAL) != (ssize_t)len || recv(p->helper, &ready, 1, 0) != 1)
        exit(1);
}

/* ---- opening ------------------------------------------------------------------------------- */

void rs_primaries_open(struct rs_primaries *p, struct rs_daemon *d)
{
    const json_t *list = json_object_get(d->config, "primaries");
    bool kmip = false;
    *p = (struct rs_primaries){.daemon = d, .helper = -1, .n = (unsigned)json_array_size(list)};
    p->cache_ns = (uint64_t)rs_daemon_number(d, "cache_s", 1, 86400, CACHE_S) * 1000000000u;
    if (p->n == 0 || p->n > RS_PRIMARIES_MAX)
        rs_daemon_die(
            d, "configuration: \"primaries\" wants 1 to %u keys, {\"file\": PATH} or {\"kmip\": {...}}",
            RS_PRIMARIES_MAX);
    for (unsigned i = 0; i < p->n; i++) {
        const json_t *one = json_array_get(list, i);
        const char *path = json_string_value(json_object_get(one, "file"));
        p->at[i].kdk = rs_keymem_alloc(sizeof(*p->at[i].kdk));
        if (p->at[i].kdk == NULL) rs_daemon_die(d, "out of key memory");
        if (path != NULL)
            from_file(d, &p->at[i], path);
        else if (json_is_object(json_object_get(one, "kmip")))
            kmip = true;
        else
            rs_daemon_die(d, "configuration: a primary key is {\"file\": PATH} or {\"kmip\": {...}}");
        if (path == NULL)
            (void)snprintf(p->at[i].why, sizeof(p->at[i].why), "its key server was not asked yet");
    }
    if (!kmip) return;
    start_helper(p);
    instruct_helper(p, list);
}

/* ---- asking ------------------------------------------------------------------------------------ */

static void take(struct rs_primaries *p, const struct reply *r)
{
    struct rs_primary *one = r->index < p->n ? &p->at[r->index] : NULL;
    p->waiting = false;
    if (one == NULL || one->from_file) return;
    for (unsigned i = 0; i < 2; i++)
        if (r->ends[i] != 0) one->ends[i] = r->ends[i];
    if (r->status != 0) {
        (void)snprintf(one->why, sizeof(one->why), "%.255s", r->why);
        rs_daemon_log(p->daemon, "primary key %u: %s", r->index, one->why);
        return;
    }
    memcpy(one->kdk->key, r->key, sizeof(r->key));
    name_itself(one->kdk);
    one->ready = true;
    one->until_ns = rs_now_ns() + p->cache_ns;
    rs_daemon_log(p->daemon, "primary key %u was fetched from its key server", r->index);
}

static void ask(struct rs_primaries *p, uint32_t index)
{
    p->at[index].asked_ns = rs_now_ns();
    p->waiting =
        send(p->helper, &index, sizeof(index), MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof(index);
}

void rs_primaries_tick(struct rs_primaries *p)
{
    uint64_t now = rs_now_ns();
    if (p->helper < 0) return;
    RS_KEYMEM struct reply *r = rs_keymem_alloc(sizeof(*r));
    ssize_t n = r != NULL ? recv(p->helper, r, sizeof(*r), MSG_DONTWAIT) : -1;
    /* Nobody else asks key servers, and a new one cannot be started from within the sandbox. */
    if (n == 0) rs_daemon_die(p->daemon, "the helper that asks key servers died: ending too, to begin anew");
    if (n == (ssize_t)sizeof(*r)) {
        r->why[sizeof(r->why) - 1] = '\0';
        take(p, r);
    }
    for (uint32_t i = 0; i < p->n; i++) {
        struct rs_primary *one = &p->at[i];
        if (one->from_file) continue;
        if (one->ready && now >= one->until_ns) {
            rs_wipe(one->kdk->key, sizeof(one->kdk->key));
            one->ready = false;
        }
        bool due = !one->ready || one->until_ns - now < p->cache_ns / 2;
        if (due && !p->waiting && (one->asked_ns == 0 || now - one->asked_ns > RETRY_NS)) ask(p, i);
    }
}

int64_t rs_primaries_end(const struct rs_primaries *p, unsigned whose)
{
    int64_t first = 0;
    for (unsigned i = 0; i < p->n; i++) {
        int64_t end = p->at[i].ends[whose];
        if (end != 0 && (first == 0 || end < first)) first = end;
    }
    return first;
}

struct rs_primary *rs_primaries_of(struct rs_primaries *p, const char *id)
{
    uint8_t uuid[RS_NATIVE_UUID_LEN];
    if (rs_native_owner(id, uuid) != 0) return NULL;
    for (unsigned i = 0; i < p->n; i++)
        if (memcmp(p->at[i].kdk->uuid, uuid, sizeof(uuid)) == 0) return &p->at[i];
    return NULL;
}
