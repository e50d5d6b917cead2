/* driver_side.c - what all tasks of one event loop share: spare tasks, and the queue for the loop's next turn.
 *
 * A bare yield (`await asyncio.sleep(0)`) means: go on in the next turn of the loop. asyncio makes a handle for every task;
 * a side makes one for all its tasks, and a task stays in line with its peers. */
#include "driver_internal.h"

static tgd_side *side_new(tgd_state *state, PyObject *loop)
{
    tgd_side *side = PyObject_GC_New(tgd_side, state->side);
    if (!side) {
        return NULL;
    }
    memset((char *)side + sizeof(PyObject), 0, sizeof(*side) - sizeof(PyObject));
    side->state = tgd_state_hold(state);
    side->loop = Py_NewRef(loop);
    side->beat_fd = side->nap_fd = -1;
    side->init_kwargs = PyDict_New();
    PyObject_GC_Track((PyObject *)side);
    PyObject *debug = PyObject_CallMethod(loop, "get_debug", NULL);
    side->debug = debug ? PyObject_IsTrue(debug) : -1;
    Py_XDECREF(debug);
    if (!side->init_kwargs || side->debug < 0 || PyDict_SetItem(side->init_kwargs, state->s_loop, loop) < 0) {
        Py_DECREF(side);
        return NULL;
    }
    return side;
}

/* The loop keeps its side as an attribute, so that both die together; a weak reference makes the common lookup free. */
tgd_side *tgd_side_of(tgd_state *state, PyObject *loop)
{
    if (state->last_loop && tgd_refers_to(state->last_loop, loop)) {
        return (tgd_side *)Py_NewRef(state->last_side);
    }
    PyObject *found = PyObject_GetAttr(loop, state->s_side);
    if (!found) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return NULL;
        }
        PyErr_Clear();
    } else if (Py_TYPE(found) != state->side || ((tgd_side *)found)->loop != loop) {
        Py_CLEAR(found);
    }
    if (!found) {
        found = (PyObject *)side_new(state, loop);
        if (!found) {
            return NULL;
        }
        if (PyObject_SetAttr(loop, state->s_side, found) < 0) {
            PyErr_Clear(); /* a loop with no room for attributes: it works, with a side for every call */
            return (tgd_side *)found;
        }
    }
    PyObject *reference = PyWeakref_NewRef(loop, NULL);
    if (!reference) {
        PyErr_Clear();
        return (tgd_side *)found;
    }
    Py_XSETREF(state->last_loop, reference);
    state->last_side = found;
    return (tgd_side *)found;
}

PyObject *tgd_side_task(tgd_side *side)
{
    PyObject *task = side->spares;
    if (!task) {
        return tgd_task_new_idle(side);
    }
    tgd_fields *fields = tgd_fields_of(task);
    side->spares = fields->next;
    side->n_spares--;
    fields->next = NULL;
    return task;
}

void tgd_side_recycle(tgd_side *side, PyObject *task)
{
    tgd_fields *fields = tgd_fields_of(task);
    if (side->n_spares >= TGD_SPARES_MAX || side->debug) {
        Py_DECREF(task);
        return;
    }
    fields->next = side->spares;
    side->spares = task;
    side->n_spares++;
}

static int schedule_turn(tgd_side *side)
{
    PyObject *args[2] = {side->loop, (PyObject *)side};
    PyObject *handle = PyObject_VectorcallMethod(side->state->s_call_soon, args, 2, NULL);
    if (!handle) {
        return -1;
    }
    Py_DECREF(handle);
    side->turn_scheduled = 1;
    return 0;
}

void tgd_side_line_up(tgd_side *side, PyObject *task)
{
    *(side->turn_tail ? &tgd_fields_of(side->turn_tail)->next : &side->turn_head) = task;
    side->turn_tail = task;
}

int tgd_side_next_turn(tgd_side *side, PyObject *task)
{
    if (!side->turn_scheduled && schedule_turn(side) < 0) {
        return -1;
    }
    tgd_side_line_up(side, Py_NewRef(task));
    return 0;
}

/* One turn: everybody who was in line when it began. */
static PyObject *side_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    (void)args;
    (void)kwargs;
    tgd_side *side = (tgd_side *)self;
    PyObject *task = side->turn_head;
    side->turn_head = side->turn_tail = NULL;
    side->turn_scheduled = 0;
    side->in_turn = 1;
    int failed = 0;
    while (task) {
        tgd_fields *fields = tgd_fields_of(task);
        PyObject *next = fields->next;
        fields->next = NULL;
        if (tgd_task_step(task, fields, 1) < 0) {
            failed = 1; /* KeyboardInterrupt or SystemExit on its way out of the loop: the others keep their place */
        }
        Py_DECREF(task);
        task = next;
        if (failed && task) {
            PyObject *raised = tgd_fetch_raised();
            PyObject *last = task;
            while (tgd_fields_of(last)->next) {
                last = tgd_fields_of(last)->next;
            }
            tgd_fields_of(last)->next = side->turn_head;
            side->turn_head = task;
            if (!side->turn_tail) {
                side->turn_tail = last;
            }
            if (!side->turn_scheduled && schedule_turn(side) < 0) {
                PyErr_Clear();
            }
            tgd_restore_raised(raised);
            break;
        }
    }
    side->in_turn = 0;
    return failed ? NULL : Py_NewRef(Py_None);
}

PyObject *tgd_side_turn(tgd_side *side)
{
    return side->turn_scheduled ? Py_NewRef(Py_None) : side_call((PyObject *)side, NULL, NULL);
}

static int visit_line(PyObject *task, visitproc visit, void *arg)
{
    for (; task; task = tgd_fields_of(task)->next) {
        Py_VISIT(task);
    }
    return 0;
}

static int side_traverse(PyObject *self, visitproc visit, void *arg)
{
    tgd_side *side = (tgd_side *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(side->loop);
    Py_VISIT(side->init_kwargs);
    Py_VISIT(side->seat);
    for (size_t i = 0; i < side->n_naps; i++) {
        Py_VISIT(side->naps[i].task);
    }
    int stop = visit_line(side->turn_head, visit, arg);
    return stop ? stop : visit_line(side->spares, visit, arg);
}

static void drop_line(PyObject **head)
{
    PyObject *task = *head;
    *head = NULL;
    while (task) {
        tgd_fields *fields = tgd_fields_of(task);
        PyObject *next = fields->next;
        fields->next = NULL;
        Py_DECREF(task);
        task = next;
    }
}

static int side_clear(PyObject *self)
{
    tgd_side *side = (tgd_side *)self;
    tgd_beat_stop(side);
    tgd_naps_drop(side);
    drop_line(&side->spares);
    side->n_spares = TGD_SPARES_MAX; /* nothing may come back now */
    side->turn_tail = NULL;
    drop_line(&side->turn_head);
    Py_CLEAR(side->seat);
    Py_CLEAR(side->init_kwargs);
    Py_CLEAR(side->loop);
    return 0;
}

static void side_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    tgd_side *side = (tgd_side *)self;
    PyObject_GC_UnTrack(self);
    tgd_state *state = side->state;
    if (state->last_side == self) {
        Py_CLEAR(state->last_loop);
        state->last_side = NULL;
    }
    side_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
    tgd_state_release(state);
}

static PyObject *side_repr(PyObject *self)
{
    tgd_side *side = (tgd_side *)self;
    return PyUnicode_FromFormat("<tidegate driver of %R>", side->loop ? side->loop : Py_None);
}

static PyType_Slot side_slots[] = {
    {Py_tp_call, side_call},         {Py_tp_repr, side_repr},   {Py_tp_traverse, side_traverse},
    {Py_tp_clear, side_clear},       {Py_tp_dealloc, side_dealloc}, {0, NULL},
};
static PyType_Spec side_spec = {
    .name = "tidegate.executor._native.LoopSide",
    .basicsize = sizeof(tgd_side),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = side_slots,
};

int tgd_side_types(PyObject *module, tgd_state *state)
{
    state->side = (PyTypeObject *)PyType_FromModuleAndSpec(module, &side_spec, NULL);
    return state->side ? 0 : -1;
}
