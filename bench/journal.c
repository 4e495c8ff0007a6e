/*
 * Measures what a journal costs: one call with it and without it, and eight threads at once, over http on loopback with
 * connections that are kept. The server is this program's own, and answers at once. See README.md.
 *
 *     [BENCH_DIR=target] [BENCH_ROUNDS=15] [BENCH_CALLS=100] bench-journal
 *
 * Exit code 0 when all was measured, whatever the times are; 1 when something failed.
 */

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "arctos.h"

#define ANSWER "{\"status\":1,\"message\":\"success\",\"info\":{\"task_num\":\"202312210000001\"}}"

enum { THREADS = 8, BLOCK = 4096, BLOCKS = 256, LONGEST = 65536 };

/* What is measured; the rounds take them in turn. */
enum { ALONE, ALONE_JOURNAL, TOGETHER, TOGETHER_JOURNAL, SYNC, KINDS };

static const char *const NAMES[KINDS] = {
    "one thread, no journal", "one thread, journal", "eight threads, no journal", "eight threads, journal",
    "fdatasync of 4 KiB alone",
};

struct measured {
    double *each;   /* seconds of each call, in the order in which the threads stand */
    size_t count;
    double *rounds; /* seconds of all calls of each round */
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static size_t number_from(const char *name, size_t usual)
{
    const char *text = getenv(name);
    unsigned long number = text == NULL ? usual : strtoul(text, NULL, 10);

    if (number < 1 || number > 100000) {
        fprintf(stderr, "%s must be 1 to 100000\n", name);
        exit(1);
    }
    return number;
}

static void *memory(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (memory == NULL)
        die("memory");
    return memory;
}

/* The server. */

/* Answers every request of a connection until it is closed. */
static void *serve(void *given)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s";
    int connection = (int)(long)given;
    char *request = memory(1, LONGEST + 1);
    char answer[512];
    int length = snprintf(answer, sizeof answer, head, strlen(ANSWER), ANSWER);
    size_t have = 0;
    int on = 1;

    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (;;) {
        ssize_t more = read(connection, request + have, LONGEST - have);
        char *body, *field;

        if (more <= 0)
            break;
        have += (size_t)more;
        request[have] = '\0';
        body = strstr(request, "\r\n\r\n");
        field = body == NULL ? NULL : strcasestr(request, "\r\ncontent-length:");
        /* A request is whole with its body, and no other follows before its answer. */
        if (field == NULL || have < (size_t)(body + 4 - request) + strtoul(field + 17, NULL, 10))
            continue;
        have = 0;
        if (write(connection, answer, (size_t)length) != length)
            break;
    }
    close(connection);
    free(request);
    return NULL;
}

static void *listen_for(void *given)
{
    int listener = (int)(long)given;
    int connection;
    pthread_t thread;

    while ((connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        if (pthread_create(&thread, NULL, serve, (void *)(long)connection) != 0)
            break;
        pthread_detach(thread);
    }
    die("the server");
    return NULL;
}

/* Starts the server, and gives its port. */
static int start_server(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pthread_t thread;

    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 64) != 0
        || getsockname(listener, (struct sockaddr *)&address, &size) != 0
        || pthread_create(&thread, NULL, listen_for, (void *)(long)listener) != 0)
        die("the server");
    pthread_detach(thread);
    return ntohs(address.sin_port);
}

/* The calls. */

static arctos_client *open_client(int port, const char *journal)
{
    char url[64];
    char *config = NULL;
    char *answer = NULL;
    arctos_client *client = NULL;
    arctos_code code = arctos_json_set(&config, "", "{\"token\":\"a-token\",\"connections\":16}");

    snprintf(url, sizeof url, "http://127.0.0.1:%d", port);
    if (code == ARCTOS_OK)
        code = arctos_json_set_text(&config, "/base_url", url);
    if (code == ARCTOS_OK && journal != NULL)
        code = arctos_json_set(&config, "/journal", "{}");
    if (code == ARCTOS_OK && journal != NULL)
        code = arctos_json_set_text(&config, "/journal/file", journal);
    if (code == ARCTOS_OK)
        code = arctos_client_new(config, &client, &answer);
    if (code != ARCTOS_OK) {
        fprintf(stderr, "no client: %s\n", answer != NULL ? answer : arctos_code_name(code));
        exit(1);
    }
    arctos_free(answer);
    arctos_free(config);
    return client;
}

struct caller {
    arctos_client *client;
    pthread_barrier_t *start;
    unsigned long first; /* the number of its first appointment */
    size_t calls;
    double *each;
    double began, ended;
};

static void *make_calls(void *given)
{
    struct caller *caller = given;
    char task[256];
    size_t index;

    pthread_barrier_wait(caller->start);
    caller->began = now();
    for (index = 0; index < caller->calls; index++) {
        char *answer = NULL;
        double before;
        arctos_code code;

        snprintf(task, sizeof task,
                 "{\"business_id\":15,\"out_task_num\":\"B-%lu\",\"task_type\":\"normal\",\"task_notify\":false,"
                 "\"branch_code\":943,\"room_type\":\"realtime\",\"video\":true}",
                 caller->first + index);
        before = now();
        code = arctos_task_add(caller->client, task, &answer);
        caller->each[index] = now() - before;
        if (code != ARCTOS_OK) {
            fprintf(stderr, "a call failed: %s\n", answer != NULL ? answer : arctos_code_name(code));
            exit(1);
        }
        arctos_free(answer);
    }
    caller->ended = now();
    return NULL;
}

/* Has so many threads make so many calls each; seconds from the start of the first to the end of the last. */
static double call_together(arctos_client *client, size_t threads, size_t calls, double *each)
{
    static unsigned long appointments;
    struct caller callers[THREADS];
    pthread_t running[THREADS];
    pthread_barrier_t start;
    double began = 0, ended = 0;
    size_t index;

    pthread_barrier_init(&start, NULL, (unsigned)threads);
    for (index = 0; index < threads; index++) {
        callers[index] = (struct caller){client, &start, appointments, calls, each + index * calls, 0, 0};
        appointments += calls;
        if (pthread_create(&running[index], NULL, make_calls, &callers[index]) != 0)
            die("a thread");
    }
    for (index = 0; index < threads; index++) {
        pthread_join(running[index], NULL);
        began = index == 0 || callers[index].began < began ? callers[index].began : began;
        ended = index == 0 || callers[index].ended > ended ? callers[index].ended : ended;
    }
    pthread_barrier_destroy(&start);
    return ended - began;
}

/* Writes over a block of a file and waits for the disk, so often; seconds of all of it. */
static double sync_alone(int file, size_t calls, double *each)
{
    static char block[BLOCK];
    static size_t next;
    double before = now();
    size_t index;

    for (index = 0; index < calls; index++, next++) {
        double since = now();

        block[0]++;
        if (pwrite(file, block, BLOCK, (off_t)(next % BLOCKS * BLOCK)) != BLOCK || fdatasync(file) != 0)
            die("fdatasync");
        each[index] = now() - since;
    }
    return now() - before;
}

/* A file that is as long as it will be. */
static int open_raw(const char *path)
{
    static char block[BLOCK];
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int index;

    if (file < 0)
        die(path);
    for (index = 0; index < BLOCKS; index++)
        if (write(file, block, BLOCK) != BLOCK)
            die(path);
    if (fsync(file) != 0)
        die(path);
    return file;
}

/* The figures. */

static int compare(const void *one, const void *other)
{
    double difference = *(const double *)one - *(const double *)other;

    return (difference > 0) - (difference < 0);
}

/* The value that a part of them is below; sorts them. */
static double at(double *values, size_t count, double part)
{
    qsort(values, count, sizeof *values, compare);
    return values[(size_t)((double)(count - 1) * part + 0.5)];
}

/* Prints how many times as long the rounds of one kind took as those of another one, round by round. */
static void print_ratio(const char *what, const double *some, const double *others, size_t rounds)
{
    double *ratios = memory(rounds, sizeof *ratios);
    double middle, least;
    size_t index;

    for (index = 0; index < rounds; index++)
        ratios[index] = some[index] / others[index];
    middle = at(ratios, rounds, 0.5);
    least = ratios[0];
    printf("%-66s %6.2f  (%.2f to %.2f)\n", what, middle, least, ratios[rounds - 1]);
    free(ratios);
}

static void print_table(struct measured *kinds, size_t rounds, size_t calls)
{
    double medians[KINDS];
    int kind;

    printf("%zu rounds of %zu calls a thread; milliseconds of a call\n\n", rounds, calls);
    printf("%-28s %8s %8s %8s %8s %10s\n", "", "calls", "median", "10 %", "90 %", "calls/s");
    for (kind = 0; kind < KINDS; kind++) {
        struct measured *one = &kinds[kind];
        double all = 0;
        size_t round;

        for (round = 0; round < rounds; round++)
            all += one->rounds[round];
        medians[kind] = at(one->each, one->count, 0.5);
        printf("%-28s %8zu %8.3f %8.3f %8.3f %10.0f\n", NAMES[kind], one->count, medians[kind] * 1e3,
               at(one->each, one->count, 0.1) * 1e3, at(one->each, one->count, 0.9) * 1e3, (double)one->count / all);
    }
    printf("\ntimes as long, by the medians:\n\n");
    printf("%-66s %6.2f\n", "a call with the journal, as one without", medians[ALONE_JOURNAL] / medians[ALONE]);
    printf("%-66s %6.2f\n", "a call with the journal, as one fdatasync", medians[ALONE_JOURNAL] / medians[SYNC]);
    printf("\ntimes as long, median (least to most) of the rounds:\n\n");
    print_ratio("8 threads with 8 times the calls, as one thread: with the journal", kinds[TOGETHER_JOURNAL].rounds,
                kinds[ALONE_JOURNAL].rounds, rounds);
    print_ratio("8 threads with 8 times the calls, as one thread: without", kinds[TOGETHER].rounds, kinds[ALONE].rounds,
                rounds);
}

int main(void)
{
    const char *where = getenv("BENCH_DIR") != NULL ? getenv("BENCH_DIR") : "target";
    size_t rounds = number_from("BENCH_ROUNDS", 15);
    size_t calls = number_from("BENCH_CALLS", 100);
    static const char *const files[] = {"journal", "journal-wal", "journal-shm", "journal-alive", "raw"};
    struct measured kinds[KINDS];
    arctos_client *without, *with;
    struct statfs about;
    char folder[4000], path[4096];
    double *warm = memory(THREADS * calls, sizeof *warm);
    int port, raw, kind;
    size_t index, round;

    /* Syncing costs nothing there, and proves nothing. */
    if (statfs(where, &about) != 0)
        die(where);
    if (about.f_type == 0x01021994) {
        fprintf(stderr, "%s is in memory: name a folder on a disk by BENCH_DIR\n", where);
        return 1;
    }
    snprintf(folder, sizeof folder, "%s/bench-XXXXXX", where);
    if (mkdtemp(folder) == NULL)
        die(folder);
    snprintf(path, sizeof path, "%s/raw", folder);
    raw = open_raw(path);
    port = start_server();
    without = open_client(port, NULL);
    snprintf(path, sizeof path, "%s/journal", folder);
    with = open_client(port, path);
    for (kind = 0; kind < KINDS; kind++) {
        size_t threads = kind == TOGETHER || kind == TOGETHER_JOURNAL ? THREADS : 1;

        kinds[kind].count = threads * calls * rounds;
        kinds[kind].each = memory(kinds[kind].count, sizeof *kinds[kind].each);
        kinds[kind].rounds = memory(rounds, sizeof *kinds[kind].rounds);
    }

    call_together(without, THREADS, calls, warm);
    call_together(with, THREADS, calls, warm);
    for (round = 0; round < rounds; round++) {
        /* Each kind is the first one in turn, so that a disk or a machine that gets slower favours none. */
        for (index = 0; index < KINDS; index++) {
            struct measured *one;
            size_t threads;
            double *each;

            kind = (int)((round + index) % KINDS);
            threads = kind == TOGETHER || kind == TOGETHER_JOURNAL ? THREADS : 1;
            one = &kinds[kind];
            each = one->each + round * threads * calls;
            if (kind == SYNC)
                one->rounds[round] = sync_alone(raw, calls, each);
            else
                one->rounds[round] =
                    call_together(kind == ALONE || kind == TOGETHER ? without : with, threads, calls, each);
        }
    }
    arctos_client_free(without);
    arctos_client_free(with);
    close(raw);
    for (index = 0; index < sizeof files / sizeof *files; index++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[index]);
        unlink(path);
    }
    rmdir(folder);
    print_table(kinds, rounds, calls);
    return fflush(stdout) != 0;
}
