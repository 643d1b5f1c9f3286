/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_PROGRESS_H
#define RS_CLI_PROGRESS_H

/*
 * How far a long command is: a bar on a terminal (bytes, rate, time left), a
 * line now and then elsewhere, a JSON object per line on request. On stderr,
 * so that stdout holds results only.
 */

#include "offload/base/bytes.h"

enum rs_progress_style { RS_PROGRESS_NONE, RS_PROGRESS_TEXT, RS_PROGRESS_JSON };

struct rs_progress {
    enum rs_progress_style style;
    bool terminal;
    const char *label; /* "transcode", "verify" */
    uint64_t total;    /* bytes */
    uint64_t first;    /* bytes that were done before this run */
    uint64_t started;  /* ns */
    uint64_t shown;    /* ns: when it was last shown */
    bool drawn;        /* a bar stands on the current line */
};

void rs_progress_begin(struct rs_progress *p, enum rs_progress_style style, const char *label, uint64_t first,
                       uint64_t total);

/* Cheap: call it as often as there is something new. */
void rs_progress_at(struct rs_progress *p, uint64_t done);

/* Ends the bar's line. */
void rs_progress_end(struct rs_progress *p, uint64_t done);

/* "1.5 GiB" into a buffer of at least 16 bytes; returns it. */
char *rs_bytes_text(uint64_t bytes, char *out, size_t cap);

/* Nanoseconds of the monotonic clock, a tick (some ms) coarse. */
uint64_t rs_progress_clock(void);

#endif
