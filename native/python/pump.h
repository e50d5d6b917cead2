/* pump.h - what the files of the pump share. Everything here belongs to the thread of the event loop. */
#ifndef TIDEGATE_PY_PUMP_H
#define TIDEGATE_PY_PUMP_H

#include "driver.h"
#include "state.h"

/* A coroutine that has suspended. Its deadline line is in order of start, which is the order of deadlines: lanes have one
 * timeout each. */
struct tg_flight {
    struct tg_flight *previous; /* deadline line of the lane, or of the pump's overdue ones */
    struct tg_flight *next;
    struct tg_flight *all_previous; /* every flight of the pump */
    struct tg_flight *all_next;
    struct tg_item *item;
    RunObject *run;
    PyObject *task;
    uint64_t start_ns; /* its timeout counts from here */
    uint64_t began_ns; /* its hard timeout counts from here, once it is overdue */
    uint32_t slot;
    uint8_t timed_out;
    uint8_t cancelled;
    uint8_t interrupted; /* while it held the loop past its timeout; see pump_watch.h */
};

struct ended {
    RunObject *run;
    uint64_t position;
    PyObject *error; /* compared only */
};

#define TG_ENDED 256

typedef struct tg_pump_object {
    PyObject_HEAD
    CoreObject *core;
    PyObject *loop;
    PyObject *driver;
    PyObject *tick;     /* the bound methods that the loop calls */
    PyObject *on_timer;
    PyObject *context;
    PyObject *wrap; /* (awaitable) -> coroutine */
    PyObject *timer;
    PyObject *weakrefs;
    struct tg_worker *worker;
    struct tg_ambient ambient;
    uint64_t timer_due;
    int index;
    unsigned kind;
    int event_fd;
    int scheduled;
    int one_by_one; /* the last items suspended: start them with permits of their own at once */
    int closed;
    int cancel_requested;
    int stepping; /* steps that run now: more than one when a step runs a loop */
    uint64_t outer_start_ns;
    int first_watched; /* the first step that is made now is one of them */
    int first_interrupted;
    struct tg_flight *spare;
    struct tg_flight *flights;
    Py_ssize_t n_flights;
    struct tg_flight *overdue; /* cancelled for their timeout, not ended yet; in order of start */
    struct tg_flight *overdue_last;
    LaneObject **lanes; /* lanes with a timeout that have flights; strong */
    Py_ssize_t n_lanes;
    Py_ssize_t lanes_room;
    size_t n_ended;
    struct tg_item *ended_items[TG_ENDED];
    struct ended ended[TG_ENDED];
} PumpObject;

/* ---- pump_flight.c ---- */
struct tg_flight *tg_flight_spare(PumpObject *self);
int tg_flight_launch(PumpObject *self, struct tg_flight *flight, RunObject *run, struct tg_item *item, PyObject *task);
/* It was interrupted and goes on: it has its timeout once more, from now, and is cancelled then. */
void tg_flight_interrupted(PumpObject *self, struct tg_flight *flight);
void tg_flight_land(PumpObject *self, struct tg_flight *flight);
/* Cancels what is past its timeout. Returns when the next one will be. */
uint64_t tg_flight_expire(PumpObject *self, uint64_t now);
void tg_flight_cancel_runs(PumpObject *self);
void tg_flight_cancel_all(PumpObject *self);
void tg_flight_free_all(PumpObject *self);

/* ---- pump_step.c ---- */
void tg_pump_start_items(PumpObject *self, uint64_t *due_ns, int *more);
void tg_pump_flush(PumpObject *self);
extern const struct tg_driver_calls tg_pump_calls;
/* Makes the loop call tick soon. */
void tg_pump_schedule(PumpObject *self);

#endif
