/* internal.h - the structures behind the public names, and the functions (tg__) that files of the core share.
 *
 * Locks:  core->mutex guards every structure in this file, except where a field says otherwise. tg__ functions are called
 *         with it held unless their comment says "no lock".
 * Order:  there is one lock; nothing called under it calls out.
 * Fork:   entry points compare core->pid before they lock. The mutex of a child may be held by nobody that exists.
 */
#ifndef TIDEGATE_INTERNAL_H
#define TIDEGATE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/types.h>

#include "random.h"
#include "tidegate/tidegate.h"

#define tg__container(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))
#define tg__kind_index(kind) ((unsigned)__builtin_ctz((unsigned)(kind)))
#define TG__KINDS TG_KINDS
#define TG__ALL_KINDS ((1u << TG_KINDS) - 1)

/* ---- circular lists ---- */

static inline void tg__list_init(struct tg_link *head) { head->previous = head->next = head; }
static inline bool tg__list_empty(const struct tg_link *head) { return head->next == head; }
static inline void tg__list_insert_before(struct tg_link *place, struct tg_link *link)
{
    link->previous = place->previous;
    link->next = place;
    place->previous->next = link;
    place->previous = link;
}
static inline void tg__list_append(struct tg_link *head, struct tg_link *link) { tg__list_insert_before(head, link); }
static inline void tg__list_prepend(struct tg_link *head, struct tg_link *link)
{
    tg__list_insert_before(head->next, link);
}
static inline void tg__list_remove(struct tg_link *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
    link->previous = link->next = link;
}

/* ---- timers: what may sit on the heap ---- */

enum tg__timer_kind {
    TG__TIMER_ITEM = 0,     /* backoff; the slot is item->heap_index */
    TG__TIMER_GATE = 1,     /* gate->timer: a rate, a pause, an open breaker */
    TG__TIMER_DEADLINE = 2, /* lane->deadline_timer: sweep of waiting items */
};
#define TG__OFF_HEAP UINT32_MAX

struct tg__heap_entry {
    uint64_t due_ns;
    uint64_t order; /* arrival << 2 | kind: equal times fire in order of arrival */
    uint32_t *slot; /* where the owner keeps its index */
};
struct tg__heap {
    struct tg__heap_entry *entries;
    uint32_t used;
    uint32_t capacity;
    uint32_t fixed;       /* gates and lanes: each has room kept, so that their timers cannot fail */
    uint32_t fixed_used;  /* of those, on the heap */
    uint64_t arrivals;
};

/* ---- limits ---- */

struct tg__offer {
    uint64_t start_ns, interval_ns, tolerance_ns;
    uint32_t next, count;
};

struct tg__gate {
    struct tg_limit *limit;
    struct tg__gate *hash_next;
    struct tg_link all;      /* limit->gates, for the sweep of idle keys */
    uint64_t key;
    struct tg_link waiters;  /* keyed: items; unkeyed: lanes */
    uint64_t n_waiters;
    uint64_t woken;          /* keyed: items sent back to their lane and not looked at yet */
    uint64_t in_use;         /* permits, or probes of a half-open breaker */
    uint64_t tat_ns;         /* GCRA: theoretical arrival time */
    uint64_t paused_until_ns;
    uint32_t timer;          /* index on the heap */
    /* supplied from outside */
    uint32_t capacity;       /* keyed CONCURRENCY: permits of this key, beyond those that every key has */
    struct tg__offer *offers; /* SUPPLIED: a ring; of a key, allocated with its first offer */
    uint32_t max_offers, first_offer, n_offers;
    uint64_t used;           /* starts admitted */
    struct tg_link news;     /* limit->news while what the supplier knows of this key is old */
    /* breaker */
    uint8_t state;           /* enum tg_breaker_state */
    uint32_t probes_ok;
    uint32_t probes_started;
    uint64_t open_until_ns;
    uint64_t half_start_ns;  /* start of the younger half of the window */
    uint64_t calls[2];       /* [0] younger half, [1] older half */
    uint64_t failures[2];
};

struct tg_limit {
    struct tg_core *core;
    struct tg_link link;     /* core->limits */
    struct tg_limit_options options;
    uint64_t interval_ns;    /* RATE */
    uint64_t tolerance_ns;   /* RATE: (burst - 1) * interval */
    uint64_t paused_until_ns;
    uint32_t lanes;          /* how many have it */
    struct tg__gate gate;    /* unkeyed */
    struct tg__gate **table; /* keyed: chained hash */
    uint32_t table_size;     /* power of two */
    uint64_t n_gates;
    struct tg_link gates;
    struct tg_link *hand;    /* sweep position in gates */
    struct tg_link news;     /* watched: gates that changed since tg_limit_take_news */
    uint64_t waiting;        /* items in the lines of keys */
    struct tg_limit_stats stats;
};

/* ---- lanes ---- */

/* Tally of one class, gathered over a run and folded once. */
struct tg__tally {
    uint64_t count, sum, min, max;
};

struct tg_lane {
    struct tg_core *core;
    struct tg_link link;     /* core->lanes */
    struct tg_link active;   /* core->active[kind][priority] while something can perhaps start */
    bool is_active;
    bool paused;
    bool used;               /* an item was submitted: no more limits */
    bool has_breaker, one_by_one;
    char name[64];
    enum tg_kind kind;
    uint32_t concurrency, priority, weight, turns_left, run_max;
    uint64_t capacity, timeout_ns, run_target_ns;
    void *payload;
    struct tg_limit *limits[TG_LANE_LIMITS];
    uint8_t key_index[TG_LANE_LIMITS]; /* which of the item's keys a keyed limit reads */
    uint32_t n_limits, n_keyed;

    struct tg_link resumed;  /* items that were in line before: served first */
    struct tg_link ready;    /* items in order of arrival */
    struct tg_link running;  /* items that run one by one, in order of start */
    struct tg_link overdue;  /* of those, reported as overdue */
    struct tg_link runs;
    struct tg_link calls;    /* C calls with elements not yet claimed */
    uint64_t n_unclaimed;    /* elements of those calls */
    uint64_t n_ready, n_limited, n_backoff, n_claimed, n_settling, inside;
    uint64_t n_groups;
    uint64_t running_now, peak_running;

    struct tg__gate *blocked_on;
    struct tg_link waiting;  /* blocked_on->waiters */
    uint64_t blocked_since_ns, limited_ns; /* the limited clock: time blocked, up to blocked_since */

    uint64_t busy_ns, busy_at_ns;
    uint64_t mean_run_ns;    /* 0: nothing known yet */
    struct tg_retry retry;
    double budget;
    uint64_t budget_at_ns;
    uint32_t deadline_timer;

    struct tg_lane_stats stats; /* counters only; the rest is filled on demand */
    struct tg_histogram *histograms[TG_CLASSES];
};

/* ---- groups ---- */

/* Coarse histograms of a group; spare ones are kept by the core, always zero. */
struct tg__coarse {
    struct tg__coarse *next;
    uint32_t buckets[TG_CLASSES][TG_COARSE_BUCKETS];
};

struct tg_group {
    struct tg_core *core;
    struct tg_lane *lane;
    struct tg_link link;      /* core->groups */
    struct tg_link done_link; /* core->done_groups */
    void *payload;
    unsigned char token[16];
    uint64_t max_wait_ns;
    bool open, histograms, cancelled, drained, announced;
    uint64_t n_limited;       /* items in the lines of keys */
    /* release in tg__group_check_done, acquire in tg_group_done: publishes everything the settling threads wrote. */
    atomic_int done;
    struct tg__coarse *coarse;
    struct tg_group_stats stats;
};

/* ---- the core ---- */

struct tg__slab {
    struct tg__slab *next;
    uint32_t carved; /* records handed out at least once */
};

struct tg__slabs {
    bool off;
    struct tg__slab *list;   /* the newest first; only that one has records never handed out */
    struct tg_link free;     /* records returned, last in first out (link.next chain) */
    uint64_t n_slabs, allocations, handed_out, reused, live, peak;
};

struct tg_core {
    struct tg_allocator allocator;
    struct tg_clock clock;
    atomic_int *alive;                /* 1; on a page that the kernel clears in a forked child (NULL: compare pid) */
    pid_t pid;
    void (*wake)(void *ctx, unsigned kinds);
    void *wake_ctx;
    uint64_t steal_after_ns;

    pthread_mutex_t mutex;
    pthread_cond_t conds[TG__KINDS];  /* tg_core_wait, by the lowest kind waited for */
    pthread_cond_t group_cond;        /* tg_group_wait */
    uint32_t waiting_threads[TG__KINDS];
    uint32_t waiting_several;         /* of those, waiting for more than one kind */
    uint32_t waiting_groups;
    unsigned to_signal;               /* kinds whose waiters are signalled when the lock is released */
    bool to_broadcast;                /* all of them, and the groups' */
    bool to_signal_groups;
    uint32_t watchers;                /* threads in tg_core_wait that watch for runs to steal from */
    uint64_t wakes;                   /* grows with tg_core_wake and close */
    unsigned hungry;                  /* kinds whose last claim found nothing */
    unsigned to_wake;                 /* kinds to report when the lock is released */

    uint64_t now_ns;                  /* the latest time seen */
    bool closed, closed_cancel;
    struct tg__random random;
    struct tg__heap heap;
    struct tg_link overflow;          /* items in backoff for which the heap had no memory */
    uint64_t n_overflow;
    struct tg__slabs slabs;
    struct tg_link lanes, limits, groups;
    uint64_t n_lanes, n_limits, n_groups, n_runs, n_calls;
    uint64_t reclaim_ns;              /* not before: the next look for stuck runs */
    struct tg_link active[TG__KINDS][TG_PRIORITIES];
    unsigned active_priorities[TG__KINDS]; /* bit set: that list is not empty */
    struct tg_link spare_runs;
    struct tg__coarse *spare_coarse;
    struct tg_link settled, done_groups;
    /* relaxed: hints only; the lists above are read under the lock. */
    _Atomic uint64_t n_settled;
    atomic_uint n_done;

    uint64_t tsc_origin, tsc_origin_ns, tsc_next_ns, tsc_mult;
    bool tsc;
};

#define TG__ITEM_LEAST_DELAY 1u /* delay_ns holds the least delay the caller asked for */
#define TG__ITEM_WOKEN 2u       /* a gate sent it back to its lane: it goes first in that gate's line */
#define TG__ITEM_KEYS 4u        /* `keys` was allocated */
#define TG__ITEM_C 8u           /* an element of a C call: payload is the call */
#define TG__ITEM_LIMIT_SHIFT 4  /* WOKEN: index of the limit, 3 bits */
#define TG__ITEM_ROW 128u       /* it stands for `behind` more: row.c */

#define TG__RUN_PERMIT 1u       /* the run holds the lane's permit */
#define TG__RUN_OVERDUE 2u      /* the item that runs was reported; high bits: its index */

/* ---- core.c ---- */
tg_status tg__lock(const struct tg_core *core); /* TG_FORKED without locking */
void tg__unlock(struct tg_core *core);          /* signals and calls wake after releasing */
uint64_t tg__now(struct tg_core *core, uint64_t now_ns);
void *tg__allocate(struct tg_core *core, size_t size); /* zeroed */
void tg__release(struct tg_core *core, void *memory, size_t size);
void tg__notify(struct tg_core *core, enum tg_kind kind);
void tg__notify_settled(struct tg_core *core);
void tg__notify_time(struct tg_core *core);     /* the next timer is now earlier */
void tg__run_timers(struct tg_core *core, uint64_t now_ns);
uint64_t tg__next_due(struct tg_core *core);

/* ---- slab.c ---- */
struct tg_item *tg__item_allocate(struct tg_core *core);
void tg__item_free(struct tg_core *core, struct tg_item *item);
void tg__items_free(struct tg_core *core, struct tg_item **items, uint32_t n);
void tg__slabs_destroy(struct tg_core *core);

/* ---- row.c: one record for many items ---- */
struct tg_item *tg__row_first(struct tg_core *core, struct tg_item *row);
bool tg__row_settled(struct tg_core *core, struct tg_item *item);
static inline uint64_t tg__item_count(const struct tg_item *item)
{
    return item->flags & TG__ITEM_ROW ? 1 + item->behind : 1;
}

/* ---- heap.c ---- */
bool tg__heap_reserve(struct tg_core *core);    /* room for one more gate or lane */
void tg__heap_unreserve(struct tg_core *core);
bool tg__heap_push(struct tg_core *core, enum tg__timer_kind kind, uint32_t *slot, uint64_t due_ns);
void tg__heap_remove(struct tg_core *core, uint32_t *slot);
static inline uint64_t tg__heap_due(const struct tg__heap *heap)
{
    return heap->used != 0 ? heap->entries[0].due_ns : TG_NEVER;
}

/* ---- gate.c ---- */
void tg__gate_init(struct tg__gate *gate, struct tg_limit *limit, uint64_t key);
uint64_t tg__gate_room(struct tg__gate *gate, uint64_t now_ns);
uint64_t tg__gate_due(struct tg__gate *gate, uint64_t now_ns);
void tg__gate_take(struct tg__gate *gate, uint64_t now_ns, uint64_t items);
void tg__gate_kick(struct tg__gate *gate, uint64_t now_ns);
bool tg__gate_refuses(struct tg__gate *gate, uint64_t now_ns);
bool tg__gate_idle(struct tg__gate *gate, uint64_t now_ns);

/* ---- supply.c ---- */
bool tg__offers_allocate(struct tg__gate *gate, uint32_t max);
void tg__offers_free(struct tg__gate *gate);
uint64_t tg__offers_due(struct tg__gate *gate, uint64_t now_ns); /* earliest slot; TG_NEVER when there is none */
void tg__offers_take(struct tg__gate *gate, uint64_t now_ns);
void tg__gate_changed(struct tg__gate *gate); /* the supplier is to hear of it */

/* ---- breaker.c ---- */
void tg__breaker_refresh(struct tg__gate *gate, uint64_t now_ns);
void tg__breaker_outcome(struct tg__gate *gate, enum tg_verdict verdict, bool probe, uint64_t now_ns);
void tg__breaker_unprobe(struct tg__gate *gate);

/* ---- keys.c ---- */
struct tg__gate *tg__key_find(struct tg_limit *limit, uint64_t key);
struct tg__gate *tg__key_get(struct tg_limit *limit, uint64_t key, uint64_t now_ns); /* NULL: out of memory */
void tg__keys_sweep(struct tg_limit *limit, uint64_t now_ns, uint32_t steps);
void tg__keys_destroy(struct tg_limit *limit);

/* ---- admit.c: limits of one lane ---- */
enum tg__admission { TG__ADMITTED, TG__BLOCKED, TG__REFUSED, TG__NO_MEMORY };
uint64_t tg__item_key(const struct tg_item *item, const struct tg_lane *lane, uint32_t limit);
enum tg__admission tg__lane_admit(struct tg_lane *lane, uint64_t now_ns);
enum tg__admission tg__item_admit(struct tg_item *item, uint64_t now_ns); /* BLOCKED: it is in a gate's line now */
void tg__lane_take(struct tg_lane *lane, struct tg_item *first, uint64_t items, uint64_t now_ns);
void tg__lane_release(struct tg_lane *lane, uint64_t now_ns);
void tg__item_release(struct tg_item *item, uint64_t now_ns);
void tg__item_unwake(struct tg_item *item, uint64_t now_ns);
void tg__item_outcome(struct tg_item *item, uint64_t now_ns);
uint32_t tg__lane_run_length(struct tg_lane *lane, uint64_t now_ns);

/* ---- line.c: the lines of a lane ---- */
uint64_t tg__lane_limited(const struct tg_lane *lane, uint64_t now_ns);
void tg__lane_refresh(struct tg_lane *lane);
void tg__lane_block(struct tg_lane *lane, struct tg__gate *gate, uint64_t now_ns);
void tg__lane_unblock(struct tg_lane *lane, uint64_t now_ns);
void tg__line_enter(struct tg_lane *lane, struct tg_item *item, struct tg_link *line, uint64_t now_ns);
void tg__line_put_back(struct tg_lane *lane, struct tg_item *item, struct tg_link *before);
void tg__line_leave(struct tg_lane *lane, struct tg_item *item, uint64_t now_ns);
struct tg_lane *tg__pick(struct tg_core *core, unsigned kinds);
void tg__turn(struct tg_lane *lane);
struct tg_item *tg__line_pop(struct tg_lane *lane, uint64_t now_ns);
uint32_t tg__line_cut(struct tg_lane *lane, struct tg_item **items, uint32_t max, uint64_t now_ns, tg_status *status);
void tg__lane_busy(struct tg_lane *lane, uint64_t now_ns);
void tg__deadline_arm(struct tg_lane *lane, uint64_t due_ns);
void tg__deadline_sweep(struct tg_lane *lane, uint64_t now_ns);

/* ---- waiting.c: walks over every waiting item of a lane ---- */
typedef bool (*tg__visit)(struct tg_item *item, void *ctx); /* true: take it out */
uint64_t tg__waiting_remove(struct tg_lane *lane, tg__visit visit, void *ctx, enum tg_outcome outcome,
                            enum tg_reason reason, uint64_t now_ns);
bool tg__visit_all(struct tg_item *item, void *ctx);

/* ---- retry.c ---- */
uint64_t tg__backoff(const struct tg_retry *retry, struct tg__random *random, uint32_t attempt, uint64_t previous_ns);
bool tg__budget_take(struct tg_lane *lane, uint64_t now_ns);
void tg__budget_earn(struct tg_lane *lane, uint64_t successes);
void tg__budget_start(struct tg_lane *lane, uint64_t now_ns);
double tg__budget_now(const struct tg_lane *lane, uint64_t now_ns);
bool tg__retry_valid(const struct tg_retry *retry);

/* ---- decide.c ---- */
enum tg_decision tg__decide(struct tg_item *item, uint64_t now_ns);
void tg__count_attempt(struct tg_item *item);
void tg__resume(struct tg_item *item, uint64_t now_ns);
void tg__end_waiting(struct tg_item *item, enum tg_outcome outcome, enum tg_reason reason, uint64_t now_ns);
void tg__push_settled(struct tg_core *core, struct tg_item *item);

/* ---- settle.c ---- */
struct tg__scratch {
    struct tg_lane *lane;
    struct tg_group *group;
    struct tg__tally tally[TG_CLASSES];
    uint64_t items_sum[TG_CLASSES];
};
void tg__scratch_start(struct tg__scratch *scratch);
void tg__scratch_switch(struct tg__scratch *scratch, struct tg_group *group);
void tg__scratch_attempt(struct tg__scratch *scratch, struct tg_item *item);
void tg__scratch_waits(struct tg__scratch *scratch, const struct tg_item *item);
void tg__settle_one(struct tg__scratch *scratch, struct tg_item *item, uint64_t now_ns);
void tg__scratch_fold(struct tg__scratch *scratch);
void tg__record(struct tg_lane *lane, struct tg_group *group, enum tg_class class_, uint64_t value, uint64_t times);
void tg__fold_tally(struct tg_lane *lane, struct tg_group *group, enum tg_class class_, const struct tg__tally *tally);
void tg__group_check_done(struct tg_group *group);

/* ---- success.c ---- */
uint32_t tg__end_successes(struct tg_core *core, struct tg__scratch *scratch, struct tg_item **items, uint32_t n,
                           uint64_t now_ns, uint64_t *length_ns);

/* ---- run.c ---- */
struct tg_run *tg__run_allocate(struct tg_core *core);
void tg__run_begin(struct tg_core *core, struct tg_run *run, struct tg_lane *lane, uint32_t n, uint32_t tag,
                   uint64_t now_ns);
void tg__run_free(struct tg_core *core, struct tg_run *run);
void tg__run_reclaim(struct tg_core *core, unsigned kinds, uint64_t now_ns);
uint64_t tg__run_reclaim_due(struct tg_core *core, unsigned kinds);
uint32_t tg__run_truncate(struct tg_run *run, uint32_t *first);
void tg__run_put_back(struct tg_run *run, uint32_t first, uint32_t n);
void tg__tsc_calibrate(struct tg_core *core, uint64_t now_ns);

/* ---- finish.c ---- */
void tg__run_flush(struct tg_core *core, struct tg_run *run, uint32_t until, uint64_t now_ns, struct tg_item **decided,
                   size_t max, size_t *n_decided);

void tg__learn(struct tg_lane *lane, uint64_t length_ns, uint64_t items);
enum tg_decision tg__end_attempt(struct tg__scratch *scratch, struct tg_item *item, uint64_t now_ns);

/* ---- claim.c ---- */
struct tg_lane *tg__next_lane(struct tg_core *core, unsigned kinds, uint64_t now_ns);
void tg__start_item(struct tg_lane *lane, struct tg_item *item);

/* ---- wait.c ---- */
tg_status tg__wait_locked(struct tg_core *core, unsigned kinds, uint64_t until_ns, bool work_only);

/* ---- ccall.c: arrays of elements that the pool works on ---- */
struct tg__call {
    struct tg_link link;    /* lane->calls while elements are unclaimed */
    struct tg_ccall spec;
    struct tg_group *group;
    uint64_t submit_ns;
    uint64_t limited_ns;    /* the lane's limited clock at submit */
    size_t next;            /* first unclaimed element */
    uint64_t holders;       /* stretches in work, and element records: the call lives while there are any */
};
/* A stretch [first, first + n) of a call, or one element that is tried again (item). Owned by one pool thread. */
struct tg__stretch {
    struct tg__call *call;
    struct tg_lane *lane;
    struct tg_item *item;
    size_t first, n;
    uint64_t limited_ns;    /* share of each element */
    uint64_t timeout_ns;    /* the lane's, when it was claimed */
    struct tg_item proxy;   /* carries the breaker probe, if it is one */
};
struct tg__failure {
    size_t element;
    uint64_t start_ns, end_ns;
    int status;
    bool late;              /* it returned after its timeout: the status says nothing */
};
#define TG__STRETCH_MAX 4096
/* What a thread measured over one stretch; merged under the lock when it ends. */
struct tg__tallies {
    struct tg_histogram running, queued; /* queued: successes only */
    uint64_t first_start_ns, last_end_ns;
    uint32_t n_failures;
    struct tg__failure failures[TG__STRETCH_MAX];
};
bool tg__stretch_claim(struct tg_core *core, uint32_t threads, uint64_t now_ns, struct tg__stretch *out);
void tg__stretch_finish(struct tg_core *core, struct tg__stretch *stretch, struct tg__tallies *tallies, uint64_t now_ns);
void tg__call_drop(struct tg__call *call);
void tg__call_settled(struct tg_item *item); /* an element's record: writes how it ended, drops the call */
bool tg__calls_ready(const struct tg_lane *lane);
uint64_t tg__calls_cancel(struct tg_lane *lane, struct tg_group *group, enum tg_outcome outcome, uint64_t now_ns);

/* ---- histogram.c ---- */
static inline void tg__tally_add(struct tg__tally *tally, uint64_t value)
{
    tally->count++;
    tally->sum += value;
    if (value < tally->min) {
        tally->min = value;
    }
    if (value > tally->max) {
        tally->max = value;
    }
}
static inline void tg__tally_merge(struct tg__tally *into, const struct tg__tally *from)
{
    into->count += from->count;
    into->sum += from->sum;
    into->min = from->min < into->min ? from->min : into->min;
    into->max = from->max > into->max ? from->max : into->max;
}

#endif
