/*
 * What a C program hands over by mistake, where a second thread could make the mistake a real one: an address that was
 * released may be that of another text by then. This program has one thread.
 */

#define _GNU_SOURCE
#include "check.h"

#include <arctos.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define LARGE (1024 * 1024)

static const char CONFIG[] = "{\"base_url\":\"http://127.0.0.1:1\",\"token\":\"a-token\"}";
static const char TASK[] =
    "{\"business_id\":15,\"out_task_num\":\"N\",\"task_type\":\"normal\",\"branch_code\":943,"
    "\"room_type\":\"realtime\",\"video\":true}";

/* The journal stands in the folder that the program is started in. */
static const char WITH_JOURNAL[] =
    "{\"base_url\":\"http://127.0.0.1:1\",\"token\":\"a-token\",\"retries\":0,\"journal\":{\"file\":\"journal\"}}";
static const char RESOLUTION[] = "{\"outcome\":\"not_created\",\"by\":\"m.lin\"}";

static char large[LARGE + 1];

static arctos_client *new_client(void)
{
    arctos_client *client = NULL;

    CHECK(arctos_client_new(CONFIG, &client, NULL) == ARCTOS_OK);
    CHECK(client != NULL);
    return client;
}

static char *new_text(const char *contents)
{
    char *text = NULL;

    CHECK(arctos_json_set_text(&text, "", contents) == ARCTOS_OK);
    return text;
}

static void client_works(arctos_client *client)
{
    CHECK(arctos_client_set_token(client, "another-token", NULL) == ARCTOS_OK);
    CHECK(arctos_client_cancel(client) == ARCTOS_OK);
}

/* Every function that takes a client answers that this is none. */
static void is_no_client(arctos_client *client)
{
    char *answer = NULL;
    arctos_code code = arctos_client_set_token(client, "a-token", &answer);

    CHECK(code == ARCTOS_BAD_ARGUMENT);
    CHECK(answer != NULL && strstr(answer, "client") != NULL);
    arctos_free(answer);
    code = arctos_task_add(client, TASK, &answer);
    CHECK(code == ARCTOS_BAD_ARGUMENT);
    CHECK(arctos_outcome(code, answer) == ARCTOS_NOT_CREATED);
    CHECK(answer != NULL && strstr(answer, "\"outcome\":\"not_created\"") != NULL);
    arctos_free(answer);
    code = arctos_call(client, "/api/room/list", "{}", NULL, &answer);
    CHECK(code == ARCTOS_BAD_ARGUMENT);
    CHECK(arctos_outcome(code, answer) == ARCTOS_NOT_CREATED);
    CHECK(answer != NULL && strstr(answer, "client") != NULL);
    arctos_free(answer);
    CHECK(arctos_client_diagnose(client, &answer) == ARCTOS_BAD_ARGUMENT);
    CHECK(answer != NULL && strstr(answer, "client") != NULL && strstr(answer, "\"outcome\"") == NULL);
    arctos_free(answer);
    CHECK(arctos_client_stats(client, &answer) == ARCTOS_BAD_ARGUMENT);
    CHECK(answer != NULL && strstr(answer, "client") != NULL && strstr(answer, "\"outcome\"") == NULL);
    arctos_free(answer);
    code = arctos_task_add_many(client, "[]", NULL, NULL, NULL, &answer);
    CHECK(code == ARCTOS_BAD_ARGUMENT && arctos_outcome(code, answer) == ARCTOS_NOT_CREATED);
    CHECK(answer != NULL && strstr(answer, "client") != NULL);
    arctos_free(answer);
    CHECK(arctos_journal_list(client, "{}", &answer) == ARCTOS_BAD_ARGUMENT);
    CHECK(answer != NULL && strstr(answer, "client") != NULL && strstr(answer, "\"outcome\"") == NULL);
    arctos_free(answer);
    CHECK(arctos_journal_resolve(client, "N", RESOLUTION, &answer) == ARCTOS_BAD_ARGUMENT);
    CHECK(answer != NULL && strstr(answer, "client") != NULL && strstr(answer, "\"outcome\"") == NULL);
    arctos_free(answer);
    CHECK(arctos_client_cancel(client) == ARCTOS_BAD_ARGUMENT);
    CHECK(arctos_call_cancel(client, "c-1") == ARCTOS_BAD_ARGUMENT);
    arctos_client_free(client);
}

/* Every function that takes a text of the library answers, or ignores, that this is none, and leaves it alone. */
static void is_no_text(char *pointer)
{
    char *json = pointer;

    CHECK(arctos_json_set(&json, "/a", "1") == ARCTOS_BAD_ARGUMENT);
    CHECK(json == pointer);
    CHECK(arctos_json_set(&json, "", "1") == ARCTOS_BAD_ARGUMENT);
    CHECK(json == pointer);
    CHECK(arctos_json_set_text(&json, "/a", "x") == ARCTOS_BAD_ARGUMENT);
    CHECK(json == pointer);
    arctos_free(pointer);
}

static void texts_that_were_released(void)
{
    const char *contents[] = {"", "a short text", large};
    size_t index;

    for (index = 0; index < sizeof contents / sizeof *contents; index++) {
        char *text = new_text(contents[index]);

        arctos_free(text);
        is_no_text(text);
        arctos_free(text);
    }
}

static void a_text_that_was_replaced(void)
{
    char *text = new_text(large);
    char *old = text;

    CHECK(arctos_json_set(&text, "", "{}") == ARCTOS_OK);
    CHECK(text != old);
    is_no_text(old);
    CHECK(strcmp(text, "{}") == 0);
    arctos_free(text);
}

static void pointers_into_a_text(void)
{
    char *text = new_text(large);
    char *again = NULL;
    size_t offset;

    for (offset = 1; offset <= 64; offset++)
        is_no_text(text + offset);
    /* Where the text's memory starts. */
    is_no_text((char *)((uintptr_t)text - 16));
    CHECK(arctos_json_get(text, "", &again) == ARCTOS_OK);
    CHECK(strcmp(again, large) == 0);
    arctos_free(again);
    arctos_free(text);
}

static void pointers_of_the_program(void *forbidden)
{
    static char in_the_program[] = "{}";
    char on_the_stack[] = "{}";
    char *on_the_heap = strdup("{}");

    CHECK(on_the_heap != NULL);
    is_no_text(in_the_program);
    is_no_text(on_the_stack);
    is_no_text(on_the_heap);
    is_no_text(forbidden);
    is_no_text((char *)(uintptr_t)1);
    is_no_text((char *)UINTPTR_MAX);
    is_no_text((char *)(uintptr_t)arctos_version());
    is_no_text((char *)(uintptr_t)arctos_code_name(ARCTOS_OK));
    CHECK(strcmp(in_the_program, "{}") == 0 && strcmp(on_the_stack, "{}") == 0 && strcmp(on_the_heap, "{}") == 0);
    CHECK(strcmp(arctos_code_name(ARCTOS_OK), "ARCTOS_OK") == 0);
    free(on_the_heap);
}

static void a_client_for_a_text(void)
{
    arctos_client *client = new_client();

    is_no_text((char *)client);
    client_works(client);
    arctos_client_free(client);
}

static void a_text_for_a_client(void)
{
    char *text = new_text("still here");
    char *again = NULL;

    is_no_client((arctos_client *)text);
    CHECK(arctos_json_get(text, "", &again) == ARCTOS_OK);
    CHECK(strcmp(again, "still here") == 0);
    arctos_free(again);
    arctos_free(text);
}

static void clients_that_are_none(void *forbidden)
{
    static int in_the_program;
    int on_the_stack = 0;
    arctos_client *client = new_client();
    arctos_client *living = new_client();
    uintptr_t number;

    arctos_client_free(client);
    is_no_client(client);
    arctos_client_free(client);
    for (number = 0; number < 70000; number += 7)
        CHECK(arctos_client_set_token((arctos_client *)number, "a-token", NULL) == ARCTOS_BAD_ARGUMENT);
    for (number = 0; number < 16; number++)
        is_no_client((arctos_client *)number);
    /* One bit away from a living one. */
    for (number = 1; number != 0; number <<= 1)
        is_no_client((arctos_client *)((uintptr_t)living ^ number));
    is_no_client((arctos_client *)UINTPTR_MAX);
    is_no_client((arctos_client *)&on_the_stack);
    is_no_client((arctos_client *)&in_the_program);
    is_no_client((arctos_client *)(uintptr_t)arctos_version());
    is_no_client((arctos_client *)forbidden);
    client_works(living);
    arctos_client_free(living);
}

/* What the journal answers, whose document has no outcome: nothing was to be made. */
static void journal_refuses(arctos_code code, char *answer, const char *word)
{
    CHECK(code == ARCTOS_BAD_ARGUMENT);
    CHECK(answer != NULL && strstr(answer, word) != NULL && strstr(answer, "\"outcome\":") == NULL);
    arctos_free(answer);
}

static void journals_that_are_asked_wrongly(void)
{
    static const char *const wrong[] = {NULL, "\xff", "", "[]", "{\"outcome\":\"made\"}"};
    arctos_client *without = new_client();
    arctos_client *client = NULL;
    char *answer = NULL;
    size_t index;
    arctos_code code;

    code = arctos_journal_list(without, NULL, &answer);
    journal_refuses(code, answer, "journal");
    code = arctos_journal_resolve(without, "N", RESOLUTION, &answer);
    journal_refuses(code, answer, "journal");
    arctos_client_free(without);

    CHECK(arctos_client_new(WITH_JOURNAL, &client, NULL) == ARCTOS_OK);
    CHECK(arctos_task_add(client, TASK, NULL) == ARCTOS_CONNECT);
    CHECK(arctos_journal_list(client, NULL, NULL) == ARCTOS_OK);
    for (index = 0; index < sizeof wrong / sizeof *wrong; index++) {
        /* A filter may be NULL. */
        if (wrong[index] != NULL) {
            code = arctos_journal_list(client, wrong[index], &answer);
            journal_refuses(code, answer, "filter");
        }
        code = arctos_journal_resolve(client, "N", wrong[index], &answer);
        journal_refuses(code, answer, "resolution");
        CHECK(arctos_journal_resolve(client, "N", wrong[index], NULL) == ARCTOS_BAD_ARGUMENT);
    }
    code = arctos_journal_resolve(client, NULL, RESOLUTION, &answer);
    journal_refuses(code, answer, "out_task_num");
    code = arctos_journal_resolve(client, "\xff", RESOLUTION, &answer);
    journal_refuses(code, answer, "out_task_num");
    CHECK(arctos_journal_resolve(client, "", RESOLUTION, NULL) == ARCTOS_NO_VALUE);
    CHECK(arctos_journal_list(client, "{}", &answer) == ARCTOS_OK);
    CHECK(strstr(answer, "\"outcome\":\"not_created\"") != NULL && strstr(answer, "\"by\"") == NULL);
    arctos_free(answer);

    CHECK(arctos_journal_resolve(client, "N", RESOLUTION, NULL) == ARCTOS_OK);
    arctos_client_free(client);
    is_no_client(client);
}

static int levels[5];

static void ARCTOS_CALL note_level(void *user, int32_t level, const char *line)
{
    CHECK(user == levels && level >= 1 && level <= 4 && line[0] == '{');
    levels[level]++;
}

/* A task without fields, against the levels that there are and those that there are not. */
static void logs_of_no_level(void)
{
    static const int32_t none[] = {0, -1, INT32_MIN};
    static const int32_t all[] = {5, 100, INT32_MAX};
    arctos_client *client = new_client();
    size_t index;

    for (index = 0; index < sizeof none / sizeof *none; index++) {
        arctos_set_log(note_level, levels, none[index]);
        CHECK(arctos_task_add(client, "{}", NULL) == ARCTOS_BAD_TASK);
        CHECK(levels[1] == 0);
    }
    for (index = 0; index < sizeof all / sizeof *all; index++) {
        arctos_set_log(note_level, levels, all[index]);
        CHECK(arctos_task_add(client, "{}", NULL) == ARCTOS_BAD_TASK);
        CHECK(levels[1] == (int)index + 1);
    }
    /* Whatever belongs to no function stays where it is. */
    arctos_set_log(NULL, levels, 4);
    arctos_set_log(NULL, levels, 4);
    CHECK(arctos_task_add(client, "{}", NULL) == ARCTOS_BAD_TASK);
    CHECK(levels[1] == 3);
    arctos_client_free(client);
}

int main(void)
{
    /* Whoever reads or writes what stands here dies. */
    void *forbidden = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(forbidden != MAP_FAILED);
    memset(large, 'x', LARGE);
    arctos_free(NULL);
    arctos_client_free(NULL);
    texts_that_were_released();
    a_text_that_was_replaced();
    pointers_into_a_text();
    pointers_of_the_program(forbidden);
    a_client_for_a_text();
    a_text_for_a_client();
    clients_that_are_none(forbidden);
    journals_that_are_asked_wrongly();
    logs_of_no_level();
    return 0;
}
