/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/openssl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/command.h"
#include "offload/cli/exit.h"
#include "providers/crypto/limit.h"

#define RUNS_MAX 50

static const struct shape {
    unsigned cipher;
    const char *name; /* as `openssl speed` wants it */
    unsigned bytes;
} shapes[] = {{2, "aes-256-gcm", 16384}, {4, "aes-256-xts", 4096}, {2, "aes-256-gcm", 64}};

/*
 * Bytes a second by that program's own `speed`; NAN when it says none.
 * "+F:25:AES-256-GCM:3690951111.11" is the line, its last field the figure.
 */
static double speed_of(const struct rs_openssl_check *c, const struct shape *s, bool reseal)
{
    static const char *const env[] = {"OPENSSL_CONF=/dev/null", NULL};
    char bytes[16];
    snprintf(bytes, sizeof(bytes), "%u", s->bytes);
    /* The providers come first: -evp fetches when it is read. */
    const char *const with[] = {c->o.program,
                                "speed",
                                "-provider-path",
                                c->o.provider,
                                "-provider",
                                c->m.name,
                                "-provider",
                                "default",
                                "-propquery",
                                "?provider=reseal",
                                "-evp",
                                s->name,
                                "-mr",
                                "-seconds",
                                "1",
                                "-bytes",
                                bytes,
                                NULL};
    const char *const without[] = {c->o.program, "speed", "-evp",   s->name, "-mr",
                                   "-seconds",   "1",     "-bytes", bytes,   NULL};
    struct rs_command_text t;
    if (rs_command_output(reseal ? with : without, env, 60, &t) != 0) return NAN;
    double rate = NAN;
    const char *line = strstr(t.out, "+F:");
    const char *end = line == NULL ? NULL : line + strcspn(line, "\n");
    while (end != NULL && end > line && end[-1] != ':') end--;
    if (t.status == 0 && end != NULL) rate = strtod(end, NULL);
    rs_command_text_free(&t);
    return rate > 0 ? rate : NAN;
}

/*
 * `openssl speed` counts operations that failed, too. A figure counts when the
 * same calls were seen to work and to agree (openssl-probe.c), and when it is
 * not far above what the processor can do at all. Twice that is for a clock and neighbours that change
 * between the two; calls that fail at once seem to be faster still.
 */
static bool means_something(const struct rs_openssl_check *c, const struct rs_openssl_gain *g)
{
    double rounds = 0;
    for (unsigned i = 0; i < 50; i++) rounds = RS_MAX(rounds, rs_limit_aes_rounds_per_second());
    double limit = 16 * rounds / rs_limit_rounds(256, 0) / 1e9;
    return strcmp(c->own.compared[g->cipher], "same") == 0 &&
           (rounds <= 0 || RS_MAX(g->default_gbps, g->reseal_gbps) < limit * 2);
}

/* False: no figure. */
static bool measure(const struct rs_openssl_check *c, const struct shape *s, struct rs_openssl_gain *g)
{
    double theirs[RUNS_MAX], ours[RUNS_MAX], ratio[RUNS_MAX];
    unsigned n = RS_MIN(c->runs, (unsigned)RUNS_MAX);
    *g = (struct rs_openssl_gain){.cipher = s->cipher, .bytes = s->bytes};
    for (unsigned i = 0; i < n; i++) {
        theirs[i] = speed_of(c, s, false) / 1e9;
        ours[i] = speed_of(c, s, true) / 1e9;
        ratio[i] = ours[i] / theirs[i];
        if (!isfinite(ratio[i])) return false;
    }
    g->default_gbps = rs_median(theirs, n);
    g->reseal_gbps = rs_median(ours, n);
    g->ratio = rs_summarise(ratio, n);
    g->verified = means_something(c, g);
    return true;
}

void rs_openssl_measure(struct rs_openssl_check *c)
{
    if (c->runs == 0) return;
    unsigned wrong = 0;
    for (size_t i = 0; i < RS_ARRAY_LEN(shapes); i++) {
        if (strcmp(c->own.compared[shapes[i].cipher], "absent") == 0) continue;
        if (!measure(c, &shapes[i], &c->gains[c->ngains])) {
            rs_find(&c->f, "gain", RS_FINDING_LIMITS, "'openssl speed' gives no figure for %s",
                    shapes[i].name);
            continue;
        }
        wrong += !c->gains[c->ngains++].verified;
    }
    if (wrong > 0 && c->own.known)
        rs_openssl_fails(c, RS_EXIT_FAILED, "gain", "see the layer 'ciphers'",
                         "%u figures of 'openssl speed' are not of work that was done: not shown", wrong);
    else if (wrong > 0)
        rs_find(&c->f, "gain", RS_FINDING_LIMITS, "measured, but what was computed could not be compared");
}
