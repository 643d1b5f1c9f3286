/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/pairs.h"

#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "offload/base/bytes.h"

void rs_pairs_conclude(struct rs_pairs *p, unsigned runs, uint64_t bytes, const char *peer,
                       struct rs_result *out)
{
    double ratios[RS_PAIRS_MAX], gb = (double)bytes / 1e9;
    for (unsigned i = 0; i < runs; i++) {
        ratios[i] = p->ours[i] > 0 ? p->theirs[i] / p->ours[i] : 0;
        p->ours[i] /= gb;
        p->theirs[i] /= gb;
    }
    out->gbps = rs_summarise(p->gbps, runs);
    out->cpu_s_per_gb = rs_median(p->ours, runs);
    out->peers[0] = (struct rs_peer_result){.name = peer,
                                            .gbps = NAN,
                                            .cpu_s_per_gb = rs_median(p->theirs, runs),
                                            .ratio = rs_summarise(ratios, runs)};
    out->npeers = 1;
    out->runs = runs;
    out->verified = true;
}

void rs_pairs_settle(const char *dir, const char *file)
{
    char path[PATH_MAX + NAME_MAX];
    int n = snprintf(path, sizeof(path), "%s/%s", dir, file);
    if (n < 0 || (size_t)n >= sizeof(path)) return;
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) (void)fdatasync(fd);
}
