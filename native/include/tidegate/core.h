/* core.h - the executor's scheduler: submit, claim, complete, settle.
 *
 * One mutex guards everything in a core. It is held for the work of one call, never while a function of the user or of the
 * binding runs; `wake` (below) is called after it was released. A core reads no environment, prints nothing and has no
 * state outside its objects.
 *
 * now_ns arguments: pass a time just read (the end of the last item will do), or 0 to let the core read its clock. A time
 * older than one the core has already seen is taken as that one.
 *
 * Fork: a core remembers the process that made it; in any other, calls answer TG_FORKED and change nothing. Nothing
 * can be freed there: the lock may have been held by a thread that the child does not have.
 */
#ifndef TIDEGATE_CORE_H
#define TIDEGATE_CORE_H

#include <stddef.h>
#include <stdint.h>

#include "tidegate/alloc.h"
#include "tidegate/clock.h"
#include "tidegate/group.h"
#include "tidegate/histogram.h"
#include "tidegate/item.h"
#include "tidegate/lane.h"
#include "tidegate/limit.h"
#include "tidegate/run.h"
#include "tidegate/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TG_VERSION_MAJOR 1
#define TG_VERSION_MINOR 0
/* "1.0" of the library that was linked; equal to the header's when they match. */
const char *tg_version(void);

struct tg_core_options {
    const struct tg_allocator *allocator; /* NULL: malloc */
    const struct tg_clock *clock;         /* NULL: tg_clock_monotonic */
    uint64_t seed;                        /* of jitter; the same seed and calls give the same schedule */
    int no_slabs;                         /* nonzero: one allocation per item, so that the gain can be shown */
    int no_tsc;                           /* nonzero: tg_run_now always reads the clock */
    uint64_t steal_after_ns;              /* how long an item may run before idle threads take the rest of its run;
                                             0 means 200 us */
    /* Work of these kinds has become available, and a call to claim or next had found none since the last wake. Called
     * without the lock, from whatever thread made the work available (also from tg_core_poll). May be NULL.
     * It must not block; writing to an eventfd is right. */
    void (*wake)(void *ctx, unsigned kinds);
    void *wake_ctx;
};

struct tg_core;

tg_status tg_core_create(const struct tg_core_options *options, struct tg_core **out);
/* Refuses new items from now on (TG_CLOSED). With cancel != 0 waiting items become CANCELLED (reason CLOSED). Wakes all
 * waiters. Running items finish as usual, but are not retried after cancel. Calling it twice is fine. */
tg_status tg_core_close(struct tg_core *core, int cancel);
/* Frees the core with its lanes, limits and groups. TG_BUSY, and nothing is freed, while items are running, in a run or
 * settling; items that wait are dropped. In a forked child: TG_FORKED, memory is left alone. */
tg_status tg_core_destroy(struct tg_core *core);
/* TG_OK, TG_CLOSED or TG_FORKED. */
tg_status tg_core_check(const struct tg_core *core);
/* The core's clock. */
uint64_t tg_core_now(const struct tg_core *core);

/* ---- submit ---- */

/* Appends n items at positions first_position.. to the group's lane, under one lock. *accepted says how many there was
 * room for: TG_OK when all, TG_FULL when fewer (the first *accepted ones are in; try the rest later). On TG_NOMEM too the
 * first *accepted are in.
 *   payloads  one pointer per item, or NULL (then payload is NULL)
 *   keys      n * tg_lane_keys() hashes, item by item; NULL only when the lane has no keyed limit */
tg_status tg_core_submit(struct tg_core *core, struct tg_group *group, size_t n, void *const *payloads,
                         const uint64_t *keys, uint64_t first_position, uint64_t now_ns, size_t *accepted);
/* Room in the group's lane now (UINT64_MAX when unbounded). */
uint64_t tg_core_room(struct tg_core *core, struct tg_lane *lane);

/* ---- start: sequential runs (the fast way; see run.h for the loop) ---- */

/* Claims a run of the next lane of this kind: highest priority first, round robin within one. *run is NULL when nothing can
 * start now; *due_ns then says when to call again unless woken (TG_NEVER: nothing is scheduled). The length follows the
 * lane's mean run time, so that a run lasts about run_target_ns; it is 1 where a rate, a breaker that is not closed, or a
 * keyed limit is attached, so that those stay exact. `tag` identifies the thread in tg_core_overdue and in the journal. */
tg_status tg_core_claim(struct tg_core *core, unsigned kinds, uint32_t tag, uint64_t now_ns, struct tg_run **run,
                        uint64_t *due_ns);
/* The item taken last (it suspended: a coroutine) leaves the run and goes on by itself: it keeps the run's permits and is
 * given back with tg_core_complete. The rest of the run gets permits of its own, or goes back to the head of its line, and
 * the next tg_run_take answers NULL. */
tg_status tg_core_detach(struct tg_core *core, struct tg_run *run, struct tg_item *item);
/* Ends a run. Every item taken must have been ended with tg_item_end. Items that succeeded are settled at once (at now_ns)
 * and freed. Items to retry are put on the heap and must not be touched any more. The rest is decided and stored in
 * `decided` for the caller to settle (max should be TG_RUN_MAX; what does not fit goes to tg_core_take_settled). Items
 * never taken go back to the head of their line. The run is the core's again. */
tg_status tg_core_finish(struct tg_core *core, struct tg_run *run, uint64_t now_ns, struct tg_item **decided,
                         size_t max, size_t *n_decided);
/* finish and claim under one lock: for the loop of a busy thread. `run` may be NULL. */
tg_status tg_core_finish_claim(struct tg_core *core, struct tg_run *finished, unsigned kinds, uint32_t tag,
                               uint64_t now_ns, struct tg_item **decided, size_t max, size_t *n_decided,
                               struct tg_run **run, uint64_t *due_ns);
/* The same for items of one lane: for a thread that waits inside an item, and would wait for itself if it took an item that
 * in turn waits for that one. */
tg_status tg_lane_finish_claim(struct tg_lane *lane, struct tg_run *finished, uint32_t tag, uint64_t now_ns,
                               struct tg_item **decided, size_t max, size_t *n_decided, struct tg_run **run,
                               uint64_t *due_ns);

/* ---- start: item by item ---- */

/* Starts up to max items, each with permits of its own, at now_ns. *n is 0 when nothing can start: see tg_core_claim for
 * *due_ns. Give them back with tg_core_complete. */
tg_status tg_core_next(struct tg_core *core, unsigned kinds, uint64_t now_ns, struct tg_item **items, size_t max,
                       size_t *n, uint64_t *due_ns);

enum tg_decision {
    TG_DECISION_SETTLED = 1, /* it succeeded and was settled and freed (settle_ok) */
    TG_DECISION_SETTLE = 2,  /* write the outcome, then tg_core_settle */
    TG_DECISION_RETRY = 3,   /* it will run again: do not touch it */
};
/* Completes n started items, each ended with tg_item_end. decisions[i] says what became of items[i]. With settle_ok,
 * successful items are settled in the same call. */
tg_status tg_core_complete(struct tg_core *core, struct tg_item *const *items, size_t n, int settle_ok,
                           uint64_t now_ns, uint8_t *decisions);
/* The attempt was not made after all (the event loop is closing): the item goes back to the head of its line, its
 * permits return, rate tokens do not; the attempt is not counted. */
tg_status tg_core_return(struct tg_core *core, struct tg_item *item, uint64_t now_ns);

/* ---- end ---- */

/* Settles items that were decided: their time classes are recorded, the group counts them. Their records are the core's. */
tg_status tg_core_settle(struct tg_core *core, struct tg_item *const *items, size_t n, uint64_t now_ns);
/* Items that were decided without a thread at hand: cancelled, drained, deadline passed, refused by a breaker, or finished
 * by a thief. Any binding thread takes them, writes their outcome and settles them; then there may be more. */
tg_status tg_core_take_settled(struct tg_core *core, struct tg_item **items, size_t max, size_t *n);
/* Groups that became done since the last call, each once; NULL when none. */
tg_status tg_core_take_done(struct tg_core *core, struct tg_group **group);
/* Lock-free hints for a hot loop: is there something for the two calls above? */
int tg_core_has_settled(const struct tg_core *core);
int tg_core_has_done(const struct tg_core *core);

/* ---- time ---- */

/* Fires what is due (retries become ready, gates open, deadlines pass) and answers when to call again. Claim and next do
 * this too. *due_ns is TG_NEVER when nothing is scheduled. */
tg_status tg_core_poll(struct tg_core *core, uint64_t now_ns, uint64_t *due_ns);
/* When the next timer fires, without firing it. */
uint64_t tg_core_next_due(struct tg_core *core);

struct tg_overdue {
    struct tg_item *item; /* compare only, unless the caller keeps it from settling */
    struct tg_run *run;   /* NULL for items that run one by one */
    uint64_t start_ns;    /* of the attempt: with item and tag it names the attempt, should it end meanwhile */
    uint32_t tag;         /* the run's thread tag */
};
/* Attempts that have run longer than their lane's timeout. Each is reported once. *next_ns (may be NULL): when to ask
 * again. Needs no GIL: a watchdog thread may call it. */
tg_status tg_core_overdue(struct tg_core *core, uint64_t now_ns, struct tg_overdue *out, size_t max, size_t *n,
                          uint64_t *next_ns);

/* Blocks until work of these kinds may be available, something is settled or done, tg_core_wake, close, or
 * timeout_ns has passed on the real clock (TG_TIMEOUT). Returns at once when there is already something. */
tg_status tg_core_wait(struct tg_core *core, unsigned kinds, uint64_t timeout_ns);
/* Wakes every thread in tg_core_wait and tg_group_wait. */
void tg_core_wake(struct tg_core *core);

/* ---- memory ---- */

struct tg_core_stats {
    uint64_t items_live;        /* records in use: a row of waiting items has one */
    uint64_t items_peak;
    uint64_t item_bytes;        /* bytes of one record */
    uint64_t slabs;             /* slabs held */
    uint64_t slab_bytes;        /* bytes in slabs */
    uint64_t slab_allocations;  /* slabs ever allocated */
    uint64_t item_allocations;  /* items ever handed out */
    uint64_t item_reuses;       /* of them, from the free list */
    uint64_t timers;            /* on the heap now: 0 when nothing waits for a time */
    uint64_t lanes;
    uint64_t limits;
    uint64_t groups;
    uint64_t runs;              /* runs held by threads now */
    uint64_t settled_waiting;   /* decided, for tg_core_take_settled */
};
tg_status tg_core_get_stats(struct tg_core *core, struct tg_core_stats *out);
/* Gives slabs back when no item is live. Returns how many. */
uint64_t tg_core_trim(struct tg_core *core);

#ifdef __cplusplus
}
#endif
#endif
