/* driver_task.c - the type ItemTask: making, finding, freeing. What it does is in the other files.
 *
 * It can also be made from Python, `ItemTask(coro, loop=loop)`, and then behaves as asyncio.Task does in every
 * respect that CPython's own tests know of: that is how they are run against it. */
#include "driver_internal.h"

Py_ssize_t tgd_fields_at;

/* The state of the module that made the type; a class derived in Python has no module of its own. */
static tgd_state *state_of_type(PyTypeObject *type)
{
    while (type && type->tp_alloc && !PyType_GetModule(type)) {
        PyErr_Clear();
        type = type->tp_base;
    }
    void **words = type ? PyType_GetModuleState(type) : NULL;
    return words ? (tgd_state *)*words : NULL;
}

/* The Future part starts as asyncio's own __init__ leaves it. */
static int init_future(tgd_state *state, PyObject *task, PyObject *kwargs)
{
    return state->future->tp_init(task, state->nothing, kwargs);
}

static int register_task(tgd_state *state, PyObject *task)
{
    PyObject *done = PyObject_CallOneArg(state->register_task, task);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* A task for a side: known to asyncio.all_tasks(), which passes over it while it is idle. */
PyObject *tgd_task_new_idle(tgd_side *side)
{
    tgd_state *state = side->state;
    PyObject *task = state->item_task->tp_alloc(state->item_task, 0);
    if (!task) {
        return NULL;
    }
    tgd_fields *fields = tgd_fields_of(task);
    fields->state = tgd_state_hold(state);
    fields->phase = TGD_IDLE;
    fields->loop = Py_NewRef(side->loop);
    fields->side = (tgd_side *)Py_NewRef(side);
    if (init_future(state, task, side->init_kwargs) < 0 || register_task(state, task) < 0) {
        Py_DECREF(task);
        return NULL;
    }
    return task;
}

static PyObject *task_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args;
    (void)kwargs;
    tgd_state *state = state_of_type(type);
    PyObject *task = state ? type->tp_alloc(type, 0) : NULL;
    if (task) {
        tgd_fields_of(task)->state = tgd_state_hold(state);
    }
    return task;
}

static int check_coroutine(tgd_state *state, PyObject *coro)
{
    if (PyCoro_CheckExact(coro)) {
        return 0;
    }
    PyObject *answer = PyObject_CallOneArg(state->iscoroutine, coro);
    int is = answer ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    if (is == 0) {
        PyErr_Format(PyExc_TypeError, "a coroutine was expected, got %R", coro);
    }
    return is > 0 ? 0 : -1;
}

static int set_name(tgd_fields *fields, PyObject *name)
{
    if (name == Py_None) {
        Py_CLEAR(fields->name);
        return 0;
    }
    PyObject *text = PyObject_Str(name);
    if (!text) {
        return -1;
    }
    Py_XSETREF(fields->name, text);
    return 0;
}

/* eager_start (any Python version): the first step now, if the loop runs. */
static int start(tgd_state *state, PyObject *task, tgd_fields *fields, int eager)
{
    if (eager) {
        PyObject *running = PyObject_CallMethodNoArgs(fields->loop, state->s_is_running);
        eager = running ? PyObject_IsTrue(running) : -1;
        Py_XDECREF(running);
        if (eager < 0) {
            return -1;
        }
    }
    if (register_task(state, task) < 0) {
        return -1;
    }
    return eager ? tgd_task_step(task, fields, 1) : tgd_task_step_soon(task, fields);
}

static int task_init(PyObject *task, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"coro", "loop", "name", "context", "eager_start", NULL};
    PyObject *coro, *loop = Py_None, *name = Py_None, *context = Py_None;
    int eager = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOOp:ItemTask", names, &coro, &loop, &name, &context, &eager)) {
        return -1;
    }
    tgd_fields *fields = tgd_fields_of(task);
    tgd_state *state = fields->state;
    PyObject *future_kwargs = PyDict_New();
    if (!future_kwargs || PyDict_SetItem(future_kwargs, state->s_loop, loop) < 0) {
        Py_XDECREF(future_kwargs);
        return -1;
    }
    int failed = init_future(state, task, future_kwargs);
    Py_DECREF(future_kwargs);
    if (failed || check_coroutine(state, coro) < 0) {
        return -1;
    }
    tgd_task_reset(fields);
    Py_XSETREF(fields->loop, state->at_loop->get(task, NULL));
    Py_XSETREF(fields->context, context == Py_None ? PyContext_CopyCurrent() : Py_NewRef(context));
    Py_XSETREF(fields->coro, Py_NewRef(coro));
    if (!fields->context || set_name(fields, name) < 0) {
        return -1;
    }
    fields->phase = TGD_PENDING;
    fields->log_destroyed = 1;
    fields->touched = 1;
    fields->fatal_passes = 1;
    return start(state, task, fields, eager);
}

/* Ends the life of a task in a known state; its fields are those of an idle one. */
void tgd_task_reset(tgd_fields *fields)
{
    Py_CLEAR(fields->coro);
    Py_CLEAR(fields->context);
    Py_CLEAR(fields->name);
    Py_CLEAR(fields->waiter);
    Py_CLEAR(fields->thrown);
    Py_CLEAR(fields->cancel_message);
    Py_CLEAR(fields->cancelled_error);
    fields->cancels = 0;
    fields->must_cancel = 0;
    fields->cancelled_at_end = 0;
    fields->fatal_passes = 0;
    fields->calls = NULL;
    fields->owner = NULL;
    Py_CLEAR(fields->owner_object);
}

static int task_traverse(PyObject *task, visitproc visit, void *arg)
{
    tgd_fields *fields = tgd_fields_of(task);
    tgd_state *state = fields->state;
    if (!(state->task->tp_flags & Py_TPFLAGS_HEAPTYPE)) {
        Py_VISIT(Py_TYPE(task)); /* otherwise the base type does */
    }
    Py_VISIT(fields->side);
    Py_VISIT(fields->loop);
    Py_VISIT(fields->coro);
    Py_VISIT(fields->context);
    Py_VISIT(fields->waiter);
    Py_VISIT(fields->owner_object);
    Py_VISIT(fields->wakeup);
    Py_VISIT(fields->thrown);
    Py_VISIT(fields->cancel_message);
    Py_VISIT(fields->cancelled_error);
    return state->task->tp_traverse(task, visit, arg);
}

static int task_clear(PyObject *task)
{
    tgd_fields *fields = tgd_fields_of(task);
    tgd_state *state = fields->state;
    tgd_task_reset(fields);
    Py_CLEAR(fields->wakeup);
    Py_CLEAR(fields->side);
    Py_CLEAR(fields->loop);
    return state->task->tp_clear(task);
}

static void warn_destroyed(PyObject *task, tgd_state *state, tgd_fields *fields)
{
    PyObject *source = PyObject_GetAttrString(task, "_source_traceback");
    PyObject *context = Py_BuildValue("{sOss}", "task", task, "message", "Task was destroyed but it is pending!");
    if (source && context && source != Py_None) {
        PyDict_SetItemString(context, "source_traceback", source);
    }
    PyErr_Clear();
    PyObject *done = context ? PyObject_CallMethod(fields->loop, "call_exception_handler", "O", context) : NULL;
    if (!done) {
        PyErr_WriteUnraisable(task);
    }
    Py_XDECREF(source);
    Py_XDECREF(context);
    Py_XDECREF(done);
    (void)state;
}

static void task_finalize(PyObject *task)
{
    tgd_fields *fields = tgd_fields_of(task);
    tgd_state *state = fields->state;
    PyObject *pending = PyErr_Occurred() ? tgd_fetch_raised() : NULL;
    if (fields->phase == TGD_PENDING && fields->log_destroyed && fields->loop) {
        warn_destroyed(task, state, fields);
    }
    if (pending) {
        tgd_restore_raised(pending);
    }
    if (state->task->tp_finalize) {
        state->task->tp_finalize(task);
    }
}

static void task_dealloc(PyObject *task)
{
    if (PyObject_CallFinalizerFromDealloc(task) < 0) {
        return; /* resurrected */
    }
    PyTypeObject *type = Py_TYPE(task);
    tgd_state *state = tgd_fields_of(task)->state;
    int base_is_static = !(state->task->tp_flags & Py_TPFLAGS_HEAPTYPE);
    PyObject_GC_UnTrack(task);
    task_clear(task);
    state->task->tp_dealloc(task);
    if (base_is_static) {
        Py_DECREF(type); /* a heap type's dealloc has done it */
    }
    tgd_state_release(state);
}

static PyObject *task_repr(PyObject *task)
{
    return PyObject_CallOneArg(tgd_fields_of(task)->state->format_repr, task);
}

static int task_setattro(PyObject *task, PyObject *name, PyObject *value)
{
    tgd_fields_of(task)->touched = 1;
    return PyObject_GenericSetAttr(task, name, value);
}

PyDoc_STRVAR(task_doc, "ItemTask(coro, *, loop=None, name=None, context=None, eager_start=False)\n--\n\n"
                       "An asyncio.Task driven by tidegate: one coroutine of an item, or of tidegate.gather().");

static PyType_Slot task_slots[] = {
    {Py_tp_new, task_new},
    {Py_tp_init, task_init},
    {Py_tp_dealloc, task_dealloc},
    {Py_tp_traverse, task_traverse},
    {Py_tp_clear, task_clear},
    {Py_tp_finalize, task_finalize},
    {Py_tp_repr, task_repr},
    {Py_tp_setattro, task_setattro},
    {Py_tp_methods, tgd_task_methods},
    {Py_tp_getset, tgd_task_attributes},
    {Py_tp_iter, tgd_task_await},
    {Py_am_await, tgd_task_await},
    {Py_tp_doc, (void *)task_doc},
    {0, NULL},
};

int tgd_task_type(PyObject *module, tgd_state *state)
{
    const Py_ssize_t alignment = _Alignof(tgd_fields);
    tgd_fields_at = (state->task->tp_basicsize + alignment - 1) / alignment * alignment;
    PyType_Spec spec = {
        .name = "tidegate.executor._native.ItemTask",
        .basicsize = (int)(tgd_fields_at + (Py_ssize_t)sizeof(tgd_fields)),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
        .slots = task_slots,
    };
    PyObject *bases = PyTuple_Pack(1, state->task);
    state->item_task = bases ? (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, bases) : NULL;
    Py_XDECREF(bases);
    return state->item_task ? PyModule_AddObjectRef(module, "ItemTask", (PyObject *)state->item_task) : -1;
}
