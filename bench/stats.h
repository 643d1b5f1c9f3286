/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_STATS_H
#define RS_BENCH_STATS_H

/*
 * Statistics that survive a noisy machine: medians, a distribution-free
 * interval, quantiles. Nothing here allocates; nothing depends on the clock.
 */

#include <stddef.h>
#include <stdint.h>

/* Median of n values, which are sorted in place. 0 when n is 0. */
double rs_median(double *values, size_t n);

/* Quantile q (0 to 1) of n sorted values, interpolated between neighbours. 0 when n is 0. */
double rs_quantile(const double *sorted, size_t n, double q);

/* Median with an interval that holds it in at least 95 of 100 repetitions of the measurement. */
struct rs_summary {
    double median;
    double low;  /* lower end of the interval; the smallest value when n < 6 */
    double high; /* upper end; the largest value when n < 6 */
    double best; /* the largest value */
    double mad;  /* median absolute deviation from the median */
    size_t n;
};

/*
 * Summarises n values, which are sorted in place. The interval is the pair of
 * order statistics of the binomial distribution (no assumption about the
 * shape of the noise). All fields 0 when n is 0.
 */
struct rs_summary rs_summarise(double *values, size_t n);

#endif
