/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_JOURNAL_KEPT_H
#define RS_KEY_JOURNAL_KEPT_H

/*
 * The files of a journal that are closed: "audit.jsonl.00000000000000012345" holds lines from that number
 * on. They are kept up to a size in all. When it is exceeded, lines go, oldest first, of those owners (users,
 * or tenants) that have more than an equal share of it: nobody pushes out another's.
 */

#include "providers/key/journal.h"

#define RS_JOURNAL_NAME 96u /* bytes of a file's name */

/* What one owner has in a file. */
struct rs_journal_share {
    char owner[64];
    uint64_t bytes;
};

struct rs_journal_file {
    uint64_t first, bytes; /* no line in it has a lower number than `first` */
    bool counted;          /* what owners have in it */
    struct rs_journal_share *shares;
    unsigned nshares;
};

void rs_journal_kept_name(const struct rs_journal *j, uint64_t first, char out[RS_JOURNAL_NAME]);

/* Finds those that are there. */
void rs_journal_kept_open(struct rs_journal *j, struct rs_store *store);
void rs_journal_kept_close(struct rs_journal *j);

/* Bytes of a file before it is closed. */
uint64_t rs_journal_file_max(const struct rs_journal *j);

/* The file that has the name becomes a closed one, if it can; then lines go that are too many, once all files
 * are counted. */
void rs_journal_kept_add(struct rs_journal *j, int folder);

/* Counts one file that an earlier run left, if there is one: true. Some ten milliseconds for each. */
RS_MUST_CHECK bool rs_journal_kept_count(struct rs_journal *j, struct rs_store *store);

#endif
