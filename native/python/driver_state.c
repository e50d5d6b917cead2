/* driver_state.c - the driver's part of the module state: what it needs of asyncio, looked up once. */
#include "driver_internal.h"

static int import_names(tgd_state *state)
{
    static const struct {
        const char *module, *name;
        size_t at;
    } wanted[] = {
#define WANTED(module, name, field) {module, name, offsetof(tgd_state, field)}
        WANTED("_asyncio", "Future", future),
        WANTED("_asyncio", "Task", task),
        WANTED("_asyncio", "_current_tasks", current_tasks),
        WANTED("_asyncio", "_register_task", register_task),
        WANTED("asyncio", "get_running_loop", get_running_loop),
        WANTED("asyncio", "ensure_future", ensure_future),
        WANTED("asyncio", "gather", asyncio_gather),
        WANTED("asyncio", "sleep", asyncio_sleep),
        WANTED("asyncio.exceptions", "CancelledError", cancelled_error),
        WANTED("asyncio.exceptions", "InvalidStateError", invalid_state_error),
        WANTED("asyncio.coroutines", "iscoroutine", iscoroutine),
        WANTED("asyncio.base_tasks", "_task_repr", format_repr),
        WANTED("asyncio.base_tasks", "_task_get_stack", format_stack),
        WANTED("asyncio.base_tasks", "_task_print_stack", print_stack),
#undef WANTED
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
        PyObject *module = PyImport_ImportModule(wanted[i].module);
        PyObject *found = module ? PyObject_GetAttrString(module, wanted[i].name) : NULL;
        Py_XDECREF(module);
        if (!found) {
            return -1;
        }
        *(PyObject **)((char *)state + wanted[i].at) = found;
    }
    if (!PyType_Check(state->future) || !PyType_Check(state->task) || !PyDict_Check(state->current_tasks)) {
        PyErr_SetString(PyExc_ImportError, "tidegate: this Python's asyncio has no C tasks, or keeps them in a way that "
                                           "this version of tidegate does not know (3.11 to 3.13 are)");
        return -1;
    }
    return 0;
}

static int intern_names(tgd_state *state)
{
    static const struct {
        const char *text;
        size_t at;
    } wanted[] = {
#define NAME(text, field) {text, offsetof(tgd_state, field)}
        NAME("call_soon", s_call_soon),
        NAME("cancel", s_cancel),
        NAME("msg", s_msg),
        NAME("throw", s_throw),
        NAME("result", s_result),
        NAME("get_loop", s_get_loop),
        NAME("add_done_callback", s_add_done_callback),
        NAME("_asyncio_future_blocking", s_blocking),
        NAME("PENDING", s_pending),
        NAME("FINISHED", s_finished),
        NAME("CANCELLED", s_cancelled),
        NAME("_tidegate_side", s_side),
        NAME("is_running", s_is_running),
        NAME("loop", s_loop),
        NAME("done", s_done),
        NAME("exception", s_exception),
        NAME("_cancel_message", s_cancel_message),
        NAME("_make_cancelled_error", s_make_cancelled_error),
#undef NAME
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
        PyObject *text = PyUnicode_InternFromString(wanted[i].text);
        if (!text) {
            return -1;
        }
        *(PyObject **)((char *)state + wanted[i].at) = text;
    }
    state->kw_context = Py_BuildValue("(s)", "context");
    state->kw_msg = PyTuple_Pack(1, state->s_msg);
    state->kw_loop = PyTuple_Pack(1, state->s_loop);
    state->nothing = PyTuple_New(0);
    return state->kw_context && state->kw_msg && state->kw_loop && state->nothing ? 0 : -1;
}

static int find_attributes(tgd_state *state)
{
    static const struct {
        const char *name;
        size_t at;
    } wanted[] = {
#define ATTRIBUTE(name, field) {name, offsetof(tgd_state, field)}
        ATTRIBUTE("_asyncio_future_blocking", at_blocking),
        ATTRIBUTE("_loop", at_loop),
        ATTRIBUTE("_state", at_state),
        ATTRIBUTE("_exception", at_exception),
        ATTRIBUTE("_callbacks", at_callbacks),
        ATTRIBUTE("_cancel_message", at_cancel_message),
        ATTRIBUTE("_log_traceback", at_log_traceback),
#undef ATTRIBUTE
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
        PyObject *found = PyObject_GetAttrString((PyObject *)state->future, wanted[i].name);
        if (!found || !Py_IS_TYPE(found, &PyGetSetDescr_Type)) {
            Py_XDECREF(found);
            PyErr_Format(PyExc_ImportError, "tidegate: asyncio.Future.%s is not what it was in Python 3.11 to 3.13",
                         wanted[i].name);
            return -1;
        }
        *(PyGetSetDef **)((char *)state + wanted[i].at) = ((PyGetSetDescrObject *)found)->d_getset;
        Py_DECREF(found); /* the type keeps it for good */
    }
    return 0;
}

static int find_methods(tgd_state *state)
{
    static const struct {
        const char *name;
        size_t at;
    } wanted[] = {
        {"cancel", offsetof(tgd_state, future_cancel)},
        {"set_result", offsetof(tgd_state, future_set_result)},
        {"set_exception", offsetof(tgd_state, future_set_exception)},
        {"result", offsetof(tgd_state, future_result)},
        {"exception", offsetof(tgd_state, future_exception)},
        {"done", offsetof(tgd_state, future_done)},
        {"add_done_callback", offsetof(tgd_state, future_add_done_callback)},
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
        PyObject *found = PyObject_GetAttrString((PyObject *)state->future, wanted[i].name);
        if (!found) {
            return -1;
        }
        *(PyObject **)((char *)state + wanted[i].at) = found;
    }
    return 0;
}

void *tg_driver_state_create(PyObject *module)
{
    tgd_state *state = PyMem_Calloc(1, sizeof(*state));
    if (!state) {
        PyErr_NoMemory();
        return NULL;
    }
    state->holders = 1;
    state->vars_at = tgd_find_vars();
    if (import_names(state) < 0 || intern_names(state) < 0 || find_attributes(state) < 0 || find_methods(state) < 0
        || tgd_task_type(module, state) < 0 || tgd_waiting_type(module, state) < 0 || tgd_wakeup_type(module, state) < 0
        || tgd_side_types(module, state) < 0 || tgd_driver_type(module, state) < 0 || tgd_gather_type(module, state) < 0
        || tgd_nap_type(module, state) < 0) {
        PyObject *error = tgd_fetch_raised();
        tg_driver_state_destroy(state);
        tgd_restore_raised(error);
        return NULL;
    }
    return state;
}

/* Every PyObject pointer of the state, in one place. */
#define TGD_STATE_OBJECTS(X)                                                                                           \
    X(future) X(task) X(item_task) X(waiting) X(wakeup) X(side) X(driver) X(gathering) X(current_tasks)               \
    X(register_task) X(cancelled_error) X(invalid_state_error) X(iscoroutine) X(ensure_future) X(asyncio_gather)      \
    X(asyncio_sleep) X(nap)                                                                                            \
    X(get_running_loop) X(format_repr) X(format_stack) X(print_stack) X(future_cancel) X(future_set_result)           \
    X(future_set_exception) X(future_result) X(future_exception) X(future_add_done_callback) X(future_done)           \
    X(s_call_soon) X(s_cancel) X(s_msg) X(s_throw) X(s_result) X(s_get_loop) X(s_add_done_callback) X(s_blocking)     \
    X(s_pending) X(s_finished) X(s_cancelled) X(s_side) X(s_is_running) X(s_loop) X(s_done) X(s_exception) X(s_cancel_message)     \
    X(s_make_cancelled_error) X(kw_context) X(kw_msg) X(kw_loop) X(nothing) X(last_loop)

int tg_driver_state_traverse(void *memory, visitproc visit, void *arg)
{
    tgd_state *state = memory;
    if (!state) {
        return 0;
    }
#define VISIT(field) Py_VISIT(state->field);
    TGD_STATE_OBJECTS(VISIT)
#undef VISIT
    return 0;
}

void tg_driver_state_clear(void *memory)
{
    /* Tasks that are still alive need the state to die in order: it goes with the module. */
    (void)memory;
}

void tg_driver_state_destroy(void *memory)
{
    if (memory) {
        tgd_state_release(memory);
    }
}

/* At interpreter exit the module may go before a loop that still has its side, and tasks. */
void tgd_state_release(tgd_state *state)
{
    if (--state->holders > 0) {
        return;
    }
#define CLEAR(field) Py_CLEAR(state->field);
    TGD_STATE_OBJECTS(CLEAR)
#undef CLEAR
    PyMem_Free(state);
}
