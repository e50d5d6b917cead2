/* driver_step.c - one step of a coroutine: the task becomes the current one, the coroutine runs to its next await.
 *
 * The first step is made on the seat (driver_current.c). If the coroutine ends in it and nobody kept the task, nothing
 * was made and nothing is left; if it suspends, the seat becomes its task and another idle task takes the seat. */
#include "driver_internal.h"

static PySendResult stopped(PyObject **result)
{
    PyObject *raised = tgd_fetch_raised();
    if (PyErr_GivenExceptionMatches(raised, PyExc_StopIteration)) {
        *result = Py_NewRef(((PyStopIterationObject *)raised)->value);
        Py_DECREF(raised);
        return PYGEN_RETURN;
    }
    *result = raised;
    return PYGEN_ERROR;
}

/* Like PyIter_Send, but *result is never NULL: after PYGEN_ERROR it is the exception, and no error is set. */
static inline PySendResult send_or_throw(tgd_state *state, PyObject *coro, PyObject *thrown, PyObject **result)
{
    if (thrown) {
        *result = PyObject_CallMethodOneArg(coro, state->s_throw, thrown);
        return *result ? PYGEN_NEXT : stopped(result);
    }
    PySendResult how = PyIter_Send(coro, Py_None, result);
    if (how == PYGEN_ERROR) {
        *result = tgd_fetch_raised();
    }
    return how;
}

/* What this step throws: a failure of the future it waited for, or the cancellation that came meanwhile. */
static int take_thrown(PyObject *task, tgd_fields *fields, PyObject **thrown)
{
    *thrown = fields->thrown;
    fields->thrown = NULL;
    if (!fields->must_cancel) {
        return 0;
    }
    fields->must_cancel = 0;
    if (*thrown && PyErr_GivenExceptionMatches(*thrown, fields->state->cancelled_error)) {
        return 0;
    }
    Py_XSETREF(*thrown, tgd_task_cancelled_error(task, fields));
    return *thrown ? 0 : -1;
}

static void close_coroutine(PyObject *coro)
{
    PyObject *closed = PyObject_CallMethod(coro, "close", NULL);
    if (!closed) {
        PyErr_WriteUnraisable(coro);
    }
    Py_XDECREF(closed);
}

/* `task` is held by the caller. -1: an error is to leave the loop's callback. */
int tgd_task_step(PyObject *task, tgd_fields *fields, int enter_context)
{
    tgd_state *state = fields->state;
    PyObject *thrown, *previous, *result = NULL;
    if (fields->phase != TGD_PENDING) {
        PyErr_Format(state->invalid_state_error, "__step(): already done: %R", task);
        return -1;
    }
    if (take_thrown(task, fields, &thrown) < 0) {
        return -1;
    }
    Py_CLEAR(fields->waiter);
    if (tgd_current_enter(state, fields->loop, task, &previous) < 0) {
        Py_XDECREF(thrown);
        return -1;
    }
    PySendResult how;
    if (enter_context && PyContext_Enter(fields->context) < 0) {
        result = tgd_fetch_raised();
        how = PYGEN_ERROR;
    } else {
        const struct tg_driver_calls *calls = fields->calls;
        tg_driver_stepping stepping = calls ? calls->stepping : NULL;
        if (stepping) {
            stepping(fields->owner, fields->token, TG_STEP_BEGINS);
        }
        how = send_or_throw(state, fields->coro, thrown, &result);
        if (stepping) {
            stepping(fields->owner, fields->token, TG_STEP_ENDS);
        }
        if (enter_context) {
            PyContext_Exit(fields->context);
        }
    }
    tgd_current_leave(state, fields->loop, previous);
    Py_XDECREF(thrown);
    if (how != PYGEN_NEXT) {
        return tgd_task_end(task, fields, how, result);
    }
    int failed = tgd_task_wait_for(task, fields, result);
    if (failed && fields->calls) {
        /* The loop refuses callbacks (it is closed): the owner still hears of the end. */
        result = tgd_fetch_raised();
        close_coroutine(fields->coro);
        failed = tgd_task_end(task, fields, PYGEN_ERROR, result);
    }
    return failed;
}

/* The seat's coroutine ended. References to the seat: ours and that of asyncio's dict. */
static enum tg_step first_step_ended(tgd_side *side, PyObject *task, tgd_fields *fields, PySendResult how, PyObject **out)
{
    int raised;
    PyObject *outcome = tgd_task_outcome(fields, how, *out, &raised);
    *out = outcome;
    if (!outcome) {
        Py_DECREF(task);
        (void)tgd_seat_renew(side);
        return TG_STEP_BROKEN;
    }
    if (side->debug || tgd_task_exposed(task, fields, 2)) {
        int failed = tgd_task_publish(task, fields, outcome, raised);
        Py_DECREF(task);
        if (failed || tgd_seat_renew(side) < 0) {
            Py_CLEAR(*out);
            return TG_STEP_BROKEN;
        }
    } else {
        tgd_task_reset(fields);
        fields->phase = TGD_IDLE;
        side->seat = task;
    }
    return raised ? TG_STEP_RAISED : TG_STEP_RETURNED;
}

static enum tg_step step_on_seat(tgd_side *side, PyObject *coro, PyObject *context, const struct tg_driver_calls *calls, void *owner,
                                 uint64_t token, PyObject **out)
{
    PyObject *task = side->seat;
    tgd_fields *fields = tgd_fields_of(task);
    side->seat = NULL;
    fields->coro = Py_NewRef(coro);
    fields->context = Py_NewRef(context);
    fields->phase = TGD_PENDING;
    PySendResult how;
    if (PyContext_Enter(context) < 0) {
        *out = tgd_fetch_raised();
        how = PYGEN_ERROR;
    } else {
        how = send_or_throw(side->state, coro, NULL, out);
        if (calls->stepping) {
            calls->stepping(owner, token, TG_FIRST_STEP_ENDS);
        }
        PyContext_Exit(context);
    }
    if (how == PYGEN_RETURN && !fields->must_cancel && !fields->name && !side->debug && !tgd_task_exposed(task, fields, 2)) {
        Py_CLEAR(fields->context);
        Py_CLEAR(fields->coro);
        fields->cancels = 0;
        fields->phase = TGD_IDLE;
        side->seat = task;
        return TG_STEP_RETURNED;
    }
    if (how != PYGEN_NEXT) {
        return first_step_ended(side, task, fields, how, out);
    }
    fields->calls = calls;
    fields->owner = owner;
    fields->token = token;
    fields->fatal_passes = 0;
    int failed = tgd_seat_renew(side) < 0;
    failed |= tgd_task_wait_for(task, fields, *out) < 0;
    *out = failed ? NULL : task;
    if (failed) {
        fields->calls = NULL;
        fields->phase = TGD_ENDED;
        PyObject *error = tgd_fetch_raised();
        close_coroutine(coro);
        Py_DECREF(task);
        tgd_restore_raised(error);
    }
    return failed ? TG_STEP_BROKEN : TG_STEP_SUSPENDED;
}

enum tg_step tgd_first_step(tgd_side *side, PyObject *coro, PyObject *context, const struct tg_driver_calls *calls, void *owner,
                            uint64_t token, PyObject **out)
{
    *out = NULL;
    if (side->seat) {
        return step_on_seat(side, coro, context, calls, owner, token, out);
    }
    tgd_scope scope;
    if (tgd_seat_enter(side, &scope) < 0) {
        return TG_STEP_BROKEN;
    }
    enum tg_step step = step_on_seat(side, coro, context, calls, owner, token, out);
    tgd_seat_leave(side, &scope);
    return step;
}
