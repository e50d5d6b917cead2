/* Cancel and drain find every waiting item, wherever it waits, and nobody else's. */
#include "fixture.h"

struct places {
    struct fixture f;
    struct tg_lane *lane;
    struct tg_group *group, *other;
    struct tg_item *running, *other_running;
};

/* Items of `group` in line, in a key's line, in backoff, and running; `other` has the same. */
static void spread(struct places *p)
{
    start(&p->f);
    struct tg_limit *limit =
        add_limit(&p->f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .keyed = 1, .capacity = 1});
    p->lane = add_lane(&p->f, (struct tg_lane_options){.concurrency = 2, .retry = {.attempts = 3, .base_ns = SECOND}});
    CHECK_OK(tg_lane_attach(p->lane, limit));
    p->group = add_group(p->lane, (struct tg_group_options){.open = 1});
    p->other = add_group(p->lane, (struct tg_group_options){.open = 1});
    submit_key(&p->f, p->group, 1, 0);
    submit_key(&p->f, p->other, 2, 0);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(end_item(&p->f, must_next(&p->f), TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_RETRY); /* in backoff */
    }
    submit_key(&p->f, p->group, 3, 1);
    p->running = must_next(&p->f);
    submit_key(&p->f, p->group, 3, 2); /* will wait for key 3 */
    submit_key(&p->f, p->other, 3, 1); /* the same */
    submit_key(&p->f, p->other, 4, 2);
    p->other_running = must_next(&p->f);
    submit_key(&p->f, p->group, 5, 3); /* in line: no permits left */
    submit_key(&p->f, p->other, 6, 3);
    struct tg_lane_stats stats = lane_stats(p->lane);
    CHECK_EQ(stats.backing_off, 2);
    CHECK_EQ(stats.limited, 2);
    CHECK_EQ(stats.ready, 2);
    CHECK_EQ(stats.running, 2);
}

static void finish_other(struct places *p)
{
    succeed(&p->f, p->other_running);
    set_time(&p->f, p->f.now + SECOND);
    for (int i = 0; i < 3; i++) {
        struct tg_item *item = must_next(&p->f);
        CHECK_PTR(item->group, p->other);
        succeed(&p->f, item);
    }
    CHECK(next_item(&p->f) == NULL);
    CHECK_EQ(group_stats(p->other).outcomes[TG_OUTCOME_SUCCEEDED], 4);
    finish(&p->f);
}

static void cancel_ends_all_that_waits_and_lists_what_runs(void)
{
    struct places p;
    spread(&p);
    uint64_t n;
    CHECK_OK(tg_group_cancel(p.group, &n));
    CHECK_EQ(n, 3);
    CHECK_EQ(settle_waiting(&p.f, TG_OUTCOME_CANCELLED), 3);
    struct tg_item *items[4];
    size_t total, accepted;
    CHECK_OK(tg_group_running(p.group, items, 4, &total));
    CHECK_EQ(total, 1);
    CHECK_PTR(items[0], p.running);
    CHECK_STATUS(tg_core_submit(p.f.core, p.group, 1, NULL, &(uint64_t){1}, 9, 0, &accepted), TG_CLOSED);
    /* A retry of a cancelled group is not made. */
    CHECK_EQ(fail_for_good(&p.f, p.running, TG_VERDICT_FAIL_RETRYABLE), TG_REASON_CANCELLED);
    CHECK_EQ(group_stats(p.group).settled, 4);
    finish_other(&p);
}

static void drain_returns_what_has_not_started(void)
{
    struct places p;
    spread(&p);
    uint64_t n;
    CHECK_OK(tg_group_drain(p.group, &n));
    CHECK_EQ(n, 3);
    uint64_t attempts = 0;
    struct tg_item *item;
    while ((item = take_settled(&p.f)) != NULL) {
        CHECK_EQ(item->outcome, TG_OUTCOME_RETURNED);
        attempts += item->attempts;
        if (item->attempts == 1) {
            CHECK_EQ(item->due_ns, p.f.now + SECOND); /* it was in backoff */
        }
        settle(&p.f, item);
    }
    CHECK_EQ(attempts, 1);
    CHECK_EQ(end_item(&p.f, p.running, TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_SETTLE);
    CHECK_EQ(p.running->outcome, TG_OUTCOME_RETURNED);
    settle(&p.f, p.running);
    finish_other(&p);
}

static void close_with_cancel_ends_everything_that_waits(void)
{
    struct places p;
    spread(&p);
    CHECK_OK(tg_core_close(p.f.core, 1));
    CHECK_EQ(settle_waiting(&p.f, TG_OUTCOME_CANCELLED), 6);
    CHECK_EQ(fail_for_good(&p.f, p.running, TG_VERDICT_FAIL_RETRYABLE), TG_REASON_CLOSED);
    succeed(&p.f, p.other_running);
    finish(&p.f);
}

static void destroy_drops_what_waits(void)
{
    struct places p;
    spread(&p);
    CHECK_STATUS(tg_core_destroy(p.f.core), TG_BUSY);
    succeed(&p.f, p.running);
    succeed(&p.f, p.other_running);
    CHECK_OK(tg_core_destroy(p.f.core));
}

static void cancelled_attempts_are_counted_as_such(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1, .retry = {.attempts = 3}});
    submit_group(&f, lane, 2);
    CHECK_EQ(fail_for_good(&f, must_next(&f), TG_VERDICT_CANCELLED), TG_REASON_CANCELLED);
    CHECK_EQ(fail_for_good(&f, must_next(&f), TG_VERDICT_CRASHED), TG_REASON_FINAL);
    struct tg_lane_stats stats = lane_stats(lane);
    CHECK_EQ(stats.outcomes[TG_OUTCOME_CANCELLED], 1);
    CHECK_EQ(stats.outcomes[TG_OUTCOME_CRASHED], 1);
    CHECK_EQ(stats.attempts_cancelled, 1);
    CHECK_EQ(stats.attempts_crashed, 1);
    finish(&f);
}

RUN(TEST(cancel_ends_all_that_waits_and_lists_what_runs), TEST(drain_returns_what_has_not_started),
    TEST(close_with_cancel_ends_everything_that_waits), TEST(destroy_drops_what_waits),
    TEST(cancelled_attempts_are_counted_as_such))
