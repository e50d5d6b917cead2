/* pump_watch.h - tells the watchdog which coroutine holds the loop, so that one that never awaits can be interrupted.
 *
 * Around every step of an item's coroutine the pump's worker record names it: a sequence number of its own, when the item
 * started, its timeouts. The watchdog and the interrupter treat it as they treat a sync item (watchdog.c, sync.c), with one
 * difference: a step is overdue only when two looks in a row find it running, so that a short step of an item that is late
 * for other reasons is left to the cancellation that is on its way.
 *
 * An interrupt cannot strike anything but the step it is for: it is sent with the GIL, to a step that has begun and not
 * ended, and whoever ends the step takes back what was not delivered before anything else runs on the thread. */
#ifndef TIDEGATE_PY_PUMP_WATCH_H
#define TIDEGATE_PY_PUMP_WATCH_H

#include "pump.h"

/* Before the first step of a stretch: from now on the watchdog looks. */
static inline void tg_watch_open(PumpObject *self)
{
    struct tg_worker *worker = self->worker;
    worker->thread_id = PyThread_get_thread_ident(); /* a loop may be run by one thread after the other */
    atomic_store(&worker->active, 1); /* sequentially consistent, with watch_idle: as in run_items(), sync.c */
    if (atomic_load(&self->core->watch_idle)) {
        tg_watchdog_note(self->core);
    }
}

static inline void tg_watch_close(PumpObject *self)
{
    if (self->worker != NULL && self->stepping == 0) { /* a step may have closed the pump */
        atomic_store_explicit(&self->worker->active, 0, memory_order_relaxed);
    }
}

static inline void tg_watch_begin(PumpObject *self, const LaneObject *lane, uint64_t start_ns)
{
    struct tg_worker *worker = self->worker;
    if (self->stepping++ != 0) { /* a loop run inside a step: nothing is interrupted until that step goes on */
        if (self->stepping == 2) {
            self->outer_start_ns = atomic_load_explicit(&worker->start_ns, memory_order_relaxed);
        }
        atomic_store_explicit(&worker->start_ns, 0, memory_order_relaxed);
        return;
    }
    uint64_t sequence = atomic_load_explicit(&worker->sequence, memory_order_relaxed) + 1;
    atomic_store_explicit(&worker->timeout_ns, lane->timeout_ns, memory_order_relaxed);
    atomic_store_explicit(&worker->hard_ns, lane->hard_ns, memory_order_relaxed);
    /* The start before the sequence: see run_items(), sync.c. */
    atomic_store_explicit(&worker->start_ns, start_ns, memory_order_relaxed);
    atomic_store_explicit(&worker->sequence, sequence, memory_order_release);
}

/* Whether the step was interrupted. An interrupt that was not delivered is taken back and does not count: the item is
 * cancelled at the next turn, as one that waits would be. No Python error is lost. */
static inline int tg_watch_end(PumpObject *self)
{
    struct tg_worker *worker = self->worker;
    if (--self->stepping != 0) {
        if (self->stepping == 1 && worker != NULL) {
            atomic_store_explicit(&worker->start_ns, self->outer_start_ns, memory_order_relaxed);
        }
        return 0;
    }
    if (worker == NULL) { /* the step closed the pump, which took back what was on its way */
        return 0;
    }
    atomic_store_explicit(&worker->start_ns, 0, memory_order_relaxed);
    if (worker->interrupted != atomic_load_explicit(&worker->sequence, memory_order_relaxed)) {
        return 0;
    }
    int delivered = PyThreadState_Get()->async_exc == NULL;
    if (!delivered) {
        tg_thread_raise(worker->thread_id, NULL);
    }
    return delivered;
}

/* The driver calls it around the steps of a coroutine that had suspended. */
void tg_pump_stepping(void *owner, uint64_t token, enum tg_step_moment moment);

#endif
