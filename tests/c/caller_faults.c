/*
 * What a memory checker must find, so that its silence about other programs means something. Argument: "overrun" makes
 * the library read a byte behind a block of this program's, "lost" forgets a block.
 */

#include "check.h"

#include <arctos.h>
#include <string.h>

#define LENGTH 20

static void forget(void)
{
    char *volatile block = malloc(LENGTH);

    CHECK(block != NULL);
    memset(block, 'x', LENGTH);
    block = NULL;
}

static void overrun(void)
{
    char *field = malloc(LENGTH);
    char *task = NULL;

    CHECK(field != NULL);
    memset(field, 'x', LENGTH);
    arctos_json_set_field(&task, "/out_task_num", field, LENGTH + 1, NULL);
    arctos_free(task);
    free(field);
}

int main(int count, char **arguments)
{
    CHECK(count == 2);
    if (strcmp(arguments[1], "overrun") == 0)
        overrun();
    else
        forget();
    return 0;
}
