/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/mailbox.h"

#include "reseal/reseal.h"

#include <sys/eventfd.h>
#include <unistd.h>

int rs_mailbox_init(struct rs_mailbox *box)
{
    *box = (struct rs_mailbox){.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    return box->event >= 0 ? 0 : RESEAL_EIO;
}

void rs_mailbox_close(struct rs_mailbox *box)
{
    if (box->event >= 0) close(box->event);
    box->event = -1;
}

void rs_mailbox_put(struct rs_mailbox *box, struct rs_note *note)
{
    struct rs_note *head = atomic_load_explicit(&box->head, memory_order_relaxed);
    do {
        note->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&box->head, &head, note, memory_order_seq_cst,
                                                    memory_order_relaxed));
    /* Pairs with rs_mailbox_sleep(): either we see it asleep, or it sees the note. */
    if (atomic_load_explicit(&box->asleep, memory_order_seq_cst) != 0) {
        uint64_t one = 1;
        /* Full means that it will wake anyway. */
        if (write(box->event, &one, sizeof(one)) < 0) return;
    }
}

struct rs_note *rs_mailbox_take(struct rs_mailbox *box)
{
    struct rs_note *note = atomic_exchange_explicit(&box->head, NULL, memory_order_acquire), *ordered = NULL;
    while (note != NULL) {
        struct rs_note *next = note->next;
        note->next = ordered;
        ordered = note;
        note = next;
    }
    return ordered;
}

void rs_mailbox_sleep(struct rs_mailbox *box)
{
    atomic_store_explicit(&box->asleep, 1, memory_order_seq_cst);
    atomic_thread_fence(memory_order_seq_cst);
}

void rs_mailbox_awake(struct rs_mailbox *box, bool signalled)
{
    uint64_t count;
    atomic_store_explicit(&box->asleep, 0, memory_order_relaxed);
    if (signalled && read(box->event, &count, sizeof(count)) < 0) return;
}
