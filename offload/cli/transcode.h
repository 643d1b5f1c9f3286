/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_TRANSCODE_H
#define RS_CLI_TRANSCODE_H

/*
 * reseal transcode: a disk image from one key to another, out of place or in
 * place. The keys stay in the service; this program moves ciphertext between
 * files and the arena of a ring, and keeps the journal.
 *
 *   transcode-options.c   the command line
 *   transcode-open.c      files, keys, headers, session: all that can refuse, before anything is written
 *   transcode-header.c    LUKS headers: open, make, block, write
 *   transcode-provider.c  headers whose key slot belongs to a key provider
 *   transcode-pipe.c      read, transcode, write: the loop of the two below
 *   transcode-copy.c      out of place
 *   transcode-inplace.c   in place, zone by zone
 *   transcode-verify.c    the destination read back and compared
 *   transcode.c           the order of all that, and the result
 */

#include "offload/cli/io.h"
#include "offload/cli/journal.h"
#include "offload/cli/passphrase.h"
#include "offload/cli/progress.h"
#include "offload/cli/side.h"
#include "reseal/reseal.h"

#define RS_TC_SLOTS_MAX 256u

/* A key of a key provider; NULL: none is named. */
struct rs_tc_provider_key {
    const char *provider, *key;
};

struct rs_tc_options {
    struct rs_side_spec src, dst;
    bool has_dst;
    struct rs_passphrase src_pass, dst_pass;
    struct rs_tc_provider_key from, to;
    const char *runtime_dir, *tenant, *journal;
    bool in_place, resume, force, existing, direct, buffered, no_sync, verify, json, quiet;
    bool fill_holes, keep_holes;
    enum rs_io_kind io;
    uint32_t chunk; /* bytes of a job; 0: by mode */
    uint32_t depth; /* jobs in flight; 0: by mode */
    uint32_t zone;  /* bytes of a journalled zone */
    struct reseal_luks_format format;
    bool help;
};

struct rs_tc_side {
    const struct rs_side_spec *spec;
    struct rs_file *file;
    uint32_t cipher; /* enum reseal_cipher */
    uint32_t unit;
    uint64_t step, first_tweak;
    uint64_t offset;
    bool has_key;
    reseal_key key;
    struct reseal_luks luks;
    uint8_t *header; /* what belongs before the data; NULL: nothing */
    size_t header_len;
};

struct rs_tc {
    struct rs_tc_options o;
    /* For other commands: opens the keys of xts sides in place of key files. 0 or an exit code. */
    int (*open_key)(struct rs_tc *t, struct rs_tc_side *side, uint32_t use);
    void *open_arg;
    struct rs_failure f;
    reseal *service;
    struct rs_file src_file, dst_file; /* in place dst_file stays closed */
    struct rs_tc_side src, dst;
    uint64_t data_size;
    uint32_t granule; /* the larger data unit */
    bool skip_holes;  /* of the source */
    bool new_holes;   /* zeros that come out may become holes: the destination began as nothing but a hole */
    reseal_session *session;
    reseal_queue *queue;
    uint8_t *arena;
    size_t arena_len;
    uint32_t chunk;
    uint32_t slots;
    struct rs_io *io;
    char journal_path[PATH_MAX];
    struct rs_journal journal; /* fd -1: none */
    bool resumed;
    uint64_t start; /* data bytes done before this run */
    uint64_t done;  /* data bytes that are in the destination, holes passed over included */
    uint64_t bytes; /* bytes transcoded in this run */
    uint64_t holes; /* bytes of holes passed over in this run */
    bool verified;
    double data_seconds; /* of the run, without opening keys */
    struct rs_progress progress;
};

/* Set by SIGINT and SIGTERM. */
bool rs_tc_stopped(void);

/* From here on SIGINT and SIGTERM end a run in order. */
void rs_tc_catch_signals(void);

/* ---- transcode-options.c ---- */

RS_MUST_CHECK int rs_tc_parse(struct rs_tc_options *o, int argc, char **argv, struct rs_failure *f);
void rs_tc_help(void);

/* ---- transcode-open.c, transcode-header.c ---- */

/* Opens everything; nothing on a disk is changed. 0 or an exit code. */
RS_MUST_CHECK int rs_tc_open(struct rs_tc *t);

/* Opens the source's file, or the destination's, as its side says; `flags` are RS_FILE_WRITE and _CREATE. 0
 * or an exit code. */
RS_MUST_CHECK int rs_tc_file_open(struct rs_tc *t, struct rs_file *file, unsigned flags);

/* Flags of rs_file_open() for the source, or the destination. */
unsigned rs_tc_io_flags(const struct rs_tc *t, bool source);

/* Session, queue and I/O for a transform from one side to another. */
RS_MUST_CHECK int rs_tc_session(struct rs_tc *t, const struct rs_tc_side *from, const struct rs_tc_side *to,
                                reseal_session **out);
RS_MUST_CHECK int rs_tc_pipeline(struct rs_tc *t, uint32_t chunk, uint32_t slots);

/* Sends a known unit through both keys; the journal keeps the result, so that a resume under another key is
 * refused. */
RS_MUST_CHECK int rs_tc_check_value(struct rs_tc *t, uint8_t check[RS_JOURNAL_CHECK]);

/* The superblock for what is open now. */
void rs_tc_super(const struct rs_tc *t, struct rs_journal_super *super);

void rs_tc_close(struct rs_tc *t);

/* True when the block at the start of a file carries the mark of a header that is blocked. */
bool rs_tc_header_blocked(int fd);

/* True when the file begins as a LUKS header does. */
bool rs_tc_header_luks(int fd);

/* Makes a LUKS header (both copies) unusable by changing its magic, durably; nothing happens where there is
 * none. */
RS_MUST_CHECK int rs_tc_header_block(const struct rs_file *file, uint64_t len);

/* Writes a header, zeros up to `clear` bytes behind it, durably when `sync` is set; the first block last. */
RS_MUST_CHECK int rs_tc_header_write(const struct rs_file *file, const uint8_t *header, size_t len,
                                     uint64_t clear, bool sync);

/* Opens the key of a LUKS side from its header in a file or in memory. */
RS_MUST_CHECK int rs_tc_luks_key(struct rs_tc *t, struct rs_tc_side *side, const struct rs_passphrase *pass,
                                 const char *what, uint32_t use);

/* Makes a new header for the destination, to begin its data at `data_offset` (0: the usual place). */
RS_MUST_CHECK int rs_tc_luks_format(struct rs_tc *t, uint64_t data_offset, uint32_t use);

/* A descriptor of a side's header, in its file or in memory, that can only be read; or -errno. */
int rs_tc_header_fd(const struct rs_tc_side *side);

/* Takes over what the service made for the destination: t->dst.luks, key, and the header in `header`. */
RS_MUST_CHECK int rs_tc_made_header(struct rs_tc *t, const struct reseal_luks_format *format, int header);

/* What side->luks says, taken into the side; it has a key. */
void rs_tc_take_luks(struct rs_tc_side *side);

/* ---- transcode-provider.c ---- */

/*
 * Opens the key of a LUKS side by the key provider that its header names, or `key` does. *found: it did, and
 * the code counts; else it wants a pass phrase.
 */
RS_MUST_CHECK int rs_tc_provider_open(struct rs_tc *t, struct rs_tc_side *side,
                                      const struct rs_tc_provider_key *key, uint32_t use, bool *found);

/* As rs_tc_luks_format(), for --to-provider. */
RS_MUST_CHECK int rs_tc_provider_format(struct rs_tc *t, const struct reseal_luks_format *format,
                                        uint32_t use);

/* ---- transcode-pipe.c: one file through both keys, to be written or to be compared ---- */

struct rs_tc_pipe {
    const char *label; /* of the progress */
    const struct rs_tc_side *from, *to;
    reseal_session *session;
    uint64_t start; /* in the data */
    bool compare;   /* the result with what `to` holds, instead of writing it there */
};

struct rs_tc_pipe_result {
    uint64_t done;  /* all data before this is done */
    uint64_t bytes; /* through both keys */
    uint64_t holes; /* passed over */
};

/* 0 or an exit code; *result is set in either case. */
RS_MUST_CHECK int rs_tc_pipe(struct rs_tc *t, const struct rs_tc_pipe *p, struct rs_tc_pipe_result *result);

/* ---- the three jobs: 0 or an exit code; RS_EXIT_INTERRUPTED leaves a state to resume from ---- */

RS_MUST_CHECK int rs_tc_copy(struct rs_tc *t);
RS_MUST_CHECK int rs_tc_in_place(struct rs_tc *t);
RS_MUST_CHECK int rs_tc_verify(struct rs_tc *t);

/* The tweak of the data unit at `off` in the data. */
static inline uint64_t rs_tc_tweak(const struct rs_tc_side *side, uint64_t off)
{
    return side->first_tweak + off / side->unit * side->step;
}

#endif
