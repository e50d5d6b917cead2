/* run.c - sequential runs: begin, cut short, put back; and the calibration behind tg_run_now.
 *
 * Guarded by core->mutex, except run->cursor and run->start_ns, which the owner of the run moves without it (run.h).
 * Cutting a run short is a compare-and-swap on the cursor word, so that an item is either taken by the owner or put back.
 */
#include "internal.h"

struct tg_run *tg__run_allocate(struct tg_core *core)
{
    if (!tg__list_empty(&core->spare_runs)) {
        struct tg_run *run = tg__container(core->spare_runs.next, struct tg_run, link);
        tg__list_remove(&run->link);
        return run;
    }
    struct tg_run *run = core->allocator.allocate(core->allocator.ctx, sizeof *run);
    if (run != NULL) {
        run->clock = &core->clock;
    }
    return run;
}

/* run->items[0..n) are filled and their permit is taken. */
void tg__run_begin(struct tg_core *core, struct tg_run *run, struct tg_lane *lane, uint32_t n, uint32_t tag,
                   uint64_t now_ns)
{
    run->lane = lane;
    run->claimed = n;
    run->flushed = 0;
    run->tag = tag;
    run->flags = TG__RUN_PERMIT;
    run->limited_ns = tg__lane_limited(lane, now_ns);
    /* No anchor yet: the first tg_run_now reads the clock. */
    run->anchor_ns = now_ns;
    run->tsc_mult = core->tsc_mult;
    run->anchor_tsc = (uint64_t)1 << 63;
    /* relaxed: the owner gets the run from this call; thieves read these under the same lock. */
    atomic_store_explicit(&run->start_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&run->cursor, (uint64_t)n << 32, memory_order_relaxed);
    tg__list_append(&lane->runs, &run->link);
    lane->n_claimed += n;
    lane->stats.runs++;
    core->n_runs++;
}

void tg__run_free(struct tg_core *core, struct tg_run *run)
{
    tg__list_remove(&run->link);
    tg__list_prepend(&core->spare_runs, &run->link);
    core->n_runs--;
}

/* Ends the run at its cursor. Returns how many items were left and the index of the first: they are the caller's now. */
uint32_t tg__run_truncate(struct tg_run *run, uint32_t *first)
{
    /* acquire: pairs with the release in tg_run_take; the items before the cursor are readable after it. */
    uint64_t word = atomic_load_explicit(&run->cursor, memory_order_acquire);
    for (;;) {
        uint32_t index = (uint32_t)word, end = (uint32_t)(word >> 32);
        *first = index;
        if (index >= end) {
            *first = end;
            return 0;
        }
        uint64_t shorter = (uint64_t)index << 32 | index;
        /* acq_rel: as above, and the owner's next take sees that nothing is left. */
        if (atomic_compare_exchange_weak_explicit(&run->cursor, &word, shorter, memory_order_acq_rel,
                                                  memory_order_acquire)) {
            return end - index;
        }
    }
}

/* Items first..first+n go back to the head of the lane's line, in their order. */
void tg__run_put_back(struct tg_run *run, uint32_t first, uint32_t n)
{
    struct tg_lane *lane = run->lane;
    struct tg_link *before = &lane->resumed;
    for (uint32_t i = 0; i < n; i++) {
        struct tg_item *item = run->items[first + i];
        if (item->limits_held != 0) {
            /* It will ask its keys again, and must not find itself in its own way. */
            uint8_t verdict = item->verdict;
            item->verdict = TG_VERDICT_NONE;
            tg__item_outcome(item, lane->core->now_ns);
            tg__item_release(item, lane->core->now_ns);
            item->verdict = verdict;
        }
        tg__line_put_back(lane, item, before->next); /* before whom its key woke just now */
        before = &item->link;
    }
    lane->n_claimed -= n;
    tg__lane_refresh(lane);
}

/* An item of it has been running too long. A run that was not begun is not stuck: its owner is on the way (it may wait for
 * an interpreter lock that a thief would wait for too), and what it was charged for stays its own. */
static bool is_stuck(struct tg_core *core, struct tg_run *run, uint64_t now_ns)
{
    if ((uint32_t)atomic_load_explicit(&run->cursor, memory_order_relaxed) == 0) {
        return false;
    }
    /* relaxed: see struct tg_run. */
    uint64_t start = atomic_load_explicit(&run->start_ns, memory_order_relaxed);
    return tg_run_left(run) != 0 && now_ns > start && now_ns - start >= core->steal_after_ns;
}

/* Frees what is stuck behind a blocking item: the items behind it go back to the line, those before it are finished. */
static void reclaim_run(struct tg_core *core, struct tg_run *run, uint64_t now_ns)
{
    uint32_t first;
    uint32_t n = tg__run_truncate(run, &first);
    if (n == 0) {
        return;
    }
    run->lane->stats.stolen++;
    tg__run_put_back(run, first, n);
    size_t none = 0;
    /* first - 1 is the item that runs. */
    if (first != 0) {
        tg__run_flush(core, run, first - 1, now_ns, NULL, 0, &none);
    }
}

/* Looks for runs whose item blocks, at most once per steal_after_ns. */
void tg__run_reclaim(struct tg_core *core, unsigned kinds, uint64_t now_ns)
{
    if (core->n_runs == 0 || now_ns < core->reclaim_ns) {
        return;
    }
    uint64_t soonest = TG_NEVER;
    for (struct tg_link *at = core->lanes.next; at != &core->lanes; at = at->next) {
        struct tg_lane *lane = tg__container(at, struct tg_lane, link);
        struct tg_link *next;
        for (struct tg_link *r = lane->runs.next; (kinds & lane->kind) && r != &lane->runs; r = next) {
            next = r->next;
            struct tg_run *run = tg__container(r, struct tg_run, link);
            if (is_stuck(core, run, now_ns)) {
                reclaim_run(core, run, now_ns);
            } else if (tg_run_left(run) != 0) {
                uint64_t start = atomic_load_explicit(&run->start_ns, memory_order_relaxed);
                uint64_t due = start + core->steal_after_ns;
                soonest = due < soonest ? due : soonest;
            }
        }
    }
    core->reclaim_ns = soonest != TG_NEVER && soonest > now_ns ? soonest : now_ns + core->steal_after_ns;
}

/* When a look at runs may find something stuck; TG_NEVER without runs that have items left. */
uint64_t tg__run_reclaim_due(struct tg_core *core, unsigned kinds)
{
    uint64_t due = TG_NEVER;
    if (core->n_runs == 0) {
        return due;
    }
    for (struct tg_link *at = core->lanes.next; at != &core->lanes; at = at->next) {
        struct tg_lane *lane = tg__container(at, struct tg_lane, link);
        for (struct tg_link *r = lane->runs.next; (kinds & lane->kind) && r != &lane->runs; r = r->next) {
            struct tg_run *run = tg__container(r, struct tg_run, link);
            if (tg_run_left(run) != 0) {
                uint64_t start = atomic_load_explicit(&run->start_ns, memory_order_relaxed);
                due = start + core->steal_after_ns < due ? start + core->steal_after_ns : due;
            }
        }
    }
    return due != TG_NEVER && due < core->reclaim_ns ? core->reclaim_ns : due;
}

/* Ticks to nanoseconds, from the core's creation to now: the longer it lives the better it knows. The first millisecond
 * runs on the clock alone. An error of 100 ppm, the worst at that age, is 0.1 us in the millisecond it is used for. */
void tg__tsc_calibrate(struct tg_core *core, uint64_t now_ns)
{
#if defined(__x86_64__)
    if (!core->tsc || now_ns < core->tsc_next_ns) {
        return;
    }
    uint64_t real_ns = core->clock.now_ns(core->clock.ctx);
    uint64_t ticks = __rdtsc() - core->tsc_origin;
    uint64_t elapsed = real_ns - core->tsc_origin_ns;
    core->tsc_next_ns = real_ns + elapsed;
    if (ticks == 0 || elapsed == 0) {
        return;
    }
    unsigned __int128 scaled = (unsigned __int128)elapsed << 32;
    uint64_t mult = (uint64_t)(scaled / ticks);
    /* 0.1 to 10 ns per tick, or the counter is not what it says it is. */
    core->tsc_mult = mult > ((uint64_t)1 << 32) / 10 && mult < ((uint64_t)10 << 32) ? mult : 0;
#else
    (void)core;
    (void)now_ns;
#endif
}
