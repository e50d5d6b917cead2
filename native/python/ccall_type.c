/* ccall_type.c - CCall: a C function applied to many elements, with no GIL, on the core's pool of threads. */
#include "state.h"

#include <string.h>

#define SIGNAL_LOOK_NS 50000000u

typedef struct {
    PyObject_HEAD
    CoreObject *core;
    LaneObject *lane;
    struct tg_group *group;
    PyObject *callbacks;
    PyObject *keep; /* what owns the function's memory */
    Py_buffer in;
    Py_buffer out;
    int has_in, has_out;
    size_t n;
    unsigned char *packed; /* bytes elements, one after another */
    size_t *offsets;
    unsigned char *outputs;
    size_t out_stride;
    size_t *out_lens;
    int *statuses;
    struct tg_ccall_end *ends;
    int hard; /* counted in core->hard_calls */
    int done;
} CCallObject;

static int ccall_traverse(CCallObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->core);
    Py_VISIT(self->lane);
    Py_VISIT(self->callbacks);
    Py_VISIT(self->keep);
    return 0;
}

static int ccall_clear(CCallObject *self)
{
    Py_CLEAR(self->callbacks);
    Py_CLEAR(self->keep);
    return 0;
}

static void ccall_dealloc(CCallObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->group != NULL && self->core->core != NULL) {
        tg_group_destroy(self->group);
    }
    if (self->has_in) {
        PyBuffer_Release(&self->in);
    }
    if (self->has_out) {
        PyBuffer_Release(&self->out);
    }
    PyMem_Free(self->packed);
    PyMem_Free(self->offsets);
    PyMem_Free(self->outputs);
    PyMem_Free(self->out_lens);
    PyMem_Free(self->statuses);
    PyMem_Free(self->ends);
    ccall_clear(self);
    Py_XDECREF(self->lane);
    Py_XDECREF(self->core);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

void tg_ccall_finished(PyObject *object)
{
    CCallObject *self = (CCallObject *)object;
    self->done = 1;
    if (self->hard) {
        self->hard = 0;
        atomic_fetch_sub(&self->core->hard_calls, 1);
    }
    PyObject *callbacks = self->callbacks;
    self->callbacks = NULL;
    for (Py_ssize_t i = 0; callbacks != NULL && i < PyList_GET_SIZE(callbacks); i++) {
        PyObject *result = PyObject_CallOneArg(PyList_GET_ITEM(callbacks, i), object);
        if (result == NULL) {
            PyErr_WriteUnraisable(PyList_GET_ITEM(callbacks, i));
        }
        Py_XDECREF(result);
    }
    Py_XDECREF(callbacks);
    Py_DECREF(self);
}

/* ---- start ---- */

static int take_doubles(CCallObject *self, PyObject *in, PyObject *out)
{
    if (PyObject_GetBuffer(in, &self->in, PyBUF_CONTIG_RO | PyBUF_FORMAT) < 0) {
        return -1;
    }
    self->has_in = 1;
    if (PyObject_GetBuffer(out, &self->out, PyBUF_CONTIG | PyBUF_FORMAT) < 0) {
        return -1;
    }
    self->has_out = 1;
    const char *format = self->in.format ? self->in.format : "B", *target = self->out.format ? self->out.format : "B";
    if (strcmp(format, "d") != 0 || strcmp(target, "d") != 0 || self->in.len != self->out.len) {
        PyErr_SetString(PyExc_TypeError, "double(double) needs two contiguous buffers of doubles of the same length");
        return -1;
    }
    self->n = (size_t)self->in.len / sizeof(double);
    return 0;
}

static int take_bytes(CCallObject *self, PyObject *items, Py_ssize_t stride)
{
    Py_ssize_t n = PyList_GET_SIZE(items), total = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PyList_GET_ITEM(items, i);
        if (!PyBytes_Check(item)) {
            PyErr_Format(PyExc_TypeError, "element %zd is %.80s, not bytes", i, Py_TYPE(item)->tp_name);
            return -1;
        }
        total += PyBytes_GET_SIZE(item);
    }
    self->n = (size_t)n;
    self->out_stride = (size_t)stride;
    self->packed = PyMem_Malloc((size_t)total + 1);
    self->offsets = PyMem_Malloc(((size_t)n + 1) * sizeof *self->offsets);
    self->outputs = PyMem_Calloc((size_t)n * (size_t)stride + 1, 1);
    self->out_lens = PyMem_Calloc((size_t)n + 1, sizeof *self->out_lens);
    if (!self->packed || !self->offsets || !self->outputs || !self->out_lens) {
        PyErr_NoMemory();
        return -1;
    }
    size_t at = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PyList_GET_ITEM(items, i);
        self->offsets[i] = at;
        memcpy(self->packed + at, PyBytes_AS_STRING(item), (size_t)PyBytes_GET_SIZE(item));
        at += (size_t)PyBytes_GET_SIZE(item);
    }
    self->offsets[n] = at;
    return 0;
}

static int ensure_pool(CoreObject *core, unsigned threads)
{
    /* With the GIL: one thread at a time. A pool that was made for functions that compute is too small for ones that wait. */
    tg_status status = core->cpool != NULL ? tg_cpool_grow(core->cpool, threads)
                                           : tg_cpool_create(core->core, threads, &core->cpool);
    if (status != TG_OK) {
        tg_raise_status(core->state, status, "C pool");
        return -1;
    }
    return 0;
}

static int submit(CCallObject *self, unsigned long long address, int doubles)
{
    struct tg_group_options options = {.payload = self, .histograms = 1, .open = 1};
    struct tg_ccall call = {
        .n = self->n, .statuses = doubles ? NULL : self->statuses, .ends = self->ends, .hard_ns = self->lane->hard_ns};
    if (doubles) {
        call.double_function = (tg_double_function)(uintptr_t)address;
        call.in_doubles = self->in.buf;
        call.out_doubles = self->out.buf;
    } else {
        call.bytes_function = (tg_bytes_function)(uintptr_t)address;
        call.in = self->packed;
        call.in_offsets = self->offsets;
        call.out = self->outputs;
        call.out_stride = self->out_stride;
        call.out_lens = self->out_lens;
    }
    tg_status status = tg_group_create(self->lane->lane, &options, &self->group);
    if (status != TG_OK) {
        tg_raise_status(self->core->state, status, "run");
        return -1;
    }
    Py_INCREF(self); /* the core's: dropped in tg_ccall_finished */
    if (call.hard_ns != 0) {
        self->hard = 1;
        atomic_fetch_add(&self->core->hard_calls, 1);
        if (atomic_load(&self->core->watch_idle)) {
            tg_watchdog_note(self->core);
        }
    }
    status = self->n != 0 ? tg_core_submit_ccall(self->core->core, self->group, &call, 0) : TG_OK;
    tg_status sealed = tg_group_seal(self->group);
    if (status != TG_OK || sealed != TG_OK) {
        tg_settle_pending(self->core);
        tg_raise_status(self->core->state, status != TG_OK ? status : sealed, "run");
        return -1;
    }
    return 0;
}

PyObject *tg_ccall_start(LaneObject *lane, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"address", "doubles", "items", "out", "out_stride", "threads", "keep", NULL};
    unsigned long long address;
    int doubles;
    PyObject *items, *out = Py_None, *keep = Py_None;
    Py_ssize_t stride = 0;
    unsigned threads = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KpO|$OnIO", names, &address, &doubles, &items, &out, &stride, &threads,
                                     &keep) ||
        !tg_alive(lane->core)) {
        return NULL;
    }
    if (lane->kind != TG_KIND_C || address == 0 || stride < 0 || threads == 0 || (!doubles && !PyList_Check(items))) {
        PyErr_SetString(PyExc_ValueError, "start_c needs a lane for C functions, an address, and a list of bytes or buffers");
        return NULL;
    }
    CCallObject *self = PyObject_GC_New(CCallObject, lane->core->state->ccall_type);
    if (self == NULL) {
        return NULL;
    }
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->core = (CoreObject *)Py_NewRef(lane->core);
    self->lane = (LaneObject *)Py_NewRef(lane);
    self->keep = Py_NewRef(keep);
    PyObject_GC_Track(self);
    int failed = doubles ? take_doubles(self, items, out) : take_bytes(self, items, stride);
    if (!failed && ((self->statuses = PyMem_Calloc(self->n + 1, sizeof(int))) == NULL ||
                    (self->ends = PyMem_Calloc(self->n + 1, sizeof *self->ends)) == NULL)) {
        PyErr_NoMemory();
        failed = -1;
    }
    /* A serving thread too: it hears of the end when nobody waits. */
    if (failed || ensure_pool(lane->core, threads) < 0 || tg_threads_ensure(lane->core) < 0 || submit(self, address, doubles) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* ---- reading ---- */

static PyObject *ccall_wait(CCallObject *self, PyObject *arg)
{
    long long timeout_ns = PyLong_AsLongLong(arg);
    if (PyErr_Occurred()) {
        return NULL;
    }
    CoreObject *core = self->core;
    if (core->core == NULL || tg_core_check(core->core) == TG_FORKED) {
        return tg_raise_status(core->state, core->core ? TG_FORKED : TG_CLOSED, "run");
    }
    uint64_t deadline_ns = timeout_ns < 0 ? TG_NEVER : tg_core_now(core->core) + (uint64_t)timeout_ns;
    while (!tg_group_done(self->group)) {
        uint64_t now = tg_core_now(core->core);
        if (now >= deadline_ns || core->closed > 1) {
            Py_RETURN_FALSE;
        }
        uint64_t wait_ns = deadline_ns - now < SIGNAL_LOOK_NS ? deadline_ns - now : SIGNAL_LOOK_NS;
        Py_BEGIN_ALLOW_THREADS
        tg_group_wait(self->group, wait_ns);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals() < 0) {
            return NULL;
        }
    }
    tg_settle_pending(core);
    Py_RETURN_TRUE;
}

static PyObject *ccall_outputs(CCallObject *self, PyObject *Py_UNUSED(ignored))
{
    size_t n = self->outputs ? self->n : 0;
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list != NULL && i < n; i++) {
        size_t length = self->out_lens[i] < self->out_stride ? self->out_lens[i] : self->out_stride;
        PyObject *bytes = PyBytes_FromStringAndSize((char *)self->outputs + i * self->out_stride, (Py_ssize_t)length);
        if (bytes == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, bytes);
    }
    return list;
}

static PyObject *ccall_times(CCallObject *self, PyObject *arg)
{
    Py_ssize_t position = PyLong_AsSsize_t(arg);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (position < 0 || (size_t)position >= self->n) {
        PyErr_SetString(PyExc_IndexError, "there is no element of this position");
        return NULL;
    }
    const struct tg_ccall_end *end = &self->ends[position];
    return Py_BuildValue("(KKI)", (unsigned long long)end->run_ns, (unsigned long long)end->wait_ns, end->attempts);
}

static PyObject *ccall_failures(CCallObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < self->n; i++) {
        const struct tg_ccall_end *end = &self->ends[i];
        if (end->outcome == TG_OUTCOME_SUCCEEDED) {
            continue;
        }
        PyObject *entry = Py_BuildValue("(niiiIK)", (Py_ssize_t)i, end->outcome, end->reason, self->statuses[i],
                                        end->attempts, (unsigned long long)end->run_ns);
        if (entry == NULL || PyList_Append(list, entry) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(entry);
    }
    return list;
}

static PyObject *ccall_add_done_callback(CCallObject *self, PyObject *callback)
{
    if (self->core->core != NULL) {
        tg_settle_pending(self->core);
    }
    if (self->done) {
        return PyObject_CallOneArg(callback, (PyObject *)self);
    }
    if ((self->callbacks == NULL && (self->callbacks = PyList_New(0)) == NULL) ||
        PyList_Append(self->callbacks, callback) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *ccall_counts(CCallObject *self, PyObject *Py_UNUSED(ignored))
{
    struct tg_group_stats stats;
    tg_status status = self->core->core ? tg_group_get_stats(self->group, &stats) : TG_CLOSED;
    if (status != TG_OK) {
        return tg_raise_status(self->core->state, status, "run");
    }
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K}", "total", (unsigned long long)stats.total, "succeeded",
                         (unsigned long long)stats.outcomes[TG_OUTCOME_SUCCEEDED], "failed",
                         (unsigned long long)stats.outcomes[TG_OUTCOME_FAILED], "cancelled",
                         (unsigned long long)stats.outcomes[TG_OUTCOME_CANCELLED], "executions",
                         (unsigned long long)stats.attempts, "retries", (unsigned long long)stats.retries);
}

static PyObject *ccall_cancel(CCallObject *self, PyObject *Py_UNUSED(ignored))
{
    tg_status status = self->core->core ? tg_group_cancel(self->group, NULL) : TG_OK;
    if (status != TG_OK) {
        return tg_raise_status(self->core->state, status, "run");
    }
    Py_RETURN_NONE;
}

static PyObject *ccall_get_done(CCallObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->core->core ? tg_group_done(self->group) : self->done);
}

static PyMethodDef ccall_methods[] = {
    {"wait", (PyCFunction)ccall_wait, METH_O, "wait(timeout_ns): whether every element ended; -1 waits for ever."},
    {"times", (PyCFunction)ccall_times, METH_O, "(run_ns, wait_ns, attempts) of an element."},
    {"failures", (PyCFunction)ccall_failures, METH_NOARGS,
     "(position, outcome, reason, status, attempts, run_ns) of each element that did not succeed."},
    {"add_done_callback", (PyCFunction)ccall_add_done_callback, METH_O, "Calls back with the call when it is done."},
    {"outputs", (PyCFunction)ccall_outputs, METH_NOARGS, "Outputs of int(bytes,out), in order."},
    {"counts", (PyCFunction)ccall_counts, METH_NOARGS, "Elements by outcome, executions, retries."},
    {"cancel", (PyCFunction)ccall_cancel, METH_NOARGS, "Elements that have not started do not start."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ccall_getset[] = {
    {"done", (getter)ccall_get_done, NULL, "Whether every element ended.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ccall_slots[] = {
    {Py_tp_dealloc, ccall_dealloc},
    {Py_tp_traverse, ccall_traverse},
    {Py_tp_clear, ccall_clear},
    {Py_tp_methods, ccall_methods},
    {Py_tp_getset, ccall_getset},
    {Py_tp_doc, "A C function applied to many elements without the GIL."},
    {0, NULL},
};

PyType_Spec tg_ccall_spec = {
    .name = "tidegate.executor._native.CCall",
    .basicsize = sizeof(CCallObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ccall_slots,
};
