/* line.c - the lines of a lane, and which lane goes next. Guarded by core->mutex.
 *
 * A lane has two lines: `resumed` (items that were in line before: woken by a key, due for a retry, given back) is served
 * before `ready` (new items, which wait in rows: row.c). It is on its priority's active list exactly while it has an item
 * and may perhaps start it.
 *
 * Limited clock: a lane that waits for an unkeyed limit charges all its items `limited`. Instead of touching them, the lane
 * keeps one clock of the time it was blocked; an item notes it on entry (due_ns) and the difference on leaving is its share.
 */
#include "internal.h"

uint64_t tg__lane_limited(const struct tg_lane *lane, uint64_t now_ns)
{
    uint64_t limited = lane->limited_ns;
    if (lane->blocked_on != NULL && now_ns > lane->blocked_since_ns) {
        limited += now_ns - lane->blocked_since_ns;
    }
    return limited;
}

static bool can_start(const struct tg_lane *lane)
{
    return !lane->paused && lane->blocked_on == NULL && lane->running_now < lane->concurrency &&
           (lane->n_ready != 0 || tg__calls_ready(lane));
}

/* Brings the active list up to date after any change. */
void tg__lane_refresh(struct tg_lane *lane)
{
    bool active = can_start(lane);
    if (active == lane->is_active) {
        return;
    }
    struct tg_core *core = lane->core;
    unsigned kind = tg__kind_index(lane->kind);
    struct tg_link *list = &core->active[kind][lane->priority];
    lane->is_active = active;
    if (active) {
        tg__list_append(list, &lane->active);
        core->active_priorities[kind] |= 1u << lane->priority;
        lane->turns_left = lane->weight;
        tg__notify(core, lane->kind);
        return;
    }
    tg__list_remove(&lane->active);
    if (tg__list_empty(list)) {
        core->active_priorities[kind] &= ~(1u << lane->priority);
    }
}

/* The lane waits for a gate: behind lanes of the same or a higher priority. */
void tg__lane_block(struct tg_lane *lane, struct tg__gate *gate, uint64_t now_ns)
{
    struct tg_link *place = gate->waiters.next;
    while (place != &gate->waiters &&
           tg__container(place, struct tg_lane, waiting)->priority >= lane->priority) {
        place = place->next;
    }
    tg__list_insert_before(place, &lane->waiting);
    gate->n_waiters++;
    lane->blocked_on = gate;
    lane->blocked_since_ns = now_ns;
    tg__lane_refresh(lane);
    tg__gate_kick(gate, now_ns);
}

void tg__lane_unblock(struct tg_lane *lane, uint64_t now_ns)
{
    lane->limited_ns = tg__lane_limited(lane, now_ns);
    tg__list_remove(&lane->waiting);
    lane->blocked_on->n_waiters--;
    lane->blocked_on = NULL;
    tg__lane_refresh(lane);
}

/* The caller refreshes the lane. */
void tg__line_enter(struct tg_lane *lane, struct tg_item *item, struct tg_link *line, uint64_t now_ns)
{
    item->state = TG_ITEM_READY;
    item->due_ns = tg__lane_limited(lane, now_ns);
    tg__list_append(line, &item->link);
    lane->n_ready++;
}

/* An item that was popped and not started: its times were not charged yet, so it keeps its mark. */
void tg__line_put_back(struct tg_lane *lane, struct tg_item *item, struct tg_link *before)
{
    item->state = TG_ITEM_READY;
    tg__list_insert_before(before, &item->link);
    lane->n_ready++;
}

/* Charges the time in line up to now. Not for items that stay in a run: tg_run_take does the same for those. */
void tg__line_leave(struct tg_lane *lane, struct tg_item *item, uint64_t now_ns)
{
    if (now_ns < item->mark_ns) {
        now_ns = item->mark_ns;
    }
    uint64_t elapsed = now_ns - item->mark_ns;
    uint64_t limited = tg__lane_limited(lane, now_ns) - item->due_ns;
    if (limited > elapsed) {
        limited = elapsed;
    }
    item->limited_ns += limited;
    item->queued_ns += elapsed - limited;
    item->mark_ns = now_ns;
}

/* The lane whose turn it is among those of these kinds; NULL when none can start anything. */
struct tg_lane *tg__pick(struct tg_core *core, unsigned kinds)
{
    struct tg_lane *best = NULL;
    for (unsigned kind = 0; kind < TG__KINDS; kind++) {
        if (!(kinds & (1u << kind)) || core->active_priorities[kind] == 0) {
            continue;
        }
        unsigned priority = 31u - (unsigned)__builtin_clz(core->active_priorities[kind]);
        if (best == NULL || priority > best->priority) {
            best = tg__container(core->active[kind][priority].next, struct tg_lane, active);
        }
    }
    return best;
}

/* One turn was used: after `weight` turns the next lane of the priority follows. */
void tg__turn(struct tg_lane *lane)
{
    if (--lane->turns_left != 0) {
        return;
    }
    lane->turns_left = lane->weight;
    if (lane->is_active) {
        tg__list_remove(&lane->active);
        tg__list_append(&lane->core->active[tg__kind_index(lane->kind)][lane->priority], &lane->active);
    }
}

static bool is_expired(const struct tg_lane *lane, const struct tg_item *item, uint64_t now_ns)
{
    return lane->retry.deadline_ns != 0 && now_ns >= item->submit_ns + lane->retry.deadline_ns;
}

static void leave(struct tg_lane *lane, struct tg_item *item)
{
    tg__list_remove(&item->link);
    lane->n_ready -= tg__item_count(item);
}

/* The first in line, still there: an item or a row whose deadline has not passed. NULL when there is none. */
static struct tg_item *head(struct tg_lane *lane, uint64_t now_ns)
{
    for (;;) {
        struct tg_link *line = tg__list_empty(&lane->resumed) ? &lane->ready : &lane->resumed;
        if (tg__list_empty(line)) {
            return NULL;
        }
        struct tg_item *item = tg__container(line->next, struct tg_item, link);
        if (!is_expired(lane, item, now_ns)) {
            return item;
        }
        leave(lane, item);
        tg__item_unwake(item, now_ns);
        tg__line_leave(lane, item, now_ns);
        lane->stats.expired += tg__item_count(item);
        tg__end_waiting(item, TG_OUTCOME_TIMED_OUT, TG_REASON_DEADLINE, now_ns);
    }
}

/* Takes the first in line out: an item, or all of a row. */
struct tg_item *tg__line_pop(struct tg_lane *lane, uint64_t now_ns)
{
    struct tg_item *item = head(lane, now_ns);
    if (item != NULL) {
        leave(lane, item);
    }
    return item;
}

/* Takes up to max items out, each with a record of its own. What there is no memory for stays in line. */
uint32_t tg__line_cut(struct tg_lane *lane, struct tg_item **items, uint32_t max, uint64_t now_ns, tg_status *status)
{
    uint32_t n = 0;
    struct tg_item *item;
    while (n < max && (item = head(lane, now_ns)) != NULL) {
        while (n < max && item->flags & TG__ITEM_ROW) {
            struct tg_item *first = tg__row_first(lane->core, item);
            if (first == NULL) {
                *status = TG_NOMEM;
                return n;
            }
            items[n++] = first;
            lane->n_ready--;
        }
        if (n < max) {
            leave(lane, item);
            items[n++] = item;
        }
    }
    return n;
}

/* Advances the integral of permits over time. Call before running_now changes. */
void tg__lane_busy(struct tg_lane *lane, uint64_t now_ns)
{
    if (now_ns > lane->busy_at_ns) {
        lane->busy_ns += (now_ns - lane->busy_at_ns) * lane->running_now;
        lane->busy_at_ns = now_ns;
    }
}

/* ---- deadlines of waiting items ---- */

/* One timer per lane, not per item. It never fires late by more than 1/64 of the deadline; no item starts after its
 * deadline in any case, because head() looks. */
void tg__deadline_arm(struct tg_lane *lane, uint64_t due_ns)
{
    if (lane->deadline_timer == TG__OFF_HEAP) {
        tg__heap_push(lane->core, TG__TIMER_DEADLINE, &lane->deadline_timer, due_ns);
    }
}

struct sweep {
    uint64_t now_ns, deadline_ns, next_ns;
};

static bool visit_expired(struct tg_item *item, void *ctx)
{
    struct sweep *sweep = ctx;
    uint64_t end = item->submit_ns + sweep->deadline_ns;
    if (end <= sweep->now_ns) {
        return true;
    }
    if (end < sweep->next_ns) {
        sweep->next_ns = end;
    }
    return false;
}

void tg__deadline_sweep(struct tg_lane *lane, uint64_t now_ns)
{
    struct sweep sweep = {now_ns, lane->retry.deadline_ns, TG_NEVER};
    if (sweep.deadline_ns == 0) {
        return;
    }
    lane->stats.expired +=
        tg__waiting_remove(lane, visit_expired, &sweep, TG_OUTCOME_TIMED_OUT, TG_REASON_DEADLINE, now_ns);
    uint64_t soonest = now_ns + sweep.deadline_ns / 64 + 1;
    if (lane->inside != 0 && sweep.next_ns == TG_NEVER) {
        /* Only running items are left; they may come back to wait for a retry. */
        sweep.next_ns = now_ns + sweep.deadline_ns;
    }
    if (sweep.next_ns != TG_NEVER) {
        tg__deadline_arm(lane, sweep.next_ns > soonest ? sweep.next_ns : soonest);
    }
}
