/* limit_type.c - Limit: what an attempt must be granted before it starts. */
#include "state.h"

static void limit_dealloc(LimitObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    /* The core object destroys its limits with itself; one that no lane has goes now. */
    if (self->limit != NULL && self->core != NULL && self->core->core != NULL) {
        tg_limit_destroy(self->limit);
    }
    Py_XDECREF(self->core);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static int limit_traverse(LimitObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->core);
    return 0;
}

static PyObject *answer(LimitObject *self, tg_status status)
{
    if (status != TG_OK) {
        return tg_raise_status(self->core->state, status, "limit");
    }
    Py_RETURN_NONE;
}

static PyObject *limit_set_capacity(LimitObject *self, PyObject *arg)
{
    unsigned long permits = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred() || !tg_alive(self->core)) {
        return NULL;
    }
    return answer(self, tg_limit_set_capacity(self->limit, (uint32_t)permits));
}

static PyObject *limit_set_rate(LimitObject *self, PyObject *args)
{
    unsigned long long count, period_ns;
    unsigned burst;
    if (!PyArg_ParseTuple(args, "KKI", &count, &period_ns, &burst) || !tg_alive(self->core)) {
        return NULL;
    }
    return answer(self, tg_limit_set_rate(self->limit, count, period_ns, burst));
}

static PyObject *limit_offer(LimitObject *self, PyObject *args)
{
    unsigned long long start_ns, interval_ns, tolerance_ns;
    unsigned count;
    if (!PyArg_ParseTuple(args, "KKIK", &start_ns, &interval_ns, &count, &tolerance_ns) || !tg_alive(self->core)) {
        return NULL;
    }
    return answer(self, tg_limit_offer(self->limit, start_ns, interval_ns, count, tolerance_ns));
}

static PyObject *limit_pause_until(LimitObject *self, PyObject *arg)
{
    unsigned long long until_ns = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred() || !tg_alive(self->core)) {
        return NULL;
    }
    return answer(self, tg_limit_pause_until(self->limit, until_ns));
}

/* ---- keyed limits ---- */

static PyObject *limit_pause_key_until(LimitObject *self, PyObject *args)
{
    unsigned long long key, until_ns;
    if (!PyArg_ParseTuple(args, "KK", &key, &until_ns) || !tg_alive(self->core)) {
        return NULL;
    }
    return answer(self, tg_limit_pause_key_until(self->limit, key, until_ns));
}

static PyObject *limit_offer_key(LimitObject *self, PyObject *args)
{
    unsigned long long key, start_ns, interval_ns, tolerance_ns;
    unsigned count;
    if (!PyArg_ParseTuple(args, "KKKIK", &key, &start_ns, &interval_ns, &count, &tolerance_ns) || !tg_alive(self->core)) {
        return NULL;
    }
    return answer(self, tg_limit_offer_key(self->limit, key, start_ns, interval_ns, count, tolerance_ns));
}

static PyObject *limit_set_key_permits(LimitObject *self, PyObject *arg)
{
    PyObject *pairs = PySequence_Fast(arg, "give a sequence of (key, permits)");
    if (pairs == NULL) {
        return NULL;
    }
    Py_ssize_t n = PySequence_Fast_GET_SIZE(pairs);
    struct tg_key_permits *permits = PyMem_Calloc((size_t)n + 1, sizeof *permits);
    PyObject *result = permits ? NULL : PyErr_NoMemory();
    for (Py_ssize_t i = 0; permits != NULL && i < n; i++) {
        unsigned long long key;
        unsigned count;
        PyObject *pair = PySequence_Fast_GET_ITEM(pairs, i);
        if (!PyTuple_Check(pair) || !PyArg_ParseTuple(pair, "KI", &key, &count)) {
            if (!PyErr_Occurred()) {
                PyErr_SetString(PyExc_TypeError, "give a sequence of (key, permits)");
            }
            goto done;
        }
        permits[i] = (struct tg_key_permits){key, count};
    }
    if (permits != NULL && tg_alive(self->core)) {
        result = answer(self, tg_limit_set_key_permits(self->limit, permits, (size_t)n));
    }
done:
    PyMem_Free(permits);
    Py_DECREF(pairs);
    return result;
}

static PyObject *limit_take_news(LimitObject *self, PyObject *arg)
{
    struct tg_key_news *news;
    unsigned long max = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred() || !tg_alive(self->core)) {
        return NULL;
    }
    max = max < 100000 ? max : 100000;
    if ((news = PyMem_Malloc((max + 1) * sizeof *news)) == NULL) {
        return PyErr_NoMemory();
    }
    size_t n;
    tg_status status = tg_limit_take_news(self->limit, news, max, &n);
    PyObject *list = status == TG_OK ? PyList_New((Py_ssize_t)n) : tg_raise_status(self->core->state, status, "limit");
    for (size_t i = 0; list != NULL && i < n; i++) {
        PyObject *entry = Py_BuildValue("(KKKK)", (unsigned long long)news[i].key, (unsigned long long)news[i].waiting,
                                        (unsigned long long)news[i].in_use, (unsigned long long)news[i].used);
        if (entry == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, entry);
    }
    PyMem_Free(news);
    return list;
}

static PyObject *limit_trim(LimitObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->core->core != NULL) {
        tg_limit_trim(self->limit);
    }
    Py_RETURN_NONE;
}

static PyObject *limit_stats(LimitObject *self, PyObject *Py_UNUSED(ignored))
{
    struct tg_limit_stats stats;
    tg_status status = self->core->core ? tg_limit_get_stats(self->limit, &stats) : TG_CLOSED;
    if (status != TG_OK) {
        return tg_raise_status(self->core->state, status, "limit");
    }
    return Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K}", "demand", (unsigned long long)stats.demand, "granted",
        (unsigned long long)stats.granted, "refused", (unsigned long long)stats.refused, "in_use",
        (unsigned long long)stats.in_use, "peak_in_use", (unsigned long long)stats.peak_in_use, "keys",
        (unsigned long long)stats.keys, "keys_forgotten", (unsigned long long)stats.keys_forgotten, "offered",
        (unsigned long long)stats.offered, "discarded", (unsigned long long)stats.discarded, "available",
        (unsigned long long)stats.available, "opened", (unsigned long long)stats.opened, "paused_until_ns",
        (unsigned long long)stats.paused_until_ns);
}

static PyObject *limit_demand(LimitObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(self->core->core ? tg_limit_demand(self->limit) : 0);
}

static PyMethodDef limit_methods[] = {
    {"set_capacity", (PyCFunction)limit_set_capacity, METH_O, "Permits from now on."},
    {"set_rate", (PyCFunction)limit_set_rate, METH_VARARGS, "set_rate(count, period_ns, burst)"},
    {"offer", (PyCFunction)limit_offer, METH_VARARGS, "offer(start_ns, interval_ns, count, tolerance_ns)"},
    {"pause_until", (PyCFunction)limit_pause_until, METH_O, "Nothing starts before this monotonic time; 0 ends a pause."},
    {"pause_key_until", (PyCFunction)limit_pause_key_until, METH_VARARGS, "pause_key_until(key, monotonic_ns)"},
    {"offer_key", (PyCFunction)limit_offer_key, METH_VARARGS, "offer_key(key, start_ns, interval_ns, count, tolerance_ns)"},
    {"set_key_permits", (PyCFunction)limit_set_key_permits, METH_O, "Permits of each (key, permits) from now on."},
    {"take_news", (PyCFunction)limit_take_news, METH_O,
     "At most so many (key, waiting, in_use, used) of keys that changed since they were last told."},
    {"trim", (PyCFunction)limit_trim, METH_NOARGS, "Forgets idle keys now."},
    {"stats", (PyCFunction)limit_stats, METH_NOARGS, "Counters by name."},
    {"demand", (PyCFunction)limit_demand, METH_NOARGS, "Items that wait for this limit now."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot limit_slots[] = {
    {Py_tp_dealloc, limit_dealloc},
    {Py_tp_traverse, limit_traverse},
    {Py_tp_methods, limit_methods},
    {Py_tp_doc, "A bound on attempts: concurrency, rate, supplied permits, or a circuit breaker."},
    {0, NULL},
};

PyType_Spec tg_limit_spec = {
    .name = "tidegate.executor._native.Limit",
    .basicsize = sizeof(LimitObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = limit_slots,
};
