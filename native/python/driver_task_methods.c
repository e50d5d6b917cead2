/* driver_task_methods.c - what asyncio.Task's methods promise, over the fields of an ItemTask. */
#include "driver_internal.h"

static PyObject *task_done(PyObject *task, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(tgd_fields_of(task)->phase != TGD_PENDING);
}

int tgd_task_cancel(PyObject *task, tgd_fields *fields, PyObject *message)
{
    (void)task;
    tgd_state *state = fields->state;
    if (fields->phase != TGD_PENDING) {
        return 0;
    }
    fields->cancels++;
    if (fields->nap && tgd_nap_interrupt(fields) < 0) {
        return -1;
    }
    if (fields->waiter) {
        /* The waiter stays: it may be a task that refuses, and has to be cancelled again. */
        PyObject *args[2] = {fields->waiter, message ? message : Py_None};
        PyObject *waiter = Py_NewRef(fields->waiter);
        PyObject *answer = PyObject_VectorcallMethod(state->s_cancel, args, 1, state->kw_msg);
        Py_DECREF(waiter);
        int cancelled = answer ? PyObject_IsTrue(answer) : -1;
        Py_XDECREF(answer);
        if (cancelled) {
            return cancelled;
        }
    }
    fields->must_cancel = 1;
    Py_XSETREF(fields->cancel_message, Py_XNewRef(message));
    return 1;
}

PyDoc_STRVAR(cancel_doc, "cancel($self, msg=None)\n--\n\nRequests that the coroutine be cancelled, as asyncio.Task.cancel does.");
static PyObject *task_cancel(PyObject *task, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"msg", NULL};
    PyObject *message = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", names, &message)) {
        return NULL;
    }
    tgd_fields *fields = tgd_fields_of(task);
    if (fields->state->at_log_traceback->set(task, Py_False, NULL) < 0) {
        return NULL;
    }
    int cancelled = tgd_task_cancel(task, fields, message);
    return cancelled < 0 ? NULL : PyBool_FromLong(cancelled);
}

PyDoc_STRVAR(cancelling_doc, "cancelling($self)\n--\n\nHow many requests for cancellation stand.");
static PyObject *task_cancelling(PyObject *task, PyObject *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(tgd_fields_of(task)->cancels);
}

PyDoc_STRVAR(uncancel_doc, "uncancel($self)\n--\n\nTakes one request for cancellation back; answers how many are left.");
static PyObject *task_uncancel(PyObject *task, PyObject *unused)
{
    (void)unused;
    tgd_fields *fields = tgd_fields_of(task);
    if (fields->cancels > 0) {
        fields->cancels--;
#if PY_VERSION_HEX >= 0x030D0000
        if (fields->cancels == 0) {
            fields->must_cancel = 0;
        }
#endif
    }
    return PyLong_FromUnsignedLong(fields->cancels);
}

static PyObject *or_none(PyObject *value)
{
    return Py_NewRef(value ? value : Py_None);
}

static PyObject *task_get_coro(PyObject *task, PyObject *unused)
{
    (void)unused;
    return or_none(tgd_fields_of(task)->coro);
}

static PyObject *task_get_context(PyObject *task, PyObject *unused)
{
    (void)unused;
    return or_none(tgd_fields_of(task)->context);
}

static PyObject *task_get_name(PyObject *task, PyObject *unused)
{
    (void)unused;
    tgd_fields *fields = tgd_fields_of(task);
    if (!fields->name) {
        fields->name = PyUnicode_FromFormat("Task-tidegate-%llu", (unsigned long long)++fields->state->names);
    }
    return Py_XNewRef(fields->name);
}

static PyObject *task_set_name(PyObject *task, PyObject *name)
{
    PyObject *text = PyObject_Str(name);
    if (!text) {
        return NULL;
    }
    Py_XSETREF(tgd_fields_of(task)->name, text);
    Py_RETURN_NONE;
}

static PyObject *task_get_stack(PyObject *task, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"limit", NULL};
    PyObject *limit = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:get_stack", names, &limit)) {
        return NULL;
    }
    return PyObject_CallFunctionObjArgs(tgd_fields_of(task)->state->format_stack, task, limit, NULL);
}

static PyObject *task_print_stack(PyObject *task, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"limit", "file", NULL};
    PyObject *limit = Py_None, *file = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OO:print_stack", names, &limit, &file)) {
        return NULL;
    }
    return PyObject_CallFunctionObjArgs(tgd_fields_of(task)->state->print_stack, task, limit, file, NULL);
}

static PyObject *task_set_result(PyObject *task, PyObject *value)
{
    (void)task;
    (void)value;
    PyErr_SetString(PyExc_RuntimeError, "Task does not support set_result operation");
    return NULL;
}

static PyObject *task_set_exception(PyObject *task, PyObject *value)
{
    (void)task;
    (void)value;
    PyErr_SetString(PyExc_RuntimeError, "Task does not support set_exception operation");
    return NULL;
}

/* The error that a cancelled task raises: the one that ended it, once; after that a new one each time. New reference. */
PyObject *tgd_task_cancelled_error(PyObject *task, tgd_fields *fields)
{
    tgd_state *state = fields->state;
    if (fields->cancelled_error) {
        PyObject *error = fields->cancelled_error;
        fields->cancelled_error = NULL;
        return error;
    }
    PyObject *message = fields->cancel_message;
    if (!message || message == Py_None) {
        return PyObject_CallNoArgs(state->cancelled_error);
    }
    (void)task;
    return PyObject_CallOneArg(state->cancelled_error, message);
}

static PyObject *task_make_cancelled_error(PyObject *task, PyObject *unused)
{
    (void)unused;
    return tgd_task_cancelled_error(task, tgd_fields_of(task));
}

static int is_cancelled(PyObject *task, tgd_fields *fields)
{
    PyObject *text = fields->state->at_state->get(task, NULL);
    int is = text == fields->state->s_cancelled
             || (text && PyUnicode_Check(text) && PyUnicode_Compare(text, fields->state->s_cancelled) == 0);
    Py_XDECREF(text);
    return is;
}

static PyObject *future_answer(PyObject *task, PyObject *method)
{
    tgd_fields *fields = tgd_fields_of(task);
    if (fields->phase != TGD_PENDING && is_cancelled(task, fields)) {
        PyObject *error = tgd_task_cancelled_error(task, fields);
        if (error) {
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
            Py_DECREF(error);
        }
        return NULL;
    }
    return PyObject_CallOneArg(method, task);
}

PyObject *tgd_task_result(PyObject *task, PyObject *unused)
{
    (void)unused;
    return future_answer(task, tgd_fields_of(task)->state->future_result);
}

static PyObject *task_exception(PyObject *task, PyObject *unused)
{
    (void)unused;
    return future_answer(task, tgd_fields_of(task)->state->future_exception);
}

static PyObject *task_add_done_callback(PyObject *task, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fn", "context", NULL};
    PyObject *function, *context = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$O:add_done_callback", names, &function, &context)) {
        return NULL;
    }
    tgd_fields *fields = tgd_fields_of(task);
    fields->touched = 1;
    PyObject *call[3] = {task, function, context};
    return PyObject_Vectorcall(fields->state->future_add_done_callback, call, 2, context ? fields->state->kw_context : NULL);
}

#define DOC_LIKE_TASK(name) PyDoc_STR("As asyncio.Task." name ".")
PyMethodDef tgd_task_methods[] = {
    {"done", task_done, METH_NOARGS, DOC_LIKE_TASK("done")},
    {"cancel", (PyCFunction)(void (*)(void))task_cancel, METH_VARARGS | METH_KEYWORDS, cancel_doc},
    {"cancelling", task_cancelling, METH_NOARGS, cancelling_doc},
    {"uncancel", task_uncancel, METH_NOARGS, uncancel_doc},
    {"get_coro", task_get_coro, METH_NOARGS, DOC_LIKE_TASK("get_coro")},
    {"get_context", task_get_context, METH_NOARGS, DOC_LIKE_TASK("get_context")},
    {"get_name", task_get_name, METH_NOARGS, DOC_LIKE_TASK("get_name")},
    {"set_name", task_set_name, METH_O, DOC_LIKE_TASK("set_name")},
    {"get_stack", (PyCFunction)(void (*)(void))task_get_stack, METH_VARARGS | METH_KEYWORDS, DOC_LIKE_TASK("get_stack")},
    {"print_stack", (PyCFunction)(void (*)(void))task_print_stack, METH_VARARGS | METH_KEYWORDS,
     DOC_LIKE_TASK("print_stack")},
    {"set_result", task_set_result, METH_O, DOC_LIKE_TASK("set_result")},
    {"set_exception", task_set_exception, METH_O, DOC_LIKE_TASK("set_exception")},
    {"result", tgd_task_result, METH_NOARGS, DOC_LIKE_TASK("result")},
    {"exception", task_exception, METH_NOARGS, DOC_LIKE_TASK("exception")},
    {"add_done_callback", (PyCFunction)(void (*)(void))task_add_done_callback, METH_VARARGS | METH_KEYWORDS,
     DOC_LIKE_TASK("add_done_callback")},
    {"_make_cancelled_error", task_make_cancelled_error, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *get_coro_attribute(PyObject *task, void *closure)
{
    (void)closure;
    return or_none(tgd_fields_of(task)->coro);
}

static PyObject *get_waiter(PyObject *task, void *closure)
{
    (void)closure;
    return or_none(tgd_fields_of(task)->waiter);
}

static PyObject *get_must_cancel(PyObject *task, void *closure)
{
    (void)closure;
    return PyBool_FromLong(tgd_fields_of(task)->must_cancel);
}

static PyObject *get_log_destroyed(PyObject *task, void *closure)
{
    (void)closure;
    return PyBool_FromLong(tgd_fields_of(task)->log_destroyed);
}

static int set_log_destroyed(PyObject *task, PyObject *value, void *closure)
{
    (void)closure;
    int is = value ? PyObject_IsTrue(value) : -1;
    if (is < 0) {
        if (!value) {
            PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
        }
        return -1;
    }
    tgd_fields_of(task)->log_destroyed = (uint8_t)is;
    return 0;
}

static PyObject *get_cancel_message(PyObject *task, void *closure)
{
    (void)closure;
    return or_none(tgd_fields_of(task)->cancel_message);
}

static int set_cancel_message(PyObject *task, PyObject *value, void *closure)
{
    (void)closure;
    Py_XSETREF(tgd_fields_of(task)->cancel_message, Py_XNewRef(value));
    return 0;
}

/* Whoever takes the dict may write to it without passing through the task. */
static PyObject *get_dict(PyObject *task, void *closure)
{
    tgd_fields_of(task)->touched = 1;
    return PyObject_GenericGetDict(task, closure);
}

PyGetSetDef tgd_task_attributes[] = {
    {"_coro", get_coro_attribute, NULL, NULL, NULL},
    {"_fut_waiter", get_waiter, NULL, NULL, NULL},
    {"_must_cancel", get_must_cancel, NULL, NULL, NULL},
    {"_log_destroy_pending", get_log_destroyed, set_log_destroyed, NULL, NULL},
    {"_cancel_message", get_cancel_message, set_cancel_message, NULL, NULL},
    {"__dict__", get_dict, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
