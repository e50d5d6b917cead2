/* random.h - xoshiro256** seeded by splitmix64: small, fast, repeatable. Not for secrets. */
#ifndef TIDEGATE_RANDOM_H
#define TIDEGATE_RANDOM_H

#include <stdint.h>

struct tg__random {
    uint64_t s[4];
};

static inline uint64_t tg__splitmix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline void tg__random_seed(struct tg__random *random, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        random->s[i] = tg__splitmix(&seed);
    }
}

static inline uint64_t tg__random_next(struct tg__random *random)
{
    uint64_t *s = random->s;
    uint64_t x = s[1] * 5;
    uint64_t result = ((x << 7) | (x >> 57)) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 45) | (s[3] >> 19);
    return result;
}

/* Uniform in [0, bound], both ends included; unbiased (Lemire's method). */
static inline uint64_t tg__random_upto(struct tg__random *random, uint64_t bound)
{
    if (bound == UINT64_MAX) {
        return tg__random_next(random);
    }
    uint64_t range = bound + 1;
    unsigned __int128 product = (unsigned __int128)tg__random_next(random) * range;
    if ((uint64_t)product < range) {
        uint64_t threshold = (0 - range) % range;
        while ((uint64_t)product < threshold) {
            product = (unsigned __int128)tg__random_next(random) * range;
        }
    }
    return (uint64_t)(product >> 64);
}

/* Uniform in [0, 1). */
static inline double tg__random_unit(struct tg__random *random)
{
    return (double)(tg__random_next(random) >> 11) * 0x1.0p-53;
}

#endif
