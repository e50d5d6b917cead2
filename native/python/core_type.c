/* core_type.c - Core: the C executor of one process, with its threads, journal and limits. */
#include "state.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <structmember.h>

static int init_locks(CoreObject *self)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0 || pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    int error = pthread_mutex_init(&self->workers_mu, NULL) || pthread_mutex_init(&self->idle_mu, NULL) ||
                pthread_mutex_init(&self->watch_mu, NULL) || pthread_mutex_init(&self->pump_mu, NULL) ||
                pthread_cond_init(&self->parked, &attributes) || pthread_cond_init(&self->watch_cond, &attributes) ||
                pthread_cond_init(&self->interrupt_cond, &attributes);
    pthread_condattr_destroy(&attributes);
    if (error) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* outcomes: (path, chunks, encode, describe), see outlog.py. */
static int open_outlog(CoreObject *self, PyObject *outcomes)
{
    PyObject *path, *encode, *describe;
    unsigned chunks;
    if (!PyTuple_Check(outcomes)) {
        PyErr_SetString(PyExc_TypeError, "outcomes must be (path, chunks, encode, describe) or None");
        return -1;
    }
    if (!PyArg_ParseTuple(outcomes, "O&IOO", PyUnicode_FSConverter, &path, &chunks, &encode, &describe)) {
        return -1;
    }
    tg_status status = tg_outlog_create(PyBytes_AS_STRING(path), chunks, &self->outlog);
    Py_DECREF(path);
    if (status != TG_OK) {
        tg_raise_status(self->state, status, "outcome log");
        return -1;
    }
    self->encode = Py_NewRef(encode);
    self->describe = Py_NewRef(describe);
    return 0;
}

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"capture", "spawn", "journal", "journal_slots", "max_threads", "slabs", "seed", "outcomes",
                            NULL};
    PyObject *capture, *spawn, *journal = Py_None, *outcomes = Py_None;
    unsigned journal_slots = 1024, max_threads = 0;
    int slabs = 1;
    unsigned long long seed = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OIIpKO", names, &capture, &spawn, &journal, &journal_slots,
                                     &max_threads, &slabs, &seed, &outcomes)) {
        return NULL;
    }
    CoreObject *self = (CoreObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = tg_state_of_type(type);
    self->capture = Py_NewRef(capture);
    self->spawn = Py_NewRef(spawn);
    self->steal_ns = 200000;
    self->idle_ns = 10000000000u;
    self->max_threads = max_threads ? max_threads : 1;
    self->threads_given = max_threads != 0;
    self->pid = getpid();
    for (int i = 0; i < TG_PUMPS; i++) {
        self->pump_fds[i] = -1;
    }
    atomic_store(&self->min_timeout_ns, TG_NEVER);
    if (init_locks(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    struct tg_core_options options = {
        .seed = seed, .no_slabs = !slabs, .steal_after_ns = self->steal_ns, .wake = tg_pump_wake, .wake_ctx = self};
    tg_status status = tg_core_create(&options, &self->core);
    if (status == TG_OK && journal != Py_None) {
        PyObject *path;
        if (!PyUnicode_FSConverter(journal, &path)) {
            Py_DECREF(self);
            return NULL;
        }
        status = tg_journal_create(PyBytes_AS_STRING(path), journal_slots, &self->journal);
        Py_DECREF(path);
    }
    if (status != TG_OK) {
        tg_raise_status(self->state, status, "executor");
        Py_DECREF(self);
        return NULL;
    }
    if (outcomes != Py_None && open_outlog(self, outcomes) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int core_traverse(CoreObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->capture);
    Py_VISIT(self->spawn);
    Py_VISIT(self->encode);
    Py_VISIT(self->describe);
    return 0;
}

static int core_clear(CoreObject *self)
{
    Py_CLEAR(self->capture);
    Py_CLEAR(self->spawn);
    Py_CLEAR(self->encode);
    Py_CLEAR(self->describe);
    return 0;
}

static void free_core(CoreObject *self)
{
    if (self->cpool != NULL) {
        Py_BEGIN_ALLOW_THREADS
        tg_cpool_destroy(self->cpool);
        Py_END_ALLOW_THREADS
        self->cpool = NULL;
    }
    if (self->core != NULL && tg_core_destroy(self->core) == TG_OK) {
        self->core = NULL;
    }
    if (self->journal != NULL && self->core == NULL) {
        tg_journal_destroy(self->journal);
        self->journal = NULL;
    }
    if (self->outlog != NULL && self->core == NULL) {
        tg_outlog_destroy(self->outlog);
        self->outlog = NULL;
    }
}

static void core_dealloc(CoreObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    if (getpid() == self->pid) {
        if (self->core != NULL) {
            tg_core_close(self->core, 1);
            tg_threads_stop(self);
            tg_watchdog_stop(self);
        }
        free_core(self);
        while (self->core == NULL && self->workers != NULL) {
            struct tg_worker *worker = self->workers;
            self->workers = worker->next;
            free(worker);
        }
    }
    core_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- facts ---- */

static PyObject *core_stats(CoreObject *self, PyObject *Py_UNUSED(ignored))
{
    struct tg_core_stats stats;
    tg_status status = self->core ? tg_core_get_stats(self->core, &stats) : TG_CLOSED;
    if (status != TG_OK) {
        return tg_raise_status(self->state, status, "executor");
    }
#define FIELD(name) #name, (unsigned long long)stats.name
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:I,s:I}", FIELD(items_live),
                         FIELD(items_peak), FIELD(item_bytes), FIELD(slabs), FIELD(slab_bytes), FIELD(slab_allocations),
                         FIELD(item_allocations), FIELD(item_reuses), FIELD(timers), FIELD(lanes), FIELD(limits),
                         FIELD(groups), FIELD(runs), FIELD(settled_waiting), "threads", self->n_threads, "parked",
                         self->n_parked);
}

static PyObject *core_running(CoreObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *list = PyList_New(0);
    uint64_t now = self->core ? tg_core_now(self->core) : 0;
    if (list == NULL || now == 0) {
        return list;
    }
    pthread_mutex_lock(&self->workers_mu);
    struct {
        uint32_t tag;
        uint64_t ran_ns;
    } found[256];
    int n = 0;
    for (struct tg_worker *worker = self->workers; worker != NULL && n < 256; worker = worker->next) {
        uint64_t start = atomic_load_explicit(&worker->start_ns, memory_order_relaxed);
        if (worker->in_use && !worker->on_loop && start != 0) {
            found[n].tag = worker->tag;
            found[n++].ran_ns = now > start ? now - start : 0;
        }
    }
    pthread_mutex_unlock(&self->workers_mu);
    for (int i = 0; i < n; i++) {
        PyObject *entry = Py_BuildValue("(IK)", found[i].tag, (unsigned long long)found[i].ran_ns);
        if (entry == NULL || PyList_Append(list, entry) < 0) {
            Py_XDECREF(entry);
            Py_DECREF(list);
            return NULL;
        }
        Py_DECREF(entry);
    }
    return list;
}

/* ---- life cycle ---- */

static PyObject *core_close(CoreObject *self, PyObject *args)
{
    int cancel = 1;
    if (!PyArg_ParseTuple(args, "|p", &cancel)) {
        return NULL;
    }
    if (self->core == NULL || self->closed > 1) {
        Py_RETURN_NONE;
    }
    self->closed = 1;
    tg_status status = tg_core_close(self->core, cancel);
    if (status != TG_OK) {
        return tg_raise_status(self->state, status, "executor");
    }
    tg_settle_pending(self);
    Py_RETURN_NONE;
}

/* Ends the threads' loops: they return as soon as their present item does. */
static PyObject *core_stop(CoreObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->core == NULL || tg_core_check(self->core) == TG_FORKED) {
        self->closed = 2;
        Py_RETURN_NONE;
    }
    self->closed = 2;
    if (self->cpool != NULL) {
        Py_BEGIN_ALLOW_THREADS
        tg_cpool_stop(self->cpool); /* while the watchdog looks: one of its functions may never return */
        Py_END_ALLOW_THREADS
    }
    tg_threads_stop(self);
    tg_watchdog_stop(self);
    tg_settle_pending(self);
    if (self->cpool != NULL) { /* its calls are settled, and nobody looks at it any more */
        tg_cpool_destroy(self->cpool);
        self->cpool = NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *core_check(CoreObject *self, PyObject *Py_UNUSED(ignored))
{
    if (!tg_alive(self)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *core_serve(CoreObject *self, PyObject *Py_UNUSED(ignored))
{
    return tg_core_serve(self);
}

static PyObject *core_interrupt(CoreObject *self, PyObject *Py_UNUSED(ignored))
{
    return tg_core_interrupt(self);
}

static PyObject *core_trim(CoreObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(self->core ? tg_core_trim(self->core) : 0);
}

static PyMethodDef core_methods[] = {
    {"limit", (PyCFunction)(void (*)(void))tg_core_limit, METH_VARARGS | METH_KEYWORDS, "A new Limit."},
    {"lane", (PyCFunction)(void (*)(void))tg_core_lane, METH_VARARGS | METH_KEYWORDS, "A new Lane."},
    {"stats", (PyCFunction)core_stats, METH_NOARGS, "Items, slabs, timers and threads, as a dict."},
    {"running", (PyCFunction)core_running, METH_NOARGS, "(tag, ran_ns) of each thread that runs an item now."},
    {"trim", (PyCFunction)core_trim, METH_NOARGS, "Gives memory back when nothing is inside."},
    {"check", (PyCFunction)core_check, METH_NOARGS, "Raises ExecutorClosed when closed or forked."},
    {"close", (PyCFunction)core_close, METH_VARARGS, "close(cancel): refuses new items; cancels waiting ones."},
    {"stop", (PyCFunction)core_stop, METH_NOARGS, "Ends the threads as soon as their items end."},
    {"serve", (PyCFunction)core_serve, METH_NOARGS, "Body of a serving thread; returns when it is not needed."},
    {"interrupt", (PyCFunction)core_interrupt, METH_NOARGS, "Body of the thread that interrupts timed-out items."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef core_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(CoreObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot core_slots[] = {
    {Py_tp_new, core_new},
    {Py_tp_dealloc, core_dealloc},
    {Py_tp_traverse, core_traverse},
    {Py_tp_clear, core_clear},
    {Py_tp_methods, core_methods},
    {Py_tp_members, core_members},
    {Py_tp_doc, "The C executor of one process."},
    {0, NULL},
};

PyType_Spec tg_core_spec = {
    .name = "tidegate.executor._native.Core",
    .basicsize = sizeof(CoreObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = core_slots,
};
