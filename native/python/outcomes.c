/* outcomes.c - writes down how items ended where the supervisor finds it after any death: see tidegate/outlog.h.
 *
 * Called at the moment an item ends, before the crash journal stops naming it. Plain results are written as msgpack right
 * here; the rest goes through the encoder that results are reported with. Nothing between reserve and commit runs Python. */
#include "state.h"

#include <string.h>

static int is_recorded(const RunObject *run)
{
    /* Without a tag nobody could say whose it is. A forked child shares the file and must leave it alone. */
    return run->group != NULL && (run->outlog.token[0] | run->outlog.token[1]) != 0 &&
           tg_core_check(run->core->core) == TG_OK;
}

static void put_big_endian(unsigned char *at, uint64_t value, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--, value >>= 8) {
        at[i] = (unsigned char)value;
    }
}

static size_t put_int(unsigned char *at, long long value)
{
    if (value >= -32 && value < 128) {
        at[0] = (unsigned char)value;
        return 1;
    }
    at[0] = value < 0 ? 0xD3 : 0xCF;
    put_big_endian(at + 1, (uint64_t)value, 8);
    return 9;
}

/* Head of a text (0xD9, 0xDA) or of bytes (0xC4, 0xC5); records are far smaller than what needs a longer one. */
static size_t put_head(unsigned char *at, unsigned char kind, size_t n)
{
    int wide = n > 0xFF;
    at[0] = (unsigned char)(kind + wide);
    put_big_endian(at + 1, n, 1 + wide);
    return 2 + (size_t)wide;
}

/* None, bool, small int, float: at most nine bytes. 0: something else. */
static size_t encode_number(unsigned char *at, PyObject *value)
{
    if (value == Py_None) {
        at[0] = 0xC0;
        return 1;
    }
    if (PyBool_Check(value)) {
        at[0] = value == Py_True ? 0xC3 : 0xC2;
        return 1;
    }
    if (PyLong_CheckExact(value)) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        return overflow ? 0 : put_int(at, number);
    }
    if (PyFloat_CheckExact(value)) {
        double number = PyFloat_AS_DOUBLE(value);
        uint64_t bits;
        memcpy(&bits, &number, sizeof bits);
        at[0] = 0xCB;
        put_big_endian(at + 1, bits, 8);
        return 9;
    }
    return 0;
}

/* The bytes of a plain text or of bytes, NULL for anything else. */
static const char *plain_bytes(PyObject *value, size_t *n, unsigned char *kind)
{
    if (PyUnicode_CheckExact(value) && PyUnicode_IS_COMPACT_ASCII(value)) {
        *n = (size_t)PyUnicode_GET_LENGTH(value);
        *kind = 0xD9;
        return PyUnicode_DATA(value);
    }
    if (PyBytes_CheckExact(value)) {
        *n = (size_t)PyBytes_GET_SIZE(value);
        *kind = 0xC4;
        return PyBytes_AS_STRING(value);
    }
    return NULL;
}

/* Writes a record, without its bytes when they do not fit. */
static void record(RunObject *run, uint64_t position, unsigned kind, unsigned attempts, const char *bytes, size_t n)
{
    struct tg_outlog *log = run->core->outlog;
    unsigned char *room = tg_outlog_reserve(log, &run->outlog, n);
    if (room != NULL) {
        memcpy(room, bytes, n);
    } else if (n != 0) {
        n = 0;
        kind |= TG_OUTLOG_LOST;
        room = tg_outlog_reserve(log, &run->outlog, 0);
    }
    if (room != NULL) {
        tg_outlog_commit(log, &run->outlog, (uint32_t)position, kind, attempts, n);
    }
}

/* With an object that Python code made bytes of; NULL with an error, which is dropped: the value cannot be kept. */
static void record_object(RunObject *run, uint64_t position, unsigned kind, unsigned attempts, PyObject *encoded)
{
    if (encoded != NULL && PyBytes_Check(encoded)) {
        record(run, position, kind, attempts, PyBytes_AS_STRING(encoded), (size_t)PyBytes_GET_SIZE(encoded));
    } else {
        PyErr_Clear();
        record(run, position, kind | TG_OUTLOG_LOST, attempts, "", 0);
    }
    Py_XDECREF(encoded);
}

void tg_record_success(RunObject *run, uint64_t position, unsigned attempts, PyObject *value)
{
    if (!is_recorded(run)) {
        return;
    }
    unsigned char small[16];
    size_t n = encode_number(small, value);
    if (n != 0) {
        record(run, position, TG_OUTCOME_SUCCEEDED, attempts, (const char *)small, n);
        return;
    }
    unsigned char kind;
    const char *bytes = plain_bytes(value, &n, &kind);
    if (bytes == NULL || n > TG_OUTLOG_CHUNK / 2) {
        PyObject *encoded = PyObject_CallOneArg(run->core->encode, value);
        record_object(run, position, TG_OUTCOME_SUCCEEDED, attempts, encoded);
        return;
    }
    unsigned char *room = tg_outlog_reserve(run->core->outlog, &run->outlog, n + 3);
    if (room != NULL) {
        size_t head = put_head(room, kind, n);
        memcpy(room + head, bytes, n);
        tg_outlog_commit(run->core->outlog, &run->outlog, (uint32_t)position, TG_OUTCOME_SUCCEEDED, attempts, head + n);
    } else {
        record(run, position, TG_OUTCOME_SUCCEEDED | TG_OUTLOG_LOST, attempts, "", 0);
    }
}

void tg_record_failure(RunObject *run, uint64_t position, enum tg_outcome outcome, unsigned attempts, PyObject *failure)
{
    if (!is_recorded(run)) {
        return;
    }
    if (outcome == TG_OUTCOME_CANCELLED) { /* counted, and nothing else is kept of it */
        record(run, position, outcome, attempts, "", 0);
        return;
    }
    PyObject *encoded = PyObject_CallFunction(run->core->describe, "y#O", (const char *)run->outlog.token,
                                              (Py_ssize_t)sizeof run->outlog.token, failure);
    record_object(run, position, (unsigned)outcome, attempts, encoded);
}

/* ---- what need not be kept any longer ---- */

/* A forked child shares the file: what its parent runs is none of its business. */
static int has_outlog(const RunObject *run)
{
    return run->core->outlog != NULL && run->core->core != NULL && tg_core_check(run->core->core) != TG_FORKED;
}

void tg_outcomes_sent(RunObject *run)
{
    if (has_outlog(run)) {
        tg_outlog_part_sent(run->core->outlog, &run->outlog);
    }
}

PyObject *tg_outcomes_reported(RunObject *run, PyObject *Py_UNUSED(ignored))
{
    if (has_outlog(run)) {
        tg_outlog_part_reported(run->core->outlog, &run->outlog);
    }
    Py_RETURN_NONE;
}

void tg_outcomes_end(RunObject *run)
{
    if (has_outlog(run)) {
        tg_outlog_part_end(run->core->outlog, &run->outlog);
    }
}

/* ---- reading ---- */

static int append_record(void *ctx, const struct tg_outlog_entry *entry)
{
    PyObject *tuple = Py_BuildValue("(y#IIIOy#)", (const char *)entry->token, (Py_ssize_t)sizeof entry->token,
                                    (unsigned)entry->position, entry->outcome, (unsigned)entry->attempts,
                                    entry->lost ? Py_True : Py_False, (const char *)entry->bytes, (Py_ssize_t)entry->n);
    int failed = tuple == NULL || PyList_Append(ctx, tuple) < 0;
    Py_XDECREF(tuple);
    return failed;
}

PyObject *tg_outcomes_read(PyObject *module, PyObject *path)
{
    PyObject *bytes, *list = PyList_New(0);
    if (list == NULL || !PyUnicode_FSConverter(path, &bytes)) {
        Py_XDECREF(list);
        return NULL;
    }
    struct tg_outlog_info info;
    tg_status status = tg_outlog_read(PyBytes_AS_STRING(bytes), append_record, list, &info);
    Py_DECREF(bytes);
    if (status != TG_OK || PyErr_Occurred()) {
        Py_DECREF(list);
        return PyErr_Occurred() ? NULL : tg_raise_status(PyModule_GetState(module), status, "outcome log");
    }
    return Py_BuildValue("(KKIN)", (unsigned long long)info.pid, (unsigned long long)info.unwritten, (unsigned)info.torn,
                         list);
}
