/* mutate.c - a small mutating main for the fuzz targets, for compilers without libFuzzer.
 *
 *   fuzz_x [--rounds N] [--seed N] FILE-OR-FOLDER...
 *
 * Replays every file, then mutates them: flips, overwrites, inserts, deletes, splices. The same seed makes the same inputs.
 * An input that aborts is left in ./crash-input.
 */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 8192, FILES_MAX = 1024 };

struct input {
    uint8_t *bytes;
    size_t size;
};

static struct input inputs[FILES_MAX];
static size_t n_inputs;
static uint8_t current[INPUT_MAX];
static size_t current_size;
static uint64_t state;

static uint64_t next_random(void)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t below(size_t bound)
{
    return bound != 0 ? (size_t)(next_random() % bound) : 0;
}

static void on_abort(int number)
{
    (void)number;
    FILE *file = fopen("crash-input", "wb");
    if (file != NULL) {
        fwrite(current, 1, current_size, file);
        fclose(file);
    }
    _exit(1);
}

static void add_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || n_inputs == FILES_MAX) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(2);
    }
    struct input *input = &inputs[n_inputs++];
    input->bytes = malloc(INPUT_MAX);
    if (input->bytes == NULL) {
        exit(2);
    }
    input->size = fread(input->bytes, 1, INPUT_MAX, file);
    fclose(file);
}

static void add_path(const char *path)
{
    struct stat facts;
    if (stat(path, &facts) != 0 || !S_ISDIR(facts.st_mode)) {
        add_file(path);
        return;
    }
    DIR *folder = opendir(path);
    struct dirent *entry;
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] != '.') {
            char name[1024];
            snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
            add_file(name);
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
}

static void insert_bytes(void)
{
    size_t n = 1 + below(16), at = below(current_size + 1);
    if (current_size + n > INPUT_MAX) {
        return;
    }
    memmove(current + at + n, current + at, current_size - at);
    for (size_t i = 0; i < n; i++) {
        current[at + i] = (uint8_t)next_random();
    }
    current_size += n;
}

static void delete_bytes(void)
{
    size_t at = below(current_size), n = 1 + below(16);
    n = n < current_size - at ? n : current_size - at;
    memmove(current + at, current + at + n, current_size - at - n);
    current_size -= n;
}

static void splice(void)
{
    const struct input *other = &inputs[below(n_inputs)];
    size_t at = below(current_size), from = below(other->size);
    size_t n = other->size - from < INPUT_MAX - at ? other->size - from : INPUT_MAX - at;
    memcpy(current + at, other->bytes + from, n);
    current_size = at + n > current_size ? at + n : current_size;
}

static void mutate_once(void)
{
    static const uint8_t interesting[] = {0, 1, 2, 3, 0x7f, 0x80, 0xff, 64};
    if (current_size == 0) {
        insert_bytes();
        return;
    }
    switch (below(6)) {
    case 0:
        current[below(current_size)] ^= (uint8_t)(1u << below(8));
        break;
    case 1:
        current[below(current_size)] = (uint8_t)next_random();
        break;
    case 2:
        current[below(current_size)] = interesting[below(sizeof interesting)];
        break;
    case 3:
        insert_bytes();
        break;
    case 4:
        delete_bytes();
        break;
    default:
        splice();
    }
}

/* In a buffer of exactly its size, so that the sanitizer sees every byte too far. */
static void run_current(void)
{
    uint8_t *exact = malloc(current_size != 0 ? current_size : 1);
    if (exact == NULL) {
        exit(2);
    }
    memcpy(exact, current, current_size);
    LLVMFuzzerTestOneInput(exact, current_size);
    free(exact);
}

static void load(const struct input *input)
{
    memcpy(current, input->bytes, input->size);
    current_size = input->size;
}

int main(int argc, char **argv)
{
    uint64_t rounds = 100000;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc) {
            rounds = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            state = strtoull(argv[++i], NULL, 10);
        } else {
            add_path(argv[i]);
        }
    }
    signal(SIGABRT, on_abort);
    for (size_t i = 0; i < n_inputs; i++) {
        load(&inputs[i]);
        run_current();
    }
    for (uint64_t round = 0; round < rounds; round++) {
        current_size = 0;
        if (n_inputs != 0) {
            load(&inputs[below(n_inputs)]);
        }
        for (size_t n = 1 + below(4); n != 0; n--) {
            mutate_once();
        }
        run_current();
    }
    printf("%zu files, %llu mutated inputs, no failure\n", n_inputs, (unsigned long long)rounds);
    for (size_t i = 0; i < n_inputs; i++) {
        free(inputs[i].bytes);
    }
    return 0;
}
