/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/standard/kmip-client.h"

#include "offload/base/clock.h"
#include "offload/base/keymem.h"
#include "reseal/reseal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define ANSWER_MAX   (64u << 10) /* bytes; the longest is a list of ids */
#define BACK_OFF_MIN 1000u       /* milliseconds a failed server is left alone, doubled each time */
#define BACK_OFF_MAX 60000u

/* Key memory: answers hold keys. */
struct buffers {
    uint8_t request[RS_KMIP_REQUEST_MAX];
    uint8_t answer[ANSWER_MAX];
};

struct rs_kmip_client {
    struct rs_kmip_config config;
    struct rs_kmip_server_state servers[RS_KMIP_SERVERS_MAX];
    int64_t expires;           /* of the last server's certificate */
    struct rs_kmip_link *link; /* NULL: none */
    unsigned at;               /* the server it leads to */
    struct rs_kmip_version version;
    uint32_t next_batch_id;
    struct rs_kmip_error error;
    struct buffers *buffers;
    size_t answer_len;
};

/* One exchange: what is asked, and where the answer to each item goes. */
struct question {
    bool changes; /* the server's state: never sent twice */
    unsigned n;
    uint32_t operations[RS_KMIP_BATCH_MAX];
    void (*write)(struct rs_kmip_request *q, const void *arg);
    const void *arg;
    struct rs_kmip_result results[RS_KMIP_BATCH_MAX];
    /* What the results say, where more than their form has to be right; NULL: nothing. RESEAL_EPROTO counts
     * as no answer. */
    int (*take)(struct rs_kmip_client *c, struct question *q);
    void *out;
};

int rs_kmip_client_open(struct rs_kmip_client **out, const struct rs_kmip_config *config)
{
    if (config->nservers == 0 || config->nservers > RS_KMIP_SERVERS_MAX) return RESEAL_EINVAL;
    struct rs_kmip_client *c = calloc(1, sizeof(*c));
    if (c == NULL) return RESEAL_ENOMEM;
    c->config = *config;
    if (c->config.connect_ms == 0) c->config.connect_ms = 5000;
    if (c->config.request_ms == 0) c->config.request_ms = 10000;
    c->next_batch_id = 1;
    c->buffers = rs_keymem_alloc(sizeof(*c->buffers));
    if (c->buffers == NULL) {
        free(c);
        return RESEAL_ENOMEM;
    }
    *out = c;
    return 0;
}

void rs_kmip_client_close(struct rs_kmip_client *c)
{
    if (c == NULL) return;
    rs_kmip_disconnect(c->link);
    rs_keymem_free(c->buffers);
    free(c);
}

const struct rs_kmip_error *rs_kmip_client_error(const struct rs_kmip_client *c)
{
    return &c->error;
}

struct rs_kmip_server_state *rs_kmip_client_server(struct rs_kmip_client *c, unsigned i)
{
    return &c->servers[i];
}

int64_t rs_kmip_client_expires(const struct rs_kmip_client *c)
{
    return c->expires;
}

/* ---- servers --------------------------------------------------------------------------- */

static void drop_link(struct rs_kmip_client *c)
{
    rs_kmip_disconnect(c->link);
    c->link = NULL;
}

/* The server is left alone for a while, longer each time. */
static void back_off(struct rs_kmip_client *c, unsigned i)
{
    struct rs_kmip_server_state *s = &c->servers[i];
    s->error = c->error;
    s->back_off = s->back_off == 0 ? BACK_OFF_MIN : RS_MIN(2 * s->back_off, BACK_OFF_MAX);
    s->not_before = rs_now_ns() + (uint64_t)s->back_off * 1000000u;
}

static int exchange(struct rs_kmip_client *c, struct question *q);

static void write_discover(struct rs_kmip_request *q, const void *arg)
{
    (void)arg;
    rs_kmip_discover_versions(q);
}

/* A server of 1.0 knows no Discover Versions and refuses the message's version: then it is 1.0. */
static int settle_version(struct rs_kmip_client *c)
{
    struct question q = {.n = 1, .operations = {RS_KMIP_DISCOVER_VERSIONS}, .write = write_discover};
    c->version = (struct rs_kmip_version){1, 1};
    if (c->config.version.major != 0) {
        c->version = c->config.version;
        return 0;
    }
    int err = exchange(c, &q);
    if (err != 0) return err;
    if (q.results[0].status != RS_KMIP_SUCCESS) {
        /* Who is not known is told nothing, and hears of it with what is asked next. */
        if (q.results[0].reason != RS_KMIP_AUTHENTICATION_NOT_SUCCESSFUL)
            c->version = (struct rs_kmip_version){1, 0};
        return 0;
    }
    struct rs_kmip_version best;
    err = rs_kmip_payload_versions(&q.results[0], &best);
    if (err != 0) {
        c->error.fault = RS_KMIP_BROKEN_ANSWER;
        (void)snprintf(c->error.why, sizeof(c->error.why),
                       "key server %s speaks none of KMIP 1.0 to 1.4: ask its maker for a 1.x end point",
                       c->config.servers[c->at].host);
        return err;
    }
    /* 1.1 is what vCenter sends, so what servers have seen most; less only when there is no 1.1. */
    c->version.minor = RS_MIN(best.minor, 1);
    return 0;
}

static int connect_to(struct rs_kmip_client *c, unsigned i)
{
    int err =
        rs_kmip_connect(&c->link, &c->config.servers[i], &c->config.trust, c->config.connect_ms, &c->error);
    c->at = i;
    if (err == 0) err = settle_version(c);
    if (c->link != NULL) c->expires = rs_kmip_link_expires(c->link);
    if (err == 0) {
        c->servers[i].back_off = 0;
        c->servers[i].answered = true;
    } else {
        drop_link(c);
        back_off(c, i);
    }
    return err;
}

/* The link that is there, or one to the first server that is not left alone; when all are, to the first of
 * all that answers: a caller that asks wants to know now. Servers in `tried` are passed over; when none is
 * left, `err` is returned: what became of the last. */
static int reach(struct rs_kmip_client *c, unsigned *tried, int err)
{
    if (c->link != NULL) {
        *tried |= 1u << c->at;
        return 0;
    }
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned i = 0; i < c->config.nservers; i++) {
            if (*tried & 1u << i) continue;
            if (pass == 0 && rs_now_ns() < c->servers[i].not_before) continue;
            *tried |= 1u << i;
            err = connect_to(c, i);
            if (err == 0) return 0;
        }
    return err;
}

/* ---- exchanges ------------------------------------------------------------------------- */

/* Over the link that is there. */
static int exchange(struct rs_kmip_client *c, struct question *q)
{
    struct buffers *b = c->buffers;
    struct rs_kmip_request request;
    size_t len;
    uint32_t first = c->next_batch_id;
    c->next_batch_id += q->n;
    rs_kmip_request_begin(&request, b->request, sizeof(b->request), c->version, first, q->n, c->config.user,
                          c->config.password);
    q->write(&request, q->arg);
    int err = rs_kmip_request_finish(&request, &len);
    if (err == 0)
        err = rs_kmip_exchange(c->link, b->request, len, b->answer, sizeof(b->answer), &c->answer_len,
                               c->config.request_ms, &c->error);
    rs_wipe(b->request, sizeof(b->request)); /* the password */
    for (unsigned i = 0; err == 0 && i < q->n; i++) {
        err = rs_kmip_answer(b->answer, c->answer_len, first + i, q->operations[i], &q->results[i]);
        if (err == RESEAL_ECANCELED && i > 0 && q->results[i - 1].status != RS_KMIP_SUCCESS) {
            q->results[i] = (struct rs_kmip_result){.status = RS_KMIP_UNDONE};
            err = 0;
        }
        if (err == 0) continue;
        err = RESEAL_EPROTO;
        c->error.fault = RS_KMIP_BROKEN_ANSWER;
        (void)snprintf(c->error.why, sizeof(c->error.why),
                       "key server %s: its answer does not belong to what was asked: see its log",
                       c->config.servers[c->at].host);
    }
    return err;
}

/* One line more for who has to look after a key that nobody knows of. */
static void say_unknown(struct rs_kmip_client *c)
{
    size_t len = strlen(c->error.why);
    if (c->error.fault == RS_KMIP_REFUSED_US) return; /* before it read anything */
    (void)snprintf(c->error.why + len, sizeof(c->error.why) - len,
                   "; it may have done what was asked: look there before you try again");
}

/* Asks, at the next server too where that is safe. */
static int ask(struct rs_kmip_client *c, struct question *q)
{
    unsigned tried = 0;
    int err = RESEAL_ENOSERVICE;
    bool was_open = c->link != NULL;
    for (;;) {
        err = reach(c, &tried, err);
        if (err != 0) return err;
        err = exchange(c, q);
        if (err == 0 && q->take != NULL) err = q->take(c, q);
        if (err == 0 || (q->take != NULL && c->error.fault == RS_KMIP_SERVER_REFUSES)) return err;
        drop_link(c);
        if (q->changes) {
            back_off(c, c->at);
            say_unknown(c);
            return err;
        }
        /* A link that had been idle may have been closed meanwhile: its server gets one more chance. */
        if (was_open)
            tried &= ~(1u << c->at);
        else
            back_off(c, c->at);
        was_open = false;
    }
}

/* The server does not know who we are: by the certificate, or by user and password. */
static int not_known(struct rs_kmip_client *c, const struct rs_kmip_result *r)
{
    (void)snprintf(c->error.why, sizeof(c->error.why), "key server %s: %s%s%.80s",
                   c->config.servers[c->at].host,
                   c->config.user != NULL
                       ? "it does not accept our user and password: give others with --user"
                       : "it does not accept our certificate alone: if it wants a user and a password, give "
                         "them with --user",
                   r->message[0] != '\0' ? ": " : "", r->message);
    return RESEAL_EPERM;
}

/* What a failure of the server means for the caller. */
static int judge(struct rs_kmip_client *c, const struct rs_kmip_result *r, const char *what)
{
    if (r->status == RS_KMIP_SUCCESS) return 0;
    c->error.fault = RS_KMIP_SERVER_REFUSES;
    c->error.reason = r->reason;
    if (r->reason == RS_KMIP_AUTHENTICATION_NOT_SUCCESSFUL) return not_known(c, r);
    (void)snprintf(c->error.why, sizeof(c->error.why), "key server %s: %s: %s%s%.100s",
                   c->config.servers[c->at].host, what,
                   r->status == RS_KMIP_PENDING ? "answers later, which is not supported"
                                                : rs_kmip_reason_text(r->reason),
                   r->message[0] != '\0' ? ": " : "", r->message);
    switch (r->reason) {
    case RS_KMIP_ITEM_NOT_FOUND:
        return RESEAL_ENOKEY;
    case RS_KMIP_PERMISSION_DENIED:
        return RESEAL_EPERM;
    case RS_KMIP_OPERATION_NOT_SUPPORTED:
    case RS_KMIP_FEATURE_NOT_SUPPORTED:
        return RESEAL_ENOSUPPORT;
    case RS_KMIP_INVALID_MESSAGE: /* the server's trouble with us, not the key's */
    case RS_KMIP_GENERAL_FAILURE:
        return RESEAL_EPROTO;
    default:
        return RESEAL_EKEYBAD;
    }
}

/* A payload that is not what was asked for. */
static int misread(struct rs_kmip_client *c, int err, const char *what)
{
    c->error.fault = RS_KMIP_BROKEN_ANSWER;
    (void)snprintf(c->error.why, sizeof(c->error.why), "key server %s: %s", c->config.servers[c->at].host,
                   what);
    return err;
}

static int ask_one(struct rs_kmip_client *c, struct question *q, const char *what)
{
    int err = ask(c, q);
    if (err != 0) return err;
    err = judge(c, &q->results[0], what);
    if (q->changes && q->results[0].status == RS_KMIP_PENDING) say_unknown(c);
    return err;
}

/* ---- making ---------------------------------------------------------------------------- */

static void write_create(struct rs_kmip_request *q, const void *arg)
{
    rs_kmip_create(q, arg);
}

static void write_activate(struct rs_kmip_request *q, const void *arg)
{
    rs_kmip_activate(q, arg);
}

struct details {
    const char *id;
    const struct rs_kmip_detail *details;
    unsigned n;
};

static void write_details(struct rs_kmip_request *q, const void *arg)
{
    const struct details *d = arg;
    for (unsigned i = 0; i < d->n; i++)
        rs_kmip_add_text_attribute(q, d->id, d->details[i].name, d->details[i].value);
}

/* "name=value" lines: all details in the one Application Specific Information of our namespace. */
static bool fold_details(const struct rs_kmip_detail *details, unsigned n, char text[RS_KMIP_TEXT_MAX])
{
    size_t used = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < n; i++) {
        int len = snprintf(text + used, RS_KMIP_TEXT_MAX - used, "%s%s=%s", i == 0 ? "" : "\n",
                           details[i].name, details[i].value);
        if (len < 0 || (size_t)len >= RS_KMIP_TEXT_MAX - used) return false;
        used += (size_t)len;
    }
    return n > 0;
}

/* Details for servers that read ASCII only, PyKMIP for one: '?' for each other character. */
struct plain {
    struct rs_kmip_detail details[RS_KMIP_DETAILS_MAX];
    char texts[RS_KMIP_DETAILS_MAX][RS_KMIP_TEXT_MAX];
};

static void plain_text(const char *text, char out[RS_KMIP_TEXT_MAX])
{
    size_t n = 0;
    for (; *text != '\0' && n + 1 < RS_KMIP_TEXT_MAX; text++) {
        unsigned char c = (unsigned char)*text;
        if ((c & 0xc0) != 0x80) out[n++] = c < 0x80 ? *text : '?'; /* not the later bytes of a character */
    }
    out[n] = '\0';
}

/* False: they are plain as they are. */
static bool make_plain(const struct rs_kmip_detail *details, unsigned n, struct plain *out)
{
    bool other = false;
    for (unsigned i = 0; i < n; i++) {
        plain_text(details[i].value, out->texts[i]);
        out->details[i] = (struct rs_kmip_detail){details[i].name, out->texts[i]};
        other = other || strcmp(out->texts[i], details[i].value) != 0;
    }
    return other;
}

static unsigned keep_details(struct rs_kmip_client *c, const struct details *d)
{
    struct question q = {.changes = true, .n = d->n, .write = write_details, .arg = d};
    unsigned kept = 0;
    for (unsigned i = 0; i < d->n; i++) q.operations[i] = RS_KMIP_ADD_ATTRIBUTE;
    if (ask(c, &q) != 0) return 0;
    for (unsigned i = 0; i < d->n; i++) kept += q.results[i].status == RS_KMIP_SUCCESS;
    return kept;
}

/* A refusal that what was to be kept with the key may be the reason of, and that created nothing. One of who
 * we are is not: servers count those, and lock a user out. */
static bool refuses_details(const struct rs_kmip_client *c, const struct question *create)
{
    return c->error.fault == RS_KMIP_SERVER_REFUSES && create->results[0].status == RS_KMIP_FAILED &&
           c->error.reason != RS_KMIP_AUTHENTICATION_NOT_SUCCESSFUL;
}

int rs_kmip_make(struct rs_kmip_client *c, const struct rs_kmip_new_key *key,
                 const struct rs_kmip_detail *details, unsigned n, struct rs_kmip_made *out)
{
    struct rs_kmip_new_key with = *key;
    char folded[RS_KMIP_TEXT_MAX];
    struct question create = {
        .changes = true, .n = 1, .operations = {RS_KMIP_CREATE}, .write = write_create, .arg = &with};
    struct question activate = {
        .changes = true, .n = 1, .operations = {RS_KMIP_ACTIVATE}, .write = write_activate, .arg = out->id};
    memset(out, 0, sizeof(*out));
    if (n > RS_KMIP_DETAILS_MAX) return RESEAL_EINVAL;
    struct plain plain;
    bool is_plain = !make_plain(details, n, &plain);
    bool has_asi = with.asi_namespace == NULL && fold_details(details, n, folded);
    if (has_asi) {
        with.asi_namespace = RS_KMIP_NAMESPACE;
        with.asi_data = folded;
    }
    int err = ask_one(c, &create, "creating a key");
    if (has_asi && !is_plain && err != 0 && refuses_details(c, &create) &&
        fold_details(plain.details, n, folded))
        err = ask_one(c, &create, "creating a key");
    if (has_asi && err != 0 && refuses_details(c, &create)) {
        /* Refused with our namespace: once more without it. */
        with = *key;
        has_asi = false;
        err = ask_one(c, &create, "creating a key");
    }
    if (err != 0) return err;
    if (rs_kmip_payload_id(&create.results[0], out->id) != 0)
        return misread(c, RESEAL_EPROTO, "it created a key and gave no id");
    err = ask_one(c, &activate, "activating the new key");
    if (err != 0) return err;
    struct details d = {out->id, details, n};
    if (n > 0) out->details_kept = keep_details(c, &d);
    d.details = plain.details;
    if (out->details_kept == 0 && !is_plain) out->details_kept = keep_details(c, &d);
    if (has_asi) out->details_kept = n;
    return 0;
}

/* ---- fetching -------------------------------------------------------------------------- */

struct fetch {
    const char *id, *wrapping_id;
    uint32_t bits;
};

static void write_fetch(struct rs_kmip_request *q, const void *arg)
{
    static const char *const names[] = {"State"};
    const struct fetch *f = arg;
    rs_kmip_get_attributes(q, f->id, names, 1);
    rs_kmip_get(q, f->id, f->wrapping_id);
}

static const char *state_name(uint32_t state)
{
    static const char *const names[] = {
        "in no state", "not active yet",         "active", "deactivated", "compromised",
        "destroyed",   "destroyed (compromised)"};
    return state < RS_ARRAY_LEN(names) ? names[state] : "in an unknown state";
}

static int not_active(struct rs_kmip_client *c, uint32_t state)
{
    c->error.fault = RS_KMIP_SERVER_REFUSES;
    (void)snprintf(c->error.why, sizeof(c->error.why), "key server %s: the key is %s: activate or replace it",
                   c->config.servers[c->at].host, state_name(state));
    return RESEAL_EKEYBAD;
}

static int take_key(struct rs_kmip_client *c, struct question *q)
{
    const struct fetch *f = q->arg;
    uint32_t state;
    int err = judge(c, &q->results[0], "asking for the key's state");
    if (err == 0) err = judge(c, &q->results[1], "getting the key");
    if (err != 0) return err;
    if (rs_kmip_payload_state(&q->results[0], &state) != 0)
        return misread(c, RESEAL_EPROTO, "it does not tell the key's state");
    if (state != RS_KMIP_ACTIVE) return not_active(c, state);
    err = rs_kmip_payload_key(&q->results[1], f->bits, f->wrapping_id != NULL, q->out);
    if (err == 0) return 0;
    if (err != RESEAL_EKEYBAD) return misread(c, err, "its answer holds no key");
    (void)misread(c, err, "the key is not an AES key of the length that was asked for");
    c->error.fault = RS_KMIP_SERVER_REFUSES; /* the key's fault: the next server has the same */
    return err;
}

int rs_kmip_fetch(struct rs_kmip_client *c, const char *id, uint32_t bits, const char *wrapping_id,
                  struct rs_kmip_key *out)
{
    struct fetch f = {id, wrapping_id, bits};
    struct question q = {.n = 2,
                         .operations = {RS_KMIP_GET_ATTRIBUTES, RS_KMIP_GET},
                         .write = write_fetch,
                         .arg = &f,
                         .take = take_key,
                         .out = out};
    memset(out, 0, sizeof(*out));
    int err = ask(c, &q);
    rs_wipe(c->buffers->answer, c->answer_len);
    return err;
}

/* ---- the rest -------------------------------------------------------------------------- */

static void write_all_attributes(struct rs_kmip_request *q, const void *arg)
{
    rs_kmip_get_attributes(q, arg, NULL, 0);
}

/* The value after "name=" in lines of details. */
static bool unfold_detail(const char *text, const char *name, char value[RS_KMIP_TEXT_MAX])
{
    size_t len = strlen(name);
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, name, len) != 0 || line[len] != '=') continue;
        const char *v = line + len + 1;
        (void)snprintf(value, RS_KMIP_TEXT_MAX, "%.*s", (int)strcspn(v, "\n"), v);
        return true;
    }
    return false;
}

int rs_kmip_detail_of(struct rs_kmip_client *c, const char *id, const char *name,
                      char value[RS_KMIP_TEXT_MAX])
{
    struct question q = {
        .n = 1, .operations = {RS_KMIP_GET_ATTRIBUTES}, .write = write_all_attributes, .arg = id};
    char folded[RS_KMIP_TEXT_MAX];
    int err = ask_one(c, &q, "asking for the key's attributes");
    if (err != 0) return err;
    err = rs_kmip_payload_text(&q.results[0], name, value);
    if (err != RESEAL_ENOKEY) return err;
    err = rs_kmip_payload_asi(&q.results[0], RS_KMIP_NAMESPACE, folded);
    if (err != 0) return err;
    return unfold_detail(folded, name, value) ? 0 : RESEAL_ENOKEY;
}

static void write_asi(struct rs_kmip_request *q, const void *arg)
{
    const struct rs_kmip_detail *asi = arg; /* name: the key's id */
    rs_kmip_modify_asi(q, asi->name, RS_KMIP_NAMESPACE, asi->value);
}

/* The details, and the lines of `text` that they say nothing about. */
static bool refold(const char *text, const struct rs_kmip_detail *details, unsigned n,
                   char out[RS_KMIP_TEXT_MAX])
{
    if (!fold_details(details, n, out)) return false;
    size_t used = strlen(out);
    for (const char *line = text; *line != '\0';) {
        size_t len = strcspn(line, "\n"), name = strcspn(line, "=\n");
        bool ours = false;
        for (unsigned i = 0; i < n; i++)
            ours = ours || (strlen(details[i].name) == name && strncmp(details[i].name, line, name) == 0);
        if (!ours && len > 0) {
            int more = snprintf(out + used, RS_KMIP_TEXT_MAX - used, "\n%.*s", (int)len, line);
            if (more < 0 || (size_t)more >= RS_KMIP_TEXT_MAX - used) return false;
            used += (size_t)more;
        }
        line += len + (line[len] == '\n');
    }
    return true;
}

/* Into the namespace of ours that the key has from its creation. */
static bool note_in_namespace(struct rs_kmip_client *c, const char *id, const struct rs_kmip_detail *details,
                              unsigned n)
{
    struct question get = {
        .n = 1, .operations = {RS_KMIP_GET_ATTRIBUTES}, .write = write_all_attributes, .arg = id};
    char text[RS_KMIP_TEXT_MAX], fresh[RS_KMIP_TEXT_MAX];
    if (ask_one(c, &get, "asking for the key's attributes") != 0 ||
        rs_kmip_payload_asi(&get.results[0], RS_KMIP_NAMESPACE, text) != 0 ||
        !refold(text, details, n, fresh))
        return false;
    const struct rs_kmip_detail asi = {id, fresh};
    struct question modify = {
        .changes = true, .n = 1, .operations = {RS_KMIP_MODIFY_ATTRIBUTE}, .write = write_asi, .arg = &asi};
    return ask_one(c, &modify, "noting what the key is used for") == 0;
}

void rs_kmip_note(struct rs_kmip_client *c, const char *id, const struct rs_kmip_detail *details, unsigned n,
                  unsigned *kept)
{
    struct rs_kmip_detail missing[RS_KMIP_DETAILS_MAX];
    struct details to_add = {id, missing, 0};
    char value[RS_KMIP_TEXT_MAX];
    *kept = 0;
    for (unsigned i = 0; i < n && i < RS_KMIP_DETAILS_MAX; i++) {
        char as_plain[RS_KMIP_TEXT_MAX];
        plain_text(details[i].value, as_plain);
        if (rs_kmip_detail_of(c, id, details[i].name, value) == 0 &&
            (strcmp(value, details[i].value) == 0 || strcmp(value, as_plain) == 0))
            ++*kept;
        else
            missing[to_add.n++] = details[i];
    }
    if (to_add.n == 0) return;
    unsigned added = keep_details(c, &to_add);
    if (added == 0 && note_in_namespace(c, id, missing, to_add.n)) added = to_add.n;
    struct plain plain;
    if (added == 0 && make_plain(missing, to_add.n, &plain)) {
        to_add.details = plain.details;
        added = keep_details(c, &to_add);
        if (added == 0 && note_in_namespace(c, id, plain.details, to_add.n)) added = to_add.n;
    }
    *kept += added;
}

static void write_locate(struct rs_kmip_request *q, const void *arg)
{
    rs_kmip_locate(q, arg);
}

int rs_kmip_list(struct rs_kmip_client *c, const struct rs_kmip_filter *filter, char (*ids)[RS_KMIP_ID_MAX],
                 unsigned max, unsigned *n)
{
    struct question q = {.n = 1, .operations = {RS_KMIP_LOCATE}, .write = write_locate, .arg = filter};
    int err = ask_one(c, &q, "listing keys");
    if (err != 0) return err;
    err = rs_kmip_payload_ids(&q.results[0], ids, max, n);
    return err == 0 ? 0 : misread(c, err, "its list of keys cannot be read");
}

struct revoke {
    const char *id, *message;
    enum rs_kmip_revocation why;
};

static void write_revoke(struct rs_kmip_request *q, const void *arg)
{
    const struct revoke *r = arg;
    rs_kmip_revoke(q, r->id, r->why, r->message);
}

static void write_destroy(struct rs_kmip_request *q, const void *arg)
{
    rs_kmip_destroy(q, arg);
}

int rs_kmip_retire(struct rs_kmip_client *c, const char *id, enum rs_kmip_revocation why, const char *message)
{
    struct revoke r = {id, message, why};
    struct question revoke = {
        .changes = true, .n = 1, .operations = {RS_KMIP_REVOKE}, .write = write_revoke, .arg = &r};
    struct question destroy = {
        .changes = true, .n = 1, .operations = {RS_KMIP_DESTROY}, .write = write_destroy, .arg = id};
    int err = ask_one(c, &revoke, "revoking the key");
    if (err == RESEAL_ENOKEY) return 0;
    /* Revoked before, and only that is why it is refused now: destroying it will tell. */
    if (err != 0 &&
        !(c->error.fault == RS_KMIP_SERVER_REFUSES && c->error.reason == RS_KMIP_ILLEGAL_OPERATION))
        return err;
    err = ask_one(c, &destroy, "destroying the key");
    return err == RESEAL_ENOKEY ? 0 : err;
}

static void write_query(struct rs_kmip_request *q, const void *arg)
{
    static const uint32_t functions[] = {RS_KMIP_QUERY_OPERATIONS, RS_KMIP_QUERY_SERVER_INFORMATION};
    (void)arg;
    rs_kmip_query(q, functions, RS_ARRAY_LEN(functions));
}

int rs_kmip_about(struct rs_kmip_client *c, struct rs_kmip_about *out)
{
    struct question q = {.n = 1, .operations = {RS_KMIP_QUERY}, .write = write_query};
    memset(out, 0, sizeof(*out));
    int err = ask_one(c, &q, "asking what it can do");
    if (err != 0) return err;
    if (rs_kmip_payload_vendor(&q.results[0], out->vendor) != 0)
        return misread(c, RESEAL_EPROTO, "what it says about itself cannot be read");
    out->server = &c->config.servers[c->at];
    out->version = c->version;
    out->adds_attributes = rs_kmip_payload_has_operation(&q.results[0], RS_KMIP_ADD_ATTRIBUTE);
    rs_kmip_link_protocol(c->link, &out->tls, &out->cipher);
    return 0;
}
