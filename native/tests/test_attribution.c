/* Every nanosecond from submit to settle belongs to one class; lane, group and histograms agree. */
#include "fixture.h"
#include "random.h"

static void each_wait_is_charged_to_its_class(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(
        &f, (struct tg_limit_options){.kind = TG_LIMIT_RATE, .count = 1, .period_ns = SECOND, .burst = 1});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 2, .retry = {.attempts = 2, .base_ns = SECOND / 4}});
    CHECK_OK(tg_lane_attach(lane, limit));
    struct tg_group *group = submit_group(&f, lane, 2);
    uint64_t t = f.now;
    set_time(&f, t + 10); /* 10 ns in line */
    struct tg_item *a = must_next(&f);
    set_time(&f, t + 30);
    CHECK(next_item(&f) == NULL); /* from here the second is limited */
    set_time(&f, t + 100); /* 90 ns running */
    CHECK_EQ(end_item(&f, a, TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_RETRY);
    set_time(&f, t + 100 + SECOND / 4);
    CHECK(next_item(&f) == NULL); /* resumed: blocked with its lane */
    set_time(&f, t + 10 + SECOND);
    a = must_next(&f);
    CHECK_EQ(a->position, 0);
    CHECK_EQ(a->queued_ns, 10);
    CHECK_EQ(a->backoff_ns, SECOND / 4);
    CHECK_EQ(a->limited_ns, SECOND - SECOND / 4 - 90);
    CHECK_EQ(a->running_ns, 90);
    CHECK(next_item(&f) == NULL); /* the second was refused again at this moment */
    set_time(&f, f.now + 5);
    tg_item_end(a, TG_VERDICT_OK, 0, f.now);
    set_time(&f, f.now + 7);
    uint8_t decision;
    CHECK_OK(tg_core_complete(f.core, &a, 1, 0, 0, &decision));
    CHECK_EQ(decision, TG_DECISION_SETTLE);
    set_time(&f, f.now + 1);
    settle(&f, a);
    struct tg_group_stats stats = group_stats(group);
    CHECK_EQ(stats.sum_ns[TG_CLASS_SETTLING], 8);
    CHECK_EQ(stats.sum_ns[TG_CLASS_RUNNING], 95);
    CHECK_EQ(stats.min_ns[TG_CLASS_RUNNING], 5);
    CHECK_EQ(stats.max_ns[TG_CLASS_RUNNING], 90);
    CHECK_EQ(stats.first_start_ns, t + 10);
    set_time(&f, t + 10 + 2 * SECOND);
    struct tg_item *b = must_next(&f);
    CHECK_EQ(b->queued_ns + b->limited_ns, f.now - t);
    CHECK_EQ(b->limited_ns, 2 * SECOND - 20);
    succeed(&f, b);
    finish(&f);
}

struct ended {
    uint64_t items, life_ns;
};

/* One random step of a busy core; ended items are added to the sums the group must show. */
static void check_item_times(struct tg_item *item, uint64_t now, struct ended *ended)
{
    uint64_t settling = now - item->mark_ns;
    CHECK_EQ(item->queued_ns + item->limited_ns + item->backoff_ns + item->running_ns + settling, now - item->submit_ns);
    ended->items++;
    ended->life_ns += now - item->submit_ns;
}

static void complete_random(struct fixture *f, struct tg__random *random, struct tg_item *item, struct ended *ended)
{
    const enum tg_verdict verdicts[] = {TG_VERDICT_OK, TG_VERDICT_OK, TG_VERDICT_FAIL_RETRYABLE, TG_VERDICT_TIMED_OUT,
                                        TG_VERDICT_FAIL_FINAL, TG_VERDICT_FAIL_RETRYABLE};
    tg_item_end(item, verdicts[tg__random_upto(random, 5)], tg__random_upto(random, 3) == 0 ? 50 : 0, f->now);
    set_time(f, f->now + tg__random_upto(random, 20));
    uint8_t decision;
    CHECK_OK(tg_core_complete(f->core, &item, 1, 0, 0, &decision));
    if (decision == TG_DECISION_SETTLE) {
        set_time(f, f->now + tg__random_upto(random, 20));
        check_item_times(item, f->now, ended);
        settle(f, item);
    }
}

static void times_add_up_whatever_happens(void)
{
    enum { ITEMS = 2000, MAX_RUNNING = 16 };
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct fixture f;
        struct tg__random random;
        struct ended ended = {0};
        tg__random_seed(&random, seed);
        start_with(&f, (struct tg_core_options){.seed = seed, .no_slabs = seed & 1});
        struct tg_limit *limits[] = {
            add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_RATE, .count = 50000000, .period_ns = SECOND, .burst = 20}),
            add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .keyed = 1, .capacity = 2}),
            add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .capacity = 9}),
        };
        struct tg_lane *lane = add_lane(
            &f, (struct tg_lane_options){.concurrency = 12, .retry = {.attempts = 4, .base_ns = 300, .jitter = TG_JITTER_FULL,
                                                                      .retry_timeouts = 1, .deadline_ns = 30000}});
        for (int i = 0; i < 3; i++) {
            CHECK_OK(tg_lane_attach(lane, limits[i]));
        }
        struct tg_group *group = add_group(lane, (struct tg_group_options){.open = 1, .histograms = 1});
        struct tg_item *running[MAX_RUNNING];
        size_t n = 0;
        uint64_t submitted = 0;
        while (ended.items < ITEMS) {
            set_time(&f, f.now + tg__random_upto(&random, 40));
            struct tg_item *item = take_settled(&f);
            if (item != NULL) {
                check_item_times(item, f.now, &ended);
                settle(&f, item);
            }
            if (submitted < ITEMS && tg__random_upto(&random, 1) == 0) {
                submit_key(&f, group, tg__random_upto(&random, 7), submitted++);
            }
            if (n < MAX_RUNNING && (item = next_item(&f)) != NULL) {
                running[n++] = item;
            }
            if (n != 0 && tg__random_upto(&random, 1) == 0) {
                size_t which = tg__random_upto(&random, n - 1);
                item = running[which];
                running[which] = running[--n];
                if (tg__random_upto(&random, 20) == 0) {
                    CHECK_OK(tg_core_return(f.core, item, 0));
                } else {
                    complete_random(&f, &random, item, &ended);
                }
            }
        }
        struct tg_group_stats stats = group_stats(group);
        uint64_t sum = 0;
        for (int i = 0; i < TG_CLASSES; i++) {
            sum += stats.sum_ns[i];
        }
        CHECK_EQ(sum, ended.life_ns);
        CHECK_EQ(stats.settled, ITEMS);
        CHECK_OK(tg_group_seal(group));
        finish(&f);
    }
}

static void histograms_of_lane_and_group_hold_every_item(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 5, .retry = {.attempts = 2, .base_ns = 1000}});
    struct tg_group *group = submit_group(&f, lane, 100);
    for (int i = 0; i < 100; i++) {
        struct tg_item *item = must_next(&f);
        set_time(&f, f.now + 777);
        if (i % 10 == 0) {
            CHECK_EQ(end_item(&f, item, TG_VERDICT_FAIL_RETRYABLE, 0), TG_DECISION_RETRY);
            set_time(&f, f.now + 1000);
            item = must_next(&f);
            set_time(&f, f.now + 777);
        }
        succeed(&f, item);
    }
    struct tg_histogram *h;
    CHECK_OK(tg_histogram_create(NULL, &h));
    struct tg_coarse_entry entries[TG_COARSE_BUCKETS];
    struct tg_group_stats stats = group_stats(group);
    for (int i = 0; i < TG_CLASSES; i++) {
        uint64_t expected = i == TG_CLASS_RUNNING ? 110 : 100;
        CHECK_OK(tg_lane_get_histogram(lane, (enum tg_class)i, h));
        uint64_t total = 0, count, cursor_total = 0;
        uint32_t cursor = 0;
        while (tg_histogram_next(h, &cursor, NULL, NULL, &count)) {
            cursor_total += count;
        }
        CHECK_EQ(h->count, expected);
        CHECK_EQ(cursor_total, expected);
        size_t used;
        CHECK_OK(tg_group_get_coarse(group, (enum tg_class)i, entries, TG_COARSE_BUCKETS, &used));
        for (size_t k = 0; k < used; k++) {
            total += entries[k].count;
        }
        CHECK_EQ(total, expected);
        CHECK_EQ(stats.count[i], expected);
        CHECK_EQ(h->min, stats.min_ns[i]);
        CHECK_EQ(h->max, stats.max_ns[i]);
    }
    CHECK_EQ(stats.retries, 10);
    CHECK_EQ(stats.attempts, 110);
    tg_histogram_destroy(NULL, h);
    finish(&f);
}

static void busy_time_is_permits_over_time(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 5});
    submit_group(&f, lane, 2);
    struct tg_item *a = must_next(&f);
    set_time(&f, f.now + 100);
    struct tg_item *b = must_next(&f);
    set_time(&f, f.now + 50);
    CHECK_EQ(lane_stats(lane).busy_ns, 100 + 2 * 50);
    succeed(&f, a);
    set_time(&f, f.now + 30);
    succeed(&f, b);
    set_time(&f, f.now + 1000);
    CHECK_EQ(lane_stats(lane).busy_ns, 230);
    finish(&f);
}

static void an_older_time_is_taken_as_the_latest_seen(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 5});
    struct tg_group *group = submit_group(&f, lane, 1);
    struct tg_item *item;
    size_t n;
    uint64_t due;
    CHECK_OK(tg_core_next(f.core, TG_KIND_SYNC, 5, &item, 1, &n, &due)); /* long before submit */
    CHECK_EQ(item->mark_ns, item->submit_ns);
    tg_item_end(item, TG_VERDICT_OK, 0, 7);
    uint8_t decision;
    CHECK_OK(tg_core_complete(f.core, &item, 1, 1, 9, &decision));
    CHECK_EQ(group_stats(group).sum_ns[TG_CLASS_RUNNING], 0);
    finish(&f);
}

RUN(TEST(each_wait_is_charged_to_its_class), TEST(times_add_up_whatever_happens),
    TEST(histograms_of_lane_and_group_hold_every_item), TEST(busy_time_is_permits_over_time),
    TEST(an_older_time_is_taken_as_the_latest_seen))
