/* group.c - groups: life, cancel, drain, counts. Guarded by core->mutex, except `done` (atomic). */
#include "internal.h"

static struct tg__coarse *take_coarse(struct tg_core *core)
{
    struct tg__coarse *coarse = core->spare_coarse;
    if (coarse == NULL) {
        return tg__allocate(core, sizeof *coarse);
    }
    core->spare_coarse = coarse->next;
    coarse->next = NULL;
    return coarse;
}

/* Spare histograms are all zero: only the buckets that were used are cleared. */
static void give_coarse(struct tg_group *group)
{
    struct tg__coarse *coarse = group->coarse;
    if (coarse == NULL) {
        return;
    }
    for (int i = 0; i < TG_CLASSES; i++) {
        if (group->stats.count[i] != 0) {
            uint32_t low = tg_coarse_index(group->stats.min_ns[i]), high = tg_coarse_index(group->stats.max_ns[i]);
            memset(&coarse->buckets[i][low], 0, (high - low + 1) * sizeof coarse->buckets[i][0]);
        }
    }
    coarse->next = group->core->spare_coarse;
    group->core->spare_coarse = coarse;
    group->coarse = NULL;
}

static tg_status create_locked(struct tg_lane *lane, const struct tg_group_options *options, struct tg_group **out)
{
    struct tg_core *core = lane->core;
    if (core->closed) {
        return TG_CLOSED;
    }
    struct tg_group *group = tg__allocate(core, sizeof *group);
    if (group == NULL) {
        return TG_NOMEM;
    }
    group->core = core;
    group->lane = lane;
    group->payload = options->payload;
    memcpy(group->token, options->token, sizeof group->token);
    group->max_wait_ns = options->max_wait_ns;
    group->open = options->open != 0;
    atomic_init(&group->done, 0);
    tg__list_init(&group->done_link);
    for (int i = 0; i < TG_CLASSES; i++) {
        group->stats.min_ns[i] = UINT64_MAX;
    }
    if (options->histograms) {
        group->coarse = take_coarse(core);
        if (group->coarse == NULL) {
            tg__release(core, group, sizeof *group);
            return TG_NOMEM;
        }
    }
    tg__list_append(&core->groups, &group->link);
    core->n_groups++;
    lane->n_groups++;
    *out = group;
    return TG_OK;
}

tg_status tg_group_create(struct tg_lane *lane, const struct tg_group_options *options, struct tg_group **out)
{
    tg_status status = tg__lock(lane->core);
    if (status == TG_OK) {
        status = create_locked(lane, options, out);
        tg__unlock(lane->core);
    }
    return status;
}

tg_status tg_group_destroy(struct tg_group *group)
{
    struct tg_core *core = group->core;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    if (group->stats.settled != group->stats.total) {
        tg__unlock(core);
        return TG_BUSY;
    }
    if (!tg__list_empty(&group->done_link)) {
        tg__list_remove(&group->done_link);
        atomic_fetch_sub_explicit(&core->n_done, 1, memory_order_relaxed);
    }
    give_coarse(group);
    tg__list_remove(&group->link);
    core->n_groups--;
    group->lane->n_groups--;
    tg__release(core, group, sizeof *group);
    tg__unlock(core);
    return TG_OK;
}

tg_status tg_group_seal(struct tg_group *group)
{
    struct tg_core *core = group->core;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    group->open = false;
    tg__group_check_done(group);
    tg__unlock(core);
    return TG_OK;
}

void *tg_group_payload(const struct tg_group *group)
{
    return group->payload;
}

struct tg_lane *tg_group_lane(const struct tg_group *group)
{
    return group->lane;
}

const unsigned char *tg_group_token(const struct tg_group *group)
{
    return group->token;
}

int tg_group_done(const struct tg_group *group)
{
    /* acquire: pairs with the release in tg__group_check_done(). */
    return atomic_load_explicit(&group->done, memory_order_acquire);
}

static bool visit_group(struct tg_item *item, void *ctx)
{
    return item->group == ctx;
}

/* Runs of the lane give back what they have not begun, so that the walk finds it. */
static void cut_runs(struct tg_lane *lane)
{
    for (struct tg_link *at = lane->runs.next; at != &lane->runs; at = at->next) {
        struct tg_run *run = tg__container(at, struct tg_run, link);
        uint32_t first, n = tg__run_truncate(run, &first);
        tg__run_put_back(run, first, n);
    }
}

static tg_status stop(struct tg_group *group, bool cancel, uint64_t *n_waiting)
{
    struct tg_core *core = group->core;
    struct tg_lane *lane = group->lane;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    uint64_t now_ns = tg__now(core, 0);
    group->cancelled |= cancel;
    group->drained |= !cancel;
    enum tg_outcome outcome = cancel ? TG_OUTCOME_CANCELLED : TG_OUTCOME_RETURNED;
    enum tg_reason reason = cancel ? TG_REASON_CANCELLED : TG_REASON_DRAINED;
    cut_runs(lane);
    uint64_t n = tg__waiting_remove(lane, visit_group, group, outcome, reason, now_ns);
    n += tg__calls_cancel(lane, group, outcome, now_ns);
    if (n_waiting != NULL) {
        *n_waiting = n;
    }
    tg__unlock(core);
    return TG_OK;
}

tg_status tg_group_cancel(struct tg_group *group, uint64_t *n_waiting)
{
    return stop(group, true, n_waiting);
}

tg_status tg_group_drain(struct tg_group *group, uint64_t *n_waiting)
{
    return stop(group, false, n_waiting);
}

static void list_running(struct tg_group *group, struct tg_link *list, struct tg_item **items, size_t max, size_t *total)
{
    for (struct tg_link *at = list->next; at != list; at = at->next) {
        struct tg_item *item = tg__container(at, struct tg_item, link);
        if (item->group != group) {
            continue;
        }
        if (*total < max) {
            items[*total] = item;
        }
        (*total)++;
    }
}

tg_status tg_group_running(struct tg_group *group, struct tg_item **items, size_t max, size_t *total)
{
    *total = 0;
    tg_status status = tg__lock(group->core);
    if (status != TG_OK) {
        return status;
    }
    list_running(group, &group->lane->overdue, items, max, total);
    list_running(group, &group->lane->running, items, max, total);
    tg__unlock(group->core);
    return TG_OK;
}

static uint64_t earliest_key(struct tg_limit *limit, const struct tg_group *group, uint64_t now_ns)
{
    uint64_t earliest = TG_NEVER;
    for (struct tg_link *at = limit->gates.next; at != &limit->gates; at = at->next) {
        struct tg__gate *gate = tg__container(at, struct tg__gate, all);
        for (struct tg_link *one = gate->waiters.next; one != &gate->waiters; one = one->next) {
            if (tg__container(one, struct tg_item, link)->group == group) {
                uint64_t due = tg__gate_due(gate, now_ns);
                earliest = due < earliest ? due : earliest;
                break;
            }
        }
    }
    return earliest;
}

tg_status tg_group_limited(struct tg_group *group, uint64_t *n, uint64_t *due_ns)
{
    *n = 0;
    tg_status status = tg__lock(group->core);
    if (status != TG_OK) {
        return status;
    }
    *n = group->n_limited;
    if (due_ns != NULL) {
        *due_ns = TG_NEVER;
        uint64_t now_ns = tg__now(group->core, 0);
        for (uint32_t i = 0; i < group->lane->n_limits && group->n_limited != 0; i++) {
            if (group->lane->limits[i]->options.keyed) {
                uint64_t due = earliest_key(group->lane->limits[i], group, now_ns);
                *due_ns = due < *due_ns ? due : *due_ns;
            }
        }
    }
    tg__unlock(group->core);
    return TG_OK;
}

tg_status tg_group_get_stats(struct tg_group *group, struct tg_group_stats *out)
{
    tg_status status = tg__lock(group->core);
    if (status != TG_OK) {
        return status;
    }
    *out = group->stats;
    tg__unlock(group->core);
    return TG_OK;
}

tg_status tg_group_get_coarse(struct tg_group *group, enum tg_class class_, struct tg_coarse_entry *entries, size_t max,
                              size_t *n_used)
{
    *n_used = 0;
    if ((unsigned)class_ >= TG_CLASSES) {
        return TG_INVALID;
    }
    tg_status status = tg__lock(group->core);
    if (status != TG_OK) {
        return status;
    }
    for (uint32_t i = 0; group->coarse != NULL && i < TG_COARSE_BUCKETS; i++) {
        uint32_t count = group->coarse->buckets[class_][i];
        if (count == 0) {
            continue;
        }
        if (*n_used < max) {
            entries[*n_used] = (struct tg_coarse_entry){i, count};
        }
        (*n_used)++;
    }
    tg__unlock(group->core);
    return TG_OK;
}
