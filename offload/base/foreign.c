/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/base/foreign.h"

#include "offload/base/clock.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 64u
#define STACK_BYTES ((size_t)128 << 10)
#define PATIENCE_NS 20000000L   /* of a close that can be interrupted */
#define STUCK_NS    1000000000u /* after that it is not going to end */
#define SMALL       (16 << 20)  /* bytes of memory that are freed at once */

struct job {
    struct job *next;
    int fd;
    uint32_t uid;
    uint64_t since_ns;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct job *waiting, **waiting_end = &waiting; /* oldest first */
static struct job *closing[THREADS_MAX];              /* by thread */
static unsigned threads, idle;

/* ---- the threads ------------------------------------------------------------------------ */

static void interrupt(int number)
{
    (void)number; /* that it came is enough: close() waits no longer */
}

/* Interrupts this thread again and again from now on; so one that comes before the wait is not the last. */
static bool make_timer(timer_t *timer)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGURG};
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    return timer_create(CLOCK_MONOTONIC, &event, timer) == 0;
}

static void set_timer(timer_t timer, long ns)
{
    const struct itimerspec t = {.it_interval.tv_nsec = ns, .it_value.tv_nsec = ns};
    (void)timer_settime(timer, 0, &t, NULL);
}

static void start_thread(void);

/* The oldest that waits; the lock is held. */
static struct job *take(unsigned me)
{
    idle++;
    while (waiting == NULL) pthread_cond_wait(&more, &lock);
    idle--;
    struct job *job = waiting;
    waiting = job->next;
    if (waiting == NULL) waiting_end = &waiting;
    closing[me] = job;
    if (idle == 0) start_thread(); /* this one may not come back */
    return job;
}

static RS_NORETURN void *closer(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    timer_t timer;
    sigset_t set;
    sigfillset(&set);
    sigdelset(&set, SIGURG);
    (void)pthread_sigmask(SIG_SETMASK, &set, NULL); /* all others are for who runs the loop */
    bool timed = make_timer(&timer);
    for (;;) {
        pthread_mutex_lock(&lock);
        struct job *job = take(me);
        pthread_mutex_unlock(&lock);
        if (timed) set_timer(timer, PATIENCE_NS);
        close(job->fd);
        if (timed) set_timer(timer, 0);
        pthread_mutex_lock(&lock);
        closing[me] = NULL;
        pthread_mutex_unlock(&lock);
        free(job);
    }
}

/* One more, where there may be; the lock is held. */
static void start_thread(void)
{
    const struct sigaction on = {.sa_handler = interrupt};
    pthread_attr_t attributes;
    pthread_t thread;
    if (threads == THREADS_MAX || pthread_attr_init(&attributes) != 0) return;
    if (threads == 0) (void)sigaction(SIGURG, &on, NULL);
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attributes, closer, (void *)(uintptr_t)threads) == 0) threads++;
    pthread_attr_destroy(&attributes);
}

/* ---- for all others ---------------------------------------------------------------------- */

/* Memory that is freed at once: most of what clients send. */
static bool is_harmless(int fd)
{
    struct stat st;
    return fcntl(fd, F_GET_SEALS) >= 0 && fstat(fd, &st) == 0 && st.st_blocks < SMALL / 512;
}

void rs_foreign_drop(int fd, uint32_t uid)
{
    if (fd < 0) return;
    struct job *job = is_harmless(fd) ? NULL : malloc(sizeof(*job));
    if (job == NULL) {
        close(fd);
        return;
    }
    *job = (struct job){.fd = fd, .uid = uid, .since_ns = rs_now_ns()};
    pthread_mutex_lock(&lock);
    if (threads == 0) start_thread();
    *waiting_end = job;
    waiting_end = &job->next;
    pthread_cond_signal(&more);
    pthread_mutex_unlock(&lock);
}

void rs_foreign_close(int *fd, uint32_t uid)
{
    rs_foreign_drop(*fd, uid);
    *fd = -1;
}

bool rs_foreign_is_stuck(uint32_t uid)
{
    uint64_t now = rs_now_ns();
    unsigned n = 0;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < threads; i++)
        n += closing[i] != NULL && closing[i]->uid == uid && now - closing[i]->since_ns > STUCK_NS;
    for (const struct job *job = waiting; job != NULL; job = job->next)
        n += job->uid == uid && now - job->since_ns > STUCK_NS;
    pthread_mutex_unlock(&lock);
    return n >= RS_FOREIGN_STUCK;
}
