/* limit.c - making, changing and reading limits; what they decide is in gate.c, breaker.c and keys.c.
 * Guarded by core->mutex. Every change ends with a kick, so that whoever may now start is woken.
 */
#include "internal.h"

static bool set_interval(struct tg_limit *limit, uint64_t count, uint64_t period_ns, uint32_t burst)
{
    const uint64_t ten_years_ns = (uint64_t)315576000 * 1000000000u;
    if (count == 0 || period_ns == 0 || burst == 0) {
        return false;
    }
    /* Rounded up: never faster than asked. */
    uint64_t interval = period_ns / count + (period_ns % count != 0);
    if (interval > ten_years_ns || (uint64_t)(burst - 1) > UINT64_MAX / 4 / interval) {
        return false;
    }
    limit->interval_ns = interval;
    limit->tolerance_ns = (burst - 1) * interval;
    return true;
}

static bool configure(struct tg_limit *limit, const struct tg_limit_options *options)
{
    limit->options = *options;
    switch (options->kind) {
    case TG_LIMIT_CONCURRENCY:
        return true;
    case TG_LIMIT_RATE:
        return set_interval(limit, options->count, options->period_ns, options->burst);
    case TG_LIMIT_SUPPLIED:
        limit->options.watched = options->keyed;
        return true;
    case TG_LIMIT_BREAKER:
        return options->failure_ratio > 0 && options->failure_ratio <= 1 && options->min_calls != 0 &&
               options->window_ns >= 2 && options->window_ns <= UINT64_MAX / 4 && options->open_ns != 0 &&
               options->open_ns <= UINT64_MAX / 4 && options->probes != 0;
    }
    return false;
}

static tg_status create_locked(struct tg_core *core, const struct tg_limit_options *options, struct tg_limit **out)
{
    struct tg_limit *limit = tg__allocate(core, sizeof *limit);
    if (limit == NULL) {
        return TG_NOMEM;
    }
    limit->core = core;
    if (!configure(limit, options)) {
        tg__release(core, limit, sizeof *limit);
        return TG_INVALID;
    }
    if (!tg__heap_reserve(core)) {
        tg__release(core, limit, sizeof *limit);
        return TG_NOMEM;
    }
    tg__gate_init(&limit->gate, limit, 0);
    if (options->kind == TG_LIMIT_SUPPLIED && !options->keyed && !tg__offers_allocate(&limit->gate, TG_OFFERS)) {
        tg__heap_unreserve(core);
        tg__release(core, limit, sizeof *limit);
        return TG_NOMEM;
    }
    limit->gate.half_start_ns = tg__now(core, 0);
    tg__list_init(&limit->gates);
    tg__list_init(&limit->news);
    limit->hand = &limit->gates;
    tg__list_append(&core->limits, &limit->link);
    core->n_limits++;
    *out = limit;
    return TG_OK;
}

tg_status tg_limit_create(struct tg_core *core, const struct tg_limit_options *options, struct tg_limit **out)
{
    tg_status status = tg__lock(core);
    if (status == TG_OK) {
        status = create_locked(core, options, out);
        tg__unlock(core);
    }
    return status;
}

tg_status tg_limit_destroy(struct tg_limit *limit)
{
    struct tg_core *core = limit->core;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    if (limit->lanes != 0) {
        tg__unlock(core);
        return TG_BUSY;
    }
    tg__keys_destroy(limit);
    tg__offers_free(&limit->gate);
    tg__heap_remove(core, &limit->gate.timer);
    tg__heap_unreserve(core);
    tg__list_remove(&limit->link);
    core->n_limits--;
    tg__release(core, limit, sizeof *limit);
    tg__unlock(core);
    return TG_OK;
}

void *tg_limit_payload(const struct tg_limit *limit)
{
    return limit->options.payload;
}

static void kick_all(struct tg_limit *limit, uint64_t now_ns)
{
    if (!limit->options.keyed) {
        tg__gate_kick(&limit->gate, now_ns);
        return;
    }
    for (struct tg_link *at = limit->gates.next; at != &limit->gates; at = at->next) {
        tg__gate_kick(tg__container(at, struct tg__gate, all), now_ns);
    }
}

tg_status tg_limit_set_capacity(struct tg_limit *limit, uint32_t capacity)
{
    if (limit->options.kind != TG_LIMIT_CONCURRENCY) {
        return TG_INVALID;
    }
    tg_status status = tg__lock(limit->core);
    if (status != TG_OK) {
        return status;
    }
    limit->options.capacity = capacity;
    kick_all(limit, tg__now(limit->core, 0));
    tg__unlock(limit->core);
    return TG_OK;
}

tg_status tg_limit_set_rate(struct tg_limit *limit, uint64_t count, uint64_t period_ns, uint32_t burst)
{
    if (limit->options.kind != TG_LIMIT_RATE) {
        return TG_INVALID;
    }
    tg_status status = tg__lock(limit->core);
    if (status != TG_OK) {
        return status;
    }
    if (!set_interval(limit, count, period_ns, burst)) {
        status = TG_INVALID;
    } else {
        kick_all(limit, tg__now(limit->core, 0));
    }
    tg__unlock(limit->core);
    return status;
}

static void set_pause(uint64_t *until, uint64_t new_ns)
{
    if (new_ns == 0 || new_ns > *until) {
        *until = new_ns;
    }
}

tg_status tg_limit_pause_until(struct tg_limit *limit, uint64_t until_ns)
{
    tg_status status = tg__lock(limit->core);
    if (status != TG_OK) {
        return status;
    }
    set_pause(&limit->paused_until_ns, until_ns);
    kick_all(limit, tg__now(limit->core, 0));
    tg__unlock(limit->core);
    return TG_OK;
}

tg_status tg_limit_pause_key_until(struct tg_limit *limit, uint64_t key, uint64_t until_ns)
{
    if (!limit->options.keyed) {
        return TG_INVALID;
    }
    tg_status status = tg__lock(limit->core);
    if (status != TG_OK) {
        return status;
    }
    uint64_t now_ns = tg__now(limit->core, 0);
    struct tg__gate *gate = tg__key_get(limit, key, now_ns);
    if (gate == NULL) {
        status = TG_NOMEM;
    } else {
        set_pause(&gate->paused_until_ns, until_ns);
        tg__gate_kick(gate, now_ns);
    }
    tg__unlock(limit->core);
    return status;
}

static uint64_t demand_locked(const struct tg_limit *limit)
{
    if (limit->options.keyed) {
        return limit->waiting;
    }
    bool all = limit->options.kind == TG_LIMIT_SUPPLIED;
    uint64_t demand = 0;
    const struct tg_core *core = limit->core;
    for (struct tg_link *at = core->lanes.next; at != &core->lanes; at = at->next) {
        struct tg_lane *lane = tg__container(at, struct tg_lane, link);
        for (uint32_t i = 0; i < lane->n_limits; i++) {
            if (lane->limits[i] == limit && (all || lane->blocked_on == &limit->gate)) {
                demand += lane->n_ready + lane->n_unclaimed;
            }
        }
    }
    return demand;
}

uint64_t tg_limit_demand(struct tg_limit *limit)
{
    if (tg__lock(limit->core) != TG_OK) {
        return 0;
    }
    uint64_t demand = demand_locked(limit);
    tg__unlock(limit->core);
    return demand;
}

tg_status tg_limit_get_stats(struct tg_limit *limit, struct tg_limit_stats *out)
{
    tg_status status = tg__lock(limit->core);
    if (status != TG_OK) {
        return status;
    }
    uint64_t now_ns = tg__now(limit->core, 0);
    if (!limit->options.keyed) {
        tg__gate_room(&limit->gate, now_ns); /* discards what has passed */
    }
    *out = limit->stats;
    out->demand = demand_locked(limit);
    out->keys = limit->n_gates;
    out->paused_until_ns = limit->paused_until_ns > now_ns ? limit->paused_until_ns : 0;
    tg__unlock(limit->core);
    return TG_OK;
}

enum tg_breaker_state tg_limit_breaker_state(struct tg_limit *limit, uint64_t key)
{
    if (limit->options.kind != TG_LIMIT_BREAKER || tg__lock(limit->core) != TG_OK) {
        return TG_BREAKER_CLOSED;
    }
    struct tg__gate *gate = limit->options.keyed ? tg__key_find(limit, key) : &limit->gate;
    enum tg_breaker_state state = TG_BREAKER_CLOSED;
    if (gate != NULL) {
        tg__breaker_refresh(gate, tg__now(limit->core, 0));
        state = (enum tg_breaker_state)gate->state;
    }
    tg__unlock(limit->core);
    return state;
}

void tg_limit_trim(struct tg_limit *limit)
{
    if (tg__lock(limit->core) != TG_OK) {
        return;
    }
    uint64_t steps = limit->n_gates + 1;
    tg__keys_sweep(limit, tg__now(limit->core, 0), steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
    tg__unlock(limit->core);
}
