/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks, as they see themselves: in a child, or in reseal-keyd. */
#include "providers/key/task.h"

#include "offload/base/keymem.h"
#include "providers/key/nursery.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int rs_task_fail(struct rs_task *task, int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(task->why, sizeof(task->why), format, args);
    va_end(args);
    return status;
}

/* A text that says why, whatever the task left out. */
static void complete(struct rs_task *task, int status)
{
    if (status == 0) task->why[0] = task->event[0] = '\0';
    if (status != 0 && task->why[0] == '\0')
        (void)snprintf(task->why, sizeof(task->why), "%s", reseal_strerror(status));
    rs_line_clean(task->why);
    if (status != 0) rs_cleanup_close(&task->out_fd);
    if (status != 0) rs_secrets_free(&task->yields);
}

/* ---- in a child ------------------------------------------------------------------- */

/* Text and secrets, as they arrive in parts. */
struct parts {
    char *text;
    uint8_t *secrets;
    size_t text_len, secrets_len;
};

/* Reads all parts; `m` lies in key memory. */
static int read_parts(int op, struct rs_msg *m, struct parts *p)
{
    size_t all = p->text_len + p->secrets_len;
    for (size_t got = 0; got < all;) {
        int r = rs_msg_recv(op, m, 0);
        if (r != 0) return r;
        size_t n = m->header.length, text = got < p->text_len ? RS_MIN(n, p->text_len - got) : 0;
        bool ok = m->header.type == RS_MSG_PART && m->nfds == 0 && n != 0 && n <= all - got;
        if (!ok) return RESEAL_EPROTO;
        memcpy(p->text + got, m->body, text);
        memcpy(p->secrets + (got + text - p->text_len), m->body + text, n - text);
        got += n;
    }
    rs_wipe(m->body, sizeof(m->body));
    return 0;
}

static int send_parts(int op, const uint8_t *bytes, size_t len)
{
    int r = 0;
    for (size_t at = 0; at < len && r == 0; at += RS_MSG_BODY_MAX)
        r = rs_msg_send(op, RS_MSG_PART, 0, bytes + at, RS_MIN(len - at, (size_t)RS_MSG_BODY_MAX), NULL, 0,
                        0);
    return r;
}

static int send_answer(int op, struct rs_task *task, int status)
{
    size_t len = 0;
    struct rs_task_reply reply = {0};
    RS_FREE char *text = json_dumps(task->result, JSON_COMPACT);
    complete(task, status);
    RS_KEYMEM uint8_t *packed = rs_secrets_pack(&task->yields, &len);
    if (text == NULL || packed == NULL || strlen(text) > RS_TASK_TEXT) return RESEAL_ELIMIT;
    reply.status = status;
    reply.text_len = (uint32_t)strlen(text);
    reply.secrets_len = (uint32_t)len;
    memcpy(reply.why, task->why, sizeof(reply.why));
    memcpy(reply.event, task->event, sizeof(reply.event));
    int r = rs_msg_send(op, RS_MSG_TASK_REPLY, 0, &reply, sizeof(reply), &task->out_fd,
                        task->out_fd >= 0 ? 1 : 0, 0);
    if (r == 0) r = send_parts(op, (const uint8_t *)text, reply.text_len);
    return r != 0 ? r : send_parts(op, packed, len);
}

/* What came, as a task. */
static int task_of(const struct rs_task_order *order, const struct parts *p, const int *fds,
                   struct rs_secrets *secrets, struct rs_task *task)
{
    *task = (struct rs_task){.secrets = secrets, .nfds = order->nfds, .out_fd = -1, .fds = {-1, -1, -1}};
    for (unsigned i = 0; i < RS_TASK_FDS; i++)
        if ((order->fds & 1u << i) != 0) task->fds[i] = *fds++;
    task->args = json_loadb(p->text, p->text_len, 0, NULL);
    task->result = json_object();
    if (task->args == NULL || task->result == NULL) return RESEAL_ENOMEM;
    return rs_secrets_unpack(p->secrets, p->secrets_len, secrets);
}

/* One task, whose descriptors are closed after it. 0, or the exit status of a child that is of no use any
 * more. */
static int serve_one(const struct rs_task_order *order, int op, const int *fds)
{
    struct parts p = {.text_len = order->text_len, .secrets_len = order->secrets_len};
    struct rs_secrets secrets = {0};
    struct rs_task task;
    RS_KEYMEM struct rs_msg *m = rs_keymem_alloc(sizeof(*m));
    RS_FREE char *text = malloc(p.text_len + 1);
    RS_KEYMEM uint8_t *packed = rs_keymem_alloc(p.secrets_len + 1);
    if (m == NULL || text == NULL || packed == NULL) return 2;
    p.text = text;
    p.secrets = packed;
    if (read_parts(op, m, &p) != 0 || task_of(order, &p, fds, &secrets, &task) != 0) return 2;
    int r = send_answer(op, &task, rs_task_kinds[order->kind]->run(&task));
    rs_secrets_free(&secrets);
    rs_secrets_free(&task.yields);
    rs_cleanup_close(&task.out_fd);
    json_decref(task.result);
    json_decref((json_t *)(uintptr_t)task.args);
    return r == 0 ? 0 : 2;
}

/* Waits for the next order; 1: there will be none. */
static int next_order(int op, struct rs_task_order *order, int fds[RS_TASK_FDS])
{
    static struct rs_msg m; /* an order and descriptors: no secret */
    if (rs_msg_recv(op, &m, 0) != 0) return 1;
    if (m.header.type != RS_MSG_TASK || m.header.length != sizeof(*order) || m.nfds > RS_TASK_FDS) return 2;
    memcpy(order, m.body, sizeof(*order));
    for (unsigned i = 0; i < RS_TASK_FDS; i++) fds[i] = rs_msg_take_fd(&m, i);
    return 0;
}

int rs_task_serve(const struct rs_task_order *first, int op, int *fds)
{
    struct rs_task_order order = *first;
    for (;;) {
        int r = serve_one(&order, op, fds);
        for (unsigned i = 0; i < RS_TASK_FDS; i++) rs_cleanup_close(&fds[i]);
        if (r != 0 || !rs_task_kinds[order.kind]->again) return r;
        (void)alarm(0); /* reseal-keyd says how long it rests */
        r = next_order(op, &order, fds);
        if (r != 0) return r == 1 ? 0 : r;
        (void)alarm(order.deadline_s);
    }
}

/* ---- in reseal-keyd itself ----------------------------------------------------------- */

void rs_task_run_here(const struct rs_task_kind *kind, const json_t *args, const struct rs_secrets *secrets,
                      struct rs_task_own *own)
{
    static const struct rs_secrets none;
    *own = (struct rs_task_own){.task = {.args = args,
                                         .secrets = secrets != NULL ? secrets : &none,
                                         .fds = {-1, -1, -1},
                                         .result = json_object(),
                                         .out_fd = -1}};
    struct rs_task *task = &own->task;
    int status = task->result != NULL ? kind->run(task) : RESEAL_ENOMEM;
    complete(task, status);
    own->answer = (struct rs_task_answer){.status = status,
                                          .result = task->result,
                                          .secrets = &task->yields,
                                          .fd = task->out_fd,
                                          .why = task->why,
                                          .event = task->event};
    task->out_fd = -1; /* the answer's now */
}

void rs_task_own_free(struct rs_task_own *own)
{
    json_decref(own->task.result);
    rs_secrets_free(&own->task.yields);
    rs_cleanup_close(&own->task.out_fd);
    rs_cleanup_close(&own->answer.fd);
    *own = (struct rs_task_own){.task = {.out_fd = -1}, .answer = {.fd = -1}};
}
