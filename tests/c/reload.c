/*
 * Closes the library and opens it again, many times, while threads are in the middle of calls. Arguments: the library's
 * path, and a configuration. Prints how many calls were made.
 */

#define _GNU_SOURCE
#include "check.h"

#include <arctos.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#define ROUNDS 300
#define CALLERS 3

typedef arctos_code (*client_new_fn)(const char *, arctos_client **, char **);
typedef void (*client_free_fn)(arctos_client *);
typedef arctos_code (*task_add_fn)(arctos_client *, const char *, char **);
typedef void (*free_fn)(char *);

static const char *path, *config;
static int stop, calls[CALLERS + 1];

static void *symbol(void *library, const char *name)
{
    void *found = dlsym(library, name);

    CHECK(found != NULL);
    return found;
}

static void *open_library(void)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (library == NULL)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(library != NULL);
    return library;
}

/* Opens the library, closes it, and makes calls. */
static void call(int caller)
{
    void *library = open_library();
    client_new_fn client_new;
    client_free_fn client_free;
    task_add_fn task_add;
    free_fn text_free;
    arctos_client *client = NULL;
    char *answer = NULL, task[256];
    int again;

    *(void **)&client_new = symbol(library, "arctos_client_new");
    *(void **)&client_free = symbol(library, "arctos_client_free");
    *(void **)&task_add = symbol(library, "arctos_task_add");
    *(void **)&text_free = symbol(library, "arctos_free");
    CHECK(client_new(config, &client, NULL) == ARCTOS_OK);
    /* Nobody holds the library any more, and the functions are used all the same: it stays where it is. */
    CHECK(dlclose(library) == 0);
    for (again = 0; again < 2; again++) {
        snprintf(task, sizeof task,
                 "{\"business_id\":15,\"out_task_num\":\"L%d-%d\",\"task_type\":\"normal\",\"branch_code\":943,"
                 "\"room_type\":\"realtime\",\"video\":true}",
                 caller, calls[caller]++);
        if (task_add(client, task, &answer) != ARCTOS_OK)
            fprintf(stderr, "%s\n", answer);
        CHECK(strstr(answer, "\"task_num\"") != NULL);
        text_free(answer);
    }
    client_free(client);
}

static void *keep_calling(void *caller)
{
    while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST))
        call((int)(intptr_t)caller);
    return NULL;
}

int main(int count, char **arguments)
{
    pthread_t callers[CALLERS];
    int index;

    CHECK(count == 3);
    path = arguments[1];
    config = arguments[2];
    for (index = 0; index < CALLERS; index++)
        CHECK(pthread_create(&callers[index], NULL, keep_calling, (void *)(intptr_t)index) == 0);
    for (index = 0; index < ROUNDS; index++) {
        CHECK(dlclose(open_library()) == 0);
        if (index % 10 == 0)
            call(CALLERS);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    for (index = 0; index < CALLERS; index++)
        CHECK(pthread_join(callers[index], NULL) == 0);
    for (index = 0; index <= CALLERS; index++)
        printf("%d\n", calls[index]);
    return 0;
}
