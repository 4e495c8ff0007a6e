/*
 * Opens the library, uses it and closes it, again and again, while threads that have used it live on. Argument: the
 * library's path.
 */

#define _GNU_SOURCE
#include "check.h"

#include <arctos.h>
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#define ROUNDS 100

typedef arctos_code (*client_new_fn)(const char *, arctos_client **, char **);
typedef void (*client_free_fn)(arctos_client *);
typedef arctos_code (*set_token_fn)(arctos_client *, const char *, char **);
typedef arctos_code (*task_add_fn)(arctos_client *, const char *, char **);
typedef void (*free_fn)(char *);

static void *library;
static pthread_barrier_t used, closed;

static void *symbol(const char *name)
{
    void *found = dlsym(library, name);

    CHECK(found != NULL);
    return found;
}

/* A call to a port on which nothing listens; the name is looked up on a thread of the library. */
static void use(void)
{
    client_new_fn client_new;
    client_free_fn client_free;
    task_add_fn task_add;
    free_fn text_free;
    arctos_client *client = NULL;
    char *answer = NULL;

    *(void **)&client_new = symbol("arctos_client_new");
    *(void **)&client_free = symbol("arctos_client_free");
    *(void **)&task_add = symbol("arctos_task_add");
    *(void **)&text_free = symbol("arctos_free");
    CHECK(client_new("{\"base_url\":\"http://localhost:1\",\"token\":\"a-token\",\"retries\":0}", &client, NULL) ==
          ARCTOS_OK);
    CHECK(task_add(client,
                   "{\"business_id\":15,\"out_task_num\":\"N\",\"task_type\":\"normal\",\"branch_code\":943,"
                   "\"room_type\":\"realtime\",\"video\":true}",
                   &answer) == ARCTOS_CONNECT);
    CHECK(strstr(answer, "\"outcome\":\"not_created\"") != NULL);
    text_free(answer);
    client_free(client);
}

/* Its thread-local data of the library are destroyed after the library was closed. */
static void *outlive(void *unused)
{
    use();
    pthread_barrier_wait(&used);
    pthread_barrier_wait(&closed);
    return unused;
}

static void open_library(const char *path)
{
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(library != NULL);
}

static arctos_client *kept;

static void *make_client(void *unused)
{
    client_new_fn client_new;

    *(void **)&client_new = symbol("arctos_client_new");
    CHECK(client_new("{\"base_url\":\"http://localhost:1\"}", &kept, NULL) == ARCTOS_OK);
    return unused;
}

static void *use_client(void *unused)
{
    set_token_fn set_token;
    client_free_fn client_free;

    *(void **)&set_token = symbol("arctos_client_set_token");
    *(void **)&client_free = symbol("arctos_client_free");
    CHECK(set_token(kept, "a-token", NULL) == ARCTOS_OK);
    client_free(kept);
    return unused;
}

static void on_a_thread_that_ends(void *(*work)(void *))
{
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* No thread has anything of the library left, so that nothing but the library itself keeps it where it is. */
static void a_client_outlives_the_closing(const char *path)
{
    open_library(path);
    on_a_thread_that_ends(make_client);
    CHECK(dlclose(library) == 0);
    open_library(path);
    on_a_thread_that_ends(use_client);
    CHECK(dlclose(library) == 0);
}

int main(int count, char **arguments)
{
    int round;

    CHECK(count == 2);
    a_client_outlives_the_closing(arguments[1]);
    CHECK(pthread_barrier_init(&used, NULL, 2) == 0 && pthread_barrier_init(&closed, NULL, 2) == 0);
    for (round = 0; round < ROUNDS; round++) {
        pthread_t thread;

        open_library(arguments[1]);
        use();
        CHECK(pthread_create(&thread, NULL, outlive, NULL) == 0);
        pthread_barrier_wait(&used);
        CHECK(dlclose(library) == 0);
        pthread_barrier_wait(&closed);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    return 0;
}
