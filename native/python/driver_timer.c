/* driver_timer.c - a timer of nanoseconds that the loop watches as a file (timerfd): for driver_beat.c and driver_nap.c.
 *
 * Elsewhere than on Linux, and on a loop that watches no files, there is none; both get along without.
 * Touched by the loop's thread only, with the GIL. */
#include "driver_internal.h"

#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/timerfd.h>
#endif

uint64_t tgd_now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

#ifdef __linux__
int tgd_timer_open(tgd_side *side, PyMethodDef *on_time)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    PyObject *callback = fd >= 0 ? PyCFunction_New(on_time, (PyObject *)side) : NULL;
    PyObject *done = callback ? PyObject_CallMethod(side->loop, "add_reader", "iO", fd, callback) : NULL;
    Py_XDECREF(callback);
    if (done) {
        Py_DECREF(done);
        return fd;
    }
    PyErr_Clear();
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

int tgd_timer_set(int fd, uint64_t at_ns, uint64_t every_ns)
{
    const struct itimerspec times = {
        .it_value = {(time_t)(at_ns / 1000000000u), (long)(at_ns % 1000000000u)},
        .it_interval = {(time_t)(every_ns / 1000000000u), (long)(every_ns % 1000000000u)},
    };
    return timerfd_settime(fd, TFD_TIMER_ABSTIME, &times, NULL);
}
#else
int tgd_timer_open(tgd_side *side, PyMethodDef *on_time)
{
    (void)side;
    (void)on_time;
    return -1;
}

int tgd_timer_set(int fd, uint64_t at_ns, uint64_t every_ns)
{
    (void)fd;
    (void)at_ns;
    (void)every_ns;
    return -1;
}
#endif

int tgd_timer_expired(int fd)
{
    uint64_t expirations;
    return fd >= 0 && read(fd, &expirations, sizeof expirations) > 0;
}

void tgd_timer_close(tgd_side *side, int *fd)
{
    int open_fd = *fd;
    if (open_fd < 0) {
        return;
    }
    *fd = -1;
    PyObject *pending = PyErr_Occurred() ? tgd_fetch_raised() : NULL;
    PyObject *done = side->loop ? PyObject_CallMethod(side->loop, "remove_reader", "i", open_fd) : NULL;
    if (!done) {
        PyErr_Clear(); /* the loop is closed: it watches nothing any more */
    }
    Py_XDECREF(done);
    close(open_fd);
    if (pending) {
        tgd_restore_raised(pending);
    }
}
