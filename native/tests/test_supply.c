/* Keyed limits whose permits come from outside: nothing starts that was not supplied, the supplier hears of every key that
 * moved and of no other, and a key that is over is forgotten. */
#include "fixture.h"
#include "random.h"

static struct tg_limit *supplied_concurrency(struct fixture *f)
{
    return add_limit(f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .keyed = 1, .watched = 1});
}

static struct tg_group *one_lane(struct fixture *f, struct tg_limit *limit)
{
    struct tg_lane *lane = add_lane(f, (struct tg_lane_options){.concurrency = 1000});
    CHECK_OK(tg_lane_attach(lane, limit));
    return add_group(lane, (struct tg_group_options){.open = 1});
}

static void permit(struct tg_limit *limit, uint64_t key, uint32_t permits)
{
    CHECK_OK(tg_limit_set_key_permits(limit, &(struct tg_key_permits){key, permits}, 1));
}

static size_t news(struct tg_limit *limit, struct tg_key_news *out, size_t max)
{
    size_t n;
    CHECK_OK(tg_limit_take_news(limit, out, max, &n));
    return n;
}

static uint64_t group_limited(struct tg_group *group, uint64_t *due)
{
    uint64_t n;
    CHECK_OK(tg_group_limited(group, &n, due));
    return n;
}

static void permits_of_one_key_start_items_of_that_key_only(void)
{
    struct fixture f;
    struct tg_key_news heard[4];
    start(&f);
    struct tg_limit *limit = supplied_concurrency(&f);
    struct tg_group *group = one_lane(&f, limit);
    for (uint64_t i = 0; i < 3; i++) {
        submit_key(&f, group, 7, i);
    }
    submit_key(&f, group, 8, 3);
    CHECK(next_item(&f) == NULL);
    CHECK_EQ(news(limit, heard, 4), 2);
    CHECK_EQ(heard[0].key, 7);
    CHECK_EQ(heard[0].waiting, 3);
    CHECK_EQ(heard[1].waiting, 1);
    CHECK_EQ(news(limit, heard, 4), 0); /* told once */
    CHECK_EQ(group_limited(group, NULL), 4);
    permit(limit, 7, 2);
    struct tg_item *a = must_next(&f), *b = must_next(&f);
    CHECK_EQ(a->key + b->key, 14);
    CHECK(next_item(&f) == NULL);
    CHECK_EQ(group_limited(group, NULL), 2);
    CHECK_EQ(news(limit, heard, 4), 1);
    CHECK_EQ(heard[0].waiting, 1);
    CHECK_EQ(heard[0].in_use, 2);
    permit(limit, 7, 0); /* takes nothing back, starts nothing more */
    succeed(&f, a);
    succeed(&f, b);
    CHECK(next_item(&f) == NULL);
    CHECK_EQ(news(limit, heard, 4), 1);
    CHECK_EQ(heard[0].in_use, 0);
    permit(limit, 7, 1);
    permit(limit, 8, 1);
    succeed(&f, must_next(&f));
    succeed(&f, must_next(&f));
    finish(&f);
}

static void a_key_is_kept_until_its_end_was_told(void)
{
    struct fixture f;
    struct tg_key_news heard[4];
    start(&f);
    struct tg_limit *limit = supplied_concurrency(&f);
    struct tg_group *group = one_lane(&f, limit);
    submit_key(&f, group, 7, 0);
    CHECK(next_item(&f) == NULL);
    permit(limit, 7, 1);
    succeed(&f, must_next(&f));
    permit(limit, 7, 0);
    tg_limit_trim(limit);
    CHECK_EQ(limit_stats(limit).keys, 1);
    CHECK_EQ(news(limit, heard, 4), 1);
    CHECK_EQ(heard[0].used, 1);
    CHECK_EQ(heard[0].waiting + heard[0].in_use, 0);
    tg_limit_trim(limit);
    CHECK_EQ(limit_stats(limit).keys, 0);
    permit(limit, 9, 1); /* what was supplied is kept as well */
    news(limit, heard, 4);
    tg_limit_trim(limit);
    CHECK_EQ(limit_stats(limit).keys, 1);
    permit(limit, 9, 0);
    news(limit, heard, 4);
    tg_limit_trim(limit);
    CHECK_EQ(limit_stats(limit).keys, 0);
    permit(limit, 10, 0); /* and nothing is made for nothing */
    CHECK_EQ(limit_stats(limit).keys, 0);
    finish(&f);
}

static void slots_of_one_key_are_used_in_their_time_by_that_key(void)
{
    struct fixture f;
    struct tg_key_news heard[4];
    start(&f);
    struct tg_limit *limit = add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_SUPPLIED, .keyed = 1});
    struct tg_group *group = one_lane(&f, limit);
    for (uint64_t i = 0; i < 4; i++) {
        submit_key(&f, group, 7, i);
    }
    submit_key(&f, group, 8, 4);
    CHECK(next_item(&f) == NULL);
    CHECK_STATUS(tg_limit_offer(limit, f.now, 0, 1, 0), TG_INVALID);
    CHECK_STATUS(tg_limit_offer_key(limit, TG_NO_KEY, f.now, 0, 1, 0), TG_INVALID);
    CHECK_OK(tg_limit_offer_key(limit, 7, f.now + SECOND, SECOND, 3, SECOND / 2));
    uint64_t due;
    CHECK_EQ(group_limited(group, &due), 5);
    CHECK_EQ(due, f.now + SECOND);
    uint64_t began = f.now;
    set_time(&f, when_due(&f));
    CHECK_EQ(f.now, began + SECOND);
    succeed(&f, must_next(&f));
    CHECK(next_item(&f) == NULL);
    set_time(&f, began + 3 * SECOND); /* the slot of the second second has passed unused */
    succeed(&f, must_next(&f));
    CHECK(next_item(&f) == NULL);
    CHECK_EQ(limit_stats(limit).discarded, 1);
    CHECK_EQ(limit_stats(limit).available, 0);
    CHECK_EQ(news(limit, heard, 4), 2);
    CHECK_EQ(heard[0].used, 2);
    for (int i = 0; i < TG_KEY_OFFERS; i++) {
        CHECK_OK(tg_limit_offer_key(limit, 8, f.now + (uint64_t)i * MS, MS, 1, SECOND));
    }
    CHECK_STATUS(tg_limit_offer_key(limit, 8, f.now, MS, 1, SECOND), TG_FULL);
    CHECK_OK(tg_limit_offer_key(limit, 7, f.now, 0, 2, SECOND));
    for (int i = 0; i < 3; i++) {
        succeed(&f, must_next(&f));
    }
    CHECK(next_item(&f) == NULL);
    news(limit, heard, 4);
    tg_limit_trim(limit);
    CHECK_EQ(limit_stats(limit).keys, 1); /* key 8 has slots to come */
    set_time(&f, f.now + 2 * SECOND);
    tg_limit_trim(limit);
    CHECK_EQ(limit_stats(limit).keys, 0);
    finish(&f);
}

static void an_item_without_a_key_is_not_bound(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = supplied_concurrency(&f);
    struct tg_limit *rate = add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_RATE, .keyed = 1, .count = 1,
                                                                    .period_ns = SECOND, .burst = 1});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 10});
    CHECK_OK(tg_lane_attach(lane, limit));
    CHECK_OK(tg_lane_attach(lane, rate));
    struct tg_group *group = add_group(lane, (struct tg_group_options){.open = 1});
    uint64_t keys[] = {TG_NO_KEY, 5, TG_NO_KEY, 5, 3, TG_NO_KEY};
    size_t accepted;
    CHECK_OK(tg_core_submit(f.core, group, 3, NULL, keys, 0, 0, &accepted));
    struct tg_item *first = must_next(&f);
    CHECK_EQ(first->position, 0);
    CHECK_EQ(tg_item_key(first, 0), TG_NO_KEY);
    CHECK_EQ(tg_item_key(first, 1), 5);
    CHECK(next_item(&f) == NULL); /* 1 waits for the rate of 5, 2 for a permit of 3 */
    CHECK_EQ(limit_stats(limit).keys, 1);
    succeed(&f, first);
    permit(limit, 3, 1);
    struct tg_item *third = must_next(&f);
    CHECK_EQ(third->position, 2);
    succeed(&f, third);
    set_time(&f, when_due(&f));
    succeed(&f, must_next(&f));
    permit(limit, 3, 0);
    finish(&f);
}

static void what_was_cancelled_is_told_too(void)
{
    struct fixture f;
    struct tg_key_news heard[4];
    start(&f);
    struct tg_limit *limit = supplied_concurrency(&f);
    struct tg_group *group = one_lane(&f, limit);
    submit_key(&f, group, 7, 0);
    CHECK(next_item(&f) == NULL);
    CHECK_EQ(news(limit, heard, 4), 1);
    CHECK_OK(tg_group_drain(group, NULL));
    CHECK_EQ(settle_waiting(&f, TG_OUTCOME_RETURNED), 1);
    CHECK_EQ(group_limited(group, NULL), 0);
    CHECK_EQ(news(limit, heard, 4), 1);
    CHECK_EQ(heard[0].waiting, 0);
    finish(&f);
}

/* A supplier that hears only the news, against items that come, run, end and are drained at random: its picture of every
 * key is the true one whenever it has asked, no key ever runs more than it was permitted, and everything ends. */
static void the_news_alone_draw_the_true_picture(void)
{
    enum { KEYS = 12, ITEMS = 2000 };
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct fixture f;
        struct tg__random random;
        start(&f);
        tg__random_seed(&random, seed);
        struct tg_limit *limit = supplied_concurrency(&f);
        struct tg_group *group = one_lane(&f, limit);
        struct tg_key_news seen[KEYS] = {0}, heard[KEYS];
        uint64_t waiting[KEYS] = {0}, in_use[KEYS] = {0}, permits[KEYS] = {0};
        struct tg_item *running[ITEMS];
        size_t n = 0;
        uint64_t submitted = 0, ended = 0;
        while (ended < ITEMS) {
            uint64_t key = tg__random_upto(&random, KEYS - 1), what = tg__random_upto(&random, 9);
            struct tg_item *item;
            if (what < 3 && submitted < ITEMS) {
                submit_key(&f, group, key, submitted++);
                waiting[key]++;
            } else if (what < 5 && n != 0) {
                size_t which = tg__random_upto(&random, n - 1);
                in_use[running[which]->key]--;
                succeed(&f, running[which]);
                running[which] = running[--n];
                ended++;
            } else if (what < 7) {
                permits[key] = tg__random_upto(&random, 3);
                permit(limit, key, (uint32_t)permits[key]);
            } else if (what == 7) {
                tg_limit_trim(limit);
            }
            while ((item = next_item(&f)) != NULL) {
                CHECK_LE(++in_use[item->key], permits[item->key]);
                waiting[item->key]--;
                running[n++] = item;
            }
            size_t told = news(limit, heard, KEYS);
            for (size_t i = 0; i < told; i++) {
                seen[heard[i].key] = heard[i];
            }
            for (uint64_t k = 0; k < KEYS; k++) {
                CHECK_EQ(seen[k].waiting, waiting[k]);
                CHECK_EQ(seen[k].in_use, in_use[k]);
                CHECK(waiting[k] == 0 || in_use[k] >= permits[k]); /* nobody waits beside a free permit */
            }
        }
        finish(&f);
    }
}

RUN(TEST(permits_of_one_key_start_items_of_that_key_only), TEST(a_key_is_kept_until_its_end_was_told),
    TEST(slots_of_one_key_are_used_in_their_time_by_that_key), TEST(an_item_without_a_key_is_not_bound),
    TEST(what_was_cancelled_is_told_too), TEST(the_news_alone_draw_the_true_picture))
