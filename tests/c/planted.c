/*
 * Uses a library that panics where a task's number says so. Arguments: a configuration, a marker that stands in every
 * task, and a file for each of the two documents; or only the first two, of a client that logs in.
 */

#include "check.h"

#include <arctos.h>
#include <pthread.h>
#include <string.h>

#define ROUNDS 100

static arctos_client *client;
static const char *marker;

static int lines;

/* Whether the next line that tells of a log-in is to make calls that panic. */
static int within;

static void fails(const char *number, arctos_outcome_code outcome, const char *path);

/* No line of the log shows anything of a panic. */
static void ARCTOS_CALL look(void *user, int32_t level, const char *line)
{
    (void)user;
    (void)level;
    CHECK(strstr(line, marker) == NULL && strstr(line, "planted") == NULL);
    lines++;
    if (within && strstr(line, "\"event\":\"login\"") != NULL) {
        within = 0;
        fails("panic-before-5", ARCTOS_NOT_CREATED, NULL);
        fails("panic-after-5", ARCTOS_UNKNOWN, NULL);
    }
}

static arctos_code add(const char *number, char **answer)
{
    char *task = NULL;
    arctos_code code;

    CHECK(arctos_json_set(&task, "",
                          "{\"business_id\":15,\"task_type\":\"normal\",\"branch_code\":943,\"room_type\":\"realtime\","
                          "\"video\":true}") == ARCTOS_OK);
    CHECK(arctos_json_set_text(&task, "/out_task_num", number) == ARCTOS_OK);
    CHECK(arctos_json_set_text(&task, "/task_remark", marker) == ARCTOS_OK);
    CHECK(arctos_json_set_text(&task, "/undocumented", marker) == ARCTOS_OK);
    code = arctos_task_add(client, task, answer);
    arctos_free(task);
    return code;
}

static void makes(const char *number)
{
    char *answer = NULL;

    CHECK(add(number, &answer) == ARCTOS_OK);
    CHECK(answer != NULL && strstr(answer, number) != NULL);
    arctos_free(answer);
}

/* The document of a call that panics; to a file, too, when there is one. */
static void fails(const char *number, arctos_outcome_code outcome, const char *path)
{
    char *answer = NULL;
    arctos_code code = add(number, &answer);

    CHECK(code == ARCTOS_INTERNAL);
    CHECK(answer != NULL);
    CHECK(arctos_outcome(code, answer) == outcome);
    if (path != NULL) {
        FILE *file = fopen(path, "w");

        CHECK(file != NULL && fputs(answer, file) >= 0 && fclose(file) == 0);
    }
    arctos_free(answer);
}

static void *on_another_thread(void *unused)
{
    fails("panic-before-3", ARCTOS_NOT_CREATED, NULL);
    fails("panic-after-3", ARCTOS_UNKNOWN, NULL);
    makes("MADE-3");
    return unused;
}

/* Panics before, within and after a log-in. */
static void logs_in(void)
{
    char *answer = NULL;

    fails("panic-before-4", ARCTOS_NOT_CREATED, NULL);
    within = 1;
    fails("panic-after-4", ARCTOS_UNKNOWN, NULL);
    CHECK(!within);
    makes("MADE-5");
    CHECK(arctos_client_diagnose(client, &answer) == ARCTOS_OK);
    arctos_free(answer);
}

static void panics(char **arguments)
{
    pthread_t thread;
    int count;

    fails("panic-before-1", ARCTOS_NOT_CREATED, arguments[3]);
    makes("MADE-1");
    fails("panic-after-1", ARCTOS_UNKNOWN, arguments[4]);
    makes("MADE-2");
    CHECK(pthread_create(&thread, NULL, on_another_thread, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    for (count = 0; count < ROUNDS; count++)
        fails("panic-before-2", ARCTOS_NOT_CREATED, NULL);
    CHECK(arctos_client_set_token(client, "another-token", NULL) == ARCTOS_OK);
    makes("MADE-4");
}

int main(int count, char **arguments)
{
    CHECK(count == 3 || count == 5);
    marker = arguments[2];
    arctos_set_log(look, NULL, 4);
    CHECK(arctos_client_new(arguments[1], &client, NULL) == ARCTOS_OK);
    if (count == 5)
        panics(arguments);
    else
        logs_in();
    arctos_client_free(client);
    CHECK(lines > 0);
    return 0;
}
