/*
 * A host on a hard day. The first argument says which:
 *   alarms CONFIG REMARK        one call with so many bytes of remark, under a storm of signals that interrupt every wait.
 *                               Prints how many signals came, the code, the outcome and the document
 *   descriptors IP NAME FILE    the process may open no more descriptors; the last configuration names a file
 *   threads NAME IP             no thread can be started
 *   spawned CONFIG REMARK       a call that ends at its deadline while a child, on its way to exec, has copies of all
 *                               descriptors; prints "returned" and waits for a line
 *   sigpipe CONFIG              calls over a connection that the server ends in the middle of a large request
 */

#define _GNU_SOURCE
#include "appointment.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

/* A task with this number and a remark of so many bytes. */
static char *task_with_remark(const char *number, size_t remark)
{
    char *task = malloc(remark + 256);
    int start;

    CHECK(task != NULL);
    start = sprintf(task,
                    "{\"business_id\":15,\"out_task_num\":\"%s\",\"task_type\":\"normal\",\"branch_code\":943,"
                    "\"room_type\":\"realtime\",\"video\":true,\"task_remark\":\"",
                    number);
    memset(task + start, 'x', remark);
    strcpy(task + start + remark, "\"}");
    return task;
}

static volatile sig_atomic_t signals;

static void on_alarm(int signal)
{
    (void)signal;
    signals++;
}

static void alarms(const char *config, size_t remark)
{
    static const struct itimerval storm = {{0, 1000}, {0, 1000}}, calm;
    struct sigaction action;
    arctos_client *client = new_client(config);
    char *task = task_with_remark("ALARM", remark), *answer = NULL;
    arctos_code code;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    /* No SA_RESTART: what waits is interrupted. */
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &storm, NULL) == 0);
    code = arctos_task_add(client, task, &answer);
    CHECK(setitimer(ITIMER_REAL, &calm, NULL) == 0);
    CHECK(answer != NULL);
    printf("%d %d %d %s", (int)signals, (int)code, (int)arctos_outcome(code, answer), answer);
    arctos_free(answer);
    arctos_client_free(client);
    free(task);
}

/* A call that comes to no connection; the message says why. */
static void not_connected(arctos_client *client, const char *number, const char *why)
{
    char *answer = NULL, *message = NULL;
    arctos_code code = add(client, number, &answer);

    CHECK(answer != NULL);
    CHECK(arctos_json_get(answer, "/message", &message) == ARCTOS_OK);
    if (code != ARCTOS_CONNECT || strstr(message, why) == NULL)
        fprintf(stderr, "%s: %s\n", number, answer);
    CHECK(code == ARCTOS_CONNECT && arctos_outcome(code, answer) == ARCTOS_NOT_CREATED);
    CHECK(strstr(message, why) != NULL);
    arctos_free(message);
    arctos_free(answer);
}

#define MOST_DESCRIPTORS 64

static void descriptors(const char *ip, const char *name, const char *file)
{
    static const char why[] = "Too many open files";
    arctos_client *kept = new_client(ip), *fresh = new_client(ip), *named = new_client(name), *none = NULL;
    int taken[MOST_DESCRIPTORS], count = 0, round;
    struct rlimit limit;
    char *answer = NULL;

    made(kept, "K1");
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = MOST_DESCRIPTORS;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    while ((taken[count] = open("/dev/null", O_RDONLY)) >= 0)
        count++;
    CHECK(errno == EMFILE && count > 0);
    for (round = 0; round < 3; round++) {
        made(kept, round == 0 ? "K2" : round == 1 ? "K3" : "K4");
        not_connected(fresh, "F1", why);
        not_connected(named, "N1", why);
        CHECK(arctos_client_new(file, &none, &answer) == ARCTOS_BAD_CONFIG && strstr(answer, why) != NULL);
        arctos_free(answer);
    }
    while (count > 0)
        close(taken[--count]);
    made(kept, "K5");
    made(fresh, "F2");
    made(named, "N2");
    arctos_client_free(kept);
    arctos_client_free(fresh);
    arctos_client_free(named);
}

static int refuse_threads, refused_threads;

/* Stands before that of the system, for the library too. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*work)(void *), void *argument)
{
    int (*system)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

    if (__atomic_load_n(&refuse_threads, __ATOMIC_SEQ_CST)) {
        __atomic_add_fetch(&refused_threads, 1, __ATOMIC_SEQ_CST);
        return EAGAIN;
    }
    *(void **)&system = dlsym(RTLD_NEXT, "pthread_create");
    return system(thread, attributes, work, argument);
}

#define CALLERS 8

static pthread_barrier_t ready;

static void *call_without_threads(void *client)
{
    int call;

    pthread_barrier_wait(&ready);
    for (call = 0; call < 20; call++)
        not_connected(client, "NONE", "no thread could be started: Resource temporarily unavailable");
    return NULL;
}

static void threads(const char *name, const char *ip)
{
    arctos_client *named = new_client(name), *addressed = new_client(ip);
    pthread_t callers[CALLERS];
    int index;

    CHECK(pthread_barrier_init(&ready, NULL, CALLERS + 1) == 0);
    for (index = 0; index < CALLERS; index++)
        CHECK(pthread_create(&callers[index], NULL, call_without_threads, named) == 0);
    __atomic_store_n(&refuse_threads, 1, __ATOMIC_SEQ_CST);
    pthread_barrier_wait(&ready);
    for (index = 0; index < CALLERS; index++)
        CHECK(pthread_join(callers[index], NULL) == 0);
    CHECK(refused_threads >= CALLERS * 20);
    made(addressed, "I1");
    __atomic_store_n(&refuse_threads, 0, __ATOMIC_SEQ_CST);
    made(named, "N1");
    arctos_client_free(named);
    arctos_client_free(addressed);
}

/* More than the buffers of both kernels take, so that the call is still writing when the server closes. */
#define LARGE (24 * 1024 * 1024)

static void sigpipe(const char *config)
{
    arctos_client *client = new_client(config);
    char *task = task_with_remark("LARGE", LARGE), number[16];
    struct sigaction action;
    sigset_t mask;
    int round;

    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    sigemptyset(&mask);
    sigaddset(&mask, SIGPIPE);
    CHECK(sigprocmask(SIG_UNBLOCK, &mask, NULL) == 0);
    for (round = 0; round < 5; round++) {
        char *answer = NULL;
        arctos_code code;

        snprintf(number, sizeof number, "S%d", round);
        made(client, number);
        code = arctos_task_add(client, task, &answer);
        if (code != ARCTOS_BROKEN)
            fprintf(stderr, "%s\n", answer);
        CHECK(code == ARCTOS_BROKEN && arctos_outcome(code, answer) == ARCTOS_UNKNOWN);
        arctos_free(answer);
    }
    CHECK(sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
    CHECK(sigprocmask(SIG_SETMASK, NULL, &mask) == 0 && sigismember(&mask, SIGPIPE) == 0);
    CHECK(sigpending(&mask) == 0 && sigismember(&mask, SIGPIPE) == 0);
    arctos_client_free(client);
    free(task);
}

static int started[2], finish[2];

/* As posix_spawn and popen begin: the child has not come to exec yet. */
static void *spawn_slowly(void *unused)
{
    char byte = 0;
    pid_t child = vfork();

    if (child == 0) {
        close(finish[1]);
        if (write(started[1], &byte, 1) == 1 && read(finish[0], &byte, 1) == 0)
            _exit(0);
        _exit(1);
    }
    CHECK(child > 0);
    return unused;
}

/* Begins to spawn when the request is on its way. */
static void on_line(void *thread, int32_t level, const char *line)
{
    char byte;

    (void)level;
    if (strstr(line, "\"event\":\"connect\"") != NULL) {
        CHECK(pthread_create(thread, NULL, spawn_slowly, NULL) == 0);
        CHECK(read(started[0], &byte, 1) == 1);
    }
}

static void spawned(const char *config, size_t remark)
{
    arctos_client *client = new_client(config);
    char *task = task_with_remark("SPAWN", remark), *answer = NULL, line[8];
    pthread_t thread;
    arctos_code code;

    CHECK(pipe(started) == 0 && pipe(finish) == 0);
    arctos_set_log(on_line, &thread, 4);
    code = arctos_task_add(client, task, &answer);
    if (code != ARCTOS_TIMEOUT)
        fprintf(stderr, "%s\n", answer);
    CHECK(code == ARCTOS_TIMEOUT && arctos_outcome(code, answer) == ARCTOS_UNKNOWN);
    arctos_free(answer);
    printf("returned\n");
    fflush(stdout);
    CHECK(fgets(line, sizeof line, stdin) != NULL);
    close(finish[1]);
    CHECK(pthread_join(thread, NULL) == 0);
    arctos_client_free(client);
    free(task);
}

int main(int count, char **arguments)
{
    CHECK(count >= 3);
    if (strcmp(arguments[1], "alarms") == 0 && count == 4)
        alarms(arguments[2], strtoul(arguments[3], NULL, 10));
    else if (strcmp(arguments[1], "descriptors") == 0 && count == 5)
        descriptors(arguments[2], arguments[3], arguments[4]);
    else if (strcmp(arguments[1], "threads") == 0 && count == 4)
        threads(arguments[2], arguments[3]);
    else if (strcmp(arguments[1], "spawned") == 0 && count == 4)
        spawned(arguments[2], strtoul(arguments[3], NULL, 10));
    else if (strcmp(arguments[1], "sigpipe") == 0 && count == 3)
        sigpipe(arguments[2]);
    else
        CHECK(!"a mode");
    return 0;
}
