/*
 * The start of the day of a branch program that makes its appointments with a journal: whatever became of it the day
 * before, killed in the middle of a call too, no appointment is made twice. Needs no JSON library.
 *
 *     ARCTOS_TOKEN=... restart [-y OUT_TASK_NUM TASK_NUM]... [-n OUT_TASK_NUM]... BASE_URL JOURNAL WHO TASKS [CA_FILE]
 *
 * First it shows every appointment of which nobody knows whether it was made, and asks; WHO has looked them up at the
 * server, and is recorded with each answer. With -y (made, under this number of the server's) and -n (not made) the
 * answers are those, and nothing is asked; -y also tells a number that the server did not give. Then it adds the tasks
 * of the file TASKS, one JSON object a line: what was made before is not sent again, what is still unknown is not sent
 * at all.
 *
 * JOURNAL is the file of the journal, made where it is not there. CA_FILE (PEM) holds the authorities to trust instead
 * of the system's. Every text is UTF-8. The token comes from the environment, since other users of the machine can read
 * a program's arguments.
 *
 * Standard output has one line for each task that is made: its OUT_TASK_NUM, a blank and the server's number.
 * Everything else goes to standard error. It may be ended at any moment, and started again.
 *
 * Exit code   0  nothing is unknown, and every task is made
 *             2  a task was not made, or this could not begin: start it again when that is mended
 *             3  something is unknown: find it out, and start it again
 *             4  every task is made, but a number could not be had or printed
 * Any other end, such as a signal, says no more than 3.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arctos.h"

enum { MADE = 0, NOT_MADE = 2, MAYBE_MADE = 3, MADE_WITHOUT_NUMBER = 4 };

/* The longest task, the longest answer to a question, and how many rows a page has. */
enum { LONGEST_TASK = 65536, LONGEST_ANSWER = 512, PAGE = 20 };

enum line { NO_LINE, A_LINE, BAD_LINE };

/* The exit code of two things: that which asks for more. */
static int worse(int one, int other)
{
    static const int by_weight[] = {MAYBE_MADE, NOT_MADE, MADE_WITHOUT_NUMBER};
    size_t index;

    for (index = 0; index < sizeof by_weight / sizeof *by_weight; index++)
        if (one == by_weight[index] || other == by_weight[index])
            return by_weight[index];
    return MADE;
}

/* The text at a JSON pointer, as it is; to be released with arctos_free. NULL when there is none. */
static char *text_at(const char *json, const char *pointer)
{
    char *text = NULL;

    if (arctos_json_get(json, pointer, &text) != ARCTOS_OK) {
        arctos_free(text); /* of a failure the text is an error document, and is released too */
        return NULL;
    }
    return text;
}

/* Prints a text; what comes from outside must neither break the line nor command the terminal. */
static void show(FILE *file, const char *text)
{
    for (; *text != '\0'; text++)
        putc((unsigned char)*text < 0x20 || *text == 0x7f ? ' ' : *text, file);
}

/* Tells what failed. Where there is no document, NULL, the caller's reason stands in. */
static void complain(const char *what, arctos_code code, const char *document, const char *reason)
{
    char *message = text_at(document, "/message");
    char *server = text_at(document, "/server_message");

    show(stderr, what);
    fprintf(stderr, ": %s: ", arctos_code_name(code));
    show(stderr, message != NULL ? message : reason);
    if (server != NULL) {
        fprintf(stderr, "; the server says: ");
        show(stderr, server);
    }
    arctos_free(server);
    arctos_free(message);
}

/* Reads a line without its end into a buffer. A bad one is too long for it, or holds a NUL. */
static enum line read_line(FILE *file, char *line, size_t size)
{
    enum line kind = A_LINE;
    size_t length = 0;
    int byte;

    while ((byte = getc(file)) != EOF && byte != '\n') {
        if (byte == '\0' || length + 1 == size)
            kind = BAD_LINE;
        else
            line[length++] = (char)byte;
    }
    while (length > 0 && (line[length - 1] == '\r' || line[length - 1] == ' '))
        length--;
    line[length] = '\0';
    return byte == EOF && length == 0 && kind == A_LINE ? NO_LINE : kind;
}

/* Tells the journal what became of an appointment: with a number of the server's it was made, with NULL it was not.
   Gives the exit code. */
static int resolve(arctos_client *client, const char *out_task_num, const char *task_num, const char *who)
{
    char *resolution = NULL;
    char *row = NULL;
    int result = MADE;
    arctos_code code = arctos_json_set_text(&resolution, "/outcome", task_num != NULL ? "created" : "not_created");

    if (code == ARCTOS_OK && task_num != NULL)
        code = arctos_json_set_text(&resolution, "/task_num", task_num);
    if (code == ARCTOS_OK)
        code = arctos_json_set_text(&resolution, "/by", who);
    if (code == ARCTOS_OK)
        code = arctos_json_set_text(&resolution, "/note", "at the start of the day");
    /* The library adds the time. */
    if (code == ARCTOS_OK)
        code = arctos_journal_resolve(client, out_task_num, resolution, &row);
    if (code != ARCTOS_OK) {
        complain(out_task_num, code, row, "is every text UTF-8?");
        fprintf(stderr, " (nothing is recorded)\n");
        result = MAYBE_MADE;
    } else {
        show(stderr, out_task_num);
        fprintf(stderr, ": recorded as %s, by ", task_num != NULL ? "created" : "not created");
        show(stderr, who);
        fprintf(stderr, "\n");
    }
    arctos_free(row);
    arctos_free(resolution);
    return result;
}

/* Asks what became of an appointment, and records the answer. Gives the exit code: what is left for later stays
   unknown. */
static int ask(arctos_client *client, const char *out_task_num, const char *who)
{
    char answer[LONGEST_ANSWER];
    enum line kind;

    for (;;) {
        fprintf(stderr, "  was it made? y and its number at the server, n, or nothing for later: ");
        fflush(stderr);
        kind = read_line(stdin, answer, sizeof answer);
        if (kind == NO_LINE) {
            fprintf(stderr, "\n");
            return MAYBE_MADE;
        }
        if (kind == A_LINE && answer[0] == '\0')
            return MAYBE_MADE;
        if (kind == A_LINE && strcmp(answer, "n") == 0)
            return resolve(client, out_task_num, NULL, who);
        if (kind == A_LINE && strncmp(answer, "y ", 2) == 0)
            return resolve(client, out_task_num, answer + 2 + strspn(answer + 2, " "), who);
    }
}

/* Shows the rows of a page, and asks about each where that is wanted. Gives the exit code. */
static int review_page(arctos_client *client, const char *page, const char *who, int asking)
{
    char place[64];
    char *number, *since;
    int index;
    int result = MADE;

    for (index = 0;; index++) {
        sprintf(place, "/rows/%d", index);
        /* The row itself tells the end of the page from a number that no memory is left for. */
        if (arctos_json_get(page, place, NULL) != ARCTOS_OK)
            return result;
        sprintf(place, "/rows/%d/out_task_num", index);
        number = text_at(page, place);
        sprintf(place, "/rows/%d/started", index);
        since = text_at(page, place);
        if (number == NULL) {
            fprintf(stderr, "no memory for the number of a row\n");
            result = MAYBE_MADE;
        } else {
            show(stderr, number);
            fprintf(stderr, " is unknown since ");
            show(stderr, since != NULL ? since : "a time that no memory is left for");
            fprintf(stderr, "\n");
            result = worse(result, asking ? ask(client, number, who) : MAYBE_MADE);
        }
        arctos_free(since);
        arctos_free(number);
    }
}

/* Shows all that is unknown, page by page. Rows that are resolved meanwhile move no other one to another page. Gives
   the exit code. */
static int review(arctos_client *client, const char *who, int asking)
{
    char filter_start[64];
    char *filter = NULL;
    char *page, *next;
    int result = MADE;
    arctos_code code;

    sprintf(filter_start, "{\"outcome\":\"unknown\",\"limit\":%d}", (int)PAGE);
    code = arctos_json_set(&filter, "", filter_start);
    do {
        page = NULL;
        next = NULL;
        if (code == ARCTOS_OK)
            code = arctos_journal_list(client, filter, &page);
        if (code == ARCTOS_OK) {
            result = worse(result, review_page(client, page, who, asking));
            /* Where there is no next page, there is no "next". */
            code = arctos_json_get(page, "/next", &next);
            if (code == ARCTOS_OK)
                code = next != NULL ? arctos_json_set_text(&filter, "/after", next) : ARCTOS_INTERNAL;
        }
        if (code != ARCTOS_OK && code != ARCTOS_NO_VALUE) {
            complain("what is unknown cannot be listed", code, page, "no memory to say more");
            fprintf(stderr, "\n");
            result = MAYBE_MADE;
        }
        arctos_free(next);
        arctos_free(page);
    } while (code == ARCTOS_OK);
    arctos_free(filter);
    return result;
}

/* Prints the numbers of a task that is made, ours and the server's. Gives the exit code. */
static int print_made(const char *task, const char *answer)
{
    char *ours = text_at(task, "/out_task_num");
    char *number = text_at(answer, "/info/task_num");
    int result = MADE;

    if (ours == NULL || number == NULL) {
        fprintf(stderr, "no memory for the number of a task that is made\n");
        result = MADE_WITHOUT_NUMBER;
    } else {
        show(stdout, ours);
        putchar(' ');
        show(stdout, number);
        putchar('\n');
        if (fflush(stdout) != 0 || ferror(stdout)) {
            show(stderr, ours);
            fprintf(stderr, " is made, but its number ");
            show(stderr, number);
            fprintf(stderr, " could not be printed\n");
            result = MADE_WITHOUT_NUMBER;
        }
    }
    arctos_free(number);
    arctos_free(ours);
    return result;
}

/* Adds a task, be it for the first time or again: which of them the journal knows. Gives the exit code. */
static int add(arctos_client *client, const char *task, const char *where)
{
    char *ours = text_at(task, "/out_task_num");
    char *answer = NULL;
    const char *word;
    int result;
    arctos_code code = arctos_task_add(client, task, &answer);

    if (code == ARCTOS_OK) {
        result = print_made(task, answer);
    } else {
        switch (arctos_outcome(code, answer)) {
        case ARCTOS_NOT_CREATED:
            word = "not_created";
            result = NOT_MADE;
            break;
        case ARCTOS_CREATED:
            word = "created";
            /* Made, but another task stands in the file by now: this one is not. */
            result = code == ARCTOS_CONFLICT ? NOT_MADE : MADE_WITHOUT_NUMBER;
            break;
        default:
            word = "unknown";
            result = MAYBE_MADE;
            break;
        }
        complain(ours != NULL ? ours : where, code, answer, "no memory to say more");
        fprintf(stderr, " (outcome: %s)\n", word);
    }
    arctos_free(answer);
    arctos_free(ours);
    return result;
}

/* Adds every task of the file. Gives the exit code. */
static int add_all(arctos_client *client, FILE *tasks)
{
    static char task[LONGEST_TASK + 1];
    char where[32];
    unsigned long number;
    int result = MADE;

    for (number = 1;; number++) {
        enum line kind = read_line(tasks, task, sizeof task);

        if (kind == NO_LINE)
            break;
        sprintf(where, "line %lu", number);
        if (kind == BAD_LINE) {
            fprintf(stderr, "%s is too long, or holds a NUL, and is no task\n", where);
            result = worse(result, NOT_MADE);
        } else if (task[0] != '\0') {
            result = worse(result, add(client, task, where));
        }
    }
    if (ferror(tasks)) {
        fprintf(stderr, "the tasks cannot be read to their end\n");
        result = worse(result, NOT_MADE);
    }
    return result;
}

/* The configuration, into *config, which the caller releases whatever the code is. */
static arctos_code build_config(char **config, const char *base_url, const char *journal, const char *ca_file)
{
    const char *token = getenv("ARCTOS_TOKEN");
    arctos_code code = arctos_json_set_text(config, "/base_url", base_url);

    /* Without a token the library itself says what is missing, at the call. */
    if (code == ARCTOS_OK && token != NULL)
        code = arctos_json_set_text(config, "/token", token);
    if (code == ARCTOS_OK)
        code = arctos_json_set(config, "/journal", "{}");
    if (code == ARCTOS_OK)
        code = arctos_json_set_text(config, "/journal/file", journal);
    if (code == ARCTOS_OK && ca_file != NULL)
        code = arctos_json_set(config, "/tls", "{\"roots\":\"file\"}");
    if (code == ARCTOS_OK && ca_file != NULL)
        code = arctos_json_set_text(config, "/tls/ca_file", ca_file);
    return code;
}

/* Makes *client, which stays NULL on failure. Gives the exit code. */
static int open_client(arctos_client **client, const char *base_url, const char *journal, const char *ca_file)
{
    char *config = NULL;
    char *answer = NULL;
    int result = MADE;
    arctos_code code = build_config(&config, base_url, journal, ca_file);

    if (code == ARCTOS_OK)
        code = arctos_client_new(config, client, &answer);
    if (code != ARCTOS_OK) {
        complain("no configuration", code, answer, "is every argument UTF-8?");
        fprintf(stderr, "\n");
        result = NOT_MADE;
    }
    arctos_free(answer);
    arctos_free(config); /* wipes the token in it */
    return result;
}

int main(int argc, char **argv)
{
    arctos_client *client = NULL;
    FILE *tasks;
    int first = 1;
    int option;
    int result;

    while (first < argc && (strcmp(argv[first], "-y") == 0 || strcmp(argv[first], "-n") == 0))
        first += argv[first][1] == 'y' ? 3 : 2;
    if (argc - first < 4 || argc - first > 5) {
        fprintf(stderr, "usage: ARCTOS_TOKEN=... restart [-y OUT_TASK_NUM TASK_NUM]... [-n OUT_TASK_NUM]...\n"
                        "                                BASE_URL JOURNAL WHO TASKS [CA_FILE]\n");
        return NOT_MADE;
    }
    /* A header and a library of two different interfaces must not meet. */
    if (arctos_abi_version() != ARCTOS_ABI_VERSION) {
        fprintf(stderr, "the arctos library %s does not fit this program\n", arctos_version());
        return NOT_MADE;
    }
    tasks = fopen(argv[first + 3], "rb");
    if (tasks == NULL) {
        fprintf(stderr, "the tasks cannot be read: ");
        show(stderr, argv[first + 3]);
        fprintf(stderr, " cannot be opened\n");
        return NOT_MADE;
    }
    result = open_client(&client, argv[first], argv[first + 1], argc - first == 5 ? argv[first + 4] : NULL);
    if (result == MADE) {
        for (option = 1; option < first; option += argv[option][1] == 'y' ? 3 : 2) {
            const char *task_num = argv[option][1] == 'y' ? argv[option + 2] : NULL;

            result = worse(result, resolve(client, argv[option + 1], task_num, argv[first + 2]));
        }
        result = worse(result, review(client, argv[first + 2], first == 1));
        result = worse(result, add_all(client, tasks));
    }
    arctos_client_free(client);
    fclose(tasks);
    return result;
}
