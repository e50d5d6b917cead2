/* Sequential runs: one permit, adaptive length, stuck runs reclaimed, coroutines that leave. */
#include "fixture.h"

static struct tg_run *claim(struct fixture *f, uint32_t tag)
{
    struct tg_run *run;
    uint64_t due;
    CHECK_OK(tg_core_claim(f->core, TG_KIND_SYNC | TG_KIND_COROUTINE, tag, 0, &run, &due));
    return run;
}

/* Runs everything in the run, `each` ns per item. */
static size_t run_out(struct fixture *f, struct tg_run *run, uint64_t each)
{
    struct tg_item *item, *decided[TG_RUN_MAX];
    size_t n = 0, n_decided;
    while ((item = tg_run_take(run, f->now)) != NULL) {
        set_time(f, f->now + each);
        tg_item_end(item, TG_VERDICT_OK, 0, f->now);
        n++;
    }
    CHECK_OK(tg_core_finish(f->core, run, f->now, decided, TG_RUN_MAX, &n_decided));
    CHECK_EQ(n_decided, 0);
    return n;
}

static void the_length_of_runs_follows_the_run_time(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1});
    submit_group(&f, lane, 2000);
    CHECK_EQ(run_out(&f, claim(&f, 0), 100), 1); /* nothing known yet */
    CHECK_EQ(run_out(&f, claim(&f, 0), 100), TG_RUN_MAX);
    CHECK_EQ(run_out(&f, claim(&f, 0), 100000), TG_RUN_MAX); /* a surprise */
    size_t n = 0;
    for (int i = 0; i < 20; i++) {
        n = run_out(&f, claim(&f, 0), 100000);
    }
    CHECK_EQ(n, 10); /* 10 * 0.1 ms = 1 ms */
    for (int i = 0; i < 10; i++) {
        n = run_out(&f, claim(&f, 0), 5 * MS);
    }
    CHECK_EQ(n, 1);
    CHECK_OK(tg_core_close(f.core, 1));
    settle_waiting(&f, TG_OUTCOME_CANCELLED);
    finish(&f);
}

/* A lane that has learned that its items are short. */
static struct tg_lane *quick_lane(struct fixture *f, struct tg_lane_options options)
{
    struct tg_lane *lane = add_lane(f, options);
    submit_group(f, lane, 1);
    run_out(f, claim(f, 0), 100);
    return lane;
}

static void a_run_takes_one_permit(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = quick_lane(&f, (struct tg_lane_options){.concurrency = 2});
    submit_group(&f, lane, 600);
    struct tg_run *a = claim(&f, 1), *b = claim(&f, 2);
    CHECK_EQ(a->claimed, TG_RUN_MAX);
    CHECK(claim(&f, 3) == NULL);
    CHECK_EQ(lane_stats(lane).running, 2);
    CHECK_EQ(lane_stats(lane).claimed, 512);
    CHECK_EQ(run_out(&f, a, 10), TG_RUN_MAX);
    CHECK_EQ(run_out(&f, b, 10), TG_RUN_MAX);
    CHECK_EQ(run_out(&f, claim(&f, 1), 10), 88);
    CHECK_EQ(lane_stats(lane).outcomes[TG_OUTCOME_SUCCEEDED], 601);
    CHECK_EQ(lane_stats(lane).started, 601);
    finish(&f);
}

static void each_item_of_a_run_is_timed_alone(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = quick_lane(&f, (struct tg_lane_options){.concurrency = 1});
    struct tg_group *group = submit_group(&f, lane, 10);
    run_out(&f, claim(&f, 0), 100);
    struct tg_group_stats stats = group_stats(group);
    CHECK_EQ(stats.sum_ns[TG_CLASS_RUNNING], 1000);
    CHECK_EQ(stats.min_ns[TG_CLASS_RUNNING], 100);
    CHECK_EQ(stats.max_ns[TG_CLASS_RUNNING], 100);
    CHECK_EQ(stats.sum_ns[TG_CLASS_QUEUED], 100 * 45); /* 0 + 100 + ... + 900 */
    CHECK_EQ(stats.sum_ns[TG_CLASS_SETTLING], 100 * 45);
    finish(&f);
}

static void what_is_stuck_behind_a_blocking_item_is_run_by_others(void)
{
    struct fixture f;
    start_with(&f, (struct tg_core_options){.steal_after_ns = MS});
    struct tg_lane *lane = quick_lane(&f, (struct tg_lane_options){.concurrency = 2});
    struct tg_group *group = submit_group(&f, lane, 10);
    struct tg_run *a = claim(&f, 1);
    CHECK_EQ(a->claimed, 10);
    struct tg_item *item = NULL, *decided[TG_RUN_MAX];
    for (int i = 0; i < 4; i++) { /* three end, the fourth blocks */
        item = tg_run_take(a, f.now);
        CHECK_EQ(item->position, i);
        if (i < 3) {
            set_time(&f, f.now + 100);
            tg_item_end(item, i == 1 ? TG_VERDICT_FAIL_FINAL : TG_VERDICT_OK, 0, f.now);
        }
    }
    struct tg_run *b;
    uint64_t due;
    CHECK_OK(tg_core_claim(f.core, TG_KIND_SYNC, 2, 0, &b, &due));
    CHECK(b == NULL);
    CHECK_EQ(due, f.now + MS);
    set_time(&f, f.now + MS);
    b = claim(&f, 2);
    CHECK(b != NULL);
    CHECK_EQ(group_stats(group).settled, 2); /* those before the blocking item are finished too */
    CHECK_EQ(settle_waiting(&f, TG_OUTCOME_FAILED), 1);
    CHECK_EQ(lane_stats(lane).running, 2);
    struct tg_item *fifth = tg_run_take(b, f.now);
    CHECK_EQ(fifth->position, 4);
    tg_item_end(fifth, TG_VERDICT_OK, 0, f.now);
    CHECK(tg_run_take(a, f.now) == NULL); /* the owner finds nothing left */
    CHECK_EQ(run_out(&f, b, 10), 5);
    tg_item_end(item, TG_VERDICT_OK, 0, f.now);
    size_t n;
    CHECK_OK(tg_core_finish(f.core, a, f.now, decided, TG_RUN_MAX, &n));
    CHECK_EQ(n, 0);
    CHECK(tg_group_done(group));
    CHECK_EQ(lane_stats(lane).stolen, 1);
    finish(&f);
}

static void a_run_gives_back_what_it_did_not_take(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = quick_lane(&f, (struct tg_lane_options){.concurrency = 1});
    submit_group(&f, lane, 5);
    struct tg_run *run = claim(&f, 1);
    struct tg_item *item = tg_run_take(run, f.now), *decided[TG_RUN_MAX];
    tg_item_end(item, TG_VERDICT_FAIL_RETRYABLE, 0, f.now);
    size_t n;
    CHECK_OK(tg_core_finish(f.core, run, f.now, decided, TG_RUN_MAX, &n));
    CHECK_EQ(n, 1);
    CHECK_PTR(decided[0], item);
    CHECK_EQ(item->outcome, TG_OUTCOME_FAILED);
    settle(&f, item);
    run = claim(&f, 1);
    CHECK_EQ(run->claimed, 4);
    CHECK_EQ(run->items[0]->position, 1);
    run_out(&f, run, 1);
    finish(&f);
}

static void rates_and_keys_make_runs_of_one(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(
        &f, (struct tg_limit_options){.kind = TG_LIMIT_RATE, .count = 1000000, .period_ns = SECOND, .burst = 100});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 4});
    CHECK_OK(tg_lane_attach(lane, limit));
    submit_group(&f, lane, 50);
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(run_out(&f, claim(&f, 0), 0), 1);
    }
    CHECK_EQ(limit_stats(limit).granted, 50);
    finish(&f);
}

static void a_keyed_item_given_back_is_not_in_its_own_way(void)
{
    struct fixture f;
    start_with(&f, (struct tg_core_options){.steal_after_ns = MS});
    struct tg_limit *limit =
        add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .keyed = 1, .capacity = 1});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 4});
    CHECK_OK(tg_lane_attach(lane, limit));
    struct tg_group *group = add_group(lane, (struct tg_group_options){.open = 1});
    submit_key(&f, group, 9, 0);
    submit_key(&f, group, 9, 1);
    struct tg_run *run = claim(&f, 1);
    CHECK_EQ(limit_stats(limit).in_use, 1);
    set_time(&f, f.now + 10 * MS);
    CHECK(claim(&f, 2) == NULL); /* not begun is not stuck: its owner is on the way */
    struct tg_item *decided[TG_RUN_MAX];
    size_t n;
    CHECK_OK(tg_core_finish(f.core, run, 0, decided, TG_RUN_MAX, &n)); /* given up without a start */
    CHECK_EQ(limit_stats(limit).in_use, 0);
    for (uint64_t i = 0; i < 2; i++) {
        run = claim(&f, 1);
        CHECK_EQ(run->items[0]->position, i); /* it kept its place before the other one of its key */
        CHECK_EQ(limit_stats(limit).in_use, 1);
        CHECK_EQ(run_out(&f, run, 1), 1);
    }
    CHECK_EQ(limit_stats(limit).in_use, 0);
    CHECK_EQ(lane_stats(lane).started, 2);
    finish(&f);
}

/* A probe that was never made says nothing about the other side, and must not be the last one that is ever allowed. */
static void a_probe_given_back_is_made_by_another(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(
        &f, (struct tg_limit_options){.kind = TG_LIMIT_BREAKER, .keyed = 1, .failure_ratio = 0.5, .min_calls = 2,
                                      .window_ns = 10 * SECOND, .open_ns = SECOND, .probes = 1});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 4, .retry = {.attempts = 3, .base_ns = SECOND, .factor = 1}});
    CHECK_OK(tg_lane_attach(lane, limit));
    struct tg_group *group = add_group(lane, (struct tg_group_options){.open = 1});
    for (uint64_t i = 0; i < 2; i++) {
        submit_key(&f, group, 9, i);
        end_item(&f, must_next(&f), TG_VERDICT_FAIL_RETRYABLE, 0);
    }
    CHECK_EQ(tg_limit_breaker_state(limit, 9), TG_BREAKER_OPEN);
    set_time(&f, f.now + 2 * SECOND);
    struct tg_run *run = claim(&f, 1);
    CHECK(run != NULL);
    CHECK_EQ(tg_limit_breaker_state(limit, 9), TG_BREAKER_HALF_OPEN);
    CHECK(claim(&f, 2) == NULL); /* one probe at a time */
    struct tg_item *item = run->items[0], *decided[TG_RUN_MAX];
    size_t n;
    CHECK_OK(tg_core_finish(f.core, run, 0, decided, TG_RUN_MAX, &n)); /* given up without a start */
    CHECK_EQ(n, 0);
    CHECK_EQ(limit_stats(limit).in_use, 0);
    CHECK_EQ(item->attempts, 1);
    CHECK_EQ(tg_limit_breaker_state(limit, 9), TG_BREAKER_HALF_OPEN); /* neither closed nor opened by it */
    CHECK_EQ(run_out(&f, claim(&f, 1), 1), 1);
    CHECK_EQ(tg_limit_breaker_state(limit, 9), TG_BREAKER_CLOSED);
    CHECK_EQ(run_out(&f, claim(&f, 1), 1), 1);
    CHECK_EQ(lane_stats(lane).outcomes[TG_OUTCOME_SUCCEEDED], 2);
    finish(&f);
}

/* A thread that waits inside an item may take what it waits for, and nothing that may wait for it in turn. */
static void one_lane_can_be_claimed_from_alone(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1});
    struct tg_lane *other = add_lane(&f, (struct tg_lane_options){.concurrency = 1, .priority = 1});
    submit_group(&f, other, 1);
    struct tg_run *run, *theirs;
    size_t n;
    uint64_t due;
    CHECK_OK(tg_lane_finish_claim(lane, NULL, 1, 0, NULL, 0, &n, &run, &due));
    CHECK(run == NULL); /* there is work, elsewhere */
    submit_group(&f, lane, 2);
    CHECK_OK(tg_lane_finish_claim(lane, NULL, 1, 0, NULL, 0, &n, &run, &due));
    CHECK(run != NULL && run->lane == lane);
    CHECK_OK(tg_lane_finish_claim(lane, NULL, 2, 0, NULL, 0, &n, &theirs, &due));
    CHECK(theirs == NULL); /* its permit is taken */
    struct tg_item *item, *decided[TG_RUN_MAX];
    while ((item = tg_run_take(run, f.now)) != NULL) {
        tg_item_end(item, TG_VERDICT_OK, 0, f.now);
    }
    CHECK_OK(tg_lane_finish_claim(lane, run, 1, f.now, decided, TG_RUN_MAX, &n, &run, &due));
    CHECK(run != NULL && run->lane == lane);
    CHECK_EQ(run_out(&f, run, 1), 1);
    CHECK_EQ(run_out(&f, claim(&f, 1), 1), 1); /* the other lane's */
    finish(&f);
}

static void a_shared_permit_is_taken_once_per_run(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .capacity = 1});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 4});
    CHECK_OK(tg_lane_attach(lane, limit));
    submit_group(&f, lane, 1);
    run_out(&f, claim(&f, 0), 100);
    submit_group(&f, lane, 300);
    struct tg_run *run = claim(&f, 1);
    CHECK_EQ(run->claimed, TG_RUN_MAX);
    CHECK(claim(&f, 2) == NULL);
    CHECK_EQ(limit_stats(limit).in_use, 1);
    run_out(&f, run, 1);
    run_out(&f, claim(&f, 1), 1);
    CHECK_EQ(limit_stats(limit).in_use, 0);
    CHECK_EQ(limit_stats(limit).granted, 301);
    finish(&f);
}

static void a_suspended_coroutine_leaves_with_the_permit(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.kind = TG_KIND_COROUTINE, .concurrency = 3, .timeout_ns = SECOND});
    struct tg_group *group = submit_group(&f, lane, 6);
    struct tg_run *run = claim(&f, 1);
    CHECK_EQ(run->claimed, 6);
    struct tg_item *suspended[3], *item;
    for (int i = 0; i < 3; i++) {
        suspended[i] = tg_run_take(run, f.now);
        CHECK_EQ(suspended[i]->position, i);
        CHECK_OK(tg_core_detach(f.core, run, suspended[i]));
    }
    CHECK_STATUS(tg_core_detach(f.core, run, suspended[0]), TG_INVALID);
    CHECK(tg_run_take(run, f.now) == NULL); /* all permits are in use */
    CHECK_EQ(lane_stats(lane).running, 3);
    struct tg_item *decided[TG_RUN_MAX];
    size_t n;
    CHECK_OK(tg_core_finish(f.core, run, f.now, decided, TG_RUN_MAX, &n));
    CHECK(claim(&f, 1) == NULL);
    struct tg_overdue overdue[4];
    uint64_t next;
    set_time(&f, f.now + SECOND);
    CHECK_OK(tg_core_overdue(f.core, 0, overdue, 4, &n, &next));
    CHECK_EQ(n, 3);
    succeed(&f, suspended[1]);
    run = claim(&f, 1);
    CHECK_EQ(run->claimed, 3);
    item = tg_run_take(run, f.now); /* this one never suspends */
    CHECK_EQ(item->position, 3);
    tg_item_end(item, TG_VERDICT_OK, 0, f.now);
    CHECK_EQ(run_out(&f, run, 0), 2);
    succeed(&f, suspended[0]);
    succeed(&f, suspended[2]);
    CHECK(tg_group_done(group));
    CHECK_EQ(lane_stats(lane).peak_running, 3);
    finish(&f);
}

static void a_blocked_run_is_reported_as_overdue_once(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = quick_lane(&f, (struct tg_lane_options){.concurrency = 1, .timeout_ns = SECOND});
    submit_group(&f, lane, 2);
    struct tg_run *run = claim(&f, 77);
    struct tg_overdue overdue[4];
    size_t n;
    uint64_t next;
    struct tg_item *item = tg_run_take(run, f.now);
    CHECK_OK(tg_core_overdue(f.core, 0, overdue, 4, &n, &next));
    CHECK_EQ(n, 0);
    CHECK_EQ(next, f.now + SECOND);
    set_time(&f, f.now + SECOND);
    CHECK_OK(tg_core_overdue(f.core, 0, overdue, 4, &n, &next));
    CHECK_EQ(n, 1);
    CHECK_PTR(overdue[0].item, item);
    CHECK_PTR(overdue[0].run, run);
    CHECK_EQ(overdue[0].tag, 77);
    CHECK_OK(tg_core_overdue(f.core, 0, overdue, 4, &n, &next));
    CHECK_EQ(n, 0);
    tg_item_end(item, TG_VERDICT_TIMED_OUT, 0, f.now);
    item = tg_run_take(run, f.now);
    set_time(&f, f.now + SECOND);
    CHECK_OK(tg_core_overdue(f.core, 0, overdue, 4, &n, &next));
    CHECK_EQ(n, 1); /* the next item of the same run */
    tg_item_end(item, TG_VERDICT_OK, 0, f.now);
    struct tg_item *decided[TG_RUN_MAX];
    CHECK_OK(tg_core_finish(f.core, run, 0, decided, TG_RUN_MAX, &n));
    CHECK_EQ(n, 1);
    settle(&f, decided[0]);
    finish(&f);
}

static void cancel_reaches_items_claimed_and_not_begun(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = quick_lane(&f, (struct tg_lane_options){.concurrency = 1});
    struct tg_group *a = submit_group(&f, lane, 3), *b = submit_group(&f, lane, 3);
    struct tg_run *run = claim(&f, 1);
    CHECK_EQ(run->claimed, 6);
    struct tg_item *item = tg_run_take(run, f.now);
    uint64_t n;
    CHECK_OK(tg_group_cancel(a, &n));
    CHECK_EQ(n, 2);
    CHECK(tg_run_take(run, f.now) == NULL);
    tg_item_end(item, TG_VERDICT_OK, 0, f.now);
    CHECK_EQ(run_out(&f, run, 0), 0);
    CHECK_EQ(settle_waiting(&f, TG_OUTCOME_CANCELLED), 2);
    CHECK_EQ(run_out(&f, claim(&f, 1), 0), 3);
    CHECK(tg_group_done(a) && tg_group_done(b));
    finish(&f);
}

static void the_next_claim_can_come_with_the_finish(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = quick_lane(&f, (struct tg_lane_options){.concurrency = 1, .run_max = 4});
    submit_group(&f, lane, 10);
    struct tg_run *run = claim(&f, 1), *next;
    struct tg_item *item, *decided[TG_RUN_MAX];
    size_t total = 0, n;
    uint64_t due;
    while (run != NULL) {
        while ((item = tg_run_take(run, f.now)) != NULL) {
            tg_item_end(item, TG_VERDICT_OK, 0, f.now);
            total++;
        }
        CHECK_OK(tg_core_finish_claim(f.core, run, TG_KIND_SYNC, 1, f.now, decided, TG_RUN_MAX, &n, &next, &due));
        run = next;
    }
    CHECK_EQ(total, 10);
    CHECK_EQ(due, TG_NEVER);
    finish(&f);
}

RUN(TEST(the_length_of_runs_follows_the_run_time), TEST(a_run_takes_one_permit), TEST(each_item_of_a_run_is_timed_alone),
    TEST(what_is_stuck_behind_a_blocking_item_is_run_by_others), TEST(a_run_gives_back_what_it_did_not_take),
    TEST(rates_and_keys_make_runs_of_one), TEST(a_keyed_item_given_back_is_not_in_its_own_way), TEST(a_shared_permit_is_taken_once_per_run),
    TEST(a_suspended_coroutine_leaves_with_the_permit), TEST(a_blocked_run_is_reported_as_overdue_once),
    TEST(a_probe_given_back_is_made_by_another), TEST(one_lane_can_be_claimed_from_alone),
    TEST(cancel_reaches_items_claimed_and_not_begun), TEST(the_next_claim_can_come_with_the_finish))
