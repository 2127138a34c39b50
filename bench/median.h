// The median of measurements.

#ifndef BENCH_MEDIAN_H
#define BENCH_MEDIAN_H

#include <stdlib.h>

static inline int compare_numbers(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Of an odd count. Sorts them.
static inline double median(double *numbers, size_t count) {
    qsort(numbers, count, sizeof numbers[0], compare_numbers);
    return numbers[count / 2];
}

#endif
