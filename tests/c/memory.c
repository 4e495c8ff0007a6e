/*
 * A host whose large allocations are refused. Arguments: a configuration, and how many bytes of remark a task has.
 *
 * Each function is called again and again: the first time every large allocation is refused, the second time every one
 * but the first, and so on, until none had to be refused. So each large allocation on the way is refused once. It prints
 * for each call of arctos_task_add
 *   NUMBER CODE OUTCOME TEXT
 * where TEXT is 1 when there was a text. Between them it makes a small appointment, which must work.
 */

#define _GNU_SOURCE
#include "appointment.h"

#include <errno.h>

#define LARGE (256 * 1024)

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

/* How many large allocations are given before all are refused; none is refused as long as it is negative. */
static long granted = -1;
static int refused;

static int refuse(size_t size)
{
    if (size < LARGE || granted < 0)
        return 0;
    if (granted > 0) {
        granted--;
        return 0;
    }
    refused = 1;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return refuse(size) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return refuse(count * size) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    return refuse(size) ? NULL : __libc_realloc(memory, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    *memory = refuse(size) ? NULL : __libc_memalign(alignment, size);
    return *memory == NULL ? ENOMEM : 0;
}

static void count_line(void *user, int32_t level, const char *line)
{
    (void)level;
    *(int *)user += line != NULL;
}

/* `filling` stands in the remark again and again; `number` has the place of the number. */
static char *large_task(const char *number, size_t remark, const char *filling)
{
    char *task = malloc(remark + 512);
    size_t step = strlen(filling), end;
    int start;

    CHECK(task != NULL);
    start = sprintf(task,
                    "{\"business_id\":15,\"out_task_num\":\"%s\",\"task_type\":\"normal\",\"branch_code\":943,"
                    "\"room_type\":\"realtime\",\"video\":true,\"task_time\":1703141398,\"task_remark\":\"",
                    number);
    for (end = start; end + step < start + remark; end += step)
        memcpy(task + end, filling, step);
    strcpy(task + end, "\"}");
    return task;
}

static void add_large(arctos_client *client, const char *kind, size_t remark, const char *filling)
{
    long allowed;

    for (allowed = 0; refused || allowed == 0; allowed++) {
        char number[64], *answer = NULL, *task;
        arctos_code code;

        snprintf(number, sizeof number, "%s-%ld", kind, allowed);
        task = large_task(number, remark, filling);
        refused = 0;
        granted = allowed;
        code = arctos_task_add(client, task, &answer);
        granted = -1;
        printf("%s %d %d %d\n", number, (int)code, (int)arctos_outcome(code, answer), answer != NULL);
        CHECK(allowed < 100);
        arctos_free(answer);
        free(task);
        snprintf(number, sizeof number, "small-%s-%ld", kind, allowed);
        made(client, number);
    }
}

/* Runs the statement until it needed no allocation that was refused; CODE is what it came to. */
#define EACH(statement)                                                               \
    do {                                                                              \
        long allowed;                                                                 \
        for (allowed = 0, refused = 1; refused; allowed++) {                          \
            arctos_code code;                                                         \
            CHECK(allowed < 100);                                                     \
            refused = 0;                                                              \
            granted = allowed;                                                        \
            code = (statement);                                                       \
            granted = -1;                                                             \
            CHECK(refused || code == ARCTOS_OK);                                      \
            CHECK(code == ARCTOS_OK || code == ARCTOS_INTERNAL || code == ARCTOS_BAD_ARGUMENT || \
                  code == ARCTOS_BAD_TASK);                                           \
            CHECK(allowed == 0 ? refused : 1);                                        \
            arctos_free(answer);                                                      \
            answer = NULL;                                                            \
        }                                                                             \
    } while (0)

static void texts(size_t remark, const char *filling)
{
    char *task = large_task("TEXT", remark, filling), *json = NULL, *answer = NULL;
    char *list = malloc(2 * LARGE + 3), *field = malloc(4 * LARGE);
    size_t index;

    CHECK(list != NULL && field != NULL);
    EACH(arctos_task_check(task, &answer));
    EACH(arctos_json_get(task, "", &answer));
    EACH(arctos_json_get(task, "/task_remark", &answer));
    EACH(arctos_json_set(&json, "", task));
    EACH(arctos_json_set(&json, "/task_remark", "\"short\""));
    CHECK(arctos_json_set(&json, "", task) == ARCTOS_OK);
    EACH(arctos_json_set(&json, "/video", "false"));
    EACH(arctos_json_set(&json, "/new", "[]"));
    CHECK(arctos_json_get(json, "/video", &answer) == ARCTOS_OK && strcmp(answer, "false") == 0);
    arctos_free(answer);
    answer = NULL;
    EACH(arctos_json_set_text(&json, "/task_remark", task));
    memset(field, '"', 4 * LARGE);
    EACH(arctos_json_set_field(&json, "/task_remark", field, 4 * LARGE, NULL));
    /* Many small values. */
    for (index = 0; index < LARGE; index++)
        memcpy(list + 1 + 2 * index, "1,", 2);
    list[0] = '[';
    list[2 * LARGE] = ']';
    list[2 * LARGE + 1] = '\0';
    EACH(arctos_json_get(list, "/9", &answer));
    arctos_free(json);
    free(list);
    free(field);
    free(task);
}

int main(int count, char **arguments)
{
    arctos_client *client;
    size_t remark;
    int lines = 0;

    CHECK(count == 3);
    remark = strtoul(arguments[2], NULL, 10);
    texts(3 * LARGE, "text ");
    texts(3 * LARGE, "\\u8a31\\n");
    client = new_client(arguments[1]);
    arctos_set_log(count_line, &lines, 4);
    add_large(client, "plain", remark, "text ");
    add_large(client, "escaped", remark, "\\u8a31\\n");
    CHECK(lines > 0);
    arctos_client_free(client);
    return 0;
}
