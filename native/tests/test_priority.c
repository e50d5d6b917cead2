/* Between lanes: higher priorities first, turns within one, and kinds kept apart. */
#include "fixture.h"

static struct tg_lane *lane_with(struct fixture *f, uint32_t priority, uint32_t weight, size_t items)
{
    struct tg_lane *lane =
        add_lane(f, (struct tg_lane_options){.concurrency = 100, .priority = priority, .weight = weight});
    submit_group(f, lane, items);
    return lane;
}

static struct tg_lane *run_one(struct fixture *f)
{
    struct tg_item *item = must_next(f);
    struct tg_lane *lane = tg_group_lane(item->group);
    succeed(f, item);
    return lane;
}

static void a_higher_priority_always_goes_first(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *low = lane_with(&f, 0, 1, 5), *high = lane_with(&f, 7, 1, 3);
    for (int i = 0; i < 2; i++) {
        CHECK_PTR(run_one(&f), high);
    }
    struct tg_lane *middle = lane_with(&f, 3, 1, 1);
    CHECK_PTR(run_one(&f), high);
    CHECK_PTR(run_one(&f), middle);
    for (int i = 0; i < 5; i++) {
        CHECK_PTR(run_one(&f), low);
    }
    finish(&f);
}

static void lanes_of_one_priority_take_turns(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *a = lane_with(&f, 2, 1, 4), *b = lane_with(&f, 2, 1, 4), *c = lane_with(&f, 2, 1, 4);
    for (int i = 0; i < 4; i++) {
        CHECK_PTR(run_one(&f), a);
        CHECK_PTR(run_one(&f), b);
        CHECK_PTR(run_one(&f), c);
    }
    finish(&f);
}

static void a_weight_is_turns_in_a_row(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *a = lane_with(&f, 2, 3, 6), *b = lane_with(&f, 2, 1, 2);
    for (int i = 0; i < 2; i++) {
        CHECK_PTR(run_one(&f), a);
        CHECK_PTR(run_one(&f), a);
        CHECK_PTR(run_one(&f), a);
        CHECK_PTR(run_one(&f), b);
    }
    finish(&f);
}

static void kinds_do_not_take_each_others_items(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *coroutines = add_lane(&f, (struct tg_lane_options){.kind = TG_KIND_COROUTINE, .priority = 7});
    submit_group(&f, coroutines, 1);
    struct tg_lane *threads = lane_with(&f, 0, 1, 1);
    struct tg_item *item;
    size_t n;
    uint64_t due;
    CHECK_OK(tg_core_next(f.core, TG_KIND_SYNC, 0, &item, 1, &n, &due));
    CHECK_EQ(n, 1);
    CHECK_PTR(tg_group_lane(item->group), threads);
    succeed(&f, item);
    CHECK_OK(tg_core_next(f.core, TG_KIND_SYNC, 0, &item, 1, &n, &due));
    CHECK_EQ(n, 0);
    CHECK_PTR(run_one(&f), coroutines);
    finish(&f);
}

static void a_shared_permit_goes_to_the_highest_lane_that_waits(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .capacity = 1});
    struct tg_lane *lanes[3];
    for (uint32_t i = 0; i < 3; i++) {
        lanes[i] = add_lane(&f, (struct tg_lane_options){.concurrency = 9, .priority = i});
        CHECK_OK(tg_lane_attach(lanes[i], limit));
        submit_group(&f, lanes[i], 2);
    }
    uint32_t order[6] = {2, 2, 1, 1, 0, 0};
    for (int i = 0; i < 6; i++) {
        struct tg_item *item = must_next(&f);
        CHECK_PTR(tg_group_lane(item->group), lanes[order[i]]);
        CHECK(next_item(&f) == NULL);
        succeed(&f, item);
    }
    finish(&f);
}

static void lanes_of_one_priority_share_a_permit_fairly(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .capacity = 1});
    struct tg_lane *lanes[3];
    for (uint32_t i = 0; i < 3; i++) {
        lanes[i] = add_lane(&f, (struct tg_lane_options){.concurrency = 9});
        CHECK_OK(tg_lane_attach(lanes[i], limit));
        submit_group(&f, lanes[i], 10);
    }
    int counts[3] = {0};
    for (int i = 0; i < 30; i++) {
        struct tg_item *item = must_next(&f);
        CHECK(next_item(&f) == NULL);
        for (int k = 0; k < 3; k++) {
            counts[k] += tg_group_lane(item->group) == lanes[k];
        }
        succeed(&f, item);
        int least = counts[0], most = counts[0];
        for (int k = 1; k < 3; k++) {
            least = counts[k] < least ? counts[k] : least;
            most = counts[k] > most ? counts[k] : most;
        }
        CHECK_LE(most - least, 1);
    }
    finish(&f);
}

RUN(TEST(a_higher_priority_always_goes_first), TEST(lanes_of_one_priority_take_turns), TEST(a_weight_is_turns_in_a_row),
    TEST(kinds_do_not_take_each_others_items), TEST(a_shared_permit_goes_to_the_highest_lane_that_waits),
    TEST(lanes_of_one_priority_share_a_permit_fairly))
