/* bench_core.c - what an item costs in the core: submit, run, finish; C functions on threads against the plain loop.
 *
 *   bench_core [items] [rounds]     prints its parameters, then median and best of all rounds in ns per item
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tidegate/tidegate.h"

enum { MAX_ROUNDS = 101 };

static uint64_t now_ns(void)
{
    return tg_clock_monotonic.now_ns(NULL);
}

static void must(tg_status status, const char *what)
{
    if (status != TG_OK) {
        fprintf(stderr, "%s: %s\n", what, tg_status_message(status));
        exit(1);
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts the values: the best comes first. On a busy machine the best tells what the code costs, the median what the
 * machine does. */
static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, by_size);
    return values[n / 2];
}

struct setup {
    struct tg_core *core;
    struct tg_lane *lane;
    struct tg_group *group;
};

static struct setup start(enum tg_kind kind, const struct tg_core_options *options, uint32_t threads, uint64_t rate)
{
    struct setup s;
    struct tg_lane_options lane = {.name = "bench", .kind = kind, .concurrency = 100, .timeout_ns = 1000000000,
                                   .retry = {.attempts = 3, .base_ns = 1000000, .budget_ratio = 0.1,
                                             .deadline_ns = 60000000000u}};
    (void)threads;
    must(tg_core_create(options, &s.core), "core");
    must(tg_lane_create(s.core, &lane, &s.lane), "lane");
    if (rate != 0) {
        struct tg_limit *limit;
        struct tg_limit_options l = {.kind = TG_LIMIT_RATE, .count = rate, .period_ns = 1000000000, .burst = 1000000};
        must(tg_limit_create(s.core, &l, &limit), "limit");
        must(tg_lane_attach(s.lane, limit), "attach");
    }
    struct tg_group_options group = {.histograms = 1, .open = 1};
    must(tg_group_create(s.lane, &group, &s.group), "group");
    return s;
}

static void stop(struct setup *s)
{
    must(tg_group_seal(s->group), "seal");
    must(tg_group_destroy(s->group), "group");
    must(tg_core_destroy(s->core), "destroy");
}

/* The loop of a binding's thread, with an empty function. */
static void run_all(struct setup *s, struct tg_journal *journal, uint32_t slot)
{
    struct tg_run *run, *next;
    struct tg_item *decided[TG_RUN_MAX], *item;
    const unsigned char *token = tg_group_token(s->group);
    size_t n_decided;
    uint64_t due;
    must(tg_core_claim(s->core, TG_KIND_SYNC, 1, 0, &run, &due), "claim");
    while (run != NULL) {
        uint64_t now = tg_run_now(run);
        while ((item = tg_run_take(run, now)) != NULL) {
            if (journal != NULL) {
                tg_journal_begin(journal, slot, token, item->position, item->attempts, now, 1);
            }
            now = tg_run_now(run);
            tg_item_end(item, TG_VERDICT_OK, 0, now);
        }
        must(tg_core_finish_claim(s->core, run, TG_KIND_SYNC, 1, now, decided, TG_RUN_MAX, &n_decided, &next, &due),
             "finish");
        run = next;
    }
}

static void next_all(struct setup *s)
{
    struct tg_item *items[64];
    uint8_t decisions[64];
    size_t n;
    uint64_t due;
    for (;;) {
        must(tg_core_next(s->core, TG_KIND_SYNC, 0, items, 64, &n, &due), "next");
        if (n == 0) {
            return;
        }
        uint64_t now = now_ns();
        for (size_t i = 0; i < n; i++) {
            tg_item_end(items[i], TG_VERDICT_OK, 0, now);
        }
        must(tg_core_complete(s->core, items, n, 1, now, decisions), "complete");
    }
}

enum mode { RUNS, RUNS_JOURNAL, ONE_BY_ONE, RATE };

static void bench_items(const char *name, enum mode mode, const struct tg_core_options *options, size_t items, int rounds)
{
    double submit[MAX_ROUNDS], run[MAX_ROUNDS];
    struct setup s = start(TG_KIND_SYNC, options, 1, mode == RATE ? 1000000000 : 0);
    struct tg_journal *journal = NULL;
    uint32_t slot = 0;
    const char *path = "/tmp/tidegate-bench.journal";
    if (mode == RUNS_JOURNAL) {
        must(tg_journal_create(path, 8, &journal), "journal");
        must(tg_journal_acquire(journal, &slot), "slot");
    }
    for (int r = 0; r < rounds; r++) {
        size_t accepted;
        uint64_t t0 = now_ns();
        for (size_t done = 0; done < items; done += 1000) {
            must(tg_core_submit(s.core, s.group, 1000, NULL, NULL, done, 0, &accepted), "submit");
        }
        uint64_t t1 = now_ns();
        if (mode == ONE_BY_ONE) {
            next_all(&s);
        } else {
            run_all(&s, journal, slot);
        }
        uint64_t t2 = now_ns();
        submit[r] = (double)(t1 - t0) / (double)items;
        run[r] = (double)(t2 - t1) / (double)items;
    }
    tg_journal_destroy(journal);
    remove(path);
    double submit_median = median(submit, rounds), run_median = median(run, rounds);
    printf("%-30s submit %6.1f (best %5.1f)   claim, take, end, settle %6.1f (best %5.1f) ns/item\n", name, submit_median,
           submit[0], run_median, run[0]);
    stop(&s);
}

/* Work of `turns` steps: the plain loop, then pools of one and two threads, one after the other in every round. */
static void bench_doubles(double turns, size_t items, int rounds)
{
    struct setup setups[3];
    struct tg_cpool *pools[3];
    double *in = malloc(items * sizeof *in), *out = malloc(items * sizeof *out);
    double loop[MAX_ROUNDS], pool_time[3][MAX_ROUNDS];
    for (size_t i = 0; i < items; i++) {
        in[i] = turns;
    }
    for (uint32_t threads = 1; threads <= 2; threads++) {
        setups[threads] = start(TG_KIND_C, NULL, threads, 0);
        must(tg_cpool_create(setups[threads].core, threads, &pools[threads]), "pool");
    }
    for (int r = 0; r < rounds; r++) {
        uint64_t began = now_ns();
        tg_simulate_loop(tg_simulate_work, in, out, items);
        loop[r] = (double)(now_ns() - began) / (double)items;
        for (uint32_t threads = 1; threads <= 2; threads++) {
            struct setup *s = &setups[threads];
            struct tg_group *group;
            struct tg_group_options options = {.histograms = 1};
            struct tg_ccall spec = {
                .n = items, .double_function = tg_simulate_work, .in_doubles = in, .out_doubles = out};
            uint64_t t0 = now_ns();
            must(tg_group_create(s->lane, &options, &group), "group");
            must(tg_core_submit_ccall(s->core, group, &spec, 0), "call");
            must(tg_group_wait(group, TG_NEVER), "wait");
            pool_time[threads][r] = (double)(now_ns() - t0) / (double)items;
            must(tg_group_destroy(group), "destroy");
        }
    }
    for (uint32_t threads = 1; threads <= 2; threads++) {
        must(tg_cpool_destroy(pools[threads]), "pool");
        stop(&setups[threads]);
    }
    char name[64];
    snprintf(name, sizeof name, "C function, %.0f steps", turns);
    double l = median(loop, rounds), one = median(pool_time[1], rounds), two = median(pool_time[2], rounds);
    printf("%-30s loop %6.1f (best %5.1f)   1 thread %6.1f (best %5.1f)   2 threads %6.1f (best %5.1f) ns/item   %.2f x "
           "the loop's speed (best %.2f x)\n",
           name, l, loop[0], one, pool_time[1][0], two, pool_time[2][0], l / two, loop[0] / pool_time[2][0]);
    free(in);
    free(out);
}

int main(int argc, char **argv)
{
    size_t items = argc > 1 ? strtoul(argv[1], NULL, 10) : 200000;
    int rounds = argc > 2 ? atoi(argv[2]) : 7;
    items = items < 1000 ? 1000 : items / 1000 * 1000;
    rounds = rounds < 1 ? 1 : rounds > MAX_ROUNDS ? MAX_ROUNDS : rounds;
    printf("tidegate core %s: %zu items, %d rounds, batches of 1000, constant TSC %s\n", tg_version(), items,
           rounds, tg_clock_tsc_usable() ? "yes" : "no");
    struct tg_core_options no_slabs = {.no_slabs = 1}, no_tsc = {.no_tsc = 1};
    bench_items("runs", RUNS, NULL, items, rounds);
    bench_items("runs, crash journal", RUNS_JOURNAL, NULL, items, rounds);
    bench_items("runs, no slabs", RUNS, &no_slabs, items, rounds);
    bench_items("runs, clock_gettime", RUNS, &no_tsc, items, rounds);
    bench_items("one by one, 64 at a time", ONE_BY_ONE, NULL, items, rounds);
    bench_items("rate limit that never bites", RATE, NULL, items, rounds);
    bench_doubles(1, items * 5, rounds);
    bench_doubles(30, items * 5, rounds);
    bench_doubles(60, items * 5, rounds);
    bench_doubles(500, items, rounds);
    return 0;
}
