/*
 * Diagnoses, and prints a line for each time: the code, and the text. Arguments: configurations, one after another; or
 * "forks" and a configuration, whose client a child of fork diagnoses too, between two times of its parent.
 */

#define _GNU_SOURCE
#include "children.h"

static void diagnose(arctos_client *client)
{
    char *answer = NULL;
    arctos_code code = arctos_client_diagnose(client, &answer);

    CHECK(answer != NULL);
    printf("%d %s\n", (int)code, answer);
    fflush(stdout);
    arctos_free(answer);
}

static void forks(const char *config)
{
    arctos_client *client = new_client(config);
    pid_t child;

    /* A connection that is kept, which is not the child's. */
    made(client, "P1");
    diagnose(client);
    child = fork_here();
    if (child == 0) {
        diagnose(client);
        CHECK(sockets() == 0);
        exit(0);
    }
    must_end(child, "that diagnoses");
    diagnose(client);
    made(client, "P2");
    arctos_client_free(client);
}

int main(int count, char **arguments)
{
    int index;

    if (count == 3 && strcmp(arguments[1], "forks") == 0) {
        forks(arguments[2]);
        return 0;
    }
    for (index = 1; index < count; index++) {
        arctos_client *client = new_client(arguments[index]);

        diagnose(client);
        arctos_client_free(client);
    }
    return 0;
}
