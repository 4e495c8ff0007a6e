/*
 * A host that forks. The first argument says how:
 *   stages CONFIG WORK END    with connections that are kept; at each stage it prints a word and waits for a line.
 *                             WORK of the child: calls, frees, nothing. END of it: exit, _exit
 *   generations CONFIG DEPTH  children of children, each over connections of its own
 *   beside KIND CONFIG...     while a thread for each configuration is in a call; KIND: wait (for a line), pause (until
 *                             they are between two tries), log (until they are inside the log)
 *   storm PLAIN TLS TLS NAME BROKEN REFUSED
 *                             500 children of several threads beside busy ones; prints how many calls each made
 */

#define _GNU_SOURCE
#include "children.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <spawn.h>
#include <stdint.h>

/* Of tests/c/resolver.c, where it is preloaded. */
extern void resolver_release(void) __attribute__((weak));

extern char **environ;

static void say(const char *word)
{
    char answer[16];

    dprintf(STDOUT_FILENO, "%s\n", word);
    CHECK(read(STDIN_FILENO, answer, sizeof answer) > 0);
}

static void leave(const char *end)
{
    if (strcmp(end, "exit") == 0)
        exit(0);
    CHECK(strcmp(end, "_exit") == 0);
    _exit(0);
}

static void count_lines(void *user, int32_t level, const char *line)
{
    CHECK(level >= 1 && level <= 4 && line[0] == '{');
    __atomic_add_fetch((int *)user, 1, __ATOMIC_SEQ_CST);
}

static void child_calls(arctos_client *client, const char *config, char *text, int *lines)
{
    arctos_client *other;
    char *json = NULL;
    int before = *lines, own = 0;

    made(client, "C1");
    CHECK(sockets() == 1);
    made(client, "C2");
    CHECK(*lines > before);
    arctos_set_log(count_lines, &own, 4);
    made(client, "C3");
    arctos_set_log(NULL, NULL, 0);
    CHECK(own > 0);
    arctos_free(text);
    CHECK(arctos_json_set(&json, "/a", "[1]") == ARCTOS_OK);
    CHECK(arctos_json_set(&json, "/a/-", "2") == ARCTOS_OK && strcmp(json, "{\"a\":[1,2]}") == 0);
    arctos_free(json);
    CHECK(arctos_client_set_token(client, "a-token-of-the-child", NULL) == ARCTOS_OK);
    CHECK(arctos_client_cancel(client) == ARCTOS_OK && arctos_call_cancel(client, "C") == ARCTOS_OK);
    made(client, "C4");
    other = new_client(config);
    made(other, "C5");
    arctos_client_free(other);
    arctos_client_free(client);
    CHECK(add(client, "C6", NULL) == ARCTOS_BAD_ARGUMENT);
}

static void stages(const char *config, const char *work, const char *end)
{
    arctos_client *client = new_client(config);
    char *text = NULL, byte = 0;
    int lines = 0, done[2], go[2];
    int files[4], index;
    pid_t child;

    arctos_set_log(count_lines, &lines, 4);
    made(client, "P1");
    made(client, "P2");
    CHECK(sockets() == 1 && lines > 0);
    CHECK(arctos_json_get("{\"a\":\"b\"}", "/a", &text) == ARCTOS_OK);
    CHECK(pipe(done) == 0 && pipe(go) == 0);
    say("called");
    child = fork_here();
    if (child == 0) {
        close(go[1]);
        CHECK(sockets() == 0);
        /* They take the numbers that its parent's connections have. */
        for (index = 0; index < 4; index++)
            CHECK((files[index] = open("/dev/null", O_RDONLY)) >= 0);
        if (strcmp(work, "calls") == 0)
            child_calls(client, config, text, &lines);
        else if (strcmp(work, "frees") == 0)
            arctos_client_free(client);
        CHECK(sockets() == 0);
        for (index = 0; index < 4; index++)
            CHECK(fcntl(files[index], F_GETFD) >= 0);
        CHECK(write(done[1], &byte, 1) == 1);
        /* Lives on until its parent says so. */
        CHECK(read(go[0], &byte, 1) == 0);
        leave(end);
    }
    close(done[1]);
    CHECK(read(done[0], &byte, 1) == 1);
    say("worked");
    made(client, "P3");
    CHECK(strcmp(text, "b") == 0);
    arctos_free(text);
    say("again");
    arctos_client_free(client);
    CHECK(sockets() == 0);
    say("freed");
    close(go[1]);
    must_end(child, work);
    arctos_set_log(NULL, NULL, 0);
}

static void generation(arctos_client *client, int level, int depth)
{
    char number[32];
    int call;

    CHECK(sockets() == 0);
    for (call = 1; call <= 3; call++) {
        pid_t child;

        snprintf(number, sizeof number, "G%d-%d", level, call);
        made(client, number);
        CHECK(sockets() == 1);
        if (call != 2 || level == depth)
            continue;
        child = fork_here();
        if (child == 0) {
            generation(client, level + 1, depth);
            _exit(0);
        }
        must_end(child, number);
    }
}

static sem_t arrived, go_on;
static pid_t parent;

/* Stops the parent where it is told to; a child must not stop there. */
static void stop_here(void *event, int32_t level, const char *line)
{
    (void)level;
    if (getpid() == parent && strstr(line, event) != NULL) {
        sem_post(&arrived);
        if (strstr(event, "attempt") != NULL)
            while (sem_wait(&go_on) != 0)
                ;
    }
}

struct caller {
    pthread_t thread;
    arctos_client *client;
    char number[16];
};

static void *call_once(void *argument)
{
    struct caller *caller = argument;

    made(caller->client, caller->number);
    return NULL;
}

static void beside(const char *kind, int count, char **configs)
{
    struct caller callers[8];
    pid_t child;
    int index;

    CHECK(count <= 8);
    parent = getpid();
    CHECK(sem_init(&arrived, 0, 0) == 0 && sem_init(&go_on, 0, 0) == 0);
    if (strcmp(kind, "pause") == 0)
        arctos_set_log(stop_here, "\"event\":\"pause\"", 4);
    if (strcmp(kind, "log") == 0)
        arctos_set_log(stop_here, "\"event\":\"attempt\"", 4);
    for (index = 0; index < count; index++) {
        callers[index].client = new_client(configs[index]);
        snprintf(callers[index].number, sizeof callers[index].number, "A%d", index);
        CHECK(pthread_create(&callers[index].thread, NULL, call_once, &callers[index]) == 0);
    }
    if (strcmp(kind, "wait") == 0)
        say("calling");
    else
        for (index = 0; index < count; index++)
            while (sem_wait(&arrived) != 0)
                ;
    child = fork_here();
    if (child == 0) {
        int lines = 0;

        CHECK(sockets() == 0);
        /* Comes back, though its parent's thread is in the log: here it is not. */
        arctos_set_log(count_lines, &lines, 4);
        if (resolver_release != NULL)
            resolver_release();
        for (index = 0; index < count; index++) {
            char number[16];

            snprintf(number, sizeof number, "C%d", index);
            made(callers[index].client, number);
            arctos_client_free(callers[index].client);
        }
        arctos_set_log(NULL, NULL, 0);
        CHECK(lines > 0);
        exit(0);
    }
    must_end(child, kind);
    say("forked");
    if (resolver_release != NULL)
        resolver_release();
    for (index = 0; index < count; index++)
        sem_post(&go_on);
    for (index = 0; index < count; index++) {
        CHECK(pthread_join(callers[index].thread, NULL) == 0);
        arctos_client_free(callers[index].client);
    }
}

#define CHILDREN 500
#define FORKERS 4
#define BUSY 6
/* No busy thread makes more calls, should a child hang. */
#define MOST_CALLS 3000

/* How the clients of the storm stand in the arguments. Children use those up to NAME. */
enum { PLAIN, TLS_12, TLS_13, NAME, BROKEN, REFUSED, CLIENTS };

static arctos_client *clients[CLIENTS];
static char **storm_configs;
static int stop, calls[BUSY];

static int stopped(int made)
{
    return made == MOST_CALLS || __atomic_load_n(&stop, __ATOMIC_SEQ_CST);
}

/* Makes calls on a client that all use, and on one of its own that comes and goes. */
static void busy_with(int thread, int which)
{
    arctos_client *own = new_client(storm_configs[which]);
    char number[32];

    for (; !stopped(calls[thread]); calls[thread]++) {
        snprintf(number, sizeof number, "T%d-%d", thread, calls[thread]);
        made(calls[thread] % 2 ? own : clients[which], number);
        if (calls[thread] % 50 == 49) {
            arctos_client_free(own);
            own = new_client(storm_configs[which]);
        }
    }
    arctos_client_free(own);
}

static void fail(int which, int number, arctos_code expected, arctos_outcome_code outcome)
{
    char *answer = NULL, text[32];
    arctos_code code;

    snprintf(text, sizeof text, "%c-%d", which == BROKEN ? 'B' : 'R', number);
    code = add(clients[which], text, &answer);
    if (code != expected)
        fprintf(stderr, "%s\n", answer);
    CHECK(code == expected && arctos_outcome(code, answer) == outcome);
    arctos_free(answer);
}

static void busy_failing(int thread)
{
    for (; !stopped(calls[thread]); calls[thread]++) {
        fail(BROKEN, calls[thread], ARCTOS_BROKEN, ARCTOS_UNKNOWN);
        fail(REFUSED, calls[thread], ARCTOS_CONNECT, ARCTOS_NOT_CREATED);
    }
}

static void busy_with_texts(void)
{
    static int lines;

    while (!stopped(0)) {
        char *json = NULL, *text = NULL;

        arctos_set_log(count_lines, &lines, 4);
        CHECK(arctos_json_set_text(&json, "/task_remark", "a text of some length") == ARCTOS_OK);
        CHECK(arctos_json_get(json, "/task_remark", &text) == ARCTOS_OK);
        CHECK(arctos_task_check(json, NULL) == ARCTOS_BAD_TASK);
        CHECK(arctos_client_set_token(clients[PLAIN], "another-token", NULL) == ARCTOS_OK);
        CHECK(arctos_call_cancel(clients[PLAIN], "none") == ARCTOS_OK);
        arctos_free(text);
        arctos_free(json);
        arctos_set_log(NULL, NULL, 0);
    }
}

static void *busy(void *argument)
{
    int thread = (int)(intptr_t)argument;

    if (thread <= NAME)
        busy_with(thread, thread);
    else if (thread == NAME + 1)
        busy_failing(thread);
    else
        busy_with_texts();
    return NULL;
}

/* Programs that are started without fork. */
static void *spawn(void *unused)
{
    char *arguments[] = {"true", NULL};

    while (!stopped(0)) {
        pid_t child;
        int status;

        CHECK(posix_spawnp(&child, "true", NULL, NULL, arguments, environ) == 0);
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        child = vfork();
        if (child == 0) {
            execvp("true", arguments);
            _exit(1);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    return unused;
}

static void *fork_children(void *argument)
{
    int forker = (int)(intptr_t)argument, index;
    char number[32];

    for (index = 0; index < CHILDREN / FORKERS; index++) {
        pid_t child = fork_here();

        snprintf(number, sizeof number, "C%d-%d", forker, index);
        if (child == 0) {
            made(clients[index % (NAME + 1)], number);
            if (index % 3 == 0)
                arctos_client_free(clients[index % (NAME + 1)]);
            leave(index % 2 ? "exit" : "_exit");
        }
        must_end(child, number);
    }
    return NULL;
}

static void storm(char **configs)
{
    pthread_t threads[BUSY + 1 + FORKERS];
    int index;

    storm_configs = configs;
    for (index = 0; index < CLIENTS; index++)
        clients[index] = new_client(configs[index]);
    for (index = 0; index < BUSY; index++)
        CHECK(pthread_create(&threads[index], NULL, busy, (void *)(intptr_t)index) == 0);
    CHECK(pthread_create(&threads[BUSY], NULL, spawn, NULL) == 0);
    for (index = 0; index < FORKERS; index++)
        CHECK(pthread_create(&threads[BUSY + 1 + index], NULL, fork_children, (void *)(intptr_t)index) == 0);
    for (index = 0; index < FORKERS; index++)
        CHECK(pthread_join(threads[BUSY + 1 + index], NULL) == 0);
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    for (index = 0; index <= BUSY; index++)
        CHECK(pthread_join(threads[index], NULL) == 0);
    for (index = 0; index < CLIENTS; index++)
        arctos_client_free(clients[index]);
    CHECK(sockets() == 0);
    for (index = 0; index < BUSY - 1; index++)
        dprintf(STDOUT_FILENO, "%d\n", calls[index]);
}

int main(int count, char **arguments)
{
    CHECK(count >= 3);
    if (strcmp(arguments[1], "stages") == 0 && count == 5)
        stages(arguments[2], arguments[3], arguments[4]);
    else if (strcmp(arguments[1], "generations") == 0 && count == 4)
        generation(new_client(arguments[2]), 0, atoi(arguments[3]));
    else if (strcmp(arguments[1], "beside") == 0)
        beside(arguments[2], count - 3, arguments + 3);
    else if (strcmp(arguments[1], "storm") == 0 && count == 2 + CLIENTS)
        storm(arguments + 2);
    else
        CHECK(!"a mode");
    return 0;
}
