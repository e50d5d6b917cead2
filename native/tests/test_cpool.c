/* The C function pool: every element once, failures retried, limits and cancel obeyed; simulated work. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "fixture.h"
#include "random.h"

enum { N = 20000 };

static double twice(double x)
{
    return 2 * x;
}

struct pool_fixture {
    struct tg_core *core;
    struct tg_lane *lane;
    struct tg_cpool *pool;
};

static void start_pool(struct pool_fixture *p, struct tg_lane_options options, uint32_t threads)
{
    struct tg_core_options core = {.seed = 1};
    options.kind = TG_KIND_C;
    CHECK_OK(tg_core_create(&core, &p->core));
    CHECK_OK(tg_lane_create(p->core, &options, &p->lane));
    p->pool = NULL;
    if (threads != 0) {
        CHECK_OK(tg_cpool_create(p->core, threads, &p->pool));
    }
}

static void stop_pool(struct pool_fixture *p)
{
    if (p->pool != NULL) {
        CHECK_OK(tg_cpool_destroy(p->pool));
    }
    struct tg_core_stats stats;
    CHECK_OK(tg_core_get_stats(p->core, &stats));
    CHECK_EQ(stats.items_live, 0);
    CHECK_EQ(stats.timers, 0);
    CHECK_OK(tg_core_destroy(p->core));
}

static void check_group(struct tg_group *group, uint64_t n)
{
    struct tg_group_stats stats = group_stats(group);
    CHECK_EQ(stats.total, n);
    CHECK_EQ(stats.settled, n);
    CHECK_EQ(stats.count[TG_CLASS_QUEUED], n);
    CHECK_EQ(stats.count[TG_CLASS_LIMITED], n);
    CHECK_EQ(stats.count[TG_CLASS_BACKOFF], n);
    CHECK_EQ(stats.count[TG_CLASS_SETTLING], n);
    CHECK_EQ(stats.count[TG_CLASS_RUNNING], stats.attempts);
}

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t met;
    int here, wanted;
} meeting = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};

/* Returns when `wanted` elements are inside at once. */
static double meet(double x)
{
    pthread_mutex_lock(&meeting.mutex);
    meeting.here++;
    pthread_cond_broadcast(&meeting.met);
    while (meeting.here < meeting.wanted) {
        pthread_cond_wait(&meeting.met, &meeting.mutex);
    }
    pthread_mutex_unlock(&meeting.mutex);
    return x;
}

static void a_pool_grows_while_it_works(void)
{
    enum { MANY = 6 };
    static double in[MANY], out[MANY];
    struct pool_fixture p;
    start_pool(&p, (struct tg_lane_options){.concurrency = MANY, .run_max = 1}, 1);
    meeting.here = 0;
    meeting.wanted = MANY;
    struct tg_group *group = add_group(p.lane, (struct tg_group_options){0});
    struct tg_ccall call = {.n = MANY, .double_function = meet, .in_doubles = in, .out_doubles = out};
    CHECK_OK(tg_core_submit_ccall(p.core, group, &call, 0));
    CHECK_STATUS(tg_cpool_grow(p.pool, 0), TG_INVALID);
    CHECK_OK(tg_cpool_grow(p.pool, MANY)); /* one thread could never end them */
    CHECK_OK(tg_cpool_grow(p.pool, 2));    /* never fewer */
    CHECK_OK(tg_group_wait(group, 60 * SECOND));
    CHECK_EQ(tg_cpool_due(p.pool), TG_NEVER);
    CHECK_OK(tg_group_destroy(group));
    stop_pool(&p);
}

static void doubles_are_all_computed(void)
{
    static double in[N], out[N];
    struct pool_fixture p;
    start_pool(&p, (struct tg_lane_options){.concurrency = 4}, 3);
    for (int round = 0; round < 5; round++) {
        struct tg_group *group = add_group(p.lane, (struct tg_group_options){.histograms = 1});
        for (int i = 0; i < N; i++) {
            in[i] = i + round;
            out[i] = -1;
        }
        struct tg_ccall call = {.n = N, .double_function = twice, .in_doubles = in, .out_doubles = out};
        CHECK_OK(tg_core_submit_ccall(p.core, group, &call, 0));
        CHECK_OK(tg_group_wait(group, 60 * SECOND));
        for (int i = 0; i < N; i++) {
            CHECK(out[i] == 2 * in[i]);
        }
        check_group(group, N);
        CHECK_EQ(group_stats(group).outcomes[TG_OUTCOME_SUCCEEDED], N);
        CHECK_OK(tg_group_destroy(group));
    }
    struct tg_lane_stats stats = lane_stats(p.lane);
    CHECK_EQ(stats.outcomes[TG_OUTCOME_SUCCEEDED], 5 * N);
    CHECK_EQ(stats.attempts_ok, 5 * N);
    CHECK_LE(stats.peak_running, 3);
    stop_pool(&p);
}

static atomic_uint calls[N];
static atomic_int at_once, most_at_once;

/* Element i fails i % 4 times with a retryable error; every 100th fails for good. */
static int flaky(const void *in, size_t in_len, void *out, size_t out_cap, size_t *out_len)
{
    uint32_t element;
    int now = atomic_fetch_add(&at_once, 1) + 1, most = atomic_load(&most_at_once);
    while (now > most && !atomic_compare_exchange_weak(&most_at_once, &most, now)) {
    }
    CHECK_EQ(in_len, sizeof element);
    CHECK_GE(out_cap, sizeof element);
    memcpy(&element, in, sizeof element);
    unsigned call = atomic_fetch_add(&calls[element], 1);
    atomic_fetch_sub(&at_once, 1);
    if (element % 100 == 99) {
        return -7;
    }
    if (call < element % 4) {
        return 3;
    }
    memcpy(out, &element, sizeof element);
    *out_len = sizeof element;
    return 0;
}

struct bytes_call {
    uint32_t in[N];
    size_t offsets[N + 1];
    uint32_t out[N];
    size_t lens[N];
    int statuses[N];
};

static struct tg_ccall make_call(struct bytes_call *b, size_t n, tg_bytes_function function)
{
    memset(b, 0, sizeof *b);
    memset(calls, 0, sizeof calls);
    for (size_t i = 0; i <= n; i++) {
        b->offsets[i] = i * sizeof(uint32_t);
        if (i < n) {
            b->in[i] = (uint32_t)i;
        }
    }
    return (struct tg_ccall){.n = n, .bytes_function = function, .in = (const unsigned char *)b->in,
                             .in_offsets = b->offsets, .out = (unsigned char *)b->out, .out_stride = sizeof(uint32_t),
                             .out_lens = b->lens, .statuses = b->statuses};
}

static void failures_are_retried_by_the_policy(void)
{
    static struct bytes_call b;
    enum { COUNT = 4000 };
    struct pool_fixture p;
    start_pool(&p, (struct tg_lane_options){.concurrency = 2, .retry = {.attempts = 3, .base_ns = 100000}}, 4);
    struct tg_group *group = add_group(p.lane, (struct tg_group_options){.histograms = 1});
    struct tg_ccall call = make_call(&b, COUNT, flaky);
    atomic_store(&most_at_once, 0);
    CHECK_OK(tg_core_submit_ccall(p.core, group, &call, 0));
    CHECK_OK(tg_group_wait(group, 60 * SECOND));
    uint64_t failed = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        bool final = i % 100 == 99, spent = i % 4 == 3;
        CHECK_EQ(atomic_load(&calls[i]), final ? 1 : spent ? 3 : i % 4 + 1);
        CHECK_EQ((uint64_t)(int64_t)b.statuses[i], (uint64_t)(int64_t)(final ? -7 : spent ? 3 : 0));
        CHECK_EQ(b.lens[i], final || spent ? 0 : sizeof(uint32_t));
        failed += final || spent;
    }
    struct tg_group_stats stats = group_stats(group);
    CHECK_EQ(stats.outcomes[TG_OUTCOME_FAILED], failed);
    CHECK_EQ(stats.outcomes[TG_OUTCOME_SUCCEEDED], COUNT - failed);
    CHECK_LE(atomic_load(&most_at_once), 2); /* the lane's concurrency, not the pool's */
    check_group(group, COUNT);
    CHECK_EQ(lane_stats(p.lane).started, COUNT + lane_stats(p.lane).retried);
    CHECK_OK(tg_group_destroy(group));
    stop_pool(&p);
}

static void a_call_nobody_works_on_can_be_cancelled(void)
{
    static double in[N], out[N];
    struct pool_fixture p;
    start_pool(&p, (struct tg_lane_options){.concurrency = 1, .capacity = N}, 0);
    struct tg_group *group = add_group(p.lane, (struct tg_group_options){.histograms = 1});
    struct tg_ccall call = {.n = N, .double_function = twice, .in_doubles = in, .out_doubles = out};
    CHECK_OK(tg_core_submit_ccall(p.core, group, &call, 0));
    struct tg_group *second = add_group(p.lane, (struct tg_group_options){0});
    CHECK_STATUS(tg_core_submit_ccall(p.core, second, &call, 0), TG_FULL);
    CHECK_STATUS(tg_core_destroy(p.core), TG_BUSY);
    uint64_t n;
    CHECK_OK(tg_group_cancel(group, &n));
    CHECK_EQ(n, N);
    CHECK(tg_group_done(group));
    CHECK_EQ(group_stats(group).outcomes[TG_OUTCOME_CANCELLED], N);
    call.n = 0;
    CHECK_OK(tg_core_submit_ccall(p.core, second, &call, 0));
    CHECK(tg_group_done(second));
    stop_pool(&p);
}

static void a_rate_holds_for_elements_too(void)
{
    static double in[50], out[50];
    struct pool_fixture p;
    start_pool(&p, (struct tg_lane_options){.concurrency = 2}, 0);
    struct tg_limit *limit, *keyed;
    struct tg_limit_options options = {.kind = TG_LIMIT_RATE, .count = 1000, .period_ns = SECOND, .burst = 10};
    struct tg_limit_options keys = {.kind = TG_LIMIT_CONCURRENCY, .keyed = 1, .capacity = 1};
    CHECK_OK(tg_limit_create(p.core, &options, &limit));
    CHECK_OK(tg_limit_create(p.core, &keys, &keyed));
    CHECK_STATUS(tg_lane_attach(p.lane, keyed), TG_INVALID);
    CHECK_OK(tg_lane_attach(p.lane, limit));
    CHECK_OK(tg_cpool_create(p.core, 2, &p.pool));
    struct tg_group *group = add_group(p.lane, (struct tg_group_options){.histograms = 1});
    struct tg_ccall call = {.n = 50, .double_function = twice, .in_doubles = in, .out_doubles = out};
    uint64_t began = tg_core_now(p.core);
    CHECK_OK(tg_core_submit_ccall(p.core, group, &call, 0));
    CHECK_OK(tg_group_wait(group, 60 * SECOND));
    CHECK_GE(tg_core_now(p.core) - began, 40 * MS); /* 10 at once, then one per ms */
    CHECK_EQ(limit_stats(limit).granted, 50);
    CHECK_GE(group_stats(group).max_ns[TG_CLASS_LIMITED], 30 * MS);
    check_group(group, 50);
    stop_pool(&p);
}

static void simulated_work_follows_its_plan(void)
{
    struct tg_simulation s = {.min_ns = 1000, .max_ns = 200000, .failure_rate = 0.1, .seed = 5};
    int failures = 0;
    for (s.element = 0; s.element < 10000; s.element++) {
        uint64_t planned, again;
        int failed, failed_again;
        tg_simulate_plan(&s, &planned, &failed);
        tg_simulate_plan(&s, &again, &failed_again);
        CHECK_EQ(planned, again);
        CHECK_EQ(failed, failed_again);
        CHECK_GE(planned, 1000);
        CHECK_LE(planned, 200000);
        failures += failed;
    }
    CHECK_GE(failures, 850);
    CHECK_LE(failures, 1150);
    for (s.spin = 0; s.spin < 2; s.spin++) {
        struct tg_simulated result;
        size_t size;
        int failed;
        uint64_t planned;
        tg_simulate_plan(&s, &planned, &failed);
        CHECK_EQ(tg_simulate(&s, sizeof s, &result, sizeof result, &size), failed);
        CHECK_EQ(size, sizeof result);
        CHECK_EQ(result.planned_ns, planned);
        CHECK_GE(result.took_ns, planned);
    }
    size_t size;
    CHECK(tg_simulate(&s, 3, NULL, 0, &size) == -1);
    CHECK(tg_simulate_sleep(0.0001) >= 0.0001);
    CHECK(tg_simulate_spin(0.0001) >= 0.0001);
    CHECK(tg_simulate_sleep(-1) < 1);
}

/* Work of a fixed cost: the same values from any thread, and every element's times in a bucket, however they were counted. */
static void the_pool_computes_what_the_plain_loop_does(void)
{
    static double in[N], out[N], expected[N];
    struct pool_fixture p;
    start_pool(&p, (struct tg_lane_options){.concurrency = 2}, 2);
    struct tg_group *group = add_group(p.lane, (struct tg_group_options){.histograms = 1});
    for (int i = 0; i < N; i++) {
        in[i] = i % 50;
    }
    tg_simulate_loop(tg_simulate_work, in, expected, N);
    struct tg_ccall call = {.n = N, .double_function = tg_simulate_work, .in_doubles = in, .out_doubles = out};
    CHECK_OK(tg_core_submit_ccall(p.core, group, &call, 0));
    CHECK_OK(tg_group_wait(group, 60 * SECOND));
    CHECK(memcmp(out, expected, sizeof out) == 0);
    CHECK(expected[1] != expected[2]);
    for (int class_ = 0; class_ < TG_CLASSES; class_++) {
        static struct tg_coarse_entry entries[TG_COARSE_BUCKETS];
        size_t used, counted = 0;
        CHECK_OK(tg_group_get_coarse(group, (enum tg_class)class_, entries, TG_COARSE_BUCKETS, &used));
        for (size_t i = 0; i < used; i++) {
            counted += entries[i].count;
        }
        CHECK_EQ(counted, N);
    }
    check_group(group, N);
    stop_pool(&p);
}

static void destroying_a_busy_pool_keeps_what_is_unclaimed(void)
{
    static double in[N], out[N];
    struct pool_fixture p;
    start_pool(&p, (struct tg_lane_options){.concurrency = 2}, 2);
    struct tg_group *group = add_group(p.lane, (struct tg_group_options){0});
    for (int i = 0; i < N; i++) {
        in[i] = 1e-6;
    }
    struct tg_ccall call = {.n = N, .double_function = tg_simulate_spin, .in_doubles = in, .out_doubles = out};
    CHECK_OK(tg_core_submit_ccall(p.core, group, &call, 0));
    CHECK_OK(tg_cpool_destroy(p.pool));
    CHECK_OK(tg_cpool_create(p.core, 1, &p.pool)); /* another pool goes on */
    CHECK_OK(tg_group_wait(group, 60 * SECOND));
    CHECK_EQ(group_stats(group).outcomes[TG_OUTCOME_SUCCEEDED], N);
    stop_pool(&p);
}

/* Its first thread may be at work before the second is there, and before the pool is anybody's. */
static void work_may_be_waiting_when_a_pool_is_made(void)
{
    enum { COUNT = 256, ROUNDS = 100 };
    static double in[COUNT], out[COUNT];
    struct pool_fixture p;
    start_pool(&p, (struct tg_lane_options){.concurrency = 2}, 2);
    for (int round = 0; round < ROUNDS; round++) {
        CHECK_OK(tg_cpool_destroy(p.pool));
        struct tg_group *group = add_group(p.lane, (struct tg_group_options){0});
        struct tg_ccall call = {.n = COUNT, .double_function = tg_simulate_spin, .in_doubles = in, .out_doubles = out};
        CHECK_OK(tg_core_submit_ccall(p.core, group, &call, 0));
        CHECK_OK(tg_cpool_create(p.core, 2, &p.pool));
        CHECK_OK(tg_group_wait(group, 60 * SECOND));
        CHECK_EQ(group_stats(group).outcomes[TG_OUTCOME_SUCCEEDED], COUNT);
        CHECK_OK(tg_group_destroy(group));
    }
    stop_pool(&p);
}

static void how_each_element_ended_is_written_down(void)
{
    static struct bytes_call b;
    static struct tg_ccall_end ends[N];
    enum { COUNT = 400 };
    struct pool_fixture p;
    start_pool(&p, (struct tg_lane_options){.concurrency = 2, .retry = {.attempts = 3, .base_ns = 1000}}, 2);
    struct tg_group *group = add_group(p.lane, (struct tg_group_options){.histograms = 1});
    struct tg_ccall call = make_call(&b, COUNT, flaky);
    call.ends = ends;
    CHECK_OK(tg_core_submit_ccall(p.core, group, &call, 0));
    CHECK_OK(tg_group_wait(group, 60 * SECOND));
    for (uint32_t i = 0; i < COUNT; i++) {
        bool final = i % 100 == 99, spent = i % 4 == 3;
        CHECK_EQ(ends[i].outcome, final || spent ? TG_OUTCOME_FAILED : TG_OUTCOME_SUCCEEDED);
        CHECK_EQ(ends[i].attempts, atomic_load(&calls[i]));
        CHECK_EQ(ends[i].reason, final ? TG_REASON_FINAL : spent ? TG_REASON_ATTEMPTS : TG_REASON_NONE);
    }
    CHECK_OK(tg_group_destroy(group));
    stop_pool(&p);
}

static void an_element_that_returns_late_has_timed_out_and_is_retried(void)
{
    double in[3] = {0, 0.02, 0}, out[3] = {-1, -1, -1};
    struct tg_ccall_end ends[3] = {0};
    struct pool_fixture p;
    start_pool(&p, (struct tg_lane_options){.concurrency = 1, .timeout_ns = 10 * MS,
                                            .retry = {.attempts = 2, .retry_timeouts = 1}}, 1);
    struct tg_group *group = add_group(p.lane, (struct tg_group_options){.histograms = 1});
    struct tg_ccall call = {.n = 3, .double_function = tg_simulate_sleep, .in_doubles = in, .out_doubles = out,
                            .ends = ends};
    CHECK_OK(tg_core_submit_ccall(p.core, group, &call, 0));
    CHECK_OK(tg_group_wait(group, 60 * SECOND));
    CHECK_EQ(ends[1].outcome, TG_OUTCOME_TIMED_OUT);
    CHECK_EQ(ends[1].attempts, 2);
    CHECK_GE(ends[1].run_ns, 40 * MS);
    CHECK_GE(group_stats(group).outcomes[TG_OUTCOME_TIMED_OUT], 1);
    CHECK_OK(tg_group_destroy(group));
    stop_pool(&p);
}

static void *wait_for_the_end(void *core)
{
    CHECK_OK(tg_core_wait(core, TG_KIND_SYNC, 60 * SECOND));
    return NULL;
}

/* The pool's thread goes to sleep right after the end, with no lock released in between. */
static void a_thread_that_waits_for_another_kind_hears_of_the_end(void)
{
    double in[1] = {0.02}, out[1];
    pthread_t thread;
    struct pool_fixture p;
    start_pool(&p, (struct tg_lane_options){.concurrency = 1}, 1);
    struct tg_group *group = add_group(p.lane, (struct tg_group_options){0});
    CHECK_EQ(pthread_create(&thread, NULL, wait_for_the_end, p.core), 0);
    struct tg_ccall call = {.n = 1, .double_function = tg_simulate_sleep, .in_doubles = in, .out_doubles = out};
    CHECK_OK(tg_core_submit_ccall(p.core, group, &call, 0));
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(tg_group_done(group));
    CHECK_OK(tg_group_destroy(group));
    stop_pool(&p);
}

RUN(TEST(doubles_are_all_computed), TEST(a_pool_grows_while_it_works),
    TEST(work_may_be_waiting_when_a_pool_is_made), TEST(how_each_element_ended_is_written_down),
    TEST(an_element_that_returns_late_has_timed_out_and_is_retried),
    TEST(a_thread_that_waits_for_another_kind_hears_of_the_end), TEST(failures_are_retried_by_the_policy),
    TEST(a_call_nobody_works_on_can_be_cancelled), TEST(a_rate_holds_for_elements_too),
    TEST(simulated_work_follows_its_plan), TEST(the_pool_computes_what_the_plain_loop_does),
    TEST(destroying_a_busy_pool_keeps_what_is_unclaimed))
