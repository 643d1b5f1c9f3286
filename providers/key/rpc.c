/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/rooms.h"

#include "offload/base/foreign.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define METHOD_MAX 64u

/* What may still be under way for a call, and is to be ended with it. */
static void (*const cancels[])(struct rs_keyd *d, const void *arg) = {
    rs_task_cancel,
    rs_kek_cancel,
};

/* ---- the end of a call --------------------------------------------------------- */

static void free_call(struct rs_rpc *call)
{
    json_decref(call->request);
    free(call);
}

/*
 * Ends all that belongs to the call; its client is free for the next. While the method itself runs the call
 * stays in memory: one that looks at an argument after it has failed must do no harm.
 */
static void end_call(struct rs_rpc *call)
{
    if (call->client->call == call) call->client->call = NULL;
    call->ended = true;
    for (unsigned i = 0; i < RS_ARRAY_LEN(cancels); i++) cancels[i](call->d, call);
    if (call->drop != NULL) call->drop(call);
    for (unsigned i = 0; i < RS_RPC_FDS; i++) rs_foreign_close(&call->fds[i], call->client->uid);
    if (!call->running) free_call(call);
}

/* Takes `reply` and fd. False: the client does not get it. */
static bool send_reply(const struct rs_client *c, int status, json_t *reply, int fd)
{
    RS_CLOSE int beside = fd;
    RS_FREE char *text = reply != NULL ? json_dumps(reply, JSON_COMPACT) : NULL;
    json_decref(reply);
    RS_CLOSE int text_fd = text != NULL ? rs_msg_text_fd(text, strlen(text)) : -1;
    const int fds[2] = {text_fd, beside};
    /* A client that does not read its replies is not waited for. */
    return text_fd >= 0 && rs_msg_send(c->watch.fd, RS_MSG_RPC | RS_MSG_REPLY, status, NULL, 0, fds,
                                       beside >= 0 ? 2 : 1, MSG_DONTWAIT) == 0;
}

static void finish(struct rs_rpc *call, int status, json_t *reply, int fd)
{
    struct rs_keyd *d = call->d;
    struct rs_client *c = call->client;
    bool running = call->running;
    if (call->ended) { /* it was answered already */
        json_decref(reply);
        rs_cleanup_close(&fd);
        return;
    }
    end_call(call);
    if (send_reply(c, status, reply, fd))
        rs_keyd_interest(d, &c->watch, EPOLLIN);
    else if (running)
        call->lost = true;
    else
        rs_keyd_drop(d, c);
}

/* What only looks, and has no line in the audit. */
static bool is_unaudited(const char *method)
{
    static const char *const names[] = {
        "service.methods", "provider.list",    "provider.show", "kek.list",     "file.describe",
        "tenant.list",     "tenant.audit_key", "event.list",    "event.follow", "event.webhook_show",
        "audit.list",      "vm.tell",          "host.identity", "host.list",
    };
    for (unsigned i = 0; i < RS_ARRAY_LEN(names); i++)
        if (strcmp(names[i], method) == 0) return true;
    return false;
}

/* What is not in the audit has not been: the answer is not given. */
void rs_rpc_answer(struct rs_rpc *call, json_t *result, int fd)
{
    char why[RS_TASK_WHY];
    if (!is_unaudited(call->method) && !rs_audit_works(call->d, why, sizeof(why))) {
        json_decref(result);
        rs_cleanup_close(&fd);
        rs_rpc_fail(call, RESEAL_EIO, "%s", why);
        return;
    }
    finish(call, 0, result != NULL ? result : json_object(), fd);
}

/* An object with the line; `line` is cleaned. */
static json_t *error_of(char *line)
{
    rs_line_clean(line);
    return json_pack("{s:s}", "error", line);
}

void rs_rpc_fail(struct rs_rpc *call, int status, const char *format, ...)
{
    char line[RS_TASK_WHY];
    va_list args;
    va_start(args, format);
    if (format != NULL)
        (void)vsnprintf(line, sizeof(line), format, args);
    else
        (void)snprintf(line, sizeof(line), "%s", reseal_strerror(status));
    va_end(args);
    finish(call, status, error_of(line), -1);
}

void rs_rpc_fail_as(struct rs_rpc *call, const struct rs_task_answer *answer)
{
    char line[RS_TASK_WHY];
    (void)snprintf(line, sizeof(line), "%s", answer->why);
    json_t *error = error_of(line);
    /* What the task found before it failed helps to see why. */
    json_t *reply = answer->result != NULL ? json_deep_copy(answer->result) : json_object();
    (void)json_object_update(reply, error);
    json_decref(error);
    if (answer->event != NULL && answer->event[0] != '\0')
        (void)json_object_set_new(reply, "event", json_string(answer->event));
    finish(call, answer->status, reply, -1);
}

void rs_rpc_cancel(struct rs_keyd *d, struct rs_client *c)
{
    (void)d;
    if (c->call != NULL) end_call(c->call);
}

/* ---- arguments -------------------------------------------------------------------- */

static bool is_plain(const char *text)
{
    for (; *text != '\0'; text++)
        if ((uint8_t)*text < 0x20 || *text == 0x7f) return false;
    return true;
}

const char *rs_rpc_text(struct rs_rpc *call, const char *name, size_t max)
{
    const json_t *value = json_object_get(call->args, name);
    const char *text = value == NULL ? "" : json_string_value(value);
    if (text != NULL && strlen(text) < max && is_plain(text)) return text;
    rs_rpc_fail(call, RESEAL_EINVAL, "%s: wants a text of at most %zu bytes without control characters", name,
                max - 1);
    return NULL;
}

const char *rs_rpc_need(struct rs_rpc *call, const char *name, size_t max)
{
    const char *text = rs_rpc_text(call, name, max);
    if (text == NULL || *text != '\0') return text;
    rs_rpc_fail(call, RESEAL_EINVAL, "%s: must be given", name);
    return NULL;
}

int64_t rs_rpc_number(struct rs_rpc *call, const char *name, int64_t max, int64_t otherwise)
{
    const json_t *value = json_object_get(call->args, name);
    if (value == NULL) return otherwise;
    json_int_t n = json_integer_value(value);
    if (json_is_integer(value) && n >= 0 && n <= max) return n;
    rs_rpc_fail(call, RESEAL_EINVAL, "%s: wants a number from 0 to %lld", name, (long long)max);
    return -1;
}

int rs_rpc_flag(struct rs_rpc *call, const char *name)
{
    const json_t *value = json_object_get(call->args, name);
    if (value == NULL || json_is_boolean(value)) return json_is_true(value);
    rs_rpc_fail(call, RESEAL_EINVAL, "%s: wants true or false", name);
    return -1;
}

/* True when the name is one of the blank-separated ones. */
static bool is_listed(const char *names, const char *name)
{
    size_t len = strlen(name);
    for (const char *at = names; len != 0 && (at = strstr(at, name)) != NULL; at += len)
        if ((at == names || at[-1] == ' ') && (at[len] == '\0' || at[len] == ' ') &&
            strchr(name, ' ') == NULL)
            return true;
    return false;
}

bool rs_rpc_args(struct rs_rpc *call, const char *names)
{
    const char *name;
    json_t *value;
    json_object_foreach(call->args, name, value)
    {
        if (is_listed(names, name)) continue;
        rs_rpc_fail(call, RESEAL_EINVAL, "%.64s: %s has no such argument%s%s", name, call->method,
                    *names != '\0' ? ", only: " : "", names);
        return false;
    }
    return true;
}

/* ---- a request ----------------------------------------------------------------------- */

/* The text of a memfd that nobody can change or shorten, so that reading it neither waits nor faults. */
static int read_text(int fd, char **out, size_t *len)
{
    struct stat st;
    const int want = F_SEAL_WRITE | F_SEAL_SHRINK;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & want) != want || fstat(fd, &st) != 0 || st.st_size <= 0) return RESEAL_EINVAL;
    if (st.st_size > RS_RPC_TEXT_MAX) return RESEAL_ELIMIT;
    *len = (size_t)st.st_size;
    *out = malloc(*len);
    if (*out == NULL) return RESEAL_ENOMEM;
    return rs_pread_full(fd, *out, *len, 0) == 0 ? 0 : RESEAL_EIO;
}

/* False: the call has failed. */
static bool parse(struct rs_rpc *call, int fd)
{
    RS_FREE char *text = NULL;
    size_t len = 0;
    json_error_t error;
    const char *key;
    json_t *value;
    int r = read_text(fd, &text, &len);
    if (r != 0) {
        rs_rpc_fail(call, r,
                    "a request is a text of 1 to %u bytes in a memfd with F_SEAL_WRITE and F_SEAL_SHRINK",
                    RS_RPC_TEXT_MAX);
        return false;
    }
    call->request = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (call->request == NULL) {
        rs_rpc_fail(call, RESEAL_EINVAL, "the request is no JSON: line %d: %s", error.line, error.text);
        return false;
    }
    json_object_foreach(call->request, key, value)
    {
        if (strcmp(key, "method") == 0 && json_is_string(value))
            call->method = json_string_value(value);
        else if (strcmp(key, "args") == 0 && json_is_object(value))
            call->args = value;
        else
            break;
    }
    bool whole = json_object_size(call->request) == (call->args != NULL ? 2u : 1u);
    if (call->method == NULL || !whole) {
        rs_rpc_fail(call, RESEAL_EINVAL,
                    "a request is {\"method\": text, \"args\": object}, and nothing else");
        return false;
    }
    if (call->args != NULL) return true;
    value = json_object();
    if (json_object_set_new(call->request, "args", value) == 0) call->args = value;
    if (call->args == NULL) rs_rpc_fail(call, RESEAL_ENOMEM, NULL);
    return call->args != NULL;
}

static const struct rs_rpc_method *find_method(const char *name)
{
    for (unsigned t = 0; rs_rpc_tables[t] != NULL; t++)
        for (const struct rs_rpc_method *m = rs_rpc_tables[t]; m->name != NULL; m++)
            if (strcmp(m->name, name) == 0) return m;
    return NULL;
}

static void refuse_privilege(struct rs_rpc *call, int privilege)
{
    char line[RS_TASK_WHY];
    const char *name = rs_privilege_names[privilege];
    (void)snprintf(line, sizeof(line),
                   "%s needs the privilege %s: the service's administrator can grant it in the policy, see "
                   "reseal-policy(5)",
                   call->method, name);
    const struct rs_who who = rs_who_of(call->client);
    rs_audit(call->d, &who, call->method, "", RESEAL_EPERM, json_pack("{s:s}", "privilege", name));
    json_t *reply = error_of(line);
    (void)json_object_set_new(reply, "privilege", json_string(name));
    finish(call, RESEAL_EPERM, reply, -1);
}

bool rs_rpc_may(struct rs_rpc *call, enum rs_privilege privilege)
{
    const struct rs_client *c = call->client;
    if (rs_policy_has(call->d->policy, c->uid, c->gid, c->tenant, privilege)) return true;
    refuse_privilege(call, privilege);
    return false;
}

static int decide(const struct rs_rpc *call, struct rs_policy_question *q)
{
    const struct rs_client *c = call->client;
    q->uid = c->uid;
    q->gid = c->gid;
    int r = rs_policy_tenant(call->d->policy, c->uid, c->gid, c->tenant, &q->tenant);
    return r == 0 ? rs_policy_decide(call->d->policy, q) : r;
}

int rs_rpc_may_be_plain(const struct rs_rpc *call, const char *key_name, const char *provider)
{
    struct rs_policy_question q = {
        .from = key_name, .from_provider = provider, .to = "plain", .to_is_plain = true};
    return decide(call, &q);
}

int rs_rpc_may_move(const struct rs_rpc *call, const char *key_name, const char *provider, const char *other)
{
    struct rs_policy_question q = {
        .from = key_name, .from_provider = provider, .to = key_name, .to_provider = other};
    return decide(call, &q);
}

int rs_rpc_may_rewrap(const struct rs_rpc *call, const char *provider, const char *other)
{
    char from[128], to[128];
    if (strcmp(provider, other) == 0) return 0;
    (void)snprintf(from, sizeof(from), "provider:%s", provider);
    (void)snprintf(to, sizeof(to), "provider:%s", other);
    struct rs_policy_question q = {.from = from, .from_provider = provider, .to = to, .to_provider = other};
    return decide(call, &q);
}

static void dispatch(struct rs_rpc *call)
{
    const struct rs_rpc_method *m = find_method(call->method);
    if (m == NULL) {
        rs_rpc_fail(call, RESEAL_ENOSUPPORT, "%.64s: this service has no such method", call->method);
        return;
    }
    call->method = m->name;
    if (m->privilege != RS_NO_PRIVILEGE && !rs_rpc_may(call, (enum rs_privilege)m->privilege)) return;
    if (call->nfds < m->min_fds || call->nfds > m->max_fds) {
        rs_rpc_fail(call, RESEAL_EINVAL, "%s wants %u to %u descriptors, not %u", m->name, m->min_fds,
                    m->max_fds, call->nfds);
        return;
    }
    char why[RS_TASK_WHY];
    if (!is_unaudited(m->name) && !rs_audit_works(call->d, why, sizeof(why)))
        rs_rpc_fail(call, RESEAL_EIO, "%s: %s", m->name, why);
    else
        m->run(call);
}

bool rs_rpc_request(struct rs_keyd *d, struct rs_client *c, struct rs_msg *m)
{
    struct rs_rpc *call = calloc(1, sizeof(*call));
    uint32_t uid = c->uid; /* it may be gone before the text is closed */
    if (call == NULL) return false;
    *call = (struct rs_rpc){.d = d, .client = c, .nfds = m->nfds - 1, .fds = {-1, -1, -1}};
    int text = rs_msg_take_fd(m, 0);
    for (unsigned i = 0; i < call->nfds; i++) call->fds[i] = rs_msg_take_fd(m, i + 1);
    c->call = call;
    rs_keyd_interest(d, &c->watch, 0);
    call->running = true;
    bool parsed = parse(call, text);
    rs_foreign_close(&text, uid);
    if (parsed) dispatch(call);
    call->running = false;
    if (!call->ended) return true;
    bool keep = !call->lost;
    free_call(call);
    return keep;
}

/* ---- methods of the service itself ------------------------------------------------------ */

static void list_methods(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "")) return;
    json_t *list = json_array();
    for (unsigned t = 0; rs_rpc_tables[t] != NULL; t++)
        for (const struct rs_rpc_method *m = rs_rpc_tables[t]; m->name != NULL; m++) {
            const char *privilege = m->privilege >= 0 ? rs_privilege_names[m->privilege] : "";
            (void)json_array_append_new(list,
                                        json_pack("{s:s, s:s}", "method", m->name, "privilege", privilege));
        }
    rs_rpc_answer(call, json_pack("{s:o}", "methods", list), -1);
}

const struct rs_rpc_method rs_rpc_service[] = {
    {"service.methods", 0, 0, RS_NO_PRIVILEGE, list_methods},
    {NULL, 0, 0, 0, NULL},
};
