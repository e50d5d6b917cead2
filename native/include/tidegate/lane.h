/* lane.h - a task's queue inside one core, with its limits, retry policy and statistics. */
#ifndef TIDEGATE_LANE_H
#define TIDEGATE_LANE_H

#include <stdint.h>

#include "tidegate/histogram.h"
#include "tidegate/item.h"
#include "tidegate/limit.h"
#include "tidegate/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What executes a lane's items; also a mask for calls that serve several kinds. */
enum tg_kind {
    TG_KIND_SYNC = 1,       /* threads that call a function */
    TG_KIND_COROUTINE = 2,  /* an event loop's driver */
    TG_KIND_C = 4,          /* the C function pool */
    /* Further single bits below 1 << TG_KINDS are coroutine kinds too: one for each event loop that shares the core. */
};
#define TG_KINDS 16
/* Whether the items of a kind are coroutines. */
#define TG_KIND_IS_COROUTINE(kind) (((unsigned)(kind) & ~(unsigned)(TG_KIND_SYNC | TG_KIND_C)) != 0)

enum tg_jitter {
    TG_JITTER_NONE = 0,         /* delay = d,  d = min(cap, base * factor^(attempt - 1)) */
    TG_JITTER_FULL = 1,         /* uniform in [0, d] */
    TG_JITTER_EQUAL = 2,        /* d/2 + uniform in [0, d/2] */
    TG_JITTER_DECORRELATED = 3, /* min(cap, uniform in [base, max(base, 3 * previous delay)]) */
};

/* Retry policy as data. A zeroed policy means: one attempt, no retry. */
struct tg_retry {
    uint32_t attempts;        /* attempts in all, the first included; 0 means 1; at most 65535 */
    uint64_t base_ns;
    double factor;            /* < 1 (so also 0) means 2 */
    uint64_t cap_ns;          /* 0: no cap */
    enum tg_jitter jitter;
    uint64_t deadline_ns;     /* from submit; no attempt starts later, waiting items time out. 0: none */
    int retry_timeouts;       /* nonzero: TIMED_OUT verdicts are retried like failures */

    /* Retry budget: the lane has tokens; a retry takes one; a success adds budget_ratio; budget_floor_per_s tokens are
     * added every second; it never holds more than budget_cap (0: 10 seconds of the floor, at least 10) and starts full.
     * Both 0: no budget, every retry is allowed. */
    double budget_ratio;
    double budget_floor_per_s;
    double budget_cap;
};

#define TG_PRIORITIES 8

struct tg_lane_options {
    const char *name;        /* copied, cut at 63 bytes; NULL: "" */
    enum tg_kind kind;
    uint32_t concurrency;    /* permits of the lane itself; 0 means 1 */
    uint32_t priority;       /* 0..7; a higher lane always goes first; default 0 */
    uint32_t weight;         /* turns in a row among lanes of its priority; 0 means 1 */
    uint64_t capacity;       /* most items inside (waiting and running); 0: unbounded */
    uint64_t timeout_ns;     /* per attempt; 0: none. The core only tells who is overdue (tg_core_overdue). */
    uint64_t run_target_ns;  /* a sequential run should last about this long; 0 means 1 ms */
    uint32_t run_max;        /* most items in a run; 0 means TG_RUN_MAX; 1 switches runs off */
    struct tg_retry retry;
    void *payload;           /* the binding's */
};

struct tg_lane;

/* Limits are attached before the first item is submitted (TG_BUSY later); at most TG_LANE_LIMITS. */
tg_status tg_lane_create(struct tg_core *core, const struct tg_lane_options *options, struct tg_lane **out);
tg_status tg_lane_attach(struct tg_lane *lane, struct tg_limit *limit);
/* TG_BUSY while items or groups remain. */
tg_status tg_lane_destroy(struct tg_lane *lane);

void *tg_lane_payload(const struct tg_lane *lane);
enum tg_kind tg_lane_kind(const struct tg_lane *lane);
/* Number of keys each item must be submitted with: how many keyed limits are attached. */
uint32_t tg_lane_keys(const struct tg_lane *lane);

/* All take effect at once; lowering concurrency interrupts nothing. */
tg_status tg_lane_set_concurrency(struct tg_lane *lane, uint32_t concurrency);
tg_status tg_lane_set_capacity(struct tg_lane *lane, uint64_t capacity);
tg_status tg_lane_set_retry(struct tg_lane *lane, const struct tg_retry *retry);
tg_status tg_lane_set_timeout(struct tg_lane *lane, uint64_t timeout_ns);
/* A paused lane starts nothing (its items are charged `queued`). */
tg_status tg_lane_set_paused(struct tg_lane *lane, int paused);

struct tg_lane_stats {
    uint64_t now_ns;             /* when this snapshot was taken */
    /* items */
    uint64_t submitted;
    uint64_t refused_full;       /* items not accepted because the lane was full */
    uint64_t outcomes[TG_OUTCOMES]; /* settled, by enum tg_outcome; their sum + inside == submitted */
    uint64_t inside;             /* submitted and not settled */
    /* attempts */
    uint64_t started;            /* counted when a claim is finished: items of a run in progress may be missing */
    uint64_t attempts_ok;
    uint64_t attempts_failed;
    uint64_t attempts_timed_out;
    uint64_t attempts_cancelled;
    uint64_t attempts_crashed;
    /* decisions after an attempt that was not ok */
    uint64_t retried;
    uint64_t refused_final;      /* by reason: not retryable, */
    uint64_t refused_attempts;   /* attempts used up, */
    uint64_t refused_deadline;   /* deadline, */
    uint64_t refused_budget;     /* budget, */
    uint64_t refused_breaker;    /* breaker (waiting items that it refused included), */
    uint64_t expired;            /* items whose deadline passed while they waited */
    /* now */
    uint64_t ready;              /* in line (limited by an unkeyed limit included when `blocked`) */
    uint64_t limited;            /* in the lines of keys */
    uint64_t backing_off;
    uint64_t claimed;            /* inside sequential runs */
    uint64_t settling;           /* decided, not settled */
    uint64_t running;            /* permits in use: a sequential run counts one */
    uint64_t peak_running;
    uint32_t concurrency;
    int blocked;                 /* waits for an unkeyed limit */
    /* integrals */
    uint64_t busy_ns;            /* permits in use * time, up to now_ns: busy_ns / elapsed = average concurrency */
    uint64_t runs;               /* sequential runs claimed */
    uint64_t stolen;             /* runs whose tail another thread took */
    uint64_t mean_run_ns;        /* moving average that sets the length of runs */
    double budget;               /* retry tokens left; 0 without a budget */
};
/* A consistent copy of the counters; locks for well under a microsecond. */
tg_status tg_lane_get_stats(struct tg_lane *lane, struct tg_lane_stats *out);
/* Copies one of the lane's histograms (settled items, ns per item; RUNNING: ns per attempt) into an initialised one. */
tg_status tg_lane_get_histogram(struct tg_lane *lane, enum tg_class class_, struct tg_histogram *into);

#ifdef __cplusplus
}
#endif
#endif
