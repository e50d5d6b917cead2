/* simulate.h - work that takes a random time and sometimes fails, for measuring an executor. */
#ifndef TIDEGATE_SIMULATE_H
#define TIDEGATE_SIMULATE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tg_simulation {
    uint64_t min_ns;
    uint64_t max_ns;      /* duration uniform in [min_ns, max_ns] */
    double failure_rate;  /* probability of a retryable failure, 0..1 */
    uint64_t seed;        /* seed, element and attempt decide duration and failure: runs repeat exactly */
    uint64_t element;
    uint32_t attempt;
    uint32_t spin;        /* nonzero: burn processor time instead of sleeping */
};

struct tg_simulated {
    uint64_t planned_ns;
    uint64_t took_ns;
    uint32_t failed;
    uint32_t reserved;
};

/* What tg_simulate would do, without doing it. */
void tg_simulate_plan(const struct tg_simulation *simulation, uint64_t *planned_ns, int *failed);
/* A tg_bytes_function: `in` holds a struct tg_simulation, `out` gets a struct tg_simulated. Returns 0, 1 for a simulated
 * failure, or -1 when a buffer has the wrong size. */
int tg_simulate(const void *in, size_t in_len, void *out, size_t out_cap, size_t *out_len);
/* A tg_double_function: sleeps `seconds` and returns how long it took. */
double tg_simulate_sleep(double seconds);
/* A tg_double_function: spins `seconds` and returns how long it took. */
double tg_simulate_spin(double seconds);
/* A tg_double_function: work of a fixed cost, `turns` steps of a generator, each of which needs the one before (about 2 ns
 * each, whatever else the machine does). Returns a value that depends on all of them. */
double tg_simulate_work(double turns);
/* The plain loop that the pool of threads is compared with. */
void tg_simulate_loop(double (*function)(double), const double *in, double *out, size_t n);

#ifdef __cplusplus
}
#endif
#endif
