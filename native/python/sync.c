/* sync.c - runs sync items: the hot loop.
 *
 * The thread keeps the GIL from item to item; when an item blocks and lets go of it, other threads run, and the core gives
 * them the rest of this thread's run after `steal_after_ns`. Per item: one call, one look at the clock (the end of an item
 * is the start of the next), no lock, no allocation. Locks are taken per run.
 *
 * The interrupt of a timed-out item must never reach the next one. An interrupt is only ever sent by a thread that holds
 * the GIL to a worker whose sequence number it has compared, and a worker that finds its item interrupted takes back an
 * interrupt that was not delivered, before it lets go of the GIL. */
#include "state.h"

#define MAX_FAILED TG_RUN_MAX

struct failed {
    RunObject *run;
    uint64_t position;
    PyObject *error;
};

struct slice {
    CoreObject *core;
    struct tg_worker *worker;
    struct tg_ambient ambient;
    size_t n_failed;
    struct failed failed[MAX_FAILED];
};

PyObject *tg_call_item(PyObject *function, PyObject *item, int shape)
{
    if (shape == 0) {
        PyObject *stack[2] = {NULL, item};
        return PyObject_Vectorcall(function, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    PyObject *args = item, *kwargs = NULL, *result;
    if (shape == 2) {
        if (!PySequence_Check(item) || PySequence_Size(item) != 2) {
            if (!PyErr_Occurred()) {
                PyErr_SetString(PyExc_TypeError, "an item of shape CALL must be (args, kwargs)");
            }
            return NULL;
        }
        args = PySequence_GetItem(item, 0);
        kwargs = args ? PySequence_GetItem(item, 1) : NULL;
        if (kwargs == NULL) {
            Py_XDECREF(args);
            return NULL;
        }
    } else {
        Py_INCREF(args);
    }
    PyObject *tuple = PySequence_Tuple(args);
    result = tuple ? PyObject_Call(function, tuple, kwargs) : NULL;
    Py_XDECREF(tuple);
    Py_DECREF(args);
    Py_XDECREF(kwargs);
    return result;
}

PyObject *tg_take_exception(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL && value != NULL && PyException_SetTraceback(value, traceback) < 0) {
        PyErr_Clear();
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

static void item_failed(struct slice *slice, RunObject *run, struct tg_item *item, int interrupted, uint64_t now)
{
    struct tg_worker *worker = slice->worker;
    atomic_store_explicit(&worker->start_ns, 0, memory_order_relaxed);
    PyObject *error = tg_take_exception();
    int end = TG_END_RAISED;
    if (interrupted && PyErr_GivenExceptionMatches(error, slice->core->state->item_timeout)) {
        end = TG_END_TIMED_OUT;
    }
    /* The verdict needs the time of this attempt, and the end needs the verdict: end it first without one. */
    tg_item_end(item, TG_VERDICT_FAIL_FINAL, 0, now);
    uint64_t retry_after_ns;
    enum tg_verdict verdict = tg_run_attempt_failed(run, item, error, end, &retry_after_ns);
    tg_item_end(item, verdict, retry_after_ns, now);
    if (slice->n_failed < MAX_FAILED) {
        slice->failed[slice->n_failed++] = (struct failed){run, item->position, error};
        Py_INCREF(run); /* another thread may decide the item and complete the run before this one looks again */
    }
    Py_DECREF(error); /* run->errors holds it until the decision */
}

/* A plain function, a lambda mostly, that makes a coroutine: it would pass for done, and nothing of it would ever run. */
static PyObject *refuse_coroutine(PyObject *value)
{
    PyObject *closed = PyObject_CallMethod(value, "close", NULL);
    if (closed == NULL) {
        PyErr_WriteUnraisable(value);
    }
    Py_XDECREF(closed);
    PyErr_Format(PyExc_TypeError, "the function returned %R, which nobody awaits: make the function `async def`, and await in it",
                 value);
    Py_DECREF(value);
    return NULL;
}

/* Both sequentially consistent, as in watchdog_main(): either it sees this start, or it is seen to be idle. */
static void wake_watchdog(CoreObject *core, struct tg_worker *worker, uint64_t start_ns)
{
    atomic_store(&worker->start_ns, start_ns);
    if (atomic_load(&core->watch_idle)) {
        tg_watchdog_note(core);
    }
}

/* Runs the items of a claimed run. Returns the time at the end of the last one. */
static uint64_t run_items(struct slice *slice, struct tg_run *claimed)
{
    CoreObject *core = slice->core;
    struct tg_worker *worker = slice->worker;
    LaneObject *lane = tg_lane_payload(claimed->lane);
    atomic_store_explicit(&worker->timeout_ns, lane->timeout_ns, memory_order_relaxed);
    atomic_store_explicit(&worker->hard_ns, lane->hard_ns, memory_order_relaxed);
    struct tg_journal *journal = worker->slot != TG_NO_SLOT ? core->journal : NULL;
    struct tg_group *group = NULL;
    RunObject *run = NULL;
    struct tg_item *item;
    uint64_t sequence = atomic_load_explicit(&worker->sequence, memory_order_relaxed);
    uint64_t now = tg_run_now(claimed);
    int is_watched = lane->timeout_ns != 0 || lane->hard_ns != 0, watched = 0;
    struct tg_journal_slot *outer_slot = tg_running_slot;
    tg_running_slot = tg_slot_at(core, worker->slot);
    while ((item = tg_run_take(claimed, now)) != NULL) {
        if (item->group != group) {
            group = item->group;
            run = tg_group_payload(group);
        }
        /* The start first: a watchdog that sees the new sequence must not see the old start. release: its partner is the
         * acquire load in look(), watchdog.c. Before anything of the last item is dropped: that may run Python code, and let
         * go of the GIL, and an interrupt that comes then is this item's. */
        atomic_store_explicit(&worker->start_ns, now, memory_order_relaxed);
        atomic_store_explicit(&worker->sequence, ++sequence, memory_order_release);
        if (is_watched && !watched) {
            watched = 1;
            wake_watchdog(core, worker, now);
        }
        uint64_t position = item->position;
        if (run->errors != NULL) {
            Py_CLEAR(run->errors[position]); /* of an earlier attempt */
        }
        if (item->attempts == 1 && run->prior != NULL) {
            item->attempts += (unsigned char)PyBytes_AS_STRING(run->prior)[position];
        }
        PyObject *value = NULL;
        if (tg_ambient_ready(core->state, &slice->ambient, run, 1) == 0) {
            slice->ambient.scope->position = position;
            slice->ambient.scope->attempt = item->attempts;
            if (journal != NULL) {
                tg_journal_begin(journal, worker->slot, tg_group_token(group), position, item->attempts, now, worker->tag);
            }
            value = tg_run_call(run, PyTuple_GET_ITEM(run->items, (Py_ssize_t)position));
        }
        if (value != NULL && PyCoro_CheckExact(value)) {
            value = refuse_coroutine(value);
        }
        if (value != NULL && core->outlog != NULL) {
            tg_record_success(run, position, item->attempts, value); /* while it may still be interrupted, if it takes long */
        }
        int interrupted = worker->interrupted == sequence;
        if (interrupted) {
            tg_thread_raise(worker->thread_id, NULL); /* it may not have been delivered */
        }
        now = tg_run_now(claimed);
        if (value == NULL) {
            item_failed(slice, run, item, interrupted, now);
            watched = 0; /* that took its time: the watchdog may sleep */
            now = tg_run_now(claimed);
            if (core->outlog != NULL) {
                break; /* so that it is decided, and on record, before the next one may end the process */
            }
            continue;
        }
        tg_item_end(item, TG_VERDICT_OK, 0, now);
        tg_run_succeeded(run, item, value);
    }
    atomic_store_explicit(&worker->start_ns, 0, memory_order_relaxed);
    if (journal != NULL) {
        tg_journal_end(journal, worker->slot);
    }
    tg_running_slot = outer_slot;
    return now;
}

static void forget_retried(struct slice *slice, int uncertain)
{
    for (size_t i = 0; i < slice->n_failed; i++) {
        if (!uncertain) {
            tg_run_forget_error(slice->failed[i].run, slice->failed[i].position, slice->failed[i].error);
        }
        Py_DECREF(slice->failed[i].run);
    }
    slice->n_failed = 0;
}

void tg_sync_serve(CoreObject *self, struct tg_worker *worker, struct tg_run *claimed, RunObject *until,
                   uint64_t deadline_ns, uint64_t *due_ns)
{
    struct tg_item *decided[TG_RUN_MAX];
    size_t n_decided;
    struct slice *slice = PyMem_Malloc(sizeof *slice);
    *due_ns = TG_NEVER;
    if (slice == NULL) {
        PyErr_NoMemory();
        return;
    }
    slice->core = self;
    slice->worker = worker;
    slice->ambient = (struct tg_ambient){0};
    slice->n_failed = 0;
    struct tg_run *run = claimed;
    /* Inside an item only what it waits for, or what may be as deep: an item that waits for the one below would never end. */
    struct tg_lane *only = until != NULL && (worker->outer != NULL || worker->below != NULL) ? until->lane->lane : NULL;
    if (run == NULL && only != NULL) {
        tg_lane_finish_claim(only, NULL, worker->tag, 0, NULL, 0, &n_decided, &run, due_ns);
    } else if (run == NULL) {
        tg_core_claim(self->core, TG_KIND_SYNC, worker->tag, 0, &run, due_ns);
    }
    while (run != NULL) {
        uint64_t now = run_items(slice, run);
        int stop = atomic_load_explicit(&self->stopping, memory_order_relaxed) ||
                   (until != NULL && (until->remaining == 0 || now >= deadline_ns));
        struct tg_run *finished = run;
        /* A run that was cut short may have been finished in part by another thread, which may not have written down yet
         * what it decided: those errors are left alone, and dropped when their item starts again. */
        int cut_short = (uint32_t)(atomic_load(&finished->cursor) >> 32) < finished->claimed;
        run = NULL;
        if (stop) {
            tg_core_finish(self->core, finished, now, decided, TG_RUN_MAX, &n_decided);
        } else if (only != NULL) {
            tg_lane_finish_claim(only, finished, worker->tag, now, decided, TG_RUN_MAX, &n_decided, &run, due_ns);
        } else {
            tg_core_finish_claim(self->core, finished, TG_KIND_SYNC, worker->tag, now, decided, TG_RUN_MAX, &n_decided,
                                 &run, due_ns);
        }
        tg_settle_decided(self, decided, n_decided);
        forget_retried(slice, cut_short);
        if (tg_core_has_settled(self->core) || tg_core_has_done(self->core)) {
            tg_settle_pending(self);
        }
    }
    tg_ambient_drop(&slice->ambient);
    PyMem_Free(slice);
}
