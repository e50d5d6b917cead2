/* settle.c - how an item's end is written down.
 *
 * A success costs three stores. A failure is described (type, message, traceback as text) by the `capture` callable when
 * the core has decided that there will be no further attempt; the exception is dropped right after, so that nothing keeps
 * its frames alive. Everything here runs with the GIL. */
#include "state.h"

#include <string.h>

static void note_unsuccessful(RunObject *run, uint64_t position, enum tg_outcome outcome)
{
    run->outcomes[position] = (uint8_t)outcome;
    run->n_fresh++;
    run->n_fresh_bad++;
    run->remaining--;
}

/* What few runs ask for. */
void tg_run_success_extras(RunObject *run, const struct tg_item *item)
{
    uint64_t position = item->position;
    if (run->errors != NULL) {
        Py_CLEAR(run->errors[position]);
    }
    if (run->detail != NULL) {
        struct tg_detail *detail = &run->detail[position];
        detail->run_ns = item->running_ns;
        detail->wait_ns = item->queued_ns + item->limited_ns + item->backoff_ns;
        detail->attempts = item->attempts;
    }
}

/* ---- attempts that failed ---- */

static int keep_error(RunObject *run, uint64_t position, PyObject *error)
{
    if (run->errors == NULL) {
        run->errors = PyMem_Calloc((size_t)run->n, sizeof *run->errors);
        if (run->errors == NULL) {
            return -1;
        }
    }
    Py_XSETREF(run->errors[position], Py_NewRef(error));
    return 0;
}

/* One line about an attempt that may be followed by another. */
static int add_history(RunObject *run, const struct tg_item *item, PyObject *line)
{
    if (run->history == NULL && (run->history = PyDict_New()) == NULL) {
        return -1;
    }
    PyObject *key = PyLong_FromUnsignedLongLong(item->position);
    if (key == NULL) {
        return -1;
    }
    int result = -1;
    PyObject *lines = PyDict_GetItemWithError(run->history, key);
    if (lines != NULL) {
        result = PyList_Append(lines, line);
    } else if (!PyErr_Occurred()) {
        lines = PyList_New(0);
        if (lines != NULL && PyList_Append(lines, line) == 0) {
            result = PyDict_SetItem(run->history, key, lines);
        }
        Py_XDECREF(lines);
    }
    Py_DECREF(key);
    return result;
}

/* The item's key under each keyed limit of the lane; None for one that does not bind it. Empty for most lanes. */
static PyObject *keys_of(const LaneObject *lane, const struct tg_item *item)
{
    Py_ssize_t n = PyTuple_GET_SIZE(lane->keys);
    PyObject *keys = PyTuple_New(n);
    for (Py_ssize_t i = 0; keys != NULL && i < n; i++) {
        uint64_t key = tg_item_key(item, (uint32_t)i);
        PyObject *number = key == TG_NO_KEY ? Py_NewRef(Py_None) : PyLong_FromUnsignedLongLong(key);
        if (number == NULL) {
            Py_CLEAR(keys);
            break;
        }
        PyTuple_SET_ITEM(keys, i, number);
    }
    return keys;
}

enum tg_verdict tg_run_attempt_failed(RunObject *run, const struct tg_item *item, PyObject *error, int end,
                                      uint64_t *retry_after_ns)
{
    enum tg_verdict verdict = TG_VERDICT_FAIL_FINAL;
    *retry_after_ns = 0;
    if (keep_error(run, item->position, error) < 0) {
        PyErr_Clear();
    }
    if (end == TG_END_CANCELLED) {
        return TG_VERDICT_CANCELLED;
    }
    /* classify(error, attempt, run_ns, timed_out, keys) -> (retryable, retry_after_ns, line or None) */
    PyObject *keys = keys_of(run->lane, item);
    PyObject *answer = keys == NULL ? NULL
                                    : PyObject_CallFunction(run->lane->classify, "OIKiO", error, (unsigned)item->attempts,
                                                            (unsigned long long)item->running_ns,
                                                            end == TG_END_TIMED_OUT, keys);
    Py_XDECREF(keys);
    int retryable = 0;
    unsigned long long delay_ns = 0;
    PyObject *line = Py_None;
    if (answer == NULL || !PyArg_ParseTuple(answer, "pKO", &retryable, &delay_ns, &line)) {
        PyErr_WriteUnraisable(run->lane->classify);
    } else if (line != Py_None && add_history(run, item, line) < 0) {
        PyErr_WriteUnraisable(run->lane->classify);
    }
    Py_XDECREF(answer);
    *retry_after_ns = delay_ns;
    if (retryable) {
        verdict = end == TG_END_TIMED_OUT ? TG_VERDICT_TIMED_OUT : TG_VERDICT_FAIL_RETRYABLE;
    } else if (end == TG_END_TIMED_OUT) {
        verdict = TG_VERDICT_TIMED_OUT; /* the lane was told whether timeouts are retried */
    }
    return verdict;
}

void tg_run_forget_error(RunObject *run, uint64_t position, PyObject *error)
{
    /* Still this attempt's error and not decided: the item will run again. */
    if (run->errors != NULL && run->errors[position] == error && run->outcomes[position] == 0) {
        Py_CLEAR(run->errors[position]);
    }
}

/* ---- the end of an item without success ---- */

static PyObject *take_history(RunObject *run, uint64_t position)
{
    if (run->history == NULL) {
        return Py_NewRef(Py_None);
    }
    PyObject *key = PyLong_FromUnsignedLongLong(position);
    PyObject *lines = key ? PyDict_GetItemWithError(run->history, key) : NULL;
    PyObject *result = lines ? Py_NewRef(lines) : Py_NewRef(Py_None);
    if (lines != NULL && PyDict_DelItem(run->history, key) < 0) {
        PyErr_Clear();
    }
    PyErr_Clear();
    Py_XDECREF(key);
    return result;
}

static void count_error(LaneObject *lane, PyObject *record)
{
    PyObject *name = PyObject_GetAttrString(record, "error_type");
    PyObject *count = name ? PyDict_GetItemWithError(lane->errors, name) : NULL;
    if (name != NULL && (count != NULL || PyDict_GET_SIZE(lane->errors) < 64)) {
        PyObject *more = PyLong_FromLong(count ? PyLong_AsLong(count) + 1 : 1);
        if (more == NULL || PyDict_SetItem(lane->errors, name, more) < 0) {
            PyErr_Clear();
        }
        Py_XDECREF(more);
    }
    PyErr_Clear();
    Py_XDECREF(name);
}

static PyObject *take_error(RunObject *run, uint64_t position)
{
    PyObject *error = run->errors ? run->errors[position] : NULL;
    if (error != NULL) {
        run->errors[position] = NULL;
    }
    return error;
}

/* Steals the reference to `error`, which may be NULL: the item ended without one. */
static void record_failure(RunObject *run, uint64_t position, enum tg_outcome outcome, int reason, unsigned attempts,
                           uint64_t run_ns, PyObject *error)
{
    if (error == NULL) {
        error = Py_NewRef(Py_None);
    }
    PyObject *history = take_history(run, position);
    PyObject *record =
        PyObject_CallFunction(run->core->capture, "OKiiIKOOO", error, (unsigned long long)position, (int)outcome, reason,
                              attempts, (unsigned long long)run_ns, history, run->origin, run->function);
    Py_DECREF(history);
    Py_DECREF(error);
    if (record == NULL) {
        PyErr_WriteUnraisable(run->core->capture);
        record = Py_NewRef(Py_None); /* the item is still counted; the Python side shows a placeholder */
    } else {
        count_error(run->lane, record);
        if (run->core->outlog != NULL) {
            tg_record_failure(run, position, outcome, attempts, record);
        }
    }
    PyObject *entry = Py_BuildValue("(KiN)", (unsigned long long)position, (int)outcome, record);
    if (run->failures == NULL) {
        run->failures = PyList_New(0);
    }
    if (entry == NULL || run->failures == NULL || PyList_Append(run->failures, entry) < 0) {
        PyErr_WriteUnraisable(run->core->capture);
    }
    Py_XDECREF(entry);
}

static void note_attempts(RunObject *run, uint64_t position, unsigned attempts)
{
    if (run->attempts == NULL) {
        run->attempts = PyMem_Calloc((size_t)run->n, 1);
        if (run->attempts == NULL) {
            return;
        }
        if (run->prior != NULL) {
            memcpy(run->attempts, PyBytes_AS_STRING(run->prior), (size_t)run->n);
        }
    }
    run->attempts[position] = (uint8_t)(attempts > 255 ? 255 : attempts);
}

static void append_returned(RunObject *run, const struct tg_item *item)
{
    PyObject **list = item->outcome == TG_OUTCOME_RETURNED ? &run->returned : &run->deferred;
    if (*list == NULL && (*list = PyList_New(0)) == NULL) {
        goto fail;
    }
    uint64_t now = tg_core_now(run->core->core);
    uint64_t due_ms = item->due_ns > now ? (item->due_ns - now + 999999) / 1000000 : 0;
    PyObject *entry = item->outcome == TG_OUTCOME_RETURNED
                          ? PyLong_FromUnsignedLongLong(item->position)
                          : Py_BuildValue("(KK)", (unsigned long long)item->position, (unsigned long long)due_ms);
    if (entry == NULL || PyList_Append(*list, entry) < 0) {
        Py_XDECREF(entry);
        goto fail;
    }
    Py_DECREF(entry);
    return;
fail:
    PyErr_WriteUnraisable((PyObject *)run);
}

/* Whether the item ended without success, and nobody has written it down yet. */
static int is_failure(const RunObject *run, const struct tg_item *item)
{
    switch (item->outcome) {
    case TG_OUTCOME_SUCCEEDED:
    case TG_OUTCOME_RETURNED:
    case TG_OUTCOME_DEFERRED:
        return 0;
    default:
        return run->outcomes[item->position] == 0;
    }
}

/* Steals the reference to `error`. */
static void settle_one(RunObject *run, const struct tg_item *item, PyObject *error)
{
    uint64_t position = item->position;
    if (run->outcomes[position] != 0) {
        Py_XDECREF(error);
        return; /* a success that another thread finished: written when it happened */
    }
    switch (item->outcome) {
    case TG_OUTCOME_RETURNED:
    case TG_OUTCOME_DEFERRED:
        append_returned(run, item);
        note_attempts(run, position, item->attempts);
        if (run->errors != NULL) {
            Py_CLEAR(run->errors[position]);
        }
        run->outcomes[position] = item->outcome;
        run->remaining--;
        return;
    case TG_OUTCOME_SUCCEEDED:
        return;
    default:
        break;
    }
    record_failure(run, position, item->outcome, item->reason, item->attempts, item->running_ns, error);
    if (run->detail != NULL) {
        run->detail[position] = (struct tg_detail){
            .run_ns = item->running_ns,
            .wait_ns = item->queued_ns + item->limited_ns + item->backoff_ns,
            .attempts = item->attempts,
        };
    }
    note_unsuccessful(run, position, item->outcome);
}

void tg_settle_decided(CoreObject *core, struct tg_item **items, size_t n)
{
    /* All errors are taken before any Python runs. Describing the first failure may hand the GIL to the thread that ran a
     * later one; that thread takes an item without an outcome for one to be retried, and would drop its error. */
    PyObject *errors[TG_RUN_MAX];
    for (size_t i = 0; i < n; i++) {
        RunObject *run = tg_group_payload(items[i]->group);
        errors[i] = is_failure(run, items[i]) ? take_error(run, items[i]->position) : NULL;
    }
    for (size_t i = 0; i < n; i++) {
        settle_one(tg_group_payload(items[i]->group), items[i], errors[i]);
    }
    if (n != 0) {
        tg_core_settle(core->core, items, n, 0);
    }
}

int tg_run_settle_early(RunObject *run, Py_ssize_t position, enum tg_outcome outcome, PyObject *error)
{
    if (error != NULL && keep_error(run, (uint64_t)position, error) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    unsigned attempts = run->prior ? (unsigned char)PyBytes_AS_STRING(run->prior)[position] : 0;
    record_failure(run, (uint64_t)position, outcome, TG_REASON_FINAL, attempts, 0, take_error(run, (uint64_t)position));
    note_unsuccessful(run, (uint64_t)position, outcome);
    run->early[outcome]++;
    return 0;
}

/* ---- runs that are done ---- */

static void finish_run(RunObject *run)
{
    run->done = 1;
    PyObject *callbacks = run->callbacks;
    run->callbacks = NULL;
    for (Py_ssize_t i = 0; callbacks != NULL && i < PyList_GET_SIZE(callbacks); i++) {
        PyObject *callback = Py_NewRef(PyList_GET_ITEM(callbacks, i));
        PyObject *result = PyObject_CallOneArg(callback, (PyObject *)run);
        if (result == NULL) {
            PyErr_WriteUnraisable(callback);
        }
        Py_XDECREF(result);
        Py_DECREF(callback);
    }
    Py_XDECREF(callbacks);
    Py_DECREF(run); /* the reference that lane.start took for the core */
}

void tg_settle_pending(CoreObject *core)
{
    struct tg_item *items[64];
    size_t n;
    while (tg_core_has_settled(core->core) && tg_core_take_settled(core->core, items, 64, &n) == TG_OK && n != 0) {
        tg_settle_decided(core, items, n);
    }
    struct tg_group *group;
    while (tg_core_has_done(core->core) && tg_core_take_done(core->core, &group) == TG_OK && group != NULL) {
        PyObject *owner = tg_group_payload(group);
        if (Py_IS_TYPE(owner, core->state->run_type)) {
            finish_run((RunObject *)owner);
        } else {
            tg_ccall_finished(owner);
        }
    }
}
