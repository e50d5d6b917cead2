/* fixture.h - a core on a clock that the test sets, and one-line forms of the calls that most tests make. */
#ifndef TIDEGATE_FIXTURE_H
#define TIDEGATE_FIXTURE_H

#include "check.h"
#include "tidegate/tidegate.h"

#define MS ((uint64_t)1000000)
#define SECOND ((uint64_t)1000000000)

struct fixture {
    uint64_t now;
    struct tg_clock clock;
    struct tg_core *core;
};

static inline void set_time(struct fixture *f, uint64_t now)
{
    __atomic_store_n(&f->now, now, __ATOMIC_RELAXED);
}

static inline void start_with(struct fixture *f, struct tg_core_options options)
{
    f->now = 1000 * SECOND;
    f->clock = tg_clock_manual(&f->now);
    options.clock = &f->clock;
    CHECK_OK(tg_core_create(&options, &f->core));
}

static inline void start(struct fixture *f)
{
    start_with(f, (struct tg_core_options){.seed = 42});
}

static inline struct tg_lane *add_lane(struct fixture *f, struct tg_lane_options options)
{
    struct tg_lane *lane;
    if (options.kind == 0) {
        options.kind = TG_KIND_SYNC;
    }
    CHECK_OK(tg_lane_create(f->core, &options, &lane));
    return lane;
}

static inline struct tg_limit *add_limit(struct fixture *f, struct tg_limit_options options)
{
    struct tg_limit *limit;
    CHECK_OK(tg_limit_create(f->core, &options, &limit));
    return limit;
}

static inline struct tg_group *add_group(struct tg_lane *lane, struct tg_group_options options)
{
    struct tg_group *group;
    CHECK_OK(tg_group_create(lane, &options, &group));
    return group;
}

static inline void submit(struct fixture *f, struct tg_group *group, size_t n, uint64_t first)
{
    size_t accepted;
    CHECK_OK(tg_core_submit(f->core, group, n, NULL, NULL, first, 0, &accepted));
    CHECK_EQ(accepted, n);
}

static inline void submit_key(struct fixture *f, struct tg_group *group, uint64_t key, uint64_t position)
{
    size_t accepted;
    CHECK_OK(tg_core_submit(f->core, group, 1, NULL, &key, position, 0, &accepted));
    CHECK_EQ(accepted, 1);
}

/* A group of n items at positions 0... */
static inline struct tg_group *submit_group(struct fixture *f, struct tg_lane *lane, size_t n)
{
    struct tg_group *group = add_group(lane, (struct tg_group_options){.histograms = 1});
    submit(f, group, n, 0);
    return group;
}

/* Starts one item; NULL when nothing can start. */
static inline struct tg_item *next_item(struct fixture *f)
{
    struct tg_item *item;
    size_t n;
    uint64_t due;
    CHECK_OK(tg_core_next(f->core, TG_KIND_SYNC | TG_KIND_COROUTINE, 0, &item, 1, &n, &due));
    return n != 0 ? item : NULL;
}

static inline struct tg_item *must_next(struct fixture *f)
{
    struct tg_item *item = next_item(f);
    CHECK(item != NULL);
    return item;
}

static inline uint64_t when_due(struct fixture *f)
{
    uint64_t due;
    CHECK_OK(tg_core_poll(f->core, 0, &due));
    return due;
}

static inline uint8_t end_item(struct fixture *f, struct tg_item *item, enum tg_verdict verdict, uint64_t retry_after)
{
    uint8_t decision;
    tg_item_end(item, verdict, retry_after, f->now);
    CHECK_OK(tg_core_complete(f->core, &item, 1, 1, 0, &decision));
    return decision;
}

static inline void succeed(struct fixture *f, struct tg_item *item)
{
    CHECK_EQ(end_item(f, item, TG_VERDICT_OK, 0), TG_DECISION_SETTLED);
}

static inline void settle(struct fixture *f, struct tg_item *item)
{
    CHECK_OK(tg_core_settle(f->core, &item, 1, 0));
}

/* Fails an item for good and settles it; answers the reason. */
static inline enum tg_reason fail_for_good(struct fixture *f, struct tg_item *item, enum tg_verdict verdict)
{
    CHECK_EQ(end_item(f, item, verdict, 0), TG_DECISION_SETTLE);
    enum tg_reason reason = (enum tg_reason)item->reason;
    settle(f, item);
    return reason;
}

static inline struct tg_item *take_settled(struct fixture *f)
{
    struct tg_item *item;
    size_t n;
    CHECK_OK(tg_core_take_settled(f->core, &item, 1, &n));
    return n != 0 ? item : NULL;
}

/* Takes and settles everything decided without a thread; all must have this outcome. Answers how many. */
static inline size_t settle_waiting(struct fixture *f, enum tg_outcome outcome)
{
    size_t n = 0;
    struct tg_item *item;
    while ((item = take_settled(f)) != NULL) {
        CHECK_EQ(item->outcome, outcome);
        settle(f, item);
        n++;
    }
    return n;
}

static inline struct tg_lane_stats lane_stats(struct tg_lane *lane)
{
    struct tg_lane_stats stats;
    CHECK_OK(tg_lane_get_stats(lane, &stats));
    return stats;
}

static inline struct tg_limit_stats limit_stats(struct tg_limit *limit)
{
    struct tg_limit_stats stats;
    CHECK_OK(tg_limit_get_stats(limit, &stats));
    return stats;
}

static inline struct tg_group_stats group_stats(struct tg_group *group)
{
    struct tg_group_stats stats;
    CHECK_OK(tg_group_get_stats(group, &stats));
    return stats;
}

static inline struct tg_core_stats core_stats(struct fixture *f)
{
    struct tg_core_stats stats;
    CHECK_OK(tg_core_get_stats(f->core, &stats));
    return stats;
}

/* Nothing may be left: no item, no run, no timer. */
static inline void finish(struct fixture *f)
{
    struct tg_core_stats stats = core_stats(f);
    CHECK_EQ(stats.items_live, 0);
    CHECK_EQ(stats.runs, 0);
    CHECK_EQ(stats.timers, 0);
    CHECK_EQ(stats.settled_waiting, 0);
    CHECK_OK(tg_core_destroy(f->core));
}

#endif
