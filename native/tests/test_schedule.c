/* The plain life of items: order, permits, room, groups, timeouts, fork. */
#include <sys/wait.h>
#include <unistd.h>

#include "fixture.h"

static void items_start_in_order_of_arrival(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 3});
    struct tg_group *group = submit_group(&f, lane, 10);
    for (uint64_t i = 0; i < 10; i++) {
        struct tg_item *item = must_next(&f);
        CHECK_EQ(item->position, i);
        CHECK_EQ(item->attempts, 1);
        succeed(&f, item);
    }
    CHECK(tg_group_done(group));
    CHECK_OK(tg_group_destroy(group));
    finish(&f);
}

static void a_lane_runs_no_more_than_its_concurrency(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 2});
    struct tg_group *group = submit_group(&f, lane, 4);
    struct tg_item *a = must_next(&f), *b = must_next(&f);
    CHECK(next_item(&f) == NULL);
    CHECK_OK(tg_lane_set_concurrency(lane, 3));
    struct tg_item *c = must_next(&f);
    CHECK(next_item(&f) == NULL);
    CHECK_OK(tg_lane_set_concurrency(lane, 1));
    succeed(&f, a);
    succeed(&f, b);
    CHECK(next_item(&f) == NULL);
    succeed(&f, c);
    succeed(&f, must_next(&f));
    CHECK_EQ(lane_stats(lane).peak_running, 3);
    CHECK_OK(tg_group_destroy(group));
    finish(&f);
}

static void a_full_lane_says_how_many_it_took(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.capacity = 5, .concurrency = 10});
    struct tg_group *group = add_group(lane, (struct tg_group_options){.open = 1});
    size_t accepted;
    CHECK_STATUS(tg_core_submit(f.core, group, 8, NULL, NULL, 0, 0, &accepted), TG_FULL);
    CHECK_EQ(accepted, 5);
    CHECK_EQ(tg_core_room(f.core, lane), 0);
    /* Running items count: the bound is on memory. */
    struct tg_item *item = must_next(&f);
    CHECK_EQ(tg_core_room(f.core, lane), 0);
    succeed(&f, item);
    CHECK_EQ(tg_core_room(f.core, lane), 1);
    CHECK_STATUS(tg_core_submit(f.core, group, 3, NULL, NULL, 5, 0, &accepted), TG_FULL);
    CHECK_EQ(accepted, 1);
    for (uint64_t i = 1; i < 6; i++) {
        item = must_next(&f);
        CHECK_EQ(item->position, i);
        succeed(&f, item);
    }
    CHECK(!tg_group_done(group));
    CHECK_OK(tg_group_seal(group));
    CHECK(tg_group_done(group));
    CHECK_EQ(lane_stats(lane).refused_full, 5);
    finish(&f);
}

static void done_groups_are_announced_once(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1});
    struct tg_group *a = submit_group(&f, lane, 1), *b = submit_group(&f, lane, 1), *got;
    CHECK_OK(tg_core_take_done(f.core, &got));
    CHECK(got == NULL);
    CHECK_STATUS(tg_group_destroy(a), TG_BUSY);
    succeed(&f, must_next(&f));
    CHECK(tg_core_has_done(f.core));
    succeed(&f, must_next(&f));
    CHECK_OK(tg_core_take_done(f.core, &got));
    CHECK_PTR(got, a);
    CHECK_OK(tg_group_destroy(b)); /* not yet taken: it leaves the list */
    CHECK_OK(tg_core_take_done(f.core, &got));
    CHECK(got == NULL);
    CHECK_STATUS(tg_lane_destroy(lane), TG_BUSY);
    CHECK_OK(tg_group_destroy(a));
    CHECK_OK(tg_lane_destroy(lane));
    finish(&f);
}

static void a_returned_item_keeps_its_place(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1});
    submit_group(&f, lane, 2);
    struct tg_item *item = must_next(&f);
    CHECK_OK(tg_core_return(f.core, item, 0));
    item = must_next(&f);
    CHECK_EQ(item->position, 0);
    CHECK_EQ(item->attempts, 1);
    succeed(&f, item);
    succeed(&f, must_next(&f));
    finish(&f);
}

static void a_paused_lane_starts_nothing(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1});
    submit_group(&f, lane, 1);
    CHECK_OK(tg_lane_set_paused(lane, 1));
    CHECK(next_item(&f) == NULL);
    CHECK_OK(tg_lane_set_paused(lane, 0));
    succeed(&f, must_next(&f));
    finish(&f);
}

static void overdue_attempts_are_reported_once_in_order(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 4, .timeout_ns = 10 * MS});
    submit_group(&f, lane, 3);
    struct tg_item *items[3];
    struct tg_overdue overdue[4];
    size_t n;
    uint64_t next, began = f.now;
    for (uint64_t i = 0; i < 3; i++) {
        set_time(&f, began + i * MS);
        items[i] = must_next(&f);
    }
    CHECK_OK(tg_core_overdue(f.core, 0, overdue, 4, &n, &next));
    CHECK_EQ(n, 0);
    CHECK_EQ(next, began + 10 * MS);
    set_time(&f, began + 11 * MS);
    CHECK_OK(tg_core_overdue(f.core, 0, overdue, 4, &n, &next));
    CHECK_EQ(n, 2);
    CHECK_PTR(overdue[0].item, items[0]);
    CHECK_EQ(overdue[1].start_ns, began + MS);
    CHECK_EQ(next, began + 12 * MS);
    CHECK_OK(tg_core_overdue(f.core, 0, overdue, 4, &n, &next));
    CHECK_EQ(n, 0);
    CHECK_EQ(fail_for_good(&f, items[0], TG_VERDICT_TIMED_OUT), TG_REASON_FINAL);
    succeed(&f, items[1]);
    succeed(&f, items[2]);
    CHECK_EQ(lane_stats(lane).outcomes[TG_OUTCOME_TIMED_OUT], 1);
    finish(&f);
}

static void a_closed_core_takes_nothing_and_finishes_the_rest(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1});
    struct tg_group *group = add_group(lane, (struct tg_group_options){.open = 1});
    submit(&f, group, 3, 0);
    struct tg_item *running = must_next(&f);
    size_t accepted;
    CHECK_OK(tg_core_close(f.core, 0));
    CHECK_STATUS(tg_core_check(f.core), TG_CLOSED);
    CHECK_STATUS(tg_core_submit(f.core, group, 1, NULL, NULL, 3, 0, &accepted), TG_CLOSED);
    CHECK_EQ(accepted, 0);
    succeed(&f, running);
    running = must_next(&f);
    CHECK_OK(tg_core_close(f.core, 1));
    CHECK_EQ(settle_waiting(&f, TG_OUTCOME_CANCELLED), 1);
    CHECK_STATUS(tg_core_destroy(f.core), TG_BUSY);
    succeed(&f, running);
    CHECK_STATUS(tg_core_wait(f.core, TG_KIND_SYNC, TG_NEVER), TG_CLOSED);
    finish(&f);
}

static void a_forked_child_is_told_so(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1});
    struct tg_group *group = submit_group(&f, lane, 1);
    pid_t child = fork();
    if (child == 0) {
        size_t n;
        uint64_t due;
        struct tg_item *item;
        int ok = tg_core_next(f.core, TG_KIND_SYNC, 0, &item, 1, &n, &due) == TG_FORKED && n == 0 &&
                 tg_core_check(f.core) == TG_FORKED && tg_core_destroy(f.core) == TG_FORKED &&
                 tg_group_wait(group, TG_NEVER) == TG_FORKED && tg_core_room(f.core, lane) == 0;
        _exit(ok ? 0 : 1);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    succeed(&f, must_next(&f));
    finish(&f);
}

static void bad_options_are_refused(void)
{
    struct fixture f;
    struct tg_lane *lane;
    struct tg_limit *limit;
    start(&f);
    CHECK_STATUS(tg_lane_create(f.core, &(struct tg_lane_options){.kind = 3}, &lane), TG_INVALID);
    CHECK_STATUS(tg_lane_create(f.core, &(struct tg_lane_options){.kind = TG_KIND_SYNC, .priority = 8}, &lane), TG_INVALID);
    CHECK_STATUS(tg_limit_create(f.core, &(struct tg_limit_options){.kind = TG_LIMIT_RATE}, &limit), TG_INVALID);
    CHECK_STATUS(tg_limit_create(f.core, &(struct tg_limit_options){.kind = 9}, &limit), TG_INVALID);
    CHECK_STATUS(tg_limit_create(f.core, &(struct tg_limit_options){.kind = TG_LIMIT_BREAKER}, &limit), TG_INVALID);
    lane = add_lane(&f, (struct tg_lane_options){0});
    limit = add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .capacity = 1});
    CHECK_OK(tg_lane_attach(lane, limit));
    CHECK_STATUS(tg_lane_attach(lane, limit), TG_INVALID);
    CHECK_STATUS(tg_limit_destroy(limit), TG_BUSY);
    CHECK_OK(tg_lane_destroy(lane));
    CHECK_OK(tg_limit_destroy(limit));
    finish(&f);
}

RUN(TEST(items_start_in_order_of_arrival), TEST(a_lane_runs_no_more_than_its_concurrency),
    TEST(a_full_lane_says_how_many_it_took), TEST(done_groups_are_announced_once),
    TEST(a_returned_item_keeps_its_place), TEST(a_paused_lane_starts_nothing),
    TEST(overdue_attempts_are_reported_once_in_order), TEST(a_closed_core_takes_nothing_and_finishes_the_rest),
    TEST(a_forked_child_is_told_so), TEST(bad_options_are_refused))
