/* driver_finish.c - the end of a task: who is told, and whether the object can serve again. */
#include "driver_internal.h"

int tgd_is_fatal(PyObject *exception)
{
    return PyErr_GivenExceptionMatches(exception, PyExc_KeyboardInterrupt)
           || PyErr_GivenExceptionMatches(exception, PyExc_SystemExit);
}

/* Can anybody but the holders of `known_references` see this task? The one weak reference every task has is that of
 * asyncio.all_tasks(); callbacks and attributes count as seen (touched). */
int tgd_task_exposed(PyObject *task, const tgd_fields *fields, Py_ssize_t known_references)
{
    if (fields->touched || Py_REFCNT(task) > known_references) {
        return 1;
    }
    PyWeakReference *first = *(PyWeakReference **)((char *)task + fields->state->item_task->tp_weaklistoffset);
    return first && first->wr_next;
}

/* The value or the exception (new reference, NULL with an error), after CPython's task_step. */
PyObject *tgd_task_outcome(tgd_fields *fields, PySendResult how, PyObject *result, int *raised)
{
    *raised = how == PYGEN_ERROR;
    if (!*raised && fields->must_cancel) {
        /* Asked to cancel itself, and returned before it could be. */
        Py_DECREF(result);
        fields->must_cancel = 0;
        fields->cancelled_at_end = 1;
        *raised = 1;
        return tgd_task_cancelled_error(NULL, fields);
    }
    return result;
}

static int cancel_future(PyObject *task, tgd_fields *fields, PyObject *error)
{
    tgd_state *state = fields->state;
    if (!fields->cancelled_at_end) {
        Py_XSETREF(fields->cancelled_error, Py_NewRef(error));
        Py_CLEAR(fields->cancel_message);
    }
    PyObject *args[2] = {task, fields->cancel_message ? fields->cancel_message : Py_None};
    PyObject *done = PyObject_Vectorcall(state->future_cancel, args, 1, state->kw_msg);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* Tells the Future part: result(), callbacks, everybody who awaits the task. */
int tgd_task_publish(PyObject *task, tgd_fields *fields, PyObject *outcome, int raised)
{
    tgd_state *state = fields->state;
    fields->phase = TGD_ENDED;
    if (raised && PyErr_GivenExceptionMatches(outcome, state->cancelled_error)) {
        return cancel_future(task, fields, outcome);
    }
    PyObject *args[2] = {task, outcome};
    PyObject *done = PyObject_Vectorcall(raised ? state->future_set_exception : state->future_set_result, args, 2, NULL);
    if (!done) {
        return -1;
    }
    Py_DECREF(done);
    /* The owner has it: "exception was never retrieved" would not be true. */
    return raised && fields->side ? state->at_log_traceback->set(task, Py_False, NULL) : 0;
}

/* Keeps the object for the next coroutine when nobody else has it. `known`: references of our caller. */
static void retire(PyObject *task, tgd_fields *fields, PyObject *outcome, int raised, Py_ssize_t known)
{
    if (tgd_task_exposed(task, fields, known)) {
        if (tgd_task_publish(task, fields, outcome, raised) < 0) {
            PyErr_WriteUnraisable(task);
        }
        return;
    }
    tgd_task_reset(fields);
    fields->phase = TGD_IDLE;
    tgd_side_recycle(fields->side, Py_NewRef(task));
}

/* The coroutine of a task that had suspended ended. References: our caller's and, with `calls`, the owner's. */
int tgd_task_end(PyObject *task, tgd_fields *fields, PySendResult how, PyObject *result)
{
    int raised;
    PyObject *outcome = tgd_task_outcome(fields, how, result, &raised);
    if (!outcome) {
        return -1;
    }
    const struct tg_driver_calls *calls = fields->calls;
    int fatal = raised && fields->fatal_passes && tgd_is_fatal(outcome);
    int failed = 0;
    if (calls && fields->side->drivers && !fields->side->in_turn) {
        tgd_beat_note_end(fields->side);
    }
    fields->calls = NULL;
    fields->phase = TGD_ENDED;
    if (!calls) {
        failed = tgd_task_publish(task, fields, outcome, raised);
    } else if (tgd_task_exposed(task, fields, 2)) {
        failed = tgd_task_publish(task, fields, outcome, raised);
        if (failed) {
            PyErr_WriteUnraisable(task);
            failed = 0;
        }
        calls->settled(fields->owner, fields->token, outcome, raised);
    } else {
        calls->settled(fields->owner, fields->token, outcome, raised);
        retire(task, fields, outcome, raised, 1);
    }
    Py_CLEAR(fields->owner_object);
    if (fatal && !failed) {
        tgd_restore_raised(outcome);
        return -1;
    }
    Py_DECREF(outcome);
    return failed;
}
