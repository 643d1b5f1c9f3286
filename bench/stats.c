/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/stats.h"

#include <math.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double rs_quantile(const double *sorted, size_t n, double q)
{
    if (n == 0) return 0;
    if (q <= 0) return sorted[0];
    if (q >= 1) return sorted[n - 1];
    double at = q * (double)(n - 1);
    size_t below = (size_t)at;
    double part = at - (double)below;
    return below + 1 < n ? sorted[below] + part * (sorted[below + 1] - sorted[below]) : sorted[below];
}

double rs_median(double *values, size_t n)
{
    qsort(values, n, sizeof(*values), ascending);
    return rs_quantile(values, n, 0.5);
}

/*
 * How many values to drop at each end so that the interval of what stays still
 * covers the median with 95 %: the largest k with P(Binomial(n, 1/2) < k) <=
 * 2.5 %. Summed in logarithms, since 2^-n underflows for large n.
 */
static size_t trim(size_t n)
{
    double below = 0;
    size_t k = 0;
    double log_half_n = -(double)n * log(2);
    while (2 * k + 2 < n) {
        double term =
            exp(lgamma((double)n + 1) - lgamma((double)k + 1) - lgamma((double)(n - k) + 1) + log_half_n);
        if (below + term > 0.025) break;
        below += term;
        k++;
    }
    return k;
}

/* MAD without a second array: the smallest d so that half of the sorted values lie within median +- d. */
static double deviation(const double *sorted, size_t n, double median)
{
    size_t want = (n + 1) / 2;
    double best = sorted[n - 1] - sorted[0];
    for (size_t i = 0; i + want <= n; i++) {
        double left = fabs(median - sorted[i]), right = fabs(sorted[i + want - 1] - median);
        best = fmin(best, fmax(left, right));
    }
    return best;
}

struct rs_summary rs_summarise(double *values, size_t n)
{
    struct rs_summary s = {0};
    if (n == 0) return s;
    s.median = rs_median(values, n);
    size_t k = trim(n);
    size_t drop = k == 0 ? 0 : k - 1;
    s.low = values[drop];
    s.high = values[n - 1 - drop];
    s.best = values[n - 1];
    s.mad = deviation(values, n, s.median);
    s.n = n;
    return s;
}
