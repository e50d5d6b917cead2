/* driver_python.c - the driver as Python sees it: `Driver(on_settled)` on the running loop. The module's own pump does not
 * pass through here; the tests of the driver do. */
#include "driver_internal.h"

/* What a driver made from Python calls: on_settled(token, outcome, raised). */
static void call_on_settled(void *owner, uint64_t token, PyObject *outcome, int raised)
{
    tgd_driver *driver = owner;
    PyObject *done = PyObject_CallFunction(driver->on_settled, "KOO", (unsigned long long)token, outcome,
                                           raised ? Py_True : Py_False);
    if (!done) {
        PyErr_WriteUnraisable(driver->on_settled);
    }
    Py_XDECREF(done);
    Py_DECREF(driver); /* taken when the task suspended */
}

static const struct tg_driver_calls python_calls = {.settled = call_on_settled};

static PyObject *driver_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *on_settled;
    if (kwargs && PyDict_GET_SIZE(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Driver() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O:Driver", &on_settled)) {
        return NULL;
    }
    void **words = PyType_GetModuleState(type);
    tgd_state *state = words ? *words : NULL;
    PyObject *loop = state ? PyObject_CallNoArgs(state->get_running_loop) : NULL;
    if (!loop) {
        return NULL;
    }
    tgd_driver *driver = (tgd_driver *)tg_driver_create(PyType_GetModule(type), loop, &python_calls, NULL);
    Py_DECREF(loop);
    if (driver) {
        driver->owner = driver;
        driver->on_settled = Py_NewRef(on_settled);
    }
    return (PyObject *)driver;
}

PyDoc_STRVAR(step_doc, "step($self, coro, context, token=0, /)\n--\n\n"
                       "Runs the first step of a coroutine. Answers ('returned', value), ('raised', exception) or\n"
                       "('suspended', task); then on_settled(token, outcome, raised) is called when the task ends.");
static PyObject *driver_step(PyObject *self, PyObject *args)
{
    PyObject *coro, *context, *out;
    unsigned long long token = 0;
    if (!PyArg_ParseTuple(args, "OO!|K:step", &coro, &PyContext_Type, &context, &token)) {
        return NULL;
    }
    switch (tg_driver_step(self, coro, context, token, &out)) {
    case TG_STEP_RETURNED:
        return Py_BuildValue("(sN)", "returned", out);
    case TG_STEP_RAISED:
        return Py_BuildValue("(sN)", "raised", out);
    case TG_STEP_SUSPENDED:
        Py_INCREF(self); /* the owner outlives its tasks */
        return Py_BuildValue("(sN)", "suspended", out);
    default:
        return NULL;
    }
}

PyDoc_STRVAR(step_all_doc, "step_all($self, coros, context, /)\n--\n\n"
                           "Steps coroutines one after the other inside one bracket; answers the list of their outcomes,\n"
                           "with None in the place of those that suspended (their tokens are their positions).");
static PyObject *driver_step_all(PyObject *self, PyObject *args)
{
    PyObject *coros, *context;
    struct tg_driver_scope scope;
    if (!PyArg_ParseTuple(args, "OO!:step_all", &coros, &PyContext_Type, &context)) {
        return NULL;
    }
    PyObject *iterator = PyObject_GetIter(coros), *list = PyList_New(0), *coro;
    if (!iterator || !list || tg_driver_enter(self, &scope) < 0) {
        Py_XDECREF(iterator);
        Py_XDECREF(list);
        return NULL;
    }
    PyObject *shared = NULL;
    while (list && (coro = PyIter_Next(iterator))) {
        PyObject *out = NULL;
        shared = shared ? shared : PyContext_Copy(context);
        enum tg_step step = shared ? tg_driver_step(self, coro, shared, (uint64_t)PyList_GET_SIZE(list), &out) : TG_STEP_BROKEN;
        Py_DECREF(coro);
        if (step == TG_STEP_SUSPENDED) {
            Py_INCREF(self);
            Py_SETREF(out, Py_NewRef(Py_None));
            Py_CLEAR(shared);
        }
        if (step == TG_STEP_BROKEN || PyList_Append(list, out) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(out);
    }
    Py_XDECREF(shared);
    tg_driver_leave(self, &scope);
    Py_DECREF(iterator);
    if (PyErr_Occurred()) {
        Py_CLEAR(list);
    }
    return list;
}

static PyObject *driver_stack(PyObject *self, PyObject *task)
{
    if (!PyObject_TypeCheck(task, ((tgd_driver *)self)->state->item_task)) {
        PyErr_SetString(PyExc_TypeError, "stack() takes a task of this driver");
        return NULL;
    }
    return tg_driver_stack(task);
}

static PyObject *driver_get_spares(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromLong(((tgd_driver *)self)->side->n_spares);
}

static PyObject *driver_get_beats(PyObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(((tgd_driver *)self)->side->beat_fd >= 0);
}

static PyObject *driver_get_sleepers(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromSize_t(((tgd_driver *)self)->side->n_naps);
}

static int driver_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((tgd_driver *)self)->side);
    Py_VISIT(((tgd_driver *)self)->on_settled);
    return 0;
}

static int driver_clear(PyObject *self)
{
    Py_CLEAR(((tgd_driver *)self)->on_settled);
    return 0;
}

static void driver_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    tgd_state *state = ((tgd_driver *)self)->state;
    PyObject_GC_UnTrack(self);
    Py_CLEAR(((tgd_driver *)self)->on_settled);
    tgd_side *side = ((tgd_driver *)self)->side;
    if (--side->drivers == 0) {
        tgd_beat_stop(side);
        tgd_naps_rest(side);
    }
    Py_DECREF(side);
    PyObject_GC_Del(self);
    Py_DECREF(type);
    tgd_state_release(state);
}

static PyMethodDef driver_methods[] = {
    {"step", driver_step, METH_VARARGS, step_doc},
    {"step_all", driver_step_all, METH_VARARGS, step_all_doc},
    {"stack", driver_stack, METH_O, PyDoc_STR("stack($self, task, /)\n--\n\nThe chain of awaits: (file, line, function) tuples.")},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef driver_attributes[] = {
    {"spares", driver_get_spares, NULL, PyDoc_STR("How many tasks lie ready to serve again."), NULL},
    {"beats", driver_get_beats, NULL, PyDoc_STR("Is the loop kept punctual now?"), NULL},
    {"sleepers", driver_get_sleepers, NULL, PyDoc_STR("How many tasks sleep."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot driver_slots[] = {
    {Py_tp_new, driver_new},           {Py_tp_methods, driver_methods}, {Py_tp_getset, driver_attributes},
    {Py_tp_traverse, driver_traverse}, {Py_tp_clear, driver_clear},     {Py_tp_dealloc, driver_dealloc},
    {Py_tp_doc, (void *)"Driver(on_settled, /)\n--\n\nThe coroutine driver on the running loop, for its tests."},
    {0, NULL},
};
static PyType_Spec driver_spec = {
    .name = "tidegate.executor._native.Driver",
    .basicsize = sizeof(tgd_driver),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = driver_slots,
};

int tgd_driver_type(PyObject *module, tgd_state *state)
{
    state->driver = (PyTypeObject *)PyType_FromModuleAndSpec(module, &driver_spec, NULL);
    return state->driver ? PyModule_AddObjectRef(module, "Driver", (PyObject *)state->driver) : -1;
}
