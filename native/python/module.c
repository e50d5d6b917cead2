/* module.c - tidegate.executor._native: the module, its state, and its functions. */
#include "driver.h"
#include "state.h"

#include <string.h>

static struct PyModuleDef module_def;

struct tg_module_state *tg_state_of_type(PyTypeObject *type)
{
    return PyType_GetModuleState(type);
}

/* ---- functions ---- */

static PyObject *current(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    struct tg_module_state *state = PyModule_GetState(module);
    PyObject *scope;
    if (PyContextVar_Get(state->current_var, Py_None, &scope) < 0) {
        return NULL;
    }
    if (!Py_IS_TYPE(scope, state->scope_type)) {
        return scope; /* None */
    }
    ScopeObject *item = (ScopeObject *)scope;
    PyObject *result = Py_BuildValue("(OKI)", item->job_id, (unsigned long long)(item->first_index + item->position),
                                     (unsigned)item->attempt);
    Py_DECREF(scope);
    return result;
}

static PyObject *coarse_index(PyObject *Py_UNUSED(module), PyObject *arg)
{
    unsigned long long value = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) {
        return NULL;
    }
    return PyLong_FromUnsignedLong(tg_coarse_index(value));
}

static int append_entry(void *ctx, const struct tg_journal_entry *entry)
{
    PyObject *tuple = Py_BuildValue("(y#KIKIIO)", (const char *)entry->token, (Py_ssize_t)sizeof entry->token,
                                    (unsigned long long)entry->position, (unsigned)entry->attempt,
                                    (unsigned long long)entry->start_ns, (unsigned)entry->slot, (unsigned)entry->tag,
                                    entry->blamed ? Py_True : Py_False);
    int failed = tuple == NULL || PyList_Append(ctx, tuple) < 0;
    Py_XDECREF(tuple);
    return failed;
}

static PyObject *journal_read(PyObject *module, PyObject *path)
{
    PyObject *bytes, *list = PyList_New(0);
    if (list == NULL || !PyUnicode_FSConverter(path, &bytes)) {
        Py_XDECREF(list);
        return NULL;
    }
    struct tg_journal_info info;
    memset(&info, 0, sizeof info);
    tg_status status = tg_journal_read(PyBytes_AS_STRING(bytes), append_entry, list, &info);
    Py_DECREF(bytes);
    if (status != TG_OK || PyErr_Occurred()) {
        Py_DECREF(list);
        return PyErr_Occurred() ? NULL : tg_raise_status(PyModule_GetState(module), status, "crash journal");
    }
    return Py_BuildValue("(KKN)", (unsigned long long)info.pid, (unsigned long long)info.created_wall_ns, list);
}

static PyObject *simulate_plan(PyObject *Py_UNUSED(module), PyObject *arg)
{
    if (!PyBytes_Check(arg) || PyBytes_GET_SIZE(arg) != (Py_ssize_t)sizeof(struct tg_simulation)) {
        PyErr_SetString(PyExc_ValueError, "simulate_plan needs a packed simulation");
        return NULL;
    }
    struct tg_simulation simulation;
    memcpy(&simulation, PyBytes_AS_STRING(arg), sizeof simulation);
    uint64_t planned_ns;
    int failed;
    tg_simulate_plan(&simulation, &planned_ns, &failed);
    return Py_BuildValue("(Ki)", (unsigned long long)planned_ns, failed);
}

static PyMethodDef functions[] = {
    {"current", current, METH_NOARGS, "(job_id, index, attempt) of the item that runs here, or None."},
    {"coarse_index", coarse_index, METH_O, "Bucket of a duration, as model.stats.coarse_index."},
    {"journal_read", journal_read, METH_O, "(pid, created_wall_ns, [(token, position, attempt, start_ns, slot, tag, blamed)])"},
    {"name_culprits", tg_name_culprits, METH_NOARGS, "From now on, the journal says which item a fatal signal is the end of."},
    {"blame", tg_blame, METH_NOARGS, "The item that runs on this thread is about to end the process."},
    {"outcomes_read", tg_outcomes_read, METH_O,
     "(pid, unwritten, torn, [(token, position, outcome, attempts, lost, bytes)])"},
    {"simulate_plan", simulate_plan, METH_O, "(planned_ns, failed) of a packed simulation."},
    {NULL, NULL, 0, NULL},
};

/* ---- state ---- */

static int import_into(PyObject **place, const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    *place = module ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return *place ? 0 : -1;
}

static int add_type(PyObject *module, PyTypeObject **place, PyType_Spec *spec, int visible)
{
    *place = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (*place == NULL) {
        return -1;
    }
    return visible ? PyModule_AddType(module, *place) : 0;
}

static int add_address(PyObject *module, const char *name, uintptr_t address)
{
    PyObject *number = PyLong_FromVoidPtr((void *)address);
    int answer = number ? PyModule_AddObjectRef(module, name, number) : -1;
    Py_XDECREF(number);
    return answer;
}

static int add_constants(PyObject *module)
{
    if (PyModule_AddStringConstant(module, "core_version", tg_version()) < 0 ||
        PyModule_AddIntConstant(module, "KIND_SYNC", TG_KIND_SYNC) < 0 ||
        PyModule_AddIntConstant(module, "KIND_COROUTINE", TG_KIND_COROUTINE) < 0 ||
        PyModule_AddIntConstant(module, "KIND_C", TG_KIND_C) < 0 ||
        PyModule_AddIntConstant(module, "LIMIT_CONCURRENCY", TG_LIMIT_CONCURRENCY) < 0 ||
        PyModule_AddIntConstant(module, "LIMIT_RATE", TG_LIMIT_RATE) < 0 ||
        PyModule_AddIntConstant(module, "LIMIT_SUPPLIED", TG_LIMIT_SUPPLIED) < 0 ||
        PyModule_AddIntConstant(module, "LIMIT_BREAKER", TG_LIMIT_BREAKER) < 0) {
        return -1;
    }
    return add_address(module, "simulate_address", (uintptr_t)&tg_simulate) < 0 ||
                   add_address(module, "simulate_sleep_address", (uintptr_t)&tg_simulate_sleep) < 0 ||
                   add_address(module, "simulate_spin_address", (uintptr_t)&tg_simulate_spin) < 0 ||
                   add_address(module, "simulate_work_address", (uintptr_t)&tg_simulate_work) < 0 ||
                   add_address(module, "simulate_loop_address", (uintptr_t)&tg_simulate_loop) < 0
               ? -1
               : 0;
}

static int refuse_subinterpreters(void)
{
#if PY_VERSION_HEX < 0x030C0000
    /* From 3.12 on the slot below says it. */
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "tidegate.executor._native does not support sub-interpreters: use threads or processes");
        return -1;
    }
#endif
    return 0;
}

static int module_exec(PyObject *module)
{
    struct tg_module_state *state = PyModule_GetState(module);
    if (refuse_subinterpreters() < 0) {
        return -1;
    }
    if (pthread_key_create(&state->worker_key, NULL) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    state->has_worker_key = 1;
    state->driver = tg_driver_state_create(module);
    state->current_var = PyContextVar_New("tidegate_current_item", NULL);
    state->item_timeout = PyErr_NewExceptionWithDoc("tidegate.executor.ItemTimeout",
                                                    "An item ran longer than its task's timeout.", PyExc_TimeoutError, NULL);
    if (!state->driver || !state->current_var || !state->item_timeout ||
        import_into(&state->cancelled_error, "asyncio.exceptions", "CancelledError") < 0 ||
        import_into(&state->closed_error, "tidegate.errors", "ExecutorClosed") < 0 ||
        import_into(&state->full_error, "tidegate.errors", "ExecutorFull") < 0 ||
        import_into(&state->configuration_error, "tidegate.errors", "ConfigurationError") < 0 ||
        add_type(module, &state->core_type, &tg_core_spec, 1) < 0 ||
        add_type(module, &state->lane_type, &tg_lane_spec, 1) < 0 ||
        add_type(module, &state->limit_type, &tg_limit_spec, 1) < 0 ||
        add_type(module, &state->run_type, &tg_run_spec, 1) < 0 ||
        add_type(module, &state->ccall_type, &tg_ccall_spec, 1) < 0 ||
        add_type(module, &state->pump_type, &tg_pump_spec, 1) < 0 ||
        add_type(module, &state->scope_type, &tg_scope_spec, 0) < 0 ||
        PyModule_AddObjectRef(module, "ItemTimeout", state->item_timeout) < 0 || add_constants(module) < 0) {
        return -1;
    }
    return tg_context_layout_check(state);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct tg_module_state *state = PyModule_GetState(module);
    Py_VISIT(state->core_type);
    Py_VISIT(state->lane_type);
    Py_VISIT(state->limit_type);
    Py_VISIT(state->run_type);
    Py_VISIT(state->ccall_type);
    Py_VISIT(state->pump_type);
    Py_VISIT(state->scope_type);
    Py_VISIT(state->current_var);
    Py_VISIT(state->item_timeout);
    Py_VISIT(state->cancelled_error);
    Py_VISIT(state->closed_error);
    Py_VISIT(state->full_error);
    Py_VISIT(state->configuration_error);
    return state->driver ? tg_driver_state_traverse(state->driver, visit, arg) : 0;
}

static int module_clear(PyObject *module)
{
    struct tg_module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->core_type);
    Py_CLEAR(state->lane_type);
    Py_CLEAR(state->limit_type);
    Py_CLEAR(state->run_type);
    Py_CLEAR(state->ccall_type);
    Py_CLEAR(state->pump_type);
    Py_CLEAR(state->scope_type);
    for (int class_ = 0; class_ < TG_CLASSES; class_++) {
        for (int index = 0; index < TG_COARSE_BUCKETS; index++) {
            Py_CLEAR(state->coarse_keys[class_][index]);
        }
    }
    Py_CLEAR(state->current_var);
    Py_CLEAR(state->item_timeout);
    Py_CLEAR(state->cancelled_error);
    Py_CLEAR(state->closed_error);
    Py_CLEAR(state->full_error);
    Py_CLEAR(state->configuration_error);
    if (state->driver != NULL) {
        tg_driver_state_clear(state->driver);
    }
    return 0;
}

static void module_free(void *module)
{
    struct tg_module_state *state = PyModule_GetState(module);
    if (state == NULL) {
        return;
    }
    module_clear(module);
    if (state->driver != NULL) {
        tg_driver_state_destroy(state->driver);
        state->driver = NULL;
    }
    if (state->has_worker_key) {
        pthread_key_delete(state->worker_key);
        state->has_worker_key = 0;
    }
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tidegate.executor._native",
    .m_doc = "The binding of the C executor. Only tidegate.executor imports it.",
    .m_size = sizeof(struct tg_module_state),
    .m_methods = functions,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__native(void);
PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module_def);
}
