/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks, as reseal-keyd sees them: waiting, being told what to do, answering. */
#include "providers/key/keyd.h"

#include "offload/base/clock.h"
#include "offload/base/foreign.h"
#include "offload/base/keymem.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GRACE_NS   UINT64_C(2000000000) /* a child ends itself by its alarm; one that does not is ended */
#define SECOND_NS  UINT64_C(1000000000)
#define REST_NS    UINT64_C(1000000000) /* how long a child waits for another task of its user, */
#define REST_TASKS 256u /* and how many it does in all: its limit of processor time is one for all */
#define AT_ONCE    32u  /* messages of one child before others have their turn */

/* Text and packed secrets of one direction. */
struct load {
    char *text;
    uint8_t *secrets; /* key memory */
    size_t text_len, secrets_len;
    size_t done; /* bytes of both that were sent or came */
};

struct rs_task_run {
    struct rs_watch watch; /* fd -1: it waits */
    struct rs_task_run *next;
    const struct rs_task_kind *kind;
    uint32_t number, uid, deadline_s;
    int fds[RS_TASK_FDS];
    unsigned nfds;
    int pidfd;
    unsigned before; /* tasks that its child did earlier */
    uint64_t until_ns;
    struct load order, answer;
    bool answers;
    struct rs_task_reply reply;
    int out_fd;
    rs_task_done *done;
    void *arg;
};

/* A child that has done its task and can do another for the same user. */
struct rs_task_rest {
    struct rs_watch watch;
    struct rs_task_rest *next;
    uint32_t uid;
    enum rs_task_place place;
    int pidfd;
    unsigned done; /* tasks, so far */
    uint64_t until_ns;
};

/* ---- limits ------------------------------------------------------------------------ */

bool rs_tasks_may_start(const struct rs_keyd *d, uint32_t uid, enum rs_task_place place)
{
    unsigned all = 0, same = 0;
    for (const struct rs_task_run *t = d->tasks; t != NULL; t = t->next) {
        if (t->watch.fd < 0 || t->kind->place != place) continue;
        all++;
        same += t->uid == uid;
    }
    for (const struct rs_running *o = d->orders; o != NULL && place == RS_TASK_CLOSED; o = o->next) {
        if (o->watch.fd < 0) continue;
        all++;
        same += o->client->uid == uid;
    }
    return all < RS_KEYD_CHILDREN && same < RS_KEYD_CHILDREN_OF_USER;
}

unsigned rs_tasks_count(const struct rs_keyd *d)
{
    unsigned n = 0;
    for (const struct rs_task_run *t = d->tasks; t != NULL; t = t->next) n++;
    return n;
}

/* ---- its end ------------------------------------------------------------------------ */

static void load_free(struct load *l)
{
    free(l->text);
    rs_keymem_free(l->secrets);
    *l = (struct load){0};
}

static void take_out(struct rs_keyd *d, const struct rs_task_run *t)
{
    struct rs_task_run **at = &d->tasks;
    while (*at != t) at = &(*at)->next;
    *at = t->next;
}

/* Out of the list already. */
static void release(struct rs_keyd *d, struct rs_task_run *t)
{
    if (t->pidfd >= 0) (void)syscall(SYS_pidfd_send_signal, t->pidfd, SIGKILL, NULL, 0);
    rs_cleanup_close(&t->pidfd);
    rs_keyd_unwatch(d, &t->watch);
    for (unsigned i = 0; i < RS_TASK_FDS; i++) rs_foreign_close(&t->fds[i], t->uid);
    rs_cleanup_close(&t->out_fd);
    load_free(&t->order);
    load_free(&t->answer);
    free(t);
}

/* ---- children that rest ----------------------------------------------------------------- */

static void rest_end(struct rs_keyd *d, struct rs_task_rest *rest)
{
    struct rs_task_rest **at = &d->rests;
    while (*at != rest) at = &(*at)->next;
    *at = rest->next;
    if (rest->pidfd >= 0) (void)syscall(SYS_pidfd_send_signal, rest->pidfd, SIGKILL, NULL, 0);
    rs_cleanup_close(&rest->pidfd);
    rs_keyd_unwatch(d, &rest->watch);
    free(rest);
}

/* It has nothing to say while it rests: it died, or talks nonsense. */
static void rest_ready(struct rs_keyd *d, struct rs_watch *w, uint32_t events)
{
    (void)events;
    rest_end(d, (struct rs_task_rest *)w);
}

/* Lets the child of a task that was answered rest, where it may and there is room. */
static void rest_begin(struct rs_keyd *d, struct rs_task_run *t)
{
    unsigned all = 0, same = 0;
    for (const struct rs_task_rest *r = d->rests; r != NULL; r = r->next) {
        all++;
        same += r->uid == t->uid;
    }
    if (!t->kind->again || t->pidfd < 0 || t->before + 1 >= REST_TASKS || all >= RS_KEYD_CHILDREN ||
        same >= RS_KEYD_CHILDREN_OF_USER)
        return;
    struct rs_task_rest *rest = malloc(sizeof(*rest));
    if (rest == NULL) return;
    *rest = (struct rs_task_rest){.watch = {.fd = t->watch.fd, .ready = rest_ready},
                                  .next = d->rests,
                                  .uid = t->uid,
                                  .place = t->kind->place,
                                  .pidfd = t->pidfd,
                                  .done = t->before + 1,
                                  .until_ns = rs_now_ns() + REST_NS};
    d->rests = rest;
    t->watch.fd = t->pidfd = -1;
    rs_keyd_interest(d, &rest->watch, EPOLLIN);
}

/* Gives the task to a child that rests; false: there is none. */
static bool rest_take(struct rs_keyd *d, struct rs_task_run *t, const struct rs_task_order *order)
{
    struct rs_task_rest *rest = d->rests;
    while (rest != NULL && (rest->uid != t->uid || rest->place != t->kind->place)) rest = rest->next;
    if (rest == NULL || !t->kind->again) return false;
    if (rs_nursery_task_again(rest->watch.fd, order, t->fds) == 0) {
        t->watch.fd = rest->watch.fd;
        t->pidfd = rest->pidfd;
        t->before = rest->done;
        rest->watch.fd = rest->pidfd = -1;
    }
    rest_end(d, rest);
    return t->watch.fd >= 0;
}

void rs_tasks_free(struct rs_keyd *d)
{
    while (d->rests != NULL) rest_end(d, d->rests);
}

/* Tells who started it, who may start and cancel others, and forgets it. */
static void tell(struct rs_keyd *d, struct rs_task_run *t, struct rs_task_answer *answer)
{
    take_out(d, t);
    rs_keyd_unwatch(d, &t->watch);
    t->done(d, t->arg, answer);
    rs_cleanup_close(&answer->fd);
    release(d, t);
}

/* It failed before its task had an answer. */
static void fail(struct rs_keyd *d, struct rs_task_run *t, int status)
{
    static const struct rs_secrets none;
    char why[RS_TASK_WHY];
    json_t *empty = json_object();
    struct rs_task_answer answer = {
        .status = status, .result = empty, .secrets = &none, .fd = -1, .why = why, .event = ""};
    if (status == RESEAL_ETIMEDOUT)
        (void)snprintf(why, sizeof(why),
                       "%s took longer than %u s and was ended: try again, or look at what it waits for",
                       t->kind->name, t->deadline_s);
    else if (status == RESEAL_EIO)
        (void)snprintf(why, sizeof(why),
                       "the process that did this (%s) died: what it was given may be malformed",
                       t->kind->name);
    else
        (void)snprintf(why, sizeof(why), "%s", reseal_strerror(status));
    tell(d, t, &answer);
    json_decref(empty);
}

static void died(struct rs_keyd *d, struct rs_task_run *t)
{
    bool late = rs_now_ns() + GRACE_NS / 2 >= t->until_ns - GRACE_NS;
    fail(d, t, late ? RESEAL_ETIMEDOUT : RESEAL_EIO);
}

/* All of its answer is here. */
static void answered(struct rs_keyd *d, struct rs_task_run *t)
{
    struct rs_task_reply *reply = &t->reply;
    struct rs_secrets secrets = {0};
    json_t *result = json_loadb(t->answer.text, t->answer.text_len, JSON_REJECT_DUPLICATES, NULL);
    int r = rs_secrets_unpack(t->answer.secrets, t->answer.secrets_len, &secrets);
    if (!json_is_object(result) || r == RESEAL_EFORMAT) {
        fail(d, t, RESEAL_EIO);
    } else if (r != 0) {
        fail(d, t, r);
    } else {
        struct rs_task_answer answer = {.status = reply->status,
                                        .result = result,
                                        .secrets = &secrets,
                                        .fd = t->out_fd,
                                        .why = reply->why,
                                        .event = reply->event};
        t->out_fd = -1;
        tell(d, t, &answer);
    }
    rs_secrets_free(&secrets);
    json_decref(result);
}

/* ---- what a child says ----------------------------------------------------------------- */

static bool on_reply(struct rs_task_run *t, struct rs_msg *m)
{
    struct rs_task_reply *reply = &t->reply;
    if (t->answers || m->header.length != sizeof(*reply) || m->nfds > 1) return false;
    memcpy(reply, m->body, sizeof(*reply));
    bool fits = reply->text_len <= RS_TASK_TEXT && reply->secrets_len <= RS_SECRETS_ROOM;
    bool whole = reply->status == 0 || (reply->secrets_len == 0 && m->nfds == 0);
    if (!fits || !whole || reply->status > 0) return false;
    reply->why[sizeof(reply->why) - 1] = reply->event[sizeof(reply->event) - 1] = '\0';
    rs_line_clean(reply->why);
    rs_line_clean(reply->event);
    if (reply->status != 0 && reply->why[0] == '\0')
        (void)snprintf(reply->why, sizeof(reply->why), "%s", reseal_strerror(reply->status));
    t->out_fd = rs_msg_take_fd(m, 0);
    t->answer.text_len = reply->text_len;
    t->answer.secrets_len = reply->secrets_len;
    t->answer.text = malloc(reply->text_len + 1u);
    t->answer.secrets = rs_keymem_alloc(reply->secrets_len + 1u);
    t->answers = t->answer.text != NULL && t->answer.secrets != NULL;
    return t->answers;
}

static bool on_part(struct rs_task_run *t, const struct rs_msg *m)
{
    struct load *l = &t->answer;
    size_t n = m->header.length, left = l->text_len + l->secrets_len - l->done;
    if (!t->answers || m->nfds != 0 || n == 0 || n > left) return false;
    size_t text = l->done < l->text_len ? RS_MIN(n, l->text_len - l->done) : 0;
    memcpy(l->text + l->done, m->body, text);
    if (n > text) memcpy(l->secrets + (l->done + text - l->text_len), m->body + text, n - text);
    l->done += n;
    return true;
}

static bool on_message(struct rs_task_run *t, struct rs_msg *m)
{
    switch (m->header.type) {
    case RS_MSG_BORN:
        if (m->header.length != 0 || m->nfds != 1 || t->pidfd >= 0) return false;
        t->pidfd = rs_msg_take_fd(m, 0);
        return true;
    case RS_MSG_TASK_REPLY:
        return on_reply(t, m);
    case RS_MSG_PART:
        return on_part(t, m);
    default:
        return false;
    }
}

/* False: the task is gone. */
static bool hear(struct rs_keyd *d, struct rs_task_run *t)
{
    struct rs_msg *m = d->msg;
    int r = rs_msg_recv(t->watch.fd, m, MSG_DONTWAIT);
    if (r == RESEAL_EAGAIN) return false;
    if (r != 0) {
        died(d, t);
        return false;
    }
    bool ok = on_message(t, m);
    rs_wipe(m->body, sizeof(m->body));
    rs_msg_close_fds(m);
    const struct load *l = &t->answer;
    if (ok && !(t->answers && l->done == l->text_len + l->secrets_len)) return true;
    if (ok) rest_begin(d, t);
    if (ok)
        answered(d, t);
    else
        fail(d, t, RESEAL_EIO); /* it talks nonsense */
    return false;
}

/* Sends what its socket takes; the rest when it takes more. */
static void say(struct rs_keyd *d, struct rs_task_run *t)
{
    struct load *l = &t->order;
    size_t all = l->text_len + l->secrets_len;
    while (l->done < all) {
        bool secret = l->done >= l->text_len;
        const void *from =
            secret ? (const void *)(l->secrets + (l->done - l->text_len)) : (const void *)(l->text + l->done);
        size_t n = RS_MIN((secret ? all : l->text_len) - l->done, (size_t)RS_MSG_BODY_MAX);
        int r = rs_msg_send(t->watch.fd, RS_MSG_PART, 0, from, n, NULL, 0, MSG_DONTWAIT);
        if (r == RESEAL_EAGAIN || r == RESEAL_ENOMEM) return;
        if (r != 0) break; /* it died, which its end of file tells */
        l->done += n;
    }
    load_free(l);
    rs_keyd_interest(d, &t->watch, EPOLLIN);
}

static void task_ready(struct rs_keyd *d, struct rs_watch *w, uint32_t events)
{
    struct rs_task_run *t = (struct rs_task_run *)w;
    if ((events & EPOLLOUT) != 0) say(d, t);
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
    for (unsigned i = 0; i < AT_ONCE && hear(d, t); i++) continue;
}

/* ---- its start -------------------------------------------------------------------------- */

static int start(struct rs_keyd *d, struct rs_task_run *t)
{
    struct rs_task_order order = {.kind = t->number,
                                  .deadline_s = t->deadline_s,
                                  .nfds = t->nfds,
                                  .text_len = (uint32_t)t->order.text_len,
                                  .secrets_len = (uint32_t)t->order.secrets_len};
    for (unsigned i = 0; i < RS_TASK_FDS; i++)
        if (t->fds[i] >= 0) order.fds |= 1u << i;
    bool watched = rest_take(d, t, &order);
    int r = watched ? 0 : rs_nursery_task(&d->nursery, &order, t->fds, &t->watch.fd);
    for (unsigned i = 0; i < RS_TASK_FDS; i++) rs_foreign_close(&t->fds[i], t->uid);
    if (r != 0) return r;
    t->until_ns = rs_now_ns() + t->deadline_s * SECOND_NS + GRACE_NS;
    if (!watched) r = rs_keyd_watch(d, &t->watch);
    if (r == 0) rs_keyd_interest(d, &t->watch, EPOLLIN | EPOLLOUT);
    return r;
}

/* Of those who wait, the last that may not start: whoever waits for the same need not be counted again. */
struct full {
    bool is;
    uint32_t uid;
    enum rs_task_place place;
};

static bool may_start(const struct rs_keyd *d, const struct rs_task_run *t, struct full *full)
{
    if (full->is && full->uid == t->uid && full->place == t->kind->place) return false;
    if (rs_tasks_may_start(d, t->uid, t->kind->place)) return true;
    *full = (struct full){.is = true, .uid = t->uid, .place = t->kind->place};
    return false;
}

int rs_tasks_tick(struct rs_keyd *d)
{
    uint64_t now = rs_now_ns();
    struct full full = {0};
    bool told = false;
    for (struct rs_task_run *t = d->tasks; t != NULL;) {
        int r = 0;
        if (t->watch.fd < 0)
            r = may_start(d, t, &full) ? start(d, t) : 0;
        else if (now >= t->until_ns)
            r = RESEAL_ETIMEDOUT;
        if (r != 0) {
            fail(d, t, r);
            told = true;
            full.is = false;
        }
        t = r != 0 ? d->tasks : t->next; /* who was told may have changed the list */
    }
    if (told) return 0; /* somebody may have waited for just that */
    for (struct rs_task_rest *r = d->rests, *next; r != NULL; r = next) {
        next = r->next;
        if (now >= r->until_ns) rest_end(d, r);
    }
    return d->tasks != NULL || d->rests != NULL ? 1000 : -1;
}

static int number_of(const struct rs_task_kind *kind, uint32_t *number)
{
    for (uint32_t i = 0; rs_task_kinds[i] != NULL; i++) {
        *number = i;
        if (rs_task_kinds[i] == kind) return 0;
    }
    return RESEAL_EINVAL;
}

static int fill_order(struct load *l, const json_t *args, const struct rs_secrets *secrets)
{
    static const struct rs_secrets none;
    l->text = args != NULL ? json_dumps(args, JSON_COMPACT) : strdup("{}");
    if (l->text == NULL) return RESEAL_ENOMEM;
    l->text_len = strlen(l->text);
    if (l->text_len > RS_TASK_TEXT) return RESEAL_ELIMIT;
    l->secrets = rs_secrets_pack(secrets != NULL ? secrets : &none, &l->secrets_len);
    return l->secrets != NULL ? 0 : RESEAL_ENOMEM;
}

/* Takes the descriptors, whatever comes of it. */
static void take_fds(struct rs_task_run *t, uint32_t uid, int *fds, unsigned nfds)
{
    for (unsigned i = 0; i < nfds; i++) {
        int fd = fds[i];
        fds[i] = -1;
        if (t != NULL && i < RS_TASK_FDS)
            t->fds[i] = fd;
        else
            rs_foreign_close(&fd, uid);
    }
}

int rs_task_start(struct rs_keyd *d, const struct rs_task_kind *kind, uint32_t uid, const json_t *args,
                  const struct rs_secrets *secrets, int *fds, unsigned nfds, rs_task_done *done, void *arg)
{
    struct rs_task_run *t = calloc(1, sizeof(*t));
    struct rs_task_run **at = &d->tasks;
    if (t != NULL)
        *t = (struct rs_task_run){.watch = {.fd = -1, .ready = task_ready},
                                  .kind = kind,
                                  .uid = uid,
                                  .deadline_s = kind->deadline_s != 0 ? kind->deadline_s : d->deadline_s,
                                  .fds = {-1, -1, -1},
                                  .nfds = nfds,
                                  .pidfd = -1,
                                  .out_fd = -1,
                                  .done = done,
                                  .arg = arg};
    take_fds(t, uid, fds, nfds);
    if (t == NULL) return RESEAL_ENOMEM;
    int r = nfds <= RS_TASK_FDS ? number_of(kind, &t->number) : RESEAL_EINVAL;
    if (r == 0 && rs_tasks_count(d) >= RS_KEYD_TASKS) r = RESEAL_ELIMIT;
    if (r == 0) r = fill_order(&t->order, args, secrets);
    if (r != 0) {
        release(d, t);
        return r;
    }
    while (*at != NULL) at = &(*at)->next;
    *at = t;
    return 0;
}

void rs_task_cancel(struct rs_keyd *d, const void *arg)
{
    for (struct rs_task_run *t = d->tasks, *next; t != NULL; t = next) {
        next = t->next;
        if (t->arg != arg) continue;
        take_out(d, t);
        release(d, t);
    }
}

/* ---- waiting for one ------------------------------------------------------------------- */

struct waiting {
    struct rs_task_own *own;
    bool done;
};

static void waited(struct rs_keyd *d, void *arg, struct rs_task_answer *answer)
{
    (void)d;
    struct waiting *w = arg;
    struct rs_task *task = &w->own->task;
    w->done = true;
    w->own->answer = *answer;
    answer->fd = -1;
    task->result = json_deep_copy(answer->result);
    int r = rs_secrets_copy(&task->yields, answer->secrets);
    if (r != 0 || task->result == NULL) w->own->answer.status = RESEAL_ENOMEM;
    (void)snprintf(task->why, sizeof(task->why), "%s", answer->why);
    (void)snprintf(task->event, sizeof(task->event), "%s", answer->event);
    w->own->answer.result = task->result;
    w->own->answer.secrets = &task->yields;
    w->own->answer.why = task->why;
    w->own->answer.event = task->event;
}

int rs_task_wait(struct rs_keyd *d, const struct rs_task_kind *kind, const json_t *args,
                 const struct rs_secrets *secrets, struct rs_task_own *own)
{
    struct waiting w = {.own = own};
    *own = (struct rs_task_own){.task = {.out_fd = -1}, .answer = {.fd = -1}};
    int r = rs_task_start(d, kind, (uint32_t)getuid(), args, secrets, NULL, 0, waited, &w);
    if (r != 0) return r;
    while (!w.done) {
        r = rs_keyd_step(d);
        if (r == 0) continue;
        rs_task_cancel(d, &w);
        return r;
    }
    return own->answer.status;
}
