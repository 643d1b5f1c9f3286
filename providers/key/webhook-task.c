/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a webhook does in children: "webhook-check" looks at a new address and reads its secret; "webhook"
 * delivers. libcurl is loaded there and nowhere else, so that reseal-keyd has none of its code, nor that of
 * the libraries it brings along.
 */
#include "providers/key/webhook.h"

#include "providers/key/source.h"
#include "reseal/reseal.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <dlfcn.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define URL_MAX    500u
#define SECRET_MAX 4096u
#define CONNECT_S  10L
#define WHOLE_S    20L

struct curl {
    CURLcode (*init)(long flags);
    CURL *(*open)(void);
    CURLcode (*set)(CURL *handle, CURLoption option, ...);
    CURLcode (*run)(CURL *handle);
    CURLcode (*info)(CURL *handle, CURLINFO info, ...);
    struct curl_slist *(*append)(struct curl_slist *list, const char *line);
    const char *(*error)(CURLcode code);
    CURLU *(*url)(void);
    CURLUcode (*url_set)(CURLU *url, CURLUPart part, const char *text, unsigned flags);
    CURLUcode (*url_get)(const CURLU *url, CURLUPart part, char **text, unsigned flags);
};

static bool find(void *library, const char *name, void *to)
{
    void *at = dlsym(library, name);
    memcpy(to, &at, sizeof(at)); /* ISO C has no cast from an object to a function */
    return at != NULL;
}

static int load(struct rs_task *t, struct curl *c)
{
    void *l = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    bool ok = l != NULL && find(l, "curl_global_init", &c->init) && find(l, "curl_easy_init", &c->open) &&
              find(l, "curl_easy_setopt", &c->set) && find(l, "curl_easy_perform", &c->run) &&
              find(l, "curl_easy_getinfo", &c->info) && find(l, "curl_slist_append", &c->append) &&
              find(l, "curl_easy_strerror", &c->error) && find(l, "curl_url", &c->url) &&
              find(l, "curl_url_set", &c->url_set) && find(l, "curl_url_get", &c->url_get);
    if (!ok) return rs_task_fail(t, RESEAL_ENOSUPPORT, "webhooks need libcurl: apt-get install libcurl4");
    return c->init(CURL_GLOBAL_DEFAULT) == CURLE_OK
               ? 0
               : rs_task_fail(t, RESEAL_ENOMEM, "libcurl does not start");
}

/* ---- "webhook-check" ------------------------------------------------------------------ */

/* Not a name that only begins like an address: "127.example.org" is anywhere. */
static bool is_loopback(const char *host)
{
    struct in_addr v4;
    if (inet_pton(AF_INET, host, &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
    return strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0;
}

/* https, or http to this machine; nothing in it but a place. */
static int check_url(struct rs_task *t, const char *text)
{
    struct curl c;
    char *scheme = NULL, *host = NULL, *user = NULL;
    int r = load(t, &c);
    CURLU *url = r == 0 ? c.url() : NULL;
    if (url == NULL) return r != 0 ? r : RESEAL_ENOMEM;
    if (c.url_set(url, CURLUPART_URL, text, 0) != CURLUE_OK ||
        c.url_get(url, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        c.url_get(url, CURLUPART_HOST, &host, 0) != CURLUE_OK)
        return rs_task_fail(t, RESEAL_EINVAL, "not an address: write https://HOST/PATH");
    if (c.url_get(url, CURLUPART_USER, &user, 0) == CURLUE_OK)
        return rs_task_fail(
            t, RESEAL_EINVAL,
            "an address with a user name would be shown to everybody who may see it: use the secret");
    if (strcmp(scheme, "https") == 0 || (strcmp(scheme, "http") == 0 && is_loopback(host))) return 0;
    return rs_task_fail(t, RESEAL_EINVAL, "events leave this machine by https only: write https://%.200s/...",
                        host);
}

static int run_check(struct rs_task *t)
{
    struct rs_secret_text secret = {0};
    const char *url = json_string_value(json_object_get(t->args, "url"));
    if (url == NULL || strlen(url) > URL_MAX)
        return rs_task_fail(t, RESEAL_EINVAL, "the address has more than %u bytes", URL_MAX);
    int r = check_url(t, url);
    if (r != 0 || t->nfds == 0) return r;
    r = rs_secret_read(t->fds[0], SECRET_MAX, &secret);
    while (r == 0 && secret.len > 0 && secret.bytes[secret.len - 1] == '\n') secret.len--;
    if (r == 0 && secret.len < 16)
        r = rs_task_fail(t, RESEAL_EINVAL,
                         "a secret has at least 16 bytes: 'openssl rand -hex 32' makes one");
    if (r == 0) r = rs_secrets_put(&t->yields, "secret", secret.bytes, secret.len);
    rs_secret_free(&secret);
    return r;
}

const struct rs_task_kind rs_task_webhook_check = {
    .name = "webhook-check", .place = RS_TASK_NETWORK, .deadline_s = 20, .run = run_check};

/* ---- "webhook" --------------------------------------------------------------------------- */

/* What the receiver says is not read: its status counts. */
static size_t ignore(char *bytes, size_t size, size_t n, void *arg)
{
    (void)bytes, (void)arg;
    return size * n;
}

/* HMAC-SHA-256 over "TIME.BODY": a receiver that looks at the time cannot be fooled with an old delivery. */
static bool sign(const struct rs_task *t, const char *when, const char *body, char out[100])
{
    uint8_t mac[32];
    unsigned len = sizeof(mac);
    const struct rs_secret *secret = rs_secrets_find(t->secrets, "secret");
    RS_FREE char *text = NULL;
    int n = asprintf(&text, "%s.%s", when, body);
    if (n < 0 || HMAC(EVP_sha256(), secret->bytes, (int)secret->len, (const unsigned char *)text, (size_t)n,
                      mac, &len) == NULL)
        return false;
    int at = snprintf(out, 100, "X-Reseal-Signature: sha256=");
    rs_hex(mac, sizeof(mac), out + at);
    return true;
}

static struct curl_slist *headers_of(const struct rs_task *t, const struct curl *c, const char *body)
{
    char line[128], when[32];
    (void)snprintf(when, sizeof(when), "%lld",
                   (long long)json_integer_value(json_object_get(t->args, "time")));
    struct curl_slist *list = c->append(NULL, "Content-Type: application/json");
    (void)snprintf(line, sizeof(line), "X-Reseal-Timestamp: %s", when);
    list = c->append(list, line);
    (void)c->append(list, "Expect:"); /* no waiting for a word before the body */
    if (rs_secrets_find(t->secrets, "secret") == NULL) return list;
    return sign(t, when, body, line) ? c->append(list, line) : NULL;
}

static int status_of(CURLcode code)
{
    switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return RESEAL_EAUTH;
    case CURLE_OPERATION_TIMEDOUT:
        return RESEAL_ETIMEDOUT;
    default:
        return RESEAL_ENOSERVICE;
    }
}

static int deliver(struct rs_task *t, const struct curl *c, const char *url, const char *body)
{
    char detail[CURL_ERROR_SIZE] = "";
    long http = 0;
    const char *ca = json_string_value(json_object_get(t->args, "ca"));
    CURL *h = c->open();
    struct curl_slist *headers = h != NULL ? headers_of(t, c, body) : NULL;
    if (headers == NULL) return RESEAL_ENOMEM;
    (void)c->set(h, CURLOPT_URL, url);
    (void)c->set(h, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)c->set(h, CURLOPT_PROXY, "");
    (void)c->set(h, CURLOPT_NOSIGNAL, 1L);
    (void)c->set(h, CURLOPT_CONNECTTIMEOUT, CONNECT_S);
    (void)c->set(h, CURLOPT_TIMEOUT, WHOLE_S);
    (void)c->set(h, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    /* Roots one by one as they are needed, not all of them into the child's key memory. */
    (void)c->set(h, CURLOPT_CAINFO, NULL);
    (void)c->set(h, CURLOPT_CAPATH, "/etc/ssl/certs");
    struct curl_blob blob = {.data = (void *)(uintptr_t)ca, .len = ca != NULL ? strlen(ca) : 0};
    if (ca != NULL) (void)c->set(h, CURLOPT_CAPATH, NULL);
    if (ca != NULL) (void)c->set(h, CURLOPT_CAINFO_BLOB, &blob);
    (void)c->set(h, CURLOPT_POSTFIELDS, body);
    (void)c->set(h, CURLOPT_HTTPHEADER, headers);
    (void)c->set(h, CURLOPT_USERAGENT, "reseal");
    (void)c->set(h, CURLOPT_WRITEFUNCTION, ignore);
    (void)c->set(h, CURLOPT_ERRORBUFFER, detail);
    CURLcode code = c->run(h);
    if (code != CURLE_OK)
        return rs_task_fail(t, status_of(code), "%.300s", detail[0] != '\0' ? detail : c->error(code));
    (void)c->info(h, CURLINFO_RESPONSE_CODE, &http);
    if (http >= 200 && http < 300) return 0;
    return rs_task_fail(t, RESEAL_ENOSERVICE, "the receiver answered with HTTP status %ld", http);
}

static int run_webhook(struct rs_task *t)
{
    struct curl c;
    const char *url = json_string_value(json_object_get(t->args, "url"));
    const char *body = json_string_value(json_object_get(t->args, "body"));
    if (url == NULL || body == NULL) return RESEAL_EINVAL;
    int r = load(t, &c);
    return r != 0 ? r : deliver(t, &c, url, body);
}

const struct rs_task_kind rs_task_webhook = {
    .name = "webhook", .place = RS_TASK_NETWORK, .deadline_s = 40, .run = run_webhook};
