/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model of offload/ring/ring.h: publish, sleep and wake in both directions,
 * on a processor whose stores wait in a store buffer (total store order, as
 * x86; the release and acquire orders of the code are given by it, the two
 * full fences are what is left to prove).
 *
 * Two processes run the code of the two ends. Each is the producer of one ring
 * and the consumer of the other: the client of submissions and completions,
 * the worker the other way round. A store goes to the process's own buffer,
 * first in, first out; a flusher moves it to memory at any later moment; a
 * load sees the process's own buffer first. A full fence waits until the
 * buffer is empty.
 *
 *   spin -a ring.pml && cc -O2 -o pan pan.c && ./pan -m100000
 *
 * verifies: no invalid end state (a state in which both sides sleep and a
 * published entry or completion lies there for good), no entry that is read
 * before it was written, none lost or doubled. With -DNO_FENCE_PRODUCER,
 * -DNO_FENCE_CONSUMER or -DNO_FENCE (both) a fence is left out, and the
 * verifier finds the lost wake-up. With -DNO_RECHECK the consumer sleeps
 * without looking again, and it finds that too.
 *
 * tests/ring-model.sh does all of this.
 */

#ifndef JOBS
#define JOBS 3
#endif
#ifndef DEPTH
#define DEPTH 2
#endif
#define BUFFER 4 /* stores that wait; a process blocks when it is full, as a processor does */

#define CLIENT 0
#define WORKER 1

/* Places in memory: those of ring 0 (submissions) and ring 1 (completions). */
#define INDEX(ring)     (ring)       /* entries published, by the producer */
#define TAKEN(ring)     (2 + ring)   /* entries taken, by the consumer */
#define NEED_WAKE(ring) (4 + ring)   /* by the consumer */
#define ENTRY(ring, i)  (6 + (ring) * DEPTH + (i) % DEPTH)
#define PLACES          (6 + 2 * DEPTH)

byte memory[PLACES];

/* Store buffers. */
typedef store { byte place; byte value };
typedef buffer { store at[BUFFER]; byte count };
buffer buffers[2];

/* Wake sockets: a byte for the worker, a byte for the client. More than one waits as one. */
bool woken[2];

inline put(who, where, what)
{
    atomic {
        buffers[who].count < BUFFER ->
        buffers[who].at[buffers[who].count].place = where;
        buffers[who].at[buffers[who].count].value = what;
        buffers[who].count++;
    }
}

/* The youngest store of one's own to this place, or memory. */
inline get(who, where, result)
{
    d_step {
        result = memory[where];
        k = 0;
        do
        :: k < buffers[who].count ->
            if
            :: buffers[who].at[k].place == where -> result = buffers[who].at[k].value
            :: else
            fi;
            k++
        :: else -> break
        od;
        k = 0
    }
}

inline full_fence(who) { buffers[who].count == 0 }

/* The processor writes the oldest store back whenever it likes. */
proctype flusher(byte who)
{
    byte j;
end_flusher:
    do
    :: d_step {
        buffers[who].count > 0 ->
        memory[buffers[who].at[0].place] = buffers[who].at[0].value;
        j = 1;
        do
        :: j < buffers[who].count ->
            buffers[who].at[j - 1].place = buffers[who].at[j].place;
            buffers[who].at[j - 1].value = buffers[who].at[j].value;
            j++
        :: else -> break
        od;
        buffers[who].count--;
        buffers[who].at[buffers[who].count].place = 0;
        buffers[who].at[buffers[who].count].value = 0;
        j = 0
    }
    od
}

/* rs_ring_publish() and rs_ring_should_wake(); a send() is a system call, which also drains the store buffer. */
inline publish(me, ring, index)
{
    put(me, INDEX(ring), index);
#if !defined(NO_FENCE) && !defined(NO_FENCE_PRODUCER)
    full_fence(me);
#endif
    get(me, NEED_WAKE(ring), seen);
    if
    :: seen == 1 -> full_fence(me); woken[1 - me] = true
    :: else
    fi;
    seen = 0
}

/* rs_ring_announce_sleep(), and the sleep when it says so. The sleep is a system call. */
inline sleep_on(me, ring, index)
{
    put(me, NEED_WAKE(ring), 1);
#if !defined(NO_FENCE) && !defined(NO_FENCE_CONSUMER)
    full_fence(me);
#endif
#if defined(NO_RECHECK)
    seen = index;
#else
    get(me, INDEX(ring), seen);
#endif
    if
    :: seen == index -> woken[me]
    :: else
    fi;
    put(me, NEED_WAKE(ring), 0);
    /* Draining the socket afterwards: a byte that comes later is a spurious wake-up. */
    woken[me] = false;
    seen = 0
}

/* Takes one entry: it must be whole, the next in order, and give its slot back. */
inline take(me, ring, index)
{
    get(me, ENTRY(ring, index), seen);
    assert(seen == index + 1);
    index++;
    put(me, TAKEN(ring), index);
    seen = 0
}

proctype client()
{
    byte k, seen, sent, got;
    do
    :: got == JOBS -> break
    :: sent < JOBS && sent - got < DEPTH ->
        /* A completion slot is free for each job; the submission slot must have been taken, too. */
        get(CLIENT, TAKEN(0), seen);
        if
        :: sent - seen < DEPTH ->
            put(CLIENT, ENTRY(0, sent), sent + 1);
            sent++;
            publish(CLIENT, 0, sent)
        :: else
        fi
    :: got < sent ->
        get(CLIENT, INDEX(1), seen);
        if
        :: seen != got -> take(CLIENT, 1, got)
        :: else -> sleep_on(CLIENT, 1, got)
        fi
    od
}

proctype worker()
{
    byte k, seen, taken, done;
    do
    :: true ->
        get(WORKER, INDEX(0), seen);
        if
        :: seen != taken ->
            /* A completion slot is free, or else the client did not keep to its depth. */
            take(WORKER, 0, taken);
            get(WORKER, TAKEN(1), seen);
            assert(done - seen < DEPTH);
            put(WORKER, ENTRY(1, done), done + 1);
            done++;
            publish(WORKER, 1, done)
        :: else ->
            if
            :: done == JOBS -> break
            :: else -> sleep_on(WORKER, 0, taken)
            fi
        fi
    od;
    assert(taken == JOBS)
}

init
{
    atomic {
        run client();
        run worker();
        run flusher(CLIENT);
        run flusher(WORKER)
    }
}
