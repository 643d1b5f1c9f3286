/* SPDX-License-Identifier: Apache-2.0 */
/* Followers of events: each has a place in the journal's ring and takes lines at its own pace. */
#include "providers/key/events.h"
#include "providers/key/keyd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define FOLLOWERS         256u
#define FOLLOWERS_OF_USER 16u

struct rs_follower {
    struct rs_watch watch;
    struct rs_follower *next;
    struct rs_who who;
    uint64_t at; /* the next line's number */
    bool waits;  /* its socket was full: the loop says when it is not */
    char pattern[96];
};

static void drop(struct rs_keyd *d, struct rs_follower *f)
{
    struct rs_follower **at = &d->events->followers;
    while (*at != f) at = &(*at)->next;
    *at = f->next;
    rs_keyd_unwatch(d, &f->watch);
    free(f);
}

/* 0, RESEAL_EAGAIN, or RESEAL_ENOSERVICE: it is gone. */
static int send_line(const struct rs_follower *f, const char *text, size_t len)
{
    ssize_t n;
    do n = send(f->watch.fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n >= 0) return 0;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? RESEAL_EAGAIN : RESEAL_ENOSERVICE;
}

static int send_lost(struct rs_follower *f, const struct rs_journal *j)
{
    char text[200];
    int n = snprintf(text, sizeof(text),
                     "{\"lost\":%llu,\"next\":%llu,\"error\":\"this follower was too slow: follow again "
                     "with since\"}\n",
                     (unsigned long long)(j->first - f->at), (unsigned long long)j->first);
    int r = send_line(f, text, (size_t)n);
    return r == 0 ? RESEAL_ENOSERVICE : r;
}

static int pump(const struct rs_keyd *d, struct rs_follower *f)
{
    const struct rs_journal *j = &d->events->events;
    if (f->at < j->first) return send_lost(f, j);
    for (; f->at <= j->last; f->at++) {
        const struct rs_journal_line *line = &j->ring[f->at % RS_JOURNAL_RING];
        if (!rs_pattern_match(f->pattern, line->what)) continue;
        if (!rs_events_visible(d, line, false, &f->who)) continue;
        int r = send_line(f, line->text, line->len);
        if (r != 0) return r;
    }
    return 0;
}

/* False: it is gone. */
static bool serve(struct rs_keyd *d, struct rs_follower *f)
{
    int r = pump(d, f);
    bool waits = r == RESEAL_EAGAIN;
    if (r != 0 && !waits) {
        drop(d, f);
        return false;
    }
    if (waits != f->waits) rs_keyd_interest(d, &f->watch, waits ? EPOLLIN | EPOLLOUT : EPOLLIN);
    f->waits = waits;
    return true;
}

static void follower_ready(struct rs_keyd *d, struct rs_watch *w, uint32_t events)
{
    struct rs_follower *f = (struct rs_follower *)w;
    /* Nothing is expected from it: what comes is its end. */
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
        drop(d, f);
    else
        (void)serve(d, f);
}

void rs_followers_wake(struct rs_keyd *d)
{
    for (struct rs_follower *f = d->events->followers, *next; f != NULL; f = next) {
        next = f->next;
        if (!f->waits) (void)serve(d, f);
    }
}

void rs_followers_end(struct rs_keyd *d)
{
    while (d->events->followers != NULL) drop(d, d->events->followers);
}

static bool room_for(const struct rs_keyd *d, uint32_t uid)
{
    unsigned all = 0, same = 0;
    for (const struct rs_follower *f = d->events->followers; f != NULL; f = f->next) {
        all++;
        same += f->who.uid == uid;
    }
    return all < FOLLOWERS && same < FOLLOWERS_OF_USER;
}

int rs_follow(struct rs_keyd *d, const struct rs_who *who, uint64_t since, const char *pattern, int *out)
{
    const struct rs_journal *j = &d->events->events;
    int pair[2];
    if (!room_for(d, who->uid)) return RESEAL_ELIMIT;
    struct rs_follower *f = calloc(1, sizeof(*f));
    if (f == NULL) return RESEAL_ENOMEM;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        free(f);
        return RESEAL_EIO;
    }
    f->watch = (struct rs_watch){.fd = pair[0], .ready = follower_ready};
    f->who = *who;
    /* What is no longer in memory is not lost: it was never this follower's. */
    f->at = since + 1 < j->first ? j->first : RS_MIN(since, j->last) + 1;
    (void)snprintf(f->pattern, sizeof(f->pattern), "%s", *pattern != '\0' ? pattern : "*");
    if (rs_keyd_watch(d, &f->watch) != 0) {
        close(pair[0]);
        close(pair[1]);
        free(f);
        return RESEAL_EIO;
    }
    f->next = d->events->followers;
    d->events->followers = f;
    *out = pair[1];
    (void)serve(d, f);
    return 0;
}
