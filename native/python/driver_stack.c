/* driver_stack.c - where a suspended coroutine stands: the chain of awaits, read only when somebody asks. */
#include "driver_internal.h"

#define TGD_STACK_MAX 200 /* awaits; a chain may not end when tasks wait for each other */

/* async_generator_asend and coroutine_wrapper do not say whom they drive, but show it to the garbage collector. */
static int first_drivable(PyObject *candidate, void *arg)
{
    PyObject **found = arg;
    if (!*found && (PyCoro_CheckExact(candidate) || PyAsyncGen_CheckExact(candidate) || PyGen_CheckExact(candidate))) {
        *found = candidate;
    }
    return 0;
}

/* Whom this link of the chain waits for: a new reference, or NULL at the end. */
static PyObject *next_link(PyObject *link, const char **frame_attribute)
{
    static const struct {
        const char *frame, *awaits;
    } kinds[] = {{"cr_frame", "cr_await"}, {"gi_frame", "gi_yieldfrom"}, {"ag_frame", "ag_await"}};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        PyObject *awaited = PyObject_GetAttrString(link, kinds[i].awaits);
        if (awaited) {
            *frame_attribute = kinds[i].frame;
            return awaited;
        }
        PyErr_Clear();
    }
    PyObject *found = NULL;
    if (PyObject_IS_GC(link) && Py_TYPE(link)->tp_traverse
        && (strcmp(Py_TYPE(link)->tp_name, "async_generator_asend") == 0
            || strcmp(Py_TYPE(link)->tp_name, "async_generator_athrow") == 0
            || strcmp(Py_TYPE(link)->tp_name, "coroutine_wrapper") == 0)) {
        Py_TYPE(link)->tp_traverse(link, first_drivable, &found);
    }
    return Py_XNewRef(found);
}

static int append_frame(PyObject *list, PyObject *link, const char *frame_attribute)
{
    PyObject *frame = PyObject_GetAttrString(link, frame_attribute);
    if (!frame || !PyFrame_Check(frame)) {
        PyErr_Clear();
        Py_XDECREF(frame);
        return 0;
    }
    PyCodeObject *code = PyFrame_GetCode((PyFrameObject *)frame);
    int line = PyFrame_GetLineNumber((PyFrameObject *)frame);
    PyObject *entry = Py_BuildValue("(OiO)", code->co_filename, line, code->co_qualname);
    int failed = entry ? PyList_Append(list, entry) : -1;
    Py_XDECREF(entry);
    Py_DECREF(code);
    Py_DECREF(frame);
    return failed;
}

/* The end of a task's own chain. Does it wait for another task? Then its coroutine is the next link. Steals *task. */
static PyObject *coroutine_of_awaited_task(PyObject **task)
{
    PyObject *waiter = PyObject_GetAttrString(*task, "_fut_waiter");
    PyObject *coro = waiter ? PyObject_CallMethod(waiter, "get_coro", NULL) : NULL;
    PyErr_Clear();
    Py_DECREF(*task);
    *task = waiter;
    return coro;
}

PyObject *tg_driver_stack(PyObject *task)
{
    PyObject *list = PyList_New(0), *current = Py_NewRef(task);
    PyObject *link = Py_XNewRef(tgd_fields_of(task)->coro);
    for (int depth = 0; list && link && link != Py_None && depth < TGD_STACK_MAX; depth++) {
        const char *frame_attribute = NULL;
        PyObject *next = next_link(link, &frame_attribute);
        if (frame_attribute && append_frame(list, link, frame_attribute) < 0) {
            Py_CLEAR(list);
        }
        Py_DECREF(link);
        link = next ? next : current ? coroutine_of_awaited_task(&current) : NULL;
    }
    Py_XDECREF(link);
    Py_XDECREF(current);
    return list;
}
