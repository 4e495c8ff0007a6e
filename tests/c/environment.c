/*
 * A host whose environment changes between the making of its client and its call. Arguments: a configuration; 1 if the
 * client makes a call, or 0; and the variables that are set in between, each by its name and its value.
 *
 * It prints, and words are separated by blanks:
 *   new CODE TEXT
 *   call CODE OUTCOME TEXT   unless there is none
 */

#define _GNU_SOURCE
#include "appointment.h"

int main(int count, char **arguments)
{
    arctos_client *client = NULL;
    char *answer = NULL;
    arctos_code code;
    int index;

    CHECK(count > 2 && count % 2 == 1);
    code = arctos_client_new(arguments[1], &client, &answer);
    printf("new %d %s\n", (int)code, answer);
    arctos_free(answer);
    for (index = 3; index < count; index += 2)
        CHECK(setenv(arguments[index], arguments[index + 1], 1) == 0);
    if (client != NULL && strcmp(arguments[2], "1") == 0) {
        code = add(client, "ENV-1", &answer);
        printf("call %d %d %s\n", (int)code, (int)arctos_outcome(code, answer), code == ARCTOS_OK ? "{}" : answer);
        arctos_free(answer);
    }
    arctos_client_free(client);
    return 0;
}
