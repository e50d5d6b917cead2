/* driver_beat.c - keeps the loop's timers punctual while very many tasks end.
 *
 * A loop that has nothing to do sleeps in epoll, in whole milliseconds: rounded up (asyncio), or counted from a
 * clock of whole milliseconds (libuv). For one timer that does not matter. For a thousand sleeps of 10 ms that follow each other it costs
 * a tenth of the throughput. So while tasks end at more than 5,000 a second, a timerfd wakes the loop every 250 us (about 1 % of
 * a core); when they no longer do, it is taken away. */
#include "driver_internal.h"

#ifdef __linux__
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define BEAT_NS 250000
#define QUIET_BEATS 64              /* 16 ms without an end: stop */
#define WINDOW_ENDS 256
#define WINDOW_NS UINT64_C(51200000) /* 256 ends in 51.2 ms are 5,000 a second */

static PyObject *beat(PyObject *self, PyObject *unused)
{
    (void)unused;
    tgd_side *side = (tgd_side *)self;
    uint64_t expirations;
    if (side->beat_fd < 0 || read(side->beat_fd, &expirations, sizeof expirations) < 0) {
        Py_RETURN_NONE;
    }
    side->quiet_beats = side->ends == side->ends_at_beat ? side->quiet_beats + 1 : 0;
    side->ends_at_beat = side->ends;
    if (side->quiet_beats > QUIET_BEATS) {
        tgd_beat_stop(side);
    }
    Py_RETURN_NONE;
}

static PyMethodDef beat_method = {"tidegate_beat", beat, METH_NOARGS, NULL};

/* Without it everything works as well, only less punctually: a loop that cannot watch files is not asked twice. */
static void beat_start(tgd_side *side)
{
    const struct itimerspec every = {.it_interval = {.tv_nsec = BEAT_NS}, .it_value = {.tv_nsec = BEAT_NS}};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0 || timerfd_settime(fd, 0, &every, NULL) < 0) {
        side->beat_refused = 1;
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    PyObject *callback = PyCFunction_New(&beat_method, (PyObject *)side);
    PyObject *done = callback ? PyObject_CallMethod(side->loop, "add_reader", "iO", fd, callback) : NULL;
    Py_XDECREF(callback);
    Py_XDECREF(done);
    if (!done) {
        PyErr_Clear();
        side->beat_refused = 1;
        close(fd);
        return;
    }
    side->beat_fd = fd;
    side->quiet_beats = 0;
}

void tgd_beat_stop(tgd_side *side)
{
    if (side->beat_fd < 0) {
        return;
    }
    PyObject *pending = PyErr_Occurred() ? tgd_fetch_raised() : NULL;
    int fd = side->beat_fd;
    side->beat_fd = -1;
    PyObject *done = side->loop ? PyObject_CallMethod(side->loop, "remove_reader", "i", fd) : NULL;
    if (!done) {
        PyErr_Clear(); /* the loop is closed: it watches nothing any more */
    }
    Py_XDECREF(done);
    close(fd);
    if (pending) {
        tgd_restore_raised(pending);
    }
}

/* A task of a driver ended by itself (not in a turn of bare yields, which need no timers). */
void tgd_beat_note_end(tgd_side *side)
{
    if (++side->ends % WINDOW_ENDS != 0 || side->beat_fd >= 0 || side->beat_refused) {
        return;
    }
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    uint64_t now_ns = (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
    if (side->window_ns != 0 && now_ns - side->window_ns < WINDOW_NS) {
        beat_start(side);
    }
    side->window_ns = now_ns;
}

#else

void tgd_beat_stop(tgd_side *side)
{
    (void)side;
}

void tgd_beat_note_end(tgd_side *side)
{
    (void)side;
}

#endif
