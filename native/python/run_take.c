/* run_take.c - what settled since it was last asked for. With the GIL.
 *
 * Positions that settled are found by their outcome; those told of are marked (TG_TOLD). A run that is asked once, when all
 * of it has succeeded, hands its list of values over as it is. */
#include "state.h"

#include <string.h>

static const char *const class_names[TG_CLASSES] = {"queued", "limited", "backoff", "running", "settling"};

static int set_number(PyObject *dict, const char *key, uint64_t value)
{
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    int result = number ? PyDict_SetItemString(dict, key, number) : -1;
    Py_XDECREF(number);
    return result;
}

/* "running:123", made once for each bucket: a batch has a hundred of them. */
static PyObject *coarse_key(struct tg_module_state *state, int class_, uint32_t index)
{
    PyObject **place = &state->coarse_keys[class_][index];
    if (*place == NULL) {
        *place = PyUnicode_FromFormat("%s:%u", class_names[class_], (unsigned)index);
    }
    return *place;
}

int tg_stats_add_coarse(struct tg_module_state *state, PyObject *dict, int class_, uint32_t index, uint64_t count)
{
    PyObject *key = coarse_key(state, class_, index);
    PyObject *number = key ? PyLong_FromUnsignedLongLong(count) : NULL;
    int result = number ? PyDict_SetItem(dict, key, number) : -1;
    Py_XDECREF(number);
    return result;
}

static int add_coarse(RunObject *self, PyObject *dict, int class_)
{
    struct tg_coarse_entry entries[TG_COARSE_BUCKETS];
    size_t used = 0;
    if (tg_group_get_coarse(self->group, class_, entries, TG_COARSE_BUCKETS, &used) != TG_OK || used == 0) {
        return 0;
    }
    if (self->coarse == NULL) {
        self->coarse = PyMem_Calloc(TG_CLASSES * TG_COARSE_BUCKETS, sizeof *self->coarse);
        if (self->coarse == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    uint64_t *seen = self->coarse + (size_t)class_ * TG_COARSE_BUCKETS;
    for (size_t i = 0; i < used; i++) {
        uint64_t added = entries[i].count - seen[entries[i].index];
        seen[entries[i].index] = entries[i].count;
        if (added != 0 && tg_stats_add_coarse(self->core->state, dict, class_, entries[i].index, added) < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *stats_delta(RunObject *self, const struct tg_group_stats *now)
{
    PyObject *dict = PyDict_New();
    if (dict == NULL) {
        return NULL;
    }
    for (int class_ = 0; class_ < TG_CLASSES; class_++) {
        uint64_t count = now->count[class_] - self->reported.count[class_];
        if (count == 0) {
            continue;
        }
        char key[32];
        const char *name = class_names[class_];
        PyOS_snprintf(key, sizeof key, "%s_count", name);
        int failed = set_number(dict, key, count);
        PyOS_snprintf(key, sizeof key, "%s_sum_ns", name);
        failed |= set_number(dict, key, now->sum_ns[class_] - self->reported.sum_ns[class_]);
        PyOS_snprintf(key, sizeof key, "%s_min_ns", name);
        failed |= set_number(dict, key, now->min_ns[class_]);
        PyOS_snprintf(key, sizeof key, "%s_max_ns", name);
        failed |= set_number(dict, key, now->max_ns[class_]);
        if (failed || add_coarse(self, dict, class_) < 0) {
            Py_DECREF(dict);
            return NULL;
        }
    }
    return dict;
}

/* What one take() tells: positions in ascending order. */
struct taken {
    uint32_t *positions; /* NULL: all of the run, or none */
    Py_ssize_t count;
    Py_ssize_t n_ok;
    uint64_t outcomes[TG_OUTCOMES];
    int contiguous;
    uint32_t first_ok;
    Py_ssize_t low; /* the run's, should it have to be put back */
};

static uint32_t position_at(const struct taken *taken, Py_ssize_t i)
{
    return taken->positions != NULL ? taken->positions[i] : (uint32_t)i;
}

/* Settled with an outcome of its own, and not told yet. */
static int is_fresh(uint8_t outcome)
{
    return outcome >= TG_OUTCOME_SUCCEEDED && outcome <= TG_OUTCOME_CRASHED;
}

static int find_positions(RunObject *self, struct taken *taken)
{
    taken->positions = PyMem_Malloc((size_t)taken->count * sizeof *taken->positions);
    if (taken->positions == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    Py_ssize_t found = 0;
    for (Py_ssize_t i = self->low; found < taken->count; i++) {
        if (is_fresh(self->outcomes[i])) {
            taken->positions[found++] = (uint32_t)i;
        }
    }
    return 0;
}

/* Counts what is told now and marks it as told, so that no other take() tells it again. */
static int collect(RunObject *self, struct taken *taken)
{
    *taken = (struct taken){.count = self->n_fresh, .n_ok = self->n_fresh - self->n_fresh_bad, .contiguous = 1,
                            .low = self->low};
    if (taken->count == self->n && taken->n_ok == self->n) { /* the usual case: all of it, and all is well */
        taken->outcomes[TG_OUTCOME_SUCCEEDED] = (uint64_t)self->n;
        memset(self->outcomes, TG_OUTCOME_SUCCEEDED | TG_TOLD, (size_t)self->n);
    } else {
        if (taken->count != self->n && taken->count != 0 && find_positions(self, taken) < 0) {
            return -1;
        }
        uint32_t expected = 0;
        Py_ssize_t n_ok = 0;
        for (Py_ssize_t i = 0; i < taken->count; i++) {
            uint32_t position = position_at(taken, i);
            uint8_t *outcome = &self->outcomes[position];
            taken->outcomes[*outcome]++;
            if (*outcome == TG_OUTCOME_SUCCEEDED) {
                if (n_ok++ == 0) {
                    taken->first_ok = position;
                } else if (position != expected) {
                    taken->contiguous = 0;
                }
                expected = position + 1;
            }
            *outcome |= TG_TOLD;
        }
    }
    self->n_fresh = self->n_fresh_bad = 0;
    while (self->low < self->n && self->outcomes[self->low] != 0) {
        self->low++;
    }
    return 0;
}

/* There was no memory to tell it: another take() may. */
static void put_back(RunObject *self, const struct taken *taken)
{
    for (Py_ssize_t i = 0; i < taken->count; i++) {
        self->outcomes[position_at(taken, i)] &= (uint8_t)~TG_TOLD;
    }
    self->n_fresh += taken->count;
    self->n_fresh_bad += taken->count - taken->n_ok;
    self->low = taken->low;
}

/* The values of what succeeded: the run's own list when that is all there ever was in it, else a new one. */
static PyObject *take_values(RunObject *self, const struct taken *taken)
{
    if (taken->n_ok == self->n && self->list != NULL) {
        PyObject *list = self->list;
        self->list = NULL;
        self->values = NULL;
        PyObject_GC_Track(list);
        return list;
    }
    PyObject *values = PyList_New(taken->n_ok);
    for (Py_ssize_t i = 0, at = 0; values != NULL && i < taken->count; i++) {
        uint32_t position = position_at(taken, i);
        if (self->outcomes[position] == (TG_OUTCOME_SUCCEEDED | TG_TOLD)) {
            PyList_SET_ITEM(values, at++, self->values[position]);
            self->values[position] = NULL;
        }
    }
    return values;
}

static PyObject *positions_of_values(RunObject *self, const struct taken *taken)
{
    PyObject *positions = PyList_New(taken->n_ok);
    for (Py_ssize_t i = 0, at = 0; positions != NULL && i < taken->count; i++) {
        uint32_t position = position_at(taken, i);
        if (self->outcomes[position] != (TG_OUTCOME_SUCCEEDED | TG_TOLD)) {
            continue;
        }
        PyObject *number = PyLong_FromUnsignedLong(position);
        if (number == NULL) {
            Py_CLEAR(positions);
        } else {
            PyList_SET_ITEM(positions, at++, number);
        }
    }
    return positions;
}

static PyObject *bitmap(RunObject *self, const struct taken *taken)
{
    if (taken->count == self->n) {
        return PyBytes_FromStringAndSize(NULL, 0);
    }
    PyObject *bits = PyBytes_FromStringAndSize(NULL, (self->n + 7) / 8);
    if (bits != NULL) {
        char *bytes = PyBytes_AS_STRING(bits);
        memset(bytes, 0, (size_t)PyBytes_GET_SIZE(bits));
        for (Py_ssize_t i = 0; i < taken->count; i++) {
            bytes[taken->positions[i] >> 3] |= (char)(1u << (taken->positions[i] & 7));
        }
    }
    return bits;
}

static PyObject *swap_list(PyObject **list)
{
    PyObject *taken = *list;
    *list = NULL;
    return taken ? taken : PyList_New(0);
}

/* Everything but the values, which are taken last: they cannot be put back. */
static PyObject *tell(RunObject *self, const struct taken *taken, const struct tg_group_stats *now)
{
    int complete = self->remaining == 0;
    PyObject *result = NULL, *positions = NULL;
    PyObject *bits = bitmap(self, taken);
    PyObject *stats = stats_delta(self, now);
    PyObject *attempts = complete && self->attempts ? PyBytes_FromStringAndSize((char *)self->attempts, self->n)
                                                    : PyBytes_FromStringAndSize(NULL, 0);
    const uint64_t *o = taken->outcomes;
    PyObject *counts = Py_BuildValue("(KKKKK)", (unsigned long long)o[1], (unsigned long long)o[2],
                                     (unsigned long long)o[3], (unsigned long long)o[4], (unsigned long long)o[5]);
    positions = taken->contiguous ? Py_NewRef(Py_None) : positions_of_values(self, taken);
    PyObject *values = bits && stats && attempts && counts && positions ? take_values(self, taken) : NULL;
    if (values != NULL) {
        uint64_t executions = now->attempts - self->reported.attempts, retries = now->retries - self->reported.retries;
        self->reported = *now;
        PyObject *failures = swap_list(&self->failures);
        PyObject *returned = complete ? swap_list(&self->returned) : PyList_New(0);
        PyObject *deferred = complete ? swap_list(&self->deferred) : PyList_New(0);
        Py_ssize_t first_ok = taken->n_ok && taken->contiguous ? (Py_ssize_t)taken->first_ok : -1;
        result = Py_BuildValue("(nOnOONNNOOKKO)", taken->count, bits, first_ok, positions, values, failures, returned,
                               deferred, attempts, counts, (unsigned long long)executions, (unsigned long long)retries,
                               stats);
    } else {
        put_back(self, taken);
    }
    Py_XDECREF(values);
    Py_XDECREF(positions);
    Py_XDECREF(bits);
    Py_XDECREF(stats);
    Py_XDECREF(attempts);
    Py_XDECREF(counts);
    return result;
}

PyObject *tg_run_take_settled(RunObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->core->core != NULL) {
        tg_settle_pending(self->core);
    }
    struct tg_group_stats now;
    memset(&now, 0, sizeof now);
    tg_status status = self->core->core ? tg_group_get_stats(self->group, &now) : TG_OK;
    if (status != TG_OK) {
        return tg_raise_status(self->core->state, status, "run");
    }
    struct taken taken;
    if (collect(self, &taken) < 0) {
        return NULL;
    }
    tg_outcomes_sent(self);
    PyObject *result = tell(self, &taken, &now);
    PyMem_Free(taken.positions);
    return result;
}
