/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BASE_KEYMEM_H
#define RS_BASE_KEYMEM_H

/*
 * Key memory: one arena per process for everything that is, or holds, a key.
 * The best of three kinds that the machine gives, never silently less:
 *
 *   secret  memfd_secret(2): taken out of the kernel's own map, not dumped,
 *           not swapped; /proc/PID/mem answers EIO even to root
 *   locked  anonymous memory, mlock, DONTDUMP, WIPEONFORK
 *   plain   anonymous memory, DONTDUMP, WIPEONFORK; can reach the swap:
 *           rs_keymem_kind() says so and status must show it
 *
 * All have a guard page on both sides; the allocator's own book-keeping lies
 * elsewhere, so an overrun cannot forge it. A block is zeroed when it is given
 * and wiped when it is freed. Never do direct I/O (O_DIRECT, registered
 * buffers) from key memory: the kernel refuses it.
 *
 * Scratch is for data, not keys: plaintext that a stage needs.
 *
 * Threads: every call may be made from any thread after rs_keymem_init().
 * Fork: the child has no key memory of its parent: it must exec or _exit, or
 * have been forked before rs_keymem_init(); but see rs_keymem_keep_on_fork().
 */

#include "offload/base/bytes.h"

enum rs_keymem_kind { RS_KEYMEM_NONE, RS_KEYMEM_SECRET, RS_KEYMEM_LOCKED, RS_KEYMEM_PLAIN };

/* Default arena: half of an ordinary user's RLIMIT_MEMLOCK (8 MiB), so that scratch can be locked too. */
#define RS_KEYMEM_SIZE  (4u << 20)
#define RS_KEYMEM_ALIGN 64u

/*
 * Makes the arena: `size` bytes, 0 for RS_KEYMEM_SIZE, 16 KiB to 1 GiB. Where the
 * locked-memory limit is lower, halves the size down to 1 MiB before it takes
 * a weaker kind. RESEAL_KEYMEM=secret|locked|plain in the environment (tests)
 * names the kind to begin with. Idempotent; call it before other threads
 * start and before a seccomp filter. 0, RESEAL_EINVAL, RESEAL_ENOMEM.
 */
RS_MUST_CHECK int rs_keymem_init(size_t size);

/* The kind for rs_keymem_init() to begin with; the environment goes before it. */
void rs_keymem_begin_with(enum rs_keymem_kind kind);

/*
 * For a library in somebody else's program, before rs_keymem_init(): a child of
 * fork(3) finds the blocks at the same addresses with what they held at the
 * fork, in key memory of its own; from then on neither sees the other's. Costs
 * a fork a copy of the blocks in use. Where the child cannot have the kind of
 * its parent it takes the next, and rs_keymem_kind() there says so.
 *
 * The copy is made by pthread_atfork(3): vfork and posix_spawn have no need of
 * it; after _Fork(3) or clone(2) without CLONE_VM the child of a process with
 * the secret kind has no key memory and faults when it touches it.
 * 0, RESEAL_ENOMEM, RESEAL_EINVAL when key memory is there already.
 */
RS_MUST_CHECK int rs_keymem_keep_on_fork(void);

/*
 * Wipes and unmaps the arena, whatever is still in use; rs_keymem_init() may be
 * called again, without what the two calls above had set. No other thread may be in a call. What
 * pthread_atfork(3) holds goes with the unloading of the library that this is linked into.
 */
void rs_keymem_fini(void);

/* The kind in force; RS_KEYMEM_NONE before rs_keymem_init(). */
enum rs_keymem_kind rs_keymem_kind(void);

/* "none", "secret", "locked" or "plain". */
const char *rs_keymem_kind_name(void);

/* Bytes of the arena, and of it in use. Either pointer may be NULL. */
void rs_keymem_usage(size_t *size, size_t *used);

/* `len` zeroed bytes (0 counts as 1), aligned to RS_KEYMEM_ALIGN; NULL when the arena is full. */
RS_MUST_CHECK void *rs_keymem_alloc(size_t len);

/* As realloc(3): contents kept up to the smaller length, the old block wiped; on NULL it is unchanged. */
RS_MUST_CHECK void *rs_keymem_realloc(void *p, size_t len);

/* Wipes and frees. NULL is allowed. Ends the program for a pointer that is not the start of a block. */
void rs_keymem_free(void *p);

/* Bytes that a block has room for. Ends the program as rs_keymem_free(). */
RS_MUST_CHECK size_t rs_keymem_len(const void *p);

/* True when p points into the arena. */
RS_MUST_CHECK bool rs_keymem_owns(const void *p);

/*
 * Maps `len` zeroed bytes for plaintext, page aligned between guard pages:
 * anonymous, DONTDUMP, WIPEONFORK, locked when the limit allows: *locked tells
 * (NULL: not wanted). NULL when memory is out.
 */
RS_MUST_CHECK void *rs_scratch_map(size_t len, bool *locked);

/*
 * As rs_scratch_map(), of memfd_secret memory where key memory is that too and the limit allows: for
 * scratch in which kernels keep tweaks and counters, and engines plaintext, while a job runs.
 */
RS_MUST_CHECK void *rs_secret_scratch_map(size_t len, bool *locked);

/* Wipes and unmaps what rs_scratch_map(len) or rs_secret_scratch_map(len) gave. NULL is allowed. */
void rs_scratch_unmap(void *p, size_t len);

/* RS_KEYMEM void *p = rs_keymem_alloc(n): freed, wiped, at the end of its scope. */
void rs_cleanup_keymem(void *pp);
#define RS_KEYMEM __attribute__((cleanup(rs_cleanup_keymem)))

#endif
