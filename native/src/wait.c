/* wait.c - blocking: for work (tg_core_wait), for a group (tg_group_wait); waking; figures of the whole core.
 *
 * Threads sleep on a condition variable of core->mutex, with CLOCK_MONOTONIC. A waiting thread looks at everything again when
 * it wakes, so spurious and surplus wake-ups cost time only.
 */
#include "internal.h"

#include <time.h>

static uint64_t real_now(void)
{
    return tg_clock_monotonic.now_ns(NULL);
}

static uint64_t add_time(uint64_t now_ns, uint64_t delay_ns)
{
    uint64_t sum;
    return __builtin_add_overflow(now_ns, delay_ns, &sum) ? TG_NEVER : sum;
}

/* Sleeps until signalled or until_ns on the real clock. */
static void sleep_until(struct tg_core *core, pthread_cond_t *cond, uint64_t until_ns)
{
    if (until_ns == TG_NEVER || until_ns / 1000000000u > INT32_MAX) {
        pthread_cond_wait(cond, &core->mutex);
        return;
    }
    struct timespec t = {(time_t)(until_ns / 1000000000u), (long)(until_ns % 1000000000u)};
    pthread_cond_timedwait(cond, &core->mutex, &t);
}

static bool has_work(const struct tg_core *core, unsigned kinds, bool work_only)
{
    for (unsigned kind = 0; kind < TG__KINDS; kind++) {
        if ((kinds & (1u << kind)) && core->active_priorities[kind] != 0) {
            return true;
        }
    }
    return !work_only && (!tg__list_empty(&core->settled) || !tg__list_empty(&core->done_groups));
}

static bool has_signals(const struct tg_core *core)
{
    return core->to_signal != 0 || core->to_broadcast || (core->to_signal_groups && core->waiting_groups != 0) ||
           (core->to_wake != 0 && core->wake != NULL);
}

/* How long until a timer fires or a run may be stuck, on the core's clock; a manual clock is asked again now and then. */
static uint64_t nap(struct tg_core *core, unsigned kinds, bool watch)
{
    uint64_t due = tg__next_due(core);
    uint64_t reclaim = watch ? tg__run_reclaim_due(core, kinds) : TG_NEVER;
    due = reclaim < due ? reclaim : due;
    if (due == TG_NEVER) {
        return TG_NEVER;
    }
    uint64_t now_ns = core->clock.now_ns(core->clock.ctx);
    return due > now_ns ? due - now_ns : 0;
}

/* work_only: what is settled or done is somebody else's. The caller is counted in waiting_threads. */
tg_status tg__wait_locked(struct tg_core *core, unsigned kinds, uint64_t until_ns, bool work_only)
{
    pthread_cond_t *cond = &core->conds[tg__kind_index(kinds)];
    uint64_t wakes = core->wakes;
    while (!has_work(core, kinds, work_only)) {
        if (has_signals(core)) {
            /* What this thread changed before must be told before it sleeps: sleeping does not go through tg__unlock. */
            tg__unlock(core);
            tg__lock(core);
            if (core->wakes != wakes) {
                return TG_OK;
            }
            continue;
        }
        if (core->closed && core->slabs.live == 0 && core->n_calls == 0) {
            return TG_CLOSED;
        }
        /* One thread at a time watches for stuck runs; the others sleep on. */
        bool watch = core->watchers == 0;
        uint64_t delay = nap(core, kinds, watch);
        if (delay == 0) {
            return TG_OK; /* a call to claim will fire it */
        }
        uint64_t wake_ns = delay == TG_NEVER ? TG_NEVER : add_time(real_now(), delay);
        core->watchers += watch;
        sleep_until(core, cond, wake_ns < until_ns ? wake_ns : until_ns);
        core->watchers -= watch;
        if (core->wakes != wakes) {
            return TG_OK;
        }
        if (until_ns != TG_NEVER && real_now() >= until_ns) {
            return has_work(core, kinds, work_only) ? TG_OK : TG_TIMEOUT;
        }
    }
    return TG_OK;
}

tg_status tg_core_wait(struct tg_core *core, unsigned kinds, uint64_t timeout_ns)
{
    kinds &= TG__ALL_KINDS;
    if (kinds == 0) {
        return TG_INVALID;
    }
    uint64_t until_ns = timeout_ns == TG_NEVER ? TG_NEVER : add_time(real_now(), timeout_ns);
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    unsigned lowest = tg__kind_index(kinds);
    bool several = (kinds & (kinds - 1)) != 0;
    core->waiting_threads[lowest]++;
    core->waiting_several += several;
    status = tg__wait_locked(core, kinds, until_ns, false);
    core->waiting_several -= several;
    core->waiting_threads[lowest]--;
    tg__unlock(core);
    return status;
}

tg_status tg_group_wait(struct tg_group *group, uint64_t timeout_ns)
{
    struct tg_core *core = group->core;
    uint64_t until_ns = timeout_ns == TG_NEVER ? TG_NEVER : add_time(real_now(), timeout_ns);
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    uint64_t wakes = core->wakes;
    core->waiting_groups++;
    while (!tg_group_done(group) && core->wakes == wakes) {
        if (until_ns != TG_NEVER && real_now() >= until_ns) {
            status = TG_TIMEOUT;
            break;
        }
        sleep_until(core, &core->group_cond, until_ns);
    }
    core->waiting_groups--;
    tg__unlock(core);
    return status;
}

void tg_core_wake(struct tg_core *core)
{
    if (tg__lock(core) != TG_OK) {
        return;
    }
    core->wakes++;
    core->to_broadcast = true;
    tg__unlock(core);
}

tg_status tg_core_get_stats(struct tg_core *core, struct tg_core_stats *out)
{
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    const struct tg__slabs *slabs = &core->slabs;
    *out = (struct tg_core_stats){
        .items_live = slabs->live,
        .items_peak = slabs->peak,
        .item_bytes = sizeof(struct tg_item),
        .slabs = slabs->n_slabs,
        .slab_bytes = slabs->n_slabs * 64 * 1024,
        .slab_allocations = slabs->allocations,
        .item_allocations = slabs->handed_out,
        .item_reuses = slabs->reused,
        .timers = core->heap.used + core->n_overflow,
        .lanes = core->n_lanes,
        .limits = core->n_limits,
        .groups = core->n_groups,
        .runs = core->n_runs,
        /* relaxed: changed under the lock that is held here. */
        .settled_waiting = atomic_load_explicit(&core->n_settled, memory_order_relaxed),
    };
    tg__unlock(core);
    return TG_OK;
}
