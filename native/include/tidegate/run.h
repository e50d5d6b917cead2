/* run.h - a sequential claim: up to TG_RUN_MAX items of one lane that one thread runs one after another.
 *
 * A run costs one lock to claim and one to finish, and one permit of the lane (and of each unkeyed concurrency limit),
 * because only one of its items runs at a time. The loop of a thread:
 *
 *     while (tg_core_claim(core, TG_KIND_SYNC, tag, 0, &run, &due_ns) == TG_OK && run) {
 *         uint64_t now = tg_run_now(run);
 *         struct tg_item *item;
 *         while ((item = tg_run_take(run, now)) != NULL) {
 *             tg_journal_begin(journal, slot, token, item->position, item->attempts, now, tag);   // optional
 *             ... call the function, keep its result or error in the payload ...
 *             now = tg_run_now(run);                    // end of this item = start of the next
 *             tg_item_end(item, TG_VERDICT_OK, 0, now);
 *         }
 *         tg_journal_end(journal, slot);
 *         tg_core_finish(core, run, now, decided, TG_RUN_MAX, &n_decided);
 *         ... write the outcome of decided[], then tg_core_settle(core, decided, n_decided, 0) ...
 *     }
 *
 * While one item blocks, another thread's tg_core_claim puts the rest of the run back at the head of its line (after
 * steal_after_ns), where it is claimed again with a permit of its own: cursor and end are one atomic word, so that an item
 * is taken exactly once. That thread then also finishes the items already run. The owner notices nothing: its next
 * tg_run_take answers NULL.
 *
 * Memory order: tg_run_take is acq_rel. Its release publishes what the owner wrote into the items before, its partner is
 * the acquire load in the thief (src/run.c), which finishes those items under the core's lock.
 */
#ifndef TIDEGATE_RUN_H
#define TIDEGATE_RUN_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "tidegate/item.h"
#include "tidegate/status.h"
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#define TG_RUN_MAX 256

struct tg_core;

struct tg_run {
    struct tg_link link;       /* internal: the lane's runs, or the core's spare ones */
    struct tg_lane *lane;
    /* low 32 bits: next item to take; high 32 bits: end. */
    _Atomic uint64_t cursor;
    /* Start of the item that runs now. Written by the owner (relaxed), read by thieves and watchdogs (relaxed): a late
     * value only makes them come a little later or check again. */
    _Atomic uint64_t start_ns;
    uint64_t limited_ns;       /* internal: the lane's limited clock when the run was claimed */
    uint64_t anchor_ns;        /* internal: tg_run_now */
    uint64_t anchor_tsc;       /* internal */
    uint64_t tsc_mult;         /* ns per tick << 32; 0: read the core's clock instead */
    const struct tg_clock *clock;
    uint32_t claimed;          /* items at claim time */
    uint32_t flushed;          /* internal: items already finished by a thief, under the core's lock */
    uint32_t tag;              /* the caller's thread tag */
    uint32_t flags;            /* internal */
    struct tg_item *items[TG_RUN_MAX];
};

/* The time now. Within a millisecond of its last look at the clock a run counts processor ticks from there (where the
 * time stamp counter is constant); after that it looks again. Owner only. */
static inline uint64_t tg_run_now(struct tg_run *run)
{
#if defined(__x86_64__)
    if (run->tsc_mult != 0) {
        uint64_t ticks = __rdtsc() - run->anchor_tsc;
        if (ticks < ((uint64_t)1 << 22)) {
            return run->anchor_ns + ((ticks * run->tsc_mult) >> 32);
        }
    }
#endif
    uint64_t now = run->clock->now_ns(run->clock->ctx);
    if (now < run->anchor_ns) {
        now = run->anchor_ns;
    }
    run->anchor_ns = now;
#if defined(__x86_64__)
    if (run->tsc_mult != 0) {
        run->anchor_tsc = __rdtsc();
    }
#endif
    return now;
}

/* Takes the next item and starts its attempt at now_ns; NULL when nothing is left. Owner only, no lock. */
static inline struct tg_item *tg_run_take(struct tg_run *run, uint64_t now_ns)
{
    /* Before the cursor moves: a thief that sees the new cursor must not see the old start for long. */
    atomic_store_explicit(&run->start_ns, now_ns, memory_order_relaxed);
    uint64_t word = atomic_fetch_add_explicit(&run->cursor, 1, memory_order_acq_rel);
    uint32_t index = (uint32_t)word;
    if (index >= (uint32_t)(word >> 32)) {
        return NULL;
    }
    struct tg_item *item = run->items[index];
    if (now_ns < item->mark_ns) {
        now_ns = item->mark_ns;
    }
    uint64_t elapsed = now_ns - item->mark_ns;
    uint64_t limited = run->limited_ns - item->due_ns;
    if (limited > elapsed) {
        limited = elapsed;
    }
    item->limited_ns += limited;
    item->queued_ns += elapsed - limited;
    item->mark_ns = now_ns;
    item->due_ns = item->running_ns; /* so that the length of this attempt is known at its end */
    item->attempts++;
    item->state = TG_ITEM_RUNNING;
    return item;
}

/* Items not yet taken (a hint: a thief may be at work). */
static inline uint32_t tg_run_left(const struct tg_run *run)
{
    uint64_t word = atomic_load_explicit(&((struct tg_run *)run)->cursor, memory_order_relaxed);
    uint32_t index = (uint32_t)word, end = (uint32_t)(word >> 32);
    return index < end ? end - index : 0;
}

#endif
