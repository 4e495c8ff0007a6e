/*
 * What the programs that make the calls of the benchmark share.
 *
 *     PROGRAM URL CA_FILE THREADS BODY_BYTES KEEP [CLIENTS]
 *
 * URL is that of the server, `/api/task/do_add` is put behind it. CA_FILE (PEM) holds the authority to trust, "-" none.
 * KEEP is "keep", or "fresh" for a new connection each call. CLIENTS (1) is how many clients of the library there are:
 * each thread takes them in turn.
 *
 * When all is set up one line of JSON is printed: the version of the library, and the nanoseconds that making its
 * clients took. Then each line of standard input is a command, and each is answered by one line of JSON:
 *
 *     calls N    every thread makes N calls, all beginning together; the nanoseconds of each, of all of it, and of the
 *                processors; the memory of the process afterwards, and at most
 *     count N    the same calls without figures, for who counts what a call does; {}
 *
 * A call is that of the library, with the answer read and released; the task is built before it. Ends with exit code 0
 * after the last command, with 1 at the first call that fails.
 */

#ifndef ARCTOS_BENCH_CLIENT_H
#define ARCTOS_BENCH_CLIENT_H

#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PATH "/api/task/do_add"
#define TOKEN "a-token-of-the-bench"
#define AGENT "arctos-bench"

enum { TIMEOUT_MS = 15000, CONNECT_TIMEOUT_MS = 5000 };

struct options {
    const char *url;
    const char *ca_file; /* NULL for none */
    size_t threads;
    size_t body_bytes;
    int keep;
    size_t clients;
};

/* What a program makes its calls with. A failure ends the program. */
struct library {
    void (*set_up)(const struct options *options);
    const char *(*version)(void);
    /* Makes an appointment on the thread of this index. */
    void (*call)(size_t thread, const char *task, size_t length);
    void (*tear_down)(void);
};

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void fail(const char *format, ...)
{
    va_list values;

    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    /* Not exit(): other threads may be in the library, which would be taken apart under them. */
    _exit(1);
}

static void *memory(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (memory == NULL)
        fail("no memory");
    return memory;
}

/* The answer: every client looks for the number in it in the same way. */

static int has_number(const char *answer)
{
    return strstr(answer, "\"task_num\":\"") != NULL;
}

/* The task. */

#define TASK_BEGIN "{\"business_id\":15,\"out_task_num\":\"BENCH-"
#define TASK_MIDDLE \
    "\",\"task_type\":\"normal\",\"task_notify\":false,\"task_time\":\"1795505400\"," \
    "\"branch_code\":943,\"room_type\":\"normal\",\"video\":true,\"out_task_type\":\"mortgage\"," \
    "\"business_code\":\"0715\",\"task_remark\":\""
#define TASK_END "\"}"

enum { DIGITS = 12 };

/* A task without its number, of this many bytes; the remark fills it up. */
static char *task_without_number(size_t bytes)
{
    static const char before[] = TASK_BEGIN "000000000000" TASK_MIDDLE;
    size_t least = strlen(before) + strlen(TASK_END);
    char *task;

    if (bytes < least)
        fail("no task is shorter than %zu bytes", least);
    task = memory(bytes + 1, 1);
    memset(task, 'x', bytes);
    memcpy(task, before, strlen(before));
    memcpy(task + bytes - strlen(TASK_END), TASK_END, strlen(TASK_END));
    return task;
}

static void write_number(char *task, uint64_t number)
{
    size_t at;

    for (at = strlen(TASK_BEGIN) + DIGITS; at > strlen(TASK_BEGIN); number /= 10)
        task[--at] = (char)('0' + number % 10);
}

/* The threads. */

struct caller {
    size_t index;
    pthread_t thread;
    uint64_t *each;
    uint64_t began, ended;
};

static struct {
    const struct library *library;
    struct options options;
    const char *task;
    uint64_t last; /* the number of the last task */
    size_t calls;  /* of each thread in this round; none ends the threads */
    pthread_barrier_t begin, end;
} shared;

static uint64_t nanoseconds(clockid_t clock)
{
    struct timespec time;

    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void *make_calls(void *given)
{
    struct caller *caller = given;
    size_t bytes = shared.options.body_bytes;
    char *task = memory(bytes + 1, 1);
    size_t index;

    for (;;) {
        pthread_barrier_wait(&shared.begin);
        if (shared.calls == 0)
            break;
        caller->began = nanoseconds(CLOCK_MONOTONIC);
        for (index = 0; index < shared.calls; index++) {
            uint64_t before;

            memcpy(task, shared.task, bytes);
            write_number(task, __atomic_add_fetch(&shared.last, 1, __ATOMIC_RELAXED));
            before = nanoseconds(CLOCK_MONOTONIC);
            shared.library->call(caller->index, task, bytes);
            caller->each[index] = nanoseconds(CLOCK_MONOTONIC) - before;
        }
        caller->ended = nanoseconds(CLOCK_MONOTONIC);
        pthread_barrier_wait(&shared.end);
    }
    free(task);
    return NULL;
}

/* The figures. */

/* The memory of the process under this name in its status, in KiB. */
static unsigned long status_kib(const char *name)
{
    FILE *status = fopen("/proc/self/status", "r");
    unsigned long value = 0;
    char line[256];

    if (status == NULL)
        fail("the system does not tell of memory");
    while (fgets(line, sizeof line, status) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtoul(line + strlen(name), NULL, 10);
    fclose(status);
    return value;
}

static void print_round(const struct caller *callers, uint64_t cpu_ns)
{
    unsigned long rss = status_kib("VmRSS:"), peak = status_kib("VmHWM:");
    uint64_t began = callers[0].began, ended = callers[0].ended;
    const char *before = "{\"each_ns\":[";
    size_t thread, index;

    for (thread = 0; thread < shared.options.threads; thread++) {
        const struct caller *caller = &callers[thread];

        began = caller->began < began ? caller->began : began;
        ended = caller->ended > ended ? caller->ended : ended;
        for (index = 0; index < shared.calls; index++, before = ",")
            printf("%s%llu", before, (unsigned long long)caller->each[index]);
    }
    printf("],\"wall_ns\":%llu,\"cpu_ns\":%llu,\"rss_kib\":%lu,\"peak_rss_kib\":%lu}\n",
           (unsigned long long)(ended - began), (unsigned long long)cpu_ns, rss, peak);
}

/* Makes so many calls on each thread; nanoseconds of the processors. */
static uint64_t make_round(struct caller *callers, size_t calls)
{
    uint64_t cpu_ns;
    size_t thread;

    for (thread = 0; thread < shared.options.threads; thread++) {
        free(callers[thread].each);
        callers[thread].each = memory(calls, sizeof *callers[thread].each);
    }
    shared.calls = calls;
    cpu_ns = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    pthread_barrier_wait(&shared.begin);
    pthread_barrier_wait(&shared.end);
    return nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns;
}

static size_t number_of(const char *text)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);

    if (number == 0 || *end != '\0')
        fail("no number from 1: %s", text);
    return number;
}

static int run(const struct library *library, int count, char **arguments)
{
    struct options *options = &shared.options;
    struct caller *callers;
    char command[64], word[8] = "";
    char *task;
    uint64_t before;
    size_t thread, calls;

    if (count < 6 || count > 7 || (strcmp(arguments[5], "keep") != 0 && strcmp(arguments[5], "fresh") != 0))
        fail("%s URL CA_FILE THREADS BODY_BYTES keep|fresh [CLIENTS]", arguments[0]);
    options->url = arguments[1];
    options->ca_file = strcmp(arguments[2], "-") == 0 ? NULL : arguments[2];
    options->threads = number_of(arguments[3]);
    options->body_bytes = number_of(arguments[4]);
    options->keep = strcmp(arguments[5], "keep") == 0;
    options->clients = count == 7 ? number_of(arguments[6]) : 1;
    shared.library = library;
    shared.task = task = task_without_number(options->body_bytes);

    before = nanoseconds(CLOCK_MONOTONIC);
    library->set_up(options);
    before = nanoseconds(CLOCK_MONOTONIC) - before;
    printf("{\"version\":\"%s\",\"setup_ns\":%llu}\n", library->version(), (unsigned long long)before);
    fflush(stdout);

    pthread_barrier_init(&shared.begin, NULL, (unsigned)options->threads + 1);
    pthread_barrier_init(&shared.end, NULL, (unsigned)options->threads + 1);
    callers = memory(options->threads, sizeof *callers);
    for (thread = 0; thread < options->threads; thread++) {
        callers[thread].index = thread;
        if (pthread_create(&callers[thread].thread, NULL, make_calls, &callers[thread]) != 0)
            fail("no thread");
    }
    while (fgets(command, sizeof command, stdin) != NULL) {
        uint64_t cpu_ns;

        if (sscanf(command, "%7s %zu", word, &calls) != 2 || calls == 0
            || (strcmp(word, "calls") != 0 && strcmp(word, "count") != 0))
            fail("no such command: %s", word);
        cpu_ns = make_round(callers, calls);
        if (strcmp(word, "calls") == 0)
            print_round(callers, cpu_ns);
        else
            puts("{}");
        fflush(stdout);
    }

    shared.calls = 0;
    pthread_barrier_wait(&shared.begin);
    for (thread = 0; thread < options->threads; thread++) {
        pthread_join(callers[thread].thread, NULL);
        free(callers[thread].each);
    }
    free(callers);
    free(task);
    library->tear_down();
    return 0;
}

#endif
