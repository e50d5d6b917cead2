/* pump_flight.c - coroutines that have suspended: their deadlines and their cancellation. */
#include "pump.h"

struct tg_flight *tg_flight_spare(PumpObject *self)
{
    if (self->spare == NULL) {
        self->spare = PyMem_Calloc(1, sizeof *self->spare);
        if (self->spare == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
    }
    return self->spare;
}

static int know_lane(PumpObject *self, LaneObject *lane)
{
    for (Py_ssize_t i = 0; i < self->n_lanes; i++) {
        if (self->lanes[i] == lane) {
            return 0;
        }
    }
    if (self->n_lanes == self->lanes_room) {
        Py_ssize_t room = self->lanes_room ? self->lanes_room * 2 : 4;
        LaneObject **lanes = PyMem_Realloc(self->lanes, (size_t)room * sizeof *lanes);
        if (lanes == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->lanes = lanes;
        self->lanes_room = room;
    }
    self->lanes[self->n_lanes++] = (LaneObject *)Py_NewRef(lane);
    return 0;
}

static void line_append(struct tg_flight **first, struct tg_flight **last, struct tg_flight *flight)
{
    flight->previous = *last;
    flight->next = NULL;
    *(*last ? &(*last)->next : first) = flight;
    *last = flight;
}

static void line_remove(struct tg_flight **first, struct tg_flight **last, struct tg_flight *flight)
{
    *(flight->previous ? &flight->previous->next : first) = flight->next;
    *(flight->next ? &flight->next->previous : last) = flight->previous;
    flight->previous = flight->next = NULL;
}

/* The flight keeps the slot it was begun in; the pump goes on with another. */
static void give_slot(PumpObject *self, struct tg_flight *flight)
{
    struct tg_worker *worker = self->worker;
    flight->slot = TG_NO_SLOT;
    if (worker == NULL) { /* its first step closed the pump */
        return;
    }
    flight->slot = worker->slot;
    worker->slot = TG_NO_SLOT;
    if (self->core->journal != NULL && tg_journal_acquire(self->core->journal, &worker->slot) != TG_OK) {
        worker->slot = TG_NO_SLOT;
    }
}

int tg_flight_launch(PumpObject *self, struct tg_flight *flight, RunObject *run, struct tg_item *item, PyObject *task)
{
    LaneObject *lane = run->lane;
    int timed = lane->timeout_ns != 0 || lane->hard_ns != 0;
    if (timed && know_lane(self, lane) < 0) {
        PyErr_Clear(); /* it runs without its timeout: better than not at all */
        timed = 0;
    }
    flight->item = item;
    flight->run = (RunObject *)Py_NewRef(run);
    flight->task = task;
    flight->start_ns = flight->began_ns = item->mark_ns;
    flight->timed_out = flight->cancelled = flight->interrupted = 0;
    flight->previous = flight->next = NULL;
    give_slot(self, flight);
    if (timed) {
        line_append(&lane->first, &lane->last, flight);
    }
    flight->all_previous = NULL;
    flight->all_next = self->flights;
    if (self->flights != NULL) {
        self->flights->all_previous = flight;
    }
    self->flights = flight;
    self->n_flights++;
    self->spare = NULL;
    Py_INCREF(self); /* the driver knows the pump by its address until the task ends */
    return 0;
}

static int in_line_of(const struct tg_flight *first, const struct tg_flight *flight)
{
    return flight->previous != NULL || flight->next != NULL || first == flight;
}

void tg_flight_interrupted(PumpObject *self, struct tg_flight *flight)
{
    LaneObject *lane = flight->run->lane;
    if (flight->interrupted) {
        return; /* its time is up for the second time: cancelled at the loop's next turn */
    }
    flight->interrupted = 1;
    flight->start_ns = tg_core_now(self->core->core);
    if (!flight->timed_out && in_line_of(lane->first, flight)) {
        line_remove(&lane->first, &lane->last, flight);
        line_append(&lane->first, &lane->last, flight);
    }
}

void tg_flight_land(PumpObject *self, struct tg_flight *flight)
{
    LaneObject *lane = flight->run->lane;
    if (flight->timed_out) {
        if (in_line_of(self->overdue, flight)) {
            line_remove(&self->overdue, &self->overdue_last, flight);
        }
    } else if (in_line_of(lane->first, flight)) {
        line_remove(&lane->first, &lane->last, flight);
    }
    if (flight->slot != TG_NO_SLOT) {
        tg_journal_end(self->core->journal, flight->slot);
        if (self->worker != NULL && self->worker->slot == TG_NO_SLOT) {
            self->worker->slot = flight->slot;
        } else {
            tg_journal_release(self->core->journal, flight->slot);
        }
    }
    *(flight->all_previous ? &flight->all_previous->all_next : &self->flights) = flight->all_next;
    if (flight->all_next != NULL) {
        flight->all_next->all_previous = flight->all_previous;
    }
    self->n_flights--;
    Py_CLEAR(flight->task);
    Py_CLEAR(flight->run);
    if (self->spare == NULL) {
        self->spare = flight;
    } else {
        PyMem_Free(flight);
    }
    Py_DECREF(self);
}

static void cancel(struct tg_flight *flight)
{
    if (tg_driver_cancel(flight->task, NULL) < 0) {
        PyErr_WriteUnraisable(flight->task);
    }
}

static void note_hard_due(PumpObject *self)
{
    uint64_t due = 0;
    for (Py_ssize_t i = 0; i < self->n_lanes; i++) {
        LaneObject *lane = self->lanes[i];
        if (lane->hard_ns != 0 && lane->first != NULL && (due == 0 || lane->first->start_ns + lane->hard_ns < due)) {
            due = lane->first->start_ns + lane->hard_ns;
        }
    }
    for (struct tg_flight *flight = self->overdue; flight != NULL; flight = flight->next) {
        uint64_t hard = flight->run->lane->hard_ns;
        if (hard != 0 && (due == 0 || flight->began_ns + hard < due)) {
            due = flight->began_ns + hard;
        }
    }
    uint64_t before = atomic_exchange(&self->core->pump_hard_due[self->index], due);
    if (due != 0 && before == 0) {
        tg_watchdog_note(self->core);
    }
}

uint64_t tg_flight_expire(PumpObject *self, uint64_t now)
{
    uint64_t next = TG_NEVER;
    int hard = self->overdue != NULL;
    for (Py_ssize_t i = 0; i < self->n_lanes;) {
        LaneObject *lane = self->lanes[i];
        hard |= lane->hard_ns != 0;
        while (lane->timeout_ns != 0 && lane->first != NULL && lane->first->start_ns + lane->timeout_ns <= now) {
            struct tg_flight *flight = lane->first;
            line_remove(&lane->first, &lane->last, flight);
            line_append(&self->overdue, &self->overdue_last, flight);
            flight->timed_out = 1;
            cancel(flight);
        }
        if (lane->first == NULL) {
            self->lanes[i] = self->lanes[--self->n_lanes];
            Py_DECREF(lane);
            continue;
        }
        if (lane->timeout_ns != 0 && lane->first->start_ns + lane->timeout_ns < next) {
            next = lane->first->start_ns + lane->timeout_ns;
        }
        i++;
    }
    if (hard || atomic_load_explicit(&self->core->pump_hard_due[self->index], memory_order_relaxed) != 0) {
        note_hard_due(self);
    }
    return next;
}

static void cancel_where(PumpObject *self, int all)
{
    /* Cancelling runs no user code now (the task is woken by the loop), so the list holds still. */
    for (struct tg_flight *flight = self->flights; flight != NULL; flight = flight->all_next) {
        if (!flight->cancelled && (all || flight->run->cancelled)) {
            flight->cancelled = 1;
            cancel(flight);
        }
    }
}

void tg_flight_cancel_runs(PumpObject *self)
{
    self->cancel_requested = 0;
    cancel_where(self, 0);
}

void tg_flight_cancel_all(PumpObject *self)
{
    cancel_where(self, 1);
}

void tg_flight_free_all(PumpObject *self)
{
    for (Py_ssize_t i = 0; i < self->n_lanes; i++) {
        Py_DECREF(self->lanes[i]);
    }
    PyMem_Free(self->lanes);
    self->lanes = NULL;
    self->n_lanes = 0;
    PyMem_Free(self->spare);
    self->spare = NULL;
}
