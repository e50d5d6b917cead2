/* Histograms: the stated error holds, merging equals recording together, deltas equal what came between. */
#include <math.h>
#include <stdbool.h>

#include "check.h"
#include "random.h"
#include "tidegate/histogram.h"

static struct tg_histogram *make(void)
{
    struct tg_histogram *h;
    CHECK_OK(tg_histogram_create(NULL, &h));
    return h;
}

static uint64_t any_value(struct tg__random *random)
{
    return tg__random_next(random) >> tg__random_upto(random, 63);
}

static void buckets_tile_all_values_without_gap(void)
{
    for (uint32_t i = 0; i + 1 < TG_HISTOGRAM_BUCKETS; i++) {
        CHECK_EQ(tg_histogram_high(i) + 1, tg_histogram_low(i + 1));
        CHECK_EQ(tg_histogram_index(tg_histogram_low(i)), i);
        CHECK_EQ(tg_histogram_index(tg_histogram_high(i)), i);
    }
    CHECK_EQ(tg_histogram_high(TG_HISTOGRAM_BUCKETS - 1), UINT64_MAX);
}

static void every_value_is_reported_within_one_percent(void)
{
    struct tg__random random;
    tg__random_seed(&random, 1);
    for (int i = 0; i < 200000; i++) {
        uint64_t value = any_value(&random);
        uint64_t reported = tg_histogram_value(tg_histogram_index(value));
        double error = fabs((double)reported - (double)value);
        CHECK_DOUBLE_LE(error, TG_HISTOGRAM_MAX_ERROR * (double)value);
    }
}

static void coarse_buckets_follow_the_documented_formula(void)
{
    struct tg__random random;
    tg__random_seed(&random, 2);
    for (int i = 0; i < 200000; i++) {
        uint64_t ns = i < 4096 ? (uint64_t)i : any_value(&random);
        uint32_t index = (uint32_t)ns;
        if (ns >= 16) {
            uint32_t e = 63 - (uint32_t)__builtin_clzll(ns);
            index = (e - 3) * 16 + (uint32_t)((ns >> (e - 4)) - 16);
        }
        CHECK_EQ(tg_coarse_index(ns), index);
        double error = fabs((double)tg_coarse_value(index) - (double)ns);
        CHECK_DOUBLE_LE(error, 0.032 * (double)ns);
    }
    CHECK_EQ(tg_coarse_index(UINT64_MAX), TG_COARSE_BUCKETS - 1);
}

static void quantiles_are_those_of_the_sorted_values(void)
{
    enum { N = 5000 };
    static uint64_t values[N];
    struct tg_histogram *h = make();
    struct tg__random random;
    tg__random_seed(&random, 3);
    for (int i = 0; i < N; i++) {
        values[i] = 1000 + tg__random_upto(&random, 10000000);
        tg_histogram_record(h, values[i]);
    }
    for (int i = 1; i < N; i++) {
        for (int j = i; j > 0 && values[j - 1] > values[j]; j--) {
            uint64_t t = values[j];
            values[j] = values[j - 1];
            values[j - 1] = t;
        }
    }
    for (double q = 0.01; q < 1; q += 0.01) {
        uint64_t exact = values[(int)ceil(q * N) - 1];
        CHECK_DOUBLE_LE(fabs((double)tg_histogram_quantile(h, q) - (double)exact), 0.01 * (double)exact);
    }
    CHECK_EQ(tg_histogram_quantile(h, 0), values[0]);
    CHECK_EQ(tg_histogram_quantile(h, 1), values[N - 1]);
    CHECK_EQ(tg_histogram_quantile(h, NAN), values[0]);
    tg_histogram_destroy(NULL, h);
}

static bool same(const struct tg_histogram *a, const struct tg_histogram *b)
{
    return a->count == b->count && a->sum == b->sum && memcmp(a->buckets, b->buckets, sizeof a->buckets) == 0;
}

static void merging_equals_recording_together(void)
{
    struct tg_histogram *a = make(), *b = make(), *both = make();
    struct tg__random random;
    tg__random_seed(&random, 4);
    for (int i = 0; i < 10000; i++) {
        uint64_t value = any_value(&random) >> 20;
        tg_histogram_record(i % 3 ? a : b, value);
        tg_histogram_record(both, value);
    }
    tg_histogram_merge(a, b);
    CHECK(same(a, both));
    CHECK_EQ(a->min, both->min);
    CHECK_EQ(a->max, both->max);
    tg_histogram_destroy(NULL, a);
    tg_histogram_destroy(NULL, b);
    tg_histogram_destroy(NULL, both);
}

static void a_delta_holds_what_came_between(void)
{
    struct tg_histogram *now = make(), *before = make(), *between = make(), *delta = make();
    struct tg__random random;
    tg__random_seed(&random, 5);
    for (int i = 0; i < 2000; i++) {
        tg_histogram_record(now, any_value(&random) >> 10);
    }
    tg_histogram_copy(before, now);
    for (int i = 0; i < 2000; i++) {
        uint64_t value = any_value(&random) >> 10;
        tg_histogram_record(now, value);
        tg_histogram_record(between, value);
    }
    CHECK_OK(tg_histogram_delta(now, before, delta));
    CHECK(same(delta, between));
    CHECK_LE(delta->min, between->min);
    CHECK_GE(delta->max, between->max);
    CHECK_STATUS(tg_histogram_delta(before, now, delta), TG_MISMATCH);
    CHECK_EQ(delta->count, 0);
    CHECK_OK(tg_histogram_delta(now, now, delta));
    CHECK_EQ(delta->count, 0);
    tg_histogram_destroy(NULL, now);
    tg_histogram_destroy(NULL, before);
    tg_histogram_destroy(NULL, between);
    tg_histogram_destroy(NULL, delta);
}

static void a_reset_histogram_is_as_new(void)
{
    struct tg_histogram *used = make(), *new = make();
    tg_histogram_record_many(used, UINT64_MAX, 3);
    tg_histogram_record(used, 0);
    CHECK_EQ(used->sum, UINT64_MAX);
    tg_histogram_reset(used);
    CHECK(memcmp(used, new, sizeof *used) == 0);
    CHECK_EQ(tg_histogram_quantile(used, 0.5), 0);
    CHECK_EQ((uint64_t)tg_histogram_mean(used), 0);
    tg_histogram_destroy(NULL, used);
    tg_histogram_destroy(NULL, new);
}

RUN(TEST(buckets_tile_all_values_without_gap), TEST(every_value_is_reported_within_one_percent),
    TEST(coarse_buckets_follow_the_documented_formula), TEST(quantiles_are_those_of_the_sorted_values),
    TEST(merging_equals_recording_together), TEST(a_delta_holds_what_came_between), TEST(a_reset_histogram_is_as_new))
