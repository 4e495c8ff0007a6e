/*
 * Tells what stands between this machine and the server, step by step, for a help desk. Makes no appointment, and no
 * token leaves this machine. Needs no JSON library.
 *
 *     [ARCTOS_TOKEN=...] diagnose [-v] BASE_URL [CA_FILE]
 *     diagnose [-v] -c CONFIG_FILE
 *
 * CA_FILE (PEM) holds the authorities to trust instead of the system's. CONFIG_FILE is the JSON text that the program
 * in question hands to arctos_client_new: with it, and run as the same user, what is told is what that program meets.
 * Every text is UTF-8. -v shows the library's log.
 *
 * The steps are on standard output; they hold no secret. Complaints about the arguments are on standard error.
 *
 * Exit code   0  nothing stands in the way
 *             1  a step has failed: the last line names its code
 *             2  nothing was found out: an argument, the configuration or the library is wrong
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arctos.h"

enum { WELL = 0, FAILED = 1, NOT_DIAGNOSED = 2 };

/* The longest configuration. */
enum { LONGEST = 65536 };

/* The text at a place below a JSON pointer, as it may be shown; to be released with arctos_free. NULL when there is
   none. */
static char *text_at(const char *json, const char *pointer, const char *member)
{
    char place[128];
    char *text = NULL;
    char *at;

    sprintf(place, "%.96s%.24s", pointer, member);
    if (arctos_json_get(json, place, &text) != ARCTOS_OK) {
        arctos_free(text); /* of a failure the text is an error document, and is released too */
        return NULL;
    }
    /* What a server says of itself must neither break the line nor command the terminal. */
    for (at = text; at != NULL && *at != '\0'; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = ' ';
    return text;
}

static const char *or_nothing(const char *text)
{
    return text != NULL ? text : "";
}

/* Tells that nothing can be found out. Where there is no document, NULL, the caller's reason stands in. */
static int refuse(arctos_code code, const char *document, const char *reason)
{
    char *message = text_at(document, "", "/message");

    fprintf(stderr, "%s: %s\n", arctos_code_name(code), message != NULL ? message : reason);
    arctos_free(message);
    return NOT_DIAGNOSED;
}

/* Prints the certificates that came, the server's own first. */
static void print_chain(const char *answer, const char *step)
{
    char place[64];
    char *root = text_at(answer, step, "/root");
    int index;

    for (index = 0;; index++) {
        char *subject, *issuer, *from, *until, *pin;

        sprintf(place, "%.32s/chain/%d", step, index);
        subject = text_at(answer, place, "/subject");
        if (subject == NULL)
            break;
        issuer = text_at(answer, place, "/issuer");
        from = text_at(answer, place, "/not_before");
        until = text_at(answer, place, "/not_after");
        pin = text_at(answer, place, "/pin");
        printf("                              certificate %d: %s\n", index + 1, subject);
        printf("                                issuer %s\n", or_nothing(issuer));
        printf("                                valid  %s to %s\n", or_nothing(from), or_nothing(until));
        printf("                                pin    %s\n", or_nothing(pin));
        arctos_free(pin);
        arctos_free(until);
        arctos_free(from);
        arctos_free(issuer);
        arctos_free(subject);
    }
    if (root != NULL)
        printf("                              root: %s\n", root);
    arctos_free(root);
}

/* Prints the step with this number. 0 when there is no such step. */
static int print_step(const char *answer, int index)
{
    char step[32];
    char *name, *state, *ms, *detail, *advice;

    sprintf(step, "/steps/%d", index);
    name = text_at(answer, step, "/step");
    if (name == NULL)
        return 0;
    state = text_at(answer, step, "/state");
    ms = text_at(answer, step, "/ms");
    detail = text_at(answer, step, "/detail");
    advice = text_at(answer, step, "/advice");
    printf("%-8s %-8s %7s ms  %s\n", or_nothing(state), name, or_nothing(ms), or_nothing(detail));
    print_chain(answer, step);
    /* What was not reached waits for the step that failed. */
    if (advice != NULL && strcmp(advice, "nothing to do") != 0 && strcmp(or_nothing(state), "skipped") != 0)
        printf("                              -> %s\n", advice);
    arctos_free(advice);
    arctos_free(detail);
    arctos_free(ms);
    arctos_free(state);
    arctos_free(name);
    return 1;
}

/* Diagnoses, and prints what was found. Gives the exit code. */
static int diagnose(arctos_client *client)
{
    char *answer = NULL;
    arctos_code code = arctos_client_diagnose(client, &answer);
    int count = 0;
    int result;

    while (print_step(answer, count))
        count++;
    if (count == 0) {
        result = refuse(code, answer, "no memory to say more");
    } else {
        printf("%s\n", arctos_code_name(code));
        result = code == ARCTOS_OK ? WELL : FAILED;
        if (fflush(stdout) != 0 || ferror(stdout)) {
            fprintf(stderr, "the steps could not be printed\n");
            result = NOT_DIAGNOSED;
        }
    }
    arctos_free(answer);
    return result;
}

/* The configuration from the arguments, into *config, which the caller releases whatever the code is. */
static arctos_code build_config(char **config, const char *base_url, const char *ca_file)
{
    const char *token = getenv("ARCTOS_TOKEN");
    arctos_code code = arctos_json_set_text(config, "/base_url", base_url);

    /* Without a token the library itself says that it is missing. */
    if (code == ARCTOS_OK && token != NULL)
        code = arctos_json_set_text(config, "/token", token);
    if (code == ARCTOS_OK && ca_file != NULL)
        code = arctos_json_set(config, "/tls", "{\"roots\":\"file\"}");
    if (code == ARCTOS_OK && ca_file != NULL)
        code = arctos_json_set_text(config, "/tls/ca_file", ca_file);
    return code;
}

/* The configuration from a file, into *config, which the caller releases whatever the result is. NULL, or why it cannot
   be had. */
static const char *read_config(char **config, const char *path)
{
    static char text[LONGEST + 1];
    FILE *file = fopen(path, "rb");
    size_t length;
    const char *wrong = NULL;
    volatile char *wiped = text;

    if (file == NULL)
        return "cannot be opened";
    setvbuf(file, NULL, _IONBF, 0); /* what is read may be secret, and stands nowhere else */
    length = fread(text, 1, LONGEST + 1, file);
    if (ferror(file))
        wrong = "cannot be read";
    else if (length > LONGEST)
        wrong = "is too long";
    else if (memchr(text, '\0', length) != NULL)
        wrong = "holds a NUL, and is no JSON text";
    fclose(file);
    if (wrong == NULL) {
        text[length] = '\0';
        if (arctos_json_set(config, "", text) != ARCTOS_OK)
            wrong = "is no JSON text in UTF-8";
    }
    for (length = 0; length <= LONGEST; length++)
        wiped[length] = '\0';
    return wrong;
}

/* Each event of the library is one line of JSON. */
static void ARCTOS_CALL write_event(void *file, int32_t level, const char *line)
{
    (void)level;
    fprintf((FILE *)file, "%s\n", line);
}

/* Makes a client of the configuration and diagnoses it. Gives the exit code. */
static int run(const char *config)
{
    arctos_client *client = NULL;
    char *answer = NULL;
    int result;
    arctos_code code = arctos_client_new(config, &client, &answer);

    if (code != ARCTOS_OK)
        result = refuse(code, answer, "no memory to say more");
    else
        result = diagnose(client);
    arctos_free(answer);
    arctos_client_free(client);
    return result;
}

int main(int argc, char **argv)
{
    char *config = NULL;
    int from_file;
    int result;

    /* A header and a library of two different interfaces must not meet. */
    if (arctos_abi_version() != ARCTOS_ABI_VERSION) {
        fprintf(stderr, "the arctos library %s does not fit this program\n", arctos_version());
        return NOT_DIAGNOSED;
    }
    if (argc > 1 && strcmp(argv[1], "-v") == 0) {
        arctos_set_log(write_event, stderr, 4);
        argc--, argv++;
    }
    from_file = argc > 1 && strcmp(argv[1], "-c") == 0;
    if (argc < 2 || argc > 3 || (from_file && argc != 3)) {
        fprintf(stderr, "usage: [ARCTOS_TOKEN=...] diagnose [-v] BASE_URL [CA_FILE]\n"
                        "       diagnose [-v] -c CONFIG_FILE\n");
        return NOT_DIAGNOSED;
    }
    if (from_file) {
        const char *wrong = read_config(&config, argv[2]);

        if (wrong != NULL)
            fprintf(stderr, "the configuration %s %s\n", argv[2], wrong);
        result = wrong != NULL ? NOT_DIAGNOSED : run(config);
    } else {
        arctos_code code = build_config(&config, argv[1], argc == 3 ? argv[2] : NULL);

        if (code != ARCTOS_OK)
            result = refuse(code, NULL, "no configuration: is every argument UTF-8?");
        else
            result = run(config);
    }
    arctos_free(config); /* wipes the secrets in it */
    arctos_set_log(NULL, NULL, 0);
    return result;
}
