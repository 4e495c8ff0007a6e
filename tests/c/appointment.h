/* What the programs share that make appointments. */
#ifndef APPOINTMENT_H
#define APPOINTMENT_H

#include "check.h"

#include <arctos.h>
#include <string.h>
#include <time.h>

static inline arctos_client *new_client(const char *config)
{
    arctos_client *client = NULL;
    char *answer = NULL;

    if (arctos_client_new(config, &client, &answer) != ARCTOS_OK)
        fprintf(stderr, "%s\n", answer);
    CHECK(client != NULL);
    arctos_free(answer);
    return client;
}

/* The appointment with this number. */
static inline arctos_code add(arctos_client *client, const char *number, char **answer)
{
    char task[256];

    snprintf(task, sizeof task,
             "{\"business_id\":15,\"out_task_num\":\"%s\",\"task_type\":\"normal\",\"branch_code\":943,"
             "\"room_type\":\"realtime\",\"video\":true}",
             number);
    return arctos_task_add(client, task, answer);
}

/* The same, which must be made, and answered with the number that belongs to it. */
static inline void made(arctos_client *client, const char *number)
{
    char *answer = NULL, *given = NULL;
    arctos_code code = add(client, number, &answer);

    if (code != ARCTOS_OK)
        fprintf(stderr, "%s\n", answer == NULL ? "no answer" : answer);
    CHECK(code == ARCTOS_OK && arctos_outcome(code, answer) == ARCTOS_CREATED);
    CHECK(arctos_json_get(answer, "/info/task_num", &given) == ARCTOS_OK);
    CHECK(strncmp(given, "T-", 2) == 0 && strcmp(given + 2, number) == 0);
    arctos_free(given);
    arctos_free(answer);
}

static inline void pause_ms(long ms)
{
    struct timespec time;

    time.tv_sec = ms / 1000;
    time.tv_nsec = ms % 1000 * 1000000;
    while (nanosleep(&time, &time) != 0)
        ;
}

#endif
