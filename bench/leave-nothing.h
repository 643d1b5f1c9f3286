/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_LEAVE_NOTHING_H
#define RS_BENCH_LEAVE_NOTHING_H

/*
 * Folders and the process that must not outlive a benchmark, also when it is
 * interrupted: SIGINT, SIGTERM and SIGHUP end the process, remove the
 * folders, and then do what they do. For one thread.
 */

#include <stddef.h>
#include <sys/types.h>

#define RS_TEMPORARY_PHRASE 32u /* characters */

/* Makes a folder WHERE/reseal-bench-XXXXXX, mode 0700, that will go. 0 or -errno; `path` is empty after a
 * failure. */
int rs_temporary_folder(const char *where, char *path, size_t len);

/* Removes it with the files in it, and empties `path`. An empty path is allowed. */
void rs_temporary_folder_remove(char *path);

/*
 * A pass phrase for what is measured and thrown away, NUL-ended; the second writes one to a file of mode
 * 0600. 0 or -errno.
 */
int rs_temporary_phrase(char out[RS_TEMPORARY_PHRASE + 1]);
int rs_temporary_phrase_file(const char *path);

/* The child to end with SIGTERM and to wait for; 0: none any more. */
void rs_temporary_process(pid_t pid);

#endif
