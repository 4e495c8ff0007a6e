/*
 * Watches the heap: this program's own malloc and free stand in front of those of the C library, and the library under
 * test uses them too. Linux with glibc only.
 */

#define _GNU_SOURCE
#include "check.h"

#include <arctos.h>
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <string.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *block);

/* Stands in every text that must be wiped before its memory is released. */
#define SECRET "Secret-5f1e0c"

#define MOST_BLOCKS 65536

/* One thread only, so that plain variables do. */
static long allocations;
static long released_with_secret;
static void *blocks[MOST_BLOCKS];

static void *note(void *block)
{
    size_t index;

    allocations++;
    for (index = 0; block != NULL && index < MOST_BLOCKS; index++) {
        if (blocks[index] == NULL) {
            blocks[index] = block;
            break;
        }
    }
    return block;
}

void *malloc(size_t size)
{
    return note(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
    return note(__libc_calloc(count, size));
}

void *memalign(size_t alignment, size_t size)
{
    return note(__libc_memalign(alignment, size));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **block, size_t alignment, size_t size)
{
    *block = memalign(alignment, size);
    return *block == NULL ? ENOMEM : 0;
}

void free(void *block)
{
    size_t index;

    if (block == NULL)
        return;
    if (memmem(block, malloc_usable_size(block), SECRET, strlen(SECRET)) != NULL)
        released_with_secret++;
    for (index = 0; index < MOST_BLOCKS; index++) {
        if (blocks[index] == block) {
            blocks[index] = NULL;
            break;
        }
    }
    __libc_free(block);
}

/* Always moves, so that what a growing text leaves behind is seen. */
void *realloc(void *block, size_t size)
{
    void *moved = malloc(size);

    if (moved != NULL && block != NULL) {
        size_t old = malloc_usable_size(block);

        memcpy(moved, block, old < size ? old : size);
        free(block);
    }
    return moved;
}

/* Releases a text, which must hold the secret until then and not after. */
static void wiped_by_free(char *text)
{
    CHECK(text != NULL && strstr(text, SECRET) != NULL);
    released_with_secret = 0;
    arctos_free(text);
    CHECK(released_with_secret == 0);
}

static void the_watch_works(void)
{
    char *block = strdup("a " SECRET);
    long before = allocations;

    released_with_secret = 0;
    free(block);
    CHECK(released_with_secret == 1);
    block = malloc(1);
    CHECK(allocations == before + 1);
    free(block);
}

static void texts_are_wiped(void)
{
    static const char *const contents[] = {SECRET, "0123456789 " SECRET, "0123456789 0123456789 0123456789 " SECRET " x"};
    size_t index;

    for (index = 0; index < sizeof contents / sizeof *contents; index++) {
        char *text = NULL;
        char *copy = NULL;

        CHECK(arctos_json_set_text(&text, "/a", contents[index]) == ARCTOS_OK);
        CHECK(arctos_json_get(text, "/a", &copy) == ARCTOS_OK);
        CHECK(strcmp(copy, contents[index]) == 0);
        wiped_by_free(copy);
        wiped_by_free(text);
    }
}

/* A caller may shorten its text; what stood behind the new end is wiped too. */
static void a_text_is_wiped_to_its_end(void)
{
    char *text = NULL;

    CHECK(arctos_json_set_text(&text, "", "0123456789 " SECRET) == ARCTOS_OK);
    text[4] = '\0';
    released_with_secret = 0;
    arctos_free(text);
    CHECK(released_with_secret == 0);
}

static void a_replaced_text_is_wiped(void)
{
    char *text = NULL;

    released_with_secret = 0;
    CHECK(arctos_json_set_text(&text, "/a", SECRET) == ARCTOS_OK);
    CHECK(arctos_json_set_text(&text, "/b", "x") == ARCTOS_OK);
    CHECK(strstr(text, SECRET) != NULL);
    CHECK(arctos_json_set(&text, "/a", "1") == ARCTOS_OK);
    CHECK(strcmp(text, "{\"a\":1,\"b\":\"x\"}") == 0);
    CHECK(released_with_secret == 0);
    arctos_free(text);
}

static void tokens_are_wiped(void)
{
    arctos_client *client = NULL;
    char *answer = NULL;

    released_with_secret = 0;
    CHECK(arctos_client_new("{\"base_url\":\"http://127.0.0.1:1\",\"token\":\"" SECRET "-1\"}", &client, &answer) == ARCTOS_OK);
    CHECK(strstr(answer, SECRET) == NULL);
    arctos_free(answer);
    CHECK(arctos_client_set_token(client, SECRET "-2", NULL) == ARCTOS_OK);
    CHECK(arctos_client_set_token(client, SECRET "-3\n", NULL) == ARCTOS_BAD_ARGUMENT);
    arctos_client_free(client);
    CHECK(released_with_secret == 0);
}

static void texts_stand_inside_of_their_memory(void)
{
    size_t length;
    char contents[100] = "";

    for (length = 0; length < sizeof contents - 1; length++) {
        char *text = NULL;
        int starts = 0;
        int inside = 0;
        size_t index;

        memset(contents, 'x', length);
        CHECK(arctos_json_set_text(&text, "", contents) == ARCTOS_OK);
        CHECK((uintptr_t)text % 16 == 0);
        for (index = 0; index < MOST_BLOCKS; index++) {
            uintptr_t start = (uintptr_t)blocks[index];

            if (start == 0)
                continue;
            starts += start == (uintptr_t)text;
            inside += start < (uintptr_t)text && (uintptr_t)text + length < start + malloc_usable_size(blocks[index]);
        }
        CHECK(starts == 0);
        CHECK(inside == 1);
        arctos_free(text);
    }
}

static void nothing_is_lost(void)
{
    long round;
    size_t living[2];

    /* What the first round leaves is there once. */
    for (round = 0; round < 2; round++) {
        arctos_client *client = NULL;
        char *answer = NULL;
        char *text = NULL;
        size_t index;

        CHECK(arctos_client_new("{\"base_url\":\"http://127.0.0.1:1\",\"token\":\"a-token\"}", &client, &answer) == ARCTOS_OK);
        arctos_free(answer);
        CHECK(arctos_task_add(client, "{}", &answer) == ARCTOS_BAD_TASK);
        arctos_free(answer);
        CHECK(arctos_client_new("{}", NULL, &answer) == ARCTOS_BAD_ARGUMENT);
        arctos_free(answer);
        CHECK(arctos_json_set(&text, "/a", "1") == ARCTOS_OK);
        CHECK(arctos_json_set(&text, "/b/c", "1") == ARCTOS_NO_VALUE);
        arctos_free(text);
        arctos_client_free(client);
        living[round] = 0;
        for (index = 0; index < MOST_BLOCKS; index++)
            living[round] += blocks[index] != NULL;
    }
    CHECK(living[0] == living[1]);
}

static void outcome_allocates_nothing(void)
{
    static const char *const documents[] = {
        NULL,
        "",
        "{",
        "{}",
        "[]",
        "no JSON at all",
        "{\"outcome\":\"not_created\"}",
        "{\"code\":-12,\"problems\":[{\"field\":\"a\\\"b\"}],\"outcome\":\"created\",\"elapsed_ms\":1}",
        "{\"outcome\":\"unknown\"",
        "{\"outcome\":\"\\u0075nknown\"}",
        "\xff\xfe",
    };
    size_t index;
    arctos_code code;

    for (code = -110; code < 10; code++) {
        for (index = 0; index < sizeof documents / sizeof *documents; index++) {
            long before = allocations;
            arctos_outcome_code outcome = arctos_outcome(code, documents[index]);

            CHECK(allocations == before);
            CHECK(outcome == ARCTOS_NOT_CREATED || outcome == ARCTOS_CREATED || outcome == ARCTOS_UNKNOWN);
        }
    }
}

int main(void)
{
    /* First of all: nothing has run that could have prepared something. */
    outcome_allocates_nothing();
    the_watch_works();
    texts_are_wiped();
    a_text_is_wiped_to_its_end();
    a_replaced_text_is_wiped();
    tokens_are_wiped();
    texts_stand_inside_of_their_memory();
    nothing_is_lost();
    return 0;
}
