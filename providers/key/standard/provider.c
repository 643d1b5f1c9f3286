/* SPDX-License-Identifier: Apache-2.0 */
/* What a standard provider is asked, in a child that may reach the network. */
#include "providers/key/standard/provider.h"

#include "offload/base/clock.h"
#include "offload/base/keymem.h"
#include "providers/key/events.h"
#include "providers/key/standard/kmip-client.h"
#include "reseal/reseal.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#ifndef RESEAL_VERSION
#define RESEAL_VERSION "0"
#endif

/* The client's configuration, pointing into the task's arguments and secrets. */
struct setup {
    struct rs_kmip_config config;
    char hosts[RS_KMIP_SERVERS_MAX][RS_KMIP_HOST_MAX];
    const char *addresses[RS_KMIP_SERVERS_MAX];
    uint8_t pins[RS_KMIP_PINS_MAX][RS_KMIP_PIN_LEN];
};

/* ---- the configuration ------------------------------------------------------------------------- */

/* "host:port" or "[v6]:port", as reseal-keyd has written it. */
static bool set_address(struct setup *s, unsigned i, const char *address, const char *proxy)
{
    const char *colon = strrchr(address, ':');
    bool v6 = address[0] == '[';
    const char *host = address + v6, *end = colon == NULL ? NULL : v6 ? colon - 1 : colon;
    if (end == NULL || end <= host || (size_t)(end - host) >= RS_KMIP_HOST_MAX) return false;
    (void)snprintf(s->hosts[i], RS_KMIP_HOST_MAX, "%.*s", (int)(end - host), host);
    s->addresses[i] = address;
    s->config.servers[i] = (struct rs_kmip_address){
        .host = s->hosts[i], .port = (uint16_t)strtoul(colon + 1, NULL, 10), .proxy = proxy};
    return true;
}

static int nibble(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 0;
}

static void set_pins(struct setup *s, const json_t *list)
{
    unsigned n = 0;
    for (; n < json_array_size(list) && n < RS_KMIP_PINS_MAX; n++) {
        const char *text = json_string_value(json_array_get(list, n));
        if (text == NULL || strlen(text) != 3 * RS_KMIP_PIN_LEN - 1) return;
        for (unsigned i = 0; i < RS_KMIP_PIN_LEN; i++)
            s->pins[n][i] = (uint8_t)(nibble(text[3 * i]) << 4 | nibble(text[3 * i + 1]));
    }
    if (n == 0) return;
    s->config.trust.pin = s->pins[0];
    s->config.trust.npins = n;
}

static unsigned milliseconds(const json_t *config, const char *name)
{
    return (unsigned)json_integer_value(json_object_get(config, name)) * 1000u;
}

static bool set_up(struct setup *s, const struct rs_task *t)
{
    const json_t *config = json_object_get(t->args, "config"), *servers = json_object_get(config, "servers");
    const char *version = json_string_value(json_object_get(config, "version"));
    const char *proxy = json_string_value(json_object_get(config, "proxy"));
    memset(s, 0, sizeof(*s));
    for (unsigned i = 0; i < json_array_size(servers) && i < RS_KMIP_SERVERS_MAX; i++) {
        const char *address = json_string_value(json_array_get(servers, i));
        if (address == NULL || !set_address(s, i, address, proxy)) return false;
        s->config.nservers++;
    }
    struct rs_kmip_trust *trust = &s->config.trust;
    trust->ca = json_string_value(json_object_get(config, "ca"));
    if (trust->ca == NULL) set_pins(s, json_object_get(config, "fingerprints"));
    trust->cert = json_string_value(json_object_get(config, "certificate"));
    trust->key = trust->cert != NULL ? rs_secrets_text(t->secrets, "key") : NULL;
    s->config.user = json_string_value(json_object_get(config, "user"));
    if (s->config.user != NULL) s->config.password = rs_secrets_text(t->secrets, "password");
    s->config.connect_ms = milliseconds(config, "connect_s");
    s->config.request_ms = milliseconds(config, "request_s");
    if (version != NULL && strcmp(version, "auto") != 0)
        s->config.version = (struct rs_kmip_version){1, version[2] - '0'};
    return s->config.nservers != 0;
}

/* ---- what is known of the servers, from one child to the next ------------------------------------- */

static void restore_state(struct rs_kmip_client *c, const struct setup *s, const json_t *state)
{
    for (unsigned i = 0; i < s->config.nservers; i++) {
        const json_t *known = json_object_get(state, s->addresses[i]);
        struct rs_kmip_server_state *server = rs_kmip_client_server(c, i);
        json_int_t back_off = json_integer_value(json_object_get(known, "back_off_ms"));
        json_int_t not_before = json_integer_value(json_object_get(known, "not_before_ns"));
        if (back_off <= 0 || back_off > 3600000 || not_before <= 0) continue;
        server->back_off = (unsigned)back_off;
        server->not_before = (uint64_t)not_before; /* the monotonic clock is the same in all processes */
    }
}

static const char *event_of(enum rs_kmip_fault fault)
{
    switch (fault) {
    case RS_KMIP_CERT_EXPIRED:
        return RS_EVENT_SERVER_CERT;
    case RS_KMIP_NO_SUCH_HOST:
    case RS_KMIP_DOWN:
    case RS_KMIP_HANGS:
        return RS_EVENT_KMS_UNREACHABLE;
    default:
        return RS_EVENT_KMS_ERROR;
    }
}

static void report_down(struct rs_task *t, const char *address, const struct rs_kmip_error *e)
{
    json_t *down = json_object_get(t->result, "down");
    if (down == NULL) {
        down = json_array();
        if (json_object_set_new(t->result, "down", down) != 0) return;
    }
    (void)json_array_append_new(
        down, json_pack("{s:s, s:s, s:s}", "address", address, "why", e->why, "event", event_of(e->fault)));
}

/* Servers that failed, and told it first now; those that answered are forgotten. */
static void keep_state(struct rs_task *t, struct rs_kmip_client *c, const struct setup *s)
{
    json_t *before = json_object_get(t->args, "state");
    json_t *after = json_object();
    for (unsigned i = 0; i < s->config.nservers; i++) {
        const struct rs_kmip_server_state *server = rs_kmip_client_server(c, i);
        const char *address = s->addresses[i];
        if (server->error.fault != RS_KMIP_NO_FAULT && json_object_get(before, address) == NULL)
            report_down(t, address, &server->error);
        if (server->back_off == 0) continue;
        (void)json_object_set_new(after, address,
                                  json_pack("{s:I, s:I}", "back_off_ms", (json_int_t)server->back_off,
                                            "not_before_ns", (json_int_t)server->not_before));
    }
    (void)json_object_set_new(t->result, "state", after);
    int64_t client = s->config.trust.cert != NULL ? rs_standard_expires(s->config.trust.cert) : 0;
    (void)json_object_set_new(t->result, "expires",
                              json_pack("{s:I, s:I}", "client", (json_int_t)client, "server",
                                        (json_int_t)rs_kmip_client_expires(c)));
}

/* ---- details ----------------------------------------------------------------------------------------- */

struct details {
    struct rs_kmip_detail at[RS_KMIP_DETAILS_MAX];
    unsigned n;
};

static void add_detail(struct details *d, const char *name, const char *value)
{
    for (unsigned i = 0; i < d->n; i++)
        if (strcmp(d->at[i].name, name) == 0) return;
    if (value != NULL && *value != '\0' && strlen(value) < RS_KMIP_TEXT_MAX && d->n < RS_KMIP_DETAILS_MAX)
        d->at[d->n++] = (struct rs_kmip_detail){name, value};
}

static void add_given(struct details *d, const struct rs_task *t)
{
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(t->args, "details"), name,
                        value) if (strncmp(name, "x-", 2) == 0 && strlen(name) < 64)
        add_detail(d, name, json_string_value(value));
}

/* ---- what it is asked -----------------------------------------------------------------------------------
 */

static int failed(struct rs_task *t, struct rs_kmip_client *c, int status)
{
    const struct rs_kmip_error *e = rs_kmip_client_error(c);
    if (e->why[0] == '\0') return status;
    return rs_task_fail(t, status, "%s", e->why);
}

static int get(struct rs_task *t, struct rs_kmip_client *c, const char *id)
{
    RS_KEYMEM struct rs_kmip_key *key = rs_keymem_alloc(sizeof(*key));
    if (key == NULL) return RESEAL_ENOMEM;
    int r = rs_kmip_fetch(c, id, 8 * RS_KEK_LEN, NULL, key);
    if (r != 0) return failed(t, c, r);
    return rs_secrets_put(&t->yields, "kek", key->bytes, key->len);
}

static int make(struct rs_task *t, struct rs_kmip_client *c)
{
    const struct rs_kmip_new_key key = {.bits = 8 * RS_KEK_LEN};
    struct rs_kmip_made made;
    struct details d = {.n = 0};
    add_detail(&d, "x-Product_Version", RESEAL_VERSION);
    add_detail(&d, "x-Vendor", "Reseal");
    add_detail(&d, "x-Product", "Reseal");
    add_given(&d, t);
    int r = rs_kmip_make(c, &key, d.at, d.n, &made);
    if (r != 0) return failed(t, c, r);
    if (json_object_set_new(t->result, "key", json_string(made.id)) != 0) return RESEAL_ENOMEM;
    (void)json_object_set_new(t->result, "details_kept", json_integer(made.details_kept));
    return get(t, c, made.id);
}

static int fetch(struct rs_task *t, struct rs_kmip_client *c)
{
    const char *id = json_string_value(json_object_get(t->args, "key"));
    struct details d = {.n = 0};
    unsigned kept = 0;
    if (id == NULL) return RESEAL_EINVAL;
    if (strlen(id) >= RS_KMIP_ID_MAX)
        return rs_task_fail(t, RESEAL_ENOKEY, "no key server has a key with an id of %zu bytes", strlen(id));
    int r = get(t, c, id);
    add_given(&d, t);
    if (r == 0 && d.n != 0) rs_kmip_note(c, id, d.at, d.n, &kept); /* best effort */
    return r;
}

static int retire(struct rs_task *t, struct rs_kmip_client *c)
{
    const char *id = json_string_value(json_object_get(t->args, "key"));
    if (id == NULL || strlen(id) >= RS_KMIP_ID_MAX) return RESEAL_EINVAL;
    int r = rs_kmip_retire(c, id, RS_KMIP_CESSATION_OF_OPERATION, "retired by reseal");
    return r == 0 ? 0 : failed(t, c, r);
}

/* ---- test: every server by itself --------------------------------------------------------------------- */

static json_t *date_of(int64_t seconds)
{
    char date[40];
    struct tm tm;
    time_t when = (time_t)seconds;
    if (seconds == 0 || gmtime_r(&when, &tm) == NULL) return json_null();
    (void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_string(date);
}

static json_t *test_one(struct rs_task *t, const struct setup *s, unsigned i, json_int_t *expires)
{
    struct setup one = *s;
    struct rs_kmip_client *c;
    struct rs_kmip_about about;
    char version[16];
    one.config.servers[0] = s->config.servers[i];
    one.addresses[0] = s->addresses[i];
    one.config.nservers = 1;
    if (s->config.trust.pin != NULL) one.config.trust.pin = one.pins[0];
    if (rs_kmip_client_open(&c, &one.config) != 0) return NULL;
    restore_state(c, &one, json_object_get(t->args, "state"));
    int r = rs_kmip_about(c, &about);
    const struct rs_kmip_error *e = rs_kmip_client_error(c);
    json_t *out = json_pack("{s:s, s:b}", "address", one.addresses[0], "ok", r == 0);
    if (r == 0) {
        (void)snprintf(version, sizeof(version), "%d.%d", about.version.major, about.version.minor);
        (void)json_object_update_new(out, json_pack("{s:s, s:s, s:s, s:s, s:b, s:o}", "version", version,
                                                    "vendor", about.vendor, "tls", about.tls, "cipher",
                                                    about.cipher, "attributes", about.adds_attributes,
                                                    "expires", date_of(rs_kmip_client_expires(c))));
    } else {
        (void)json_object_update_new(out, json_pack("{s:s, s:s}", "error",
                                                    e->why[0] != '\0' ? e->why : reseal_strerror(r), "event",
                                                    event_of(e->fault)));
    }
    json_t *states = json_object_get(t->result, "state"),
           *all = states != NULL ? json_incref(states) : json_object();
    keep_state(t, c, &one);
    (void)json_object_update(all, json_object_get(t->result, "state"));
    (void)json_object_set_new(t->result, "state", all);
    json_int_t end = rs_kmip_client_expires(c);
    if (end != 0 && (*expires == 0 || end < *expires)) *expires = end;
    rs_kmip_client_close(c);
    return out;
}

static int test(struct rs_task *t, const struct setup *s)
{
    json_t *servers = json_array();
    json_int_t expires = 0;
    for (unsigned i = 0; i < s->config.nservers; i++) {
        json_t *one = test_one(t, s, i, &expires);
        if (one == NULL || json_array_append_new(servers, one) != 0) {
            json_decref(servers);
            return RESEAL_ENOMEM;
        }
    }
    (void)json_object_set_new(json_object_get(t->result, "expires"), "server", json_integer(expires));
    return json_object_set_new(t->result, "servers", servers) == 0 ? 0 : RESEAL_ENOMEM;
}

/* ---- show: what a server presents, unverified ------------------------------------------------------------
 */

static int show(struct rs_task *t)
{
    json_t *config = json_deep_copy(json_object_get(t->args, "config"));
    struct setup s;
    struct rs_kmip_shown shown;
    struct rs_kmip_error e;
    char why[RS_TASK_WHY] = "", pin[3 * RS_KMIP_PIN_LEN];
    int r = config == NULL ? RESEAL_ENOMEM : rs_standard_check(config, NULL, why, sizeof(why));
    if (r != 0) {
        json_decref(config);
        return why[0] != '\0' ? rs_task_fail(t, r, "%s", why) : r;
    }
    memset(&s, 0, sizeof(s));
    bool ok = set_address(&s, 0, json_string_value(json_array_get(json_object_get(config, "servers"), 0)),
                          json_string_value(json_object_get(config, "proxy")));
    r = ok ? rs_kmip_show(&s.config.servers[0], 10000, &shown, &e) : RESEAL_EINVAL;
    json_decref(config);
    if (r != 0) return ok && e.why[0] != '\0' ? rs_task_fail(t, r, "%s", e.why) : r;
    for (unsigned i = 0; i < RS_KMIP_PIN_LEN; i++)
        (void)snprintf(pin + 3 * i, 4, "%02x%s", shown.pin[i], i + 1 < RS_KMIP_PIN_LEN ? ":" : "");
    rs_line_clean(shown.text);
    return json_object_update_new(t->result,
                                  json_pack("{s:s, s:s}", "fingerprint", pin, "certificate", shown.text)) == 0
               ? 0
               : RESEAL_ENOMEM;
}

/* ---- the task
 * ---------------------------------------------------------------------------------------------- */

static int ask(struct rs_task *t, struct setup *s, const char *op)
{
    struct rs_kmip_client *c;
    int r = rs_kmip_client_open(&c, &s->config);
    if (r != 0) return r;
    restore_state(c, s, json_object_get(t->args, "state"));
    if (strcmp(op, "make") == 0)
        r = make(t, c);
    else if (strcmp(op, "fetch") == 0)
        r = fetch(t, c);
    else
        r = strcmp(op, "retire") == 0 ? retire(t, c) : RESEAL_EINVAL;
    keep_state(t, c, s);
    rs_kmip_client_close(c);
    return r;
}

static int run(struct rs_task *t)
{
    const char *op = json_string_value(json_object_get(t->args, "op"));
    const char *name = json_string_value(json_object_get(t->args, "name"));
    struct setup s;
    if (op == NULL || name == NULL) return RESEAL_EINVAL;
    if (strcmp(op, "show") == 0) return show(t);
    if (!set_up(&s, t)) return RESEAL_EINVAL;
    if (s.config.trust.ca == NULL && s.config.trust.pin == NULL)
        return rs_task_fail(t, RESEAL_EAUTH,
                            "key provider %s trusts no certificate of its servers yet: 'reseal provider "
                            "trust %s' shows and confirms it",
                            name, name);
    return strcmp(op, "test") == 0 ? test(t, &s) : ask(t, &s, op);
}

/* Every server may take its time to connect and to answer, one after the other. */
const struct rs_task_kind rs_task_kmip = {
    .name = "kmip", .place = RS_TASK_NETWORK, .deadline_s = 300, .run = run};

const struct rs_provider_kind rs_provider_standard = {
    .name = "standard", .task = &rs_task_kmip, .inspect = &rs_task_certificates, .check = rs_standard_check};
