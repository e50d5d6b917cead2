/* clock.h - where the time comes from. The core never reads a clock of its own accord. */
#ifndef TIDEGATE_CLOCK_H
#define TIDEGATE_CLOCK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TG_NEVER UINT64_MAX

struct tg_clock {
    /* Nanoseconds since a fixed point; never goes back; may be called from any thread. */
    uint64_t (*now_ns)(void *ctx);
    void *ctx;
};

/* CLOCK_MONOTONIC: the clock of Python's time.monotonic_ns() and of asyncio's loop.time(). */
extern const struct tg_clock tg_clock_monotonic;

/* A clock that a test sets: ctx points to the uint64_t (read atomically) that is the time. */
struct tg_clock tg_clock_manual(uint64_t *now_ns);

/* True when the processor's time stamp counter runs at a constant rate in every power state. A core on
 * tg_clock_monotonic then times the items inside a run with it (8 ns instead of 20): see run.h. */
int tg_clock_tsc_usable(void);

#ifdef __cplusplus
}
#endif
#endif
