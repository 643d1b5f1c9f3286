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

#define RS_JOURNAL_RING 1024u          /* lines in memory */
#define RS_JOURNAL_LINE 4096u          /* bytes of a line with its newline */
#define RS_JOURNAL_FILE (16u << 20)    /* at most, bytes of a file before it is closed (journal-kept.h) */
#define RS_JOURNAL_KEEP (256ull << 20) /* bytes of all its files, unless something else is said */
#define RS_JOURNAL_SCAN (256u << 10)   /* bytes of lines that one look at the files reads */
#define RS_JOURNAL_TEXT 256u           /* bytes of a text of others */

struct rs_journal_line {
    char *text; /* JSON and a newline */
    size_t len;
    char tenant[64];
    char what[96]; /* id of an event, operation of an audit line */
    uint32_t uid;  /* of an audit line: who did it */
};

struct rs_journal_file; /* journal-kept.h */

/* Lines `first` to `last` are in memory, line n at ring[n % RS_JOURNAL_RING]; none when last < first. */
struct rs_journal {
    const char *name;               /* of its file: "events.jsonl" */
    const char *what;               /* the member that goes to line.what: "id" */
    const char *owner;              /* what stands before a line's owner in its text: "\"uid\":" */
    uint64_t keep;                  /* bytes of all its files; 0: RS_JOURNAL_KEEP */
    struct rs_journal_file *closed; /* oldest first */
    unsigned nclosed;
    uint64_t dropped;    /* lines that went to keep within `keep`, */
    char dropped_of[64]; /* the last of them of this owner */
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

/* Finds the files and reads the end of what is in the store (NULL: none). Numbers go on from there. The
 * journal was rs_journal_empty(j, 0) before, and has no file. */
void rs_journal_read(struct rs_journal *j, struct rs_store *store);

/* The line of a journal in a text, with tenant, what and uid set in *line; NULL: it is none. The caller's. */
json_t *rs_journal_parse(const struct rs_journal *j, const char *text, size_t len,
                         struct rs_journal_line *line);

/*
 * Calls `each` for lines of the files that are not in memory, in order, those after number `after`, until it
 * returns false or RS_JOURNAL_SCAN bytes were read. The number up to which all was looked at: first - 1 when
 * the rest is in memory.
 */
typedef bool rs_journal_each(void *arg, const char *text, size_t len);
RS_MUST_CHECK uint64_t rs_journal_look(const struct rs_journal *j, struct rs_store *store, uint64_t after,
                                       rs_journal_each *each, void *arg);

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
