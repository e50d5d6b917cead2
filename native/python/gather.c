/* gather.c - tidegate.gather(): asyncio.gather for children that mostly do not wait.
 *
 * Every coroutine is begun at once, in order. One that does not suspend costs no task, no future and no turn of the loop;
 * the others become tasks. Children that change no context variable share one copy of the caller's context, which nobody
 * can tell from a copy each. */
#include "gather.h"

#define TGD_PAIRWISE_MAX 32 /* up to this many arguments are compared with each other; beyond, a dict finds the doubles */

static void child_settled(void *owner, uint64_t token, PyObject *outcome, int raised)
{
    PyObject *future = owner;
    tgd_gathering *gathering = tgd_gathering_of(future);
    Py_CLEAR(gathering->children[token]);
    gathering->pending--;
    if (tgd_gathering_child(future, (Py_ssize_t)token, outcome, raised) < 0 || tgd_gathering_settle(future) < 0) {
        PyErr_WriteUnraisable(future);
    }
}

static const struct tg_driver_calls child_calls = {.settled = child_settled};

static int add_child(PyObject *future, Py_ssize_t index, PyObject *child)
{
    tgd_gathering *gathering = tgd_gathering_of(future);
    if (!gathering->children) {
        gathering->children = PyMem_Calloc((size_t)gathering->n, sizeof(PyObject *));
        if (!gathering->children) {
            PyErr_NoMemory();
            return -1;
        }
    }
    gathering->children[index] = child;
    gathering->pending++;
    return 0;
}

/* The outcome of a future that is done: new reference. */
static PyObject *outcome_of(tgd_state *state, PyObject *future, int *raised)
{
    PyObject *value = PyObject_CallMethodNoArgs(future, state->s_result);
    *raised = value == NULL;
    return value ? value : tgd_fetch_raised();
}

/* The callback of a child that is somebody else's future; self: (gather future, index). */
static PyObject *future_done(PyObject *self, PyObject *child)
{
    PyObject *future = PyTuple_GET_ITEM(self, 0);
    int raised;
    PyObject *outcome = outcome_of(tgd_gathering_of(future)->state, child, &raised);
    child_settled(future, (uint64_t)PyLong_AsSsize_t(PyTuple_GET_ITEM(self, 1)), outcome, raised);
    Py_DECREF(outcome);
    Py_RETURN_NONE;
}

static PyMethodDef future_done_method = {"gather_child_done", future_done, METH_O, NULL};

static int watch(tgd_state *state, PyObject *future, Py_ssize_t index, PyObject *child)
{
    PyObject *self = Py_BuildValue("(On)", future, index);
    PyObject *callback = self ? PyCFunction_New(&future_done_method, self) : NULL;
    Py_XDECREF(self);
    PyObject *done = callback ? PyObject_CallMethodOneArg(child, state->s_add_done_callback, callback) : NULL;
    Py_XDECREF(callback);
    Py_XDECREF(done);
    return done ? add_child(future, index, Py_NewRef(child)) : -1;
}

/* A child that is not a coroutine: a future, or anything that can be awaited. */
static int begin_other(tgd_side *side, PyObject *future, Py_ssize_t index, PyObject *argument)
{
    tgd_state *state = side->state;
    PyObject *args[2] = {argument, side->loop};
    PyObject *child = PyObject_Vectorcall(state->ensure_future, args, 1, state->kw_loop);
    if (!child) {
        return -1;
    }
    if (child != argument && PyObject_SetAttrString(child, "_log_destroy_pending", Py_False) < 0) {
        PyErr_Clear(); /* nobody can await it by another name: it need not be reported as lost */
    }
    PyObject *done = PyObject_CallMethodNoArgs(child, state->s_done);
    int is_done = done ? PyObject_IsTrue(done) : -1, failed = -1;
    Py_XDECREF(done);
    if (is_done > 0) {
        int raised;
        PyObject *outcome = outcome_of(state, child, &raised);
        failed = tgd_gathering_child(future, index, outcome, raised);
        Py_DECREF(outcome);
    } else if (is_done == 0) {
        failed = watch(state, future, index, child);
    }
    Py_DECREF(child);
    return failed;
}

/* *context: a copy of the caller's, shared by children as long as none of them has changed it. */
static int begin_coroutine(tgd_side *side, PyObject *future, Py_ssize_t index, PyObject *coro, PyObject **context)
{
    if (!*context && !(*context = PyContext_CopyCurrent())) {
        return -1;
    }
    tgd_state *state = side->state;
    void *variables = state->vars_at ? tgd_context_vars(state, *context) : NULL;
    PyObject *out;
    enum tg_step step = tgd_first_step(side, coro, *context, &child_calls, future, (uint64_t)index, &out);
    if (step == TG_STEP_SUSPENDED) {
        tgd_fields *fields = tgd_fields_of(out);
        fields->owner_object = Py_NewRef(future);
        fields->fatal_passes = 1;
        Py_CLEAR(*context);
        return add_child(future, index, out);
    }
    if (!variables || Py_REFCNT(*context) != 1 || tgd_context_vars(state, *context) != variables) {
        Py_CLEAR(*context);
    }
    if (step == TG_STEP_RETURNED) {
        tgd_gathering *gathering = tgd_gathering_of(future);
        if (gathering->results && !PyList_GET_ITEM(gathering->results, index)) {
            PyList_SET_ITEM(gathering->results, index, out);
            return 0;
        }
    }
    if (step == TG_STEP_RAISED && tgd_is_fatal(out)) {
        tgd_restore_raised(out); /* leaves gather() itself, as it would leave a step of asyncio's task */
        return -1;
    }
    int failed = step == TG_STEP_BROKEN ? -1 : tgd_gathering_child(future, index, out, step == TG_STEP_RAISED);
    Py_XDECREF(out);
    return failed;
}

/* Where each argument is for the first time: NULL without an error when all differ. A coroutine that only the caller's
 * arguments hold cannot be there twice. */
static Py_ssize_t *find_doubles(PyObject *const *args, Py_ssize_t n, int *failed)
{
    Py_ssize_t *same_as = NULL;
    PyObject *seen = NULL;
    *failed = 0;
    for (Py_ssize_t i = 0; i < n && !*failed; i++) {
        Py_ssize_t first = i;
        if (Py_REFCNT(args[i]) == 1) {
            continue;
        }
        if (n <= TGD_PAIRWISE_MAX) {
            for (first = 0; args[first] != args[i]; first++) {
            }
        } else {
            PyObject *position = PyLong_FromSsize_t(i), *key = PyLong_FromVoidPtr(args[i]), *known = NULL;
            seen = seen ? seen : PyDict_New();
            known = seen && position && key ? PyDict_SetDefault(seen, key, position) : NULL;
            *failed = known == NULL;
            first = known ? PyLong_AsSsize_t(known) : i;
            Py_XDECREF(position);
            Py_XDECREF(key);
        }
        if (first != i && !same_as) {
            same_as = PyMem_Malloc((size_t)n * sizeof(*same_as));
            for (Py_ssize_t j = 0; same_as && j < n; j++) {
                same_as[j] = j;
            }
            *failed = same_as == NULL;
        }
        if (first != i && same_as) {
            same_as[i] = first;
        }
    }
    Py_XDECREF(seen);
    return same_as;
}

static int begin_all(tgd_side *side, PyObject *future, PyObject *const *args)
{
    tgd_gathering *gathering = tgd_gathering_of(future);
    tgd_scope scope;
    int failed;
    gathering->same_as = find_doubles(args, gathering->n, &failed);
    if (failed) {
        PyErr_NoMemory();
        return -1;
    }
    if (tgd_seat_enter(side, &scope) < 0) {
        return -1;
    }
    PyObject *context = NULL;
    gathering->pending = 1; /* ours: a child that ends meanwhile must not settle what is not begun */
    for (Py_ssize_t i = 0; i < gathering->n && !failed; i++) {
        if (gathering->same_as && gathering->same_as[i] != i) {
            continue;
        }
        failed = PyCoro_CheckExact(args[i]) ? begin_coroutine(side, future, i, args[i], &context)
                                            : begin_other(side, future, i, args[i]);
    }
    gathering->pending--;
    Py_XDECREF(context);
    tgd_seat_leave(side, &scope);
    return failed;
}

static int parse_keywords(PyObject *const *args, Py_ssize_t n, PyObject *names, int *return_exceptions)
{
    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); i++) {
        if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, i), "return_exceptions") != 0) {
            PyErr_Format(PyExc_TypeError, "gather() got an unexpected keyword argument %R", PyTuple_GET_ITEM(names, i));
            return -1;
        }
        *return_exceptions = PyObject_IsTrue(args[n + i]);
        if (*return_exceptions < 0) {
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(gather_doc,
             "gather($module, /, *coros_or_futures, return_exceptions=False)\n--\n\n"
             "asyncio.gather with the same arguments and answers, for children that mostly do not wait.\n\n"
             "Coroutines begin at once, inside this call, in order (asyncio begins them in the loop's next turn); one that\n"
             "ends without waiting costs no task and no turn of the loop. Answers a future with the list of results.\n"
             "Without a running loop it is asyncio.gather itself.\n\n"
             ">>> import asyncio\n"
             ">>> async def double(n): return 2 * n\n"
             ">>> async def main(): return await gather(double(1), double(2))\n"
             ">>> asyncio.run(main())\n"
             "[2, 4]");
static PyObject *gather(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    tgd_state *state = tg_driver_state_of(module);
    int return_exceptions = 0;
    if (parse_keywords(args, n, names, &return_exceptions) < 0) {
        return NULL;
    }
    PyObject *loop = PyObject_CallNoArgs(state->get_running_loop);
    if (!loop) {
        if (!PyErr_ExceptionMatches(PyExc_RuntimeError)) {
            return NULL;
        }
        PyErr_Clear();
        return PyObject_Vectorcall(state->asyncio_gather, args, (size_t)n, names);
    }
    tgd_side *side = tgd_side_of(state, loop);
    Py_DECREF(loop);
    PyObject *future = side ? tgd_gathering_new(state, side->init_kwargs, n, return_exceptions) : NULL;
    if (!future || begin_all(side, future, args) < 0 || tgd_gathering_settle(future) < 0) {
        Py_CLEAR(future);
    }
    Py_XDECREF(side);
    return future;
}

static PyMethodDef gather_functions[] = {
    {"gather", (PyCFunction)(void (*)(void))gather, METH_FASTCALL | METH_KEYWORDS, gather_doc},
    {NULL, NULL, 0, NULL},
};

int tgd_gather_function(PyObject *module)
{
    return PyModule_AddFunctions(module, gather_functions);
}
