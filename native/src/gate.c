/* gate.c - one gate: an unkeyed limit, or one key of a keyed one. When it opens, who waits, who is woken.
 *
 * Guarded by core->mutex. A gate grants nothing by itself: waking only sends waiters back to be looked at, and the permit is
 * taken when all limits of the lane grant at once (admit.c). So nobody holds one permit while waiting for another.
 */
#include "internal.h"

void tg__gate_init(struct tg__gate *gate, struct tg_limit *limit, uint64_t key)
{
    memset(gate, 0, sizeof *gate);
    gate->limit = limit;
    gate->key = key;
    gate->timer = TG__OFF_HEAP;
    tg__list_init(&gate->waiters);
    tg__list_init(&gate->all);
    tg__list_init(&gate->news);
}

static uint64_t paused_until(const struct tg__gate *gate)
{
    uint64_t whole = gate->limit->paused_until_ns;
    return gate->paused_until_ns > whole ? gate->paused_until_ns : whole;
}

/* GCRA: a start conforms when the theoretical arrival time is at most `tolerance` ahead of now. */
static uint64_t rate_room(const struct tg__gate *gate, uint64_t now_ns)
{
    const struct tg_limit *limit = gate->limit;
    uint64_t ahead = gate->tat_ns > now_ns ? gate->tat_ns - now_ns : 0;
    return ahead > limit->tolerance_ns ? 0 : (limit->tolerance_ns - ahead) / limit->interval_ns + 1;
}

static bool is_paused(const struct tg__gate *gate, uint64_t now_ns)
{
    return paused_until(gate) > now_ns;
}

static uint64_t capacity_of(const struct tg__gate *gate)
{
    return (uint64_t)gate->limit->options.capacity + gate->capacity;
}

/* How many starts it would admit now. */
uint64_t tg__gate_room(struct tg__gate *gate, uint64_t now_ns)
{
    struct tg_limit *limit = gate->limit;
    if (is_paused(gate, now_ns)) {
        return 0;
    }
    switch (limit->options.kind) {
    case TG_LIMIT_CONCURRENCY:
        return capacity_of(gate) > gate->in_use ? capacity_of(gate) - gate->in_use : 0;
    case TG_LIMIT_RATE:
        return rate_room(gate, now_ns);
    case TG_LIMIT_SUPPLIED:
        return tg__offers_due(gate, now_ns) <= now_ns ? 1 : 0;
    case TG_LIMIT_BREAKER:
        tg__breaker_refresh(gate, now_ns);
        if (gate->state == TG_BREAKER_CLOSED) {
            return UINT64_MAX;
        }
        return gate->state == TG_BREAKER_HALF_OPEN ? limit->options.probes - gate->probes_started : 0;
    }
    return 0;
}

/* When it may open by itself; TG_NEVER when only an event can open it. Asked while it is shut. */
uint64_t tg__gate_due(struct tg__gate *gate, uint64_t now_ns)
{
    struct tg_limit *limit = gate->limit;
    uint64_t due = 0;
    switch (limit->options.kind) {
    case TG_LIMIT_CONCURRENCY:
        due = capacity_of(gate) > gate->in_use ? 0 : TG_NEVER;
        break;
    case TG_LIMIT_RATE:
        due = gate->tat_ns > limit->tolerance_ns ? gate->tat_ns - limit->tolerance_ns : 0;
        break;
    case TG_LIMIT_SUPPLIED:
        due = tg__offers_due(gate, now_ns);
        break;
    case TG_LIMIT_BREAKER:
        if (gate->state == TG_BREAKER_OPEN) {
            due = gate->open_until_ns;
        } else if (gate->state == TG_BREAKER_HALF_OPEN && gate->probes_started >= limit->options.probes) {
            due = TG_NEVER;
        }
        break;
    }
    uint64_t pause = paused_until(gate);
    return due < pause ? pause : due;
}

/* Charges `items` starts. One permit of a concurrency limit, because items taken together run one after another. */
void tg__gate_take(struct tg__gate *gate, uint64_t now_ns, uint64_t items)
{
    struct tg_limit *limit = gate->limit;
    limit->stats.granted += items;
    gate->used += items;
    tg__gate_changed(gate);
    switch (limit->options.kind) {
    case TG_LIMIT_CONCURRENCY:
        gate->in_use++;
        if (++limit->stats.in_use > limit->stats.peak_in_use) {
            limit->stats.peak_in_use = limit->stats.in_use;
        }
        break;
    case TG_LIMIT_RATE:
        gate->tat_ns = (gate->tat_ns > now_ns ? gate->tat_ns : now_ns) + items * limit->interval_ns;
        break;
    case TG_LIMIT_SUPPLIED:
        tg__offers_take(gate, now_ns);
        break;
    case TG_LIMIT_BREAKER:
        if (gate->state == TG_BREAKER_HALF_OPEN) {
            gate->probes_started++;
            gate->in_use++;
            limit->stats.in_use++;
        }
        break;
    }
}

bool tg__gate_refuses(struct tg__gate *gate, uint64_t now_ns)
{
    if (gate->limit->options.kind != TG_LIMIT_BREAKER || !gate->limit->options.refuse) {
        return false;
    }
    tg__breaker_refresh(gate, now_ns);
    return gate->state == TG_BREAKER_OPEN;
}

static void arm(struct tg__gate *gate, uint64_t now_ns)
{
    struct tg_core *core = gate->limit->core;
    uint64_t due = gate->n_waiters != 0 ? tg__gate_due(gate, now_ns) : TG_NEVER;
    if (gate->timer != TG__OFF_HEAP) {
        if (core->heap.entries[gate->timer].due_ns == due) {
            return;
        }
        tg__heap_remove(core, &gate->timer);
    }
    /* A due time that has passed is only possible when everyone who waits was already woken. */
    if (due != TG_NEVER && due > now_ns) {
        tg__heap_push(core, TG__TIMER_GATE, &gate->timer, due);
    }
}

static void wake_item(struct tg__gate *gate, uint64_t now_ns)
{
    struct tg_item *item = tg__container(gate->waiters.next, struct tg_item, link);
    struct tg_lane *lane = item->group->lane;
    tg__list_remove(&item->link);
    gate->n_waiters--;
    gate->limit->waiting--;
    gate->woken++;
    lane->n_limited--;
    item->group->n_limited--;
    if (now_ns > item->mark_ns) {
        item->limited_ns += now_ns - item->mark_ns;
        item->mark_ns = now_ns;
    }
    item->flags |= TG__ITEM_WOKEN; /* which limit: noted when it was blocked */
    tg__line_enter(lane, item, &lane->resumed, now_ns);
    tg__lane_refresh(lane);
}

/* Wakes whom the gate has room for, and sets its timer for the rest. Call after anything that may have opened it.
 * Lanes are woken all at once, in order: they are few, and whoever finds it shut again returns to its place. */
void tg__gate_kick(struct tg__gate *gate, uint64_t now_ns)
{
    tg__gate_changed(gate);
    if (gate->n_waiters == 0) {
        tg__heap_remove(gate->limit->core, &gate->timer);
        return;
    }
    uint64_t room = tg__gate_room(gate, now_ns);
    if (!gate->limit->options.keyed) {
        while (room != 0 && gate->n_waiters != 0) {
            tg__lane_unblock(tg__container(gate->waiters.next, struct tg_lane, waiting), now_ns);
        }
    } else {
        while (room > gate->woken && gate->n_waiters != 0) {
            wake_item(gate, now_ns);
        }
    }
    arm(gate, now_ns);
}

/* True when forgetting the gate changes no later decision. */
bool tg__gate_idle(struct tg__gate *gate, uint64_t now_ns)
{
    if (gate->in_use != 0 || gate->n_waiters != 0 || gate->woken != 0 || gate->tat_ns > now_ns ||
        gate->paused_until_ns > now_ns || gate->capacity != 0 || !tg__list_empty(&gate->news) ||
        tg__offers_due(gate, now_ns) != TG_NEVER) {
        return false;
    }
    if (gate->limit->options.kind != TG_LIMIT_BREAKER) {
        return true;
    }
    return gate->state == TG_BREAKER_CLOSED && now_ns - gate->half_start_ns >= gate->limit->options.window_ns;
}
