/* supply.c - permits that come from outside: offered slots, permits of single keys, and what the supplier hears of keys.
 * Guarded by core->mutex.
 *
 * News: a gate of a watched limit that changed is put on limit->news once, however often it changes before the supplier
 * asks. So a round of the supplier costs the keys that moved, not the keys that exist.
 */
#include "internal.h"

bool tg__offers_allocate(struct tg__gate *gate, uint32_t max)
{
    gate->offers = tg__allocate(gate->limit->core, max * sizeof *gate->offers);
    gate->max_offers = gate->offers != NULL ? max : 0;
    return gate->offers != NULL;
}

void tg__offers_free(struct tg__gate *gate)
{
    tg__release(gate->limit->core, gate->offers, gate->max_offers * sizeof *gate->offers);
    gate->offers = NULL;
    gate->max_offers = 0;
}

static uint64_t slot_time(const struct tg__offer *offer)
{
    uint64_t offset, at;
    if (__builtin_mul_overflow(offer->interval_ns, (uint64_t)offer->next, &offset) ||
        __builtin_add_overflow(offer->start_ns, offset, &at)) {
        return TG_NEVER;
    }
    return at;
}

static void discard_slots(struct tg_limit *limit, struct tg__offer *offer, uint64_t now_ns)
{
    while (offer->next < offer->count) {
        uint64_t at = slot_time(offer);
        if (now_ns <= at || now_ns - at <= offer->tolerance_ns) {
            return;
        }
        uint64_t late = now_ns - at - offer->tolerance_ns;
        uint64_t gone = offer->interval_ns != 0 ? (late + offer->interval_ns - 1) / offer->interval_ns
                                                : offer->count;
        uint32_t left = offer->count - offer->next;
        uint32_t step = gone < left ? (uint32_t)gone : left;
        offer->next += step;
        limit->stats.discarded += step;
        limit->stats.available -= step;
    }
}

static void drop_spent_offers(struct tg__gate *gate)
{
    while (gate->n_offers != 0) {
        struct tg__offer *offer = &gate->offers[gate->first_offer];
        if (offer->next < offer->count) {
            return;
        }
        gate->first_offer = (gate->first_offer + 1) % gate->max_offers;
        gate->n_offers--;
    }
}

/* Earliest slot of all offers; NULL when there is none. */
static struct tg__offer *earliest_offer(struct tg__gate *gate, uint64_t now_ns)
{
    struct tg__offer *best = NULL;
    for (uint32_t i = 0; i < gate->n_offers; i++) {
        struct tg__offer *offer = &gate->offers[(gate->first_offer + i) % gate->max_offers];
        discard_slots(gate->limit, offer, now_ns);
        if (offer->next < offer->count && (best == NULL || slot_time(offer) < slot_time(best))) {
            best = offer;
        }
    }
    drop_spent_offers(gate);
    return best;
}

uint64_t tg__offers_due(struct tg__gate *gate, uint64_t now_ns)
{
    struct tg__offer *offer = earliest_offer(gate, now_ns);
    return offer != NULL ? slot_time(offer) : TG_NEVER;
}

void tg__offers_take(struct tg__gate *gate, uint64_t now_ns)
{
    struct tg__offer *offer = earliest_offer(gate, now_ns);
    if (offer != NULL) {
        offer->next++;
        gate->limit->stats.available--;
        drop_spent_offers(gate);
    }
}

static tg_status add_offer(struct tg__gate *gate, struct tg__offer offer, uint64_t now_ns)
{
    tg__offers_due(gate, now_ns); /* drops offers that are over */
    if (gate->n_offers == gate->max_offers) {
        return TG_FULL;
    }
    gate->offers[(gate->first_offer + gate->n_offers++) % gate->max_offers] = offer;
    gate->limit->stats.offered += offer.count;
    gate->limit->stats.available += offer.count;
    tg__gate_kick(gate, now_ns);
    return TG_OK;
}

tg_status tg_limit_offer(struct tg_limit *limit, uint64_t start_ns, uint64_t interval_ns, uint32_t count,
                         uint64_t tolerance_ns)
{
    if (limit->options.kind != TG_LIMIT_SUPPLIED || limit->options.keyed || count == 0) {
        return TG_INVALID;
    }
    tg_status status = tg__lock(limit->core);
    if (status != TG_OK) {
        return status;
    }
    struct tg__offer offer = {start_ns, interval_ns, tolerance_ns, 0, count};
    status = add_offer(&limit->gate, offer, tg__now(limit->core, 0));
    tg__unlock(limit->core);
    return status;
}

tg_status tg_limit_offer_key(struct tg_limit *limit, uint64_t key, uint64_t start_ns, uint64_t interval_ns,
                             uint32_t count, uint64_t tolerance_ns)
{
    if (limit->options.kind != TG_LIMIT_SUPPLIED || !limit->options.keyed || count == 0 || key == TG_NO_KEY) {
        return TG_INVALID;
    }
    tg_status status = tg__lock(limit->core);
    if (status != TG_OK) {
        return status;
    }
    uint64_t now_ns = tg__now(limit->core, 0);
    struct tg__gate *gate = tg__key_get(limit, key, now_ns);
    if (gate == NULL || (gate->offers == NULL && !tg__offers_allocate(gate, TG_KEY_OFFERS))) {
        status = TG_NOMEM;
    } else {
        status = add_offer(gate, (struct tg__offer){start_ns, interval_ns, tolerance_ns, 0, count}, now_ns);
    }
    tg__unlock(limit->core);
    return status;
}

static tg_status set_permits(struct tg_limit *limit, const struct tg_key_permits *permits, uint64_t now_ns)
{
    struct tg__gate *gate = permits->permits != 0 ? tg__key_get(limit, permits->key, now_ns)
                                                  : tg__key_find(limit, permits->key);
    if (gate == NULL) {
        return permits->permits != 0 ? TG_NOMEM : TG_OK;
    }
    gate->capacity = permits->permits;
    tg__gate_kick(gate, now_ns);
    return TG_OK;
}

tg_status tg_limit_set_key_permits(struct tg_limit *limit, const struct tg_key_permits *permits, size_t n)
{
    if (limit->options.kind != TG_LIMIT_CONCURRENCY || !limit->options.keyed) {
        return TG_INVALID;
    }
    tg_status status = tg__lock(limit->core);
    if (status != TG_OK) {
        return status;
    }
    uint64_t now_ns = tg__now(limit->core, 0);
    for (size_t i = 0; i < n && status == TG_OK; i++) {
        status = permits[i].key != TG_NO_KEY ? set_permits(limit, &permits[i], now_ns) : TG_INVALID;
    }
    tg__unlock(limit->core);
    return status;
}

void tg__gate_changed(struct tg__gate *gate)
{
    if (gate->limit->options.watched && gate->limit->options.keyed && tg__list_empty(&gate->news)) {
        tg__list_append(&gate->limit->news, &gate->news);
    }
}

tg_status tg_limit_take_news(struct tg_limit *limit, struct tg_key_news *out, size_t max, size_t *n)
{
    *n = 0;
    if (!limit->options.watched) {
        return TG_INVALID;
    }
    tg_status status = tg__lock(limit->core);
    if (status != TG_OK) {
        return status;
    }
    while (*n < max && !tg__list_empty(&limit->news)) {
        struct tg__gate *gate = tg__container(limit->news.next, struct tg__gate, news);
        tg__list_remove(&gate->news);
        out[(*n)++] = (struct tg_key_news){gate->key, gate->n_waiters + gate->woken, gate->in_use, gate->used};
    }
    tg__unlock(limit->core);
    return TG_OK;
}
