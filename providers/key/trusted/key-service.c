/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/trusted/key-service.h"

#include "offload/base/keymem.h"
#include "reseal/reseal.h"

#include <stdio.h>
#include <time.h>

struct call {
    struct rs_key_service *s;
    const struct rs_wire_caller *caller;
    const json_t *in;
    struct rs_wire_message *answer;
    struct rs_token_claims claims;
    bool attest; /* another token may help */
    char why[RS_TRUST_WHY];
};

static int refuse(struct call *c, int status, const char *line)
{
    (void)snprintf(c->why, sizeof(c->why), "%s", line);
    return status;
}

/* A token that serves once and comes again. Places of expired ones are used again; when there is none, it is
 * refused: forgetting one early would let it in twice. */
static int use_once(struct call *c)
{
    int64_t now = (int64_t)time(NULL);
    unsigned place = RS_SEEN_MAX;
    for (unsigned i = 0; i < RS_SEEN_MAX; i++) {
        if (c->s->seen[i].until <= now)
            place = i;
        else if (strcmp(c->s->seen[i].id, c->claims.id) == 0)
            return refuse(c, RESEAL_EAUTH, "the token was used before, and serves once: attest again");
    }
    if (place == RS_SEEN_MAX)
        return refuse(c, RESEAL_ELIMIT, "too many tokens are in use: come again in a while");
    memcpy(c->s->seen[place].id, c->claims.id, sizeof(c->claims.id));
    c->s->seen[place].until = c->claims.expires + RS_TOKEN_LEEWAY;
    return 0;
}

static int check_token(struct call *c)
{
    const char *token = json_string_value(json_object_get(c->in, "token"));
    const struct rs_token_rules rules = {
        .keys = c->s->keys, .audience = c->s->name, .cert = c->caller->id.cert, .now = (int64_t)time(NULL)};
    c->attest = true;
    if (token == NULL) return refuse(c, RESEAL_EAUTH, "keys are given for a token only: attest first");
    int err = rs_token_verify(token, &rules, &c->claims, c->why);
    if (err != 0) {
        memset(&c->claims, 0, sizeof(c->claims));
        return err == RESEAL_EFORMAT ? RESEAL_EAUTH : err;
    }
    if (c->s->single_use) err = use_once(c);
    if (err != 0) return err;
    c->attest = false;
    if (rs_daemon_revoked(c->s->daemon, c->claims.host))
        return refuse(c, RESEAL_EPERM, "this host is revoked");
    return 0;
}

static int need_ready(struct call *c, const struct rs_primary *p)
{
    if (p->ready) return 0;
    (void)snprintf(c->why, sizeof(c->why), "the primary key is not there: %.200s", p->why);
    return RESEAL_ENOSERVICE;
}

static int hello(struct call *c)
{
    (void)json_object_set_new(c->answer->json, "name", json_string(c->s->name));
    (void)json_object_set_new(c->answer->json, "ready", json_boolean(c->s->primaries.at[0].ready));
    (void)json_object_set_new(c->answer->json, "expires",
                              json_pack("{s:I, s:I}", "client",
                                        (json_int_t)rs_primaries_end(&c->s->primaries, 0), "server",
                                        (json_int_t)rs_primaries_end(&c->s->primaries, 1)));
    return 0;
}

static int room_for_kek(struct call *c)
{
    c->answer->block = rs_keymem_alloc(RS_NATIVE_KEK_LEN);
    c->answer->block_len = c->answer->block == NULL ? 0 : RS_NATIVE_KEK_LEN;
    return c->answer->block == NULL ? RESEAL_ENOMEM : 0;
}

static int new_key(struct call *c)
{
    const struct rs_primary *p = &c->s->primaries.at[0];
    char id[RS_NATIVE_ID_ROOM];
    int err = check_token(c);
    if (err == 0) err = need_ready(c, p);
    if (err == 0) err = room_for_kek(c);
    if (err == 0) err = rs_native_make(p->kdk, c->answer->block, id);
    if (err == 0) (void)json_object_set_new(c->answer->json, "key", json_string(id));
    return err;
}

static int unwrap(struct call *c)
{
    const char *id = json_string_value(json_object_get(c->in, "key"));
    int err = check_token(c);
    if (err != 0) return err;
    const struct rs_primary *p = id == NULL ? NULL : rs_primaries_of(&c->s->primaries, id);
    /* A primary key that is not there yet has no name. */
    for (unsigned i = 0; p == NULL && i < c->s->primaries.n; i++)
        if (!c->s->primaries.at[i].ready) p = &c->s->primaries.at[i];
    if (p == NULL)
        return refuse(c, RESEAL_ENOKEY,
                      "this key is of another provider, or its primary key is not configured");
    err = need_ready(c, p);
    if (err == 0) err = room_for_kek(c);
    if (err == 0) err = rs_native_open(p->kdk, id, c->answer->block);
    if (err == RESEAL_EAUTH) return refuse(c, RESEAL_ENOKEY, "this key id was changed: it does not open");
    return err;
}

/* One line for each request for a key, given or not. */
static void audit(const struct call *c, const char *method, int status)
{
    const char *id = json_string_value(json_object_get(c->in, "key"));
    if (id == NULL) id = json_string_value(json_object_get(c->answer->json, "key"));
    rs_daemon_log(c->s->daemon, "%.20s host=%s from=%s token=%s key=%.120s: %s%s", method,
                  c->claims.host[0] != '\0' ? c->claims.host : "?", c->caller->address,
                  c->claims.id[0] != '\0' ? c->claims.id : "?", id == NULL ? "?" : id,
                  status == 0 ? "given" : "refused: ", status == 0 ? "" : c->why);
}

void rs_key_service_handle(void *arg, const struct rs_wire_caller *caller,
                           const struct rs_wire_message *request, struct rs_wire_message *answer)
{
    static const struct {
        const char *name;
        int (*run)(struct call *);
    } methods[] = {{"hello", hello}, {"new", new_key}, {"unwrap", unwrap}};
    const char *method = json_string_value(json_object_get(request->json, "method"));
    struct call c = {.s = arg, .caller = caller, .in = request->json, .answer = answer};
    answer->json = json_object();
    int err = refuse(&c, RESEAL_ENOSUPPORT, "no such request");
    for (unsigned i = 0; method != NULL && i < RS_ARRAY_LEN(methods); i++)
        if (strcmp(method, methods[i].name) == 0) {
            c.why[0] = '\0';
            err = methods[i].run(&c);
        }
    if (err != 0 && c.why[0] == '\0') (void)refuse(&c, err, reseal_strerror(err));
    if (method == NULL || strcmp(method, "hello") != 0) audit(&c, method == NULL ? "?" : method, err);
    if (err == 0) return;
    rs_wire_message_free(answer);
    answer->json = rs_wire_refusal(err, "%s", c.why);
    if (c.attest) (void)json_object_set_new(answer->json, "attest", json_true());
}
