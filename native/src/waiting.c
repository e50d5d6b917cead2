/* waiting.c - one walk over every place where an item of a lane can wait, for cancel, drain, close and deadlines.
 *
 * Costs the number of waiting items (a row of them counts as one), and no memory per item for the rest of the time. Guarded
 * by core->mutex.
 * Places: the two lines, the lines of keys, the heap (backoff), the list of those the heap had no room for.
 */
#include "internal.h"

struct walk {
    struct tg_lane *lane;
    tg__visit visit;
    void *ctx;
    uint64_t now_ns;
    struct tg_link taken; /* out of their place, times charged */
    uint64_t n_taken;
};

static void take(struct walk *walk, struct tg_item *item)
{
    tg__list_append(&walk->taken, &item->link);
    walk->n_taken += tg__item_count(item);
}

static void walk_line(struct walk *walk, struct tg_link *line)
{
    struct tg_link *next;
    for (struct tg_link *at = line->next; at != line; at = next) {
        next = at->next;
        struct tg_item *item = tg__container(at, struct tg_item, link);
        if (!walk->visit(item, walk->ctx)) {
            continue;
        }
        tg__list_remove(at);
        walk->lane->n_ready -= tg__item_count(item);
        tg__line_leave(walk->lane, item, walk->now_ns);
        take(walk, item);
    }
}

static void charge(uint64_t *class_ns, struct tg_item *item, uint64_t now_ns)
{
    if (now_ns > item->mark_ns) {
        *class_ns += now_ns - item->mark_ns;
        item->mark_ns = now_ns;
    }
}

static void walk_gate(struct walk *walk, struct tg__gate *gate)
{
    struct tg_link *next;
    for (struct tg_link *at = gate->waiters.next; at != &gate->waiters; at = next) {
        next = at->next;
        struct tg_item *item = tg__container(at, struct tg_item, link);
        if (item->group->lane != walk->lane || !walk->visit(item, walk->ctx)) {
            continue;
        }
        tg__list_remove(at);
        gate->n_waiters--;
        gate->limit->waiting--;
        walk->lane->n_limited--;
        item->group->n_limited--;
        tg__gate_changed(gate);
        charge(&item->limited_ns, item, walk->now_ns);
        take(walk, item);
    }
    if (gate->n_waiters == 0) {
        tg__heap_remove(walk->lane->core, &gate->timer);
    }
}

static void walk_keys(struct walk *walk)
{
    struct tg_lane *lane = walk->lane;
    for (uint32_t i = 0; i < lane->n_limits && lane->n_limited != 0; i++) {
        struct tg_limit *limit = lane->limits[i];
        if (!limit->options.keyed) {
            continue;
        }
        for (struct tg_link *at = limit->gates.next; at != &limit->gates; at = at->next) {
            walk_gate(walk, tg__container(at, struct tg__gate, all));
        }
    }
}

/* Items in backoff are not on any list, so their link is free to gather them before the heap is changed. */
static void walk_heap(struct walk *walk)
{
    struct tg_core *core = walk->lane->core;
    struct tg_link found;
    tg__list_init(&found);
    for (uint32_t i = 0; i < core->heap.used; i++) {
        struct tg__heap_entry *entry = &core->heap.entries[i];
        if ((entry->order & 3) != TG__TIMER_ITEM) {
            continue;
        }
        struct tg_item *item = tg__container(entry->slot, struct tg_item, heap_index);
        if (item->group->lane == walk->lane && walk->visit(item, walk->ctx)) {
            tg__list_append(&found, &item->link);
        }
    }
    while (!tg__list_empty(&found)) {
        struct tg_item *item = tg__container(found.next, struct tg_item, link);
        tg__list_remove(&item->link);
        tg__heap_remove(core, &item->heap_index);
        walk->lane->n_backoff--;
        charge(&item->backoff_ns, item, walk->now_ns);
        take(walk, item);
    }
}

static void walk_overflow(struct walk *walk)
{
    struct tg_core *core = walk->lane->core;
    struct tg_link *next;
    for (struct tg_link *at = core->overflow.next; at != &core->overflow; at = next) {
        next = at->next;
        struct tg_item *item = tg__container(at, struct tg_item, link);
        if (item->group->lane != walk->lane || !walk->visit(item, walk->ctx)) {
            continue;
        }
        tg__list_remove(at);
        core->n_overflow--;
        walk->lane->n_backoff--;
        charge(&item->backoff_ns, item, walk->now_ns);
        take(walk, item);
    }
}

bool tg__visit_all(struct tg_item *item, void *ctx)
{
    (void)item;
    (void)ctx;
    return true;
}

/* Takes every waiting item that `visit` accepts out of its place and ends it. Returns how many. `visit` sees each once and
 * may read it only. */
uint64_t tg__waiting_remove(struct tg_lane *lane, tg__visit visit, void *ctx, enum tg_outcome outcome,
                            enum tg_reason reason, uint64_t now_ns)
{
    struct walk walk = {.lane = lane, .visit = visit, .ctx = ctx, .now_ns = now_ns};
    tg__list_init(&walk.taken);
    walk_line(&walk, &lane->resumed);
    walk_line(&walk, &lane->ready);
    walk_keys(&walk);
    if (lane->n_backoff != 0) {
        walk_heap(&walk);
        walk_overflow(&walk);
    }
    while (!tg__list_empty(&walk.taken)) {
        struct tg_item *item = tg__container(walk.taken.next, struct tg_item, link);
        tg__list_remove(&item->link);
        tg__item_unwake(item, now_ns);
        tg__end_waiting(item, outcome, reason, now_ns);
    }
    tg__lane_refresh(lane);
    return walk.n_taken;
}
