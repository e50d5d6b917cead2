/* lane.c - making, changing and reading lanes. Guarded by core->mutex. */
#include "internal.h"

static bool options_valid(const struct tg_lane_options *options)
{
    unsigned kind = (unsigned)options->kind;
    bool one_kind = kind != 0 && (kind & (kind - 1)) == 0 && kind <= TG__ALL_KINDS;
    return one_kind && options->priority < TG_PRIORITIES && options->run_max <= TG_RUN_MAX &&
           options->timeout_ns <= UINT64_MAX / 4 && tg__retry_valid(&options->retry);
}

static void destroy_histograms(struct tg_core *core, struct tg_lane *lane)
{
    for (int i = 0; i < TG_CLASSES; i++) {
        tg__release(core, lane->histograms[i], sizeof *lane->histograms[i]);
        lane->histograms[i] = NULL;
    }
}

/* Histograms are 58 KiB each; those of waits that cannot happen in this lane are not made until they can. */
static bool need_histogram(struct tg_lane *lane, enum tg_class class_)
{
    if (lane->histograms[class_] != NULL) {
        return true;
    }
    struct tg_histogram *histogram;
    if (tg_histogram_create(&lane->core->allocator, &histogram) != TG_OK) {
        return false;
    }
    /* Items settled before had none of this wait. */
    uint64_t settled = 0;
    for (int i = 0; i < TG_OUTCOMES; i++) {
        settled += lane->stats.outcomes[i];
    }
    tg_histogram_record_many(histogram, 0, settled);
    lane->histograms[class_] = histogram;
    return true;
}

static bool make_histograms(struct tg_lane *lane)
{
    return need_histogram(lane, TG_CLASS_QUEUED) && need_histogram(lane, TG_CLASS_RUNNING) &&
           need_histogram(lane, TG_CLASS_SETTLING) &&
           (lane->retry.attempts <= 1 || need_histogram(lane, TG_CLASS_BACKOFF));
}

static void apply_options(struct tg_lane *lane, const struct tg_lane_options *options)
{
    if (options->name != NULL) {
        strncpy(lane->name, options->name, sizeof lane->name - 1);
    }
    lane->kind = options->kind;
    lane->concurrency = options->concurrency != 0 ? options->concurrency : 1;
    lane->priority = options->priority;
    lane->weight = lane->turns_left = options->weight != 0 ? options->weight : 1;
    lane->capacity = options->capacity;
    lane->timeout_ns = options->timeout_ns;
    lane->run_target_ns = options->run_target_ns != 0 ? options->run_target_ns : 1000000;
    lane->run_max = options->run_max != 0 ? options->run_max : TG_RUN_MAX;
    lane->retry = options->retry;
    lane->payload = options->payload;
}

static void init_lists(struct tg_lane *lane)
{
    tg__list_init(&lane->link);
    tg__list_init(&lane->active);
    tg__list_init(&lane->waiting);
    tg__list_init(&lane->resumed);
    tg__list_init(&lane->ready);
    tg__list_init(&lane->running);
    tg__list_init(&lane->overdue);
    tg__list_init(&lane->runs);
    tg__list_init(&lane->calls);
}

static tg_status create_locked(struct tg_core *core, const struct tg_lane_options *options, struct tg_lane **out)
{
    if (core->closed) {
        return TG_CLOSED;
    }
    struct tg_lane *lane = tg__allocate(core, sizeof *lane);
    if (lane == NULL) {
        return TG_NOMEM;
    }
    lane->core = core;
    lane->deadline_timer = TG__OFF_HEAP;
    init_lists(lane);
    apply_options(lane, options);
    if (!tg__heap_reserve(core)) {
        tg__release(core, lane, sizeof *lane);
        return TG_NOMEM;
    }
    if (!make_histograms(lane)) {
        destroy_histograms(core, lane);
        tg__heap_unreserve(core);
        tg__release(core, lane, sizeof *lane);
        return TG_NOMEM;
    }
    uint64_t now_ns = tg__now(core, 0);
    lane->busy_at_ns = now_ns;
    tg__budget_start(lane, now_ns);
    tg__list_append(&core->lanes, &lane->link);
    core->n_lanes++;
    *out = lane;
    return TG_OK;
}

tg_status tg_lane_create(struct tg_core *core, const struct tg_lane_options *options, struct tg_lane **out)
{
    if (!options_valid(options)) {
        return TG_INVALID;
    }
    tg_status status = tg__lock(core);
    if (status == TG_OK) {
        status = create_locked(core, options, out);
        tg__unlock(core);
    }
    return status;
}

static tg_status attach_locked(struct tg_lane *lane, struct tg_limit *limit)
{
    if (lane->used) {
        return TG_BUSY;
    }
    bool keyed_c = limit->options.keyed && lane->kind == TG_KIND_C;
    if (limit->core != lane->core || lane->n_limits == TG_LANE_LIMITS || keyed_c) {
        return TG_INVALID;
    }
    for (uint32_t i = 0; i < lane->n_limits; i++) {
        if (lane->limits[i] == limit) {
            return TG_INVALID;
        }
    }
    if (!need_histogram(lane, TG_CLASS_LIMITED)) {
        return TG_NOMEM;
    }
    enum tg_limit_kind kind = limit->options.kind;
    lane->has_breaker |= kind == TG_LIMIT_BREAKER;
    lane->one_by_one |= kind == TG_LIMIT_RATE || kind == TG_LIMIT_SUPPLIED || limit->options.keyed;
    if (limit->options.keyed) {
        lane->key_index[lane->n_limits] = (uint8_t)lane->n_keyed++;
    }
    lane->limits[lane->n_limits++] = limit;
    limit->lanes++;
    return TG_OK;
}

tg_status tg_lane_attach(struct tg_lane *lane, struct tg_limit *limit)
{
    tg_status status = tg__lock(lane->core);
    if (status == TG_OK) {
        status = attach_locked(lane, limit);
        tg__unlock(lane->core);
    }
    return status;
}

tg_status tg_lane_destroy(struct tg_lane *lane)
{
    struct tg_core *core = lane->core;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    if (lane->inside != 0 || lane->n_groups != 0 || lane->running_now != 0) {
        tg__unlock(core);
        return TG_BUSY;
    }
    if (lane->blocked_on != NULL) {
        tg__lane_unblock(lane, core->now_ns);
    }
    lane->paused = true;
    tg__lane_refresh(lane);
    tg__heap_remove(core, &lane->deadline_timer);
    tg__heap_unreserve(core);
    for (uint32_t i = 0; i < lane->n_limits; i++) {
        lane->limits[i]->lanes--;
    }
    destroy_histograms(core, lane);
    tg__list_remove(&lane->link);
    core->n_lanes--;
    tg__release(core, lane, sizeof *lane);
    tg__unlock(core);
    return TG_OK;
}

void *tg_lane_payload(const struct tg_lane *lane)
{
    return lane->payload;
}

enum tg_kind tg_lane_kind(const struct tg_lane *lane)
{
    return lane->kind;
}

uint32_t tg_lane_keys(const struct tg_lane *lane)
{
    return lane->n_keyed;
}

tg_status tg_lane_set_concurrency(struct tg_lane *lane, uint32_t concurrency)
{
    tg_status status = tg__lock(lane->core);
    if (status != TG_OK) {
        return status;
    }
    lane->concurrency = concurrency != 0 ? concurrency : 1;
    tg__lane_refresh(lane);
    tg__unlock(lane->core);
    return TG_OK;
}

tg_status tg_lane_set_capacity(struct tg_lane *lane, uint64_t capacity)
{
    tg_status status = tg__lock(lane->core);
    if (status != TG_OK) {
        return status;
    }
    lane->capacity = capacity;
    tg__unlock(lane->core);
    return TG_OK;
}

tg_status tg_lane_set_timeout(struct tg_lane *lane, uint64_t timeout_ns)
{
    if (timeout_ns > UINT64_MAX / 4) {
        return TG_INVALID;
    }
    tg_status status = tg__lock(lane->core);
    if (status != TG_OK) {
        return status;
    }
    lane->timeout_ns = timeout_ns;
    tg__unlock(lane->core);
    return TG_OK;
}

tg_status tg_lane_set_paused(struct tg_lane *lane, int paused)
{
    tg_status status = tg__lock(lane->core);
    if (status != TG_OK) {
        return status;
    }
    lane->paused = paused != 0;
    tg__lane_refresh(lane);
    tg__unlock(lane->core);
    return TG_OK;
}

tg_status tg_lane_set_retry(struct tg_lane *lane, const struct tg_retry *retry)
{
    if (!tg__retry_valid(retry)) {
        return TG_INVALID;
    }
    struct tg_core *core = lane->core;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    if (retry->attempts > 1 && !need_histogram(lane, TG_CLASS_BACKOFF)) {
        tg__unlock(core);
        return TG_NOMEM;
    }
    uint64_t now_ns = tg__now(core, 0);
    lane->retry = *retry;
    tg__budget_start(lane, now_ns);
    tg__heap_remove(core, &lane->deadline_timer);
    if (retry->deadline_ns != 0 && lane->inside != 0) {
        tg__deadline_arm(lane, now_ns + retry->deadline_ns / 64 + 1);
    }
    tg__unlock(core);
    return TG_OK;
}

tg_status tg_lane_get_stats(struct tg_lane *lane, struct tg_lane_stats *out)
{
    struct tg_core *core = lane->core;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    uint64_t now_ns = tg__now(core, 0);
    tg__lane_busy(lane, now_ns);
    *out = lane->stats;
    out->now_ns = now_ns;
    out->inside = lane->inside;
    out->limited = lane->n_limited;
    out->backing_off = lane->n_backoff;
    out->claimed = lane->n_claimed;
    out->settling = lane->n_settling;
    out->ready = lane->n_ready + lane->n_unclaimed;
    out->running = lane->running_now;
    out->peak_running = lane->peak_running;
    out->concurrency = lane->concurrency;
    out->blocked = lane->blocked_on != NULL;
    out->busy_ns = lane->busy_ns;
    out->mean_run_ns = lane->mean_run_ns;
    out->budget = tg__budget_now(lane, now_ns);
    tg__unlock(core);
    return TG_OK;
}

tg_status tg_lane_get_histogram(struct tg_lane *lane, enum tg_class class_, struct tg_histogram *into)
{
    if ((unsigned)class_ >= TG_CLASSES) {
        return TG_INVALID;
    }
    tg_status status = tg__lock(lane->core);
    if (status != TG_OK) {
        return status;
    }
    if (lane->histograms[class_] != NULL) {
        tg_histogram_copy(into, lane->histograms[class_]);
    } else {
        tg_histogram_reset(into);
        tg_histogram_record_many(into, 0, lane->histograms[TG_CLASS_SETTLING]->count);
    }
    tg__unlock(lane->core);
    return TG_OK;
}
