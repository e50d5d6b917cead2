/* destroy.c - the end of a core: everything it made is freed, in the reverse order of need. */
#include "internal.h"

#include <sys/mman.h>

/* Held by somebody: running, in a run, or decided and not settled. */
static bool is_held(const struct tg_core *core)
{
    if (core->n_runs != 0 || core->n_calls != 0) {
        return true;
    }
    for (struct tg_link *at = core->lanes.next; at != &core->lanes; at = at->next) {
        struct tg_lane *lane = tg__container(at, struct tg_lane, link);
        if (lane->running_now != 0 || lane->n_claimed != 0) {
            return true;
        }
    }
    return false;
}

/* Everything still inside goes to core->settled, from where it is freed. */
static void drop_items(struct tg_core *core)
{
    for (struct tg_link *at = core->lanes.next; at != &core->lanes; at = at->next) {
        struct tg_lane *lane = tg__container(at, struct tg_lane, link);
        tg__waiting_remove(lane, tg__visit_all, NULL, TG_OUTCOME_CANCELLED, TG_REASON_CLOSED, core->now_ns);
    }
    while (!tg__list_empty(&core->settled)) {
        struct tg_item *item = tg__container(core->settled.next, struct tg_item, link);
        tg__list_remove(&item->link);
        item->group->lane->n_settling -= tg__item_count(item);
        tg__item_free(core, item);
    }
}

static bool is_settling(const struct tg_core *core)
{
    uint64_t settling = 0;
    for (struct tg_link *at = core->lanes.next; at != &core->lanes; at = at->next) {
        settling += tg__container(at, struct tg_lane, link)->n_settling;
    }
    for (struct tg_link *at = core->settled.next; at != &core->settled; at = at->next) {
        settling -= tg__item_count(tg__container(at, struct tg_item, link)); /* nobody has these yet */
    }
    return settling != 0;
}

static void free_lanes(struct tg_core *core)
{
    while (!tg__list_empty(&core->lanes)) {
        struct tg_lane *lane = tg__container(core->lanes.next, struct tg_lane, link);
        tg__list_remove(&lane->link);
        for (int i = 0; i < TG_CLASSES; i++) {
            tg__release(core, lane->histograms[i], sizeof *lane->histograms[i]);
        }
        tg__release(core, lane, sizeof *lane);
    }
}

static void free_groups(struct tg_core *core)
{
    while (!tg__list_empty(&core->groups)) {
        struct tg_group *group = tg__container(core->groups.next, struct tg_group, link);
        tg__list_remove(&group->link);
        tg__release(core, group->coarse, sizeof *group->coarse);
        tg__release(core, group, sizeof *group);
    }
    while (core->spare_coarse != NULL) {
        struct tg__coarse *coarse = core->spare_coarse;
        core->spare_coarse = coarse->next;
        tg__release(core, coarse, sizeof *coarse);
    }
}

static void free_limits(struct tg_core *core)
{
    while (!tg__list_empty(&core->limits)) {
        struct tg_limit *limit = tg__container(core->limits.next, struct tg_limit, link);
        tg__list_remove(&limit->link);
        tg__keys_destroy(limit);
        tg__offers_free(&limit->gate);
        tg__release(core, limit, sizeof *limit);
    }
}

static void free_core(struct tg_core *core)
{
    while (!tg__list_empty(&core->spare_runs)) {
        struct tg_run *run = tg__container(core->spare_runs.next, struct tg_run, link);
        tg__list_remove(&run->link);
        tg__release(core, run, sizeof *run);
    }
    tg__slabs_destroy(core);
    tg__release(core, core->heap.entries, core->heap.capacity * sizeof *core->heap.entries);
    for (int kind = 0; kind < TG__KINDS; kind++) {
        pthread_cond_destroy(&core->conds[kind]);
    }
    pthread_cond_destroy(&core->group_cond);
    pthread_mutex_destroy(&core->mutex);
    if (core->alive != NULL) {
        munmap(core->alive, sizeof *core->alive);
    }
    struct tg_allocator allocator = core->allocator;
    allocator.release(allocator.ctx, core, sizeof *core);
}

tg_status tg_core_destroy(struct tg_core *core)
{
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    if (is_held(core) || is_settling(core)) {
        tg__unlock(core);
        return TG_BUSY;
    }
    drop_items(core);
    core->wake = NULL;
    tg__unlock(core);
    free_groups(core);
    free_limits(core);
    free_lanes(core);
    free_core(core);
    return TG_OK;
}
