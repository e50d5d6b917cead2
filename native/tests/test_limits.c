/* Rates, supplied slots, pauses: exact over any window, and no permit is held by those who wait. */
#include "fixture.h"
#include "random.h"

enum { STARTS = 3000 };
static uint64_t starts[STARTS];

/* In every window that begins at a start: at most burst + floor(length / interval). */
static void check_windows(size_t n, uint64_t interval, uint32_t burst)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = i; j < n; j++) {
            uint64_t length = starts[j] - starts[i];
            CHECK_LE(j - i + 1, burst + length / interval);
        }
    }
}

static void a_rate_is_exact_over_every_window(void)
{
    struct tg__random random;
    tg__random_seed(&random, 11);
    for (uint32_t burst = 1; burst <= 50; burst += 7) {
        struct fixture f;
        start(&f);
        struct tg_limit *limit = add_limit(&f, (struct tg_limit_options){
                                                   .kind = TG_LIMIT_RATE, .count = 7, .period_ns = SECOND, .burst = burst});
        uint64_t interval = SECOND / 7 + 1;
        struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1000000});
        CHECK_OK(tg_lane_attach(lane, limit));
        size_t n = 0, wanted = 400;
        struct tg_group *group = submit_group(&f, lane, wanted);
        while (n < wanted) {
            struct tg_item *item = next_item(&f);
            if (item != NULL) {
                starts[n++] = f.now;
                succeed(&f, item);
                continue;
            }
            uint64_t due = when_due(&f);
            CHECK(due > f.now);
            /* Sometimes on time, sometimes late, sometimes after a long idle time. */
            uint64_t late = tg__random_upto(&random, 9) == 0 ? tg__random_upto(&random, 20 * SECOND) : 0;
            set_time(&f, due + late);
        }
        check_windows(n, interval, burst);
        CHECK_EQ(limit_stats(limit).granted, wanted);
        CHECK_OK(tg_group_destroy(group));
        finish(&f);
    }
}

static void a_rate_gives_all_it_promises(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(
        &f, (struct tg_limit_options){.kind = TG_LIMIT_RATE, .count = 100, .period_ns = SECOND, .burst = 10});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1000});
    CHECK_OK(tg_lane_attach(lane, limit));
    submit_group(&f, lane, 210);
    uint64_t began = f.now;
    for (int n = 0; n < 210;) {
        struct tg_item *item = next_item(&f);
        if (item == NULL) {
            set_time(&f, when_due(&f));
            continue;
        }
        succeed(&f, item);
        n++;
    }
    /* 10 at once, then one every 10 ms. */
    CHECK_EQ(f.now - began, 200 * 10 * MS);
    finish(&f);
}

static void a_changed_rate_counts_from_now(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit =
        add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_RATE, .count = 1, .period_ns = 3600 * SECOND, .burst = 1});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 10});
    CHECK_OK(tg_lane_attach(lane, limit));
    submit_group(&f, lane, 2);
    succeed(&f, must_next(&f));
    CHECK(next_item(&f) == NULL);
    CHECK_EQ(tg_limit_demand(limit), 1);
    CHECK_EQ(when_due(&f), f.now + 3600 * SECOND);
    CHECK_OK(tg_limit_set_rate(limit, 1000, SECOND, 1));
    set_time(&f, f.now + 3600 * SECOND);
    succeed(&f, must_next(&f));
    CHECK_STATUS(tg_limit_set_rate(limit, 0, SECOND, 1), TG_INVALID);
    finish(&f);
}

static void supplied_slots_start_items_in_their_time_only(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_SUPPLIED});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 100});
    CHECK_OK(tg_lane_attach(lane, limit));
    submit_group(&f, lane, 10);
    CHECK(next_item(&f) == NULL);
    CHECK_EQ(tg_limit_demand(limit), 10);
    CHECK_EQ(when_due(&f), TG_NEVER);
    uint64_t t = f.now + 10 * MS;
    CHECK_OK(tg_limit_offer(limit, t, MS, 5, 2 * MS));
    CHECK_EQ(when_due(&f), t);
    set_time(&f, t);
    succeed(&f, must_next(&f)); /* slot 0 */
    CHECK(next_item(&f) == NULL);
    set_time(&f, t + 3 * MS); /* slots 1, 2, 3 may be used (1 just so) */
    for (int i = 0; i < 3; i++) {
        succeed(&f, must_next(&f));
    }
    CHECK(next_item(&f) == NULL);
    set_time(&f, t + 6 * MS + 1); /* slot 4 is over */
    CHECK(next_item(&f) == NULL);
    struct tg_limit_stats stats = limit_stats(limit);
    CHECK_EQ(stats.discarded, 1);
    CHECK_EQ(stats.available, 0);
    CHECK_EQ(stats.granted, 4);
    CHECK_OK(tg_limit_offer(limit, f.now, 0, 1000, 0)); /* all at once */
    for (int i = 0; i < 6; i++) {
        succeed(&f, must_next(&f));
    }
    finish(&f);
}

static void too_many_offers_are_refused(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_SUPPLIED});
    for (int i = 0; i < TG_OFFERS; i++) {
        CHECK_OK(tg_limit_offer(limit, f.now, MS, 10, MS));
    }
    CHECK_STATUS(tg_limit_offer(limit, f.now, MS, 10, MS), TG_FULL);
    set_time(&f, f.now + SECOND);
    CHECK_OK(tg_limit_offer(limit, f.now, MS, 10, MS));
    CHECK_EQ(limit_stats(limit).discarded, 10 * TG_OFFERS);
    finish(&f);
}

static void a_pause_holds_and_ends(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .capacity = 5});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 5});
    CHECK_OK(tg_lane_attach(lane, limit));
    submit_group(&f, lane, 3);
    uint64_t until = f.now + SECOND;
    CHECK_OK(tg_limit_pause_until(limit, until));
    CHECK_OK(tg_limit_pause_until(limit, until - 10)); /* shorter: ignored */
    CHECK(next_item(&f) == NULL);
    CHECK_EQ(when_due(&f), until);
    set_time(&f, until);
    succeed(&f, must_next(&f));
    CHECK_OK(tg_limit_pause_until(limit, f.now + SECOND));
    CHECK(next_item(&f) == NULL);
    CHECK_OK(tg_limit_pause_until(limit, 0));
    succeed(&f, must_next(&f));
    succeed(&f, must_next(&f));
    finish(&f);
}

static void who_waits_for_a_rate_holds_no_permit(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *shared = add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .capacity = 1});
    struct tg_limit *rate = add_limit(
        &f, (struct tg_limit_options){.kind = TG_LIMIT_RATE, .count = 1, .period_ns = SECOND, .burst = 1});
    struct tg_lane *slow = add_lane(&f, (struct tg_lane_options){.concurrency = 5, .priority = 5});
    struct tg_lane *free_lane = add_lane(&f, (struct tg_lane_options){.concurrency = 5});
    CHECK_OK(tg_lane_attach(slow, shared));
    CHECK_OK(tg_lane_attach(slow, rate));
    CHECK_OK(tg_lane_attach(free_lane, shared));
    submit_group(&f, slow, 2);
    submit_group(&f, free_lane, 3);
    succeed(&f, must_next(&f));
    for (int i = 0; i < 3; i++) {
        struct tg_item *item = must_next(&f);
        CHECK_PTR(tg_group_lane(item->group), free_lane);
        succeed(&f, item);
    }
    CHECK(next_item(&f) == NULL);
    CHECK_EQ(limit_stats(shared).in_use, 0);
    set_time(&f, when_due(&f));
    succeed(&f, must_next(&f));
    finish(&f);
}

static void capacity_changes_take_effect_at_once(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .capacity = 0});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 10});
    CHECK_OK(tg_lane_attach(lane, limit));
    submit_group(&f, lane, 4);
    CHECK(next_item(&f) == NULL);
    CHECK_OK(tg_limit_set_capacity(limit, 2));
    struct tg_item *a = must_next(&f), *b = must_next(&f);
    CHECK(next_item(&f) == NULL);
    CHECK_OK(tg_limit_set_capacity(limit, 1));
    succeed(&f, a);
    CHECK(next_item(&f) == NULL);
    succeed(&f, b);
    succeed(&f, must_next(&f));
    succeed(&f, must_next(&f));
    CHECK_EQ(limit_stats(limit).peak_in_use, 2);
    finish(&f);
}

RUN(TEST(a_rate_is_exact_over_every_window), TEST(a_rate_gives_all_it_promises), TEST(a_changed_rate_counts_from_now),
    TEST(supplied_slots_start_items_in_their_time_only), TEST(too_many_offers_are_refused), TEST(a_pause_holds_and_ends),
    TEST(who_waits_for_a_rate_holds_no_permit), TEST(capacity_changes_take_effect_at_once))
