/* driver_wakeup.c - what a coroutine yielded, and the way back: the callable that futures call when they are done. */
#include "driver_internal.h"

#include <structmember.h>

typedef struct tgd_wakeup {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *task; /* while it is due; a fired one is empty and serves again, even before its handle has let it go */
} tgd_wakeup;

/* The exception of the future, if it has one, as the coroutine is to see it: 0, or -1 when out of memory. */
static void take_failure(tgd_state *state, PyObject *future, PyObject **thrown)
{
    if (Py_IS_TYPE(future, state->future) || Py_IS_TYPE(future, state->task)) {
        PyObject *text = state->at_state->get(future, NULL);
        if (text == state->s_finished) {
            PyObject *exception = state->at_exception->get(future, NULL);
            Py_XDECREF(exception);
            if (exception == Py_None) {
                Py_DECREF(text);
                return;
            }
        }
        Py_XDECREF(text);
    }
    PyObject *result = PyObject_CallMethodNoArgs(future, state->s_result);
    if (!result) {
        Py_XSETREF(*thrown, tgd_fetch_raised());
        return;
    }
    Py_DECREF(result);
}

static PyObject *wakeup_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    (void)names;
    tgd_wakeup *wakeup = (tgd_wakeup *)self;
    PyObject *task = wakeup->task;
    if (!task) {
        Py_RETURN_NONE;
    }
    wakeup->task = NULL;
    tgd_fields *fields = tgd_fields_of(task);
    if (PyVectorcall_NARGS(nargsf) > 0) {
        take_failure(fields->state, args[0], &fields->thrown);
    }
    int failed = tgd_task_step(task, fields, 0);
    Py_DECREF(task);
    return failed ? NULL : Py_NewRef(Py_None);
}

static PyObject *wakeup_for(PyObject *task, tgd_fields *fields)
{
    tgd_wakeup *wakeup = (tgd_wakeup *)fields->wakeup;
    if (!wakeup || wakeup->task) {
        wakeup = PyObject_GC_New(tgd_wakeup, fields->state->wakeup);
        if (!wakeup) {
            return NULL;
        }
        wakeup->call = wakeup_call;
        wakeup->task = NULL;
        PyObject_GC_Track((PyObject *)wakeup);
        Py_XSETREF(fields->wakeup, (PyObject *)wakeup);
    }
    wakeup->task = Py_NewRef(task);
    return (PyObject *)wakeup;
}

/* Steps the task in the loop's next turn. */
int tgd_task_step_soon(PyObject *task, tgd_fields *fields)
{
    if (fields->side) {
        return tgd_side_next_turn(fields->side, task);
    }
    PyObject *wakeup = wakeup_for(task, fields);
    if (!wakeup) {
        return -1;
    }
    PyObject *args[3] = {fields->loop, wakeup, fields->context};
    PyObject *handle = PyObject_VectorcallMethod(fields->state->s_call_soon, args, 2, fields->state->kw_context);
    if (!handle) {
        Py_CLEAR(((tgd_wakeup *)wakeup)->task);
        return -1;
    }
    Py_DECREF(handle);
    return 0;
}

static int throw_soon(PyObject *task, tgd_fields *fields)
{
    Py_XSETREF(fields->thrown, tgd_fetch_raised());
    if (fields->wakeup) {
        Py_CLEAR(((tgd_wakeup *)fields->wakeup)->task); /* one step is enough, should the future know it already */
    }
    return tgd_task_step_soon(task, fields);
}

/* Registered with `future`: it is what the task waits for. A cancellation asked for during the step reaches it now. */
static int registered(PyObject *task, tgd_fields *fields, PyObject *future)
{
    Py_XSETREF(fields->waiter, Py_NewRef(future));
    if (!fields->must_cancel) {
        return 0;
    }
    (void)task;
    PyObject *args[2] = {future, fields->cancel_message ? fields->cancel_message : Py_None};
    PyObject *answer = PyObject_VectorcallMethod(fields->state->s_cancel, args, 1, fields->state->kw_msg);
    int cancelled = answer ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    if (cancelled > 0) {
        fields->must_cancel = 0;
    }
    return cancelled < 0 ? -1 : 0;
}

static int call_add_done_callback(PyObject *task, tgd_fields *fields, PyObject *future, PyObject *unbound)
{
    PyObject *wakeup = wakeup_for(task, fields);
    if (!wakeup) {
        return -1;
    }
    PyObject *args[3] = {future, wakeup, fields->context};
    PyObject *done = unbound ? PyObject_Vectorcall(unbound, args, 2, fields->state->kw_context)
                             : PyObject_VectorcallMethod(fields->state->s_add_done_callback, args, 2, fields->state->kw_context);
    if (!done) {
        Py_CLEAR(((tgd_wakeup *)wakeup)->task);
        return -1;
    }
    Py_DECREF(done);
    return registered(task, fields, future);
}

static int different_loop(PyObject *task, PyObject *future)
{
    PyErr_Format(PyExc_RuntimeError, "Task %R got Future %R attached to a different loop", task, future);
    return -1;
}

static int not_awaited(PyObject *task, PyObject *future)
{
    PyErr_Format(PyExc_RuntimeError, "yield was used instead of yield from in task %R with %R", task, future);
    return -1;
}

/* A future of asyncio's own C type: no attribute lookups. */
static int wait_for_exact(PyObject *task, tgd_fields *fields, PyObject *future)
{
    tgd_state *state = fields->state;
    PyObject *loop = state->at_loop->get(future, NULL);
    Py_XDECREF(loop); /* the future keeps it */
    if (loop != fields->loop) {
        return different_loop(task, future);
    }
    PyObject *blocking = state->at_blocking->get(future, NULL);
    Py_XDECREF(blocking);
    if (blocking != Py_True) {
        return not_awaited(task, future);
    }
    if (state->at_blocking->set(future, Py_False, NULL) < 0) {
        return -1;
    }
    return call_add_done_callback(task, fields, future, state->future_add_done_callback);
}

static PyObject *loop_of(tgd_state *state, PyObject *future)
{
    PyObject *loop = PyObject_CallMethodNoArgs(future, state->s_get_loop);
    if (!loop && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        loop = PyObject_GetAttrString(future, "_loop");
    }
    return loop;
}

/* Anything with _asyncio_future_blocking (PEP 3156's protocol). */
static int wait_for_duck(PyObject *task, tgd_fields *fields, PyObject *future, PyObject *blocking)
{
    tgd_state *state = fields->state;
    PyObject *loop = loop_of(state, future);
    if (!loop) {
        return -1;
    }
    Py_DECREF(loop);
    if (loop != fields->loop) {
        return different_loop(task, future);
    }
    int is = PyObject_IsTrue(blocking);
    if (is <= 0) {
        return is < 0 ? -1 : not_awaited(task, future);
    }
    if (PyObject_SetAttr(future, state->s_blocking, Py_False) < 0) {
        return -1;
    }
    return call_add_done_callback(task, fields, future, NULL);
}

static int wait_for_other(PyObject *task, tgd_fields *fields, PyObject *yielded)
{
    PyObject *blocking = PyObject_GetAttr(yielded, fields->state->s_blocking);
    if (!blocking && !PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return -1;
    }
    PyErr_Clear();
    if (blocking && blocking != Py_None) {
        int answer = wait_for_duck(task, fields, yielded, blocking);
        Py_DECREF(blocking);
        return answer;
    }
    Py_XDECREF(blocking);
    if (PyGen_CheckExact(yielded)) {
        PyErr_Format(PyExc_RuntimeError, "yield was used instead of yield from for generator in task %R with %R", task,
                     yielded);
    } else {
        PyErr_Format(PyExc_RuntimeError, "Task got bad yield: %R", yielded);
    }
    return -1;
}

/* The coroutine yielded: arranges for its next step. What was wrong with it is thrown into it. */
int tgd_task_wait_for(PyObject *task, tgd_fields *fields, PyObject *yielded)
{
    int answer;
    if (yielded == Py_None) {
        Py_DECREF(yielded);
        return tgd_task_step_soon(task, fields);
    }
    if (Py_IS_TYPE(yielded, fields->state->nap)) {
        answer = tgd_nap_begin(task, fields, yielded);
    } else if (yielded == task) {
        PyErr_Format(PyExc_RuntimeError, "Task cannot await on itself: %R", task);
        answer = -1;
    } else if (Py_IS_TYPE(yielded, fields->state->future) || Py_IS_TYPE(yielded, fields->state->task)) {
        answer = wait_for_exact(task, fields, yielded);
    } else {
        answer = wait_for_other(task, fields, yielded);
    }
    Py_DECREF(yielded);
    return answer < 0 ? throw_soon(task, fields) : 0;
}

static PyObject *wakeup_get_self(PyObject *self, void *closure)
{
    (void)closure;
    PyObject *task = ((tgd_wakeup *)self)->task;
    return Py_NewRef(task ? task : Py_None);
}

static PyObject *wakeup_get_qualname(PyObject *self, void *closure)
{
    (void)self;
    (void)closure;
    return PyUnicode_FromString("ItemTask.__wakeup");
}

static int wakeup_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((tgd_wakeup *)self)->task);
    return 0;
}

static int wakeup_clear(PyObject *self)
{
    Py_CLEAR(((tgd_wakeup *)self)->task);
    return 0;
}

static void wakeup_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    wakeup_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyGetSetDef wakeup_attributes[] = {
    {"__self__", wakeup_get_self, NULL, NULL, NULL},
    {"__qualname__", wakeup_get_qualname, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyMemberDef wakeup_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(tgd_wakeup, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot wakeup_slots[] = {
    {Py_tp_call, PyVectorcall_Call},   {Py_tp_getset, wakeup_attributes}, {Py_tp_members, wakeup_members},
    {Py_tp_traverse, wakeup_traverse}, {Py_tp_clear, wakeup_clear},       {Py_tp_dealloc, wakeup_dealloc},
    {0, NULL},
};
static PyType_Spec wakeup_spec = {
    .name = "tidegate.executor._native.ItemTaskWakeup",
    .basicsize = sizeof(tgd_wakeup),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = wakeup_slots,
};

int tgd_wakeup_type(PyObject *module, tgd_state *state)
{
    state->wakeup = (PyTypeObject *)PyType_FromModuleAndSpec(module, &wakeup_spec, NULL);
    return state->wakeup ? 0 : -1;
}
