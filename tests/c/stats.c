/*
 * Prints what a client has counted, one document a line: of a parent that has a connection kept and another thread in a
 * call, of its child, before and after a call of its own, of the parent when the child has ended, and when all have. The
 * argument is a configuration, whose server keeps the call "HELD" waiting; a byte of standard input says that it no
 * longer does.
 */

#define _GNU_SOURCE
#include "children.h"

#include <pthread.h>

static void print(arctos_client *client)
{
    char *answer = NULL;

    CHECK(arctos_client_stats(client, &answer) == ARCTOS_OK);
    printf("%s\n", answer);
    fflush(stdout);
    arctos_free(answer);
}

static void *hold(void *client)
{
    made(client, "HELD");
    return NULL;
}

int main(int count, char **arguments)
{
    arctos_client *client;
    pthread_t thread;
    pid_t child;
    char byte;

    CHECK(count == 2);
    client = new_client(arguments[1]);
    CHECK(pthread_create(&thread, NULL, hold, client) == 0);
    /* The call is under way, and the connection of the next one is another. */
    CHECK(read(STDIN_FILENO, &byte, 1) == 1);
    made(client, "P1");
    made(client, "P2");
    print(client);
    child = fork_here();
    if (child == 0) {
        print(client);
        made(client, "C1");
        print(client);
        exit(0);
    }
    must_end(child, "that counts");
    print(client);
    CHECK(pthread_join(thread, NULL) == 0);
    print(client);
    arctos_client_free(client);
    return 0;
}
