/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/worker.h"

#include "offload/base/clock.h"
#include "offload/base/foreign.h"
#include "offload/base/keymem.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#define SPIN_NS                                                                                              \
    10000u /* an idle worker looks this long before it sleeps: what sleep and wake-up cost both ends */
#define SPIN_LOST 8u   /* in vain so often in a row, it sleeps at once */
#define SPIN_TRY  32u  /* and tries again before one of so many sleeps */
#define SPIN_HOT  256u /* looks without a pause between them */
#define SPIN_LOOK 128u /* looks between two looks at the clock */
#define EVENTS    64

/* ---- notes ------------------------------------------------------------------ */

static void give_back(struct rs_worker *w, struct rs_note *note, int status)
{
    note->status = status;
    rs_mailbox_put(w->outbox, note);
}

static int queue_add(struct rs_worker *w, struct rs_queue *q)
{
    if (w->count == RS_WORKER_QUEUES) return RESEAL_ELIMIT;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = q};
    if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, q->wake, &event) != 0) return RESEAL_ENOMEM;
    w->queues[w->count++] = q;
    return 0;
}

/* The queue is the control thread's again after this. */
static void queue_let_go(struct rs_worker *w, unsigned i)
{
    struct rs_queue *q = w->queues[i];
    epoll_ctl(w->epoll, EPOLL_CTL_DEL, q->wake, NULL);
    w->queues[i] = w->queues[--w->count];
}

static void session_end(struct rs_worker *w, struct rs_note *note)
{
    struct rs_slot *slot = &note->seat->slots[note->slot];
    for (unsigned i = 0; i < w->count; i++)
        if (w->queues[i]->seat == note->seat) rs_serve_void(w->queues[i], slot->binding, note->status);
    slot->binding = NULL;
    slot->ended = note->status;
}

static void seat_end(struct rs_worker *w, struct rs_seat *seat)
{
    for (unsigned i = w->count; i-- > 0;)
        if (w->queues[i]->seat == seat) {
            struct rs_note *closing = w->queues[i]->closing;
            queue_let_go(w, i);
            if (closing != NULL) give_back(w, closing, 0);
        }
    for (unsigned i = 0; i < seat->nslots; i++) seat->slots[i].binding = NULL;
}

static bool work(struct rs_worker *w);

static void note_do(struct rs_worker *w, struct rs_note *note)
{
    int status = 0;
    switch (note->kind) {
    case RS_NOTE_QUEUE_ADD:
        status = queue_add(w, note->queue);
        break;
    case RS_NOTE_QUEUE_CLOSE:
        note->queue->closing = note;
        return; /* comes back when its jobs are done */
    case RS_NOTE_SESSION_ADD:
        note->seat->slots[note->slot] = (struct rs_slot){note->binding, note->generation, 0};
        break;
    case RS_NOTE_SESSION_END:
        session_end(w, note);
        break;
    case RS_NOTE_REGION_ADD:
        note->queue->regions[note->slot] = note->queue->guarded[note->slot] =
            (struct rs_region){.base = note->base, .len = note->len};
        break;
    case RS_NOTE_SCRATCH: {
        uint8_t *old = w->scratch;
        uint64_t old_len = w->scratch_len;
        w->scratch = note->base;
        w->scratch_len = note->len;
        note->base = old;
        note->len = old_len;
        break;
    }
    case RS_NOTE_SEAT_END:
        seat_end(w, note->seat);
        break;
    case RS_NOTE_PAUSE:
    case RS_NOTE_RESUME:
        w->paused = note->kind == RS_NOTE_PAUSE;
        break;
    case RS_NOTE_DRAIN:
        w->draining = true;
        while (work(w)) continue;
        break;
    case RS_NOTE_STOP:
        w->stop = true;
        break;
    case RS_NOTE_FAULT:
        break;
    }
    give_back(w, note, status);
}

static void read_notes(struct rs_worker *w)
{
    if (rs_mailbox_empty(&w->inbox)) return;
    for (struct rs_note *note = rs_mailbox_take(&w->inbox), *next; note != NULL; note = next) {
        next = note->next;
        note_do(w, note);
    }
}

/* ---- faults ------------------------------------------------------------------ */

static bool covers(const void *arg, uintptr_t at)
{
    const struct rs_worker *w = arg;
    for (unsigned i = 0; i < w->count; i++)
        if (rs_regions_cover(w->queues[i]->guarded, RS_REGION_MAX, at)) return true;
    return false;
}

/* A client's mapping faulted under us: its jobs fail, it is served no more, the control thread ends it. */
static void queue_fault(struct rs_worker *w, struct rs_queue *q)
{
    rs_count(&w->metrics.faults, 1);
    if (RS_GUARD_UP(&w->guard)) {
        rs_serve_fault(w, q);
        rs_guard_down();
    }
    if (q->seat->faulted) return;
    q->seat->faulted = true;
    struct rs_note *note = calloc(1, sizeof(*note));
    /* Without memory for the note the client stays connected, unserved. */
    if (note == NULL) return;
    *note = (struct rs_note){.kind = RS_NOTE_FAULT, .seat = q->seat, .queue = q, .worker = w->index};
    rs_mailbox_put(w->outbox, note);
}

static void on_fault(struct rs_worker *w)
{
    uintptr_t at = w->guard.at;
    /* What the job left behind: nobody else will. */
    rs_wipe(w->scratch, w->scratch_len);
    rs_wipe(w->zero_maps, sizeof(w->zero_maps));
    for (unsigned i = 0; i < w->count; i++)
        if (rs_regions_cover(w->queues[i]->guarded, RS_REGION_MAX, at)) {
            queue_fault(w, w->queues[i]);
            return;
        }
}

/* ---- rounds ------------------------------------------------------------------ */

/* Bytes that a queue gets in a round: its tenant's weight, shared among the tenant's waiting queues here. */
static int64_t quantum(const struct rs_worker *w, const struct rs_queue *q)
{
    unsigned sharers = 0;
    const struct rs_tenant *tenant = atomic_load_explicit(&q->seat->tenant, memory_order_relaxed);
    for (unsigned i = 0; i < w->count; i++)
        sharers += w->queues[i]->waiting != 0 && w->queues[i]->seat->tenant == tenant;
    int64_t weight = atomic_load_explicit(&tenant->weight, memory_order_relaxed);
    int64_t bytes = (int64_t)RS_QUANTUM * weight / (int64_t)RS_WEIGHT_DEFAULT / (int64_t)RS_MAX(sharers, 1u);
    return RS_MAX(bytes, (int64_t)RS_JOB_COST);
}

/* A queue gets its bytes of the round when it has used up those of the last. */
static void serve(struct rs_worker *w, struct rs_queue *q)
{
    if (q->deficit <= 0 && (q->waiting != 0 || q->deficit < 0)) q->deficit += quantum(w, q);
    if (q->waiting != 0 && q->deficit > 0 && !q->seat->faulted) rs_serve_run(w, q);
}

/* Queues that are to close and have nothing left. */
static void finish_closing(struct rs_worker *w)
{
    for (unsigned i = w->count; i-- > 0;) {
        struct rs_queue *q = w->queues[i];
        if (q->closing == NULL || q->waiting != 0) continue;
        struct rs_note *note = q->closing;
        q->closing = NULL;
        queue_let_go(w, i);
        give_back(w, note, 0);
    }
}

/* One round over all queues, with the guard up; true when there was something to do. */
static bool round_once(struct rs_worker *w)
{
    bool busy = false, closing = false;
    for (unsigned i = 0; i < w->count && !w->draining; i++)
        if (!w->queues[i]->seat->faulted) busy |= rs_serve_fetch(w->queues[i]) != 0;
    for (unsigned i = 0; i < w->count; i++) {
        struct rs_queue *q = w->queues[i];
        busy |= q->waiting != 0 && !q->seat->faulted;
        serve(w, q);
        closing |= q->closing != NULL;
    }
    if (closing) finish_closing(w);
    return busy;
}

/* Rounds until there is nothing to do or a note waits; true when there was something. */
static bool work(struct rs_worker *w)
{
    if (!RS_GUARD_UP(&w->guard)) {
        on_fault(w);
        return true;
    }
    bool any = false;
    while (round_once(w)) {
        any = true;
        if (!rs_mailbox_empty(&w->inbox)) break;
    }
    rs_guard_down();
    return any;
}

/* ---- sleep and wake ---------------------------------------------------------- */

/* Looks for work for a while, without pauses at first: a client that waits for an answer comes soon. */
static bool spin(struct rs_worker *w, uint64_t start)
{
    if (!RS_GUARD_UP(&w->guard)) {
        on_fault(w);
        return true;
    }
    bool found = false;
    for (unsigned n = 1; !found; n++) {
        found = round_once(w) || !rs_mailbox_empty(&w->inbox);
        if (n > SPIN_HOT) rs_cpu_relax();
        if (n % SPIN_LOOK == 0 && rs_now_ns() - start >= SPIN_NS) break;
    }
    rs_guard_down();
    return found;
}

/*
 * Jobs that cannot be taken, because the client does not take its completions,
 * are no reason to stay awake: its next submission wakes us. True: sleep.
 */
static bool blocked_by_client(struct rs_queue *q)
{
    if (rs_ring_room(&q->cq) != 0) return false;
    rs_ring_ask_wake(&q->sq);
    if (rs_ring_room(&q->cq) == 0) return true;
    rs_ring_awake(&q->sq);
    return false;
}

/* Asks the clients to wake us; false when work came meanwhile. */
static bool announce_all(struct rs_worker *w)
{
    for (unsigned i = 0; i < w->count; i++) {
        struct rs_queue *q = w->queues[i];
        if (q->seat->faulted) continue;
        if (!rs_ring_announce_sleep(&q->sq) && !blocked_by_client(q)) return false;
    }
    return true;
}

static bool announce(struct rs_worker *w)
{
    if (!RS_GUARD_UP(&w->guard)) {
        on_fault(w);
        return false;
    }
    bool quiet = announce_all(w);
    rs_guard_down();
    return quiet;
}

static void withdraw(struct rs_worker *w)
{
    if (!RS_GUARD_UP(&w->guard)) {
        on_fault(w);
        return;
    }
    for (unsigned i = 0; i < w->count; i++)
        if (!w->queues[i]->seat->faulted) rs_ring_awake(&w->queues[i]->sq);
    rs_guard_down();
}

static void on_wake(struct rs_worker *w, struct rs_queue *q)
{
    /* A wake socket that its client closed would keep us awake for ever. */
    if (rs_ring_drain_from(q->wake, rs_foreign_drop, q->uid) != 0 || q->deaf) {
        q->deaf = true;
        epoll_ctl(w->epoll, EPOLL_CTL_DEL, q->wake, NULL);
    }
}

/*
 * Paused, only notes count: a successor may serve our queues by now, and the
 * bytes in the wake sockets are meant for it.
 */
static void wait_for_note(struct rs_worker *w)
{
    struct pollfd p = {.fd = w->inbox.event, .events = POLLIN};
    rs_mailbox_sleep(&w->inbox);
    if (rs_mailbox_empty(&w->inbox)) poll(&p, 1, -1);
    rs_mailbox_awake(&w->inbox, true);
}

static void sleep_until_event(struct rs_worker *w)
{
    struct epoll_event events[EVENTS];
    rs_mailbox_sleep(&w->inbox);
    bool quiet = rs_mailbox_empty(&w->inbox) && announce(w);
    if (quiet) rs_count(&w->metrics.sleeps, 1);
    int n = epoll_wait(w->epoll, events, EVENTS, quiet ? -1 : 0);
    bool note = false;
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr != NULL)
            on_wake(w, events[i].data.ptr);
        else
            note = true;
    }
    withdraw(w);
    rs_mailbox_awake(&w->inbox, note);
}

/*
 * Looks for work for a moment, and sleeps then. A client whose jobs come further apart than that costs less
 * when it wakes us, so where looking is in vain it is left. True when there was something before the sleep.
 */
static bool idle(struct rs_worker *w, uint64_t since)
{
    bool hopeful = w->spins_lost < SPIN_LOST;
    if ((hopeful || ++w->unspun % SPIN_TRY == 0) && spin(w, since)) {
        w->spins_lost = 0;
        return true;
    }
    if (hopeful) w->spins_lost++;
    sleep_until_event(w);
    return false;
}

static void *worker_main(void *arg)
{
    struct rs_worker *w = arg;
    uint64_t since = rs_now_ns();
    bool any = false;
    w->guard.covers = covers;
    w->guard.arg = w;
    while (!w->stop) {
        read_notes(w);
        if (w->stop) break;
        if (w->paused) {
            wait_for_note(w);
            continue;
        }
        any |= work(w);
        uint64_t now = rs_now_ns();
        /* Time from one idle moment to the next in which there was work. */
        if (any) rs_count(&w->metrics.busy_ns, now - since);
        any = rs_mailbox_empty(&w->inbox) && idle(w, now);
        since = any ? now : rs_now_ns();
    }
    return NULL;
}

/* ---- life -------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_STACK false /* sanitizers want stacks larger than key memory gives */
#else
#define OWN_STACK true
#endif
#define STACK ((size_t)256 << 10)
#define GUARD ((size_t)64 << 10) /* no access: at least a page of any size */

/* When no thread runs on it (any more). */
static void release_stack(struct rs_worker *w)
{
    if (w->stack == NULL) return;
    uint8_t *guard = (uint8_t *)(uintptr_t)rs_round_up((uintptr_t)w->stack, GUARD);
    if (mprotect(guard, GUARD, PROT_READ | PROT_WRITE) == 0) rs_keymem_free(w->stack);
    w->stack = NULL;
}

/*
 * In the middle of a job the compiler keeps round keys, and may keep plaintext,
 * on the stack where it has no register left. So the stack of a worker is key
 * memory: in no dump, and out of reach of a debugger where memfd_secret is.
 * Without room for it the thread gets an ordinary stack, and status says so.
 */
static void use_secret_stack(struct rs_worker *w, pthread_attr_t *attr)
{
    w->stack = OWN_STACK ? rs_keymem_alloc(STACK + 2 * GUARD) : NULL;
    if (w->stack == NULL) return;
    uint8_t *guard = (uint8_t *)(uintptr_t)rs_round_up((uintptr_t)w->stack, GUARD);
    if (mprotect(guard, GUARD, PROT_NONE) != 0 || pthread_attr_setstack(attr, guard + GUARD, STACK) != 0)
        release_stack(w);
}

static int start_thread(struct rs_worker *w)
{
    pthread_attr_t attr;
    sigset_t all, old;
    if (pthread_attr_init(&attr) != 0) return RESEAL_ENOMEM;
    use_secret_stack(w, &attr);
    if (w->cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)w->cpu, &set);
        w->pinned = pthread_attr_setaffinity_np(&attr, sizeof(set), &set) == 0;
    }
    /* Signals are the control thread's. Those of faults stay: one that is blocked kills instead of being
     * caught. */
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int e = pthread_create(&w->thread, &attr, worker_main, w);
    if (e != 0 && w->pinned) {
        /* The core is not ours to use: run unpinned rather than not at all; status shows it. */
        cpu_set_t all_cores;
        w->pinned = false;
        memset(&all_cores, 0xff, sizeof(all_cores));
        e = pthread_attr_setaffinity_np(&attr, sizeof(all_cores), &all_cores);
        if (e == 0) e = pthread_create(&w->thread, &attr, worker_main, w);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return e == 0 ? 0 : RESEAL_ENOMEM;
}

int rs_worker_start(struct rs_worker *w, unsigned index, int cpu, struct rs_mailbox *outbox)
{
    w->index = index;
    w->cpu = cpu;
    w->outbox = outbox;
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll < 0) return RESEAL_EIO;
    int e = rs_mailbox_init(&w->inbox);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (e == 0 && epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->inbox.event, &event) != 0) e = RESEAL_EIO;
    return e != 0 ? e : start_thread(w);
}

void rs_worker_stop(struct rs_worker *w)
{
    struct rs_note *note = calloc(1, sizeof(*note));
    if (note == NULL) abort();
    note->kind = RS_NOTE_STOP;
    rs_mailbox_put(&w->inbox, note);
    /* The kernel cannot wait on an address in secret memory, where its stack and so its thread id may be:
     * glibc ends the process when pthread_join() has to wait there. */
    while (pthread_tryjoin_np(w->thread, NULL) == EBUSY) (void)poll(NULL, 0, 1);
    release_stack(w);
    close(w->epoll);
    rs_mailbox_close(&w->inbox);
}
