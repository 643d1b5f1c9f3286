/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of a standard provider, as reseal-keyd checks it: texts and numbers, nothing that a
 * parser of certificates is needed for. */
#include "providers/key/complaint.h"
#include "providers/key/standard/kmip-client.h"
#include "providers/key/standard/provider.h"
#include "reseal/reseal.h"

#include <stdio.h>
#include <stdlib.h>

#define TIME_MAX_S  60
#define CACHE_S_MAX 31536000

/* Of a name or address: printable, and nothing that has a meaning around it. */
static bool host_ok(const char *host, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)host[i] <= ' ' || (unsigned char)host[i] >= 0x7f ||
            strchr("/@\"'\\", host[i]) != NULL)
            return false;
    return len > 0 && len < RS_KMIP_HOST_MAX;
}

/* "host", "host:port", "[v6]:port", "v6"; as "host:port", with `otherwise` (":5696", or "": it must be given)
 * where there is no port. */
static int complete_address(const char *given, const char *member, const char *otherwise,
                            char out[RS_KMIP_HOST_MAX + 10], const struct rs_complaint *c)
{
    const char *colon = strrchr(given, ':');
    bool bracketed = given[0] == '[', bare_v6 = !bracketed && colon != NULL && strchr(given, ':') != colon;
    const char *end = bracketed                  ? strchr(given, ']')
                      : bare_v6 || colon == NULL ? given + strlen(given)
                                                 : colon;
    if (end == NULL) return rs_complain(c, "%s: '%.100s' has no ']'", member, given);
    const char *host = given + bracketed, *rest = end + bracketed;
    size_t len = (size_t)(end - host);
    if (!host_ok(host, len))
        return rs_complain(c, "%s: '%.100s' is no name or address of a host", member, given);
    if (*rest == '\0') rest = otherwise;
    char *stop;
    long port = rest[0] == ':' && rest[1] >= '0' && rest[1] <= '9' ? strtol(rest + 1, &stop, 10) : 0;
    if (port < 1 || port > 65535 || *stop != '\0')
        return rs_complain(c, "%s: '%.100s': a port is a number from 1 to 65535", member, given);
    bool v6 = bracketed || bare_v6;
    (void)snprintf(out, RS_KMIP_HOST_MAX + 10, "%s%.*s%s:%ld", v6 ? "[" : "", (int)len, host, v6 ? "]" : "",
                   port);
    return 0;
}

static int check_servers(json_t *servers, const struct rs_complaint *c)
{
    size_t n = json_array_size(servers);
    if (!json_is_array(servers) || n == 0 || n > RS_KMIP_SERVERS_MAX)
        return rs_complain(c, "servers: wants 1 to %u of them, \"host\" or \"host:port\"",
                           RS_KMIP_SERVERS_MAX);
    for (size_t i = 0; i < n; i++) {
        char address[RS_KMIP_HOST_MAX + 10];
        const char *given = json_string_value(json_array_get(servers, i));
        if (given == NULL) return rs_complain(c, "servers: wants texts, \"host\" or \"host:port\"");
        int r = complete_address(given, "servers", ":" RS_STANDARD_PORT, address, c);
        if (r != 0) return r;
        if (json_array_set_new(servers, i, json_string(address)) != 0) return RESEAL_ENOMEM;
        for (size_t k = 0; k < i; k++)
            if (json_equal(json_array_get(servers, i), json_array_get(servers, k)))
                return rs_complain(c, "servers: %s is named twice", address);
    }
    return 0;
}

/* 64 hexadecimal digits, colons between pairs or none, as "aa:bb:...". */
static bool complete_fingerprint(const char *given, char out[96])
{
    static const char digits[] = "0123456789abcdef";
    unsigned n = 0;
    if (strncmp(given, "SHA256:", 7) == 0 || strncmp(given, "sha256:", 7) == 0) given += 7;
    for (; *given != '\0'; given++) {
        char low = *given >= 'A' && *given <= 'F' ? (char)(*given + 32) : *given;
        if (*given == ':' && n % 2 == 0) continue;
        if (strchr(digits, low) == NULL || n == 64) return false;
        if (n > 0 && n % 2 == 0) *out++ = ':';
        *out++ = low;
        n++;
    }
    *out = '\0';
    return n == 64;
}

/* One that is named twice counts once. */
static int check_fingerprints(json_t *list, const struct rs_complaint *c)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *given = json_string_value(json_array_get(list, i));
        char text[96];
        if (given == NULL || !complete_fingerprint(given, text))
            return rs_complain(c, "fingerprint: wants SHA-256 of a certificate, 64 hexadecimal digits");
        if (json_array_set_new(list, i, json_string(text)) != 0) return RESEAL_ENOMEM;
        for (size_t k = 0; k < i; k++) {
            if (!json_equal(json_array_get(list, i), json_array_get(list, k))) continue;
            (void)json_array_remove(list, i--);
            break;
        }
    }
    size_t n = json_array_size(list);
    return n >= 1 && n <= RS_KMIP_PINS_MAX ? 0
                                           : rs_complain(c, "fingerprints: wants 1 to %u", RS_KMIP_PINS_MAX);
}

/* An HTTP proxy has no port of its own: it is always said. */
static int check_proxy(json_t *config, const char *proxy, const struct rs_complaint *c)
{
    char address[RS_KMIP_HOST_MAX + 10];
    int r = complete_address(proxy, "proxy", "", address, c);
    return r != 0 || json_object_set_new(config, "proxy", json_string(address)) == 0 ? r : RESEAL_ENOMEM;
}

static bool version_ok(const char *v)
{
    return strcmp(v, "auto") == 0 ||
           (strlen(v) == 3 && v[0] == '1' && v[1] == '.' && v[2] >= '0' && v[2] <= '4');
}

static int number_ok(const json_t *config, const char *name, json_int_t least, json_int_t most,
                     const struct rs_complaint *c)
{
    const json_t *n = json_object_get(config, name);
    if (n == NULL || (json_is_integer(n) && json_integer_value(n) >= least && json_integer_value(n) <= most))
        return 0;
    return rs_complain(c, "%s: wants a number of seconds from %lld to %lld", name, (long long)least,
                       (long long)most);
}

int rs_standard_check(json_t *config, struct rs_secrets *secrets, char *why, size_t why_len)
{
    const struct rs_complaint c = {why, why_len};
    json_t *servers = NULL, *fingerprints = NULL, *ignored = NULL;
    const char *ca = NULL, *certificate = NULL, *user = NULL, *version = "auto", *proxy = NULL;
    json_error_t error;
    (void)secrets;
    if (json_unpack_ex(config, &error, JSON_STRICT, "{s:o, s?o, s?s, s?s, s?s, s?s, s?s, s?o, s?o, s?o, s?o}",
                       "servers", &servers, "fingerprints", &fingerprints, "ca", &ca, "certificate",
                       &certificate, "user", &user, "version", &version, "proxy", &proxy, "connect_s",
                       &ignored, "request_s", &ignored, "cache_s", &ignored, "client", &ignored) != 0)
        return rs_complain(&c, "the configuration of a standard provider: %s", error.text);
    int r = check_servers(servers, &c);
    if (r == 0 && fingerprints != NULL && ca != NULL)
        r = rs_complain(&c, "a key server is trusted by a CA or by fingerprints: give one");
    if (r == 0 && fingerprints != NULL) r = check_fingerprints(fingerprints, &c);
    if (r == 0 && !version_ok(version)) r = rs_complain(&c, "version: wants \"auto\", or \"1.0\" to \"1.4\"");
    if (r == 0 && user != NULL && (*user == '\0' || strlen(user) >= RS_KMIP_TEXT_MAX))
        r = rs_complain(&c, "user: wants 1 to %u bytes", RS_KMIP_TEXT_MAX - 1);
    if (r == 0 && proxy != NULL) r = check_proxy(config, proxy, &c);
    if (r == 0) r = number_ok(config, "connect_s", 1, TIME_MAX_S, &c);
    if (r == 0) r = number_ok(config, "request_s", 1, TIME_MAX_S, &c);
    return r != 0 ? r : number_ok(config, "cache_s", 0, CACHE_S_MAX, &c);
}
