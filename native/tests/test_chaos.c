/* Random calls in random order on a set clock: nothing is lost, nothing ends twice, no limit is exceeded, nothing is left. */
#include <stdbool.h>

#include "fixture.h"
#include "random.h"

enum { LANES = 4, GROUPS = 12, MAX_HELD = 40, MAX_RUNS = 6, STEPS = 6000 };

struct held_run {
    struct tg_run *run;
    struct tg_item *current; /* taken and not ended */
};

struct chaos {
    struct fixture f;
    struct tg__random random;
    struct tg_limit *keyed, *rate, *supplied, *shared, *breaker;
    struct tg_lane *lanes[LANES];
    struct tg_group *groups[GROUPS];
    uint64_t submitted, ended;
    struct tg_item *held[MAX_HELD]; /* running one by one */
    size_t n_held;
    struct held_run runs[MAX_RUNS];
    size_t n_runs;
};

static uint64_t pick(struct chaos *c, uint64_t n)
{
    return tg__random_upto(&c->random, n - 1);
}

static void settle_item(struct chaos *c, struct tg_item *item)
{
    CHECK_EQ(item->state, TG_ITEM_SETTLING);
    CHECK(item->outcome != TG_OUTCOME_NONE);
    uint64_t settling = c->f.now - item->mark_ns;
    CHECK_EQ(item->queued_ns + item->limited_ns + item->backoff_ns + item->running_ns + settling,
             c->f.now - item->submit_ns);
    settle(&c->f, item);
}

static void do_submit(struct chaos *c)
{
    struct tg_group *group = c->groups[pick(c, GROUPS)];
    uint32_t n_keys = tg_lane_keys(tg_group_lane(group));
    uint64_t keys[64];
    size_t n = 1 + pick(c, 20), accepted;
    for (size_t i = 0; i < n * (n_keys != 0 ? n_keys : 1); i++) {
        keys[i] = pick(c, 5);
    }
    tg_status status = tg_core_submit(c->f.core, group, n, NULL, keys, c->submitted, 0, &accepted);
    CHECK(status == TG_OK || status == TG_FULL || status == TG_CLOSED);
    c->submitted += accepted;
}

static void do_next(struct chaos *c)
{
    struct tg_item *item;
    if (c->n_held < MAX_HELD && (item = next_item(&c->f)) != NULL) {
        c->held[c->n_held++] = item;
    }
}

static enum tg_verdict any_verdict(struct chaos *c)
{
    const enum tg_verdict verdicts[] = {TG_VERDICT_OK,        TG_VERDICT_OK,        TG_VERDICT_OK, TG_VERDICT_FAIL_RETRYABLE,
                                        TG_VERDICT_FAIL_FINAL, TG_VERDICT_TIMED_OUT, TG_VERDICT_CANCELLED};
    return verdicts[pick(c, 7)];
}

static void do_complete(struct chaos *c)
{
    if (c->n_held == 0) {
        return;
    }
    size_t which = pick(c, c->n_held);
    struct tg_item *item = c->held[which];
    c->held[which] = c->held[--c->n_held];
    if (pick(c, 10) == 0) {
        CHECK_OK(tg_core_return(c->f.core, item, 0));
        return;
    }
    uint8_t decision;
    tg_item_end(item, any_verdict(c), pick(c, 4) == 0 ? pick(c, 5000) : 0, c->f.now);
    CHECK_OK(tg_core_complete(c->f.core, &item, 1, (int)pick(c, 2), 0, &decision));
    if (decision == TG_DECISION_SETTLE) {
        settle_item(c, item);
    }
}

static void do_claim(struct chaos *c)
{
    struct tg_run *run;
    uint64_t due;
    if (c->n_runs == MAX_RUNS) {
        return;
    }
    CHECK_OK(tg_core_claim(c->f.core, TG_KIND_SYNC | TG_KIND_COROUTINE, 1, 0, &run, &due));
    if (run != NULL) {
        c->runs[c->n_runs++] = (struct held_run){run, NULL};
    }
}

static void step_run(struct chaos *c, bool finish_it)
{
    if (c->n_runs == 0) {
        return;
    }
    size_t which = pick(c, c->n_runs);
    struct held_run *held = &c->runs[which];
    if (held->current != NULL && pick(c, 5) == 0 && c->n_held < MAX_HELD) {
        if (tg_core_detach(c->f.core, held->run, held->current) == TG_OK) {
            c->held[c->n_held++] = held->current;
            held->current = NULL;
        }
    }
    if (held->current != NULL) {
        tg_item_end(held->current, any_verdict(c), 0, c->f.now);
        held->current = NULL;
    }
    if (!finish_it) {
        held->current = tg_run_take(held->run, c->f.now);
        return;
    }
    struct tg_item *decided[TG_RUN_MAX];
    size_t n, room = pick(c, 2) != 0 ? TG_RUN_MAX : 1;
    CHECK_OK(tg_core_finish(c->f.core, held->run, 0, decided, room, &n));
    for (size_t i = 0; i < n; i++) {
        settle_item(c, decided[i]);
    }
    c->runs[which] = c->runs[--c->n_runs];
}

static void do_settle(struct chaos *c)
{
    struct tg_item *item;
    while ((item = take_settled(&c->f)) != NULL) {
        settle_item(c, item);
    }
}

static void replace_group(struct chaos *c, size_t which)
{
    struct tg_group_options options = {.open = 1, .histograms = (int)pick(c, 2), .max_wait_ns = pick(c, 3) == 0 ? 1500 : 0};
    c->groups[which] = add_group(c->lanes[which % LANES], options);
}

static void do_stop_group(struct chaos *c)
{
    size_t which = pick(c, GROUPS);
    struct tg_group *group = c->groups[which];
    CHECK_OK(pick(c, 2) ? tg_group_cancel(group, NULL) : tg_group_drain(group, NULL));
    CHECK_OK(tg_group_seal(group));
    replace_group(c, which);
}

static void do_change(struct chaos *c)
{
    uint64_t now = c->f.now;
    switch (pick(c, 8)) {
    case 0:
        CHECK_OK(tg_limit_set_capacity(c->shared, (uint32_t)pick(c, 5)));
        break;
    case 1:
        CHECK_OK(tg_limit_set_capacity(c->keyed, 1 + (uint32_t)pick(c, 2)));
        break;
    case 2:
        CHECK_OK(tg_limit_pause_until(c->shared, now + pick(c, 3000)));
        break;
    case 3:
        CHECK_OK(tg_limit_pause_key_until(c->keyed, pick(c, 5), now + pick(c, 3000)));
        break;
    case 4:
        tg_limit_offer(c->supplied, now + pick(c, 1000), pick(c, 50), 1 + (uint32_t)pick(c, 20), pick(c, 2000));
        break;
    case 5:
        CHECK_OK(tg_lane_set_concurrency(c->lanes[pick(c, LANES)], 1 + (uint32_t)pick(c, 5)));
        break;
    case 6:
        CHECK_OK(tg_lane_set_paused(c->lanes[pick(c, LANES)], (int)pick(c, 2)));
        break;
    default:
        CHECK_OK(tg_limit_set_rate(c->rate, 1 + pick(c, 100), 100000, 1 + (uint32_t)pick(c, 5)));
    }
}

static void do_look(struct chaos *c)
{
    struct tg_overdue overdue[8];
    size_t n;
    CHECK_OK(tg_core_overdue(c->f.core, 0, overdue, 8, &n, NULL));
    for (int i = 0; i < LANES; i++) {
        struct tg_lane_stats s = lane_stats(c->lanes[i]);
        CHECK_EQ(s.ready + s.limited + s.backing_off + s.claimed + s.settling <= s.inside, 1);
        uint64_t ended = 0;
        for (int k = 0; k < TG_OUTCOMES; k++) {
            ended += s.outcomes[k];
        }
        CHECK_EQ(ended + s.inside, s.submitted);
    }
    if (pick(c, 10) == 0) {
        tg_limit_trim(c->keyed);
    }
}

static void step(struct chaos *c)
{
    set_time(&c->f, c->f.now + pick(c, 200));
    switch (pick(c, 12)) {
    case 0:
        do_submit(c);
        break;
    case 1:
    case 2:
        do_next(c);
        break;
    case 3:
    case 4:
        do_complete(c);
        break;
    case 5:
        do_claim(c);
        break;
    case 6:
    case 7:
    case 8:
        step_run(c, pick(c, 6) == 0);
        break;
    case 9:
        do_settle(c);
        break;
    case 10:
        if (pick(c, 10) == 0) {
            do_stop_group(c);
        } else {
            do_change(c);
        }
        break;
    default:
        do_look(c);
    }
}

static void setup(struct chaos *c, uint64_t seed)
{
    memset(c, 0, sizeof *c);
    tg__random_seed(&c->random, seed);
    start_with(&c->f, (struct tg_core_options){.seed = seed, .steal_after_ns = 500, .no_slabs = seed % 3 == 0});
    c->keyed = add_limit(&c->f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .keyed = 1, .capacity = 2});
    c->shared = add_limit(&c->f, (struct tg_limit_options){.kind = TG_LIMIT_CONCURRENCY, .capacity = 4});
    c->rate = add_limit(&c->f, (struct tg_limit_options){.kind = TG_LIMIT_RATE, .count = 10, .period_ns = 10000, .burst = 3});
    c->supplied = add_limit(&c->f, (struct tg_limit_options){.kind = TG_LIMIT_SUPPLIED});
    c->breaker = add_limit(&c->f, (struct tg_limit_options){.kind = TG_LIMIT_BREAKER, .failure_ratio = 0.6, .min_calls = 5,
                                                            .window_ns = 5000, .open_ns = 2000, .probes = 2,
                                                            .keyed = seed & 1, .refuse = (seed >> 1) & 1});
    struct tg_limit *limits[LANES][3] = {
        {c->shared, c->breaker}, {c->keyed, c->rate, c->shared}, {c->supplied, c->keyed}, {c->shared}};
    for (uint32_t i = 0; i < LANES; i++) {
        c->lanes[i] = add_lane(
            &c->f, (struct tg_lane_options){.kind = i & 1 ? TG_KIND_COROUTINE : TG_KIND_SYNC, .concurrency = 3,
                                            .priority = i / 2, .capacity = 60, .timeout_ns = 2000, .run_max = 10,
                                            .retry = {.attempts = 4, .base_ns = 300, .jitter = (enum tg_jitter)i,
                                                      .retry_timeouts = 1, .budget_ratio = i == 3 ? 0.5 : 0,
                                                      .deadline_ns = i == 1 ? 100000 : 0}});
        for (int k = 0; k < 3 && limits[i][k] != NULL; k++) {
            CHECK_OK(tg_lane_attach(c->lanes[i], limits[i][k]));
        }
    }
    for (size_t i = 0; i < GROUPS; i++) {
        replace_group(c, i);
    }
}

/* Opens everything and lets all items end. */
static void wind_down(struct chaos *c)
{
    CHECK_OK(tg_limit_set_capacity(c->shared, 4));
    CHECK_OK(tg_limit_pause_until(c->shared, 0));
    for (int i = 0; i < LANES; i++) {
        CHECK_OK(tg_lane_set_paused(c->lanes[i], 0));
    }
    for (size_t i = 0; i < GROUPS; i++) {
        CHECK_OK(tg_group_seal(c->groups[i]));
    }
    for (int patience = 0; core_stats(&c->f).items_live != 0; patience++) {
        CHECK(patience < 20000);
        tg_limit_offer(c->supplied, c->f.now, 1, 5, 100);
        do_next(c);
        do_complete(c);
        step_run(c, true);
        do_settle(c);
        uint64_t due = when_due(&c->f);
        set_time(&c->f, due != TG_NEVER && due > c->f.now && c->n_held == 0 ? due : c->f.now + 50);
    }
    while (c->n_runs != 0) {
        step_run(c, true);
    }
}

static void nothing_is_lost_in_any_order_of_calls(void)
{
    static struct chaos c;
    for (uint64_t seed = 1; seed <= 24; seed++) {
        setup(&c, seed);
        for (int i = 0; i < STEPS; i++) {
            step(&c);
        }
        wind_down(&c);
        uint64_t total = 0;
        for (int i = 0; i < LANES; i++) {
            struct tg_lane_stats s = lane_stats(c.lanes[i]);
            CHECK_EQ(s.inside, 0);
            CHECK_EQ(s.running, 0);
            for (int k = 0; k < TG_OUTCOMES; k++) {
                total += s.outcomes[k];
            }
            CHECK_EQ(s.ready + s.limited + s.backing_off + s.claimed + s.settling, 0);
        }
        CHECK_EQ(total, c.submitted);
        CHECK_EQ(limit_stats(c.shared).in_use, 0);
        CHECK_EQ(limit_stats(c.keyed).in_use, 0);
        CHECK_EQ(limit_stats(c.keyed).demand, 0);
        finish(&c.f);
    }
}

RUN(TEST(nothing_is_lost_in_any_order_of_calls))
