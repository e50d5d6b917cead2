/* decide.c - what becomes of an item after an attempt: settled, retried, deferred. Guarded by core->mutex.
 *
 * Every answer is counted in the lane (struct tg_lane_stats), so that a report can say why there was no retry.
 */
#include "internal.h"

void tg__push_settled(struct tg_core *core, struct tg_item *item)
{
    tg__list_append(&core->settled, &item->link);
    /* relaxed: a hint; takers look at the list under the lock. */
    atomic_fetch_add_explicit(&core->n_settled, tg__item_count(item), memory_order_relaxed);
    tg__notify_settled(core);
}

static void mark_decided(struct tg_item *item, enum tg_outcome outcome, enum tg_reason reason)
{
    item->state = TG_ITEM_SETTLING;
    item->outcome = (uint8_t)outcome;
    item->reason = (uint8_t)reason;
    item->group->lane->n_settling += tg__item_count(item);
}

/* Ends an item, or a row, that was waiting and is in no line any more. Elements of C calls have no binding that would settle
 * them. */
void tg__end_waiting(struct tg_item *item, enum tg_outcome outcome, enum tg_reason reason, uint64_t now_ns)
{
    mark_decided(item, outcome, reason);
    if (!(item->flags & TG__ITEM_C)) {
        tg__push_settled(item->group->lane->core, item);
        return;
    }
    struct tg__scratch scratch;
    tg__scratch_start(&scratch);
    tg__settle_one(&scratch, item, now_ns);
    tg__scratch_fold(&scratch);
}

/* Back from the heap to the head part of its line. The caller refreshes nothing: done here. */
void tg__resume(struct tg_item *item, uint64_t now_ns)
{
    struct tg_lane *lane = item->group->lane;
    lane->n_backoff--;
    if (now_ns > item->mark_ns) {
        item->backoff_ns += now_ns - item->mark_ns;
        item->mark_ns = now_ns;
    }
    item->verdict = TG_VERDICT_NONE;
    item->flags &= (uint8_t)~TG__ITEM_LEAST_DELAY;
    tg__line_enter(lane, item, &lane->resumed, now_ns);
    tg__lane_refresh(lane);
}

void tg__count_attempt(struct tg_item *item)
{
    struct tg_lane_stats *stats = &item->group->lane->stats;
    item->group->stats.attempts++;
    stats->started++;
    switch (item->verdict) {
    case TG_VERDICT_OK:
        stats->attempts_ok++;
        break;
    case TG_VERDICT_TIMED_OUT:
        stats->attempts_timed_out++;
        break;
    case TG_VERDICT_CANCELLED:
        stats->attempts_cancelled++;
        break;
    case TG_VERDICT_CRASHED:
        stats->attempts_crashed++;
        break;
    default:
        stats->attempts_failed++;
    }
}

static enum tg_outcome final_outcome(uint8_t verdict)
{
    switch (verdict) {
    case TG_VERDICT_OK:
        return TG_OUTCOME_SUCCEEDED;
    case TG_VERDICT_TIMED_OUT:
        return TG_OUTCOME_TIMED_OUT;
    case TG_VERDICT_CANCELLED:
        return TG_OUTCOME_CANCELLED;
    case TG_VERDICT_CRASHED:
        return TG_OUTCOME_CRASHED;
    default:
        return TG_OUTCOME_FAILED;
    }
}

static bool breaker_refuses(struct tg_item *item, uint64_t now_ns)
{
    struct tg_lane *lane = item->group->lane;
    for (uint32_t i = 0; lane->has_breaker && i < lane->n_limits; i++) {
        struct tg_limit *limit = lane->limits[i];
        struct tg__gate *gate = &limit->gate;
        if (limit->options.keyed) {
            gate = tg__key_find(limit, tg__item_key(item, lane, i));
        }
        if (gate != NULL && tg__gate_refuses(gate, now_ns)) {
            return true;
        }
    }
    return false;
}

/* Why there will be no retry at due_ns; REASON_NONE when there will be one. Takes a budget token last, so that a refusal
 * for another reason costs none. */
static enum tg_reason refuse_retry(struct tg_item *item, uint64_t due_ns, uint64_t now_ns)
{
    struct tg_lane *lane = item->group->lane;
    const struct tg_retry *retry = &lane->retry;
    struct tg_lane_stats *stats = &lane->stats;
    bool retryable = item->verdict == TG_VERDICT_FAIL_RETRYABLE ||
                     (item->verdict == TG_VERDICT_TIMED_OUT && retry->retry_timeouts);
    if (!retryable) {
        stats->refused_final++;
        return item->verdict == TG_VERDICT_CANCELLED ? TG_REASON_CANCELLED : TG_REASON_FINAL;
    }
    if (item->group->cancelled || lane->core->closed_cancel) {
        return item->group->cancelled ? TG_REASON_CANCELLED : TG_REASON_CLOSED;
    }
    if (item->attempts >= retry->attempts) {
        stats->refused_attempts++;
        return TG_REASON_ATTEMPTS;
    }
    if (retry->deadline_ns != 0 && due_ns >= item->submit_ns + retry->deadline_ns) {
        stats->refused_deadline++;
        return TG_REASON_DEADLINE;
    }
    if (breaker_refuses(item, now_ns)) {
        stats->refused_breaker++;
        return TG_REASON_BREAKER;
    }
    if (!tg__budget_take(lane, now_ns)) {
        stats->refused_budget++;
        return TG_REASON_BUDGET;
    }
    stats->retried++;
    item->group->stats.retries++;
    return TG_REASON_NONE;
}

/* On the heap until due. Without memory for the heap the item waits on a list that is looked through instead. */
static void put_in_backoff(struct tg_item *item, uint64_t due_ns, uint64_t now_ns)
{
    struct tg_lane *lane = item->group->lane;
    struct tg_core *core = lane->core;
    item->state = TG_ITEM_BACKOFF;
    item->due_ns = due_ns;
    lane->n_backoff++;
    if (due_ns <= now_ns) {
        tg__resume(item, now_ns);
        return;
    }
    if (!tg__heap_push(core, TG__TIMER_ITEM, &item->heap_index, due_ns)) {
        tg__list_append(&core->overflow, &item->link);
        core->n_overflow++;
    }
}

/* The attempt is over: its permits are back, breakers were told. The time from the end of the attempt to the retry is
 * backoff; to settle, settling. */
enum tg_decision tg__decide(struct tg_item *item, uint64_t now_ns)
{
    struct tg_group *group = item->group;
    struct tg_lane *lane = group->lane;
    if (item->verdict == TG_VERDICT_OK) {
        mark_decided(item, TG_OUTCOME_SUCCEEDED, TG_REASON_NONE);
        return TG_DECISION_SETTLE;
    }
    uint64_t least = item->flags & TG__ITEM_LEAST_DELAY ? item->delay_ns : 0;
    uint64_t delay = 0;
    if (item->attempts < lane->retry.attempts) {
        delay = tg__backoff(&lane->retry, &lane->core->random, item->attempts, item->delay_ns);
    }
    delay = delay < least ? least : delay;
    uint64_t due;
    if (__builtin_add_overflow(item->mark_ns, delay, &due)) {
        due = TG_NEVER - 1;
    }
    enum tg_reason reason = refuse_retry(item, due, now_ns);
    if (reason != TG_REASON_NONE) {
        mark_decided(item, final_outcome(item->verdict), reason);
        return TG_DECISION_SETTLE;
    }
    item->delay_ns = delay;
    item->due_ns = due;
    if (group->drained) {
        mark_decided(item, TG_OUTCOME_RETURNED, TG_REASON_DRAINED);
        return TG_DECISION_SETTLE;
    }
    if (group->max_wait_ns != 0 && delay > group->max_wait_ns) {
        mark_decided(item, TG_OUTCOME_DEFERRED, TG_REASON_DEFERRED);
        return TG_DECISION_SETTLE;
    }
    put_in_backoff(item, due, now_ns);
    return TG_DECISION_RETRY;
}
