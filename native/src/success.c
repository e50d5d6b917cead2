/* success.c - the usual end of a run: items that succeeded, one after the other, and hold nothing.
 *
 * What tg__end_attempt and tg__settle_one do for any item is done here for a whole stretch of one group: times are added
 * up in registers, counters are moved once, and the records go back to the slabs as one chain. Time in line hardly differs
 * from item to item, nor does the time until the run is finished: see streak.h. Guarded by core->mutex.
 */
#include "internal.h"
#include "streak.h"

static struct tg__streak streak_of(const struct tg__scratch *scratch, enum tg_class class_)
{
    struct tg__coarse *coarse = scratch->group->coarse;
    return (struct tg__streak){.histogram = scratch->lane->histograms[class_],
                           .coarse = coarse != NULL ? coarse->buckets[class_] : NULL};
}

static bool is_plain(const struct tg_item *item, const struct tg_group *group)
{
    return item != NULL && item->group == group && item->verdict == TG_VERDICT_OK && item->limits_held == 0;
}

static void charge(struct tg__scratch *scratch, uint64_t n, uint64_t first_start_ns, uint64_t last_end_ns)
{
    struct tg_group_stats *stats = &scratch->group->stats;
    struct tg_lane *lane = scratch->lane;
    if (stats->first_start_ns == 0 || first_start_ns < stats->first_start_ns) {
        stats->first_start_ns = first_start_ns;
    }
    if (last_end_ns > stats->last_end_ns) {
        stats->last_end_ns = last_end_ns;
    }
    stats->attempts += n;
    stats->outcomes[TG_OUTCOME_SUCCEEDED] += n;
    stats->settled += n;
    lane->stats.outcomes[TG_OUTCOME_SUCCEEDED] += n;
    lane->inside -= n;
}

/* Ends and settles the plain successes at the head of items[0..n) that are of one group; returns how many. They were
 * counted in nothing yet. *length_ns grows by the length of their last attempts. */
uint32_t tg__end_successes(struct tg_core *core, struct tg__scratch *scratch, struct tg_item **items, uint32_t n,
                           uint64_t now_ns, uint64_t *length_ns)
{
    struct tg_group *group = items[0] != NULL ? items[0]->group : NULL;
    if (!is_plain(items[0], group)) {
        return 0;
    }
    tg__scratch_switch(scratch, group);
    struct tg__streak queued = streak_of(scratch, TG_CLASS_QUEUED), settling = streak_of(scratch, TG_CLASS_SETTLING);
    struct tg__streak running = streak_of(scratch, TG_CLASS_RUNNING); /* its values differ: each is counted by itself */
    struct tg__tally run = {.min = UINT64_MAX}, wait = {.min = UINT64_MAX}, settle = {.min = UINT64_MAX};
    uint64_t first_start_ns = UINT64_MAX, last_end_ns = 0, all_attempts_ns = 0;
    uint32_t i = 0;
    do {
        const struct tg_item *item = items[i];
        uint64_t end_ns = item->mark_ns, length = item->running_ns - item->due_ns;
        uint64_t until_settled = now_ns > end_ns ? now_ns - end_ns : 0;
        first_start_ns = end_ns - length < first_start_ns ? end_ns - length : first_start_ns;
        last_end_ns = end_ns > last_end_ns ? end_ns : last_end_ns;
        all_attempts_ns += item->running_ns;
        tg__tally_add(&run, length);
        if (running.histogram != NULL) {
            running.histogram->buckets[tg_histogram_index(length)]++;
        }
        if (running.coarse != NULL) {
            running.coarse[tg_coarse_index(length)]++;
        }
        tg__tally_add(&wait, item->queued_ns);
        tg__streak_add(&queued, item->queued_ns);
        tg__tally_add(&settle, until_settled);
        tg__streak_add(&settling, until_settled);
        if ((item->limited_ns | item->backoff_ns) != 0) {
            tg__scratch_waits(scratch, item);
        }
        i++;
    } while (i < n && is_plain(items[i], group));
    tg__streak_end(&queued);
    tg__streak_end(&settling);
    charge(scratch, i, first_start_ns, last_end_ns);
    *length_ns += run.sum;
    scratch->items_sum[TG_CLASS_RUNNING] += all_attempts_ns;
    tg__tally_merge(&scratch->tally[TG_CLASS_RUNNING], &run);
    tg__tally_merge(&scratch->tally[TG_CLASS_QUEUED], &wait);
    tg__tally_merge(&scratch->tally[TG_CLASS_SETTLING], &settle);
    tg__items_free(core, items, i);
    return i;
}
