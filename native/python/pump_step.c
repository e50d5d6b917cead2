/* pump_step.c - starts coroutines, and writes down how they end. */
#include "pump_watch.h"

#include <string.h>

#define STEP_BUDGET 1024        /* items started before the loop gets a turn */
#define STEP_BUDGET_NS 2000000u /* and time */
#define NEXT_BATCH 64
#define START_NEXT_MAX 8 /* items that an end may start: those that end at once make room for another */

struct begun {
    enum tg_step step;
    PyObject *out;
    int interrupted;
};

static PyObject *make_coroutine(PumpObject *self, RunObject *run, uint64_t position)
{
    PyObject *result = tg_run_call(run, PyTuple_GET_ITEM(run->items, (Py_ssize_t)position));
    if (result == NULL || PyCoro_CheckExact(result)) {
        return result;
    }
    PyObject *wrapped = PyObject_CallOneArg(self->wrap, result); /* an awaitable, or a plain value */
    Py_DECREF(result);
    return wrapped;
}

/* Calls the function and takes the first step. */
static struct begun begin(PumpObject *self, RunObject *run, struct tg_item *item)
{
    struct begun begun = {.step = TG_STEP_RAISED};
    CoreObject *core = self->core;
    struct tg_worker *worker = self->worker;
    if (item->attempts == 1 && run->prior != NULL) {
        item->attempts += (unsigned char)PyBytes_AS_STRING(run->prior)[item->position];
    }
    if (run->errors != NULL) {
        Py_CLEAR(run->errors[item->position]); /* of an earlier attempt */
    }
    struct tg_flight *flight = tg_flight_spare(self);
    if (flight == NULL || tg_ambient_ready(core->state, &self->ambient, run, 0) < 0) {
        begun.out = tg_take_exception();
        return begun;
    }
    self->ambient.scope->position = item->position;
    self->ambient.scope->attempt = item->attempts;
    if (core->journal != NULL && worker->slot != TG_NO_SLOT) {
        tg_journal_begin(core->journal, worker->slot, tg_group_token(item->group), item->position, item->attempts,
                         item->mark_ns, worker->tag);
    }
    LaneObject *lane = run->lane;
    int stepping = self->stepping;
    self->first_watched = lane->timeout_ns != 0 || lane->hard_ns != 0;
    self->first_interrupted = 0;
    if (self->first_watched) {
        tg_watch_begin(self, lane, item->mark_ns);
    }
    struct tg_journal_slot *outer_slot = tg_running_slot;
    tg_running_slot = tg_slot_at(core, worker->slot);
    PyObject *coroutine = make_coroutine(self, run, item->position);
    if (coroutine != NULL) {
        begun.step = tg_driver_step(self->driver, coroutine, self->ambient.context, (uint64_t)(uintptr_t)flight, &begun.out);
        Py_DECREF(coroutine);
    }
    tg_running_slot = outer_slot;
    /* The driver says when the step is over; not when there was none, or when the step itself made others. */
    begun.interrupted = self->stepping != stepping ? tg_watch_end(self) : self->first_interrupted;
    if (coroutine == NULL || begun.step == TG_STEP_BROKEN) {
        begun.step = TG_STEP_RAISED;
        begun.out = tg_take_exception();
    }
    if (begun.step == TG_STEP_RETURNED && core->outlog != NULL) {
        tg_record_success(run, item->position, item->attempts, begun.out);
    }
    if (begun.step == TG_STEP_SUSPENDED) {
        tg_ambient_drop(&self->ambient); /* the coroutine's for good */
    } else if (self->worker != NULL && core->journal != NULL && worker->slot != TG_NO_SLOT) { /* not if it closed the pump */
        tg_journal_end(core->journal, worker->slot);
    }
    return begun;
}

static PyObject *timeout_error(PumpObject *self, PyObject *cause)
{
    PyObject *error = PyObject_CallNoArgs(self->core->state->item_timeout);
    if (error == NULL) {
        PyErr_Clear();
        return Py_NewRef(cause);
    }
    PyObject *traceback = PyException_GetTraceback(cause);
    if (traceback != NULL) {
        PyException_SetTraceback(error, traceback); /* it shows where the coroutine waited */
        Py_DECREF(traceback);
    }
    return error;
}

/* Is it the interrupt of this module, alone or as all there is in a TaskGroup's group? */
static int is_interrupt(struct tg_module_state *state, PyObject *raised)
{
    if (PyErr_GivenExceptionMatches(raised, state->item_timeout)) {
        return 1;
    }
    if (!PyErr_GivenExceptionMatches(raised, PyExc_BaseExceptionGroup)) {
        return 0;
    }
    PyObject *parts = PyObject_CallMethod(raised, "split", "O", state->item_timeout);
    int alone = parts != NULL && PyTuple_Check(parts) && PyTuple_GET_SIZE(parts) == 2 &&
                PyTuple_GET_ITEM(parts, 1) == Py_None;
    Py_XDECREF(parts);
    PyErr_Clear();
    return alone;
}

/* Notes an exception; answers the verdict. *error is what was kept. */
static enum tg_verdict note_error(PumpObject *self, RunObject *run, struct tg_item *item, PyObject *raised,
                                  const struct tg_flight *flight, int interrupted, uint64_t now, uint64_t *retry_after_ns,
                                  PyObject **kept)
{
    int end = TG_END_RAISED;
    PyObject *error = Py_NewRef(raised);
    if (PyErr_GivenExceptionMatches(raised, self->core->state->cancelled_error)) {
        end = TG_END_CANCELLED;
        /* A cancellation that user code asked for comes before ours, as in asyncio.timeout. */
        if (flight != NULL && flight->timed_out && !flight->cancelled && tg_driver_cancelling(flight->task) <= 1) {
            end = TG_END_TIMED_OUT;
            Py_SETREF(error, timeout_error(self, raised));
        }
    } else if (interrupted && is_interrupt(self->core->state, raised)) {
        end = TG_END_TIMED_OUT;
    }
    tg_item_end(item, TG_VERDICT_FAIL_FINAL, 0, now);
    enum tg_verdict verdict = tg_run_attempt_failed(run, item, error, end, retry_after_ns);
    *kept = error;
    Py_DECREF(error); /* run->errors holds it */
    return verdict;
}

static void push_ended(PumpObject *self, RunObject *run, struct tg_item *item, PyObject *error)
{
    self->ended_items[self->n_ended] = item;
    self->ended[self->n_ended++] = (struct ended){(RunObject *)Py_NewRef(run), item->position, error};
}

void tg_pump_flush(PumpObject *self)
{
    uint8_t decisions[TG_ENDED];
    struct tg_item *decided[TG_ENDED];
    while (self->n_ended != 0) {
        size_t n = self->n_ended, n_decided = 0;
        struct ended ended[TG_ENDED];
        memcpy(ended, self->ended, n * sizeof *ended);
        tg_status status = tg_core_complete(self->core->core, self->ended_items, n, 1, 0, decisions);
        for (size_t i = 0; status == TG_OK && i < n; i++) {
            if (decisions[i] == TG_DECISION_SETTLE) {
                decided[n_decided++] = self->ended_items[i];
            }
        }
        self->n_ended = 0;
        tg_settle_decided(self->core, decided, n_decided);
        for (size_t i = 0; i < n; i++) {
            if (status == TG_OK && decisions[i] == TG_DECISION_RETRY) {
                tg_run_forget_error(ended[i].run, ended[i].position, ended[i].error);
            }
            Py_DECREF(ended[i].run);
        }
    }
    if (tg_core_has_settled(self->core->core) || tg_core_has_done(self->core->core)) {
        tg_settle_pending(self->core);
    }
}

static size_t start_each(PumpObject *self, struct tg_item **items, size_t n);

/* Does the timer that is set fire early enough for what has just been started? */
static int timer_holds(const PumpObject *self, const LaneObject *lane, uint64_t start_ns)
{
    return lane->hard_ns == 0
           && (lane->timeout_ns == 0 || (self->timer != NULL && self->timer_due <= start_ns + lane->timeout_ns));
}

/* Does it fire early enough for all that waits for its time: retries, rates? The end that came may have begun such a wait. */
static int timer_serves_waits(const PumpObject *self)
{
    uint64_t due_ns = tg_core_next_due(self->core->core);
    return due_ns == TG_NEVER || (self->timer != NULL && self->timer_due <= due_ns);
}

/* An end that came alone (a future's callback) passes its permit on at once: the next item need not wait for the loop's
 * next turn. Returns whether that was all there was to do; otherwise a tick has to follow. */
static int start_next(PumpObject *self)
{
    if (self->closed) {
        return 0;
    }
    struct tg_driver_scope scope;
    int enough = 0;
    tg_pump_flush(self);
    for (int i = 0; i < START_NEXT_MAX && !enough && !self->closed; i++) {
        struct tg_item *item;
        uint64_t due_ns;
        size_t n = 0;
        if (tg_core_next(self->core->core, self->kind, 0, &item, 1, &n, &due_ns) != TG_OK || n == 0) {
            break;
        }
        const LaneObject *lane = ((RunObject *)tg_group_payload(item->group))->lane;
        uint64_t start_ns = item->mark_ns;
        if (tg_driver_enter(self->driver, &scope) < 0) {
            PyErr_WriteUnraisable((PyObject *)self);
            tg_core_return(self->core->core, item, 0);
            break;
        }
        tg_watch_open(self);
        enough = start_each(self, &item, 1) != 0 && timer_holds(self, lane, start_ns);
        tg_watch_close(self);
        tg_ambient_drop(&self->ambient);
        tg_driver_leave(self->driver, &scope);
        tg_pump_flush(self);
    }
    return enough && timer_serves_waits(self);
}

static void settled(void *owner, uint64_t token, PyObject *outcome, int raised)
{
    PumpObject *self = owner;
    struct tg_flight *flight = (struct tg_flight *)(uintptr_t)token;
    Py_INCREF(self); /* landing drops the flight's reference */
    RunObject *run = flight->run;
    struct tg_item *item = flight->item;
    uint64_t now = tg_core_now(self->core->core);
    PyObject *error = NULL;
    if (raised) {
        uint64_t retry_after_ns;
        enum tg_verdict verdict = note_error(self, run, item, outcome, flight, flight->interrupted, now, &retry_after_ns, &error);
        tg_item_end(item, verdict, retry_after_ns, now);
    } else {
        if (self->core->outlog != NULL) {
            tg_record_success(run, item->position, item->attempts, outcome);
        }
        tg_item_end(item, TG_VERDICT_OK, 0, now);
        tg_run_succeeded(run, item, Py_NewRef(outcome));
    }
    push_ended(self, run, item, error);
    tg_flight_land(self, flight);
    if (tg_driver_in_turn(self->driver) || self->cancel_requested || !start_next(self)) {
        if (self->n_ended == TG_ENDED || self->closed > 1 || (error != NULL && self->core->outlog != NULL)) {
            tg_pump_flush(self); /* a closed pump ticks no more; a failure goes on record before others run */
        }
        tg_pump_schedule(self);
    }
    Py_DECREF(self);
}

const struct tg_driver_calls tg_pump_calls = {.settled = settled, .stepping = tg_pump_stepping};

/* ---- starting ---- */

static void launch(PumpObject *self, struct tg_flight *flight, RunObject *run, struct tg_item *item,
                   const struct begun *begun)
{
    tg_flight_launch(self, flight, run, item, begun->out);
    if (begun->interrupted) {
        tg_flight_interrupted(self, flight);
    }
}

/* A sequential run: items that do not suspend follow each other with one permit and no lock. Returns whether one suspended. */
static int start_run(PumpObject *self, struct tg_run *claimed)
{
    struct tg_item *item, *decided[TG_RUN_MAX];
    struct {
        RunObject *run;
        uint64_t position;
        PyObject *error;
    } failed[TG_RUN_MAX];
    size_t n_failed = 0, n_decided = 0;
    int suspended = 0;
    uint64_t now = tg_run_now(claimed);
    while (self->closed <= 1 && (item = tg_run_take(claimed, now)) != NULL) {
        RunObject *run = tg_group_payload(item->group);
        struct begun begun = begin(self, run, item);
        now = tg_run_now(claimed);
        if (begun.step == TG_STEP_SUSPENDED) {
            struct tg_flight *flight = self->spare;
            tg_core_detach(self->core->core, claimed, item);
            launch(self, flight, run, item, &begun);
            suspended = 1;
        } else if (begun.step == TG_STEP_RETURNED) {
            tg_item_end(item, TG_VERDICT_OK, 0, now);
            tg_run_succeeded(run, item, begun.out);
        } else {
            uint64_t retry_after_ns;
            PyObject *error;
            enum tg_verdict verdict = note_error(self, run, item, begun.out, NULL, begun.interrupted, now, &retry_after_ns, &error);
            Py_DECREF(begun.out);
            tg_item_end(item, verdict, retry_after_ns, now);
            failed[n_failed].run = (RunObject *)Py_NewRef(run);
            failed[n_failed].position = item->position;
            failed[n_failed++].error = error;
            now = tg_run_now(claimed);
            if (self->core->outlog != NULL) {
                break; /* decided, and on record, before the next one may end the process */
            }
        }
    }
    int cut_short = (uint32_t)(atomic_load(&claimed->cursor) >> 32) < claimed->claimed; /* see tg_sync_serve() */
    tg_core_finish(self->core->core, claimed, now, decided, TG_RUN_MAX, &n_decided);
    tg_settle_decided(self->core, decided, n_decided);
    for (size_t i = 0; i < n_failed; i++) {
        if (!cut_short) {
            tg_run_forget_error(failed[i].run, failed[i].position, failed[i].error);
        }
        Py_DECREF(failed[i].run);
    }
    return suspended;
}

/* Items with permits of their own. Returns how many suspended. */
static size_t start_each(PumpObject *self, struct tg_item **items, size_t n)
{
    size_t suspended = 0;
    for (size_t i = 0; i < n; i++) {
        struct tg_item *item = items[i];
        RunObject *run = tg_group_payload(item->group);
        if (self->closed > 1) { /* by the step of an item before it */
            tg_core_return(self->core->core, item, 0);
            continue;
        }
        uint64_t now = tg_core_now(self->core->core);
        if (now > item->mark_ns) { /* it waited for the items before it, as in a line */
            item->queued_ns += now - item->mark_ns;
            item->mark_ns = now;
        }
        struct begun begun = begin(self, run, item);
        if (begun.step == TG_STEP_SUSPENDED) {
            launch(self, self->spare, run, item, &begun);
            suspended++;
            continue;
        }
        PyObject *error = NULL;
        now = tg_core_now(self->core->core);
        if (begun.step == TG_STEP_RETURNED) {
            tg_item_end(item, TG_VERDICT_OK, 0, now);
            tg_run_succeeded(run, item, begun.out);
        } else {
            uint64_t retry_after_ns;
            enum tg_verdict verdict = note_error(self, run, item, begun.out, NULL, begun.interrupted, now, &retry_after_ns, &error);
            Py_DECREF(begun.out);
            tg_item_end(item, verdict, retry_after_ns, now);
        }
        push_ended(self, run, item, error);
        if (self->n_ended == TG_ENDED || (error != NULL && self->core->outlog != NULL)) {
            tg_pump_flush(self);
        }
    }
    return suspended;
}

void tg_pump_start_items(PumpObject *self, uint64_t *due_ns, int *more)
{
    struct tg_core *core = self->core->core;
    uint64_t began = tg_core_now(core);
    size_t left = STEP_BUDGET;
    struct tg_driver_scope scope;
    *due_ns = TG_NEVER;
    *more = 0;
    if (tg_driver_enter(self->driver, &scope) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
        return;
    }
    tg_watch_open(self);
    while (!self->closed) {
        if (left == 0 || tg_core_now(core) - began > STEP_BUDGET_NS) {
            *more = 1;
            break;
        }
        if (self->one_by_one) {
            struct tg_item *items[NEXT_BATCH];
            size_t n = 0, room = left < NEXT_BATCH ? left : NEXT_BATCH;
            if (tg_core_next(core, self->kind, 0, items, room, &n, due_ns) != TG_OK || n == 0) {
                break;
            }
            left -= n;
            self->one_by_one = start_each(self, items, n) != 0;
            tg_pump_flush(self);
        } else {
            struct tg_run *run = NULL;
            if (tg_core_claim(core, self->kind, self->worker->tag, 0, &run, due_ns) != TG_OK || run == NULL) {
                break;
            }
            left -= run->claimed < left ? run->claimed : left;
            self->one_by_one = start_run(self, run);
            if (tg_core_has_settled(core) || tg_core_has_done(core)) {
                tg_settle_pending(self->core);
            }
        }
    }
    tg_watch_close(self);
    tg_ambient_drop(&self->ambient);
    tg_driver_leave(self->driver, &scope);
}
