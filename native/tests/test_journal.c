/* The crash journal: what ran is readable after SIGKILL; any bytes at all are read safely. */
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "random.h"
#include "tidegate/journal.h"

struct found {
    size_t n;
    struct tg_journal_entry entries[16];
};

static int collect(void *ctx, const struct tg_journal_entry *entry)
{
    struct found *found = ctx;
    if (found->n < 16) {
        found->entries[found->n] = *entry;
    }
    found->n++;
    return 0;
}

static const char *path(void)
{
    static char text[64]; /* made once: children use their parent's */
    if (text[0] == 0) {
        snprintf(text, sizeof text, "/tmp/tidegate-test-%d.journal", (int)getpid());
    }
    return text;
}

static const unsigned char token_a[16] = "group a 1234567", token_b[16] = "group b 7654321";

static void running_items_are_found_and_ended_ones_are_not(void)
{
    struct tg_journal *journal;
    CHECK_OK(tg_journal_create(path(), 3, &journal));
    uint32_t slots[4];
    for (uint32_t i = 0; i < 3; i++) {
        CHECK_OK(tg_journal_acquire(journal, &slots[i]));
        CHECK_EQ(slots[i], i);
    }
    CHECK_STATUS(tg_journal_acquire(journal, &slots[3]), TG_FULL);
    tg_journal_begin(journal, 0, token_a, 10, 1, 111, 7);
    tg_journal_begin(journal, 0, token_a, 11, 2, 222, 7); /* ends 10 */
    tg_journal_begin(journal, 1, token_b, 5, 1, 333, 8);
    tg_journal_end(journal, 1);
    struct found found = {0};
    struct tg_journal_info info;
    CHECK_OK(tg_journal_read(path(), collect, &found, &info));
    CHECK_EQ(found.n, 1);
    CHECK_EQ(info.running, 1);
    CHECK_EQ(info.torn, 0);
    CHECK_EQ(info.n_slots, 3);
    CHECK_EQ(info.pid, getpid());
    CHECK_EQ(found.entries[0].position, 11);
    CHECK_EQ(found.entries[0].attempt, 2);
    CHECK_EQ(found.entries[0].start_ns, 222);
    CHECK_EQ(found.entries[0].tag, 7);
    CHECK(memcmp(found.entries[0].token, token_a, 16) == 0);
    tg_journal_release(journal, 0);
    CHECK_OK(tg_journal_acquire(journal, &slots[3]));
    CHECK_EQ(slots[3], 0);
    tg_journal_destroy(journal);
    CHECK_OK(tg_journal_read(path(), NULL, NULL, &info));
    CHECK_EQ(info.running, 0);
    unlink(path());
}

static void what_ran_is_readable_after_sigkill(void)
{
    int ready[2];
    unlink(path());
    CHECK_EQ(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct tg_journal *journal;
        if (tg_journal_create(path(), 8, &journal) != TG_OK) {
            _exit(1);
        }
        tg_journal_begin(journal, 2, token_a, 42, 3, 999, 2);
        tg_journal_begin(journal, 5, token_b, 43, 1, 998, 5);
        /* Slot 6 is hammered while the signal comes. */
        char go = 1;
        for (uint64_t i = 0;; i++) {
            tg_journal_begin(journal, 6, i & 1 ? token_b : token_a, i, (uint32_t)(i & 1), i, (uint32_t)i);
            if (i == 1000 && write(ready[1], &go, 1) != 1) {
                _exit(1);
            }
        }
    }
    char go;
    CHECK_EQ(read(ready[0], &go, 1), 1);
    kill(child, SIGKILL);
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status));
    struct found found = {0};
    struct tg_journal_info info;
    CHECK_OK(tg_journal_read(path(), collect, &found, &info));
    CHECK_EQ(info.pid, child);
    CHECK_EQ(found.n + info.torn, 3);
    CHECK_EQ(found.entries[0].position, 42);
    CHECK_EQ(found.entries[1].position, 43);
    CHECK(memcmp(found.entries[1].token, token_b, 16) == 0);
    if (found.n == 3) {
        struct tg_journal_entry *last = &found.entries[2];
        CHECK_EQ(last->position, last->start_ns); /* one item's fields, not two items' */
        CHECK_EQ(last->attempt, last->position & 1);
    }
    close(ready[0]);
    close(ready[1]);
    unlink(path());
}

static void a_living_journal_is_read_without_tearing(void)
{
    struct tg_journal *journal;
    CHECK_OK(tg_journal_create(path(), 1, &journal));
    pid_t child = fork(); /* the mapping is shared, so the child writes the same slot */
    if (child == 0) {
        for (uint64_t i = 0;; i++) {
            tg_journal_begin(journal, 0, i & 1 ? token_b : token_a, i, (uint32_t)(i & 1), i, (uint32_t)i);
        }
    }
    for (int i = 0; i < 3000; i++) {
        struct found found = {0};
        CHECK_OK(tg_journal_read(path(), collect, &found, NULL));
        if (found.n == 1) {
            struct tg_journal_entry *e = &found.entries[0];
            CHECK_EQ(e->position, e->start_ns);
            CHECK_EQ((uint32_t)e->position, e->tag);
            CHECK(memcmp(e->token, e->position & 1 ? token_b : token_a, 16) == 0 || e->start_ns == 0);
        }
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    tg_journal_destroy(journal);
    unlink(path());
}

static void damaged_files_are_refused(void)
{
    struct tg_journal *journal;
    static unsigned char bytes[64 * 4], copy[64 * 4];
    CHECK_OK(tg_journal_create(path(), 3, &journal));
    tg_journal_begin(journal, 1, token_a, 1, 1, 1, 1);
    memcpy(bytes, journal->map, sizeof bytes);
    tg_journal_destroy(journal);
    CHECK_OK(tg_journal_parse(bytes, sizeof bytes, NULL, NULL, NULL));
    for (size_t cut = 0; cut < sizeof bytes; cut++) {
        CHECK_STATUS(tg_journal_parse(bytes, cut, NULL, NULL, NULL), TG_CORRUPT);
    }
    memcpy(copy, bytes, sizeof bytes);
    copy[8] = 99;
    CHECK_STATUS(tg_journal_parse(copy, sizeof copy, NULL, NULL, NULL), TG_VERSION);
    struct tg__random random;
    tg__random_seed(&random, 3);
    for (int i = 0; i < 20000; i++) {
        memcpy(copy, bytes, sizeof bytes);
        for (int k = 0; k < 3; k++) {
            copy[tg__random_upto(&random, sizeof copy - 1)] = (unsigned char)tg__random_next(&random);
        }
        struct found found = {0};
        tg_status status = tg_journal_parse(copy, sizeof copy, collect, &found, NULL);
        CHECK(status == TG_OK || status == TG_CORRUPT || status == TG_VERSION);
        CHECK_LE(found.n, 3);
    }
    unlink(path());
    CHECK_STATUS(tg_journal_read(path(), NULL, NULL, NULL), TG_IO);
    CHECK_STATUS(tg_journal_read("/dev/zero", NULL, NULL, NULL), TG_CORRUPT);
    CHECK_STATUS(tg_journal_read("/tmp", NULL, NULL, NULL), TG_CORRUPT);
    CHECK_STATUS(tg_journal_create("/nowhere/x.journal", 1, &journal), TG_IO);
    CHECK_STATUS(tg_journal_create(path(), 0, &journal), TG_INVALID);
}

RUN(TEST(running_items_are_found_and_ended_ones_are_not), TEST(what_ran_is_readable_after_sigkill),
    TEST(a_living_journal_is_read_without_tearing), TEST(damaged_files_are_refused))
