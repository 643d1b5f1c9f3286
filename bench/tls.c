/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/tls.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "reseal/reseal.h"

#define RUNS_MAX  1000u
#define PAYLOAD   (16u * RS_TLS_WRITE) /* sent again and again, from the second cache */
#define DEADLINE  60                   /* seconds without a byte */
#define TOTAL_MAX (4ull << 30)
#define ORDER     9u         /* bytes of an order to the server: a length, and whether to compare */
#define ACROSS    (4u << 20) /* bytes, between one end of ours and one of the default provider */
#define GOOD      'g'
#define BAD       'b'

static const struct suite {
    const char *name, *cipher;
    int version;
    unsigned bits;
} suites[] = {
    {"TLS_AES_256_GCM_SHA384", "AES-256-GCM", TLS1_3_VERSION, 256},
    {"TLS_AES_128_GCM_SHA256", "AES-128-GCM", TLS1_3_VERSION, 128},
    {"ECDHE-ECDSA-AES256-GCM-SHA384", "AES-256-GCM", TLS1_2_VERSION, 256},
    {"ECDHE-ECDSA-AES128-GCM-SHA256", "AES-128-GCM", TLS1_2_VERSION, 128},
};

const char *const rs_tls_suites[] = {"TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256",
                                     "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256", NULL};

/* A connection. */
struct party {
    const struct suite *suite;
    const uint8_t *payload;
    SSL_CTX *server_ctx, *client_ctx;
    SSL *server, *client;
    int server_fd, client_fd;
    pthread_t thread;
    bool running;
    uint8_t *piece; /* of the server */
};

enum { OURS, THEIRS };

struct cost {
    double cpu, user; /* seconds */
};

/* ---- certificates ------------------------------------------------------------ */

static X509 *self_signed(OSSL_LIB_CTX *libctx, EVP_PKEY *key)
{
    X509 *x = X509_new_ex(libctx, NULL);
    if (x == NULL) return NULL;
    X509_NAME *name = X509_get_subject_name(x);
    if (X509_set_version(x, X509_VERSION_3) == 1 && ASN1_INTEGER_set(X509_get_serialNumber(x), 1) == 1 &&
        X509_gmtime_adj(X509_getm_notBefore(x), -3600) != NULL &&
        X509_gmtime_adj(X509_getm_notAfter(x), 24 * 3600) != NULL &&
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"reseal bench", -1, -1,
                                   0) == 1 &&
        X509_set_issuer_name(x, name) == 1 && X509_set_pubkey(x, key) == 1 &&
        X509_sign(x, key, EVP_sha256()) > 0)
        return x;
    X509_free(x);
    return NULL;
}

static SSL_CTX *new_ctx(const struct rs_evp_side *side, const SSL_METHOD *method, const struct suite *s)
{
    SSL_CTX *c = SSL_CTX_new_ex(side->libctx, side->properties, method);
    if (c == NULL) return NULL;
    bool new = s->version == TLS1_3_VERSION;
    /* As servers that care for throughput do it: a record with one system call instead of two. */
    SSL_CTX_set_read_ahead(c, 1);
    if (SSL_CTX_set_min_proto_version(c, s->version) == 1 &&
        SSL_CTX_set_max_proto_version(c, s->version) == 1 &&
        (new ? SSL_CTX_set_ciphersuites(c, s->name) : SSL_CTX_set_cipher_list(c, s->name)) == 1)
        return c;
    SSL_CTX_free(c);
    return NULL;
}

/* The client trusts this one certificate, and checks it. */
static int make_contexts(struct party *p, const struct rs_evp_side *server, const struct rs_evp_side *client)
{
    p->server_ctx = new_ctx(server, TLS_server_method(), p->suite);
    p->client_ctx = new_ctx(client, TLS_client_method(), p->suite);
    EVP_PKEY *key = EVP_PKEY_Q_keygen(server->libctx, NULL, "EC", "P-256");
    X509 *x = key == NULL ? NULL : self_signed(server->libctx, key);
    bool ok = x != NULL && p->server_ctx != NULL && p->client_ctx != NULL &&
              SSL_CTX_use_certificate(p->server_ctx, x) == 1 &&
              SSL_CTX_use_PrivateKey(p->server_ctx, key) == 1 &&
              X509_STORE_add_cert(SSL_CTX_get_cert_store(p->client_ctx), x) == 1;
    if (ok) {
        SSL_CTX_set_verify(p->client_ctx, SSL_VERIFY_PEER, NULL);
        SSL_CTX_set_num_tickets(p->server_ctx, 0);
    }
    X509_free(x);
    EVP_PKEY_free(key);
    return ok ? 0 : RESEAL_EIO;
}

/* ---- sockets -------------------------------------------------------------------- */

static bool set_up(int fd)
{
    int one = 1;
    struct timeval deadline = {.tv_sec = DEADLINE};
    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof(deadline)) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &deadline, sizeof(deadline)) == 0;
}

static int make_sockets(struct party *p)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(to);
    RS_CLOSE int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    p->client_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || p->client_fd < 0 || bind(listener, (struct sockaddr *)&to, sizeof(to)) != 0 ||
        listen(listener, 1) != 0 || getsockname(listener, (struct sockaddr *)&to, &len) != 0 ||
        connect(p->client_fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        return RESEAL_EIO;
    p->server_fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    return p->server_fd >= 0 && set_up(p->server_fd) && set_up(p->client_fd) ? 0 : RESEAL_EIO;
}

/* ---- the two ends ------------------------------------------------------------------ */

static bool read_all(SSL *s, uint8_t *to, size_t len)
{
    size_t n;
    for (size_t at = 0; at < len; at += n)
        if (SSL_read_ex(s, to + at, len - at, &n) != 1) return false;
    return true;
}

static bool write_all(SSL *s, const uint8_t *from, size_t len)
{
    size_t n;
    for (size_t at = 0; at < len; at += n)
        if (SSL_write_ex(s, from + at, len - at, &n) != 1) return false;
    return true;
}

/* Takes what one order announced; false when the connection ended. */
static bool receive(struct party *p, uint64_t len, bool compare, bool *right)
{
    for (uint64_t at = 0; at < len;) {
        size_t n, expected = (size_t)(at % PAYLOAD);
        if (SSL_read_ex(p->server, p->piece, (size_t)RS_MIN(len - at, (uint64_t)RS_TLS_WRITE), &n) != 1)
            return false;
        /* A read may cross the end of the payload, which repeats. */
        size_t first = RS_MIN(n, PAYLOAD - expected);
        if (compare && (memcmp(p->piece, p->payload + expected, first) != 0 ||
                        memcmp(p->piece + first, p->payload, n - first) != 0))
            *right = false;
        at += n;
    }
    return true;
}

static void *serve(void *arg)
{
    struct party *p = arg;
    uint8_t order[ORDER];
    if (SSL_accept(p->server) != 1) goto end;
    while (read_all(p->server, order, sizeof(order))) {
        bool right = true;
        if (!receive(p, rs_load_le64(order), order[8] != 0, &right)) break;
        uint8_t answer = right ? GOOD : BAD;
        if (!write_all(p->server, &answer, 1)) break;
    }
end:
    /* Whoever waits at the other end shall see that this one is gone. */
    shutdown(p->server_fd, SHUT_RDWR);
    ERR_clear_error();
    return NULL;
}

/* One transfer; false when it failed. *right: what the server says of the bytes. */
static bool transfer(struct party *p, uint64_t total, bool compare, bool *right)
{
    uint8_t order[ORDER], answer = 0;
    rs_store_le64(order, total);
    order[8] = compare;
    if (!write_all(p->client, order, sizeof(order))) return false;
    for (uint64_t at = 0; at < total; at += RS_TLS_WRITE)
        if (!write_all(p->client, p->payload + at % PAYLOAD, RS_TLS_WRITE)) return false;
    if (!read_all(p->client, &answer, 1)) return false;
    *right = *right && answer == GOOD;
    return true;
}

/* ---- a party -------------------------------------------------------------------------- */

static int open_party(struct party *p, const struct rs_evp_side *server, const struct rs_evp_side *client,
                      const struct suite *suite, const uint8_t *payload)
{
    *p = (struct party){.suite = suite, .payload = payload, .server_fd = -1, .client_fd = -1};
    p->piece = malloc(RS_TLS_WRITE);
    if (p->piece == NULL) return RESEAL_ENOMEM;
    int r = make_contexts(p, server, client);
    if (r == 0) r = make_sockets(p);
    if (r != 0) return r;
    p->server = SSL_new(p->server_ctx);
    p->client = SSL_new(p->client_ctx);
    if (p->server == NULL || p->client == NULL || SSL_set_fd(p->server, p->server_fd) != 1 ||
        SSL_set_fd(p->client, p->client_fd) != 1)
        return RESEAL_ENOMEM;
    p->running = pthread_create(&p->thread, NULL, serve, p) == 0;
    if (!p->running) return RESEAL_ENOMEM;
    if (SSL_connect(p->client) != 1) return RESEAL_EIO;
    return strcmp(SSL_get_cipher_name(p->client), suite->name) == 0 ? 0 : RESEAL_EIO;
}

static void close_party(struct party *p)
{
    if (p->client_fd >= 0) shutdown(p->client_fd, SHUT_RDWR);
    if (p->running) pthread_join(p->thread, NULL);
    SSL_free(p->server);
    SSL_free(p->client);
    SSL_CTX_free(p->server_ctx);
    SSL_CTX_free(p->client_ctx);
    if (p->server_fd >= 0) close(p->server_fd);
    if (p->client_fd >= 0) close(p->client_fd);
    free(p->piece);
}

/* ---- measuring ------------------------------------------------------------------------- */

static struct cost spent(void)
{
    struct timespec t;
    struct rusage used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    getrusage(RUSAGE_SELF, &used);
    return (struct cost){.cpu = (double)t.tv_sec + (double)t.tv_nsec / 1e9,
                         .user = (double)used.ru_utime.tv_sec + (double)used.ru_utime.tv_usec / 1e6};
}

struct series {
    double cpu[RUNS_MAX]; /* CPU seconds for 10^9 bytes */
    double user;          /* the same, of user mode, sum of all runs: the kernel counts it by ticks */
};

/* One sample, bytes counted but not looked at: that would be work that no application has. */
static int sample(struct party *p, uint64_t total, unsigned run, struct series *to)
{
    bool right = true;
    struct cost before = spent();
    if (!transfer(p, total, false, &right)) return RESEAL_EIO;
    struct cost after = spent();
    to->cpu[run] = (after.cpu - before.cpu) / ((double)total / 1e9);
    to->user += (after.user - before.user) / ((double)total / 1e9);
    return right ? 0 : RESEAL_EIO;
}

/* Nothing but a failure of ours is a wrong result; that the other side works is known by then. */
static int judge(unsigned which, int r, struct rs_result *out)
{
    if (r != RESEAL_EIO || which != OURS) return r;
    out->verified = false;
    ERR_clear_error();
    return 0;
}

/* Every byte that arrives. */
static int compare(struct party *p, uint64_t total, struct rs_result *out)
{
    return transfer(p, total, true, &out->verified) ? 0 : RESEAL_EIO;
}

static int compare_both(struct party *p, uint64_t total, struct rs_result *out)
{
    int r = judge(THEIRS, compare(&p[THEIRS], total, out), out);
    return r != 0 ? r : judge(OURS, compare(&p[OURS], total, out), out);
}

/* Two ends that are wrong in the same way understand each other: so each of ours talks to one of the default
 * provider first. */
static int compare_across(const struct rs_evp_sides *sides, const struct suite *suite, const uint8_t *payload,
                          struct rs_result *out)
{
    const struct rs_evp_side *ends[] = {&sides->ours, &sides->theirs, &sides->ours};
    int r = 0;
    for (unsigned i = 0; r == 0 && i < 2; i++) {
        struct party p;
        r = open_party(&p, ends[i], ends[i + 1], suite, payload);
        if (r == 0) r = compare(&p, ACROSS, out);
        close_party(&p);
        r = judge(OURS, r, out);
    }
    return r;
}

static void conclude(struct series *s, unsigned runs, struct rs_result *out)
{
    double ratio[RUNS_MAX];
    for (unsigned i = 0; i < runs; i++) ratio[i] = s[0].cpu[i] > 0 ? s[1].cpu[i] / s[0].cpu[i] : 0;
    out->ratio = rs_summarise(ratio, runs);
    out->cpu_s_per_gb = rs_median(s[0].cpu, runs);
    out->default_cpu_s_per_gb = rs_median(s[1].cpu, runs);
    out->user_cpu_s_per_gb = s[0].user / runs;
    out->default_user_cpu_s_per_gb = s[1].user / runs;
    out->runs = runs;
}

static int measure(struct party *p, uint64_t total, unsigned runs, struct rs_result *out)
{
    struct series *s = calloc(2, sizeof(*s));
    if (s == NULL) return RESEAL_ENOMEM;
    int r = compare_both(p, total, out);
    for (unsigned run = 0; r == 0 && run < runs; run++)
        for (unsigned i = 0; r == 0 && out->verified && i < 2; i++) {
            unsigned which = (run + i) % 2;
            r = judge(which, sample(&p[which], total, run, &s[which]), out);
        }
    if (r == 0 && out->verified) r = compare_both(p, total, out);
    if (r == 0 && out->verified) conclude(s, runs, out);
    free(s);
    return r;
}

static void say_why(char why[256], const char *what)
{
    unsigned long error = ERR_peek_error();
    const char *reason = error == 0 ? NULL : ERR_reason_error_string(error);
    snprintf(why, 256, "%s: %s", what, reason != NULL ? reason : "the connection over loopback failed");
    ERR_clear_error();
}

static int with_parties(const struct rs_evp_sides *sides, const struct suite *suite, uint64_t total,
                        unsigned runs, struct rs_result *out)
{
    uint8_t *payload = malloc(PAYLOAD);
    if (payload == NULL) return RESEAL_ENOMEM;
    struct party p[2] = {{.server_fd = -1, .client_fd = -1}, {.server_fd = -1, .client_fd = -1}};
    int r = getrandom(payload, PAYLOAD, 0) == (ssize_t)PAYLOAD ? 0 : RESEAL_EIO;
    out->verified = true;
    if (r == 0) r = open_party(&p[THEIRS], &sides->theirs, &sides->theirs, suite, payload);
    if (r == 0) r = compare_across(sides, suite, payload, out);
    if (r == 0 && out->verified)
        r = judge(OURS, open_party(&p[OURS], &sides->ours, &sides->ours, suite, payload), out);
    if (r == 0 && out->verified) r = measure(p, total, runs, out);
    close_party(&p[OURS]);
    close_party(&p[THEIRS]);
    free(payload);
    return r;
}

static const struct suite *find(const char *name)
{
    for (size_t i = 0; i < RS_ARRAY_LEN(suites); i++)
        if (strcmp(suites[i].name, name) == 0) return &suites[i];
    return NULL;
}

int rs_tls_measure(const struct rs_evp_sides *sides, const struct rs_tls_work *w, char engine[32],
                   struct rs_result *out, char why[256])
{
    rs_result_init(out, "openssl-tls");
    const struct suite *suite = find(w->suite);
    why[0] = '\0';
    if (suite == NULL || w->total < RS_TLS_WRITE || w->total > TOTAL_MAX || w->runs < 1 || w->runs > RUNS_MAX)
        return RESEAL_EINVAL;
    uint64_t total = rs_round_up(w->total, RS_TLS_WRITE);
    rs_evp_engine(sides, suite->cipher, engine, 32);
    ERR_clear_error();
    int r = with_parties(sides, suite, total, w->runs, out);
    if (r != 0) say_why(why, suite->name);
    out->from = out->to = NULL;
    out->cipher = suite->name;
    out->bytes = RS_TLS_WRITE;
    out->key_bits = suite->bits;
    out->engine = engine;
    out->openssl_version = rs_evp_version();
    return r;
}
