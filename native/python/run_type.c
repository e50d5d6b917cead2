/* run_type.c - Run: the items that one start() submitted, and what became of them. */
#include "state.h"

#include <stdlib.h>
#include <string.h>

#define SIGNAL_LOOK_NS 50000000u /* a waiting thread looks for signals this often */

static int run_clear(RunObject *self)
{
    Py_CLEAR(self->items);
    Py_CLEAR(self->function);
    Py_CLEAR(self->context);
    Py_CLEAR(self->callbacks);
    Py_CLEAR(self->history);
    Py_CLEAR(self->failures);
    Py_CLEAR(self->returned);
    Py_CLEAR(self->deferred);
    self->values = NULL;
    Py_CLEAR(self->list);
    self->n_fresh = self->n_fresh_bad = 0;
    for (Py_ssize_t i = 0; self->errors != NULL && i < self->n; i++) {
        Py_CLEAR(self->errors[i]);
    }
    return 0;
}

static int run_traverse(RunObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->core);
    Py_VISIT(self->lane);
    Py_VISIT(self->items);
    Py_VISIT(self->function);
    Py_VISIT(self->context);
    Py_VISIT(self->callbacks);
    Py_VISIT(self->history);
    Py_VISIT(self->failures);
    Py_VISIT(self->returned);
    Py_VISIT(self->deferred);
    for (Py_ssize_t i = 0; i < self->n; i++) {
        if (self->values != NULL) { /* the list is ours alone, and the collector does not know it */
            Py_VISIT(self->values[i]);
        }
        if (self->errors != NULL) {
            Py_VISIT(self->errors[i]);
        }
    }
    return 0;
}

static void run_dealloc(RunObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->group != NULL && self->core->core != NULL) {
        tg_group_destroy(self->group); /* done, or start() keeps a reference; in a forked child the core refuses */
    }
    tg_outcomes_end(self);
    run_clear(self);
    PyMem_Free(self->errors);
    PyMem_Free(self->outcomes);
    PyMem_Free(self->attempts);
    PyMem_Free(self->detail);
    PyMem_Free(self->coarse);
    Py_XDECREF(self->prior);
    Py_XDECREF(self->job_id);
    Py_XDECREF(self->origin);
    Py_XDECREF(self->lane);
    Py_XDECREF(self->core);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* ---- wait ---- */

static int is_done(const RunObject *self)
{
    return self->done || (self->remaining == 0 && tg_group_done(self->group));
}

/* An item that waits here may itself have been timed out: the interrupt is raised by hand, since no bytecode runs. */
static int check_interrupts(CoreObject *core)
{
    if (PyErr_CheckSignals() < 0) {
        return -1;
    }
    if (tg_worker_take_interrupt(core)) {
        PyErr_SetNone(core->state->item_timeout);
        return -1;
    }
    return 0;
}

static int help(RunObject *self, uint64_t deadline_ns)
{
    CoreObject *core = self->core;
    struct tg_worker *worker = tg_worker_enter(core);
    if (worker == NULL) {
        return -1;
    }
    uint64_t due_ns;
    if (worker->depth < TG_HELP_DEPTH) {
        tg_sync_serve(core, worker, NULL, self, deadline_ns, &due_ns);
    }
    tg_worker_leave(core, worker);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *wait_until(RunObject *self, uint64_t deadline_ns, int may_help)
{
    CoreObject *core = self->core;
    while (!is_done(self)) {
        tg_settle_pending(core);
        if (is_done(self)) {
            break;
        }
        if (may_help && help(self, deadline_ns) < 0) {
            return NULL;
        }
        if (is_done(self)) {
            break;
        }
        uint64_t now = tg_core_now(core->core);
        if (now >= deadline_ns || core->closed > 1) {
            Py_RETURN_FALSE;
        }
        uint64_t wait_ns = deadline_ns - now < SIGNAL_LOOK_NS ? deadline_ns - now : SIGNAL_LOOK_NS;
        Py_BEGIN_ALLOW_THREADS
        if (!tg_group_done(self->group)) {
            tg_group_wait(self->group, wait_ns);
        }
        Py_END_ALLOW_THREADS
        if (check_interrupts(core) < 0) {
            return NULL;
        }
    }
    tg_settle_pending(core);
    Py_RETURN_TRUE;
}

static PyObject *run_wait(RunObject *self, PyObject *args)
{
    long long timeout_ns;
    int may_help;
    if (!PyArg_ParseTuple(args, "Lp", &timeout_ns, &may_help)) {
        return NULL;
    }
    CoreObject *core = self->core;
    if (core->core == NULL || tg_core_check(core->core) == TG_FORKED) {
        return tg_raise_status(core->state, core->core ? TG_FORKED : TG_CLOSED, "run");
    }
    uint64_t deadline_ns = timeout_ns < 0 ? TG_NEVER : tg_core_now(core->core) + (uint64_t)timeout_ns;
    struct tg_worker *worker = is_done(self) ? NULL : tg_worker_current(core->state);
    CoreObject *lender = worker != NULL && !worker->core->closed ? (CoreObject *)Py_NewRef(worker->core) : NULL;
    /* This thread waits inside an item: others must be able to run what it waits for. */
    int ready = lender == NULL || tg_threads_lend(lender) == 0;
    PyObject *answer = ready ? wait_until(self, deadline_ns, may_help) : NULL;
    if (lender != NULL) {
        tg_threads_take_back(lender);
        Py_DECREF(lender);
    }
    return answer;
}

/* ---- the rest ---- */

static PyObject *run_cancel(RunObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->core->core == NULL || is_done(self)) {
        Py_RETURN_NONE;
    }
    self->cancelled = 1;
    tg_status status = tg_group_cancel(self->group, NULL);
    if (status != TG_OK) {
        return tg_raise_status(self->core->state, status, "run");
    }
    tg_pump_run_cancelled(self);
    tg_settle_pending(self->core);
    Py_RETURN_NONE;
}

static PyObject *run_drain(RunObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->core->core == NULL || is_done(self)) {
        Py_RETURN_NONE;
    }
    tg_status status = tg_group_drain(self->group, NULL);
    if (status != TG_OK) {
        return tg_raise_status(self->core->state, status, "run");
    }
    tg_settle_pending(self->core);
    Py_RETURN_NONE;
}

static PyObject *run_add_done_callback(RunObject *self, PyObject *callback)
{
    if (self->core->core != NULL) {
        tg_settle_pending(self->core);
    }
    if (self->done) {
        return PyObject_CallOneArg(callback, (PyObject *)self);
    }
    if (self->callbacks == NULL && (self->callbacks = PyList_New(0)) == NULL) {
        return NULL;
    }
    if (PyList_Append(self->callbacks, callback) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *run_limited(RunObject *self, PyObject *arg)
{
    int with_due = PyObject_IsTrue(arg);
    uint64_t n = 0, due_ns = TG_NEVER;
    if (with_due < 0) {
        return NULL;
    }
    if (self->core->core != NULL && !is_done(self)) {
        tg_group_limited(self->group, &n, with_due ? &due_ns : NULL);
    }
    return Py_BuildValue("(KL)", (unsigned long long)n, due_ns == TG_NEVER ? -1LL : (long long)due_ns);
}

static PyObject *run_times(RunObject *self, PyObject *arg)
{
    Py_ssize_t position = PyLong_AsSsize_t(arg);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (self->detail == NULL || position < 0 || position >= self->n) {
        PyErr_SetString(PyExc_IndexError, "no times are kept for this position");
        return NULL;
    }
    const struct tg_detail *detail = &self->detail[position];
    return Py_BuildValue("(KKI)", (unsigned long long)detail->run_ns, (unsigned long long)detail->wait_ns,
                         (unsigned)detail->attempts);
}

static PyObject *run_get_remaining(RunObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(self->remaining);
}

static PyObject *run_get_done(RunObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->core->core == NULL ? self->done : is_done(self));
}

static PyMethodDef run_methods[] = {
    {"wait", (PyCFunction)run_wait, METH_VARARGS, "wait(timeout_ns, help): whether everything settled; -1 waits for ever."},
    {"take", (PyCFunction)tg_run_take_settled, METH_NOARGS, "What settled since the last take, as a tuple (see host.py)."},
    {"reported", (PyCFunction)tg_outcomes_reported, METH_NOARGS,
     "What was taken is stored for good: the outcome log forgets it."},
    {"cancel", (PyCFunction)run_cancel, METH_NOARGS, "Waiting items end as cancelled, running coroutines are cancelled."},
    {"drain", (PyCFunction)run_drain, METH_NOARGS, "Starts nothing more of this run."},
    {"add_done_callback", (PyCFunction)run_add_done_callback, METH_O, "Calls back with the run when it is done."},
    {"limited", (PyCFunction)run_limited, METH_O,
     "limited(with_due): (items waiting for their key, when one of the keys opens by itself or -1)."},
    {"times", (PyCFunction)run_times, METH_O, "(run_ns, wait_ns, attempts) of a position, when start() kept them."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef run_getset[] = {
    {"remaining", (getter)run_get_remaining, NULL, "Items not settled yet.", NULL},
    {"done", (getter)run_get_done, NULL, "Whether everything settled.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot run_slots[] = {
    {Py_tp_dealloc, run_dealloc},
    {Py_tp_traverse, run_traverse},
    {Py_tp_clear, run_clear},
    {Py_tp_methods, run_methods},
    {Py_tp_getset, run_getset},
    {Py_tp_doc, "The items that one start() submitted, and what became of them."},
    {0, NULL},
};

PyType_Spec tg_run_spec = {
    .name = "tidegate.executor._native.Run",
    .basicsize = sizeof(RunObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = run_slots,
};
