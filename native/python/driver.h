/* driver.h - the seam between the module (hosts, lanes, runs) and the coroutine driver.
 *
 * The module decides which item runs when; the driver knows how to run one coroutine. The module calls the user's function,
 * and hands the coroutine it got to tg_driver_step(). One that finishes in its first step is answered there and then; one
 * that suspends becomes a task of the driver, which reports its end through `settled`, once.
 *
 * Threads: everything here is called with the GIL, on the thread that runs the driver's event loop.
 * Clock:   the driver has none. Deadlines are the module's: it cancels the task when the time is over. */
#ifndef TIDEGATE_PY_DRIVER_H
#define TIDEGATE_PY_DRIVER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

enum tg_step {
    TG_STEP_BROKEN = -1,   /* the driver itself failed (out of memory): a Python error is set, the coroutine is closed */
    TG_STEP_RETURNED = 0,  /* *out: the value (new reference) */
    TG_STEP_RAISED = 1,    /* *out: the exception instance with its __traceback__ (new reference); no error is set */
    TG_STEP_SUSPENDED = 2, /* *out: the task (new reference); `settled` will be called for it exactly once */
};

/* Called on the loop's thread, from a callback of the loop, when a task that had suspended ends. No Python error is set
 * before or after. `outcome` is borrowed: the value, or the exception instance when `raised`. It may call tg_driver_step()
 * and tg_driver_cancel() for other tasks. The task's own context is still entered then, as in a callback of the loop. */
typedef void (*tg_driver_settled)(void *owner, uint64_t token, PyObject *outcome, int raised);

/* Called right before and right after the steps of a task (of the first one only after it: the owner makes that one begin).
 * In between, and only then, the item's code runs. What the step raised is taken already: no Python error is set. */
enum tg_step_moment { TG_STEP_BEGINS, TG_STEP_ENDS, TG_FIRST_STEP_ENDS };
typedef void (*tg_driver_stepping)(void *owner, uint64_t token, enum tg_step_moment moment);

/* What an owner is told. Lives as long as the driver's tasks: a constant. */
struct tg_driver_calls {
    tg_driver_settled settled;
    tg_driver_stepping stepping; /* or NULL */
};

/* ---- module state: the first word of the module's state belongs to the driver ---- */

/* Creates the driver's state and types and adds them to the module. NULL: a Python error is set. */
void *tg_driver_state_create(PyObject *module);
int tg_driver_state_traverse(void *state, visitproc visit, void *arg);
void tg_driver_state_clear(void *state);
void tg_driver_state_destroy(void *state);

static inline void *tg_driver_state_of(PyObject *module)
{
    void **words = PyModule_GetState(module);
    return words ? *words : NULL;
}

/* ---- one driver per event loop ---- */

/* A driver for `loop` (asyncio or uvloop; it must be the running loop of this thread). `owner` is handed to `calls`
 * and must outlive every task of the driver. New reference, or NULL with an error. */
PyObject *tg_driver_create(PyObject *module, PyObject *loop, const struct tg_driver_calls *calls, void *owner);

/* Runs the first step of `coro` (borrowed; any coroutine or generator-based one) inside `context` (a PyContext that is not
 * entered). `context` belongs to the coroutine for good once it suspends; after RETURNED and RAISED it is the caller's again.
 * `token` is given back by `settled`. */
enum tg_step tg_driver_step(PyObject *driver, PyObject *coro, PyObject *context, uint64_t token, PyObject **out);

/* Brackets a run of tg_driver_step() calls made from one callback: asyncio's current task is then set once for all of them
 * instead of once for each. Optional; brackets nest; leave in the same callback, in reverse order. enter: 0 or -1 with an
 * error. What is called between the steps (function(item), settle) sees an idle task as asyncio.current_task(). */
struct tg_driver_scope {
    PyObject *internal[4];
};
int tg_driver_enter(PyObject *driver, struct tg_driver_scope *scope);
void tg_driver_leave(PyObject *driver, struct tg_driver_scope *scope);

/* Nonzero while `settled` is called from a batch of tasks that resume in the same turn of the loop, or inside a bracket: more
 * ends may follow at once, and new items are better started after the last of them. 0: this end came alone (a future's
 * callback). */
int tg_driver_in_turn(PyObject *driver);

/* Requests for cancellation of the task that stand (asyncio.Task.cancelling). After one tg_driver_cancel for a timeout, more
 * than 1 means that user code asked for a cancellation of its own, which then comes first (as in asyncio.timeout). */
unsigned tg_driver_cancelling(PyObject *task);

/* The identity of the variables a context holds now: the same pointer before and after means that nothing was set in
 * between (borrowed, compare only). NULL when this Python's contexts cannot be looked into: assume a change. */
void *tg_driver_context_vars(PyObject *module, PyObject *context);

/* task.cancel(message): what asyncio.Task.cancel does, message NULL for none. 0, or -1 with an error. */
int tg_driver_cancel(PyObject *task, PyObject *message);

/* The frames of a suspended task from outermost to innermost, along the chain of awaits (cr_await, gi_yieldfrom, ag_await):
 * a list of (file, line, function) tuples. New reference, or NULL with an error. */
PyObject *tg_driver_stack(PyObject *task);

#endif
