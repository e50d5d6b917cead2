/* clock.c - the system's monotonic clock, a manual one, the system's allocator. No state. */
#include "tidegate/clock.h"

#include <stdlib.h>
#include <time.h>

#include "tidegate/alloc.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static uint64_t monotonic_now(void *ctx)
{
    (void)ctx;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

const struct tg_clock tg_clock_monotonic = {.now_ns = monotonic_now, .ctx = NULL};

static uint64_t manual_now(void *ctx)
{
    /* relaxed: a test sets the time; no other data is published through it. */
    return __atomic_load_n((uint64_t *)ctx, __ATOMIC_RELAXED);
}

struct tg_clock tg_clock_manual(uint64_t *now_ns)
{
    return (struct tg_clock){.now_ns = manual_now, .ctx = now_ns};
}

int tg_clock_tsc_usable(void)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    /* "Invariant TSC": constant rate in all ACPI P-, C- and T-states. */
    if (__get_cpuid(0x80000007u, &a, &b, &c, &d)) {
        return (d >> 8) & 1u;
    }
#endif
    return 0;
}

static void *system_allocate(void *ctx, size_t size)
{
    (void)ctx;
    return malloc(size);
}

static void system_release(void *ctx, void *memory, size_t size)
{
    (void)ctx;
    (void)size;
    free(memory);
}

const struct tg_allocator tg_allocator_system = {
    .allocate = system_allocate,
    .release = system_release,
    .ctx = NULL,
};
