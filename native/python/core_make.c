/* core_make.c - makes the limits and lanes of a Core. */
#include "state.h"

PyObject *tg_core_limit(CoreObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"kind", "keyed", "watched", "capacity", "count", "period_ns", "burst", "failure_ratio", "min_calls",
                            "window_ns", "open_ns", "probes", "refuse", NULL};
    struct tg_limit_options options = {0};
    int kind, keyed = 0, watched = 0, refuse = 0;
    unsigned capacity = 0, burst = 1, min_calls = 0, probes = 1;
    unsigned long long count = 0, period_ns = 0, window_ns = 0, open_ns = 0;
    double failure_ratio = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i|$ppIKKIdIKKIp", names, &kind, &keyed, &watched, &capacity, &count, &period_ns,
                                     &burst, &failure_ratio, &min_calls, &window_ns, &open_ns, &probes, &refuse) ||
        !tg_alive(self)) {
        return NULL;
    }
    options.kind = (enum tg_limit_kind)kind;
    options.keyed = keyed;
    options.watched = watched;
    options.capacity = capacity;
    options.count = count;
    options.period_ns = period_ns;
    options.burst = burst;
    options.failure_ratio = failure_ratio;
    options.min_calls = min_calls;
    options.window_ns = window_ns;
    options.open_ns = open_ns;
    options.probes = probes;
    options.refuse = refuse;
    LimitObject *limit = PyObject_GC_New(LimitObject, self->state->limit_type);
    if (limit == NULL) {
        return NULL;
    }
    limit->core = (CoreObject *)Py_NewRef(self);
    limit->limit = NULL;
    limit->kind = kind;
    limit->keyed = keyed;
    tg_status status = tg_limit_create(self->core, &options, &limit->limit);
    PyObject_GC_Track(limit);
    if (status != TG_OK) {
        limit->limit = NULL;
        Py_DECREF(limit);
        return tg_raise_status(self->state, status, "limit");
    }
    return (PyObject *)limit;
}

static int attach_limits(LaneObject *lane, Py_ssize_t *n_keyed)
{
    *n_keyed = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(lane->limits); i++) {
        PyObject *item = PyTuple_GET_ITEM(lane->limits, i);
        if (!Py_IS_TYPE(item, lane->core->state->limit_type) || ((LimitObject *)item)->core != lane->core) {
            PyErr_SetString(PyExc_TypeError, "limits must be Limit objects of the same core");
            return -1;
        }
        tg_status status = tg_lane_attach(lane->lane, ((LimitObject *)item)->limit);
        if (status != TG_OK) {
            tg_raise_status(lane->core->state, status, "limit");
            return -1;
        }
        *n_keyed += ((LimitObject *)item)->keyed != 0;
    }
    return 0;
}

static PyObject *finish_lane(LaneObject *lane)
{
    CoreObject *core = lane->core;
    Py_ssize_t n_keyed;
    if (attach_limits(lane, &n_keyed) < 0) {
        return NULL;
    }
    if (n_keyed != PyTuple_GET_SIZE(lane->keys)) {
        PyErr_SetString(PyExc_ValueError, "give one key function for each keyed limit");
        return NULL;
    }
    uint64_t shortest = atomic_load(&core->min_timeout_ns);
    uint64_t soft = lane->kind == TG_KIND_C ? 0 : lane->timeout_ns; /* nothing can interrupt C */
    uint64_t mine = soft ? soft : lane->hard_ns ? lane->hard_ns : TG_NEVER;
    if (mine < shortest) {
        atomic_store(&core->min_timeout_ns, mine);
    }
    if (mine != TG_NEVER && tg_watchdog_ensure(core) < 0) {
        return NULL;
    }
    if (lane->kind == TG_KIND_SYNC) {
        core->wanted_threads += lane->concurrency;
    }
    return (PyObject *)lane;
}

PyObject *tg_core_lane(CoreObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "function", "kind", "classify", "limits", "keys", "concurrency", "timeout_ns",
                            "hard_ns", "max_wait_ns", "capacity", "max_crashes", "priority", "attempts", "base_ns",
                            "factor", "cap_ns", "jitter", "deadline_ns", "retry_timeouts", "budget", "budget_floor",
                            NULL};
    PyObject *name, *function, *classify, *limits, *keys;
    int kind, jitter = TG_JITTER_FULL, retry_timeouts = 0;
    unsigned concurrency = 1, max_crashes = 3, priority = 0, attempts = 1;
    unsigned long long timeout_ns = 0, hard_ns = 0, max_wait_ns = 0, capacity = 0, base_ns = 0, cap_ns = 0, deadline_ns = 0;
    double factor = 2, budget = 0, budget_floor = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "UOiOO!O!|$IKKKKIIIKdKiKpdd", names, &name, &function, &kind, &classify,
                                     &PyTuple_Type, &limits, &PyTuple_Type, &keys, &concurrency, &timeout_ns, &hard_ns,
                                     &max_wait_ns, &capacity, &max_crashes, &priority, &attempts, &base_ns, &factor,
                                     &cap_ns, &jitter, &deadline_ns, &retry_timeouts, &budget, &budget_floor) ||
        !tg_alive(self)) {
        return NULL;
    }
    const char *text = PyUnicode_AsUTF8(name);
    LaneObject *lane = text ? (LaneObject *)self->state->lane_type->tp_alloc(self->state->lane_type, 0) : NULL;
    if (lane == NULL) {
        return NULL;
    }
    lane->core = (CoreObject *)Py_NewRef(self);
    lane->name = Py_NewRef(name);
    lane->function = Py_NewRef(function);
    lane->classify = Py_NewRef(classify);
    lane->limits = Py_NewRef(limits);
    lane->keys = Py_NewRef(keys);
    lane->errors = PyDict_New();
    lane->kind = (unsigned)kind;
    lane->timeout_ns = timeout_ns;
    lane->hard_ns = hard_ns;
    lane->max_wait_ns = max_wait_ns;
    lane->attempts = attempts;
    lane->max_crashes = max_crashes;
    lane->concurrency = concurrency;
    struct tg_lane_options options = {
        .name = text,
        .kind = (enum tg_kind)kind,
        .concurrency = concurrency,
        .priority = priority,
        .capacity = capacity,
        .timeout_ns = kind == TG_KIND_C ? timeout_ns : 0, /* of the others the binding takes care */
        .payload = lane,
        .retry = {.attempts = attempts,
                  .base_ns = base_ns,
                  .factor = factor,
                  .cap_ns = cap_ns,
                  .jitter = (enum tg_jitter)jitter,
                  .deadline_ns = deadline_ns,
                  .retry_timeouts = retry_timeouts,
                  .budget_ratio = budget,
                  .budget_floor_per_s = budget_floor},
    };
    tg_status status = lane->errors ? tg_lane_create(self->core, &options, &lane->lane) : TG_NOMEM;
    if (status != TG_OK) {
        Py_DECREF(lane);
        return tg_raise_status(self->state, status, "lane");
    }
    if (finish_lane(lane) == NULL) {
        lane->concurrency = 0; /* not counted in wanted_threads */
        Py_DECREF(lane);
        return NULL;
    }
    return (PyObject *)lane;
}
