/* histogram.h - log-linear histograms of nanoseconds.
 *
 * Fine:   128 buckets per octave. A value is reported as the middle of its bucket, so it is off by less than
 *         1/256 = 0.4 % (stated bound: TG_HISTOGRAM_MAX_ERROR = 1 %). Values below 256 are exact. Covers all of uint64_t.
 * Coarse: 16 buckets per octave, error <= 3.2 %; for the per-job statistics that travel through the ledger.
 *
 * A histogram has no lock: one writer at a time, and readers only while nobody writes. The histograms inside a core
 * are guarded by the core (see core.h); these functions are for copies taken out of it, and for collectors.
 */
#ifndef TIDEGATE_HISTOGRAM_H
#define TIDEGATE_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "tidegate/alloc.h"
#include "tidegate/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TG_HISTOGRAM_SUB_BITS 7
#define TG_HISTOGRAM_BUCKETS ((64 - TG_HISTOGRAM_SUB_BITS + 1) * (1 << TG_HISTOGRAM_SUB_BITS)) /* 7424 */
#define TG_HISTOGRAM_MAX_ERROR 0.01
#define TG_COARSE_BUCKETS 976 /* tg_coarse_index(UINT64_MAX) + 1 */

struct tg_histogram {
    uint64_t count;
    uint64_t sum;    /* saturates at UINT64_MAX */
    uint64_t min;    /* UINT64_MAX while count is 0 */
    uint64_t max;    /* 0 while count is 0. Buckets outside those of min and max are zero. */
    uint64_t buckets[TG_HISTOGRAM_BUCKETS];
};

/* ---- life cycle ---- */

/* An empty histogram from `allocator` (NULL: the system's). TG_NOMEM leaves *out untouched. */
tg_status tg_histogram_create(const struct tg_allocator *allocator, struct tg_histogram **out);
void tg_histogram_destroy(const struct tg_allocator *allocator, struct tg_histogram *histogram);
/* Makes it empty; costs only the buckets that were used. The memory must have been initialised once. */
void tg_histogram_reset(struct tg_histogram *histogram);
void tg_histogram_init(struct tg_histogram *histogram);

/* ---- writing ---- */

void tg_histogram_record(struct tg_histogram *histogram, uint64_t value);
void tg_histogram_record_many(struct tg_histogram *histogram, uint64_t value, uint64_t times);
/* into += from */
void tg_histogram_merge(struct tg_histogram *into, const struct tg_histogram *from);
/* delta = now - before, where `before` is an earlier copy of the same histogram. min and max of the delta are those of its
 * buckets, clamped to the whole's. TG_MISMATCH when `before` is not earlier; delta is then empty. */
tg_status tg_histogram_delta(const struct tg_histogram *now, const struct tg_histogram *before,
                             struct tg_histogram *delta);
void tg_histogram_copy(struct tg_histogram *into, const struct tg_histogram *from);

/* ---- reading ---- */

/* Smallest recorded value v such that at least `quantile` (0..1, clamped) of all values are <= v; within 1 %.
 * Quantile 0 answers min and 1 answers max, exactly. 0 when empty. */
uint64_t tg_histogram_quantile(const struct tg_histogram *histogram, double quantile);
double tg_histogram_mean(const struct tg_histogram *histogram);
/* Sparse iteration: start with *cursor = 0; returns 1 and one used bucket, or 0 at the end. Any out pointer may be NULL. */
int tg_histogram_next(const struct tg_histogram *histogram, uint32_t *cursor, uint64_t *low, uint64_t *high,
                      uint64_t *count);

/* ---- wire form (README.md, "Histogram wire form") ---- */

/* Bytes that tg_histogram_encode will write. */
size_t tg_histogram_encoded_size(const struct tg_histogram *histogram);
tg_status tg_histogram_encode(const struct tg_histogram *histogram, void *buffer, size_t capacity, size_t *written);
/* Reads any bytes at all safely. TG_CORRUPT or TG_VERSION leaves `histogram` empty. */
tg_status tg_histogram_decode(struct tg_histogram *histogram, const void *bytes, size_t size);

/* ---- bucket arithmetic ---- */

/* Fine: index = v for v < 256; else e = floor(log2(v)), index = (e - 7) * 128 + (v >> (e - 7)). (So 256 maps to 256.) */
static inline uint32_t tg_histogram_index(uint64_t value)
{
    /* `| 128` makes every value below 256 take shift 0, without a branch. */
    unsigned exponent = 63u - (unsigned)__builtin_clzll(value | (1u << TG_HISTOGRAM_SUB_BITS));
    unsigned shift = exponent - TG_HISTOGRAM_SUB_BITS;
    return (shift << TG_HISTOGRAM_SUB_BITS) + (uint32_t)(value >> shift);
}

/* First and last value of a bucket, and the value it is reported as. */
uint64_t tg_histogram_low(uint32_t index);
uint64_t tg_histogram_high(uint32_t index);
uint64_t tg_histogram_value(uint32_t index);

/* Coarse: index = ns for ns < 16; else e = floor(log2(ns)), index = (e - 3) * 16 + ((ns >> (e - 4)) - 16).
 * (So 16 maps to 16, 31 to 31, 32 and 33 to 32, and UINT64_MAX to 975.) */
static inline uint32_t tg_coarse_index(uint64_t ns)
{
    unsigned exponent = 63u - (unsigned)__builtin_clzll(ns | 16u);
    unsigned shift = exponent - 4u;
    uint32_t index = (shift << 4) + (uint32_t)(ns >> shift);
    return index;
}

/* Middle of the bucket: index for index < 16; else shift = index / 16 - 1, low = (16 + index % 16) << shift,
 * value = low + ((1 << shift) - 1) / 2 (whole nanoseconds, rounded down). Index is clamped to the last bucket. */
uint64_t tg_coarse_value(uint32_t index);

#ifdef __cplusplus
}
#endif
#endif
