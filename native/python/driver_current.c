/* driver_current.c - which task asyncio.current_task() answers.
 *
 * asyncio keeps a dict of loop -> task (a part of its interface to other loops since 3.7). A first step needs a task there
 * although it most likely ends without one. So, while items are started, an idle task sits there for all of them: the
 * seat. An item that ends at once leaves it as it was; only one that suspends, or whose user kept the task, takes it away. */
#include "driver_internal.h"

/* Makes `task` the current one; *previous becomes the one before (strong), or NULL. */
int tgd_current_enter(tgd_state *state, PyObject *loop, PyObject *task, PyObject **previous)
{
    PyObject *current = PyDict_SetDefault(state->current_tasks, loop, task);
    if (!current || current == task) {
        *previous = NULL;
        return current ? 0 : -1;
    }
    *previous = Py_NewRef(current);
    if (PyDict_SetItem(state->current_tasks, loop, task) < 0) {
        Py_CLEAR(*previous);
        return -1;
    }
    return 0;
}

void tgd_current_leave(tgd_state *state, PyObject *loop, PyObject *previous)
{
    int failed;
    if (previous) {
        failed = PyDict_SetItem(state->current_tasks, loop, previous);
        Py_DECREF(previous);
    } else {
        failed = PyDict_DelItem(state->current_tasks, loop);
    }
    if (failed) {
        PyErr_Clear(); /* out of memory for a key that is there: cannot be, and nothing could be done */
    }
}

int tgd_seat_enter(tgd_side *side, tgd_scope *scope)
{
    PyObject *seat = tgd_side_task(side);
    if (!seat) {
        return -1;
    }
    if (tgd_current_enter(side->state, side->loop, seat, &scope->previous) < 0) {
        Py_DECREF(seat);
        return -1;
    }
    scope->seat = side->seat;
    side->seat = seat;
    return 0;
}

void tgd_seat_leave(tgd_side *side, tgd_scope *scope)
{
    tgd_current_leave(side->state, side->loop, scope->previous);
    PyObject *seat = side->seat;
    side->seat = scope->seat;
    if (seat) {
        tgd_side_recycle(side, seat);
    }
}

/* The seat was taken: another idle task takes its place. */
int tgd_seat_renew(tgd_side *side)
{
    PyObject *seat = tgd_side_task(side);
    if (!seat) {
        return -1;
    }
    if (PyDict_SetItem(side->state->current_tasks, side->loop, seat) < 0) {
        Py_DECREF(seat);
        return -1;
    }
    side->seat = seat;
    return 0;
}
