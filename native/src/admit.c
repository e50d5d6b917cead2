/* admit.c - may this lane, this item start now? All limits at once, or nothing is taken. Guarded by core->mutex.
 *
 * Two steps: unkeyed limits stop the whole lane (tg__lane_admit), keyed ones only the item (tg__item_admit). When both said
 * yes, tg__lane_take and the item's keys are charged in one go; nothing can change between, the lock is held throughout.
 */
#include "internal.h"

uint64_t tg__item_key(const struct tg_item *item, const struct tg_lane *lane, uint32_t limit)
{
    return item->flags & TG__ITEM_KEYS ? item->keys[lane->key_index[limit]] : item->key;
}

uint64_t tg_item_key(const struct tg_item *item, uint32_t index)
{
    return item->flags & TG__ITEM_KEYS ? item->keys[index] : item->key;
}

enum tg__admission tg__lane_admit(struct tg_lane *lane, uint64_t now_ns)
{
    for (uint32_t i = 0; i < lane->n_limits; i++) {
        struct tg_limit *limit = lane->limits[i];
        if (limit->options.keyed) {
            continue;
        }
        if (tg__gate_refuses(&limit->gate, now_ns)) {
            return TG__REFUSED;
        }
        if (tg__gate_room(&limit->gate, now_ns) == 0) {
            limit->stats.refused++;
            tg__lane_block(lane, &limit->gate, now_ns);
            return TG__BLOCKED;
        }
    }
    return TG__ADMITTED;
}

/* A woken item that was re-blocked goes before those that never had its turn. */
static void wait_at(struct tg__gate *gate, struct tg_item *item, uint32_t limit_index, bool was_woken, uint64_t now_ns)
{
    struct tg_lane *lane = item->group->lane;
    struct tg_link *place = &gate->waiters;
    if (was_woken) {
        for (place = gate->waiters.next; place != &gate->waiters; place = place->next) {
            struct tg_item *other = tg__container(place, struct tg_item, link);
            if (other->submit_ns > item->submit_ns ||
                (other->submit_ns == item->submit_ns && other->position > item->position)) {
                break;
            }
        }
    }
    tg__list_insert_before(place, &item->link);
    item->state = TG_ITEM_LIMITED;
    item->flags = (uint8_t)((item->flags & 0x0f) | limit_index << TG__ITEM_LIMIT_SHIFT);
    gate->n_waiters++;
    gate->limit->waiting++;
    gate->limit->stats.refused++;
    lane->n_limited++;
    item->group->n_limited++;
    tg__gate_kick(gate, now_ns);
}

/* The item was looked at: its gate may wake another. */
void tg__item_unwake(struct tg_item *item, uint64_t now_ns)
{
    if (!(item->flags & TG__ITEM_WOKEN)) {
        return;
    }
    item->flags &= (uint8_t)~TG__ITEM_WOKEN;
    struct tg_lane *lane = item->group->lane;
    uint32_t index = item->flags >> TG__ITEM_LIMIT_SHIFT;
    struct tg__gate *gate = tg__key_find(lane->limits[index], tg__item_key(item, lane, index));
    if (gate != NULL && gate->woken != 0) {
        gate->woken--;
        tg__gate_kick(gate, now_ns);
    }
}

/* First keyed limit that says no. */
static enum tg__admission check_keys(struct tg_item *item, struct tg__gate **gates, uint32_t *at, uint64_t now_ns)
{
    struct tg_lane *lane = item->group->lane;
    bool woken = item->flags & TG__ITEM_WOKEN;
    uint32_t woken_by = item->flags >> TG__ITEM_LIMIT_SHIFT;
    for (uint32_t i = 0; i < lane->n_limits; i++) {
        struct tg_limit *limit = lane->limits[i];
        gates[i] = NULL;
        if (!limit->options.keyed || tg__item_key(item, lane, i) == TG_NO_KEY) {
            continue;
        }
        struct tg__gate *gate = tg__key_get(limit, tg__item_key(item, lane, i), now_ns);
        gates[i] = gate;
        *at = i;
        if (gate == NULL) {
            return TG__NO_MEMORY;
        }
        if (tg__gate_refuses(gate, now_ns)) {
            return TG__REFUSED;
        }
        /* Nobody passes those who wait, except who was woken for exactly that. */
        bool may_pass = gate->n_waiters == 0 || (woken && woken_by == i);
        if (!may_pass || tg__gate_room(gate, now_ns) == 0) {
            return TG__BLOCKED;
        }
    }
    return TG__ADMITTED;
}

enum tg__admission tg__item_admit(struct tg_item *item, uint64_t now_ns)
{
    struct tg_lane *lane = item->group->lane;
    struct tg__gate *gates[TG_LANE_LIMITS];
    uint32_t at = 0;
    if (lane->n_keyed == 0) {
        return TG__ADMITTED;
    }
    enum tg__admission answer = check_keys(item, gates, &at, now_ns);
    if (answer == TG__NO_MEMORY) {
        return answer;
    }
    bool was_woken = item->flags & TG__ITEM_WOKEN;
    if (answer == TG__ADMITTED) {
        for (uint32_t i = 0; i < lane->n_limits; i++) {
            if (gates[i] == NULL) {
                continue;
            }
            tg__gate_take(gates[i], now_ns, 1);
            if (gates[i]->limit->options.kind == TG_LIMIT_CONCURRENCY || gates[i]->state == TG_BREAKER_HALF_OPEN) {
                item->limits_held |= (uint8_t)(1u << i);
            }
        }
    } else if (answer == TG__BLOCKED) {
        /* Before unwake: the kick there must find this item in line again. */
        bool same = was_woken && (uint32_t)(item->flags >> TG__ITEM_LIMIT_SHIFT) == at;
        if (same) {
            gates[at]->woken--;
            item->flags &= (uint8_t)~TG__ITEM_WOKEN;
        } else {
            tg__item_unwake(item, now_ns);
        }
        wait_at(gates[at], item, at, same, now_ns);
        return answer;
    }
    tg__item_unwake(item, now_ns);
    return answer;
}

/* Charges the lane's own permit and its unkeyed limits for `items` attempts that run one after another. */
void tg__lane_take(struct tg_lane *lane, struct tg_item *first, uint64_t items, uint64_t now_ns)
{
    tg__lane_busy(lane, now_ns);
    if (++lane->running_now > lane->peak_running) {
        lane->peak_running = lane->running_now;
    }
    for (uint32_t i = 0; i < lane->n_limits; i++) {
        struct tg_limit *limit = lane->limits[i];
        if (limit->options.keyed) {
            continue;
        }
        tg__gate_take(&limit->gate, now_ns, items);
        if (limit->options.kind == TG_LIMIT_BREAKER && limit->gate.state == TG_BREAKER_HALF_OPEN && first != NULL) {
            first->limits_held |= (uint8_t)(1u << i);
        }
    }
    if (lane->running_now >= lane->concurrency) {
        tg__lane_refresh(lane);
    }
}

void tg__lane_release(struct tg_lane *lane, uint64_t now_ns)
{
    tg__lane_busy(lane, now_ns);
    lane->running_now--;
    for (uint32_t i = 0; i < lane->n_limits; i++) {
        struct tg_limit *limit = lane->limits[i];
        if (limit->options.kind == TG_LIMIT_CONCURRENCY && !limit->options.keyed) {
            limit->gate.in_use--;
            limit->stats.in_use--;
            tg__gate_kick(&limit->gate, now_ns);
        }
    }
    tg__lane_refresh(lane);
}

/* Keyed concurrency permits of one item. Breaker probes are given back by tg__item_outcome. */
void tg__item_release(struct tg_item *item, uint64_t now_ns)
{
    struct tg_lane *lane = item->group->lane;
    for (uint32_t i = 0; i < lane->n_limits && item->limits_held != 0; i++) {
        struct tg_limit *limit = lane->limits[i];
        if (!(item->limits_held & (1u << i)) || limit->options.kind != TG_LIMIT_CONCURRENCY) {
            continue;
        }
        item->limits_held &= (uint8_t)~(1u << i);
        struct tg__gate *gate = tg__key_find(limit, tg__item_key(item, lane, i));
        if (gate != NULL) {
            gate->in_use--;
            limit->stats.in_use--;
            tg__gate_kick(gate, now_ns);
        }
    }
}

/* Tells the lane's breakers how an attempt ended (verdict NONE: it was not made). */
void tg__item_outcome(struct tg_item *item, uint64_t now_ns)
{
    struct tg_lane *lane = item->group->lane;
    for (uint32_t i = 0; i < lane->n_limits; i++) {
        struct tg_limit *limit = lane->limits[i];
        if (limit->options.kind != TG_LIMIT_BREAKER) {
            continue;
        }
        struct tg__gate *gate = &limit->gate;
        if (limit->options.keyed && tg__item_key(item, lane, i) == TG_NO_KEY) {
            continue;
        }
        if (limit->options.keyed) {
            gate = tg__key_get(limit, tg__item_key(item, lane, i), now_ns);
        }
        bool probe = item->limits_held & (1u << i);
        item->limits_held &= (uint8_t)~(1u << i);
        if (gate != NULL) {
            tg__breaker_outcome(gate, (enum tg_verdict)item->verdict, probe, now_ns);
        }
    }
}

/* How many items the next run of the lane takes. */
uint32_t tg__lane_run_length(struct tg_lane *lane, uint64_t now_ns)
{
    enum { FIRST_COROUTINES = 16 };
    if (lane->one_by_one) {
        return 1;
    }
    uint64_t length = TG_KIND_IS_COROUTINE(lane->kind) ? FIRST_COROUTINES : 1;
    if (lane->mean_run_ns != 0) {
        length = lane->run_target_ns / lane->mean_run_ns;
    }
    if (lane->has_breaker) {
        for (uint32_t i = 0; i < lane->n_limits; i++) {
            struct tg_limit *limit = lane->limits[i];
            if (limit->options.kind == TG_LIMIT_BREAKER && tg__gate_room(&limit->gate, now_ns) != UINT64_MAX) {
                return 1;
            }
        }
    }
    if (length < 1) {
        return 1;
    }
    return length < lane->run_max ? (uint32_t)length : lane->run_max;
}
