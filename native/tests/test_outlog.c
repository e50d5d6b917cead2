/* The outcome log: what ended is readable after SIGKILL; a record that is not whole is none; chunks come back. */
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "outlog_format.h"

#define MOST 4096

struct found {
    size_t n;
    struct {
        uint32_t position, attempts;
        unsigned outcome;
        int lost;
        size_t n;
        unsigned char first;
        unsigned char token;
    } entries[MOST];
};

static struct found found; /* too large for the stack */

static int collect(void *ctx, const struct tg_outlog_entry *entry)
{
    (void)ctx;
    CHECK(found.n < MOST);
    found.entries[found.n].position = entry->position;
    found.entries[found.n].attempts = entry->attempts;
    found.entries[found.n].outcome = entry->outcome;
    found.entries[found.n].lost = entry->lost;
    found.entries[found.n].n = entry->n;
    found.entries[found.n].first = entry->n != 0 ? entry->bytes[0] : 0;
    found.entries[found.n].token = entry->token[0];
    found.n++;
    return 0;
}

static const char *path(void)
{
    static char text[64];
    if (text[0] == 0) {
        snprintf(text, sizeof text, "/tmp/tidegate-test-%d.outlog", (int)getpid());
    }
    return text;
}

static struct tg_outlog_info look(void)
{
    struct tg_outlog_info info;
    found.n = 0;
    CHECK_OK(tg_outlog_read(path(), collect, NULL, &info));
    CHECK_EQ(info.records, found.n);
    return info;
}

static const unsigned char token_a[16] = "a group 1234567", token_b[16] = "b group 7654321";

static bool put(struct tg_outlog *log, struct tg_outlog_part *part, uint32_t position, size_t n, unsigned char fill)
{
    unsigned char *room = tg_outlog_reserve(log, part, n);
    if (room == NULL) {
        return false;
    }
    memset(room, fill, n);
    tg_outlog_commit(log, part, position, 1, 2, n);
    return true;
}

static void what_ended_is_found_with_its_bytes(void)
{
    struct tg_outlog *log;
    struct tg_outlog_part a, b;
    CHECK_OK(tg_outlog_create(path(), 4, &log));
    tg_outlog_part_init(&a, token_a);
    tg_outlog_part_init(&b, token_b);
    CHECK(put(log, &a, 7, 0, 0));
    CHECK(put(log, &b, 8, 13, 'x'));
    CHECK(put(log, &a, 9, 8, 'y'));
    struct tg_outlog_info info = look();
    CHECK_EQ(info.n_chunks, 4);
    CHECK_EQ(info.pid, getpid());
    CHECK_EQ(info.torn + info.unwritten, 0);
    CHECK_EQ(found.n, 3);
    CHECK_EQ(found.entries[0].position, 7);
    CHECK_EQ(found.entries[0].token, 'a');
    CHECK_EQ(found.entries[1].position, 9);
    CHECK_EQ(found.entries[1].n, 8);
    CHECK_EQ(found.entries[1].first, 'y');
    CHECK_EQ(found.entries[1].attempts, 2);
    CHECK_EQ(found.entries[1].outcome, 1);
    CHECK_EQ(found.entries[2].n, 13);
    CHECK_EQ(found.entries[2].token, 'b');
    tg_outlog_part_end(log, &a);
    CHECK_EQ(look().records, 1);
    tg_outlog_part_end(log, &b);
    CHECK_EQ(look().records, 0);
    tg_outlog_destroy(log);
    unlink(path());
}

static void what_was_reported_goes_and_what_came_later_stays(void)
{
    struct tg_outlog *log;
    struct tg_outlog_part part;
    CHECK_OK(tg_outlog_create(path(), 8, &log));
    tg_outlog_part_init(&part, token_a);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK(put(log, &part, i, 20000, 'a')); /* a chunk each */
    }
    tg_outlog_part_sent(log, &part);
    CHECK(put(log, &part, 3, 5, 'b'));
    CHECK_EQ(look().records, 4); /* not reported before the answer is there */
    tg_outlog_part_sent(log, &part);
    CHECK(put(log, &part, 4, 5, 'c'));
    tg_outlog_part_reported(log, &part);
    CHECK_EQ(look().records, 1);
    CHECK_EQ(found.entries[0].position, 4);
    tg_outlog_part_end(log, &part);
    /* All eight chunks are there again, however often they went round. */
    for (int round = 0; round < 5; round++) {
        for (uint32_t i = 0; i < 8; i++) {
            CHECK(put(log, &part, i, 20000, 'd'));
        }
        CHECK(!put(log, &part, 8, 20000, 'e'));
        tg_outlog_part_sent(log, &part);
        tg_outlog_part_reported(log, &part);
    }
    CHECK_EQ(look().unwritten, 5);
    tg_outlog_destroy(log);
    unlink(path());
}

static void what_does_not_fit_is_refused_and_counted(void)
{
    struct tg_outlog *log;
    struct tg_outlog_part part;
    CHECK_STATUS(tg_outlog_create(path(), 0, &log), TG_INVALID);
    CHECK_STATUS(tg_outlog_create("/no/such/folder/log", 1, &log), TG_IO);
    CHECK_OK(tg_outlog_create(path(), 1, &log));
    tg_outlog_part_init(&part, token_a);
    size_t most = TG__OUTLOG_ROOM - sizeof(struct tg__outlog_record);
    CHECK(!put(log, &part, 0, most + 1, 'x'));
    CHECK_PTR(tg_outlog_reserve(log, &part, SIZE_MAX - 3), NULL);
    CHECK(put(log, &part, 0, most, 'x'));
    CHECK(!put(log, &part, 1, 0, 'x'));
    struct tg_outlog_info info = look();
    CHECK_EQ(info.unwritten, 3);
    CHECK_EQ(info.records, 1);
    CHECK_EQ(found.entries[0].n, most);
    tg_outlog_destroy(log);
    unlink(path());
}

/* Whatever byte of a record is not what was written, the record and what follows it in its chunk are not believed. */
static void a_record_that_is_not_whole_is_none(void)
{
    struct tg_outlog *log;
    struct tg_outlog_part part;
    CHECK_OK(tg_outlog_create(path(), 1, &log));
    tg_outlog_part_init(&part, token_a);
    CHECK(put(log, &part, 1, 24, 'x'));
    size_t first = sizeof(struct tg__outlog_record) + 24;
    CHECK(put(log, &part, 2, 21, 'y'));
    unsigned char *records = log->map + TG__OUTLOG_HEADER + sizeof(struct tg_outlog_chunk);
    for (size_t at = first; at < first + sizeof(struct tg__outlog_record) + 21; at++) {
        records[at] ^= 0x10;
        struct tg_outlog_info info = look();
        CHECK_EQ(info.records, 1);
        CHECK_EQ(info.torn, 1);
        records[at] ^= 0x10;
    }
    /* A chunk that carries another name carries none of its records. */
    log->map[TG__OUTLOG_HEADER] ^= 1;
    CHECK_EQ(look().records, 0);
    log->map[TG__OUTLOG_HEADER] ^= 1;
    /* Reserved and filled, not committed: as if the process had died there. */
    unsigned char *room = tg_outlog_reserve(log, &part, 30);
    CHECK(room != NULL);
    memset(room, 'z', 30);
    struct tg_outlog_info info = look();
    CHECK_EQ(info.records, 2);
    CHECK_EQ(info.torn, 0);
    tg_outlog_destroy(log);
    unlink(path());
}

static void what_ended_is_readable_after_sigkill(void)
{
    int ready[2];
    CHECK_EQ(pipe(ready), 0);
    path();
    pid_t child = fork();
    if (child == 0) {
        struct tg_outlog *log;
        struct tg_outlog_part part;
        CHECK_OK(tg_outlog_create(path(), 16, &log));
        tg_outlog_part_init(&part, token_a);
        for (uint32_t i = 0;; i++) {
            CHECK(put(log, &part, i, 9, (unsigned char)i));
            if (i == 1000) {
                CHECK_EQ(write(ready[1], "", 1), 1);
            }
            if (i % 2000 == 1999) { /* chunks go round while it is killed */
                tg_outlog_part_sent(log, &part);
                tg_outlog_part_reported(log, &part);
            }
        }
    }
    char byte;
    CHECK_EQ(read(ready[0], &byte, 1), 1);
    usleep(3000);
    kill(child, SIGKILL);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    struct tg_outlog_info info = look();
    CHECK_EQ(info.pid, child);
    CHECK_EQ(info.torn, 0);
    for (size_t i = 0; i < found.n; i++) {
        CHECK_EQ(found.entries[i].first, (unsigned char)found.entries[i].position);
        CHECK_EQ(found.entries[i].n, 9);
    }
    unlink(path());
    close(ready[0]);
    close(ready[1]);
}

static void files_that_are_no_logs_are_refused(void)
{
    struct tg_outlog_info info;
    CHECK_STATUS(tg_outlog_read("/no/such/file", NULL, NULL, &info), TG_IO);
    CHECK_STATUS(tg_outlog_read("/dev/null", NULL, NULL, NULL), TG_CORRUPT);
    CHECK_STATUS(tg_outlog_parse("", 0, NULL, NULL, &info), TG_CORRUPT);
    struct tg_outlog *log;
    CHECK_OK(tg_outlog_create(path(), 1, &log));
    log->map[8] = 2; /* a later version */
    CHECK_STATUS(tg_outlog_read(path(), NULL, NULL, &info), TG_VERSION);
    log->map[8] = TG_OUTLOG_VERSION;
    CHECK_OK(tg_outlog_read(path(), NULL, NULL, &info));
    CHECK_EQ(ftruncate(log->fd, TG__OUTLOG_HEADER), 0);
    CHECK_STATUS(tg_outlog_read(path(), NULL, NULL, &info), TG_CORRUPT);
    tg_outlog_destroy(log);
    unlink(path());
}

RUN(TEST(what_ended_is_found_with_its_bytes), TEST(what_was_reported_goes_and_what_came_later_stays),
    TEST(what_does_not_fit_is_refused_and_counted), TEST(a_record_that_is_not_whole_is_none),
    TEST(what_ended_is_readable_after_sigkill), TEST(files_that_are_no_logs_are_refused))
