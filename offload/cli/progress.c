/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define SECOND    1000000000ull
#define BAR_CELLS 24u

uint64_t rs_progress_clock(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

char *rs_bytes_text(uint64_t bytes, char *out, size_t cap)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double v = (double)bytes;
    size_t u = 0;
    while (v >= 1024.0 && u + 1 < RS_ARRAY_LEN(units)) {
        v /= 1024.0;
        u++;
    }
    snprintf(out, cap, u == 0 ? "%.0f %s" : "%.1f %s", v, units[u]);
    return out;
}

void rs_progress_begin(struct rs_progress *p, enum rs_progress_style style, const char *label, uint64_t first,
                       uint64_t total)
{
    *p = (struct rs_progress){.style = style, .label = label, .total = total, .first = first};
    p->terminal = isatty(STDERR_FILENO) == 1;
    p->started = p->shown = rs_progress_clock();
}

static void left_text(double seconds, char *out, size_t cap)
{
    uint64_t s = seconds < 0 || seconds > 1e9 ? 0 : (uint64_t)(seconds + 0.5);
    if (s >= 3600)
        snprintf(out, cap, "%lu:%02lu:%02lu left", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, cap, "%lu:%02lu left", s / 60, s % 60);
}

static void show(struct rs_progress *p, uint64_t done, uint64_t now, bool last)
{
    double seconds = (double)(now - p->started) / (double)SECOND;
    double rate = seconds > 0 ? (double)(done - RS_MIN(done, p->first)) / seconds : 0;
    double share = p->total == 0 ? 1 : (double)done / (double)p->total;
    if (p->style == RS_PROGRESS_JSON) {
        fprintf(stderr, "{\"progress\":\"%s\",\"bytes\":%lu,\"total\":%lu,\"bytes_per_second\":%.0f}\n",
                p->label, done, p->total, rate);
        return;
    }
    char have[24], all[24], speed[24], left[40] = "";
    rs_bytes_text(done, have, sizeof(have));
    rs_bytes_text(p->total, all, sizeof(all));
    rs_bytes_text((uint64_t)rate, speed, sizeof(speed));
    if (!last && rate > 0) left_text((double)(p->total - done) / rate, left, sizeof(left));
    if (!p->terminal) {
        fprintf(stderr, "%s: %s of %s (%.0f %%), %s/s%s%s\n", p->label, have, all, share * 100, speed,
                left[0] != '\0' ? ", " : "", left);
        return;
    }
    char bar[BAR_CELLS + 1];
    unsigned full = (unsigned)(share * BAR_CELLS);
    for (unsigned i = 0; i < BAR_CELLS; i++) bar[i] = i < full ? '#' : '.';
    bar[BAR_CELLS] = '\0';
    fprintf(stderr, "\r%s [%s] %3.0f %%  %s of %s  %s/s  %s\033[K", p->label, bar, share * 100, have, all,
            speed, left);
    p->drawn = true;
}

void rs_progress_at(struct rs_progress *p, uint64_t done)
{
    if (p->style == RS_PROGRESS_NONE) return;
    uint64_t now = rs_progress_clock();
    uint64_t interval = p->style == RS_PROGRESS_TEXT && p->terminal ? SECOND / 5
                        : p->style == RS_PROGRESS_JSON              ? SECOND
                                                                    : 10 * SECOND;
    if (now - p->shown < interval) return;
    p->shown = now;
    show(p, RS_MIN(done, p->total), now, false);
}

void rs_progress_end(struct rs_progress *p, uint64_t done)
{
    if (p->style == RS_PROGRESS_NONE) return;
    if (p->style == RS_PROGRESS_TEXT && p->terminal)
        show(p, RS_MIN(done, p->total), rs_progress_clock(), true);
    if (p->drawn) fputc('\n', stderr);
    p->drawn = false;
}
