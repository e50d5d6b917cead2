/* histogram.c - recording, merging and reading of log-linear histograms. No lock: see histogram.h. */
#include "tidegate/histogram.h"

#include <stdbool.h>
#include <string.h>

enum { SUB = 1 << TG_HISTOGRAM_SUB_BITS };

uint64_t tg_histogram_low(uint32_t index)
{
    if (index < 2 * SUB) {
        return index;
    }
    uint32_t shift = index / SUB - 1;
    return (uint64_t)(SUB + index % SUB) << shift;
}

uint64_t tg_histogram_high(uint32_t index)
{
    if (index < 2 * SUB) {
        return index;
    }
    uint32_t shift = index / SUB - 1;
    return tg_histogram_low(index) + (((uint64_t)1 << shift) - 1);
}

uint64_t tg_histogram_value(uint32_t index)
{
    uint64_t low = tg_histogram_low(index);
    return low + (tg_histogram_high(index) - low) / 2;
}

uint64_t tg_coarse_value(uint32_t index)
{
    if (index >= TG_COARSE_BUCKETS) {
        index = TG_COARSE_BUCKETS - 1;
    }
    if (index < 16) {
        return index;
    }
    uint32_t shift = index / 16 - 1;
    uint64_t low = (uint64_t)(16 + index % 16) << shift;
    return low + (((uint64_t)1 << shift) - 1) / 2;
}

tg_status tg_histogram_create(const struct tg_allocator *allocator, struct tg_histogram **out)
{
    if (allocator == NULL) {
        allocator = &tg_allocator_system;
    }
    struct tg_histogram *histogram = allocator->allocate(allocator->ctx, sizeof *histogram);
    if (histogram == NULL) {
        return TG_NOMEM;
    }
    tg_histogram_init(histogram);
    *out = histogram;
    return TG_OK;
}

void tg_histogram_destroy(const struct tg_allocator *allocator, struct tg_histogram *histogram)
{
    if (allocator == NULL) {
        allocator = &tg_allocator_system;
    }
    allocator->release(allocator->ctx, histogram, sizeof *histogram);
}

void tg_histogram_init(struct tg_histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
    histogram->min = UINT64_MAX;
}

void tg_histogram_reset(struct tg_histogram *histogram)
{
    if (histogram->count != 0) {
        uint32_t lowest = tg_histogram_index(histogram->min);
        uint32_t highest = tg_histogram_index(histogram->max);
        memset(&histogram->buckets[lowest], 0, (highest - lowest + 1) * sizeof histogram->buckets[0]);
    }
    histogram->count = 0;
    histogram->sum = 0;
    histogram->min = UINT64_MAX;
    histogram->max = 0;
}

static uint64_t add_saturated(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

void tg_histogram_record_many(struct tg_histogram *histogram, uint64_t value, uint64_t times)
{
    if (times == 0) {
        return;
    }
    uint64_t product;
    if (__builtin_mul_overflow(value, times, &product)) {
        product = UINT64_MAX;
    }
    histogram->count += times;
    histogram->sum = add_saturated(histogram->sum, product);
    if (value < histogram->min) {
        histogram->min = value;
    }
    if (value > histogram->max) {
        histogram->max = value;
    }
    histogram->buckets[tg_histogram_index(value)] += times;
}

void tg_histogram_record(struct tg_histogram *histogram, uint64_t value)
{
    tg_histogram_record_many(histogram, value, 1);
}

void tg_histogram_merge(struct tg_histogram *into, const struct tg_histogram *from)
{
    if (from->count == 0) {
        return;
    }
    uint32_t highest = tg_histogram_index(from->max);
    for (uint32_t i = tg_histogram_index(from->min); i <= highest; i++) {
        into->buckets[i] += from->buckets[i];
    }
    into->count += from->count;
    into->sum = add_saturated(into->sum, from->sum);
    if (from->min < into->min) {
        into->min = from->min;
    }
    if (from->max > into->max) {
        into->max = from->max;
    }
}

void tg_histogram_copy(struct tg_histogram *into, const struct tg_histogram *from)
{
    if (into != from) {
        tg_histogram_reset(into);
        tg_histogram_merge(into, from);
    }
}

static bool is_earlier(const struct tg_histogram *now, const struct tg_histogram *before)
{
    if (before->count > now->count || before->sum > now->sum) {
        return false;
    }
    if (before->count == 0) {
        return true;
    }
    if (before->min < now->min || before->max > now->max) {
        return false;
    }
    uint32_t highest = tg_histogram_index(before->max);
    for (uint32_t i = tg_histogram_index(before->min); i <= highest; i++) {
        if (before->buckets[i] > now->buckets[i]) {
            return false;
        }
    }
    return true;
}

tg_status tg_histogram_delta(const struct tg_histogram *now, const struct tg_histogram *before,
                             struct tg_histogram *delta)
{
    tg_histogram_reset(delta);
    if (!is_earlier(now, before)) {
        return TG_MISMATCH;
    }
    if (now->count == before->count) {
        return TG_OK;
    }
    uint32_t lowest = TG_HISTOGRAM_BUCKETS, highest = 0;
    uint32_t last = tg_histogram_index(now->max);
    for (uint32_t i = tg_histogram_index(now->min); i <= last; i++) {
        uint64_t count = now->buckets[i] - before->buckets[i];
        if (count == 0) {
            continue;
        }
        delta->buckets[i] = count;
        if (i < lowest) {
            lowest = i;
        }
        highest = i;
    }
    delta->count = now->count - before->count;
    delta->sum = now->sum - before->sum;
    uint64_t min = tg_histogram_low(lowest), max = tg_histogram_high(highest);
    delta->min = min < now->min ? now->min : min;
    delta->max = max > now->max ? now->max : max;
    return TG_OK;
}

uint64_t tg_histogram_quantile(const struct tg_histogram *histogram, double quantile)
{
    if (histogram->count == 0) {
        return 0;
    }
    if (!(quantile > 0)) { /* NaN too */
        return histogram->min;
    }
    if (quantile >= 1) {
        return histogram->max;
    }
    double exact = quantile * (double)histogram->count;
    uint64_t rank = (uint64_t)exact;
    if ((double)rank < exact || rank == 0) {
        rank++;
    }
    uint64_t seen = 0;
    uint32_t highest = tg_histogram_index(histogram->max);
    for (uint32_t i = tg_histogram_index(histogram->min); i <= highest; i++) {
        seen += histogram->buckets[i];
        if (seen >= rank) {
            uint64_t value = tg_histogram_value(i);
            value = value < histogram->min ? histogram->min : value;
            return value > histogram->max ? histogram->max : value;
        }
    }
    return histogram->max;
}

double tg_histogram_mean(const struct tg_histogram *histogram)
{
    return histogram->count != 0 ? (double)histogram->sum / (double)histogram->count : 0.0;
}

int tg_histogram_next(const struct tg_histogram *histogram, uint32_t *cursor, uint64_t *low, uint64_t *high,
                      uint64_t *count)
{
    if (histogram->count == 0) {
        return 0;
    }
    uint32_t highest = tg_histogram_index(histogram->max);
    uint32_t i = *cursor;
    uint32_t lowest = tg_histogram_index(histogram->min);
    for (i = i < lowest ? lowest : i; i <= highest; i++) {
        if (histogram->buckets[i] == 0) {
            continue;
        }
        if (low != NULL) {
            *low = tg_histogram_low(i);
        }
        if (high != NULL) {
            *high = tg_histogram_high(i);
        }
        if (count != NULL) {
            *count = histogram->buckets[i];
        }
        *cursor = i + 1;
        return 1;
    }
    *cursor = i;
    return 0;
}
