/* status.h - every answer a tidegate function can give, in one table. */
#ifndef TIDEGATE_STATUS_H
#define TIDEGATE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* X(NAME, code, message). Codes are part of the interface: never renumber one. */
#define TG_STATUS_MAP(X)                                                              \
    X(OK, 0, "ok")                                                                    \
    X(FULL, -1, "the lane is full: wait for items to settle, or submit less")         \
    X(CLOSED, -2, "the core is closed and takes no more work")                        \
    X(FORKED, -3, "the core belongs to the parent process: create a new one after fork") \
    X(NOMEM, -4, "out of memory")                                                     \
    X(INVALID, -5, "an argument is outside its range")                                \
    X(BUSY, -6, "the object is still in use: let its items settle first")             \
    X(TIMEOUT, -7, "the wait ended before the event came")                            \
    X(IO, -8, "the file could not be opened, sized or mapped: see errno")             \
    X(CORRUPT, -9, "the bytes are not what this format allows")                       \
    X(VERSION, -10, "the bytes were written by an incompatible version")              \
    X(NOSPACE, -11, "the output buffer is too small")                                 \
    X(MISMATCH, -12, "the two objects have different shapes")                         \
    X(SYSTEM, -13, "the operating system refused a thread or a lock: see errno")

typedef enum tg_status {
#define TG_STATUS_ENUM(name, code, message) TG_##name = (code),
    TG_STATUS_MAP(TG_STATUS_ENUM)
#undef TG_STATUS_ENUM
} tg_status;

/* The short name ("FULL") or the message of a code; "UNKNOWN" for any other number. Never NULL. */
const char *tg_status_name(int status);
const char *tg_status_message(int status);

#ifdef __cplusplus
}
#endif
#endif
