/* Memory: slabs are reused and counted, records are small, and every allocation may fail without harm. */
#include "failing.h"
#include "fixture.h"

static void slabs_are_reused_and_given_back(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 10000});
    static struct tg_item *items[3000];
    for (int round = 0; round < 5; round++) {
        struct tg_group *group = submit_group(&f, lane, 3000);
        for (int i = 0; i < 3000; i++) {
            items[i] = must_next(&f);
        }
        for (int i = 0; i < 3000; i++) {
            succeed(&f, items[i]);
        }
        CHECK_OK(tg_group_destroy(group));
    }
    struct tg_core_stats stats = core_stats(&f);
    CHECK_EQ(stats.items_peak, 3000);
    CHECK_EQ(stats.item_allocations, 15000);
    CHECK_EQ(stats.item_reuses, 12000);
    CHECK_LE(stats.item_bytes, 128);
    CHECK_LE(stats.slab_bytes, 3000 * 128 + 2 * 65536);
    CHECK_EQ(tg_core_trim(f.core), stats.slabs);
    CHECK_EQ(core_stats(&f).slabs, 0);
    finish(&f);
}

static void a_waiting_item_with_a_key_costs_its_record_and_no_more(void)
{
    struct fixture f;
    struct failing failing;
    start_failing(&failing);
    start_with(&f, (struct tg_core_options){.allocator = &failing.allocator});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1});
    struct tg_limit_options options = {.kind = TG_LIMIT_CONCURRENCY, .keyed = 1, .capacity = 1};
    CHECK_OK(tg_lane_attach(lane, add_limit(&f, options)));
    struct tg_group *group = add_group(lane, (struct tg_group_options){.open = 1});
    static uint64_t keys[100000];
    int64_t before = failing.bytes;
    size_t accepted;
    CHECK_OK(tg_core_submit(f.core, group, 100000, NULL, keys, 0, 0, &accepted));
    CHECK_EQ(accepted, 100000);
    CHECK_LE((failing.bytes - before) / 100000, 128);
    CHECK_OK(tg_core_destroy(f.core));
    CHECK_EQ(failing.bytes, 0);
}

static void without_slabs_every_item_is_an_allocation(void)
{
    struct fixture f;
    struct failing failing;
    start_failing(&failing);
    start_with(&f, (struct tg_core_options){.allocator = &failing.allocator, .no_slabs = 1});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1});
    uint64_t before = failing.calls;
    struct tg_group *group = submit_group(&f, lane, 50);
    for (int i = 0; i < 50; i++) {
        succeed(&f, must_next(&f));
    }
    CHECK_GE(failing.calls - before, 50);
    CHECK_EQ(core_stats(&f).slabs, 0);
    CHECK_OK(tg_group_destroy(group));
    finish(&f);
    CHECK_EQ(failing.bytes, 0);
}

static bool ok_or_nomem(tg_status status)
{
    CHECK(status == TG_OK || status == TG_NOMEM);
    return status == TG_OK;
}

/* Runs what was accepted, with retries, runs and keys; allocation failures only slow it down. */
static void run_scene(struct tg_core *core, uint64_t *now, uint64_t accepted)
{
    uint64_t ended = 0;
    for (int patience = 0; ended < accepted; patience++) {
        CHECK(patience < 10000);
        struct tg_run *run;
        struct tg_item *decided[TG_RUN_MAX], *item;
        size_t n = 0;
        uint64_t due;
        tg_status status = tg_core_claim(core, TG_KIND_SYNC, 0, 0, &run, &due);
        CHECK(status == TG_OK || status == TG_NOMEM);
        if (run == NULL) {
            *now += 1000000;
            continue;
        }
        while ((item = tg_run_take(run, *now)) != NULL) {
            bool fail = item->attempts == 1 && item->position % 2 == 0;
            tg_item_end(item, fail ? TG_VERDICT_FAIL_RETRYABLE : TG_VERDICT_OK, 0, ++*now);
            ended += !fail;
        }
        CHECK_OK(tg_core_finish(core, run, *now, decided, TG_RUN_MAX, &n));
        CHECK_EQ(n, 0);
    }
}

/* Everything that allocates, once, with a failure wherever `failing` puts it. */
static void scene(struct failing *failing, int no_slabs)
{
    uint64_t now = 1000, accepted_total = 0, keys[40];
    struct tg_clock clock = tg_clock_manual(&now);
    struct tg_core_options options = {.allocator = &failing->allocator, .clock = &clock, .no_slabs = no_slabs};
    struct tg_core *core;
    struct tg_lane *lane;
    struct tg_limit *limits[2];
    struct tg_group *group;
    if (!ok_or_nomem(tg_core_create(&options, &core))) {
        return;
    }
    struct tg_lane_options lane_options = {.kind = TG_KIND_SYNC, .concurrency = 3,
                                           .retry = {.attempts = 3, .base_ns = 1000, .deadline_ns = 1000000000000}};
    struct tg_limit_options keyed = {.kind = TG_LIMIT_CONCURRENCY, .keyed = 1, .capacity = 1};
    bool ok = ok_or_nomem(tg_lane_create(core, &lane_options, &lane));
    for (int i = 0; ok && i < 2; i++) {
        ok = ok_or_nomem(tg_limit_create(core, &keyed, &limits[i])) && ok_or_nomem(tg_lane_attach(lane, limits[i]));
    }
    ok = ok && ok_or_nomem(tg_group_create(lane, &(struct tg_group_options){.open = 1, .histograms = 1}, &group));
    for (size_t i = 0; i < 40; i++) {
        keys[i] = i % 7;
    }
    if (ok) {
        size_t accepted;
        for (int i = 0; i < 5; i++) {
            ok_or_nomem(tg_core_submit(core, group, 20, NULL, keys, accepted_total, 0, &accepted));
            accepted_total += accepted;
        }
        run_scene(core, &now, accepted_total);
    }
    CHECK_OK(tg_core_destroy(core));
}

static void every_single_allocation_may_fail(void)
{
    struct failing failing;
    for (int no_slabs = 0; no_slabs < 2; no_slabs++) {
        start_failing(&failing);
        scene(&failing, no_slabs);
        uint64_t calls = failing.calls;
        CHECK(calls > 10);
        CHECK_EQ(failing.bytes, 0);
        for (uint64_t at = 1; at <= calls; at++) {
            start_failing(&failing);
            failing.fail_at = at;
            scene(&failing, no_slabs);
            CHECK_EQ(failing.bytes, 0);
        }
    }
}

static void a_heap_without_memory_still_retries_in_time(void)
{
    struct fixture f;
    struct failing failing;
    start_failing(&failing);
    start_with(&f, (struct tg_core_options){.allocator = &failing.allocator});
    struct tg_lane *lane = add_lane(
        &f, (struct tg_lane_options){.concurrency = 1000, .retry = {.attempts = 2, .base_ns = SECOND}});
    submit_group(&f, lane, 200);
    struct tg_item *items[200];
    for (int i = 0; i < 200; i++) {
        items[i] = must_next(&f);
    }
    failing.fail_at = failing.calls;
    failing.fail_after = true;
    for (int i = 0; i < 200; i++) {
        CHECK_EQ(end_item(&f, items[i], TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_RETRY);
    }
    CHECK_EQ(core_stats(&f).timers, 200);
    CHECK_EQ(when_due(&f), f.now + SECOND);
    set_time(&f, f.now + SECOND);
    for (int i = 0; i < 200; i++) {
        succeed(&f, must_next(&f));
    }
    finish(&f);
    CHECK_EQ(failing.bytes, 0);
}

RUN(TEST(slabs_are_reused_and_given_back), TEST(a_waiting_item_with_a_key_costs_its_record_and_no_more),
    TEST(without_slabs_every_item_is_an_allocation), TEST(every_single_allocation_may_fail),
    TEST(a_heap_without_memory_still_retries_in_time))
