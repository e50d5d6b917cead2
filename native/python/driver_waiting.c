/* driver_waiting.c - `await task`: like the iterator of asyncio.Future, but the error of a cancelled task keeps the
 * traceback of where it was cancelled (asyncio's own iterator reads that from a field we cannot reach). */
#include "driver_internal.h"

typedef struct tgd_waiting {
    PyObject_HEAD
    PyObject *task; /* NULL once it has answered */
} tgd_waiting;

static PySendResult waiting_send(PyObject *self, PyObject *value, PyObject **result)
{
    (void)value;
    tgd_waiting *waiting = (tgd_waiting *)self;
    PyObject *task = waiting->task;
    *result = NULL;
    if (!task) {
        return PYGEN_ERROR;
    }
    tgd_fields *fields = tgd_fields_of(task);
    tgd_state *state = fields->state;
    if (fields->phase == TGD_PENDING) {
        PyObject *blocking = state->at_blocking->get(task, NULL);
        Py_XDECREF(blocking);
        if (blocking == Py_True) {
            PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
            return PYGEN_ERROR;
        }
        if (state->at_blocking->set(task, Py_True, NULL) < 0) {
            return PYGEN_ERROR;
        }
        *result = Py_NewRef(task);
        return PYGEN_NEXT;
    }
    waiting->task = NULL;
    *result = tgd_task_result(task, NULL);
    Py_DECREF(task);
    return *result ? PYGEN_RETURN : PYGEN_ERROR;
}

/* The iterator protocol over send: the value of the end travels in StopIteration. */
static PyObject *send_or_stop(PyObject *self)
{
    PyObject *result;
    if (waiting_send(self, Py_None, &result) == PYGEN_RETURN) {
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        Py_DECREF(result);
        if (stop) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
        return NULL;
    }
    return result;
}

static PyObject *waiting_send_method(PyObject *self, PyObject *value)
{
    (void)value;
    return send_or_stop(self);
}

static PyObject *waiting_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    Py_CLEAR(((tgd_waiting *)self)->task);
    Py_RETURN_NONE;
}

static PyObject *waiting_throw(PyObject *self, PyObject *args)
{
    PyObject *type, *value = NULL, *traceback = NULL;
    if (!PyArg_ParseTuple(args, "O|OO:throw", &type, &value, &traceback)) {
        return NULL;
    }
    if (value == Py_None) {
        value = NULL;
    }
    if (traceback == Py_None) {
        traceback = NULL;
    }
    if (traceback && !PyTraceBack_Check(traceback)) {
        PyErr_SetString(PyExc_TypeError, "throw() third argument must be a traceback");
        return NULL;
    }
    if (PyExceptionInstance_Check(type)) {
        if (value) {
            PyErr_SetString(PyExc_TypeError, "instance exception may not have a separate value");
            return NULL;
        }
        value = type;
        type = (PyObject *)Py_TYPE(value);
    } else if (!PyExceptionClass_Check(type)) {
        PyErr_SetString(PyExc_TypeError, "exceptions must be classes deriving BaseException or instances of such a class");
        return NULL;
    }
    Py_CLEAR(((tgd_waiting *)self)->task);
    PyErr_Restore(Py_NewRef(type), Py_XNewRef(value),
                  traceback ? Py_NewRef(traceback) : (value == NULL || !PyExceptionInstance_Check(value))
                                                         ? NULL
                                                         : PyException_GetTraceback(value));
    return NULL;
}

static int waiting_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((tgd_waiting *)self)->task);
    return 0;
}

static int waiting_clear(PyObject *self)
{
    Py_CLEAR(((tgd_waiting *)self)->task);
    return 0;
}

static void waiting_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    waiting_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

PyObject *tgd_task_await(PyObject *task)
{
    tgd_fields *fields = tgd_fields_of(task);
    fields->touched = 1;
    tgd_waiting *waiting = PyObject_GC_New(tgd_waiting, fields->state->waiting);
    if (!waiting) {
        return NULL;
    }
    waiting->task = Py_NewRef(task);
    PyObject_GC_Track((PyObject *)waiting);
    return (PyObject *)waiting;
}

static PyMethodDef waiting_methods[] = {
    {"send", waiting_send_method, METH_O, NULL},
    {"throw", waiting_throw, METH_VARARGS, NULL},
    {"close", waiting_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot waiting_slots[] = {
    {Py_tp_iter, PyObject_SelfIter},     {Py_tp_iternext, send_or_stop},      {Py_am_send, waiting_send},
    {Py_tp_methods, waiting_methods},    {Py_tp_traverse, waiting_traverse}, {Py_tp_clear, waiting_clear},
    {Py_tp_dealloc, waiting_dealloc},    {0, NULL},
};
static PyType_Spec waiting_spec = {
    .name = "tidegate.executor._native.ItemTaskWaiting",
    .basicsize = sizeof(tgd_waiting),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = waiting_slots,
};

int tgd_waiting_type(PyObject *module, tgd_state *state)
{
    state->waiting = (PyTypeObject *)PyType_FromModuleAndSpec(module, &waiting_spec, NULL);
    return state->waiting ? 0 : -1;
}
