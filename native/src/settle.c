/* settle.c - the end of items: their times go into histograms, their records back to the slab.
 *
 * Guarded by core->mutex. Buckets are counted item by item; sums, minima and maxima are gathered in a scratch on the stack
 * and folded into lane and group once per run of items of the same group.
 */
#include "internal.h"

void tg__scratch_start(struct tg__scratch *scratch)
{
    scratch->lane = NULL;
    scratch->group = NULL;
}

/* Ready for items of `group`. */
void tg__scratch_switch(struct tg__scratch *scratch, struct tg_group *group)
{
    if (scratch->group == group) {
        return;
    }
    tg__scratch_fold(scratch);
    memset(scratch, 0, sizeof *scratch);
    for (int i = 0; i < TG_CLASSES; i++) {
        scratch->tally[i].min = UINT64_MAX;
    }
    scratch->group = group;
    scratch->lane = group->lane;
}

static inline void count_bucket(struct tg__scratch *scratch, enum tg_class class_, uint64_t value)
{
    tg__tally_add(&scratch->tally[class_], value);
    struct tg_histogram *histogram = scratch->lane->histograms[class_];
    if (histogram != NULL) {
        histogram->buckets[tg_histogram_index(value)]++;
    }
    if (scratch->group->coarse != NULL) {
        scratch->group->coarse->buckets[class_][tg_coarse_index(value)]++;
    }
}

/* One attempt ended: its length is the growth of running_ns since tg_run_take or start noted it in due_ns. */
void tg__scratch_attempt(struct tg__scratch *scratch, struct tg_item *item)
{
    struct tg_group *group = item->group;
    tg__scratch_switch(scratch, group);
    uint64_t length = item->running_ns - item->due_ns;
    count_bucket(scratch, TG_CLASS_RUNNING, length);
    if (group->stats.first_start_ns == 0 || item->mark_ns - length < group->stats.first_start_ns) {
        group->stats.first_start_ns = item->mark_ns - length;
    }
    if (item->mark_ns > group->stats.last_end_ns) {
        group->stats.last_end_ns = item->mark_ns;
    }
}

/* Most items never wait for these two: their zeros are counted together when folding. */
void tg__scratch_waits(struct tg__scratch *scratch, const struct tg_item *item)
{
    if (item->limited_ns != 0) {
        count_bucket(scratch, TG_CLASS_LIMITED, item->limited_ns);
    }
    if (item->backoff_ns != 0) {
        count_bucket(scratch, TG_CLASS_BACKOFF, item->backoff_ns);
    }
}

/* Settles one decided item and frees it. The caller has counted it in n_settling (mark_decided). */
void tg__settle_one(struct tg__scratch *scratch, struct tg_item *item, uint64_t now_ns)
{
    struct tg_group *group = item->group;
    tg__scratch_switch(scratch, group);
    struct tg_lane *lane = group->lane;
    uint64_t settling = now_ns > item->mark_ns ? now_ns - item->mark_ns : 0;
    count_bucket(scratch, TG_CLASS_QUEUED, item->queued_ns);
    count_bucket(scratch, TG_CLASS_SETTLING, settling);
    tg__scratch_waits(scratch, item);
    scratch->items_sum[TG_CLASS_RUNNING] += item->running_ns;
    lane->stats.outcomes[item->outcome]++;
    group->stats.outcomes[item->outcome]++;
    group->stats.settled++;
    lane->n_settling--;
    lane->inside--;
    if (item->flags & TG__ITEM_C) {
        tg__call_settled(item);
    }
    if (!tg__row_settled(lane->core, item)) {
        tg__item_free(lane->core, item);
    }
}

static void fold_histogram(struct tg_histogram *histogram, const struct tg__tally *tally)
{
    if (histogram == NULL || tally->count == 0) {
        return;
    }
    histogram->count += tally->count;
    if (__builtin_add_overflow(histogram->sum, tally->sum, &histogram->sum)) {
        histogram->sum = UINT64_MAX;
    }
    if (tally->min < histogram->min) {
        histogram->min = tally->min;
    }
    if (tally->max > histogram->max) {
        histogram->max = tally->max;
    }
}

/* Adds count, sum, min and max; the buckets were counted already. */
void tg__fold_tally(struct tg_lane *lane, struct tg_group *group, enum tg_class class_, const struct tg__tally *tally)
{
    fold_histogram(lane->histograms[class_], tally);
    struct tg_group_stats *stats = &group->stats;
    stats->count[class_] += tally->count;
    if (tally->count != 0 && tally->min < stats->min_ns[class_]) {
        stats->min_ns[class_] = tally->min;
    }
    if (tally->max > stats->max_ns[class_]) {
        stats->max_ns[class_] = tally->max;
    }
}

static void add_zeros(struct tg__scratch *scratch, enum tg_class class_, uint64_t zeros)
{
    if (zeros == 0) {
        return;
    }
    scratch->tally[class_].count += zeros;
    scratch->tally[class_].min = 0;
    if (scratch->lane->histograms[class_] != NULL) {
        scratch->lane->histograms[class_]->buckets[0] += zeros;
    }
    if (scratch->group->coarse != NULL) {
        scratch->group->coarse->buckets[class_][0] += (uint32_t)zeros;
    }
}

void tg__scratch_fold(struct tg__scratch *scratch)
{
    struct tg_group *group = scratch->group;
    if (group == NULL) {
        return;
    }
    struct tg__tally *tally = scratch->tally;
    uint64_t settled = tally[TG_CLASS_SETTLING].count;
    add_zeros(scratch, TG_CLASS_LIMITED, settled - tally[TG_CLASS_LIMITED].count);
    add_zeros(scratch, TG_CLASS_BACKOFF, settled - tally[TG_CLASS_BACKOFF].count);
    for (int i = 0; i < TG_CLASSES; i++) {
        uint64_t sum = i == TG_CLASS_RUNNING ? scratch->items_sum[i] : tally[i].sum;
        group->stats.sum_ns[i] += sum;
        tg__fold_tally(scratch->lane, group, (enum tg_class)i, &tally[i]);
    }
    scratch->group = NULL;
    if (scratch->lane->inside == 0) {
        tg__heap_remove(scratch->lane->core, &scratch->lane->deadline_timer);
    }
    if (settled != 0) {
        tg__group_check_done(group);
        /* Threads that wait on a closed core may go home. */
        group->core->to_broadcast |= group->core->closed && group->core->slabs.live == 0;
    }
}

/* One value many times, for items without a record (elements of C calls). Not for group sums: the caller adds those. */
void tg__record(struct tg_lane *lane, struct tg_group *group, enum tg_class class_, uint64_t value, uint64_t times)
{
    if (times == 0) {
        return;
    }
    struct tg__tally tally = {times, value * times, value, value};
    if (lane->histograms[class_] != NULL) {
        lane->histograms[class_]->buckets[tg_histogram_index(value)] += times;
    }
    if (group->coarse != NULL) {
        group->coarse->buckets[class_][tg_coarse_index(value)] += (uint32_t)times;
    }
    tg__fold_tally(lane, group, class_, &tally);
}

void tg__group_check_done(struct tg_group *group)
{
    struct tg_core *core = group->core;
    if (group->open || group->announced || group->stats.settled != group->stats.total) {
        return;
    }
    group->announced = true;
    tg__list_append(&core->done_groups, &group->done_link);
    /* relaxed: a hint, as n_settled. */
    atomic_fetch_add_explicit(&core->n_done, 1, memory_order_relaxed);
    /* release: pairs with the acquire in tg_group_done(). */
    atomic_store_explicit(&group->done, 1, memory_order_release);
    core->to_signal_groups = true;
    tg__notify_settled(core);
}

tg_status tg_core_settle(struct tg_core *core, struct tg_item *const *items, size_t n, uint64_t now_ns)
{
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    now_ns = tg__now(core, now_ns);
    for (size_t i = 0; i < n; i++) {
        if (items[i]->state != TG_ITEM_SETTLING) {
            tg__unlock(core);
            return TG_INVALID;
        }
    }
    struct tg__scratch scratch;
    tg__scratch_start(&scratch);
    for (size_t i = 0; i < n; i++) {
        tg__settle_one(&scratch, items[i], now_ns);
    }
    tg__scratch_fold(&scratch);
    tg__unlock(core);
    return TG_OK;
}

tg_status tg_core_take_settled(struct tg_core *core, struct tg_item **items, size_t max, size_t *n)
{
    *n = 0;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    uint64_t taken = 0;
    while (*n < max && !tg__list_empty(&core->settled)) {
        struct tg_item *item = tg__container(core->settled.next, struct tg_item, link);
        tg__list_remove(&item->link);
        taken += tg__item_count(item); /* of a row the rest is there again when this one is settled */
        items[(*n)++] = item;
    }
    atomic_fetch_sub_explicit(&core->n_settled, taken, memory_order_relaxed);
    tg__unlock(core);
    return TG_OK;
}

tg_status tg_core_take_done(struct tg_core *core, struct tg_group **group)
{
    *group = NULL;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    if (!tg__list_empty(&core->done_groups)) {
        *group = tg__container(core->done_groups.next, struct tg_group, done_link);
        tg__list_remove(&(*group)->done_link);
        atomic_fetch_sub_explicit(&core->n_done, 1, memory_order_relaxed);
    }
    tg__unlock(core);
    return TG_OK;
}

int tg_core_has_settled(const struct tg_core *core)
{
    return atomic_load_explicit(&core->n_settled, memory_order_relaxed) != 0;
}

int tg_core_has_done(const struct tg_core *core)
{
    return atomic_load_explicit(&core->n_done, memory_order_relaxed) != 0;
}
