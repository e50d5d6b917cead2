/* overdue.c - attempts that run longer than their lane allows. Guarded by core->mutex; reads runs as a thief does.
 *
 * Items that run one by one are listed per lane in order of start and have one timeout, so the oldest is the head: no timer
 * per item, nothing to cancel when it ends in time. Of a run only the item at its cursor can be overdue.
 */
#include "internal.h"

struct search {
    uint64_t now_ns;
    struct tg_overdue *out;
    size_t max, n;
    uint64_t next_ns;
};

static void ask_again(struct search *search, uint64_t at_ns)
{
    if (at_ns < search->next_ns) {
        search->next_ns = at_ns;
    }
}

static void search_items(struct search *search, struct tg_lane *lane)
{
    while (!tg__list_empty(&lane->running)) {
        struct tg_item *item = tg__container(lane->running.next, struct tg_item, link);
        /* relaxed: its thread may be ending it right now (tg_item_end); then the end is seen as a late start. */
        uint64_t start = __atomic_load_n(&item->mark_ns, __ATOMIC_RELAXED);
        uint64_t end = start + lane->timeout_ns;
        if (end > search->now_ns || search->n == search->max) {
            ask_again(search, end);
            return;
        }
        search->out[search->n++] = (struct tg_overdue){item, NULL, start, 0};
        tg__list_remove(&item->link);
        tg__list_append(&lane->overdue, &item->link);
    }
}

static void search_run(struct search *search, struct tg_lane *lane, struct tg_run *run)
{
    /* acquire: pairs with tg_run_take; the start that belongs to this cursor, or a later one, is read after it. */
    uint64_t word = atomic_load_explicit(&run->cursor, memory_order_acquire);
    uint32_t index = (uint32_t)word, end = (uint32_t)(word >> 32);
    index = index > end ? end : index;
    if (index == 0) {
        ask_again(search, search->now_ns + lane->timeout_ns);
        return;
    }
    uint64_t start = atomic_load_explicit(&run->start_ns, memory_order_relaxed);
    uint64_t due = start + lane->timeout_ns;
    bool reported = (run->flags & TG__RUN_OVERDUE) && (run->flags >> 8) == index;
    if (reported || run->items[index - 1] == NULL) {
        return;
    }
    if (due > search->now_ns || search->n == search->max) {
        ask_again(search, due);
        return;
    }
    search->out[search->n++] = (struct tg_overdue){run->items[index - 1], run, start, run->tag};
    run->flags = (run->flags & TG__RUN_PERMIT) | TG__RUN_OVERDUE | index << 8;
}

tg_status tg_core_overdue(struct tg_core *core, uint64_t now_ns, struct tg_overdue *out, size_t max, size_t *n,
                          uint64_t *next_ns)
{
    *n = 0;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    struct search search = {tg__now(core, now_ns), out, max, 0, TG_NEVER};
    for (struct tg_link *at = core->lanes.next; at != &core->lanes; at = at->next) {
        struct tg_lane *lane = tg__container(at, struct tg_lane, link);
        if (lane->timeout_ns == 0) {
            continue;
        }
        search_items(&search, lane);
        for (struct tg_link *r = lane->runs.next; r != &lane->runs; r = r->next) {
            search_run(&search, lane, tg__container(r, struct tg_run, link));
        }
    }
    *n = search.n;
    if (next_ns != NULL) {
        *next_ns = search.next_ns;
    }
    tg__unlock(core);
    return TG_OK;
}
