/* finish.c - ending attempts: whole runs (tg_core_finish), single items (tg_core_complete), attempts not made after all.
 * Guarded by core->mutex.
 */
#include "internal.h"

tg_status tg__finish_locked(struct tg_core *core, struct tg_run *run, uint64_t now_ns, struct tg_item **decided,
                            size_t max, size_t *n_decided);

/* The lane's moving average of run time: quick to rise, so that runs get short at once when items turn slow. */
void tg__learn(struct tg_lane *lane, uint64_t length_ns, uint64_t items)
{
    uint64_t mean = length_ns / items;
    mean = mean != 0 ? mean : 1;
    if (lane->mean_run_ns == 0) {
        lane->mean_run_ns = mean;
        return;
    }
    uint64_t weight = mean > lane->mean_run_ns ? 2 : 8;
    lane->mean_run_ns = (lane->mean_run_ns * (weight - 1) + mean) / weight;
    lane->mean_run_ns += lane->mean_run_ns == 0;
}

/* An attempt that was not ok, or of a lane with per-item permits: the long way. */
enum tg_decision tg__end_attempt(struct tg__scratch *scratch, struct tg_item *item, uint64_t now_ns)
{
    struct tg_lane *lane = item->group->lane;
    if (item->verdict == TG_VERDICT_NONE) {
        item->verdict = TG_VERDICT_CRASHED;
    }
    if (item->mark_ns > now_ns) {
        now_ns = item->mark_ns;
    }
    tg__scratch_attempt(scratch, item);
    tg__count_attempt(item);
    if (lane->has_breaker) {
        tg__item_outcome(item, now_ns);
    }
    if (item->limits_held != 0) {
        tg__item_release(item, now_ns);
    }
    if (item->verdict == TG_VERDICT_OK) {
        tg__budget_earn(lane, 1);
    }
    return tg__decide(item, now_ns);
}

/* Finishes items [run->flushed, until). Those to be settled by the caller go to `decided`, or to core->settled when it
 * is full. */
void tg__run_flush(struct tg_core *core, struct tg_run *run, uint32_t until, uint64_t now_ns, struct tg_item **decided,
                   size_t max, size_t *n_decided)
{
    struct tg_lane *lane = run->lane;
    struct tg__scratch scratch;
    uint64_t n_other = 0, n_ok = 0, length_ns = 0;
    bool simple = !lane->has_breaker;
    tg__scratch_start(&scratch);
    for (uint32_t i = run->flushed; i < until; i++) {
        struct tg_item *item = run->items[i];
        if (item == NULL) {
            continue; /* detached */
        }
        if (simple) {
            uint32_t ended = tg__end_successes(core, &scratch, &run->items[i], until - i, now_ns, &length_ns);
            if (ended != 0) {
                n_ok += ended;
                i += ended - 1;
                continue;
            }
        }
        n_other++;
        length_ns += item->running_ns - item->due_ns;
        if (tg__end_attempt(&scratch, item, now_ns) != TG_DECISION_SETTLE) {
            continue;
        }
        if (item->verdict == TG_VERDICT_OK) {
            tg__settle_one(&scratch, item, now_ns);
        } else if (*n_decided < max) {
            decided[(*n_decided)++] = item;
        } else {
            tg__push_settled(core, item);
        }
    }
    tg__scratch_fold(&scratch);
    run->flushed = until > run->flushed ? until : run->flushed;
    uint64_t n = n_ok + n_other;
    lane->n_claimed -= n;
    lane->stats.started += n_ok;
    lane->stats.attempts_ok += n_ok;
    if (n_ok != 0) {
        tg__budget_earn(lane, n_ok);
    }
    if (n != 0) {
        tg__learn(lane, length_ns, n);
    }
}

tg_status tg__finish_locked(struct tg_core *core, struct tg_run *run, uint64_t now_ns, struct tg_item **decided,
                            size_t max, size_t *n_decided)
{
    uint32_t first;
    uint32_t left = tg__run_truncate(run, &first);
    if (left != 0) {
        tg__run_put_back(run, first, left);
    }
    tg__run_flush(core, run, first, now_ns, decided, max, n_decided);
    if (run->flags & TG__RUN_PERMIT) {
        tg__lane_release(run->lane, now_ns);
    }
    tg__run_free(core, run);
    return TG_OK;
}

tg_status tg_core_finish(struct tg_core *core, struct tg_run *run, uint64_t now_ns, struct tg_item **decided,
                         size_t max, size_t *n_decided)
{
    *n_decided = 0;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    status = tg__finish_locked(core, run, tg__now(core, now_ns), decided, max, n_decided);
    tg__unlock(core);
    return status;
}

tg_status tg_core_complete(struct tg_core *core, struct tg_item *const *items, size_t n, int settle_ok,
                           uint64_t now_ns, uint8_t *decisions)
{
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    now_ns = tg__now(core, now_ns);
    struct tg__scratch scratch;
    tg__scratch_start(&scratch);
    for (size_t i = 0; i < n; i++) {
        struct tg_item *item = items[i];
        struct tg_lane *lane = item->group->lane;
        if (item->state != TG_ITEM_RUNNING) {
            status = TG_INVALID;
            decisions[i] = 0;
            continue;
        }
        tg__list_remove(&item->link);
        if (!TG_KIND_IS_COROUTINE(lane->kind)) {
            /* A coroutine's time is mostly suspended; what it holds the thread for is not known here. */
            tg__learn(lane, item->running_ns - item->due_ns, 1);
        }
        bool ok = item->verdict == TG_VERDICT_OK;
        enum tg_decision decision = tg__end_attempt(&scratch, item, now_ns);
        if (decision == TG_DECISION_SETTLE && ok && settle_ok) {
            tg__settle_one(&scratch, item, now_ns);
            decision = TG_DECISION_SETTLED;
        }
        tg__lane_release(lane, now_ns);
        decisions[i] = (uint8_t)decision;
    }
    tg__scratch_fold(&scratch);
    tg__unlock(core);
    return status;
}

tg_status tg_core_return(struct tg_core *core, struct tg_item *item, uint64_t now_ns)
{
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    if (item->state != TG_ITEM_RUNNING) {
        tg__unlock(core);
        return TG_INVALID;
    }
    now_ns = tg__now(core, now_ns);
    struct tg_lane *lane = item->group->lane;
    tg__list_remove(&item->link);
    tg_item_end(item, TG_VERDICT_NONE, 0, now_ns);
    tg__item_outcome(item, now_ns);
    tg__item_release(item, now_ns);
    item->attempts--;
    struct tg_group *group = item->group;
    if (group->cancelled || group->drained || lane->core->closed_cancel) {
        bool returned = group->drained && !group->cancelled;
        tg__end_waiting(item, returned ? TG_OUTCOME_RETURNED : TG_OUTCOME_CANCELLED,
                        returned ? TG_REASON_DRAINED : TG_REASON_CANCELLED, now_ns);
    } else {
        item->due_ns = tg__lane_limited(lane, now_ns);
        tg__line_put_back(lane, item, lane->resumed.next);
    }
    tg__lane_release(lane, now_ns);
    tg__unlock(core);
    return TG_OK;
}
