/* claim.c - starting items: sequential runs (tg_core_claim), single items (tg_core_next), leaving a run (tg_core_detach).
 *
 * Each takes core->mutex once. Order inside: timers, stuck runs, then the lane whose turn it is; its unkeyed limits, then
 * item by item the keyed ones; then everything is charged at once.
 */
#include "internal.h"

#define NO_MEMORY_NS 10000000u /* items that there was no memory for are tried again */

/* Items of a lane whose breaker is open and set to refuse. */
static void refuse_item(struct tg_item *item, uint64_t now_ns)
{
    struct tg_lane *lane = item->group->lane;
    tg__line_leave(lane, item, now_ns);
    lane->stats.refused_breaker += tg__item_count(item);
    tg__end_waiting(item, TG_OUTCOME_FAILED, TG_REASON_BREAKER, now_ns);
}

static void refuse_lane(struct tg_lane *lane, uint64_t now_ns)
{
    struct tg_item *item;
    while ((item = tg__line_pop(lane, now_ns)) != NULL) {
        tg__item_unwake(item, now_ns);
        refuse_item(item, now_ns);
    }
    lane->stats.refused_breaker += tg__calls_cancel(lane, NULL, TG_OUTCOME_FAILED, now_ns);
    tg__lane_refresh(lane);
}

/* Pops up to max items of the lane that may start. Blocked ones go to their key's line, refused ones end. */
static uint32_t gather(struct tg_lane *lane, struct tg_item **items, uint32_t max, uint64_t now_ns, tg_status *status)
{
    uint32_t n = lane->n_keyed == 0 ? tg__line_cut(lane, items, max, now_ns, status) : 0;
    struct tg_item *item;
    while (lane->n_keyed != 0 && n < max && (item = tg__line_pop(lane, now_ns)) != NULL) {
        /* Leaving the line is charged before the item may enter another. */
        struct tg_link *head = lane->resumed.next;
        tg__line_leave(lane, item, now_ns);
        switch (tg__item_admit(item, now_ns)) {
        case TG__ADMITTED:
            item->due_ns = tg__lane_limited(lane, now_ns);
            items[n++] = item;
            break;
        case TG__REFUSED:
            refuse_item(item, now_ns);
            break;
        case TG__NO_MEMORY:
            item->due_ns = tg__lane_limited(lane, now_ns);
            tg__line_put_back(lane, item, head);
            *status = TG_NOMEM;
            max = 0;
            break;
        case TG__BLOCKED:
            break;
        }
    }
    if (lane->n_ready == 0) {
        tg__lane_refresh(lane);
    }
    return n;
}

/* The next lane that may start something; NULL when there is none. */
struct tg_lane *tg__next_lane(struct tg_core *core, unsigned kinds, uint64_t now_ns)
{
    struct tg_lane *lane;
    while ((lane = tg__pick(core, kinds)) != NULL) {
        enum tg__admission answer = tg__lane_admit(lane, now_ns);
        if (answer == TG__ADMITTED) {
            return lane;
        }
        if (answer == TG__REFUSED) {
            refuse_lane(lane, now_ns);
        }
    }
    return NULL;
}

static uint64_t when_to_call_again(struct tg_core *core, unsigned kinds, tg_status status, uint64_t now_ns)
{
    uint64_t due = tg__next_due(core);
    uint64_t reclaim = tg__run_reclaim_due(core, kinds);
    due = reclaim < due ? reclaim : due;
    return status == TG_NOMEM && due > now_ns + NO_MEMORY_NS ? now_ns + NO_MEMORY_NS : due;
}

/* More lanes can start: another waiting thread should come. Not for runs so short that waking costs more than running
 * (those threads come by themselves when a run gets stuck). */
static void call_help(struct tg_core *core, struct tg_lane *lane)
{
    unsigned kind = tg__kind_index(lane->kind);
    if (core->waiting_threads[kind] != 0 && core->active_priorities[kind] != 0 &&
        (lane->kind == TG_KIND_C || lane->mean_run_ns == 0 || lane->mean_run_ns >= 20000)) {
        core->to_signal |= lane->kind;
    }
    if (core->watchers == 0 && core->waiting_threads[kind] != 0) {
        core->to_signal |= lane->kind; /* somebody must look after the new run, should it get stuck */
    }
}

/* The lane itself when it may start something, else NULL. */
static struct tg_lane *this_lane(struct tg_lane *lane, uint64_t now_ns)
{
    while (lane->is_active) {
        enum tg__admission answer = tg__lane_admit(lane, now_ns);
        if (answer == TG__ADMITTED) {
            return lane;
        }
        if (answer == TG__REFUSED) {
            refuse_lane(lane, now_ns);
        }
    }
    return NULL;
}

/* `only`: from this lane and no other; NULL: from the one whose turn it is. */
static tg_status claim_locked(struct tg_core *core, struct tg_lane *only, unsigned kinds, uint32_t tag, uint64_t now_ns,
                              struct tg_run **out, uint64_t *due_ns)
{
    unsigned asked = only == NULL ? kinds : 0; /* who asks for one lane leaves work of the others where it is */
    core->hungry &= ~asked; /* who asks need not be woken for what this very call finds */
    tg__run_timers(core, now_ns);
    tg__run_reclaim(core, kinds, now_ns);
    tg__tsc_calibrate(core, now_ns);
    struct tg_run *run = tg__run_allocate(core);
    tg_status status = run != NULL ? TG_OK : TG_NOMEM;
    struct tg_lane *lane;
    while (status == TG_OK &&
           (lane = only != NULL ? this_lane(only, now_ns) : tg__next_lane(core, kinds, now_ns)) != NULL) {
        uint32_t n = gather(lane, run->items, tg__lane_run_length(lane, now_ns), now_ns, &status);
        if (n == 0) {
            continue;
        }
        for (uint32_t i = 0; i < n; i++) {
            run->items[i]->state = TG_ITEM_CLAIMED;
        }
        tg__lane_take(lane, run->items[0], n, now_ns);
        tg__run_begin(core, run, lane, n, tag, now_ns);
        tg__turn(lane);
        call_help(core, lane);
        *out = run;
        return TG_OK;
    }
    if (run != NULL) {
        tg__list_prepend(&core->spare_runs, &run->link);
    }
    core->hungry |= asked;
    *due_ns = when_to_call_again(core, kinds, status, now_ns);
    return status;
}

tg_status tg_core_claim(struct tg_core *core, unsigned kinds, uint32_t tag, uint64_t now_ns, struct tg_run **run,
                        uint64_t *due_ns)
{
    size_t none = 0;
    return tg_core_finish_claim(core, NULL, kinds, tag, now_ns, NULL, 0, &none, run, due_ns);
}

tg_status tg__finish_locked(struct tg_core *core, struct tg_run *run, uint64_t now_ns, struct tg_item **decided,
                            size_t max, size_t *n_decided);

static tg_status finish_claim(struct tg_core *core, struct tg_lane *only, struct tg_run *finished, unsigned kinds,
                              uint32_t tag, uint64_t now_ns, struct tg_item **decided, size_t max, size_t *n_decided,
                              struct tg_run **run, uint64_t *due_ns)
{
    *run = NULL;
    *n_decided = 0;
    *due_ns = TG_NEVER;
    /* Elements of C calls are run by the pool alone. */
    kinds &= TG__ALL_KINDS & ~(unsigned)TG_KIND_C;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    now_ns = tg__now(core, now_ns);
    uint64_t anchor_ns = 0, anchor_tsc = 0;
    if (finished != NULL) {
        anchor_ns = finished->anchor_ns;
        anchor_tsc = finished->anchor_tsc;
        tg__finish_locked(core, finished, now_ns, decided, max, n_decided);
    }
    status = claim_locked(core, only, kinds, tag, now_ns, run, due_ns);
    if (*run != NULL && finished != NULL) {
        /* The same thread goes on: its last look at the clock is still good for a millisecond. */
        (*run)->anchor_ns = anchor_ns;
        (*run)->anchor_tsc = anchor_tsc;
    }
    tg__unlock(core);
    return status;
}

tg_status tg_core_finish_claim(struct tg_core *core, struct tg_run *finished, unsigned kinds, uint32_t tag,
                               uint64_t now_ns, struct tg_item **decided, size_t max, size_t *n_decided,
                               struct tg_run **run, uint64_t *due_ns)
{
    return finish_claim(core, NULL, finished, kinds, tag, now_ns, decided, max, n_decided, run, due_ns);
}

tg_status tg_lane_finish_claim(struct tg_lane *lane, struct tg_run *finished, uint32_t tag, uint64_t now_ns,
                               struct tg_item **decided, size_t max, size_t *n_decided, struct tg_run **run,
                               uint64_t *due_ns)
{
    return finish_claim(lane->core, lane, finished, lane->kind, tag, now_ns, decided, max, n_decided, run, due_ns);
}

/* Starts an item that runs by itself: it holds the permits that tg__lane_take took. */
void tg__start_item(struct tg_lane *lane, struct tg_item *item)
{
    item->state = TG_ITEM_RUNNING;
    item->attempts++;
    item->due_ns = item->running_ns;
    tg__list_append(&lane->running, &item->link);
}

tg_status tg_core_next(struct tg_core *core, unsigned kinds, uint64_t now_ns, struct tg_item **items, size_t max,
                       size_t *n, uint64_t *due_ns)
{
    *n = 0;
    *due_ns = TG_NEVER;
    kinds &= TG__ALL_KINDS & ~(unsigned)TG_KIND_C;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    now_ns = tg__now(core, now_ns);
    core->hungry &= ~kinds;
    tg__run_timers(core, now_ns);
    tg__run_reclaim(core, kinds, now_ns);
    struct tg_lane *lane = NULL;
    while (status == TG_OK && *n < max && (lane = tg__next_lane(core, kinds, now_ns)) != NULL) {
        struct tg_item *item;
        if (gather(lane, &item, 1, now_ns, &status) == 0) {
            continue;
        }
        tg__lane_take(lane, item, 1, now_ns);
        tg__line_leave(lane, item, now_ns);
        tg__start_item(lane, item);
        items[(*n)++] = item;
        tg__turn(lane);
    }
    if (*n == 0 || (*n < max && lane == NULL)) {
        core->hungry |= kinds;
    }
    *due_ns = when_to_call_again(core, kinds, status, now_ns);
    tg__unlock(core);
    return *n != 0 ? TG_OK : status;
}

/* True when the rest of a run got a permit of its own. */
static bool extend_run(struct tg_lane *lane, uint64_t now_ns)
{
    if (lane->running_now >= lane->concurrency || lane->paused || lane->blocked_on != NULL) {
        return false;
    }
    if (tg__lane_admit(lane, now_ns) != TG__ADMITTED) {
        return false;
    }
    tg__lane_take(lane, NULL, 0, now_ns);
    return true;
}

tg_status tg_core_detach(struct tg_core *core, struct tg_run *run, struct tg_item *item)
{
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    uint64_t word = atomic_load_explicit(&run->cursor, memory_order_relaxed); /* the caller moved it last */
    uint32_t index = (uint32_t)word, end = (uint32_t)(word >> 32);
    index = index > end ? end : index;
    if (index == 0 || run->items[index - 1] != item || !(run->flags & TG__RUN_PERMIT)) {
        tg__unlock(core);
        return TG_INVALID;
    }
    uint64_t now_ns = tg__now(core, item->mark_ns);
    struct tg_lane *lane = run->lane;
    run->items[index - 1] = NULL;
    lane->n_claimed--;
    tg__list_append(&lane->running, &item->link);
    run->flags &= ~TG__RUN_PERMIT;
    if (tg_run_left(run) != 0 && extend_run(lane, now_ns)) {
        run->flags |= TG__RUN_PERMIT;
    } else {
        uint32_t first, n = tg__run_truncate(run, &first);
        tg__run_put_back(run, first, n);
    }
    tg__unlock(core);
    return TG_OK;
}
