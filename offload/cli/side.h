/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_SIDE_H
#define RS_CLI_SIDE_H

/*
 * The sides of a transcode: how they are written on a command line, and the
 * files behind them.
 *
 *   luks:FILE
 *   xts:FILE,key=KEYFILE[,name=NAME][,unit=512][,offset=0][,tweak=0][,step=1][,size=BYTES]
 *   plain:FILE[,offset=0][,size=BYTES]
 *
 * A comma in a name is written twice. Numbers take K, M, G, T (powers of 1024).
 */

#include <limits.h>
#include <sys/types.h>

#include "offload/cli/exit.h"

enum rs_side_kind { RS_SIDE_LUKS = 1, RS_SIDE_XTS = 2, RS_SIDE_PLAIN = 3 };

struct rs_side_spec {
    enum rs_side_kind kind;
    char path[PATH_MAX];
    char key_path[PATH_MAX]; /* XTS */
    char key_name[121];      /* XTS: the policy knows the key as raw:NAME; may be empty */
    uint32_t unit;           /* XTS: 512 to 65536, a power of two; else 0 */
    uint64_t offset;         /* bytes before the data; XTS and plain */
    uint64_t tweak;          /* XTS: of the first data unit */
    uint64_t step;           /* XTS: per data unit, 1 or more */
    uint64_t size;           /* bytes of data; 0: to the end of the file */
    bool qcow2;              /* the file is a qcow2 image: all of this is about its virtual disk */
};

/* Parses one side. 0 or RS_EXIT_USAGE. */
RS_MUST_CHECK int rs_side_parse(const char *text, struct rs_side_spec *out, struct rs_failure *f);

/* "luks", "xts" or "plain". */
const char *rs_side_kind_name(enum rs_side_kind kind);

struct rs_qcow2;

/* A regular file or a block device that is open. */
struct rs_file {
    int fd;    /* for headers: buffered */
    int io_fd; /* for data: the same descriptor, or one with O_DIRECT */
    bool direct;
    bool tried; /* O_DIRECT is a wish, not an order */
    bool block;
    bool created; /* by this run */
    uint64_t size;
    uint64_t dev; /* st_dev, or st_rdev of a block device */
    uint64_t ino; /* 0 for a block device */
    int64_t mtime_ns;
    struct rs_qcow2 *image; /* QEMU has it open for us: fd is for fstat() only, io_fd is -1 */
    char path[PATH_MAX];
};

enum rs_file_flags {
    RS_FILE_WRITE = 1,
    RS_FILE_CREATE = 2,     /* must not be there yet; mode 0600 */
    RS_FILE_DIRECT = 4,     /* O_DIRECT; an error where the file system has none */
    RS_FILE_TRY_DIRECT = 8, /* O_DIRECT where it works */
    RS_FILE_UNCACHED = 16,  /* with TRY_DIRECT: not when most of the file is in the page cache */
    RS_FILE_DISCARD = 32,   /* of a qcow2 image: a trim gives room back */
    RS_FILE_ORDERLY = 64    /* of a qcow2 image: it is closed in order even when we are killed */
};

/*
 * Opens, finds size and identity, and keeps programs that lock images as QEMU
 * does from using it meanwhile (a writer locks others out, a reader locks
 * writers out). A block device is opened O_EXCL for writing. 0 or an exit code.
 */
RS_MUST_CHECK int rs_file_open(struct rs_file *file, const char *path, unsigned flags, struct rs_failure *f);
void rs_file_close(struct rs_file *file);

/*
 * The same for a qcow2 image, by QEMU. RS_FILE_CREATE takes `size`; what a killed writer left unused in an
 * image that is to be written is given back. QEMU locks it.
 */
RS_MUST_CHECK int rs_file_open_qcow2(struct rs_file *file, const char *path, unsigned flags, uint64_t size,
                                     struct rs_failure *f);

/* Closes the image in order, ahead of rs_file_close(), and says how that went: 0 or -errno. Any file may be
 * given. */
int rs_file_close_qcow2(struct rs_file *file);

/* All that was written is durable. 0 or -errno. */
RS_MUST_CHECK int rs_file_flush(struct rs_file *file);

/* Transfers at an offset, for headers. 0 or -errno. */
RS_MUST_CHECK int rs_file_pread(struct rs_file *file, void *buf, size_t len, uint64_t off);
RS_MUST_CHECK int rs_file_pwrite(struct rs_file *file, const void *buf, size_t len, uint64_t off);
/* The same where nothing is yet: zeros are left out. */
RS_MUST_CHECK int rs_file_pwrite_sparse(struct rs_file *file, const void *buf, size_t len, uint64_t off);

/* Goes back to the page cache when O_DIRECT was only tried and does not suit data at `offset`, `size` bytes
 * long. */
void rs_file_settle_direct(struct rs_file *file, uint64_t offset, uint64_t size);

/* Makes the name of a file that was just created or removed durable. */
RS_MUST_CHECK int rs_file_sync_folder(const char *path);

/* True when both are the same file, or one is a loop device over the other. */
bool rs_file_same(const struct rs_file *a, const struct rs_file *b);

/*
 * Runs of data in a file; holes in it are passed over when `skip` is set.
 * Offsets are relative to `base`; runs begin and end at multiples of
 * `granule`, so that a unit that is only in part a hole counts as data.
 */
struct rs_extents {
    int fd;
    struct rs_qcow2 *image; /* in place of fd; NULL: none */
    bool skip;
    uint64_t base;
    uint64_t size;
    uint64_t granule;
    uint64_t start, end; /* the run found last */
};

/*
 * The next piece of data at or after `pos`, at most `max` bytes (a multiple of
 * the granule): true, with *off and *len; false when there is none.
 */
bool rs_extents_next(struct rs_extents *e, uint64_t pos, uint64_t max, uint64_t *off, uint64_t *len);

#endif
