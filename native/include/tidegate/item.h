/* item.h - one unit of work: a 128-byte record from a slab.
 *
 * Who may touch it: the core, under its lock, while the item waits; the thread that took it from a run (or was handed
 * it by tg_core_next) while it runs; the binding between complete and settle. A binding may read every field and may
 * write `payload` and `note` while it holds the item. After a call that gives the item back (settle, or a completion
 * answered RETRY) the pointer must not be used: another thread may already run or free it.
 *
 * Time: at every moment from submit to settle exactly one class is charged, and at settle
 *     settle time - submit_ns == queued_ns + limited_ns + backoff_ns + running_ns + settling
 * to the nanosecond (settling is not stored: it is settle time - mark_ns).
 */
#ifndef TIDEGATE_ITEM_H
#define TIDEGATE_ITEM_H

#include <stdint.h>

#include "tidegate/clock.h"

#ifdef __cplusplus
extern "C" {
#endif

struct tg_group;
struct tg_lane;

struct tg_link {
    struct tg_link *previous;
    struct tg_link *next;
};

/* The five classes of an item's time. */
#define TG_CLASS_MAP(X)                                                               \
    X(QUEUED, 0, "queued")        /* ready, or due to the lane's own concurrency */    \
    X(LIMITED, 1, "limited")      /* waiting for a limit or a breaker */               \
    X(BACKOFF, 2, "backing_off")  /* waiting for its next attempt */                   \
    X(RUNNING, 3, "running")      /* inside the function, all attempts together */     \
    X(SETTLING, 4, "settling")    /* from the end of the last attempt to settle */
enum tg_class {
#define TG_CLASS_ENUM(name, code, text) TG_CLASS_##name = (code),
    TG_CLASS_MAP(TG_CLASS_ENUM)
#undef TG_CLASS_ENUM
};
#define TG_CLASSES 5

/* What the caller says of an attempt. */
enum tg_verdict {
    TG_VERDICT_NONE = 0,
    TG_VERDICT_OK = 1,
    TG_VERDICT_FAIL_RETRYABLE = 2,
    TG_VERDICT_FAIL_FINAL = 3,
    TG_VERDICT_TIMED_OUT = 4, /* retried when the policy says retry_timeouts */
    TG_VERDICT_CANCELLED = 5,
    TG_VERDICT_CRASHED = 6,
};

/* How an item ended. DEFERRED and RETURNED are not ends of the item, only of its stay in this core. */
#define TG_OUTCOME_MAP(X)                                                                 \
    X(NONE, 0, "none")                                                                    \
    X(SUCCEEDED, 1, "succeeded")                                                          \
    X(FAILED, 2, "failed")                                                                \
    X(TIMED_OUT, 3, "timed_out")                                                          \
    X(CANCELLED, 4, "cancelled")                                                          \
    X(CRASHED, 5, "crashed")                                                              \
    X(DEFERRED, 6, "deferred")   /* its backoff is too long to wait for here: see due_ns */ \
    X(RETURNED, 7, "returned")   /* drained: handed back without a further attempt */
enum tg_outcome {
#define TG_OUTCOME_ENUM(name, code, text) TG_OUTCOME_##name = (code),
    TG_OUTCOME_MAP(TG_OUTCOME_ENUM)
#undef TG_OUTCOME_ENUM
};
#define TG_OUTCOMES 8

/* Why there was no (further) attempt. */
#define TG_REASON_MAP(X)                                                                   \
    X(NONE, 0, "none")                                                                     \
    X(FINAL, 1, "not_retryable")        /* the verdict allows no retry */                   \
    X(ATTEMPTS, 2, "attempts_exhausted")                                                   \
    X(DEADLINE, 3, "deadline_passed")   /* now, or before the retry would start */          \
    X(BUDGET, 4, "retry_budget_spent")                                                     \
    X(BREAKER, 5, "circuit_open")       /* and the breaker is set to refuse */              \
    X(CANCELLED, 6, "group_cancelled")                                                     \
    X(DRAINED, 7, "drained")                                                               \
    X(DEFERRED, 8, "deferred")                                                             \
    X(CLOSED, 9, "core_closed")
enum tg_reason {
#define TG_REASON_ENUM(name, code, text) TG_REASON_##name = (code),
    TG_REASON_MAP(TG_REASON_ENUM)
#undef TG_REASON_ENUM
};

enum tg_item_state {
    TG_ITEM_FREE = 0,
    TG_ITEM_READY = 1,    /* in its lane's line */
    TG_ITEM_LIMITED = 2,  /* in the line of one key of a keyed limit */
    TG_ITEM_BACKOFF = 3,  /* on the timer heap */
    TG_ITEM_CLAIMED = 4,  /* in a run, its turn has not come */
    TG_ITEM_RUNNING = 5,
    TG_ITEM_SETTLING = 6, /* decided; the binding has it, or tg_core_take_settled will hand it out */
};

struct tg_item {
    struct tg_link link;    /* internal */
    void *payload;          /* the binding's; the core never looks */
    struct tg_group *group; /* the batch it came with */
    uint64_t position;      /* its place in that batch */
    uint64_t submit_ns;
    uint64_t mark_ns;       /* when the class it is in began; while it runs: when this attempt started */
    uint64_t queued_ns;
    uint64_t limited_ns;
    uint64_t backoff_ns;
    uint64_t running_ns;    /* all attempts */
    uint64_t due_ns;        /* BACKOFF and DEFERRED: when the next attempt may start. Otherwise internal. */
    uint64_t delay_ns;      /* last backoff (decorrelated jitter needs it); while completing: the least delay asked for */
    union {
        uint64_t key;         /* of the lane's only keyed limit */
        const uint64_t *keys; /* one per keyed limit, when the lane has several */
        uint64_t behind;      /* internal: of a row (src/row.c) */
    };
    uint32_t heap_index;    /* internal */
    uint16_t attempts;      /* started so far, this one included */
    uint8_t state;          /* enum tg_item_state */
    uint8_t verdict;        /* enum tg_verdict of the last attempt */
    uint8_t outcome;        /* enum tg_outcome, once SETTLING */
    uint8_t reason;         /* enum tg_reason, once SETTLING */
    uint8_t flags;          /* internal */
    uint8_t limits_held;    /* internal */
    uint32_t note;          /* the binding's: error class, slot number, anything */
};

#ifdef __cplusplus
static_assert(sizeof(struct tg_item) <= 128, "an item is two cache lines");
#else
_Static_assert(sizeof(struct tg_item) <= 128, "an item is two cache lines");
#endif

/* Ends the current attempt: charges `running` up to end_ns and notes the verdict. For items started by tg_core_next or
 * taken from a run; the thread that runs the item calls it, without the core's lock.
 * retry_after_ns: the least delay before a retry (a Retry-After header), 0 for none. */
static inline void tg_item_end(struct tg_item *item, enum tg_verdict verdict, uint64_t retry_after_ns, uint64_t end_ns)
{
    if (end_ns > item->mark_ns) {
        item->running_ns += end_ns - item->mark_ns;
        /* relaxed: the search for overdue attempts (src/overdue.c) may read it meanwhile; it then comes a little later. */
        __atomic_store_n(&item->mark_ns, end_ns, __ATOMIC_RELAXED);
    }
    if (retry_after_ns != 0) {
        item->delay_ns = retry_after_ns;
        item->flags |= 1u; /* TG__ITEM_LEAST_DELAY */
    }
    item->verdict = (uint8_t)verdict;
}

/* The item's key under the index-th keyed limit of its lane (in order of attachment). For lanes that have one. */
uint64_t tg_item_key(const struct tg_item *item, uint32_t index);

const char *tg_outcome_name(int outcome);
const char *tg_reason_name(int reason);
const char *tg_class_name(int class_);

#ifdef __cplusplus
}
#endif
#endif
