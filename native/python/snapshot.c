/* snapshot.c - what a lane did since its last snapshot, in the fields of telemetry.record.LaneDelta. */
#include "state.h"

static const char *const class_names[TG_CLASSES] = {"queued", "limited", "backoff", "running", "settling"};

static int set_number(PyObject *dict, const char *key, uint64_t value)
{
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    int result = number ? PyDict_SetItemString(dict, key, number) : -1;
    Py_XDECREF(number);
    return result;
}

/* The fine buckets (128 an octave) lie within the coarse ones (16 an octave), so folding loses nothing more. */
static int fold(struct tg_module_state *state, PyObject *stats, int class_, const struct tg_histogram *delta)
{
    uint32_t cursor = 0, current = 0;
    uint64_t low, count, pending = 0;
    while (tg_histogram_next(delta, &cursor, &low, NULL, &count)) {
        uint32_t index = tg_coarse_index(low);
        if (index != current && pending != 0) {
            if (tg_stats_add_coarse(state, stats, class_, current, pending) < 0) {
                return -1;
            }
            pending = 0;
        }
        current = index;
        pending += count;
    }
    return pending != 0 ? tg_stats_add_coarse(state, stats, class_, current, pending) : 0;
}

static int add_class(LaneObject *lane, PyObject *stats, int class_, struct tg_histogram *now, struct tg_histogram *delta)
{
    struct tg_histogram *before = lane->histograms[class_];
    if (before == NULL) {
        if (tg_histogram_create(NULL, &lane->histograms[class_]) != TG_OK) {
            PyErr_NoMemory();
            return -1;
        }
        before = lane->histograms[class_];
    }
    if (tg_lane_get_histogram(lane->lane, class_, now) != TG_OK || now->count == before->count) {
        return 0;
    }
    const char *name = class_names[class_];
    tg_histogram_delta(now, before, delta);
    char key[32];
    PyOS_snprintf(key, sizeof key, "%s_count", name);
    int failed = set_number(stats, key, delta->count);
    PyOS_snprintf(key, sizeof key, "%s_sum_ns", name);
    failed |= set_number(stats, key, delta->sum);
    PyOS_snprintf(key, sizeof key, "%s_min_ns", name);
    failed |= set_number(stats, key, delta->min);
    PyOS_snprintf(key, sizeof key, "%s_max_ns", name);
    failed |= set_number(stats, key, delta->max);
    tg_histogram_copy(before, now);
    return failed || fold(lane->core->state, stats, class_, delta) < 0 ? -1 : 0;
}

static PyObject *stats_of(LaneObject *lane)
{
    struct tg_histogram *now = NULL, *delta = NULL;
    PyObject *stats = PyDict_New();
    if (stats == NULL || tg_histogram_create(NULL, &now) != TG_OK || tg_histogram_create(NULL, &delta) != TG_OK) {
        if (stats != NULL) {
            PyErr_NoMemory();
        }
        Py_CLEAR(stats);
    }
    for (int class_ = 0; stats != NULL && class_ < TG_CLASSES; class_++) {
        if (add_class(lane, stats, class_, now, delta) < 0) {
            Py_CLEAR(stats);
        }
    }
    tg_histogram_destroy(NULL, now);
    tg_histogram_destroy(NULL, delta);
    return stats;
}

PyObject *tg_lane_snapshot(LaneObject *lane)
{
    struct tg_lane_stats now, *before = &lane->reported;
    tg_status status = tg_lane_get_stats(lane->lane, &now);
    if (status != TG_OK) {
        return tg_raise_status(lane->core->state, status, "lane");
    }
    PyObject *stats = stats_of(lane);
    PyObject *errors = lane->errors;
    PyObject *fresh = stats ? PyDict_New() : NULL;
    if (fresh == NULL) {
        Py_XDECREF(stats);
        return NULL;
    }
    lane->errors = fresh;
#define DELTA(field) (unsigned long long)(now.field - before->field)
#define NOW(field) (unsigned long long)now.field
    PyObject *result = Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:d,s:O,s:N,s:N}", "started",
        DELTA(started), "succeeded", DELTA(outcomes[TG_OUTCOME_SUCCEEDED]), "failed", DELTA(outcomes[TG_OUTCOME_FAILED]),
        "timed_out", DELTA(outcomes[TG_OUTCOME_TIMED_OUT]), "cancelled", DELTA(outcomes[TG_OUTCOME_CANCELLED]), "crashed",
        DELTA(outcomes[TG_OUTCOME_CRASHED]), "retried", DELTA(retried), "refused_final", DELTA(refused_final),
        "refused_attempts", DELTA(refused_attempts), "refused_deadline", DELTA(refused_deadline), "refused_budget",
        DELTA(refused_budget), "refused_breaker", DELTA(refused_breaker), "busy_ns", DELTA(busy_ns), "concurrency",
        NOW(concurrency), "running", NOW(running), "peak_running", NOW(peak_running), "inside", NOW(inside), "ready",
        (unsigned long long)(now.blocked ? 0 : now.ready), "limited",
        (unsigned long long)(now.limited + (now.blocked ? now.ready : 0)), "backing_off", NOW(backing_off), "stolen",
        DELTA(stolen), "budget", now.budget, "name", lane->name, "stats", stats, "errors", errors);
    lane->reported = now;
    return result;
}
