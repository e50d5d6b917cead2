/* gather_future.c - the future of a gather: collects outcomes, passes cancellation on. Rules as in asyncio.gather. */
#include "gather.h"

Py_ssize_t tgd_gathering_at;

PyObject *tgd_gathering_new(tgd_state *state, PyObject *init_kwargs, Py_ssize_t n, int return_exceptions)
{
    PyObject *future = state->gathering->tp_alloc(state->gathering, 0);
    if (!future) {
        return NULL;
    }
    tgd_gathering *gathering = tgd_gathering_of(future);
    gathering->state = tgd_state_hold(state);
    gathering->return_exceptions = return_exceptions;
    gathering->results = PyList_New(n);
    gathering->n = n;
    if (!gathering->results || state->future->tp_init(future, state->nothing, init_kwargs) < 0) {
        Py_DECREF(future);
        return NULL;
    }
    return future;
}

static int is_done(tgd_state *state, PyObject *future)
{
    PyObject *text = state->at_state->get(future, NULL);
    int pending = text == state->s_pending || (text && PyUnicode_Compare(text, state->s_pending) == 0);
    Py_XDECREF(text);
    return !pending;
}

static int answer(tgd_state *state, PyObject *method, PyObject *future, PyObject *value)
{
    PyObject *args[2] = {future, value};
    PyObject *done = PyObject_Vectorcall(method, args, 2, NULL);
    Py_XDECREF(done);
    (void)state;
    return done ? 0 : -1;
}

static int answer_cancelled(PyObject *future, tgd_gathering *gathering)
{
    PyObject *message = gathering->cancel_message;
    PyObject *error = message && message != Py_None ? PyObject_CallOneArg(gathering->state->cancelled_error, message)
                                                    : PyObject_CallNoArgs(gathering->state->cancelled_error);
    int failed = error ? answer(gathering->state, gathering->state->future_set_exception, future, error) : -1;
    Py_XDECREF(error);
    return failed;
}

int tgd_gathering_settle(PyObject *future)
{
    tgd_gathering *gathering = tgd_gathering_of(future);
    if (gathering->pending > 0 || is_done(gathering->state, future)) {
        return 0;
    }
    if (gathering->cancel_requested) {
        return answer_cancelled(future, gathering);
    }
    PyObject *results = gathering->results;
    for (Py_ssize_t i = 0; gathering->same_as && i < gathering->n; i++) {
        Py_ssize_t first = gathering->same_as[i];
        if (first != i) {
            PyList_SetItem(results, i, Py_NewRef(PyList_GET_ITEM(results, first)));
        }
    }
    int failed = answer(gathering->state, gathering->state->future_set_result, future, results);
    Py_CLEAR(gathering->results);
    return failed;
}

int tgd_gathering_child(PyObject *future, Py_ssize_t index, PyObject *outcome, int raised)
{
    tgd_gathering *gathering = tgd_gathering_of(future);
    if (is_done(gathering->state, future)) {
        return 0;
    }
    if (raised && !gathering->return_exceptions) {
        return answer(gathering->state, gathering->state->future_set_exception, future, outcome);
    }
    return PyList_SetItem(gathering->results, index, Py_NewRef(outcome));
}

PyDoc_STRVAR(cancel_doc, "cancel($self, msg=None)\n--\n\nCancels every child that runs; answers whether there was one.");
static PyObject *gathering_cancel(PyObject *future, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"msg", NULL};
    PyObject *message = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", names, &message)) {
        return NULL;
    }
    tgd_gathering *gathering = tgd_gathering_of(future);
    tgd_state *state = gathering->state;
    int any = 0;
    if (is_done(state, future)) {
        Py_RETURN_FALSE;
    }
    for (Py_ssize_t i = 0; gathering->children && i < gathering->n; i++) {
        PyObject *child = Py_XNewRef(gathering->children[i]);
        if (child) {
            PyObject *call[2] = {child, message};
            PyObject *cancelled = PyObject_VectorcallMethod(state->s_cancel, call, 1, state->kw_msg);
            int is = cancelled ? PyObject_IsTrue(cancelled) : -1;
            Py_XDECREF(cancelled);
            Py_DECREF(child);
            if (is < 0) {
                return NULL;
            }
            any |= is;
        }
    }
    if (any) {
        gathering->cancel_requested = 1; /* even if the children swallow it: the gather itself was cancelled */
        Py_XSETREF(gathering->cancel_message, Py_NewRef(message));
    }
    return PyBool_FromLong(any);
}

static int gathering_traverse(PyObject *future, visitproc visit, void *arg)
{
    tgd_gathering *gathering = tgd_gathering_of(future);
    tgd_state *state = gathering->state;
    if (!(state->future->tp_flags & Py_TPFLAGS_HEAPTYPE)) {
        Py_VISIT(Py_TYPE(future)); /* otherwise the base type does */
    }
    for (Py_ssize_t i = 0; gathering->children && i < gathering->n; i++) {
        Py_VISIT(gathering->children[i]);
    }
    Py_VISIT(gathering->results);
    Py_VISIT(gathering->cancel_message);
    return state->future->tp_traverse(future, visit, arg);
}

static int gathering_clear(PyObject *future)
{
    tgd_gathering *gathering = tgd_gathering_of(future);
    for (Py_ssize_t i = 0; gathering->children && i < gathering->n; i++) {
        Py_CLEAR(gathering->children[i]);
    }
    Py_CLEAR(gathering->results);
    Py_CLEAR(gathering->cancel_message);
    return gathering->state->future->tp_clear(future);
}

static void gathering_finalize(PyObject *future)
{
    tgd_state *state = tgd_gathering_of(future)->state;
    if (state->future->tp_finalize) {
        state->future->tp_finalize(future);
    }
}

static void gathering_dealloc(PyObject *future)
{
    if (PyObject_CallFinalizerFromDealloc(future) < 0) {
        return; /* resurrected */
    }
    PyTypeObject *type = Py_TYPE(future);
    tgd_gathering *gathering = tgd_gathering_of(future);
    tgd_state *state = gathering->state;
    int base_is_static = !(state->future->tp_flags & Py_TPFLAGS_HEAPTYPE);
    PyObject_GC_UnTrack(future);
    gathering_clear(future);
    PyMem_Free(gathering->children);
    PyMem_Free(gathering->same_as);
    gathering->children = NULL;
    state->future->tp_dealloc(future);
    if (base_is_static) {
        Py_DECREF(type); /* a heap type's dealloc has done it */
    }
    tgd_state_release(state);
}

static PyMethodDef gathering_methods[] = {
    {"cancel", (PyCFunction)(void (*)(void))gathering_cancel, METH_VARARGS | METH_KEYWORDS, cancel_doc},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot gathering_slots[] = {
    {Py_tp_methods, gathering_methods},   {Py_tp_traverse, gathering_traverse}, {Py_tp_clear, gathering_clear},
    {Py_tp_finalize, gathering_finalize}, {Py_tp_dealloc, gathering_dealloc},
    {Py_tp_doc, (void *)"The future that tidegate.gather() answers."},
    {0, NULL},
};

static int make_type(PyObject *module, tgd_state *state)
{
    const Py_ssize_t alignment = _Alignof(tgd_gathering);
    tgd_gathering_at = (state->future->tp_basicsize + alignment - 1) / alignment * alignment;
    PyType_Spec spec = {
        .name = "tidegate.executor._native.GatherFuture",
        .basicsize = (int)(tgd_gathering_at + (Py_ssize_t)sizeof(tgd_gathering)),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = gathering_slots,
    };
    PyObject *bases = PyTuple_Pack(1, state->future);
    state->gathering = bases ? (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, bases) : NULL;
    Py_XDECREF(bases);
    return state->gathering ? 0 : -1;
}

int tgd_gather_type(PyObject *module, tgd_state *state)
{
    return make_type(module, state) < 0 ? -1 : tgd_gather_function(module);
}
