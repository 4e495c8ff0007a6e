/*
 * Uses the library as it is told to on standard input, one command a line, and writes an image of its own memory to a
 * file: all of it that can be read, as a core has it. What it was told it wipes as soon as the library has seen it, so
 * that what an image holds of a secret was left there by the library.
 *
 * Each command is a letter and a text behind it, and is answered by a line with a code:
 *
 *   e  puts NAME=value into the environment, which is wiped by the next e
 *   c  makes the client, with this configuration        t  sets its token
 *   a  adds a task                                      p  posts to a path, with the body behind a blank
 *   g  gets a value out of the last text                s  sets a member of a text to the value
 *   r  releases all texts                               f  frees the client
 *   k  keeps a copy of the text                         i  writes the image to this file
 */

#define _GNU_SOURCE
#include "check.h"

#include <arctos.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define MOST_TEXTS 256

static arctos_client *client;
static char *texts[MOST_TEXTS];
static int count;
static char line[1 << 18];
static char environment[1 << 10];
static char maps[1 << 20];
static long lines;

static void ARCTOS_CALL count_line(void *user, int32_t level, const char *text)
{
    (void)user;
    (void)level;
    lines += text[0] == '{';
}

/* Reads a command; 0 at the end. */
static int next(void)
{
    size_t length = 0;

    for (;;) {
        ssize_t got = read(STDIN_FILENO, line + length, sizeof line - 1 - length);

        if (got <= 0)
            return 0;
        length += (size_t)got;
        CHECK(length < sizeof line - 1);
        if (line[length - 1] == '\n') {
            line[length - 1] = '\0';
            return 1;
        }
    }
}

/* Room for one more text of the library. */
static char **text(void)
{
    CHECK(count < MOST_TEXTS);
    return &texts[count++];
}

static size_t read_all(const char *path, char *buffer, size_t size)
{
    int file = open(path, O_RDONLY);
    size_t length = 0;
    ssize_t got;

    CHECK(file >= 0);
    while ((got = read(file, buffer + length, size - length)) > 0)
        length += (size_t)got;
    CHECK(got == 0 && length < size);
    close(file);
    return length;
}

static void write_image(const char *path)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    size_t length = read_all("/proc/self/maps", maps, sizeof maps - 1);
    char *entry, *rest = maps;

    CHECK(file >= 0);
    maps[length] = '\0';
    while ((entry = strsep(&rest, "\n")) != NULL) {
        unsigned long start, end;
        char mode[5];

        /* What the kernel shows of its own cannot be written. */
        if (sscanf(entry, "%lx-%lx %4s", &start, &end, mode) != 3 || mode[0] != 'r' || strstr(entry, "[v") != NULL)
            continue;
        while (start < end) {
            ssize_t done = write(file, (const void *)start, end - start);

            if (done > 0) {
                start += (unsigned long)done;
            } else {
                /* Behind the end of a file that is mapped nothing is there. */
                CHECK(done < 0 && errno == EFAULT);
                start += page - start % page;
            }
        }
    }
    CHECK(close(file) == 0);
}

static int obey(char command, char *rest)
{
    char *body;

    switch (command) {
    case 'e':
        explicit_bzero(environment, sizeof environment);
        CHECK(strlen(rest) < sizeof environment);
        strcpy(environment, rest);
        return strchr(environment, '=') == NULL ? 0 : putenv(environment);
    case 'c':
        CHECK(client == NULL);
        return arctos_client_new(rest, &client, text());
    case 't':
        return arctos_client_set_token(client, rest, text());
    case 'a':
        return arctos_task_add(client, rest, text());
    case 'p':
        body = strchr(rest, ' ');
        CHECK(body != NULL);
        *body = '\0';
        return arctos_call(client, rest, body + 1, NULL, text());
    case 'g':
        CHECK(count > 0);
        body = texts[count - 1];
        return arctos_json_get(body, rest, text());
    case 's':
        return arctos_json_set_text(text(), "/member", rest);
    case 'r':
        while (count > 0)
            arctos_free(texts[--count]);
        memset(texts, 0, sizeof texts);
        return 0;
    case 'f':
        arctos_client_free(client);
        client = NULL;
        return 0;
    case 'k':
        return strdup(rest) == NULL;
    case 'i':
        write_image(rest);
        return 0;
    default:
        CHECK(!"a command");
        return 1;
    }
}

int main(void)
{
    arctos_set_log(count_line, NULL, 4);
    while (next()) {
        int code = obey(line[0], line + 1);

        explicit_bzero(line, sizeof line);
        printf("%d\n", code);
        CHECK(fflush(stdout) == 0);
    }
    return 0;
}
