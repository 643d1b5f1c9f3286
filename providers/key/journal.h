/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_JOURNAL_H
#define RS_KEY_JOURNAL_H

/*
 * Journals of reseal-keyd: numbered lines of JSON in a file of the store, the
 * last of them in memory for those who come late. events.h says what is in
 * them; events.c has the two that there are.
 */

#include "offload/base/bytes.h"

#include <jansson.h>

#define RS_JOURNAL_RING  1024u       /* lines in memory */
#define RS_JOURNAL_LINE  4096u       /* bytes of a line with its newline */
#define RS_JOURNAL_FILE  (16u << 20) /* bytes of a file before it becomes NAME.1, */
#define RS_JOURNAL_FILES 4u          /* that one NAME.2, up to this many in all */
#define RS_JOURNAL_TEXT  256u        /* bytes of a text of others */

struct rs_journal_line {
    char *text; /* JSON and a newline */
    size_t len;
    char tenant[64];
    char what[96]; /* id of an event, operation of an audit line */
    uint32_t uid;  /* of an audit line: who did it */
};

/* Lines `first` to `last` are in memory, line n at ring[n % RS_JOURNAL_RING]; none when last < first. */
struct rs_journal {
    const char *name; /* of its file: "events.jsonl" */
    uint64_t first, last;
    int fd; /* of the file, -1: not open; inode and bytes tell when another has its name */
    uint64_t inode, file_bytes;
    uint64_t written; /* lines up to this one are in the file, or were lost */
    uint64_t lost;    /* lines that left memory before they could be written */
    int failure;      /* of the last write or flush, 0: the file can be written */
    bool dirty;       /* there are lines that nobody has begun to flush */
    struct rs_journal_line ring[RS_JOURNAL_RING];
};

struct rs_store;

/* Reads the end of what is in the store (NULL: none); `what` names the member that goes to line.what.
 * Numbers go on from there. The journal was rs_journal_empty(j, 0) before, and has no file. */
void rs_journal_read(struct rs_journal *j, struct rs_store *store, const char *what);

/*
 * Writes a line: number, time and `members`, which it takes. `line` has tenant, what and uid set; its text
 * becomes the journal's. False: no memory, the line is lost. A file that cannot be written is told on stderr
 * once, and noted in j->failure; its lines wait in memory.
 */
bool rs_journal_write(struct rs_journal *j, struct rs_store *store, struct rs_journal_line *line,
                      json_t *members);

/* The same, but the line waits in memory for the next one that is written, or for rs_journal_catch_up(). */
bool rs_journal_keep(struct rs_journal *j, struct rs_journal_line *line, json_t *members);

/* Writes the lines that wait, if any, many at a time: 0, or why they cannot be written, RESEAL_ESPACE or
 * RESEAL_EIO. What left memory meanwhile is counted in j->lost. */
int rs_journal_catch_up(struct rs_journal *j, struct rs_store *store);

/* A flush of the file came to an end. */
void rs_journal_flushed(struct rs_journal *j, int failure);

/* Frees the lines in memory; the next number is last + 1. */
void rs_journal_empty(struct rs_journal *j, uint64_t last);

/* Frees all that it has. */
void rs_journal_close(struct rs_journal *j);

/* A text of others: at most `max` bytes, control characters and what is not UTF-8 replaced. NULL: no memory.
 */
json_t *rs_journal_text(const char *text, size_t max);

/* A copy of details with all texts cleaned; depth is 0. */
json_t *rs_journal_details(const json_t *value, unsigned depth);

#endif
