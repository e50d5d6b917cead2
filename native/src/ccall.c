/* ccall.c - C calls: arrays whose elements are claimed in stretches and have no record of their own unless they fail.
 *
 * Guarded by core->mutex; what a stretch covers belongs to its thread until tg__stretch_finish. A call is freed when all
 * elements are claimed and nobody holds it any more.
 */
#include "internal.h"

bool tg__calls_ready(const struct tg_lane *lane)
{
    return !tg__list_empty(&lane->calls);
}

static void free_if_over(struct tg__call *call)
{
    if (call->holders == 0 && call->next == call->spec.n) {
        struct tg_core *core = call->group->core;
        core->n_calls--;
        tg__release(core, call, sizeof *call);
    }
}

void tg__call_drop(struct tg__call *call)
{
    call->holders--;
    free_if_over(call);
}

void tg__call_settled(struct tg_item *item)
{
    struct tg__call *call = item->payload;
    if (call->spec.ends != NULL) {
        call->spec.ends[item->position] = (struct tg_ccall_end){
            item->running_ns, item->queued_ns + item->limited_ns + item->backoff_ns, item->attempts, item->outcome,
            item->reason};
    }
    tg__call_drop(call);
}

/* ---- submit ---- */

static bool spec_valid(const struct tg_ccall *spec)
{
    if (spec->double_function != NULL) {
        return spec->bytes_function == NULL && (spec->n == 0 || (spec->in_doubles != NULL && spec->out_doubles != NULL));
    }
    return spec->bytes_function != NULL &&
           (spec->n == 0 || (spec->in != NULL && spec->in_offsets != NULL && spec->out != NULL && spec->out_lens != NULL));
}

static tg_status submit_locked(struct tg_core *core, struct tg_group *group, const struct tg_ccall *spec, uint64_t now_ns)
{
    struct tg_lane *lane = group->lane;
    if (core->closed || group->cancelled || group->drained || group->announced) {
        return TG_CLOSED;
    }
    if (group->core != core || lane->kind != TG_KIND_C || !spec_valid(spec)) {
        return TG_INVALID;
    }
    if (lane->capacity != 0 && (lane->inside > lane->capacity || spec->n > lane->capacity - lane->inside)) {
        lane->stats.refused_full += spec->n;
        return TG_FULL;
    }
    if (spec->n == 0) {
        tg__group_check_done(group);
        return TG_OK;
    }
    struct tg__call *call = tg__allocate(core, sizeof *call);
    if (call == NULL) {
        return TG_NOMEM;
    }
    call->spec = *spec;
    call->group = group;
    call->submit_ns = now_ns;
    call->limited_ns = tg__lane_limited(lane, now_ns);
    tg__list_append(&lane->calls, &call->link);
    core->n_calls++;
    lane->used = true;
    lane->inside += spec->n;
    lane->n_unclaimed += spec->n;
    lane->stats.submitted += spec->n;
    group->stats.total += spec->n;
    tg__lane_refresh(lane);
    return TG_OK;
}

tg_status tg_core_submit_ccall(struct tg_core *core, struct tg_group *group, const struct tg_ccall *call, uint64_t now_ns)
{
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    status = submit_locked(core, group, call, tg__now(core, now_ns));
    tg__unlock(core);
    return status;
}

/* ---- ending elements that were not claimed ---- */

static void note_unclaimed(struct tg__call *call, enum tg_outcome outcome, uint64_t waited_ns)
{
    enum tg_reason reason = outcome == TG_OUTCOME_TIMED_OUT ? TG_REASON_DEADLINE
                            : outcome == TG_OUTCOME_FAILED  ? TG_REASON_BREAKER
                                                            : TG_REASON_CANCELLED;
    for (size_t i = call->next; call->spec.ends != NULL && i < call->spec.n; i++) {
        call->spec.ends[i] = (struct tg_ccall_end){0, waited_ns, 0, (uint8_t)outcome, (uint8_t)reason};
    }
}

static void end_unclaimed(struct tg__call *call, enum tg_outcome outcome, uint64_t now_ns)
{
    struct tg_group *group = call->group;
    struct tg_lane *lane = group->lane;
    uint64_t n = call->spec.n - call->next;
    uint64_t limited = tg__lane_limited(lane, now_ns) - call->limited_ns;
    uint64_t queued = now_ns - call->submit_ns - limited;
    tg__record(lane, group, TG_CLASS_QUEUED, queued, n);
    tg__record(lane, group, TG_CLASS_LIMITED, limited, n);
    tg__record(lane, group, TG_CLASS_BACKOFF, 0, n);
    tg__record(lane, group, TG_CLASS_SETTLING, 0, n);
    group->stats.sum_ns[TG_CLASS_QUEUED] += queued * n;
    group->stats.sum_ns[TG_CLASS_LIMITED] += limited * n;
    group->stats.outcomes[outcome] += n;
    group->stats.settled += n;
    lane->stats.outcomes[outcome] += n;
    lane->inside -= n;
    lane->n_unclaimed -= n;
    note_unclaimed(call, outcome, queued + limited);
    call->next = call->spec.n;
    tg__list_remove(&call->link);
    free_if_over(call);
    tg__group_check_done(group);
}

/* Ends the unclaimed elements of the group's calls (NULL: of every group). Returns how many. */
uint64_t tg__calls_cancel(struct tg_lane *lane, struct tg_group *group, enum tg_outcome outcome, uint64_t now_ns)
{
    uint64_t n = 0;
    struct tg_link *next;
    for (struct tg_link *at = lane->calls.next; at != &lane->calls; at = next) {
        next = at->next;
        struct tg__call *call = tg__container(at, struct tg__call, link);
        if (group == NULL || call->group == group) {
            n += call->spec.n - call->next;
            end_unclaimed(call, outcome, now_ns);
        }
    }
    tg__lane_refresh(lane);
    return n;
}

/* ---- claim ---- */

static struct tg__call *first_call(struct tg_lane *lane, uint64_t now_ns)
{
    while (tg__calls_ready(lane)) {
        struct tg__call *call = tg__container(lane->calls.next, struct tg__call, link);
        if (lane->retry.deadline_ns == 0 || now_ns < call->submit_ns + lane->retry.deadline_ns) {
            return call;
        }
        lane->stats.expired += call->spec.n - call->next;
        end_unclaimed(call, TG_OUTCOME_TIMED_OUT, now_ns);
    }
    return NULL;
}

/* About run_target_ns of work, and never so much of what is left that the other threads go idle at the end. */
static size_t stretch_length(struct tg_lane *lane, struct tg__call *call, uint32_t threads, uint64_t now_ns)
{
    if (tg__lane_run_length(lane, now_ns) == 1) {
        return 1;
    }
    size_t left = call->spec.n - call->next;
    size_t share = left / ((size_t)threads * 2) + 1;
    uint64_t target = lane->run_target_ns / lane->mean_run_ns;
    size_t length = target < TG__STRETCH_MAX ? (size_t)target : TG__STRETCH_MAX;
    length = length < share ? length : share;
    return length < left ? length : left;
}

static void claim_call(struct tg_lane *lane, struct tg__call *call, size_t n, uint64_t now_ns, struct tg__stretch *out)
{
    out->call = call;
    out->first = call->next;
    out->n = n;
    out->limited_ns = tg__lane_limited(lane, now_ns) - call->limited_ns;
    out->proxy.group = call->group;
    call->next += n;
    call->holders++;
    lane->n_unclaimed -= n;
    lane->n_claimed += n;
    lane->stats.runs++;
    if (call->next == call->spec.n) {
        tg__list_remove(&call->link);
        tg__lane_refresh(lane);
    }
    tg__lane_take(lane, &out->proxy, n, now_ns);
}

/* The next stretch, or element to try again; false when nothing can start. The lock is held. */
bool tg__stretch_claim(struct tg_core *core, uint32_t threads, uint64_t now_ns, struct tg__stretch *out)
{
    memset(out, 0, sizeof *out);
    tg__run_timers(core, now_ns);
    tg__tsc_calibrate(core, now_ns);
    struct tg_lane *lane;
    while ((lane = tg__next_lane(core, TG_KIND_C, now_ns)) != NULL) {
        out->lane = lane;
        out->timeout_ns = lane->timeout_ns;
        struct tg_item *item = tg__line_pop(lane, now_ns);
        if (item != NULL) {
            tg__lane_take(lane, item, 1, now_ns);
            tg__line_leave(lane, item, now_ns);
            tg__start_item(lane, item);
            out->item = item;
            out->call = item->payload;
        } else {
            struct tg__call *call = first_call(lane, now_ns);
            if (call == NULL) {
                tg__lane_refresh(lane);
                continue;
            }
            claim_call(lane, call, stretch_length(lane, call, threads, now_ns), now_ns, out);
        }
        tg__turn(lane);
        if (core->waiting_threads[tg__kind_index(TG_KIND_C)] != 0 &&
            core->active_priorities[tg__kind_index(TG_KIND_C)] != 0) {
            core->to_signal |= TG_KIND_C;
        }
        return true;
    }
    return false;
}

/* ---- finish ---- */

static void merge(struct tg_lane *lane, struct tg_group *group, enum tg_class class_, struct tg_histogram *from)
{
    if (from->count == 0) {
        return;
    }
    uint32_t highest = tg_histogram_index(from->max);
    for (uint32_t i = tg_histogram_index(from->min); i <= highest; i++) {
        if (from->buckets[i] == 0) {
            continue;
        }
        lane->histograms[class_]->buckets[i] += from->buckets[i];
        if (group->coarse != NULL) {
            /* A fine bucket lies inside one coarse bucket: 128 is 8 times 16. */
            group->coarse->buckets[class_][tg_coarse_index(tg_histogram_low(i))] += (uint32_t)from->buckets[i];
        }
    }
    struct tg__tally tally = {from->count, from->sum, from->min, from->max};
    tg__fold_tally(lane, group, class_, &tally);
    group->stats.sum_ns[class_] += from->sum;
    tg_histogram_reset(from);
}

/* A failed element gets a record, which is then decided like any item. The attempt's length is already in the tallies. */
static void end_failure(struct tg__stretch *stretch, const struct tg__failure *failure, struct tg__scratch *scratch,
                        uint64_t now_ns)
{
    struct tg__call *call = stretch->call;
    struct tg_lane *lane = stretch->lane;
    struct tg_item *item = tg__item_allocate(lane->core);
    uint64_t earliest = call->submit_ns + stretch->limited_ns;
    uint64_t queued = failure->start_ns > earliest ? failure->start_ns - earliest : 0;
    if (item == NULL) {
        /* No memory for a retry: it failed. */
        call->group->stats.attempts++;
        lane->stats.started++;
        lane->stats.attempts_failed++;
        lane->stats.outcomes[TG_OUTCOME_FAILED]++;
        call->group->stats.outcomes[TG_OUTCOME_FAILED]++;
        call->group->stats.settled++;
        if (call->spec.ends != NULL) {
            call->spec.ends[failure->element] = (struct tg_ccall_end){failure->end_ns - failure->start_ns, queued, 1,
                                                                      TG_OUTCOME_FAILED, TG_REASON_FINAL};
        }
        lane->inside--;
        tg__record(lane, call->group, TG_CLASS_QUEUED, queued, 1);
        return;
    }
    memset(item, 0, sizeof *item);
    item->payload = call;
    item->group = call->group;
    item->position = failure->element;
    item->submit_ns = call->submit_ns;
    item->mark_ns = failure->end_ns;
    item->queued_ns = queued;
    item->limited_ns = stretch->limited_ns;
    item->running_ns = failure->end_ns - failure->start_ns;
    item->heap_index = TG__OFF_HEAP;
    item->attempts = 1;
    item->flags = TG__ITEM_C;
    item->verdict = failure->late ? TG_VERDICT_TIMED_OUT
                    : failure->status > 0 ? TG_VERDICT_FAIL_RETRYABLE
                                          : TG_VERDICT_FAIL_FINAL;
    call->holders++;
    /* Its running time is added again when it settles. */
    call->group->stats.sum_ns[TG_CLASS_RUNNING] -= item->running_ns;
    tg__count_attempt(item);
    if (tg__decide(item, now_ns) == TG_DECISION_SETTLE) {
        tg__settle_one(scratch, item, now_ns);
    }
}

static void tell_breakers(struct tg__stretch *stretch, uint64_t n_ok, uint64_t n_final, uint64_t n_failed, uint64_t now_ns)
{
    struct tg_item *proxy = &stretch->proxy;
    proxy->verdict = TG_VERDICT_OK;
    for (; n_ok != 0; n_ok--) {
        tg__item_outcome(proxy, now_ns);
    }
    proxy->verdict = TG_VERDICT_FAIL_FINAL;
    for (; n_final != 0; n_final--) {
        tg__item_outcome(proxy, now_ns);
    }
    proxy->verdict = TG_VERDICT_FAIL_RETRYABLE;
    for (; n_failed != 0; n_failed--) {
        tg__item_outcome(proxy, now_ns);
    }
}

static void finish_call(struct tg_core *core, struct tg__stretch *stretch, struct tg__tallies *tallies, uint64_t now_ns)
{
    struct tg_lane *lane = stretch->lane;
    struct tg_group *group = stretch->call->group;
    uint64_t n = stretch->n, failed = tallies->n_failures, n_ok = n - failed, n_final = 0;
    tg__learn(lane, tallies->running.sum, n);
    merge(lane, group, TG_CLASS_RUNNING, &tallies->running);
    merge(lane, group, TG_CLASS_QUEUED, &tallies->queued);
    tg__record(lane, group, TG_CLASS_LIMITED, stretch->limited_ns, n_ok);
    tg__record(lane, group, TG_CLASS_BACKOFF, 0, n_ok);
    tg__record(lane, group, TG_CLASS_SETTLING, 0, n_ok);
    group->stats.sum_ns[TG_CLASS_LIMITED] += stretch->limited_ns * n_ok;
    group->stats.attempts += n_ok;
    group->stats.settled += n_ok;
    group->stats.outcomes[TG_OUTCOME_SUCCEEDED] += n_ok;
    if (group->stats.first_start_ns == 0 || tallies->first_start_ns < group->stats.first_start_ns) {
        group->stats.first_start_ns = tallies->first_start_ns;
    }
    if (tallies->last_end_ns > group->stats.last_end_ns) {
        group->stats.last_end_ns = tallies->last_end_ns;
    }
    lane->stats.started += n_ok;
    lane->stats.attempts_ok += n_ok;
    lane->stats.outcomes[TG_OUTCOME_SUCCEEDED] += n_ok;
    lane->inside -= n_ok;
    lane->n_claimed -= n;
    tg__budget_earn(lane, n_ok);
    for (uint32_t i = 0; i < failed; i++) {
        n_final += !tallies->failures[i].late && tallies->failures[i].status < 0;
    }
    if (lane->has_breaker) {
        tell_breakers(stretch, n_ok, n_final, failed - n_final, now_ns);
    }
    struct tg__scratch scratch;
    tg__scratch_start(&scratch);
    for (uint32_t i = 0; i < failed; i++) {
        end_failure(stretch, &tallies->failures[i], &scratch, now_ns);
    }
    tg__scratch_fold(&scratch);
    tallies->n_failures = 0;
    tg__lane_release(lane, now_ns);
    tg__group_check_done(group);
    tg__call_drop(stretch->call);
    (void)core;
}

static void finish_item(struct tg__stretch *stretch, uint64_t now_ns)
{
    struct tg_item *item = stretch->item;
    struct tg_lane *lane = stretch->lane;
    struct tg__scratch scratch;
    tg__scratch_start(&scratch);
    tg__list_remove(&item->link);
    tg__learn(lane, item->running_ns - item->due_ns, 1);
    if (tg__end_attempt(&scratch, item, now_ns) == TG_DECISION_SETTLE) {
        tg__settle_one(&scratch, item, now_ns);
    }
    tg__scratch_fold(&scratch);
    tg__lane_release(lane, now_ns);
}

void tg__stretch_finish(struct tg_core *core, struct tg__stretch *stretch, struct tg__tallies *tallies, uint64_t now_ns)
{
    if (stretch->item != NULL) {
        finish_item(stretch, now_ns);
        return;
    }
    finish_call(core, stretch, tallies, now_ns);
}
