/* driver_compat.c - the few things that differ between Python 3.11, 3.12 and 3.13. */
#include "driver_internal.h"

PyObject *tgd_fetch_raised(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) {
        PyException_SetTraceback(value, traceback);
        Py_DECREF(traceback);
    }
    Py_XDECREF(type);
    return value;
#endif
}

void tgd_restore_raised(PyObject *exception)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exception);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(exception)), exception, PyException_GetTraceback(exception));
#endif
}

int tgd_refers_to(PyObject *reference, PyObject *object)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *found = NULL;
    if (PyWeakref_GetRef(reference, &found) < 0) {
        PyErr_Clear();
    }
    Py_XDECREF(found);
    return found == object;
#else
    return PyWeakref_GET_OBJECT(reference) == object;
#endif
}

/* A PyContext keeps its variables in one immutable map: same pointer, nothing was set. The struct is private, so the
 * place of the pointer is tried out: a copy must share it, and setting a variable must change it. */
Py_ssize_t tgd_find_vars(void)
{
    struct known_layout {
        PyObject_HEAD
        PyObject *previous;
        PyObject *vars;
    };
    const Py_ssize_t at = (Py_ssize_t)offsetof(struct known_layout, vars);
    if (PyContext_Type.tp_basicsize < at + 2 * (Py_ssize_t)sizeof(void *)) {
        return 0;
    }
    Py_ssize_t found = 0;
    PyObject *first = PyContext_New(), *second = NULL, *variable = PyContextVar_New("tidegate_layout", NULL);
    if (first && variable && PyContext_Enter(first) == 0) {
        PyObject *token = PyContextVar_Set(variable, Py_None);
        second = PyContext_CopyCurrent();
        if (token && second) {
            void *before = *(void **)((char *)first + at);
            int shared = before == *(void **)((char *)second + at) && before != NULL;
            PyObject *again = PyContextVar_Set(variable, Py_True);
            if (shared && again && before != *(void **)((char *)first + at)
                && before == *(void **)((char *)second + at)) {
                found = at;
            }
            Py_XDECREF(again);
        }
        Py_XDECREF(token);
        PyContext_Exit(first);
    }
    Py_XDECREF(first);
    Py_XDECREF(second);
    Py_XDECREF(variable);
    PyErr_Clear();
    return found;
}
