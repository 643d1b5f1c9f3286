/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_JOURNAL_H
#define RS_CLI_JOURNAL_H

/*
 * What survives an interrupted transcode: a file beside the image that says
 * how far it came, and, in place, holds what is being overwritten.
 *
 *   0        superblock, one sector: the sides, sizes, a check of both keys
 *   4096     record 0    the two are written in turn; the valid one with the
 *   8192     record 1    higher sequence number counts
 *   12288    source header, then destination header, as they are on disk: the
 *            keys in them are wrapped by their pass phrases, nothing else is here
 *   zones    in place: two areas of zone_size bytes
 *
 * In place, zone n is transcoded into area n mod 2 and flushed; then its record
 * is committed: "everything before this zone is on the image, flushed; this
 * zone is in area n mod 2". Only then is the image overwritten, so a crash at
 * any write finds one of two states: the record of zone n is there and area
 * n mod 2 is whole (write it to the image again, go on behind it), or it is
 * not, and the image holds the source from zone n on. An area is written again
 * only after a newer record is durable.
 *
 * It is made under another name (PATH.new) and gets its own when it is whole.
 *
 * Out of place there are no areas; a record says that everything before `next`
 * is in the destination, flushed.
 *
 * All numbers little-endian; superblock and records end in their CRC-32C. A torn
 * record is no record; the superblock cannot be torn.
 */

#include "offload/cli/exit.h"

#define RS_JOURNAL_BLOCK      4096u
#define RS_JOURNAL_SECTOR     512u /* what a disk writes whole or not at all */
#define RS_JOURNAL_SEGMENTS   200u
#define RS_JOURNAL_CHECK      64u
#define RS_JOURNAL_HEADER_MAX (64u << 20)

enum rs_journal_mode { RS_JOURNAL_IN_PLACE = 1, RS_JOURNAL_COPY = 2, RS_JOURNAL_OVER = 3 };

enum rs_journal_flags {
    RS_JOURNAL_SKIP_HOLES = 1,
};

struct rs_journal_side {
    uint32_t kind; /* enum rs_side_kind */
    uint32_t unit;
    uint64_t step;
    uint64_t first_tweak;
    uint64_t offset; /* bytes before the data */
};

struct rs_journal_super {
    uint8_t magic[8];
    uint32_t version;
    uint32_t mode;      /* enum rs_journal_mode */
    uint32_t flags;     /* enum rs_journal_flags */
    uint32_t zone_size; /* bytes, a multiple of 4096; 0 out of place */
    struct rs_journal_side source;
    struct rs_journal_side destination;
    uint64_t data_size;
    uint64_t source_file_size;
    uint64_t source_dev; /* out of place: the file that was read */
    uint64_t source_ino;
    int64_t source_mtime_ns;
    uint64_t destination_size; /* out of place: bytes the destination file gets */
    uint64_t header_len[2];    /* source, destination; 0: none */
    uint32_t header_crc[2];
    uint8_t check[RS_JOURNAL_CHECK]; /* a known unit sent through both keys */
    uint8_t reserved[284];
    uint32_t crc;
};

enum rs_journal_state {
    RS_JOURNAL_RUNNING = 1,
    RS_JOURNAL_HEADER = 2, /* all data is done and flushed: the destination's header is next */
};

struct rs_journal_segment {
    uint64_t off; /* in the data */
    uint64_t len;
};

struct rs_journal_record {
    uint64_t magic;
    uint64_t seq;
    uint64_t next;  /* bytes of data that are done once this record is carried out */
    uint32_t state; /* enum rs_journal_state */
    uint32_t area;  /* where the segments lie, one after the other */
    uint32_t segments;
    uint32_t reserved;
    struct rs_journal_segment segment[RS_JOURNAL_SEGMENTS];
    uint8_t pad[852];
    uint32_t crc;
};

_Static_assert(sizeof(struct rs_journal_super) == RS_JOURNAL_SECTOR, "a sector");
_Static_assert(sizeof(struct rs_journal_record) == RS_JOURNAL_BLOCK, "a block");

struct rs_journal {
    int fd;    /* buffered */
    int io_fd; /* for areas and records: O_DIRECT where it works, else fd */
    bool direct;
    char path[4096];
    struct rs_journal_super super;
    uint64_t header_at[2];
    uint64_t area_at[2];
    uint64_t seq;                    /* of the last record; 0: none */
    struct rs_journal_record *block; /* aligned for O_DIRECT */
};

enum rs_journal_found {
    RS_JOURNAL_NONE, /* no such file */
    RS_JOURNAL_THERE,
    RS_JOURNAL_ENDED, /* its run is done, only the name was left: remove it */
    RS_JOURNAL_DAMAGED,
    RS_JOURNAL_FOREIGN, /* another user's, or one that others can write: its header could hold a key they know
                         */
};

/* What is at `path`; only a journal that is there is left open in *j. */
enum rs_journal_found rs_journal_open(struct rs_journal *j, const char *path, bool direct);

/*
 * Makes the journal; everything in it is durable on return. `super` has all
 * but magic, version, header_crc and crc. `headers` are header_len bytes each,
 * NULL when 0. 0 or an exit code; nothing is left behind on failure.
 */
RS_MUST_CHECK int rs_journal_create(struct rs_journal *j, const char *path,
                                    const struct rs_journal_super *super, const void *const headers[2],
                                    bool direct, struct rs_failure *f);

/* The newest valid record; false when there is none. */
bool rs_journal_last(struct rs_journal *j, struct rs_journal_record *out);

/* Writes the next record durably; seq and crc are filled in. 0 or -errno. */
RS_MUST_CHECK int rs_journal_commit(struct rs_journal *j, const struct rs_journal_record *record);

/* A copy of a header (0: source, 1: destination) in new memory of header_len bytes; the caller frees it. */
RS_MUST_CHECK int rs_journal_header(struct rs_journal *j, unsigned which, uint8_t **out,
                                    struct rs_failure *f);

/* Closes; the file stays. */
void rs_journal_close(struct rs_journal *j);

/* Overwrites the headers, then removes the file, durably, then closes. 0 or -errno. */
RS_MUST_CHECK int rs_journal_remove(struct rs_journal *j);

#endif
