/* check.h - typed assertions and a list of tests. A test is a function whose name is a sentence. */
#ifndef TIDEGATE_CHECK_H
#define TIDEGATE_CHECK_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK_FAIL(...)                                        \
    do {                                                       \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);        \
        fprintf(stderr, __VA_ARGS__);                          \
        fputc('\n', stderr);                                   \
        abort();                                               \
    } while (0)

#define CHECK(claim)                         \
    do {                                     \
        if (!(claim)) {                      \
            CHECK_FAIL("not true: %s", #claim); \
        }                                    \
    } while (0)

#define CHECK_COMPARE(type, format, a, op, b)                                                      \
    do {                                                                                           \
        type check_a = (a), check_b = (b);                                                         \
        if (!(check_a op check_b)) {                                                               \
            CHECK_FAIL("%s %s %s: " format " and " format, #a, #op, #b, check_a, check_b);         \
        }                                                                                          \
    } while (0)

#define CHECK_EQ(a, b) CHECK_COMPARE(uint64_t, "%" PRIu64, (uint64_t)(a), ==, (uint64_t)(b))
#define CHECK_LE(a, b) CHECK_COMPARE(uint64_t, "%" PRIu64, (uint64_t)(a), <=, (uint64_t)(b))
#define CHECK_GE(a, b) CHECK_COMPARE(uint64_t, "%" PRIu64, (uint64_t)(a), >=, (uint64_t)(b))
#define CHECK_DOUBLE_LE(a, b) CHECK_COMPARE(double, "%g", (a), <=, (b))
#define CHECK_PTR(a, b)                                                                        \
    do {                                                                                       \
        const void *check_a = (a), *check_b = (b);                                             \
        if (check_a != check_b) {                                                              \
            CHECK_FAIL("%s == %s: %p and %p", #a, #b, (void *)(uintptr_t)check_a,              \
                       (void *)(uintptr_t)check_b);                                            \
        }                                                                                      \
    } while (0)
#define CHECK_OK(call) CHECK_STATUS(call, TG_OK)
#define CHECK_STATUS(call, expected)                                                                  \
    do {                                                                                              \
        int check_status = (call);                                                                    \
        if (check_status != (expected)) {                                                             \
            CHECK_FAIL("%s answered %s, not %s", #call, tg_status_name(check_status), #expected);     \
        }                                                                                             \
    } while (0)

struct check_test {
    const char *name;
    void (*run)(void);
};

#define RUN(...)                                                              \
    int main(int argc, char **argv)                                           \
    {                                                                         \
        const struct check_test tests[] = {__VA_ARGS__};                      \
        for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {         \
            if (argc > 1 && strcmp(argv[1], tests[i].name) != 0) {            \
                continue;                                                     \
            }                                                                 \
            printf("%s\n", tests[i].name);                                    \
            fflush(stdout);                                                   \
            tests[i].run();                                                   \
        }                                                                     \
        return 0;                                                             \
    }
#define TEST(function) {#function, function}

#endif
