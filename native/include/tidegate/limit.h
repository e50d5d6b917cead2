/* limit.h - what an attempt must be granted before it starts.
 *
 * A limit belongs to one core and is attached to any number of lanes (tg_lane_attach); a lane may have up to
 * TG_LANE_LIMITS. All of a lane's limits must grant at once: a waiting item holds no permit of any of them.
 *
 * Unkeyed: one gate. While it is shut the whole lane waits, and its items are charged `limited` from that moment.
 * Keyed: one gate per 64-bit key, made on first use, forgotten when idle. Items wait in the line of their key; items with
 * other keys pass; an item whose key is TG_NO_KEY is not bound. A limit whose line is freed serves the highest lane
 * priority first, then in order of arrival.
 *
 * A concurrency permit is held from start to completion. A sequential run (run.h) takes one permit of an unkeyed limit,
 * because its items never run at the same time. A rate is charged once per attempt, when it starts.
 *
 * Thread safety: all functions lock the core; none calls out.
 */
#ifndef TIDEGATE_LIMIT_H
#define TIDEGATE_LIMIT_H

#include <stdint.h>

#include "tidegate/clock.h"
#include "tidegate/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct tg_core;
struct tg_limit;

#define TG_LANE_LIMITS 8
#define TG_NO_KEY UINT64_MAX

enum tg_limit_kind {
    TG_LIMIT_CONCURRENCY = 1,
    /* GCRA: in every window of length W at most burst + floor(W / interval) starts, where interval is
     * ceil(period_ns / count). Exact for any window, not only aligned ones. */
    TG_LIMIT_RATE = 2,
    /* Slots offered from outside (a block leased from a cluster-wide limit). No offer, no start. */
    TG_LIMIT_SUPPLIED = 3,
    /* Circuit breaker: see struct tg_limit_options. */
    TG_LIMIT_BREAKER = 4,
};

struct tg_limit_options {
    enum tg_limit_kind kind;
    int keyed;
    int watched;            /* nonzero: tg_limit_take_news tells which keys changed (keyed SUPPLIED always does) */

    uint32_t capacity;      /* CONCURRENCY: permits (per key). 0 is allowed: nothing starts until it is raised. */

    uint64_t count;         /* RATE: starts ... */
    uint64_t period_ns;     /* ... per period; at most 1 start per ns, at least 1 per 10 years */
    uint32_t burst;         /* RATE: starts that may come at once, >= 1 */

    /* BREAKER. Closed: counts outcomes in a window of window_ns (two halves, the older one forgotten whole). Opens when at
     * least min_calls ended in it and failures >= failure_ratio * calls. Open: nothing starts for open_ns. Half-open: up to
     * `probes` attempts run; when `probes` have succeeded it closes, when one fails it opens again.
     * A success is a verdict OK; FAIL_FINAL does not count either way (the callee answered); the rest are failures. */
    double failure_ratio;
    uint32_t min_calls;
    uint64_t window_ns;
    uint64_t open_ns;
    uint32_t probes;
    int refuse;             /* nonzero: while open, waiting items fail with reason BREAKER instead of waiting */

    void *payload;          /* the binding's */
};

enum tg_breaker_state { TG_BREAKER_CLOSED = 0, TG_BREAKER_OPEN = 1, TG_BREAKER_HALF_OPEN = 2 };

/* TG_INVALID names nothing further: check kind, counts and intervals. The limit lives until the core is destroyed or
 * tg_limit_destroy, which answers TG_BUSY while a lane has it. */
tg_status tg_limit_create(struct tg_core *core, const struct tg_limit_options *options, struct tg_limit **out);
tg_status tg_limit_destroy(struct tg_limit *limit);
void *tg_limit_payload(const struct tg_limit *limit);

/* CONCURRENCY: permits from now on. Lowering it takes nothing back; it starts nothing until use falls below. */
tg_status tg_limit_set_capacity(struct tg_limit *limit, uint32_t capacity);
/* RATE: the new rate from now on. What was already granted stays counted. */
tg_status tg_limit_set_rate(struct tg_limit *limit, uint64_t count, uint64_t period_ns, uint32_t burst);

/* Nothing starts under this limit before until_ns (all keys). An earlier time than the present pause is ignored, except
 * 0, which ends it. The _key form pauses one key. */
tg_status tg_limit_pause_until(struct tg_limit *limit, uint64_t until_ns);
tg_status tg_limit_pause_key_until(struct tg_limit *limit, uint64_t key, uint64_t until_ns);

/* SUPPLIED: slot i (0 <= i < count) admits one start from start_ns + i * interval_ns until tolerance_ns later; then it is
 * discarded and counted. Slots are used in order of their times within an offer, offers in order of arrival.
 * TG_FULL when TG_OFFERS offers are pending. */
#define TG_OFFERS 32
tg_status tg_limit_offer(struct tg_limit *limit, uint64_t start_ns, uint64_t interval_ns, uint32_t count,
                         uint64_t tolerance_ns);

/* ---- keyed limits whose permits come from outside, key by key ---- */

/* SUPPLIED: as tg_limit_offer, for one key; TG_FULL when TG_KEY_OFFERS are pending for it. */
#define TG_KEY_OFFERS 4
tg_status tg_limit_offer_key(struct tg_limit *limit, uint64_t key, uint64_t start_ns, uint64_t interval_ns,
                             uint32_t count, uint64_t tolerance_ns);

struct tg_key_permits {
    uint64_t key;
    uint32_t permits;
};
/* CONCURRENCY: permits of each of these keys from now on, beyond the capacity that every key has (create such a limit with
 * capacity 0). On TG_NOMEM those before the one that failed are set. */
tg_status tg_limit_set_key_permits(struct tg_limit *limit, const struct tg_key_permits *permits, size_t n);

struct tg_key_news {
    uint64_t key;
    uint64_t waiting; /* items of this key that want to start now */
    uint64_t in_use;  /* CONCURRENCY: permits held now */
    uint64_t used;    /* starts admitted since the key was first seen, or seen again after it was forgotten */
};
/* Watched limits: up to max keys that changed since they were last told, in order of change. A key is not forgotten
 * before its last change was told, so a supplier that asks sees every key end. */
tg_status tg_limit_take_news(struct tg_limit *limit, struct tg_key_news *out, size_t max, size_t *n);

struct tg_limit_stats {
    uint64_t demand;      /* see tg_limit_demand */
    uint64_t granted;     /* starts admitted (a sequential run counts one per item) */
    uint64_t refused;     /* times a lane or an item had to wait */
    uint64_t in_use;      /* CONCURRENCY, BREAKER half-open: permits held now, all keys */
    uint64_t peak_in_use; /* unkeyed CONCURRENCY */
    uint64_t keys;        /* keyed: gates that exist now */
    uint64_t keys_forgotten;
    uint64_t offered;     /* SUPPLIED: slots offered, */
    uint64_t discarded;   /* slots that passed unused, */
    uint64_t available;   /* slots still to come */
    uint64_t opened;      /* BREAKER: times it opened */
    uint64_t open_now;    /* BREAKER: gates that are open or half-open */
    uint64_t paused_until_ns;
};
tg_status tg_limit_get_stats(struct tg_limit *limit, struct tg_limit_stats *out);
/* Items that wait for this limit now. SUPPLIED: all waiting items of the lanes it is attached to, because it is the size
 * of the next lease from a cluster-wide limit. 0 after fork. */
uint64_t tg_limit_demand(struct tg_limit *limit);
/* BREAKER: state of one key (any key when unkeyed). */
enum tg_breaker_state tg_limit_breaker_state(struct tg_limit *limit, uint64_t key);
/* Forgets idle keys now. It also happens a little with every new key. */
void tg_limit_trim(struct tg_limit *limit);

#ifdef __cplusplus
}
#endif
#endif
