/* driver_nap.c - `await sleep(...)` in a task of the driver: no future, no handle and no timer of its own.
 *
 * asyncio.sleep makes all three for every sleeper, and a loop's timers count whole milliseconds. The sleepers of a side lie in
 * one heap, and one timerfd wakes the loop for the earliest (elsewhere than on Linux, or on a loop that watches no files, a timer
 * of the loop). All that are due resume in one turn; turns are 50 us apart at least.
 *
 * Touched by the loop's thread only, with the GIL. After a fork the child's loop is a new one, with a side of its own. */
#include "driver_internal.h"

#include <math.h>

#define TURN_GAP_NS 50000
#define LONGEST_S 1e9 /* 31 years: further than that nobody's process lives */

typedef struct tgd_nap_object {
    PyObject_HEAD
    double delay_s;
    int yielded;
} tgd_nap_object;

/* ---- the heap: binary; a task knows its place in it (fields.nap, counted from 1) ---- */

static void place(tgd_side *side, size_t at, struct tgd_nap nap)
{
    side->naps[at - 1] = nap;
    tgd_fields_of(nap.task)->nap = at;
}

/* Finds the place of `nap`, given that `at` is free. */
static void settle_down(tgd_side *side, size_t at, struct tgd_nap nap)
{
    for (; at > 1 && nap.due_ns < side->naps[at / 2 - 1].due_ns; at /= 2) {
        place(side, at, side->naps[at / 2 - 1]);
    }
    for (size_t child; (child = at * 2) <= side->n_naps; at = child) {
        child += child < side->n_naps && side->naps[child].due_ns < side->naps[child - 1].due_ns;
        if (side->naps[child - 1].due_ns >= nap.due_ns) {
            break;
        }
        place(side, at, side->naps[child - 1]);
    }
    place(side, at, nap);
}

/* Out of the heap; the reference that it held is the caller's. */
static PyObject *take(tgd_side *side, size_t at)
{
    PyObject *task = side->naps[at - 1].task;
    struct tgd_nap last = side->naps[--side->n_naps];
    tgd_fields_of(task)->nap = 0;
    if (last.task != task) {
        settle_down(side, at, last);
    }
    return task;
}

static int make_room(tgd_side *side)
{
    if (side->n_naps < side->nap_room) {
        return 0;
    }
    size_t room = side->nap_room ? side->nap_room * 2 : 64;
    struct tgd_nap *naps = PyMem_Realloc(side->naps, room * sizeof *naps);
    if (!naps) {
        PyErr_NoMemory();
        return -1;
    }
    side->naps = naps;
    side->nap_room = room;
    return 0;
}

/* ---- waking up ---- */

static PyObject *wake(PyObject *self, PyObject *unused);
static PyMethodDef wake_method = {"tidegate_wake", wake, METH_NOARGS, NULL};

static int set_timer(tgd_side *side, uint64_t due_ns)
{
    if (side->nap_fd < 0 && !side->nap_fd_refused) {
        side->nap_fd = tgd_timer_open(side, &wake_method);
        side->nap_fd_refused = side->nap_fd < 0;
    }
    return side->nap_fd < 0 ? -1 : tgd_timer_set(side->nap_fd, due_ns, 0);
}

/* The loop is to wake up at due_ns, if it would not anyway. */
static int arm(tgd_side *side, uint64_t due_ns)
{
    if (side->nap_armed_ns != 0 && side->nap_armed_ns <= due_ns) {
        return 0;
    }
    if (set_timer(side, due_ns) < 0) { /* a timer of the loop serves */
        uint64_t now = tgd_now_ns();
        PyObject *callback = PyCFunction_New(&wake_method, (PyObject *)side);
        PyObject *handle = callback ? PyObject_CallMethod(side->loop, "call_later", "dO",
                                                          due_ns > now ? (double)(due_ns - now) / 1e9 : 0.0, callback)
                                    : NULL;
        Py_XDECREF(callback);
        if (!handle) {
            return -1;
        }
        Py_DECREF(handle);
    }
    side->nap_armed_ns = due_ns;
    return 0;
}

static PyObject *wake(PyObject *self, PyObject *unused)
{
    (void)unused;
    tgd_side *side = (tgd_side *)self;
    uint64_t now = tgd_now_ns();
    (void)tgd_timer_expired(side->nap_fd); /* if not, it was set anew since; those that are due are looked for all the same */
    side->nap_armed_ns = 0;
    while (side->n_naps && side->naps[0].due_ns <= now) {
        tgd_side_line_up(side, take(side, 1));
    }
    if (!side->n_naps) {
        tgd_naps_rest(side);
    } else if (arm(side, Py_MAX(side->naps[0].due_ns, now + TURN_GAP_NS)) < 0) {
        PyErr_WriteUnraisable(self);
    }
    return tgd_side_turn(side);
}

/* ---- for the driver ---- */

/* The task sleeps; it is stepped when the time has come. */
static int begin(tgd_side *side, PyObject *task, double delay_s)
{
    if (make_room(side) < 0) {
        return -1;
    }
    struct tgd_nap nap = {tgd_now_ns() + (uint64_t)(delay_s * 1e9), Py_NewRef(task)};
    settle_down(side, ++side->n_naps, nap);
    if (arm(side, side->naps[0].due_ns) < 0) {
        Py_DECREF(take(side, tgd_fields_of(task)->nap));
        return -1;
    }
    return 0;
}

/* What a Nap that was yielded asks for. -1: an error, which is thrown into the coroutine. */
int tgd_nap_begin(PyObject *task, tgd_fields *fields, PyObject *nap)
{
    if (!fields->side) {
        PyErr_SetString(PyExc_RuntimeError, "a sleep that began in an item was yielded to a task that is none");
        return -1;
    }
    if (fields->must_cancel) {
        return tgd_task_step_soon(task, fields); /* cancelled before it fell asleep */
    }
    return begin(fields->side, task, ((tgd_nap_object *)nap)->delay_s);
}

/* Cancelled: it resumes in the loop's next turn. */
int tgd_nap_interrupt(tgd_fields *fields)
{
    PyObject *task = take(fields->side, fields->nap);
    int failed = tgd_side_next_turn(fields->side, task);
    Py_DECREF(task);
    return failed;
}

/* Gives the file back when nobody may need it soon. */
void tgd_naps_rest(tgd_side *side)
{
    if (!side->n_naps && !side->drivers && side->nap_fd >= 0) {
        tgd_timer_close(side, &side->nap_fd);
        side->nap_armed_ns = 0;
    }
}

/* The side goes, and its loop with it: whoever still sleeps never wakes. */
void tgd_naps_drop(tgd_side *side)
{
    while (side->n_naps) {
        Py_DECREF(take(side, side->n_naps));
    }
    PyMem_Free(side->naps);
    side->naps = NULL;
    side->nap_room = 0;
    tgd_timer_close(side, &side->nap_fd);
}

/* ---- the awaitable ---- */

static PyObject *nap_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"delay_s", NULL};
    double delay_s;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "d:Nap", names, &delay_s)) {
        return NULL;
    }
    if (isnan(delay_s)) {
        PyErr_SetString(PyExc_ValueError, "the delay is not a number (NaN)");
        return NULL;
    }
    tgd_nap_object *nap = (tgd_nap_object *)type->tp_alloc(type, 0);
    if (nap) {
        nap->delay_s = Py_MIN(delay_s, LONGEST_S);
    }
    return (PyObject *)nap;
}

/* Is it a task of a driver, or of a gather, that awaits? -1: an error. */
static int in_item(tgd_state *state)
{
    PyObject *loop = PyObject_CallNoArgs(state->get_running_loop);
    PyObject *task = loop ? PyDict_GetItemWithError(state->current_tasks, loop) : NULL;
    Py_XDECREF(loop); /* it runs: others hold it */
    if (!task) {
        return PyErr_Occurred() ? -1 : 0;
    }
    return PyObject_TypeCheck(task, state->item_task) && tgd_fields_of(task)->side
           && tgd_fields_of(task)->phase == TGD_PENDING;
}

static PyObject *nap_await(PyObject *self)
{
    void **words = PyType_GetModuleState(Py_TYPE(self));
    tgd_state *state = words ? *words : NULL;
    int is = state ? in_item(state) : -1;
    if (is != 0) {
        return is < 0 ? NULL : Py_NewRef(self);
    }
    PyObject *coroutine = PyObject_CallFunction(state->asyncio_sleep, "d", ((tgd_nap_object *)self)->delay_s);
    PyObject *iterator = coroutine ? PyObject_CallMethod(coroutine, "__await__", NULL) : NULL;
    Py_XDECREF(coroutine);
    return iterator;
}

/* Yields itself, or for no delay a bare yield; then it is over. */
static PyObject *nap_next(PyObject *self)
{
    tgd_nap_object *nap = (tgd_nap_object *)self;
    if (nap->yielded) {
        return NULL;
    }
    nap->yielded = 1;
    return Py_NewRef(nap->delay_s > 0 ? self : Py_None);
}

static void nap_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot nap_slots[] = {
    {Py_tp_new, nap_new},
    {Py_am_await, nap_await},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, nap_next},
    {Py_tp_dealloc, nap_dealloc},
    {Py_tp_doc, (void *)"Nap(delay_s)\n--\n\nWhat tidegate.executor.sleep() awaits. Outside of items it is asyncio.sleep()."},
    {0, NULL},
};
static PyType_Spec nap_spec = {
    .name = "tidegate.executor._native.Nap",
    .basicsize = sizeof(tgd_nap_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = nap_slots,
};

int tgd_nap_type(PyObject *module, tgd_state *state)
{
    state->nap = (PyTypeObject *)PyType_FromModuleAndSpec(module, &nap_spec, NULL);
    return state->nap ? PyModule_AddObjectRef(module, "Nap", (PyObject *)state->nap) : -1;
}
