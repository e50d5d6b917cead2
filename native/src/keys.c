/* keys.c - the gates of a keyed limit: a chained hash table that forgets idle keys. Guarded by core->mutex.
 *
 * Forgetting is paid by those who bring new keys: each new key looks at two old ones, so that the table holds at most about
 * twice what is in use, without a timer.
 */
#include "internal.h"

static uint32_t bucket_of(const struct tg_limit *limit, uint64_t key)
{
    /* Fibonacci hashing: callers may pass poor hashes (small integers). */
    return (uint32_t)((key * 0x9e3779b97f4a7c15u) >> 32) & (limit->table_size - 1);
}

struct tg__gate *tg__key_find(struct tg_limit *limit, uint64_t key)
{
    if (limit->table == NULL) {
        return NULL;
    }
    struct tg__gate *gate = limit->table[bucket_of(limit, key)];
    while (gate != NULL && gate->key != key) {
        gate = gate->hash_next;
    }
    return gate;
}

/* Failure to grow leaves longer chains, nothing else. */
static void grow(struct tg_limit *limit)
{
    uint32_t old_size = limit->table_size, size = old_size != 0 ? old_size * 2 : 64;
    if (old_size > UINT32_MAX / 4) {
        return;
    }
    struct tg__gate **table = tg__allocate(limit->core, size * sizeof *table);
    if (table == NULL) {
        return;
    }
    struct tg__gate **old = limit->table;
    limit->table = table;
    limit->table_size = size;
    for (uint32_t i = 0; i < old_size; i++) {
        while (old[i] != NULL) {
            struct tg__gate *gate = old[i];
            old[i] = gate->hash_next;
            uint32_t bucket = bucket_of(limit, gate->key);
            gate->hash_next = table[bucket];
            table[bucket] = gate;
        }
    }
    tg__release(limit->core, old, old_size * sizeof *old);
}

static void forget(struct tg_limit *limit, struct tg__gate *gate)
{
    struct tg__gate **place = &limit->table[bucket_of(limit, gate->key)];
    while (*place != gate) {
        place = &(*place)->hash_next;
    }
    *place = gate->hash_next;
    if (limit->hand == &gate->all) {
        limit->hand = gate->all.next;
    }
    tg__list_remove(&gate->all);
    tg__list_remove(&gate->news);
    tg__offers_free(gate);
    tg__heap_remove(limit->core, &gate->timer);
    tg__heap_unreserve(limit->core);
    limit->n_gates--;
    tg__release(limit->core, gate, sizeof *gate);
}

void tg__keys_sweep(struct tg_limit *limit, uint64_t now_ns, uint32_t steps)
{
    for (; steps != 0 && limit->n_gates != 0; steps--) {
        if (limit->hand == &limit->gates) {
            limit->hand = limit->gates.next;
            continue;
        }
        struct tg__gate *gate = tg__container(limit->hand, struct tg__gate, all);
        limit->hand = limit->hand->next;
        if (tg__gate_idle(gate, now_ns)) {
            forget(limit, gate);
            limit->stats.keys_forgotten++;
        }
    }
}

struct tg__gate *tg__key_get(struct tg_limit *limit, uint64_t key, uint64_t now_ns)
{
    struct tg__gate *gate = tg__key_find(limit, key);
    if (gate != NULL) {
        return gate;
    }
    tg__keys_sweep(limit, now_ns, 2);
    if (limit->n_gates >= limit->table_size) {
        grow(limit);
        if (limit->table == NULL) {
            return NULL;
        }
    }
    if (!tg__heap_reserve(limit->core)) {
        return NULL;
    }
    gate = tg__allocate(limit->core, sizeof *gate);
    if (gate == NULL) {
        tg__heap_unreserve(limit->core);
        return NULL;
    }
    tg__gate_init(gate, limit, key);
    gate->half_start_ns = now_ns;
    uint32_t bucket = bucket_of(limit, key);
    gate->hash_next = limit->table[bucket];
    limit->table[bucket] = gate;
    tg__list_append(&limit->gates, &gate->all);
    limit->n_gates++;
    return gate;
}

void tg__keys_destroy(struct tg_limit *limit)
{
    while (limit->n_gates != 0) {
        forget(limit, tg__container(limit->gates.next, struct tg__gate, all));
    }
    tg__release(limit->core, limit->table, limit->table_size * sizeof *limit->table);
    limit->table = NULL;
    limit->table_size = 0;
}
