/*
 * Makes appointments through a journal whose disk is recorded. The first argument is the configuration, the others are
 * done one after another:
 *   PREFIX:COUNT:THREADS  COUNT appointments PREFIX-0000, PREFIX-0001 …, by so many threads at once
 *   fork                  a child that does nothing, for which the journal is closed and opened again
 */

#include "children.h"

#include <pthread.h>

/* Of tests/c/disk_recorder.c. */
extern void disk_mark(const char *) __attribute__((weak));

#define MOST_THREADS 16

struct work {
    pthread_t thread;
    const char *prefix;
    int first, count, step;
};

static arctos_client *client;

static void mark(const char *what, const char *number)
{
    char text[128];

    snprintf(text, sizeof text, "%s %s", what, number);
    CHECK(disk_mark != NULL);
    disk_mark(text);
}

static void *work_on(void *argument)
{
    struct work *work = argument;
    char number[64];
    int index;

    for (index = work->first; index < work->count; index += work->step) {
        snprintf(number, sizeof number, "%s-%04d", work->prefix, index);
        mark("calls", number);
        made(client, number);
        mark("returned", number);
    }
    return NULL;
}

static void add_all(char *step)
{
    struct work work[MOST_THREADS];
    char *count = strchr(step, ':'), *threads = count == NULL ? NULL : strchr(count + 1, ':');
    int index;

    CHECK(threads != NULL && atoi(threads + 1) <= MOST_THREADS);
    *count = '\0';
    for (index = 0; index < atoi(threads + 1); index++) {
        work[index].prefix = step;
        work[index].first = index;
        work[index].count = atoi(count + 1);
        work[index].step = atoi(threads + 1);
        CHECK(pthread_create(&work[index].thread, NULL, work_on, &work[index]) == 0);
    }
    for (index = 0; index < atoi(threads + 1); index++)
        CHECK(pthread_join(work[index].thread, NULL) == 0);
}

int main(int count, char **arguments)
{
    int index;

    CHECK(count >= 2);
    client = new_client(arguments[1]);
    for (index = 2; index < count; index++) {
        if (strcmp(arguments[index], "fork") == 0) {
            pid_t child = fork_here();

            if (child == 0)
                _exit(0);
            must_end(child, "that does nothing");
        } else {
            add_all(arguments[index]);
        }
    }
    arctos_client_free(client);
    return 0;
}
