/*
 * Threads that change the log's function all the time, beside threads that cause events. Each hands out a `user` of its
 * own, and takes it back as soon as arctos_set_log has returned from replacing it.
 *
 * With the argument "free" it is released then, for a program that is watched; without one it is marked, so that the
 * function itself finds out.
 */

#include "check.h"

#include <arctos.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#define CALLERS 4
#define CHANGERS 4
/* Each of them changes it so often at least, and until so much was heard. */
#define CHANGES 500
#define EVENTS 2000
/* A library that tells nothing must not be waited for. */
#define MOST_CHANGES 1000000

struct user {
    int living;
    struct user *before;
};

static arctos_client *client;
static int heard, changing = CHANGERS, frees;

static void ARCTOS_CALL listen(void *user, int32_t level, const char *line)
{
    struct user *mine = user;

    CHECK(__atomic_load_n(&mine->living, __ATOMIC_SEQ_CST));
    CHECK(level == 1 && line[0] == '{');
    __atomic_add_fetch(&heard, 1, __ATOMIC_SEQ_CST);
    sched_yield();
    CHECK(__atomic_load_n(&mine->living, __ATOMIC_SEQ_CST));
}

static struct user *give(void)
{
    struct user *user = malloc(sizeof *user);

    CHECK(user != NULL);
    user->living = 1;
    return user;
}

static void take_back(struct user *user, struct user **marked)
{
    __atomic_store_n(&user->living, 0, __ATOMIC_SEQ_CST);
    if (frees) {
        free(user);
    } else {
        user->before = *marked;
        *marked = user;
    }
}

static void *change_log(void *argument)
{
    struct user *last = NULL, *mine, *marked = NULL;
    int change;

    (void)argument;
    for (change = 0; change < CHANGES || __atomic_load_n(&heard, __ATOMIC_SEQ_CST) < EVENTS; change++) {
        CHECK(change < MOST_CHANGES);
        mine = give();
        arctos_set_log(listen, mine, 1 + change % 4);
        if (last != NULL)
            take_back(last, &marked);
        last = mine;
        sched_yield();
    }
    arctos_set_log(NULL, NULL, 0);
    take_back(last, &marked);
    __atomic_sub_fetch(&changing, 1, __ATOMIC_SEQ_CST);
    return marked;
}

static void release(struct user *marked)
{
    while (marked != NULL) {
        struct user *before = marked->before;

        free(marked);
        marked = before;
    }
}

/* Calls that fail before anything is sent. */
static void *cause_events(void *argument)
{
    (void)argument;
    while (__atomic_load_n(&changing, __ATOMIC_SEQ_CST) > 0)
        CHECK(arctos_task_add(client, "{}", NULL) == ARCTOS_BAD_TASK);
    return NULL;
}

int main(int count, char **arguments)
{
    pthread_t callers[CALLERS], changers[CHANGERS];
    void *marked[CHANGERS];
    int index;

    frees = count > 1 && strcmp(arguments[1], "free") == 0;
    CHECK(arctos_client_new("{\"base_url\":\"http://127.0.0.1:1\"}", &client, NULL) == ARCTOS_OK);
    for (index = 0; index < CALLERS; index++)
        CHECK(pthread_create(&callers[index], NULL, cause_events, NULL) == 0);
    for (index = 0; index < CHANGERS; index++)
        CHECK(pthread_create(&changers[index], NULL, change_log, NULL) == 0);
    for (index = 0; index < CHANGERS; index++)
        CHECK(pthread_join(changers[index], &marked[index]) == 0);
    for (index = 0; index < CALLERS; index++)
        CHECK(pthread_join(callers[index], NULL) == 0);
    for (index = 0; index < CHANGERS; index++)
        release(marked[index]);
    arctos_client_free(client);
    return 0;
}
