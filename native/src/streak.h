/* streak.h - values that hardly differ from one to the next, into histograms: those that fall into the same bucket as the
 * one before are counted together. No lock: the caller's.
 */
#ifndef TIDEGATE_STREAK_H
#define TIDEGATE_STREAK_H

#include "internal.h"

/* Values of one class that fall into the fine bucket [low, low + span]. Coarse buckets are made of whole fine ones. */
struct tg__streak {
    uint64_t low, span, n;
    struct tg_histogram *histogram;
    uint32_t *coarse; /* or NULL */
};

static inline void tg__streak_end(const struct tg__streak *streak)
{
    if (streak->n == 0) {
        return;
    }
    if (streak->histogram != NULL) {
        streak->histogram->buckets[tg_histogram_index(streak->low)] += streak->n;
    }
    if (streak->coarse != NULL) {
        streak->coarse[tg_coarse_index(streak->low)] += (uint32_t)streak->n;
    }
}

__attribute__((noinline, unused)) static void tg__streak_begin(struct tg__streak *streak, uint64_t value)
{
    tg__streak_end(streak);
    streak->n = 0;
    unsigned shift = 63u - TG_HISTOGRAM_SUB_BITS - (unsigned)__builtin_clzll(value | (1u << TG_HISTOGRAM_SUB_BITS));
    streak->low = value >> shift << shift;
    streak->span = ((uint64_t)1 << shift) - 1;
}

static inline void tg__streak_add(struct tg__streak *streak, uint64_t value)
{
    if (value - streak->low > streak->span) {
        tg__streak_begin(streak, value);
    }
    streak->n++;
}

#endif
