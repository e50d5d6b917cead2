/* Rows: items submitted together wait in one record. Nobody outside can tell, but for the memory. */
#include "failing.h"
#include "fixture.h"

#define MANY 100000

static void start_with_failing(struct fixture *f, struct failing *failing, int no_slabs)
{
    start_failing(failing);
    start_with(f, (struct tg_core_options){.allocator = &failing->allocator, .no_slabs = no_slabs});
}

/* From now on there is no memory. */
static void fail_from_now(struct failing *failing)
{
    failing->fail_at = failing->calls;
    failing->fail_after = true;
}

static void waiting_items_without_keys_cost_no_memory(void)
{
    struct fixture f;
    struct failing failing;
    start_with_failing(&f, &failing, 0);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1});
    struct tg_group *group = add_group(lane, (struct tg_group_options){0});
    int64_t before = failing.bytes;
    submit(&f, group, MANY, 0);
    CHECK_LE(failing.bytes - before, 65536); /* a slab */
    for (int i = 0; i < MANY; i++) {
        struct tg_item *item = must_next(&f);
        CHECK_EQ(item->position, i);
        succeed(&f, item);
    }
    CHECK(next_item(&f) == NULL);
    CHECK_LE(failing.bytes - before, 65536);
    CHECK_EQ(group_stats(group).outcomes[TG_OUTCOME_SUCCEEDED], MANY);
    finish(&f);
    CHECK_EQ(failing.bytes, 0);
}

static void items_of_rows_start_in_the_order_they_came_in(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1, .run_max = 7});
    struct tg_group *first = add_group(lane, (struct tg_group_options){.open = 1});
    struct tg_group *second;
    submit(&f, first, 10, 0);
    second = submit_group(&f, lane, 1);
    submit(&f, first, 5, 10);
    const struct tg_group *groups[16];
    uint64_t positions[16], due;
    size_t n = 0;
    while (n < 16) {
        struct tg_run *run;
        CHECK_OK(tg_core_claim(f.core, TG_KIND_SYNC, 0, 0, &run, &due));
        CHECK(run != NULL);
        struct tg_item *item, *decided[TG_RUN_MAX];
        while ((item = tg_run_take(run, f.now)) != NULL) {
            groups[n] = item->group;
            positions[n++] = item->position;
            tg_item_end(item, TG_VERDICT_OK, 0, f.now);
        }
        size_t n_decided;
        CHECK_OK(tg_core_finish(f.core, run, 0, decided, TG_RUN_MAX, &n_decided));
    }
    for (uint64_t i = 0; i < 16; i++) {
        CHECK_PTR(groups[i], i == 10 ? second : first);
        CHECK_EQ(positions[i], i == 10 ? 0 : i < 10 ? i : i - 1);
    }
    CHECK_OK(tg_group_seal(first));
    finish(&f);
}

static void each_item_of_a_row_has_its_own_time_in_line(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1});
    struct tg_group *group = submit_group(&f, lane, 3);
    for (uint64_t i = 0; i < 3; i++) {
        struct tg_item *item = must_next(&f);
        CHECK_EQ(item->queued_ns, i * SECOND);
        set_time(&f, f.now + SECOND);
        succeed(&f, item);
    }
    struct tg_group_stats stats = group_stats(group);
    CHECK_EQ(stats.sum_ns[TG_CLASS_QUEUED], 3 * SECOND);
    CHECK_EQ(stats.max_ns[TG_CLASS_QUEUED], 2 * SECOND);
    CHECK_EQ(stats.sum_ns[TG_CLASS_RUNNING], 3 * SECOND);
    finish(&f);
}

/* Every position from `first` on, once, with this outcome; none of it may need memory. */
static void settle_rest(struct fixture *f, uint64_t first, uint64_t end, enum tg_outcome outcome, enum tg_reason reason)
{
    CHECK_EQ(core_stats(f).settled_waiting, end - first);
    for (uint64_t position = first; position < end; position++) {
        struct tg_item *item = take_settled(f);
        CHECK(item != NULL);
        CHECK_EQ(item->position, position);
        CHECK_EQ(item->outcome, outcome);
        CHECK_EQ(item->reason, reason);
        settle(f, item);
    }
    CHECK(take_settled(f) == NULL);
}

static void a_row_is_cancelled_without_memory(void)
{
    for (int no_slabs = 0; no_slabs < 2; no_slabs++) {
        struct fixture f;
        struct failing failing;
        start_with_failing(&f, &failing, no_slabs);
        struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 2});
        struct tg_group *group = submit_group(&f, lane, MANY), *other = submit_group(&f, lane, 1);
        struct tg_item *running = must_next(&f);
        fail_from_now(&failing);
        uint64_t n;
        CHECK_OK(tg_group_cancel(group, &n));
        CHECK_EQ(n, MANY - 1);
        CHECK_EQ(lane_stats(lane).ready, 1);
        settle_rest(&f, 1, MANY, TG_OUTCOME_CANCELLED, TG_REASON_CANCELLED);
        CHECK(!tg_group_done(group));
        succeed(&f, running);
        CHECK(tg_group_done(group));
        CHECK_EQ(group_stats(group).outcomes[TG_OUTCOME_CANCELLED], MANY - 1);
        CHECK_EQ(group_stats(group).count[TG_CLASS_QUEUED], MANY);
        struct tg_item *item = must_next(&f);
        CHECK_PTR(item->group, other);
        succeed(&f, item);
        finish(&f);
        CHECK_EQ(failing.bytes, 0);
    }
}

static void a_row_whose_deadline_passes_times_out_as_a_whole(void)
{
    struct fixture f;
    start(&f);
    struct tg_retry retry = {.attempts = 1, .deadline_ns = SECOND};
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1, .retry = retry});
    submit_group(&f, lane, 5);
    struct tg_item *running = must_next(&f);
    set_time(&f, f.now + MS);
    submit_group(&f, lane, 3);
    set_time(&f, f.now + SECOND - MS);
    CHECK(next_item(&f) == NULL); /* the lane's timer finds the first row */
    settle_rest(&f, 1, 5, TG_OUTCOME_TIMED_OUT, TG_REASON_DEADLINE);
    set_time(&f, f.now + 2 * MS);
    succeed(&f, running);
    CHECK(next_item(&f) == NULL); /* before the timer, who would start it finds the second */
    settle_rest(&f, 0, 3, TG_OUTCOME_TIMED_OUT, TG_REASON_DEADLINE);
    CHECK_EQ(lane_stats(lane).expired, 7);
    finish(&f);
}

static void a_row_behind_an_open_breaker_is_refused_as_a_whole(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_BREAKER, .failure_ratio = 0.5,
                                                                     .min_calls = 2, .window_ns = SECOND,
                                                                     .open_ns = SECOND, .probes = 1, .refuse = 1});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1, .retry = {.attempts = 1}});
    CHECK_OK(tg_lane_attach(lane, limit));
    submit_group(&f, lane, 6);
    for (int i = 0; i < 2; i++) {
        fail_for_good(&f, must_next(&f), TG_VERDICT_FAIL_RETRYABLE);
    }
    CHECK(next_item(&f) == NULL);
    settle_rest(&f, 2, 6, TG_OUTCOME_FAILED, TG_REASON_BREAKER);
    CHECK_EQ(lane_stats(lane).refused_breaker, 4);
    finish(&f);
}

static void without_memory_the_rest_of_a_row_waits_and_is_tried_again(void)
{
    struct fixture f;
    struct failing failing;
    start_with_failing(&f, &failing, 1);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 10});
    submit_group(&f, lane, 3);
    struct tg_item *item = must_next(&f);
    fail_from_now(&failing);
    struct tg_item *none;
    size_t n;
    uint64_t due;
    CHECK_STATUS(tg_core_next(f.core, TG_KIND_SYNC, 0, &none, 1, &n, &due), TG_NOMEM);
    CHECK_EQ(n, 0);
    CHECK_GE(due, f.now + 1);
    CHECK_LE(due, f.now + SECOND);
    CHECK_EQ(lane_stats(lane).ready, 2);
    failing.fail_after = false;
    succeed(&f, item);
    succeed(&f, must_next(&f));
    succeed(&f, must_next(&f));
    finish(&f);
    CHECK_EQ(failing.bytes, 0);
}

static void without_memory_for_a_run_the_caller_is_told_when_to_come_again(void)
{
    struct fixture f;
    struct failing failing;
    start_with_failing(&f, &failing, 0);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 4});
    submit_group(&f, lane, 1);
    fail_from_now(&failing);
    struct tg_run *run;
    uint64_t due;
    CHECK_STATUS(tg_core_claim(f.core, TG_KIND_SYNC, 0, 0, &run, &due), TG_NOMEM);
    CHECK_LE(due, f.now + SECOND);
    failing.fail_after = false;
    failing.fail_at = 0;
    succeed(&f, must_next(&f));
    finish(&f);
}

static void what_is_in_hand_of_a_row_is_not_there_to_take(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 4});
    CHECK_OK(tg_group_cancel(submit_group(&f, lane, 3), NULL));
    for (int left = 2; left >= 0; left--) {
        CHECK(tg_core_has_settled(f.core));
        struct tg_item *item = take_settled(&f);
        CHECK(!tg_core_has_settled(f.core)); /* or who waits for it would not wait */
        CHECK(take_settled(&f) == NULL);
        CHECK_EQ(item->note, 0);
        CHECK_PTR(item->payload, NULL);
        item->note = 7; /* the binding's, of this item alone */
        item->payload = &f;
        settle(&f, item);
        CHECK_EQ(core_stats(&f).settled_waiting, left);
    }
    finish(&f);
}

static void destroy_drops_rows_that_wait_and_rows_that_have_ended(void)
{
    for (int no_slabs = 0; no_slabs < 2; no_slabs++) {
        struct fixture f;
        struct failing failing;
        start_with_failing(&f, &failing, no_slabs);
        struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1});
        struct tg_group *ended = submit_group(&f, lane, 100);
        submit_group(&f, lane, 100);
        CHECK_OK(tg_group_cancel(ended, NULL));
        struct tg_item *item = take_settled(&f);
        CHECK_STATUS(tg_core_destroy(f.core), TG_BUSY); /* somebody has one in hand */
        settle(&f, item);
        CHECK_OK(tg_core_destroy(f.core));
        CHECK_EQ(failing.bytes, 0);
    }
}

RUN(TEST(waiting_items_without_keys_cost_no_memory), TEST(items_of_rows_start_in_the_order_they_came_in),
    TEST(each_item_of_a_row_has_its_own_time_in_line), TEST(a_row_is_cancelled_without_memory),
    TEST(a_row_whose_deadline_passes_times_out_as_a_whole), TEST(a_row_behind_an_open_breaker_is_refused_as_a_whole),
    TEST(without_memory_the_rest_of_a_row_waits_and_is_tried_again),
    TEST(without_memory_for_a_run_the_caller_is_told_when_to_come_again),
    TEST(what_is_in_hand_of_a_row_is_not_there_to_take),
    TEST(destroy_drops_rows_that_wait_and_rows_that_have_ended))
