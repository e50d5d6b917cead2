/* Retries as data: schedules per kind of jitter, caps, deadlines, Retry-After, budget, deferral; each refusal counted. */
#include "fixture.h"
#include "internal.h"

static struct tg_lane *retry_lane(struct fixture *f, struct tg_retry retry)
{
    return add_lane(f, (struct tg_lane_options){.concurrency = 10, .retry = retry});
}

static void without_jitter_the_schedule_is_exact(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane =
        retry_lane(&f, (struct tg_retry){.attempts = 6, .base_ns = 100 * MS, .factor = 3, .cap_ns = 2 * SECOND});
    submit_group(&f, lane, 1);
    uint64_t delays[] = {100 * MS, 300 * MS, 900 * MS, 2 * SECOND, 2 * SECOND};
    for (int i = 0; i < 5; i++) {
        struct tg_item *item = must_next(&f);
        CHECK_EQ(item->attempts, i + 1);
        CHECK_EQ(end_item(&f, item, TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_RETRY);
        CHECK_EQ(when_due(&f), f.now + delays[i]);
        set_time(&f, f.now + delays[i] - 1);
        CHECK(next_item(&f) == NULL);
        set_time(&f, f.now + 1);
    }
    struct tg_item *item = must_next(&f);
    CHECK_EQ(item->backoff_ns, 100 * MS + 300 * MS + 900 * MS + 4 * SECOND);
    CHECK_EQ(fail_for_good(&f, item, TG_VERDICT_FAIL_RETRYABLE), TG_REASON_ATTEMPTS);
    struct tg_lane_stats stats = lane_stats(lane);
    CHECK_EQ(stats.retried, 5);
    CHECK_EQ(stats.refused_attempts, 1);
    CHECK_EQ(stats.attempts_failed, 6);
    CHECK_EQ(stats.started, 6);
    finish(&f);
}

static void jitter_stays_in_its_range_and_fills_it(void)
{
    struct tg__random random;
    tg__random_seed(&random, 9);
    struct tg_retry retry = {.attempts = 9, .base_ns = 1000, .factor = 2, .cap_ns = 50000};
    const uint64_t plain[] = {1000, 2000, 4000, 8000, 16000, 32000, 50000, 50000};
    for (int kind = TG_JITTER_FULL; kind <= TG_JITTER_EQUAL; kind++) {
        retry.jitter = (enum tg_jitter)kind;
        for (uint32_t attempt = 1; attempt <= 8; attempt++) {
            uint64_t d = plain[attempt - 1], low = UINT64_MAX, high = 0, sum = 0;
            for (int i = 0; i < 4000; i++) {
                uint64_t delay = tg__backoff(&retry, &random, attempt, 0);
                low = delay < low ? delay : low;
                high = delay > high ? delay : high;
                sum += delay;
            }
            uint64_t floor = kind == TG_JITTER_FULL ? 0 : d - d / 2, mean = (floor + d) / 2;
            CHECK_GE(low, floor);
            CHECK_LE(high, d);
            CHECK_LE(low, floor + d / 50);
            CHECK_GE(high, d - d / 50);
            CHECK_LE(sum / 4000, mean + mean / 20);
            CHECK_GE(sum / 4000, mean - mean / 20);
        }
    }
}

static void decorrelated_jitter_grows_from_the_last_delay(void)
{
    struct tg__random random;
    tg__random_seed(&random, 10);
    struct tg_retry retry = {.attempts = 99, .base_ns = 1000, .cap_ns = 100000, .jitter = TG_JITTER_DECORRELATED};
    uint64_t previous = 0;
    for (uint32_t i = 1; i < 5000; i++) {
        uint64_t delay = tg__backoff(&retry, &random, i, previous);
        uint64_t top = previous * 3 > 1000 ? previous * 3 : 1000;
        CHECK_GE(delay, 1000);
        CHECK_LE(delay, top < 100000 ? top : 100000);
        previous = delay;
    }
}

static void huge_figures_do_not_overflow(void)
{
    struct tg__random random;
    tg__random_seed(&random, 12);
    struct tg_retry retry = {.attempts = 65535, .base_ns = UINT64_MAX / 4, .factor = 1e8};
    for (uint32_t attempt = 1; attempt < 65535; attempt += 999) {
        CHECK_LE(tg__backoff(&retry, &random, attempt, UINT64_MAX), UINT64_MAX / 4);
    }
    CHECK(tg__retry_valid(&retry));
    retry.factor = -1;
    CHECK(!tg__retry_valid(&retry));
}

static void the_same_seed_gives_the_same_schedule(void)
{
    uint64_t dues[2][20];
    for (int run = 0; run < 2; run++) {
        struct fixture f;
        start(&f);
        struct tg_lane *lane =
            retry_lane(&f, (struct tg_retry){.attempts = 2, .base_ns = SECOND, .jitter = TG_JITTER_FULL});
        submit_group(&f, lane, 20);
        for (int i = 0; i < 20; i++) {
            struct tg_item *item = must_next(&f);
            CHECK_EQ(end_item(&f, item, TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_RETRY);
            dues[run][i] = when_due(&f);
        }
        CHECK_OK(tg_core_destroy(f.core)); /* waiting items are dropped */
    }
    CHECK(memcmp(dues[0], dues[1], sizeof dues[0]) == 0);
}

static void retry_after_is_the_least_delay(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = retry_lane(&f, (struct tg_retry){.attempts = 4, .base_ns = SECOND, .factor = 1});
    submit_group(&f, lane, 1);
    CHECK_EQ(end_item(&f, must_next(&f), TG_VERDICT_FAIL_RETRYABLE, 7 * SECOND), TG_DECISION_RETRY);
    CHECK_EQ(when_due(&f), f.now + 7 * SECOND);
    set_time(&f, when_due(&f));
    CHECK_EQ(end_item(&f, must_next(&f), TG_VERDICT_FAIL_RETRYABLE, MS), TG_DECISION_RETRY);
    CHECK_EQ(when_due(&f), f.now + SECOND);
    set_time(&f, when_due(&f));
    CHECK_EQ(end_item(&f, must_next(&f), TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_RETRY);
    CHECK_EQ(when_due(&f), f.now + SECOND);
    set_time(&f, when_due(&f));
    succeed(&f, must_next(&f));
    finish(&f);
}

static void no_attempt_starts_after_the_deadline(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1,
                                                                 .retry = {.attempts = 99, .base_ns = SECOND, .factor = 1,
                                                                           .deadline_ns = 10 * SECOND}});
    uint64_t began = f.now;
    submit_group(&f, lane, 3);
    struct tg_item *item = must_next(&f);
    set_time(&f, began + 9 * SECOND);
    CHECK_EQ(fail_for_good(&f, item, TG_VERDICT_FAIL_RETRYABLE), TG_REASON_DEADLINE);
    item = must_next(&f);
    set_time(&f, began + 10 * SECOND);
    CHECK(next_item(&f) == NULL);
    succeed(&f, item); /* what runs may end well */
    uint64_t due = when_due(&f);
    CHECK(due == TG_NEVER || due > f.now);
    CHECK_EQ(settle_waiting(&f, TG_OUTCOME_TIMED_OUT), 1);
    CHECK_EQ(lane_stats(lane).refused_deadline, 1);
    CHECK_EQ(lane_stats(lane).expired, 1);
    finish(&f);
}

static void waiting_items_time_out_without_being_asked_for(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane =
        add_lane(&f, (struct tg_lane_options){.concurrency = 1, .retry = {.deadline_ns = 64 * SECOND}});
    struct tg_group *group = add_group(lane, (struct tg_group_options){.open = 1});
    uint64_t began = f.now;
    for (uint64_t i = 0; i < 10; i++) {
        set_time(&f, began + i * SECOND);
        submit(&f, group, 1, i);
    }
    for (uint64_t i = 0; i < 10; i++) {
        uint64_t due = when_due(&f);
        CHECK_GE(due, began + (64 + i) * SECOND);
        CHECK_LE(due, began + (65 + i) * SECOND + 1); /* at most 1/64 late */
        set_time(&f, due);
        when_due(&f);
        CHECK_GE(settle_waiting(&f, TG_OUTCOME_TIMED_OUT), 1);
        if (core_stats(&f).items_live == 0) {
            break;
        }
    }
    CHECK_EQ(lane_stats(lane).expired, 10);
    finish(&f);
}

static void timeouts_are_retried_when_the_policy_says_so(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *no = retry_lane(&f, (struct tg_retry){.attempts = 2});
    struct tg_lane *yes = retry_lane(&f, (struct tg_retry){.attempts = 2, .retry_timeouts = 1});
    submit_group(&f, no, 1);
    CHECK_EQ(fail_for_good(&f, must_next(&f), TG_VERDICT_TIMED_OUT), TG_REASON_FINAL);
    submit_group(&f, yes, 1);
    CHECK_EQ(end_item(&f, must_next(&f), TG_VERDICT_TIMED_OUT, 0), TG_DECISION_RETRY);
    CHECK_EQ(fail_for_good(&f, must_next(&f), TG_VERDICT_TIMED_OUT), TG_REASON_ATTEMPTS);
    CHECK_EQ(lane_stats(yes).outcomes[TG_OUTCOME_TIMED_OUT], 1);
    CHECK_EQ(lane_stats(yes).attempts_timed_out, 2);
    finish(&f);
}

static void the_budget_bounds_retries(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = retry_lane(
        &f, (struct tg_retry){.attempts = 2, .base_ns = 1000 * SECOND, .budget_ratio = 0.1, .budget_cap = 3,
                              .budget_floor_per_s = 1});
    submit_group(&f, lane, 100);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(end_item(&f, must_next(&f), TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_RETRY);
    }
    CHECK_EQ(fail_for_good(&f, must_next(&f), TG_VERDICT_FAIL_RETRYABLE), TG_REASON_BUDGET);
    for (int i = 0; i < 10; i++) {
        succeed(&f, must_next(&f));
    }
    CHECK_EQ(end_item(&f, must_next(&f), TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_RETRY); /* ten successes: one */
    CHECK_EQ(fail_for_good(&f, must_next(&f), TG_VERDICT_FAIL_RETRYABLE), TG_REASON_BUDGET);
    set_time(&f, f.now + 2 * SECOND);
    CHECK_EQ(end_item(&f, must_next(&f), TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_RETRY); /* the floor */
    CHECK_EQ(end_item(&f, must_next(&f), TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_RETRY);
    CHECK_EQ(fail_for_good(&f, must_next(&f), TG_VERDICT_FAIL_RETRYABLE), TG_REASON_BUDGET);
    CHECK_EQ(lane_stats(lane).refused_budget, 3);
    CHECK_OK(tg_core_destroy(f.core));
}

static void long_waits_are_deferred(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = retry_lane(&f, (struct tg_retry){.attempts = 5, .base_ns = SECOND, .factor = 10});
    struct tg_group *group = add_group(lane, (struct tg_group_options){.max_wait_ns = 5 * SECOND});
    submit(&f, group, 1, 7);
    CHECK_EQ(end_item(&f, must_next(&f), TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_RETRY);
    set_time(&f, when_due(&f));
    struct tg_item *item = must_next(&f);
    CHECK_EQ(end_item(&f, item, TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_SETTLE);
    CHECK_EQ(item->outcome, TG_OUTCOME_DEFERRED);
    CHECK_EQ(item->due_ns, f.now + 10 * SECOND);
    CHECK_EQ(item->attempts, 2);
    settle(&f, item);
    CHECK(tg_group_done(group));
    CHECK_EQ(group_stats(group).outcomes[TG_OUTCOME_DEFERRED], 1);
    finish(&f);
}

static void equal_due_times_fire_in_order_of_arrival(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(
        &f, (struct tg_lane_options){.concurrency = 100, .retry = {.attempts = 2, .base_ns = SECOND}});
    submit_group(&f, lane, 100);
    struct tg_item *items[100];
    for (int i = 0; i < 100; i++) {
        items[i] = must_next(&f);
    }
    uint64_t order[100];
    for (uint64_t i = 0; i < 100; i++) {
        size_t which = (size_t)(i * 37 % 100);
        order[i] = items[which]->position;
        CHECK_EQ(end_item(&f, items[which], TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_RETRY);
    }
    set_time(&f, f.now + SECOND);
    for (int i = 0; i < 100; i++) {
        struct tg_item *item = must_next(&f);
        CHECK_EQ(item->position, order[i]);
        succeed(&f, item);
    }
    finish(&f);
}

RUN(TEST(without_jitter_the_schedule_is_exact), TEST(jitter_stays_in_its_range_and_fills_it),
    TEST(decorrelated_jitter_grows_from_the_last_delay), TEST(huge_figures_do_not_overflow),
    TEST(the_same_seed_gives_the_same_schedule), TEST(retry_after_is_the_least_delay),
    TEST(no_attempt_starts_after_the_deadline), TEST(waiting_items_time_out_without_being_asked_for),
    TEST(timeouts_are_retried_when_the_policy_says_so), TEST(the_budget_bounds_retries), TEST(long_waits_are_deferred),
    TEST(equal_due_times_fire_in_order_of_arrival))
