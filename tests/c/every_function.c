/* Uses every function of the interface. Compiles as C89 and as C++98; prints the library's version. A journal is made in
   the folder that it is started in. */

#include <arctos.h>

#include <stdio.h>
#include <string.h>

static const char TASK[] =
    "{\"business_id\":15,\"out_task_num\":\"BR0943-188\",\"task_type\":\"normal\",\"branch_code\":943,"
    "\"room_type\":\"realtime\",\"video\":true}";
static const char WITH_JOURNAL[] =
    "{\"base_url\":\"http://127.0.0.1:1\",\"token\":\"a-token\",\"retries\":0,\"journal\":{\"file\":\"journal\"}}";

static int failed(const char *what)
{
    fprintf(stderr, "not so: %s\n", what);
    return 1;
}

static void ARCTOS_CALL count_lines(void *user, int32_t level, const char *line)
{
    if (level == 1 && strstr(line, "\"event\":\"failure\"") != NULL)
        ++*(int *)user;
}

static int32_t ARCTOS_CALL count_rows(void *user, int32_t index, int32_t done, int32_t total, arctos_code code,
                                      const char *row)
{
    *(int *)user += total == 2 && done >= 1 && index >= 0 && code == ARCTOS_BAD_TASK && row[0] == '{';
    return 0;
}

int main(void)
{
    int lines = 0;
    int rows = 0;
    arctos_client *client = NULL;
    char *answer = NULL;
    char *task = NULL;
    char field[12];
    arctos_code code;
    arctos_outcome_code outcome;

    if (arctos_abi_version() != ARCTOS_ABI_VERSION)
        return failed("arctos_abi_version");
    if (strcmp(arctos_code_name(ARCTOS_BAD_TASK), "ARCTOS_BAD_TASK") != 0)
        return failed("arctos_code_name");

    if (arctos_json_set(&task, "/business_id", "15") != ARCTOS_OK)
        return failed("arctos_json_set");
    if (arctos_json_set_text(&task, "/out_task_num", "BR0943-187") != ARCTOS_OK)
        return failed("arctos_json_set_text");
    if (arctos_json_set_field(&task, "/task_remark", "seat 4    ", 10, NULL) != ARCTOS_OK)
        return failed("arctos_json_set_field");
    if (arctos_json_get(task, "/out_task_num", &answer) != ARCTOS_OK || strcmp(answer, "BR0943-187") != 0)
        return failed("arctos_json_get");
    if (arctos_text_copy(answer, NULL, field, (int32_t)sizeof field, ' ') != 10 || memcmp(field, "BR0943-187  ", 12) != 0)
        return failed("arctos_text_copy");
    arctos_free(answer);

    /* Fields are missing: nothing can be sent. */
    if (arctos_task_check(task, NULL) != ARCTOS_BAD_TASK)
        return failed("arctos_task_check");
    if (arctos_client_new("{\"base_url\":\"http://127.0.0.1:1\"}", &client, NULL) != ARCTOS_OK)
        return failed("arctos_client_new");
    if (arctos_client_set_token(client, "a-token", NULL) != ARCTOS_OK)
        return failed("arctos_client_set_token");
    code = arctos_task_add(client, task, &answer);
    outcome = arctos_outcome(code, answer);
    if (code != ARCTOS_BAD_TASK || outcome != ARCTOS_NOT_CREATED)
        return failed("arctos_task_add");
    arctos_free(answer);
    code = arctos_task_add_with(client, task, "{\"timeout_ms\":1000,\"call_id\":\"c-1\"}", &answer);
    if (code != ARCTOS_BAD_TASK || strstr(answer, "\"call_id\":\"c-1\"") == NULL)
        return failed("arctos_task_add_with");
    arctos_free(answer);

    /* No path leads out of the base URL. */
    arctos_set_log(count_lines, &lines, 1);
    code = arctos_call(client, "/../x", "{}", NULL, &answer);
    arctos_set_log(NULL, NULL, 0);
    if (code != ARCTOS_BAD_ARGUMENT || arctos_outcome(code, answer) != ARCTOS_NOT_CREATED)
        return failed("arctos_call");
    if (lines != 1)
        return failed("arctos_set_log");
    arctos_free(answer);

    /* Nobody is there. */
    if (arctos_client_diagnose(client, &answer) != ARCTOS_CONNECT || strstr(answer, "\"steps\":[{") == NULL)
        return failed("arctos_client_diagnose");
    arctos_free(answer);
    if (arctos_client_stats(client, &answer) != ARCTOS_OK || strstr(answer, "\"ARCTOS_BAD_TASK\":2") == NULL)
        return failed("arctos_client_stats");
    arctos_free(answer);
    if (arctos_client_cancel(client) != ARCTOS_OK)
        return failed("arctos_client_cancel");
    if (arctos_call_cancel(client, "c-1") != ARCTOS_OK)
        return failed("arctos_call_cancel");

    if (arctos_task_add_many(client, "[{},{}]", NULL, count_rows, &rows, &answer) != ARCTOS_PARTIAL || rows != 2)
        return failed("arctos_task_add_many");
    arctos_free(answer);
    if (arctos_task_add_many(client, "[]", NULL, NULL, NULL, NULL) != ARCTOS_OK)
        return failed("arctos_task_add_many");
    arctos_client_free(client);

    /* A whole task for nobody, and what the journal has of it. */
    if (arctos_json_set(&task, "", TASK) != ARCTOS_OK)
        return failed("arctos_json_set");
    if (arctos_client_new(WITH_JOURNAL, &client, NULL) != ARCTOS_OK)
        return failed("arctos_client_new");
    if (arctos_task_add(client, task, NULL) != ARCTOS_CONNECT)
        return failed("arctos_task_add");
    code = arctos_journal_list(client, "{\"outcome\":\"not_created\"}", &answer);
    if (code != ARCTOS_OK || strstr(answer, "\"out_task_num\":\"BR0943-188\"") == NULL)
        return failed("arctos_journal_list");
    arctos_free(answer);
    code = arctos_journal_resolve(client, "BR0943-188", "{\"outcome\":\"not_created\",\"by\":\"m.lin\"}", &answer);
    if (code != ARCTOS_OK || strstr(answer, "\"by\":\"m.lin\"") == NULL)
        return failed("arctos_journal_resolve");
    arctos_free(answer);

    arctos_free(task);
    arctos_client_free(client);
    printf("%s\n", arctos_version());
    return 0;
}
