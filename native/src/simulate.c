/* simulate.c - simulated work. No state: everything follows from the arguments. */
#include "tidegate/simulate.h"

#include <string.h>
#include <time.h>

#include "random.h"
#include "tidegate/clock.h"

static uint64_t now_ns(void)
{
    return tg_clock_monotonic.now_ns(NULL);
}

static void spin(uint64_t duration_ns)
{
    uint64_t start = now_ns();
    while (now_ns() - start < duration_ns) {
    }
}

static void sleep_for(uint64_t duration_ns)
{
    uint64_t until = now_ns() + duration_ns;
    struct timespec t = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
    /* Interrupted by a signal: go on until the time has come. */
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) != 0 && now_ns() < until) {
    }
}

void tg_simulate_plan(const struct tg_simulation *simulation, uint64_t *planned_ns, int *failed)
{
    uint64_t seed = simulation->seed;
    seed = tg__splitmix(&seed) ^ simulation->element;
    seed = tg__splitmix(&seed) ^ simulation->attempt;
    struct tg__random random;
    tg__random_seed(&random, seed);
    uint64_t low = simulation->min_ns;
    uint64_t high = simulation->max_ns > low ? simulation->max_ns : low;
    *planned_ns = low + tg__random_upto(&random, high - low);
    *failed = tg__random_unit(&random) < simulation->failure_rate;
}

int tg_simulate(const void *in, size_t in_len, void *out, size_t out_cap, size_t *out_len)
{
    struct tg_simulation simulation;
    struct tg_simulated result = {0};
    if (in_len != sizeof simulation || out_cap < sizeof result) {
        return -1;
    }
    /* Copied: element buffers are bytes and need not be aligned. */
    memcpy(&simulation, in, sizeof simulation);
    int failed;
    tg_simulate_plan(&simulation, &result.planned_ns, &failed);
    uint64_t start = now_ns();
    if (simulation.spin) {
        spin(result.planned_ns);
    } else {
        sleep_for(result.planned_ns);
    }
    result.took_ns = now_ns() - start;
    result.failed = (uint32_t)failed;
    memcpy(out, &result, sizeof result);
    *out_len = sizeof result;
    return failed;
}

static uint64_t to_ns(double seconds)
{
    if (!(seconds > 0)) {
        return 0;
    }
    return seconds > 1e9 ? (uint64_t)1e18 : (uint64_t)(seconds * 1e9);
}

double tg_simulate_sleep(double seconds)
{
    uint64_t start = now_ns();
    sleep_for(to_ns(seconds));
    return (double)(now_ns() - start) * 1e-9;
}

double tg_simulate_work(double turns)
{
    uint64_t x = 0x9e3779b97f4a7c15u;
    for (uint64_t left = turns > 0 && turns < 1e15 ? (uint64_t)turns : 0; left != 0; left--) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return (double)(x >> 11);
}

void tg_simulate_loop(double (*function)(double), const double *in, double *out, size_t n)
{
    double (*volatile hidden)(double) = function; /* called as the pool calls it, not inlined */
    double (*const call)(double) = hidden;
    for (size_t i = 0; i < n; i++) {
        out[i] = call(in[i]);
    }
}

double tg_simulate_spin(double seconds)
{
    uint64_t start = now_ns();
    spin(to_ns(seconds));
    return (double)(now_ns() - start) * 1e-9;
}
