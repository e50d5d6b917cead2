/* Keyed limits: every key its own line, nobody held up by another key, idle keys forgotten. */
#include "fixture.h"
#include "random.h"

static void one_busy_key_holds_up_no_other(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit =
        add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .keyed = 1, .capacity = 1});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 100});
    CHECK_OK(tg_lane_attach(lane, limit));
    CHECK_EQ(tg_lane_keys(lane), 1);
    struct tg_group *group = add_group(lane, (struct tg_group_options){.open = 1});
    for (uint64_t i = 0; i < 5; i++) {
        submit_key(&f, group, 1, i);
    }
    submit_key(&f, group, 2, 5);
    struct tg_item *first = must_next(&f), *other = must_next(&f);
    CHECK_EQ(first->position, 0);
    CHECK_EQ(other->position, 5);
    CHECK(next_item(&f) == NULL);
    CHECK_EQ(tg_limit_demand(limit), 4);
    succeed(&f, other);
    for (uint64_t i = 1; i < 5; i++) {
        CHECK(next_item(&f) == NULL);
        succeed(&f, first);
        first = must_next(&f);
        CHECK_EQ(first->position, i);
    }
    succeed(&f, first);
    finish(&f);
}

static void each_key_has_its_own_exact_rate(void)
{
    enum { KEYS = 20, EACH = 30 };
    static uint64_t last[KEYS];
    static uint64_t counts[KEYS];
    struct fixture f;
    start(&f);
    memset(last, 0, sizeof last);
    memset(counts, 0, sizeof counts);
    struct tg_limit *limit = add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_RATE, .keyed = 1, .count = 10,
                                                                     .period_ns = SECOND, .burst = 1});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 1000});
    CHECK_OK(tg_lane_attach(lane, limit));
    struct tg_group *group = add_group(lane, (struct tg_group_options){.open = 1});
    for (uint64_t i = 0; i < KEYS * EACH; i++) {
        submit_key(&f, group, i % KEYS, i);
    }
    uint64_t began = f.now;
    for (int n = 0; n < KEYS * EACH;) {
        struct tg_item *item = next_item(&f);
        if (item == NULL) {
            set_time(&f, when_due(&f));
            continue;
        }
        uint64_t key = item->key;
        CHECK_EQ(item->position, counts[key] * KEYS + key); /* in order within the key */
        if (counts[key]++ != 0) {
            CHECK_GE(f.now - last[key], SECOND / 10);
        }
        last[key] = f.now;
        succeed(&f, item);
        n++;
    }
    CHECK_EQ(f.now - began, (EACH - 1) * SECOND / 10); /* all keys at once, each at its full rate */
    finish(&f);
}

static void two_keyed_limits_read_their_own_keys(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *hosts =
        add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .keyed = 1, .capacity = 1});
    struct tg_limit *tenants =
        add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .keyed = 1, .capacity = 2});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 100});
    CHECK_OK(tg_lane_attach(lane, hosts));
    CHECK_OK(tg_lane_attach(lane, tenants));
    struct tg_group *group = add_group(lane, (struct tg_group_options){0});
    uint64_t keys[] = {1, 100, 1, 100, 2, 100, 3, 100, 4, 200};
    size_t accepted;
    CHECK_STATUS(tg_core_submit(f.core, group, 5, NULL, NULL, 0, 0, &accepted), TG_INVALID);
    CHECK_OK(tg_core_submit(f.core, group, 5, NULL, keys, 0, 0, &accepted));
    struct tg_item *a = must_next(&f), *b = must_next(&f), *c = must_next(&f);
    CHECK_EQ(a->position, 0);
    CHECK_EQ(b->position, 2); /* 1 waits for host 1 */
    CHECK_EQ(c->position, 4); /* 3 waits for tenant 100 and holds nothing of host 3 */
    CHECK(next_item(&f) == NULL);
    CHECK_EQ(limit_stats(hosts).in_use, 3);
    succeed(&f, a);
    /* Both waiters may be first here: 1 (now free at the host) and 3 (now free at the tenant). */
    struct tg_item *d = must_next(&f);
    CHECK(next_item(&f) == NULL);
    succeed(&f, b);
    struct tg_item *e = must_next(&f);
    CHECK_EQ(d->position + e->position, 1 + 3);
    succeed(&f, c);
    succeed(&f, d);
    succeed(&f, e);
    CHECK(tg_group_done(group));
    finish(&f);
}

static void idle_keys_are_forgotten(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit = add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_RATE, .keyed = 1, .count = 1000,
                                                                     .period_ns = SECOND, .burst = 5});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 10});
    CHECK_OK(tg_lane_attach(lane, limit));
    struct tg_group *group = add_group(lane, (struct tg_group_options){.open = 1});
    uint64_t most = 0;
    for (uint64_t i = 0; i < 50000; i++) {
        submit_key(&f, group, i, i);
        succeed(&f, must_next(&f));
        set_time(&f, f.now + MS);
        uint64_t keys = limit_stats(limit).keys;
        most = keys > most ? keys : most;
    }
    CHECK_LE(most, 20);
    tg_limit_trim(limit);
    CHECK_LE(limit_stats(limit).keys, 1);
    CHECK_GE(limit_stats(limit).keys_forgotten, 49000);
    finish(&f);
}

static void one_key_can_be_paused(void)
{
    struct fixture f;
    start(&f);
    struct tg_limit *limit =
        add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .keyed = 1, .capacity = 9});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 9});
    CHECK_OK(tg_lane_attach(lane, limit));
    struct tg_group *group = add_group(lane, (struct tg_group_options){.open = 1});
    CHECK_OK(tg_limit_pause_key_until(limit, 1, f.now + SECOND));
    submit_key(&f, group, 1, 0);
    submit_key(&f, group, 2, 1);
    struct tg_item *item = must_next(&f);
    CHECK_EQ(item->key, 2);
    succeed(&f, item);
    CHECK(next_item(&f) == NULL);
    set_time(&f, when_due(&f));
    item = must_next(&f);
    CHECK_EQ(item->limited_ns, SECOND);
    succeed(&f, item);
    finish(&f);
}

/* Random keys, two lanes that share the limit, random ends: the cap holds for every key and everybody gets through. */
static void a_shared_keyed_limit_never_exceeds_and_never_stalls(void)
{
    enum { KEYS = 30, ITEMS = 3000, CAP = 3 };
    for (uint64_t seed = 0; seed < 5; seed++) {
        struct fixture f;
        struct tg__random random;
        start(&f);
        tg__random_seed(&random, seed);
        struct tg_limit *limit =
            add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .keyed = 1, .capacity = CAP});
        struct tg_limit *whole = add_limit(&f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .capacity = 40});
        struct tg_group *groups[2];
        for (int i = 0; i < 2; i++) {
            struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.concurrency = 30, .priority = (uint32_t)i});
            CHECK_OK(tg_lane_attach(lane, limit));
            CHECK_OK(tg_lane_attach(lane, whole));
            groups[i] = add_group(lane, (struct tg_group_options){.open = 1});
        }
        for (uint64_t i = 0; i < ITEMS; i++) {
            submit_key(&f, groups[i & 1], tg__random_upto(&random, KEYS - 1), i);
        }
        struct tg_item *running[64];
        size_t n = 0;
        uint64_t ended = 0, in_use[KEYS] = {0};
        while (ended < ITEMS) {
            struct tg_item *item = n < 64 ? next_item(&f) : NULL;
            if (item != NULL) {
                CHECK_LE(++in_use[item->key], CAP);
                running[n++] = item;
                CHECK_LE(n, 40);
                continue;
            }
            CHECK(n != 0); /* else it stalled */
            size_t which = tg__random_upto(&random, n - 1);
            in_use[running[which]->key]--;
            succeed(&f, running[which]);
            running[which] = running[--n];
            ended++;
        }
        finish(&f);
    }
}

RUN(TEST(one_busy_key_holds_up_no_other), TEST(each_key_has_its_own_exact_rate), TEST(two_keyed_limits_read_their_own_keys),
    TEST(idle_keys_are_forgotten), TEST(one_key_can_be_paused), TEST(a_shared_keyed_limit_never_exceeds_and_never_stalls))
