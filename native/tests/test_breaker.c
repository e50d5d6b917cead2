/* Circuit breaker: opens, probes, closes; waits or refuses; per lane and per key. */
#include "fixture.h"

static struct tg_limit_options breaker(int keyed, int refuse)
{
    return (struct tg_limit_options){.kind = TG_LIMIT_BREAKER, .keyed = keyed, .failure_ratio = 0.5, .min_calls = 4,
                                     .window_ns = 10 * SECOND, .open_ns = 5 * SECOND, .probes = 2, .refuse = refuse};
}

static void fail_some(struct fixture *f, int n)
{
    for (int i = 0; i < n; i++) {
        fail_for_good(f, must_next(f), TG_VERDICT_FAIL_RETRYABLE);
    }
}

static void it_opens_probes_and_closes(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(&f, breaker(0, 0));
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 10});
    CHECK_OK(tg_lane_attach(lane, limit));
    submit_group(&f, lane, 20);
    fail_some(&f, 3);
    CHECK_EQ(tg_limit_breaker_state(limit, 0), TG_BREAKER_CLOSED);
    fail_some(&f, 1);
    CHECK_EQ(tg_limit_breaker_state(limit, 0), TG_BREAKER_OPEN);
    CHECK(next_item(&f) == NULL);
    CHECK_EQ(when_due(&f), f.now + 5 * SECOND);
    set_time(&f, f.now + 5 * SECOND);
    struct tg_item *a = must_next(&f), *b = must_next(&f);
    CHECK(next_item(&f) == NULL); /* two probes, no more */
    CHECK_EQ(a->limited_ns, 5 * SECOND);
    succeed(&f, a);
    CHECK(next_item(&f) == NULL);
    succeed(&f, b);
    CHECK_EQ(tg_limit_breaker_state(limit, 0), TG_BREAKER_CLOSED);
    for (int i = 0; i < 14; i++) {
        succeed(&f, must_next(&f));
    }
    CHECK_EQ(limit_stats(limit).opened, 1);
    finish(&f);
}

static void a_failed_probe_opens_it_again(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(&f, breaker(0, 0));
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 10});
    CHECK_OK(tg_lane_attach(lane, limit));
    submit_group(&f, lane, 8);
    fail_some(&f, 4);
    set_time(&f, f.now + 5 * SECOND);
    struct tg_item *a = must_next(&f), *b = must_next(&f);
    fail_for_good(&f, a, TG_VERDICT_TIMED_OUT);
    CHECK_EQ(tg_limit_breaker_state(limit, 0), TG_BREAKER_OPEN);
    succeed(&f, b); /* tells of the past: it stays open */
    CHECK_EQ(tg_limit_breaker_state(limit, 0), TG_BREAKER_OPEN);
    CHECK(next_item(&f) == NULL);
    set_time(&f, when_due(&f));
    succeed(&f, must_next(&f));
    succeed(&f, must_next(&f));
    CHECK_EQ(limit_stats(limit).opened, 2);
    CHECK_EQ(limit_stats(limit).open_now, 0);
    finish(&f);
}

static void final_failures_do_not_count(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(&f, breaker(0, 0));
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1});
    CHECK_OK(tg_lane_attach(lane, limit));
    submit_group(&f, lane, 20);
    for (int i = 0; i < 20; i++) {
        fail_for_good(&f, must_next(&f), TG_VERDICT_FAIL_FINAL);
    }
    CHECK_EQ(tg_limit_breaker_state(limit, 0), TG_BREAKER_CLOSED);
    finish(&f);
}

static void old_failures_are_forgotten(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(&f, breaker(0, 0));
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1});
    CHECK_OK(tg_lane_attach(lane, limit));
    submit_group(&f, lane, 6);
    fail_some(&f, 3);
    set_time(&f, f.now + 11 * SECOND);
    fail_some(&f, 3);
    CHECK_EQ(tg_limit_breaker_state(limit, 0), TG_BREAKER_CLOSED);
    finish(&f);
}

static void a_refusing_breaker_fails_what_waits(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(&f, breaker(0, 1));
    struct tg_lane *lane = add_lane(
        &f, (struct tg_lane_options){.concurrency = 1, .retry = {.attempts = 5, .base_ns = SECOND, .factor = 1}});
    CHECK_OK(tg_lane_attach(lane, limit));
    submit_group(&f, lane, 10);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(end_item(&f, must_next(&f), TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_RETRY);
    }
    CHECK_EQ(fail_for_good(&f, must_next(&f), TG_VERDICT_FAIL_RETRYABLE), TG_REASON_BREAKER);
    CHECK(next_item(&f) == NULL);
    CHECK_EQ(settle_waiting(&f, TG_OUTCOME_FAILED), 6);
    set_time(&f, f.now + SECOND);
    CHECK(next_item(&f) == NULL);
    CHECK_EQ(settle_waiting(&f, TG_OUTCOME_FAILED), 3);
    CHECK_EQ(lane_stats(lane).refused_breaker, 10);
    CHECK_EQ(lane_stats(lane).outcomes[TG_OUTCOME_FAILED], 10);
    finish(&f);
}

static void keys_break_one_by_one(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(&f, breaker(1, 0));
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1});
    CHECK_OK(tg_lane_attach(lane, limit));
    struct tg_group *group = add_group(lane, (struct tg_group_options){.open = 1});
    for (uint64_t i = 0; i < 5; i++) {
        submit_key(&f, group, 1, i);
    }
    fail_some(&f, 4);
    submit_key(&f, group, 2, 5);
    struct tg_item *item = must_next(&f);
    CHECK_EQ(item->key, 2);
    succeed(&f, item);
    CHECK(next_item(&f) == NULL);
    CHECK_EQ(tg_limit_breaker_state(limit, 1), TG_BREAKER_OPEN);
    CHECK_EQ(tg_limit_breaker_state(limit, 2), TG_BREAKER_CLOSED);
    set_time(&f, when_due(&f));
    succeed(&f, must_next(&f));
    finish(&f);
}

RUN(TEST(it_opens_probes_and_closes), TEST(a_failed_probe_opens_it_again), TEST(final_failures_do_not_count),
    TEST(old_failures_are_forgotten), TEST(a_refusing_breaker_fails_what_waits), TEST(keys_break_one_by_one))
