/* driver.c - the seam of driver.h: what the module calls. */
#include "driver_internal.h"

PyObject *tg_driver_create(PyObject *module, PyObject *loop, const struct tg_driver_calls *calls, void *owner)
{
    tgd_state *state = tg_driver_state_of(module);
    tgd_side *side = tgd_side_of(state, loop);
    if (!side) {
        return NULL;
    }
    tgd_driver *driver = PyObject_GC_New(tgd_driver, state->driver);
    if (!driver) {
        Py_DECREF(side);
        return NULL;
    }
    driver->state = tgd_state_hold(state);
    driver->side = side;
    side->drivers++;
    driver->calls = calls;
    driver->owner = owner;
    driver->on_settled = NULL;
    PyObject_GC_Track((PyObject *)driver);
    return (PyObject *)driver;
}

enum tg_step tg_driver_step(PyObject *self, PyObject *coro, PyObject *context, uint64_t token, PyObject **out)
{
    tgd_driver *driver = (tgd_driver *)self;
    return tgd_first_step(driver->side, coro, context, driver->calls, driver->owner, token, out);
}

int tg_driver_cancel(PyObject *task, PyObject *message)
{
    return tgd_task_cancel(task, tgd_fields_of(task), message) < 0 ? -1 : 0;
}

int tg_driver_in_turn(PyObject *self)
{
    const tgd_side *side = ((tgd_driver *)self)->side;
    return side->in_turn || side->brackets;
}

unsigned tg_driver_cancelling(PyObject *task)
{
    return tgd_fields_of(task)->cancels;
}

_Static_assert(sizeof(struct tg_driver_scope) >= sizeof(tgd_scope), "a scope fits into what the module sees of it");

int tg_driver_enter(PyObject *self, struct tg_driver_scope *scope)
{
    tgd_side *side = ((tgd_driver *)self)->side;
    int failed = tgd_seat_enter(side, (tgd_scope *)scope);
    side->brackets += !failed;
    return failed;
}

void tg_driver_leave(PyObject *self, struct tg_driver_scope *scope)
{
    tgd_side *side = ((tgd_driver *)self)->side;
    side->brackets--;
    tgd_seat_leave(side, (tgd_scope *)scope);
}

void *tg_driver_context_vars(PyObject *module, PyObject *context)
{
    const tgd_state *state = tg_driver_state_of(module);
    return state->vars_at ? tgd_context_vars(state, context) : NULL;
}
