/* Many threads on one core: nothing lost, nothing twice, limits never exceeded. Fixed seeds; the schedule is the machine's. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "fixture.h"
#include "random.h"

enum { THREADS = 4, ITEMS = 6000, LANES = 3 };

struct shared {
    struct tg_core *core;
    struct tg_lane *lanes[LANES];
    struct tg_group *groups[LANES];
    struct tg_limit *limit;
    uint32_t lane_cap, limit_cap;
    atomic_uint in_lane[LANES];
    atomic_uint in_limit;
    atomic_uint settled[LANES][ITEMS]; /* times each item ended */
    atomic_ulong total;
    atomic_bool stop;
};

struct thread {
    struct shared *shared;
    uint32_t number;
    pthread_t id;
};

static int lane_index(struct shared *s, struct tg_lane *lane)
{
    for (int i = 0; i < LANES; i++) {
        if (s->lanes[i] == lane) {
            return i;
        }
    }
    CHECK_FAIL("unknown lane");
}

static void note_end(struct shared *s, struct tg_item *item)
{
    int lane = lane_index(s, tg_group_lane(item->group));
    CHECK_EQ(atomic_fetch_add(&s->settled[lane][item->position], 1), 0);
    atomic_fetch_add(&s->total, 1);
}

static void work_on(struct shared *s, struct tg_run *run, struct tg__random *random)
{
    struct tg_item *item;
    int lane = lane_index(s, run->lane);
    uint64_t now = tg_run_now(run);
    while ((item = tg_run_take(run, now)) != NULL) {
        CHECK_LE(atomic_fetch_add(&s->in_lane[lane], 1) + 1, s->lane_cap);
        CHECK_LE(atomic_fetch_add(&s->in_limit, 1) + 1, s->limit_cap);
        if (tg__random_upto(random, 200) == 0) {
            struct timespec t = {0, 300000};
            nanosleep(&t, NULL); /* blocks: others must take the rest of this run */
        }
        bool fail = item->attempts < 3 && tg__random_upto(random, 5) == 0;
        atomic_fetch_sub(&s->in_limit, 1);
        atomic_fetch_sub(&s->in_lane[lane], 1);
        if (!fail) {
            note_end(s, item);
        }
        now = tg_run_now(run);
        tg_item_end(item, fail ? TG_VERDICT_FAIL_RETRYABLE : TG_VERDICT_OK, 0, now);
    }
}

static void settle_all(struct shared *s, struct tg_item **items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        CHECK_EQ(items[i]->outcome, TG_OUTCOME_FAILED);
        note_end(s, items[i]);
    }
    CHECK_OK(tg_core_settle(s->core, items, n, 0));
}

static void *run_thread(void *argument)
{
    struct thread *thread = argument;
    struct shared *s = thread->shared;
    struct tg__random random;
    struct tg_item *decided[TG_RUN_MAX];
    tg__random_seed(&random, thread->number);
    while (!atomic_load(&s->stop)) {
        struct tg_run *run;
        uint64_t due;
        size_t n;
        CHECK_OK(tg_core_claim(s->core, TG_KIND_SYNC, thread->number, 0, &run, &due));
        if (run != NULL) {
            work_on(s, run, &random);
            CHECK_OK(tg_core_finish(s->core, run, 0, decided, TG_RUN_MAX, &n));
            settle_all(s, decided, n);
        }
        CHECK_OK(tg_core_take_settled(s->core, decided, TG_RUN_MAX, &n));
        settle_all(s, decided, n);
        struct tg_group *done;
        CHECK_OK(tg_core_take_done(s->core, &done));
        if (run == NULL && n == 0) {
            tg_core_wait(s->core, TG_KIND_SYNC, 5 * MS);
        }
    }
    return NULL;
}

static void *watch_thread(void *argument)
{
    struct shared *s = argument;
    while (!atomic_load(&s->stop)) {
        struct tg_overdue overdue[16];
        size_t n;
        CHECK_OK(tg_core_overdue(s->core, 0, overdue, 16, &n, NULL));
        for (int i = 0; i < LANES; i++) {
            struct tg_lane_stats stats = lane_stats(s->lanes[i]);
            CHECK_LE(stats.running, s->lane_cap);
            uint64_t ended = 0;
            for (int k = 0; k < TG_OUTCOMES; k++) {
                ended += stats.outcomes[k];
            }
            CHECK_EQ(ended + stats.inside, stats.submitted);
        }
        CHECK_LE(limit_stats(s->limit).in_use, s->limit_cap);
        sched_yield();
    }
    return NULL;
}

static void make_shared(struct shared *s, uint64_t seed)
{
    memset(s, 0, sizeof *s);
    s->lane_cap = 3;
    s->limit_cap = 4;
    struct tg_core_options options = {.seed = seed, .steal_after_ns = 100000};
    CHECK_OK(tg_core_create(&options, &s->core));
    struct tg_limit_options l = {.kind = TG_LIMIT_CONCURRENCY, .capacity = s->limit_cap};
    CHECK_OK(tg_limit_create(s->core, &l, &s->limit));
    for (int i = 0; i < LANES; i++) {
        struct tg_lane_options lane = {.kind = TG_KIND_SYNC, .concurrency = s->lane_cap, .priority = (uint32_t)i / 2,
                                       .timeout_ns = 100000, .capacity = 2000,
                                       .retry = {.attempts = 2, .base_ns = 50000, .jitter = TG_JITTER_FULL}};
        CHECK_OK(tg_lane_create(s->core, &lane, &s->lanes[i]));
        CHECK_OK(tg_lane_attach(s->lanes[i], s->limit));
        struct tg_group_options group = {.open = 1, .histograms = 1};
        CHECK_OK(tg_group_create(s->lanes[i], &group, &s->groups[i]));
    }
}

static void submit_everything(struct shared *s)
{
    size_t sent[LANES] = {0};
    for (size_t total = 0; total < LANES * ITEMS;) {
        for (int i = 0; i < LANES; i++) {
            size_t accepted, want = ITEMS - sent[i] < 100 ? ITEMS - sent[i] : 100;
            tg_status status = tg_core_submit(s->core, s->groups[i], want, NULL, NULL, sent[i], 0, &accepted);
            CHECK(status == TG_OK || status == TG_FULL);
            sent[i] += accepted;
            total += accepted;
        }
        sched_yield();
    }
}

static void every_item_ends_exactly_once(void)
{
    static struct shared s;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct thread threads[THREADS];
        pthread_t watcher;
        make_shared(&s, seed);
        for (uint32_t i = 0; i < THREADS; i++) {
            threads[i] = (struct thread){.shared = &s, .number = i};
            CHECK_EQ(pthread_create(&threads[i].id, NULL, run_thread, &threads[i]), 0);
        }
        CHECK_EQ(pthread_create(&watcher, NULL, watch_thread, &s), 0);
        submit_everything(&s);
        for (int i = 0; i < LANES; i++) {
            CHECK_OK(tg_group_seal(s.groups[i]));
            while (!tg_group_done(s.groups[i])) {
                tg_status status = tg_group_wait(s.groups[i], 20 * SECOND);
                CHECK_STATUS(status, TG_OK);
            }
        }
        atomic_store(&s.stop, true);
        tg_core_wake(s.core);
        for (uint32_t i = 0; i < THREADS; i++) {
            pthread_join(threads[i].id, NULL);
        }
        pthread_join(watcher, NULL);
        CHECK_EQ(atomic_load(&s.total), LANES * ITEMS);
        struct tg_core_stats stats;
        CHECK_OK(tg_core_get_stats(s.core, &stats));
        CHECK_EQ(stats.items_live, 0);
        CHECK_EQ(stats.timers, 0);
        for (int i = 0; i < LANES; i++) {
            struct tg_lane_stats lane = lane_stats(s.lanes[i]);
            CHECK_EQ(lane.running, 0);
            CHECK_LE(lane.peak_running, s.lane_cap);
            CHECK_EQ(lane.outcomes[TG_OUTCOME_SUCCEEDED] + lane.outcomes[TG_OUTCOME_FAILED], ITEMS);
            CHECK_EQ(lane.started, ITEMS + lane.retried);
        }
        CHECK_OK(tg_core_destroy(s.core));
    }
}

struct waker {
    struct fixture *f;
    atomic_uint kinds;
};

static void on_wake(void *ctx, unsigned kinds)
{
    struct waker *waker = ctx;
    atomic_fetch_or(&waker->kinds, kinds);
    CHECK_OK(tg_core_check(waker->f->core)); /* the lock is free */
}

static void a_hungry_driver_is_woken_once(void)
{
    struct fixture f;
    struct waker waker = {.f = &f};
    start_with(&f, (struct tg_core_options){.wake = on_wake, .wake_ctx = &waker});
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.kind = TG_KIND_COROUTINE, .concurrency = 5});
    struct tg_group *group = add_group(lane, (struct tg_group_options){.open = 1});
    submit(&f, group, 1, 0);
    CHECK_EQ(atomic_exchange(&waker.kinds, 0), 0); /* nobody had asked */
    struct tg_item *item = must_next(&f);
    CHECK(next_item(&f) == NULL);
    submit(&f, group, 1, 1);
    CHECK_EQ(atomic_exchange(&waker.kinds, 0) & TG_KIND_COROUTINE, TG_KIND_COROUTINE);
    submit(&f, group, 1, 2);
    CHECK_EQ(atomic_exchange(&waker.kinds, 0), 0);
    succeed(&f, item);
    succeed(&f, must_next(&f));
    succeed(&f, must_next(&f));
    finish(&f);
}

static void *wait_for_work(void *argument)
{
    struct fixture *f = argument;
    CHECK_OK(tg_core_wait(f->core, TG_KIND_SYNC | TG_KIND_COROUTINE, TG_NEVER));
    return NULL;
}

static void a_waiting_thread_wakes_for_work_and_for_wake(void)
{
    struct fixture f;
    start(&f);
    struct tg_lane *lane = add_lane(&f, (struct tg_lane_options){.kind = TG_KIND_COROUTINE});
    pthread_t id;
    CHECK_STATUS(tg_core_wait(f.core, TG_KIND_SYNC, MS), TG_TIMEOUT);
    CHECK_EQ(pthread_create(&id, NULL, wait_for_work, &f), 0);
    struct timespec t = {0, 20000000};
    nanosleep(&t, NULL); /* so that it most likely sleeps; the test holds either way */
    submit_group(&f, lane, 1);
    pthread_join(id, NULL);
    succeed(&f, must_next(&f));
    struct tg_group *done;
    CHECK_OK(tg_core_take_done(f.core, &done));
    CHECK_EQ(pthread_create(&id, NULL, wait_for_work, &f), 0);
    for (int i = 0; i < 20; i++) { /* a wake before it sleeps is not kept */
        nanosleep(&t, NULL);
        tg_core_wake(f.core);
    }
    pthread_join(id, NULL);
    finish(&f);
}

RUN(TEST(every_item_ends_exactly_once), TEST(a_hungry_driver_is_woken_once),
    TEST(a_waiting_thread_wakes_for_work_and_for_wake))
