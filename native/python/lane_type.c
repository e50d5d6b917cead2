/* lane_type.c - Lane: one task's queue, with its limits and statistics. start() submits items. */
#include "state.h"

#include <string.h>

static int lane_clear(LaneObject *self)
{
    Py_CLEAR(self->function);
    Py_CLEAR(self->classify);
    Py_CLEAR(self->limits);
    Py_CLEAR(self->keys);
    Py_CLEAR(self->errors);
    return 0;
}

static int lane_traverse(LaneObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->core);
    Py_VISIT(self->function);
    Py_VISIT(self->classify);
    Py_VISIT(self->limits);
    Py_VISIT(self->keys);
    Py_VISIT(self->errors);
    return 0;
}

static void lane_dealloc(LaneObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->lane != NULL && self->core->core != NULL && tg_lane_destroy(self->lane) == TG_OK &&
        self->kind == TG_KIND_SYNC) {
        self->core->wanted_threads -= self->concurrency;
    }
    lane_clear(self);
    for (int i = 0; i < TG_CLASSES; i++) {
        tg_histogram_destroy(NULL, self->histograms[i]);
    }
    Py_XDECREF(self->name);
    Py_XDECREF(self->core);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* ---- start ---- */

static RunObject *new_run(LaneObject *lane, PyObject *items, Py_ssize_t n)
{
    struct tg_module_state *state = lane->core->state;
    PyObject *tuple = PySequence_Tuple(items);
    if (tuple == NULL) {
        return NULL;
    }
    n = PyTuple_GET_SIZE(tuple);
    if (n > (Py_ssize_t)UINT32_MAX) {
        Py_DECREF(tuple);
        PyErr_SetString(PyExc_OverflowError, "a run takes at most 4,294,967,295 items");
        return NULL;
    }
    RunObject *run = (RunObject *)state->run_type->tp_alloc(state->run_type, 0);
    if (run == NULL) {
        Py_DECREF(tuple);
        return NULL;
    }
    run->items = tuple;
    tg_outlog_part_init(&run->outlog, (const unsigned char[16]){0});
    run->n = n;
    run->remaining = n;
    run->core = (CoreObject *)Py_NewRef(lane->core);
    run->lane = (LaneObject *)Py_NewRef(lane);
    run->outcomes = PyMem_Calloc((size_t)n + 1, 1);
    run->list = PyList_New(n);
    if (run->outcomes == NULL || run->list == NULL) {
        Py_DECREF(run);
        PyErr_NoMemory();
        return NULL;
    }
    PyObject_GC_UnTrack(run->list); /* Python code must not find a list with empty places */
    run->values = ((PyListObject *)run->list)->ob_item;
    return run;
}

static int is_skipped(const Py_buffer *skip, Py_ssize_t position)
{
    return position >> 3 < skip->len && (((const unsigned char *)skip->buf)[position >> 3] >> (position & 7)) & 1;
}

static uint64_t mix(uint64_t value)
{
    value += 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

/* What a key function answered, as the core's key. Whole numbers stand for themselves: those that limits of several
 * processes share have to be the same in all of them. -1: an error is set. */
static int key_of(PyObject *answer, uint64_t *out)
{
    if (answer == Py_None) {
        *out = TG_NO_KEY;
        return 0;
    }
    if (PyLong_CheckExact(answer)) {
        *out = PyLong_AsUnsignedLongLongMask(answer);
        *out = *out == TG_NO_KEY ? mix(*out) : *out;
        return PyErr_Occurred() ? -1 : 0;
    }
    Py_hash_t hash = PyObject_Hash(answer);
    *out = mix((uint64_t)hash);
    return hash == -1 ? -1 : 0;
}

/* The keys of one item. -1: a key function raised, the error is set. */
static int item_keys(LaneObject *lane, RunObject *run, Py_ssize_t position, uint64_t *out)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(lane->keys); i++) {
        PyObject *key = tg_call_item(PyTuple_GET_ITEM(lane->keys, i), PyTuple_GET_ITEM(run->items, position), run->shape);
        int failed = key == NULL || key_of(key, &out[i]) < 0;
        Py_XDECREF(key);
        if (failed) {
            return -1;
        }
    }
    return 0;
}

/* Marks what will not run: skipped positions, items that crashed too often, items whose key cannot be told. */
static int settle_before(LaneObject *lane, RunObject *run, const Py_buffer *skip, const Py_buffer *crashes, uint64_t *keys)
{
    Py_ssize_t n_keys = PyTuple_GET_SIZE(lane->keys);
    if (skip->len == 0 && crashes->len == 0 && n_keys == 0) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < run->n; i++) {
        if (is_skipped(skip, i)) {
            run->outcomes[i] = TG_OUTCOME_RETURNED; /* any mark: it was never this run's */
            run->remaining--;
        } else if (i < crashes->len && ((const unsigned char *)crashes->buf)[i] >= lane->max_crashes) {
            if (tg_run_settle_early(run, i, TG_OUTCOME_CRASHED, NULL) < 0) {
                return -1;
            }
        } else if (n_keys != 0 && item_keys(lane, run, i, keys + i * n_keys) < 0) {
            PyObject *error = tg_take_exception();
            int failed = tg_run_settle_early(run, i, TG_OUTCOME_FAILED, error);
            Py_DECREF(error);
            if (failed < 0) {
                return -1;
            }
        }
    }
    return 0;
}

static tg_status submit_stretches(LaneObject *lane, RunObject *run, const uint64_t *keys)
{
    struct tg_core *core = lane->core->core;
    Py_ssize_t n_keys = PyTuple_GET_SIZE(lane->keys);
    for (Py_ssize_t first = 0; first < run->n;) {
        if (run->outcomes[first] != 0) {
            first++;
            continue;
        }
        Py_ssize_t end = first + 1;
        if (run->remaining == run->n) {
            end = run->n; /* none was settled before */
        }
        while (end < run->n && run->outcomes[end] == 0) {
            end++;
        }
        size_t accepted;
        tg_status status = tg_core_submit(core, run->group, (size_t)(end - first), NULL,
                                          n_keys ? keys + first * n_keys : NULL, (uint64_t)first, 0, &accepted);
        if (status != TG_OK) {
            return status;
        }
        first = end;
    }
    return TG_OK;
}

/* Submits all or nothing; on failure an error is set and nothing of the run is left in the core. */
static int submit(LaneObject *lane, RunObject *run, const unsigned char *token, int stats, const uint64_t *keys)
{
    CoreObject *core = lane->core;
    struct tg_group_options options = {
        .payload = run, .max_wait_ns = lane->max_wait_ns, .histograms = stats, .open = 1};
    memcpy(options.token, token, sizeof options.token);
    if (tg_core_room(core->core, lane->lane) < (uint64_t)run->remaining) {
        tg_raise_status(core->state, TG_FULL, "executor");
        return -1;
    }
    tg_status status = tg_group_create(lane->lane, &options, &run->group);
    if (status != TG_OK) {
        tg_raise_status(core->state, status, "run");
        return -1;
    }
    Py_INCREF(run); /* the core's: dropped in finish_run, settle.c */
    status = submit_stretches(lane, run, keys);
    if (status != TG_OK) {
        run->cancelled = 1;
        tg_group_cancel(run->group, NULL);
    }
    tg_status sealed = tg_group_seal(run->group);
    tg_settle_pending(core);
    if (status != TG_OK || sealed != TG_OK) {
        tg_raise_status(core->state, status != TG_OK ? status : sealed, "run");
        return -1;
    }
    return 0;
}

static int fill_run(LaneObject *self, RunObject *run, PyObject *function, PyObject *context, PyObject *job_id,
                    PyObject *origin, const Py_buffer *attempts, int detail)
{
    run->function = Py_NewRef(function == Py_None ? self->function : function);
    run->job_id = Py_NewRef(job_id);
    run->origin = Py_NewRef(origin);
    if (context != Py_None) {
        if (!PyContext_CheckExact(context)) {
            PyErr_SetString(PyExc_TypeError, "context must be a contextvars.Context");
            return -1;
        }
        run->context = Py_NewRef(context);
    }
    if (attempts->len != 0) {
        if (attempts->len < run->n) {
            PyErr_SetString(PyExc_ValueError, "attempts must have a byte for each item");
            return -1;
        }
        run->prior = PyBytes_FromStringAndSize(attempts->buf, run->n);
        if (run->prior == NULL) {
            return -1;
        }
    }
    if (detail) {
        run->detail = PyMem_Calloc((size_t)run->n + 1, sizeof *run->detail);
        if (run->detail == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    return 0;
}

/* Ctrl-C came when the items were the core's already: nobody gets the run, so nobody could cancel it later. */
static void cancel_begun(RunObject *run)
{
    PyObject *raised = tg_take_exception();
    run->cancelled = 1;
    if (tg_group_cancel(run->group, NULL) == TG_OK) {
        tg_settle_pending(run->core);
    }
    PyErr_SetObject((PyObject *)Py_TYPE(raised), raised);
    Py_DECREF(raised);
}

PyObject *tg_lane_start(LaneObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"items", "function", "shape", "token", "first_index", "skip", "attempts", "crashes",
                            "context", "job_id", "origin", "detail", "stats", NULL};
    PyObject *items, *function = Py_None, *context = Py_None, *job_id = Py_None, *origin = Py_None;
    int shape = 0, detail = 0, stats = 1;
    unsigned long long first_index = 0;
    Py_buffer token = {0}, skip = {0}, attempts = {0}, crashes = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|Oiy*Ky*y*y*OOOpp", names, &items, &function, &shape, &token,
                                     &first_index, &skip, &attempts, &crashes, &context, &job_id, &origin, &detail,
                                     &stats)) {
        return NULL;
    }
    RunObject *run = NULL;
    uint64_t *keys = NULL;
    unsigned char token_bytes[16] = {0};
    if (!tg_alive(self->core)) {
        goto fail;
    }
    if (shape < 0 || shape > 2) {
        PyErr_Format(PyExc_ValueError, "shape %d is not 0, 1 or 2", shape);
        goto fail;
    }
    memcpy(token_bytes, token.buf ? token.buf : "", token.len < 16 ? (size_t)token.len : 16);
    run = new_run(self, items, 0);
    if (run == NULL || fill_run(self, run, function, context, job_id, origin, &attempts, detail) < 0) {
        goto fail;
    }
    tg_outlog_part_init(&run->outlog, token_bytes);
    run->shape = shape;
    run->first_index = first_index;
    Py_ssize_t n_keys = PyTuple_GET_SIZE(self->keys);
    if (n_keys != 0 && (keys = PyMem_Malloc((size_t)(run->n * n_keys + 1) * sizeof *keys)) == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    if (settle_before(self, run, &skip, &crashes, keys) < 0 || submit(self, run, token_bytes, stats, keys) < 0) {
        goto fail;
    }
    if (self->kind == TG_KIND_SYNC) {
        if (tg_threads_ensure(self->core) < 0) {
            cancel_begun(run);
            goto fail;
        }
    } else {
        tg_pump_wake(self->core, self->kind);
    }
    goto done;
fail:
    Py_CLEAR(run);
done:
    PyMem_Free(keys);
    PyBuffer_Release(&token);
    PyBuffer_Release(&skip);
    PyBuffer_Release(&attempts);
    PyBuffer_Release(&crashes);
    return (PyObject *)run;
}

/* ---- control ---- */

static PyObject *lane_set_concurrency(LaneObject *self, PyObject *arg)
{
    unsigned long permits = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred() || !tg_alive(self->core)) {
        return NULL;
    }
    tg_status status = tg_lane_set_concurrency(self->lane, (uint32_t)permits);
    if (status != TG_OK) {
        return tg_raise_status(self->core->state, status, "lane");
    }
    if (self->kind == TG_KIND_SYNC) {
        self->core->wanted_threads += (uint32_t)permits - self->concurrency;
    }
    self->concurrency = (uint32_t)permits;
    Py_RETURN_NONE;
}

static PyObject *lane_set_paused(LaneObject *self, PyObject *arg)
{
    int paused = PyObject_IsTrue(arg);
    if (paused < 0 || !tg_alive(self->core)) {
        return NULL;
    }
    tg_status status = tg_lane_set_paused(self->lane, paused);
    if (status != TG_OK) {
        return tg_raise_status(self->core->state, status, "lane");
    }
    Py_RETURN_NONE;
}

static PyObject *lane_snapshot(LaneObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->core->core == NULL) {
        return tg_raise_status(self->core->state, TG_CLOSED, "executor");
    }
    return tg_lane_snapshot(self);
}

static PyObject *lane_mean_run_ns(LaneObject *self, PyObject *Py_UNUSED(ignored))
{
    struct tg_lane_stats stats;
    if (self->core->core == NULL || tg_lane_get_stats(self->lane, &stats) != TG_OK) {
        return PyLong_FromLong(0);
    }
    return PyLong_FromUnsignedLongLong(stats.mean_run_ns);
}

static PyMethodDef lane_methods[] = {
    {"start", (PyCFunction)(void (*)(void))tg_lane_start, METH_VARARGS | METH_KEYWORDS, "Submits items: a Run."},
    {"start_c", (PyCFunction)(void (*)(void))tg_ccall_start, METH_VARARGS | METH_KEYWORDS, "Submits a C call: a CCall."},
    {"set_concurrency", (PyCFunction)lane_set_concurrency, METH_O, "Items at once from now on."},
    {"set_paused", (PyCFunction)lane_set_paused, METH_O, "A paused lane starts nothing."},
    {"snapshot", (PyCFunction)lane_snapshot, METH_NOARGS, "Counters and times since the last snapshot, as a dict."},
    {"mean_run_ns", (PyCFunction)lane_mean_run_ns, METH_NOARGS, "Moving average of an item's run time; 0: unknown."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lane_slots[] = {
    {Py_tp_dealloc, lane_dealloc},
    {Py_tp_traverse, lane_traverse},
    {Py_tp_clear, lane_clear},
    {Py_tp_methods, lane_methods},
    {Py_tp_doc, "One task's queue, with its limits and statistics."},
    {0, NULL},
};

PyType_Spec tg_lane_spec = {
    .name = "tidegate.executor._native.Lane",
    .basicsize = sizeof(LaneObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = lane_slots,
};
