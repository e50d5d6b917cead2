/* run_type.c - Run: the items that one start() submitted, and what became of them. */
#include "state.h"

#include <stdlib.h>
#include <string.h>

#define SIGNAL_LOOK_NS 50000000u /* a waiting thread looks for signals this often */

static const char *const class_names[TG_CLASSES] = {"queued", "limited", "backoff", "running", "settling"};

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
    for (Py_ssize_t i = 0; i < self->n; i++) {
        if (self->values != NULL) {
            Py_CLEAR(self->values[i]);
        }
        if (self->errors != NULL) {
            Py_CLEAR(self->errors[i]);
        }
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
        if (self->values != NULL) {
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
    run_clear(self);
    PyMem_Free(self->values);
    PyMem_Free(self->errors);
    PyMem_Free(self->outcomes);
    PyMem_Free(self->fresh);
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

/* ---- take ---- */

static int set_number(PyObject *dict, const char *key, uint64_t value)
{
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    int result = number ? PyDict_SetItemString(dict, key, number) : -1;
    Py_XDECREF(number);
    return result;
}

/* "running:123", made once for each bucket: a batch has a hundred of them. */
static PyObject *coarse_key(struct tg_module_state *state, int class_, uint32_t index)
{
    PyObject **place = &state->coarse_keys[class_][index];
    if (*place == NULL) {
        *place = PyUnicode_FromFormat("%s:%u", class_names[class_], (unsigned)index);
    }
    return *place;
}

int tg_stats_add_coarse(struct tg_module_state *state, PyObject *dict, int class_, uint32_t index, uint64_t count)
{
    PyObject *key = coarse_key(state, class_, index);
    PyObject *number = key ? PyLong_FromUnsignedLongLong(count) : NULL;
    int result = number ? PyDict_SetItem(dict, key, number) : -1;
    Py_XDECREF(number);
    return result;
}

static int add_coarse(RunObject *self, PyObject *dict, int class_)
{
    struct tg_coarse_entry entries[TG_COARSE_BUCKETS];
    size_t used = 0;
    if (tg_group_get_coarse(self->group, class_, entries, TG_COARSE_BUCKETS, &used) != TG_OK || used == 0) {
        return 0;
    }
    if (self->coarse == NULL) {
        self->coarse = PyMem_Calloc(TG_CLASSES * TG_COARSE_BUCKETS, sizeof *self->coarse);
        if (self->coarse == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    uint64_t *seen = self->coarse + (size_t)class_ * TG_COARSE_BUCKETS;
    for (size_t i = 0; i < used; i++) {
        uint64_t added = entries[i].count - seen[entries[i].index];
        seen[entries[i].index] = entries[i].count;
        if (added != 0 && tg_stats_add_coarse(self->core->state, dict, class_, entries[i].index, added) < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *stats_delta(RunObject *self, const struct tg_group_stats *now)
{
    PyObject *dict = PyDict_New();
    if (dict == NULL) {
        return NULL;
    }
    for (int class_ = 0; class_ < TG_CLASSES; class_++) {
        uint64_t count = now->count[class_] - self->reported.count[class_];
        if (count == 0) {
            continue;
        }
        char key[32];
        const char *name = class_names[class_];
        PyOS_snprintf(key, sizeof key, "%s_count", name);
        int failed = set_number(dict, key, count);
        PyOS_snprintf(key, sizeof key, "%s_sum_ns", name);
        failed |= set_number(dict, key, now->sum_ns[class_] - self->reported.sum_ns[class_]);
        PyOS_snprintf(key, sizeof key, "%s_min_ns", name);
        failed |= set_number(dict, key, now->min_ns[class_]);
        PyOS_snprintf(key, sizeof key, "%s_max_ns", name);
        failed |= set_number(dict, key, now->max_ns[class_]);
        if (failed || add_coarse(self, dict, class_) < 0) {
            Py_DECREF(dict);
            return NULL;
        }
    }
    return dict;
}

struct taken {
    const uint32_t *positions; /* ascending; NULL: all from 0 to count */
    uint32_t *sorted;          /* to be freed, or NULL */
    Py_ssize_t count;
    Py_ssize_t n_ok;
    int contiguous;
    uint32_t first_ok;
};

static uint32_t position_at(const struct taken *taken, Py_ssize_t i)
{
    return taken->positions != NULL ? taken->positions[i] : (uint32_t)i;
}

/* Settled positions in ascending order: they are distinct, so marking and sweeping sorts them in linear time. */
static uint32_t *sort_positions(const RunObject *self, const uint32_t *fresh, Py_ssize_t count)
{
    uint32_t *sorted = PyMem_Malloc((size_t)count * sizeof *sorted);
    char *marks = PyMem_Calloc((size_t)self->n, 1);
    if (sorted == NULL || marks == NULL) {
        PyMem_Free(sorted);
        PyMem_Free(marks);
        PyErr_NoMemory();
        return NULL;
    }
    uint32_t low = UINT32_MAX, high = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        marks[fresh[i]] = 1;
        low = fresh[i] < low ? fresh[i] : low;
        high = fresh[i] > high ? fresh[i] : high;
    }
    Py_ssize_t at = 0;
    for (uint32_t position = low; at < count && position <= high; position++) {
        if (marks[position]) {
            sorted[at++] = position;
        }
    }
    PyMem_Free(marks);
    return sorted;
}

static int collect(RunObject *self, struct taken *taken)
{
    const uint32_t *fresh = self->fresh + self->n_taken;
    *taken = (struct taken){.positions = fresh, .count = self->n_fresh - self->n_taken, .contiguous = 1};
    if (taken->count == self->n) {
        taken->positions = NULL;
    }
    for (Py_ssize_t i = 1; taken->positions != NULL && i < taken->count; i++) {
        if (fresh[i] < fresh[i - 1]) {
            taken->positions = taken->sorted = sort_positions(self, fresh, taken->count);
            if (taken->sorted == NULL) {
                return -1;
            }
            break;
        }
    }
    uint32_t expected = 0;
    for (Py_ssize_t i = 0; i < taken->count; i++) {
        uint32_t position = position_at(taken, i);
        if (self->outcomes[position] != TG_OUTCOME_SUCCEEDED) {
            continue;
        }
        if (taken->n_ok++ == 0) {
            taken->first_ok = position;
        } else if (position != expected) {
            taken->contiguous = 0;
        }
        expected = position + 1;
    }
    return 0;
}

static int fill_successes(RunObject *self, const struct taken *taken, PyObject *values, PyObject *positions)
{
    Py_ssize_t at = 0;
    for (Py_ssize_t i = 0; i < taken->count; i++) {
        uint32_t position = position_at(taken, i);
        if (self->outcomes[position] != TG_OUTCOME_SUCCEEDED) {
            continue;
        }
        if (positions != NULL) {
            PyObject *number = PyLong_FromUnsignedLong(position);
            if (number == NULL) {
                return -1;
            }
            PyList_SET_ITEM(positions, at, number);
        }
        PyList_SET_ITEM(values, at++, self->values[position]);
        self->values[position] = NULL;
    }
    return 0;
}

static PyObject *bitmap(RunObject *self, const struct taken *taken)
{
    if (taken->count == self->n) {
        return PyBytes_FromStringAndSize(NULL, 0);
    }
    PyObject *bits = PyBytes_FromStringAndSize(NULL, (self->n + 7) / 8);
    if (bits != NULL) {
        char *bytes = PyBytes_AS_STRING(bits);
        memset(bytes, 0, (size_t)PyBytes_GET_SIZE(bits));
        for (Py_ssize_t i = 0; i < taken->count; i++) {
            bytes[taken->positions[i] >> 3] |= (char)(1u << (taken->positions[i] & 7));
        }
    }
    return bits;
}

static PyObject *swap_list(PyObject **list)
{
    PyObject *taken = *list;
    *list = NULL;
    return taken ? taken : PyList_New(0);
}

static PyObject *run_take(RunObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->core->core != NULL) {
        tg_settle_pending(self->core);
    }
    struct tg_group_stats now;
    memset(&now, 0, sizeof now);
    tg_status status = self->core->core ? tg_group_get_stats(self->group, &now) : TG_OK;
    if (status != TG_OK) {
        return tg_raise_status(self->core->state, status, "run");
    }
    int complete = self->remaining == 0;
    struct taken taken;
    if (collect(self, &taken) < 0) {
        return NULL;
    }
    PyObject *result = NULL, *positions = NULL, *bits = NULL, *stats = NULL, *attempts = NULL, *counts = NULL;
    uint64_t outcomes[TG_OUTCOMES] = {0};
    for (Py_ssize_t i = 0; i < taken.count; i++) {
        outcomes[self->outcomes[position_at(&taken, i)]]++;
    }
    PyObject *values = PyList_New(taken.n_ok);
    if (values != NULL && !taken.contiguous) {
        positions = PyList_New(taken.n_ok);
    }
    bits = bitmap(self, &taken);
    stats = stats_delta(self, &now);
    attempts = complete && self->attempts ? PyBytes_FromStringAndSize((char *)self->attempts, self->n)
                                          : PyBytes_FromStringAndSize(NULL, 0);
    counts = Py_BuildValue("(KKKKK)", (unsigned long long)outcomes[1], (unsigned long long)outcomes[2],
                           (unsigned long long)outcomes[3], (unsigned long long)outcomes[4],
                           (unsigned long long)outcomes[5]);
    if (values == NULL || (!taken.contiguous && positions == NULL) || !bits || !stats || !attempts || !counts ||
        fill_successes(self, &taken, values, positions) < 0) {
        goto done;
    }
    uint64_t executions = now.attempts - self->reported.attempts, retries = now.retries - self->reported.retries;
    self->reported = now;
    self->n_taken = self->n_fresh;
    PyObject *failures = swap_list(&self->failures);
    PyObject *returned = complete ? swap_list(&self->returned) : PyList_New(0);
    PyObject *deferred = complete ? swap_list(&self->deferred) : PyList_New(0);
    result = Py_BuildValue("(nOnOONNNOOKKO)", taken.count, bits, taken.n_ok && taken.contiguous ? (Py_ssize_t)taken.first_ok : -1,
                           positions ? positions : Py_None, values, failures, returned, deferred, attempts, counts,
                           (unsigned long long)executions, (unsigned long long)retries, stats);
done:
    PyMem_Free(taken.sorted);
    Py_XDECREF(values);
    Py_XDECREF(positions);
    Py_XDECREF(bits);
    Py_XDECREF(stats);
    Py_XDECREF(attempts);
    Py_XDECREF(counts);
    return result;
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
    {"take", (PyCFunction)run_take, METH_NOARGS, "What settled since the last take, as a tuple (see host.py)."},
    {"cancel", (PyCFunction)run_cancel, METH_NOARGS, "Waiting items end as cancelled, running coroutines are cancelled."},
    {"drain", (PyCFunction)run_drain, METH_NOARGS, "Starts nothing more of this run."},
    {"add_done_callback", (PyCFunction)run_add_done_callback, METH_O, "Calls back with the run when it is done."},
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
