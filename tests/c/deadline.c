/*
 * A host whose calls end at their deadline, or are cancelled then. It reports when each call returned, beside a thread
 * that slept to the same instant, and how many threads its process had that are not its own.
 *
 * Arguments: the deadline in milliseconds; how many threads call, perhaps none; how many calls each of them makes; how
 * many bytes of remark a task has; 1 if SIGALRM is to be sent all the time, or 0; what the sleeping thread does when it
 * wakes: 0 nothing, 1 arctos_client_cancel, 2 arctos_call_cancel; 1 if each thread first makes an appointment that is
 * none of its calls, or 0; configurations, which the threads take in turn.
 *
 * It prints, and words are separated by blanks:
 *   threads MOST AFTER       how many strange threads there were at most while the calls ran, and how many after them
 *   signals STRANGE PENDING  how often SIGALRM was delivered to a strange thread, and whether one waits at the end
 *   call LATE BEYOND CODE OUTCOME DOCUMENT
 *                            for each call: nanoseconds after the deadline, nanoseconds after the sleeping thread, and
 *                            the error document
 *   done
 * Then it obeys the lines of its standard input until they end:
 *   call CONFIG              makes one more call and prints it as above; LATE is how long it took
 *   release                  ends what hangs in the preloaded resolver, waits until no strange thread is left, and
 *                            prints "released"
 */

#define _GNU_SOURCE
#include "check.h"

#include <arctos.h>
#include <dirent.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MOST_CALLS 16
#define BILLION 1000000000LL

/* Of tests/c/resolver.c, where it is preloaded. */
extern void resolver_release(void) __attribute__((weak));

struct call {
    int64_t late;
    int64_t beyond;
    arctos_code code;
    arctos_outcome_code outcome;
    char *answer;
};

struct caller {
    pthread_t thread, sleeper;
    sem_t sleep, woken;
    int64_t until, woke;
    arctos_client *client;
    int number;
    struct call calls[MOST_CALLS];
};

/* What the sleeping thread cancels. */
enum { NOTHING, CLIENT, CALL };

static int64_t deadline;
static int calls, remark, running, cancels, first;
static pthread_barrier_t ready, finished;
static __thread int own;
static volatile sig_atomic_t strange;

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * BILLION + time.tv_nsec;
}

static void pause_ms(int ms)
{
    struct timespec time = {0, ms * 1000000L};

    nanosleep(&time, NULL);
}

static int threads(void)
{
    DIR *folder = opendir("/proc/self/task");
    struct dirent *entry;
    int count = 0;

    CHECK(folder != NULL);
    while ((entry = readdir(folder)) != NULL)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

static void on_alarm(int signal)
{
    (void)signal;
    strange += !own;
}

/* A task with this number and as long a remark as all have. */
static char *new_task(int caller, int call)
{
    static const char TASK[] =
        "{\"business_id\":15,\"out_task_num\":\"C%d-%d\",\"task_type\":\"normal\",\"branch_code\":943,"
        "\"room_type\":\"realtime\",\"video\":true,\"task_remark\":\"";
    char *task = malloc(sizeof TASK + 64 + remark);
    int start;

    CHECK(task != NULL);
    start = sprintf(task, TASK, caller, call);
    memset(task + start, 'x', remark);
    strcpy(task + start + remark, "\"}");
    return task;
}

static arctos_client *new_client(const char *config)
{
    arctos_client *client = NULL;

    CHECK(arctos_client_new(config, &client, NULL) == ARCTOS_OK);
    return client;
}

/* The id of a call. */
static const char *call_id(char *id, const struct caller *caller, int call)
{
    sprintf(id, "C%d-%d", caller->number, call);
    return id;
}

static void cancel(const struct caller *caller, int call)
{
    char id[32];

    if (cancels == CLIENT)
        CHECK(arctos_client_cancel(caller->client) == ARCTOS_OK);
    if (cancels == CALL)
        CHECK(arctos_call_cancel(caller->client, call_id(id, caller, call)) == ARCTOS_OK);
}

static void *sleep_until(void *argument)
{
    struct caller *caller = argument;
    struct timespec until;
    int call;

    for (call = 0; call < calls; call++) {
        while (sem_wait(&caller->sleep) != 0)
            ;
        until.tv_sec = caller->until / BILLION;
        until.tv_nsec = caller->until % BILLION;
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0)
            ;
        caller->woke = now();
        cancel(caller, call);
        sem_post(&caller->woken);
    }
    pthread_barrier_wait(&finished);
    return NULL;
}

static void *make_calls(void *argument)
{
    struct caller *caller = argument;
    char id[32], options[64];
    int64_t returned;
    sigset_t alarm;
    int call;

    own = 1;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
    if (first) {
        char *task = new_task(caller->number, -1);

        CHECK(arctos_task_add(caller->client, task, NULL) == ARCTOS_OK);
        free(task);
    }
    pthread_barrier_wait(&ready);
    for (call = 0; call < calls; call++) {
        struct call *made = &caller->calls[call];
        char *task = new_task(caller->number, call);

        sprintf(options, "{\"call_id\":\"%s\"}", call_id(id, caller, call));
        caller->until = now() + deadline;
        sem_post(&caller->sleep);
        made->code = arctos_task_add_with(caller->client, task, options, &made->answer);
        returned = now();
        while (sem_wait(&caller->woken) != 0)
            ;
        made->late = returned - caller->until;
        made->beyond = returned - caller->woke;
        made->outcome = arctos_outcome(made->code, made->answer);
        free(task);
    }
    __atomic_sub_fetch(&running, 1, __ATOMIC_SEQ_CST);
    pthread_barrier_wait(&finished);
    return NULL;
}

static void print(const struct call *call)
{
    CHECK(call->answer != NULL);
    /* An answer that is no error document may have more than one line. */
    printf("call %lld %lld %d %d %s\n", (long long)call->late, (long long)call->beyond, (int)call->code,
           (int)call->outcome, call->code == ARCTOS_OK ? "{}" : call->answer);
    arctos_free(call->answer);
}

static void call_once(const char *config)
{
    static int number;
    arctos_client *client = new_client(config);
    char *task = new_task(-1, number++);
    struct call call;

    call.beyond = 0;
    call.late = -now();
    call.code = arctos_task_add(client, task, &call.answer);
    call.late += now();
    call.outcome = arctos_outcome(call.code, call.answer);
    print(&call);
    arctos_client_free(client);
    free(task);
}

static void obey(void)
{
    char line[4096];

    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "release") == 0) {
            CHECK(resolver_release != NULL);
            resolver_release();
            while (threads() > 1)
                pause_ms(1);
            printf("released\n");
        } else {
            CHECK(strncmp(line, "call ", 5) == 0);
            call_once(line + 5);
        }
        fflush(stdout);
    }
}

int main(int count, char **arguments)
{
    struct sigaction action;
    struct caller *callers;
    sigset_t alarm;
    int index, call, number, storm, most = 0;

    CHECK(count >= 8);
    deadline = atoll(arguments[1]) * 1000000;
    number = running = atoi(arguments[2]);
    calls = atoi(arguments[3]);
    remark = atoi(arguments[4]);
    storm = atoi(arguments[5]);
    cancels = atoi(arguments[6]);
    first = atoi(arguments[7]);
    CHECK(calls <= MOST_CALLS);
    arguments += 8;
    count -= 8;

    /* Of the threads of this program only those that call take the signal; what they start takes it unless it says
     * otherwise. */
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm, NULL);

    CHECK(threads() == 1);
    callers = calloc(number + 1, sizeof *callers);
    CHECK(callers != NULL);
    pthread_barrier_init(&ready, NULL, number + 1);
    pthread_barrier_init(&finished, NULL, 2 * number + 1);
    for (index = 0; index < number; index++) {
        struct caller *caller = &callers[index];

        caller->number = index;
        caller->client = index < count ? new_client(arguments[index]) : callers[index % count].client;
        sem_init(&caller->sleep, 0, 0);
        sem_init(&caller->woken, 0, 0);
    }
    CHECK(threads() == 1);
    for (index = 0; index < number; index++) {
        CHECK(pthread_create(&callers[index].sleeper, NULL, sleep_until, &callers[index]) == 0);
        CHECK(pthread_create(&callers[index].thread, NULL, make_calls, &callers[index]) == 0);
    }
    pthread_barrier_wait(&ready);
    while (__atomic_load_n(&running, __ATOMIC_SEQ_CST) > 0) {
        int others = threads() - 1 - 2 * number;

        most = others > most ? others : most;
        if (storm)
            kill(getpid(), SIGALRM);
        pause_ms(2);
    }
    pthread_barrier_wait(&finished);
    for (index = 0; index < number; index++) {
        pthread_join(callers[index].sleeper, NULL);
        pthread_join(callers[index].thread, NULL);
    }
    /* Now no thread of this program takes the signal: it goes to a strange one, or waits. */
    if (storm)
        kill(getpid(), SIGALRM);
    pause_ms(10);
    sigpending(&alarm);
    printf("threads %d %d\n", most, threads() - 1);
    printf("signals %d %d\n", (int)strange, sigismember(&alarm, SIGALRM));
    for (index = 0; index < number; index++)
        for (call = 0; call < calls; call++)
            print(&callers[index].calls[call]);
    printf("done\n");
    fflush(stdout);
    obey();
    for (index = 0; index < number; index++)
        arctos_client_free(callers[index].client);
    free(callers);
    return 0;
}
