/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_COREDUMP_H
#define RS_CLI_COREDUMP_H

/*
 * `reseal coredump`: core dumps that reach no disk in clear. The kernel hands a dump to `handle` as a
 * pipe, which hands the pipe itself to the key service, with a file to write: neither this
 * program nor any file sees what is in it.
 */

#include "offload/cli/exit.h"

#include <dirent.h>
#include <jansson.h>
#include <time.h>

#define RS_CORES_FOLDER "/var/lib/reseal/cores"
#define RS_CORES_SUFFIX ".core.ve"
#define RS_CORE_PATTERN "/proc/sys/kernel/core_pattern"
#define RS_CORE_ARGS    "%P %u %g %s %t %h %e"

struct rs_cores {
    const char *folder;
    const char *runtime_dir;
    uint64_t max_size;  /* bytes of one dump; what is longer is cut */
    uint64_t max_count; /* dumps in the folder; the next is dropped */
    uint64_t keep_free; /* bytes of the file system that are left alone */
    uint64_t deadline;  /* seconds for one dump */
    const char *out;
    const char *passphrase_file;
    const char *provider; /* of a new host key; NULL: none, it is random */
    const char *key;      /* that key of it; NULL: a new one */
    bool json;
    bool force;
};

/* A crash, as the kernel tells it. */
struct rs_crash {
    const char *pid, *uid, *gid, *signal, *time, *host;
    char program[64];
};

/* ---- coredump-handle.c ---- */

/* argv: the values of RS_CORE_ARGS. The exit code. */
int rs_coredump_handle(const struct rs_cores *c, int argc, char **argv);
/* Which host this is: the texts x-Component, x-Name (NULL: this machine's name) and x-Identifier. NULL: no
 * memory. */
json_t *rs_cores_host(const char *name);

/* ---- coredump-folder.c ---- */

/* Opens the folder, with `make` creates it (0700). Refuses one that others can write. 0 or an exit code. */
RS_MUST_CHECK int rs_cores_open(const char *folder, bool make, int *fd, struct rs_failure *f);
bool rs_cores_is_dump(const char *name);
/* How many there are, and their bytes. */
RS_MUST_CHECK int rs_cores_count(int folder, uint64_t *count, uint64_t *bytes);
/* Removes what handlers left that ended with the machine: no dump has that name yet. */
void rs_cores_clean(int folder);
int rs_coredump_list(const struct rs_cores *c);
int rs_coredump_status(const struct rs_cores *c);
int rs_coredump_install(const struct rs_cores *c);

/* ---- coredump-file.c ---- */

int rs_coredump_describe(const struct rs_cores *c, const char *file);
int rs_coredump_extract(const struct rs_cores *c, const char *file);
int rs_coredump_recrypt(const struct rs_cores *c, const char *file);
int rs_coredump_rekey(const struct rs_cores *c);

#endif
