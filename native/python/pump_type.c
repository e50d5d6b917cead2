/* pump_type.c - Pump: runs the coroutine lanes of a core on one event loop.
 *
 * The loop calls tick() when the core has work (through an eventfd, so that any thread may say so without the GIL), when
 * something ended, or when the one timer fires. A tick gives back what ended, cancels what is overdue, starts what may start,
 * and sets the timer to the next moment at which anything is due. */
#include "pump.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

static unsigned kind_of_index(int index)
{
    return index == 0 ? (unsigned)TG_KIND_COROUTINE : 1u << (index + 2);
}

void tg_pump_wake(void *core_object, unsigned kinds)
{
    CoreObject *core = core_object;
    uint64_t one = 1;
    pthread_mutex_lock(&core->pump_mu);
    for (int i = 0; i < TG_PUMPS; i++) {
        if (core->pump_fds[i] >= 0 && (kinds & kind_of_index(i)) != 0) {
            ssize_t wrote = write(core->pump_fds[i], &one, sizeof one);
            (void)wrote; /* full means that it is going to wake anyway */
        }
    }
    pthread_mutex_unlock(&core->pump_mu);
}

void tg_pump_run_cancelled(RunObject *run)
{
    CoreObject *core = run->core;
    for (int i = 0; i < TG_PUMPS; i++) {
        if (core->pumps[i] != NULL && core->pumps[i]->kind == run->lane->kind) {
            core->pumps[i]->cancel_requested = 1;
            tg_pump_wake(core, core->pumps[i]->kind);
        }
    }
}

/* ---- the loop's side ---- */

void tg_pump_schedule(PumpObject *self)
{
    if (self->scheduled || self->closed > 1) {
        return;
    }
    PyObject *names = Py_BuildValue("(s)", "context");
    PyObject *method = names ? PyObject_GetAttrString(self->loop, "call_soon") : NULL;
    PyObject *stack[2] = {self->tick, self->context};
    PyObject *handle = method ? PyObject_Vectorcall(method, stack, 1, names) : NULL;
    if (handle == NULL) {
        PyErr_WriteUnraisable((PyObject *)self); /* the loop is closed */
    } else {
        self->scheduled = 1;
    }
    Py_XDECREF(handle);
    Py_XDECREF(method);
    Py_XDECREF(names);
}

static void drop_timer(PumpObject *self)
{
    if (self->timer == NULL) {
        return;
    }
    PyObject *result = PyObject_CallMethod(self->timer, "cancel", NULL);
    if (result == NULL) {
        PyErr_WriteUnraisable(self->timer);
    }
    Py_XDECREF(result);
    Py_CLEAR(self->timer);
    self->timer_due = TG_NEVER;
}

static void set_timer(PumpObject *self, uint64_t due_ns, uint64_t now)
{
    if (self->timer != NULL && due_ns != TG_NEVER && self->timer_due <= due_ns && self->timer_due > now) {
        return; /* it fires early enough, and sets the next one */
    }
    drop_timer(self);
    if (due_ns == TG_NEVER || self->closed > 1) {
        return;
    }
    double delay_s = due_ns > now ? (double)(due_ns - now) / 1e9 : 0.0;
    self->timer = PyObject_CallMethod(self->loop, "call_later", "dO", delay_s, self->on_timer);
    self->timer_due = due_ns;
    if (self->timer == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
}

static PyObject *pump_tick(PumpObject *self, PyObject *Py_UNUSED(ignored))
{
    self->scheduled = 0;
    if (self->closed > 1 || self->core->core == NULL) {
        Py_RETURN_NONE;
    }
    uint64_t now = tg_core_now(self->core->core);
    if (self->timer != NULL && self->timer_due <= now) {
        drop_timer(self);
    }
    if (self->cancel_requested) {
        tg_flight_cancel_runs(self);
    }
    uint64_t due_ns;
    int more;
    tg_pump_flush(self);
    tg_pump_start_items(self, &due_ns, &more);
    now = tg_core_now(self->core->core);
    uint64_t deadline = self->n_lanes != 0 || self->overdue != NULL ? tg_flight_expire(self, now) : TG_NEVER;
    if (more || self->n_ended != 0) {
        tg_pump_schedule(self);
    }
    set_timer(self, deadline < due_ns ? deadline : due_ns, now);
    Py_RETURN_NONE;
}

/* The timer is spent, also when the loop fired it a little early, as loops that count in milliseconds do. */
static PyObject *pump_on_timer(PumpObject *self, PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(self->timer);
    self->timer_due = TG_NEVER;
    return pump_tick(self, NULL);
}

static PyObject *pump_readable(PumpObject *self, PyObject *Py_UNUSED(ignored))
{
    uint64_t count;
    if (self->event_fd >= 0 && read(self->event_fd, &count, sizeof count) < 0 && errno != EAGAIN) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return pump_tick(self, NULL);
}

/* ---- life cycle ---- */

static int take_index(PumpObject *self, int index)
{
    CoreObject *core = self->core;
    if (index < 0 || index >= TG_PUMPS || core->pumps[index] != NULL) {
        PyErr_SetString(PyExc_ValueError, "this core has a pump of that index already");
        return -1;
    }
    self->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->event_fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    self->index = index;
    self->kind = kind_of_index(index);
    core->pumps[index] = self;
    pthread_mutex_lock(&core->pump_mu);
    core->pump_fds[index] = self->event_fd;
    pthread_mutex_unlock(&core->pump_mu);
    return 0;
}

static void give_index_back(PumpObject *self)
{
    if (self->event_fd < 0) {
        return;
    }
    CoreObject *core = self->core;
    pthread_mutex_lock(&core->pump_mu);
    core->pump_fds[self->index] = -1;
    pthread_mutex_unlock(&core->pump_mu);
    core->pumps[self->index] = NULL;
    atomic_store(&core->pump_hard_due[self->index], 0);
    close(self->event_fd);
    self->event_fd = -1;
}

static PyObject *pump_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"core", "loop", "wrap", "index", NULL};
    struct tg_module_state *state = tg_state_of_type(type);
    PyObject *core, *loop, *wrap;
    int index = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OO|i", names, state->core_type, &core, &loop, &wrap, &index) ||
        !tg_alive((CoreObject *)core)) {
        return NULL;
    }
    PumpObject *self = (PumpObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->event_fd = -1;
    self->timer_due = TG_NEVER;
    self->core = (CoreObject *)Py_NewRef(core);
    self->loop = Py_NewRef(loop);
    self->wrap = Py_NewRef(wrap);
    self->context = PyContext_New();
    self->tick = PyObject_GetAttrString((PyObject *)self, "tick");
    self->on_timer = PyObject_GetAttrString((PyObject *)self, "on_timer");
    self->worker = tg_worker_enter(self->core);
    if (self->worker != NULL) {
        pthread_setspecific(state->worker_key, self->worker->outer); /* items of a loop do not nest */
        self->worker->outer = NULL;
        self->worker->on_loop = 1;
    }
    PyObject *module = PyType_GetModule(type);
    self->driver = module ? tg_driver_create(module, loop, &tg_pump_calls, self) : NULL;
    if (!self->context || !self->tick || !self->on_timer || !self->worker || !self->driver || take_index(self, index) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    PyObject *readable = PyObject_GetAttrString((PyObject *)self, "_readable");
    PyObject *result = readable ? PyObject_CallMethod(loop, "add_reader", "iO", self->event_fd, readable) : NULL;
    Py_XDECREF(readable);
    Py_XDECREF(result);
    if (result == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    tg_pump_schedule(self);
    return (PyObject *)self;
}

static int pump_traverse(PumpObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->core);
    Py_VISIT(self->loop);
    Py_VISIT(self->driver);
    Py_VISIT(self->tick);
    Py_VISIT(self->on_timer);
    Py_VISIT(self->context);
    Py_VISIT(self->wrap);
    Py_VISIT(self->timer);
    for (struct tg_flight *flight = self->flights; flight != NULL; flight = flight->all_next) {
        Py_VISIT(flight->task);
        Py_VISIT(self); /* each flight has a reference to its pump */
    }
    return 0;
}

static int pump_clear(PumpObject *self)
{
    while (self->flights != NULL) { /* the loop is gone: nobody will end them */
        tg_flight_land(self, self->flights);
    }
    Py_CLEAR(self->loop);
    Py_CLEAR(self->tick);
    Py_CLEAR(self->on_timer);
    Py_CLEAR(self->context);
    Py_CLEAR(self->wrap);
    Py_CLEAR(self->timer);
    return 0;
}

static void release_worker(PumpObject *self)
{
    if (self->worker != NULL) {
        struct tg_worker *outer = tg_worker_current(self->core->state);
        if (self->stepping != 0 && self->worker->interrupted == atomic_load(&self->worker->sequence)) {
            tg_thread_raise(self->worker->thread_id, NULL); /* the step that closes us is over its timeout */
        }
        self->worker->on_loop = 0;
        atomic_store(&self->worker->active, 0);
        tg_worker_leave(self->core, self->worker);
        pthread_setspecific(self->core->state->worker_key, outer);
        self->worker = NULL;
    }
}

static void pump_dealloc(PumpObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    give_index_back(self);
    release_worker(self);
    tg_ambient_drop(&self->ambient);
    tg_flight_free_all(self);
    pump_clear(self);
    Py_XDECREF(self->driver);
    Py_XDECREF(self->core);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Starts nothing more and cancels what runs; flights tells when it has ended. */
static PyObject *pump_quiesce(PumpObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->closed == 0) {
        self->closed = 1;
    }
    tg_flight_cancel_all(self);
    tg_pump_schedule(self);
    Py_RETURN_NONE;
}

/* Lets go of the loop. What still runs is abandoned. */
static PyObject *pump_close(PumpObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->closed > 1) {
        Py_RETURN_NONE;
    }
    if (self->core->core != NULL) {
        tg_pump_flush(self);
    }
    self->closed = 2;
    drop_timer(self);
    PyObject *result = PyObject_CallMethod(self->loop, "remove_reader", "i", self->event_fd);
    give_index_back(self);
    release_worker(self);
    Py_XDECREF(result);
    Py_CLEAR(self->tick); /* the bound methods and the pump hold each other */
    Py_CLEAR(self->on_timer);
    if (result == NULL) {
        return NULL; /* the loop is closed */
    }
    Py_RETURN_NONE;
}

static PyObject *pump_stacks(PumpObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *list = PyList_New(0);
    uint64_t now = self->core->core ? tg_core_now(self->core->core) : 0;
    for (struct tg_flight *flight = self->flights; list != NULL && flight != NULL; flight = flight->all_next) {
        PyObject *frames = tg_driver_stack(flight->task);
        PyObject *entry = frames ? Py_BuildValue("(OKKN)", flight->run->lane->name, (unsigned long long)flight->item->position,
                                                 (unsigned long long)(now - flight->start_ns), frames)
                                 : NULL;
        if (entry == NULL || PyList_Append(list, entry) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(entry);
    }
    return list;
}

static PyObject *pump_get_flights(PumpObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(self->n_flights);
}

static PyObject *pump_get_kind(PumpObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->kind);
}

static PyMethodDef pump_methods[] = {
    {"tick", (PyCFunction)pump_tick, METH_NOARGS, "Gives back, cancels, starts. The loop calls it."},
    {"on_timer", (PyCFunction)pump_on_timer, METH_NOARGS, "The same, when the timer fired."},
    {"_readable", (PyCFunction)pump_readable, METH_NOARGS, "The loop calls it when another thread has work."},
    {"quiesce", (PyCFunction)pump_quiesce, METH_NOARGS, "Starts nothing more, cancels what runs."},
    {"close", (PyCFunction)pump_close, METH_NOARGS, "Lets go of the loop."},
    {"stacks", (PyCFunction)pump_stacks, METH_NOARGS, "(lane, position, ran_ns, frames) of each suspended coroutine."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pump_getset[] = {
    {"flights", (getter)pump_get_flights, NULL, "Coroutines that have suspended and not ended.", NULL},
    {"kind", (getter)pump_get_kind, NULL, "The kind of lanes that this pump serves.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pump_slots[] = {
    {Py_tp_new, pump_new},
    {Py_tp_dealloc, pump_dealloc},
    {Py_tp_traverse, pump_traverse},
    {Py_tp_clear, pump_clear},
    {Py_tp_methods, pump_methods},
    {Py_tp_getset, pump_getset},
    {Py_tp_doc, "Runs the coroutine lanes of a core on one event loop."},
    {0, NULL},
};

PyType_Spec tg_pump_spec = {
    .name = "tidegate.executor._native.Pump",
    .basicsize = sizeof(PumpObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = pump_slots,
};
