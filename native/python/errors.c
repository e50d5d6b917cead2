/* errors.c - core statuses as Python exceptions. */
#include "state.h"

static PyObject *raise_with_remedy(PyObject *type, const char *what, const char *cause, const char *remedy)
{
    PyObject *error = NULL;
    PyObject *text = PyUnicode_FromFormat("%s: %s", what, cause);
    PyObject *args = text ? PyTuple_Pack(1, text) : NULL;
    PyObject *kwargs = Py_BuildValue("{s:s}", "remedy", remedy);
    if (args && kwargs) {
        error = PyObject_Call(type, args, kwargs);
    }
    if (error) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    }
    Py_XDECREF(text);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_XDECREF(error);
    return NULL;
}

PyObject *tg_raise_status(struct tg_module_state *state, tg_status status, const char *what)
{
    switch (status) {
    case TG_NOMEM:
        return PyErr_NoMemory();
    case TG_CLOSED:
        return raise_with_remedy(state->closed_error, what, "is closed", "create a new one");
    case TG_FORKED:
        return raise_with_remedy(state->closed_error, what, "belongs to the process that this one was forked from",
                                 "create a new one after the fork");
    case TG_FULL:
        return raise_with_remedy(state->full_error, what, "there is no room for these items",
                                 "wait for running ones, or submit fewer at once");
    case TG_INVALID:
        return raise_with_remedy(state->configuration_error, what, "an argument is outside its range",
                                 "see the documentation of the option");
    case TG_IO:
    case TG_SYSTEM:
        return PyErr_SetFromErrno(PyExc_OSError);
    case TG_CORRUPT:
    case TG_VERSION:
        PyErr_Format(PyExc_ValueError, "%s: %s", what, tg_status_message(status));
        return NULL;
    default:
        PyErr_Format(PyExc_RuntimeError, "%s: %s", what, tg_status_message(status));
        return NULL;
    }
}
