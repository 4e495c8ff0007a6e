/* Makes the calls of the benchmark through libcurl, one handle a thread. See client.h; CLIENTS must be 1. */

#include <curl/curl.h>

#include "client.h"

struct handle {
    CURL *curl;
    char error[CURL_ERROR_SIZE];
    char *answer; /* NUL-terminated; its memory is used again by the next call */
    size_t length, size;
};

static struct handle *handles;
static size_t handle_count;
static struct curl_slist *fields;

static size_t receive(char *bytes, size_t one, size_t count, void *given)
{
    struct handle *handle = given;

    (void)one;
    if (handle->size - handle->length <= count) {
        size_t size = 2 * (handle->length + count + 1);
        char *larger = realloc(handle->answer, size);

        if (larger == NULL)
            return 0;
        handle->answer = larger;
        handle->size = size;
    }
    memcpy(handle->answer + handle->length, bytes, count);
    handle->length += count;
    handle->answer[handle->length] = '\0';
    return count;
}

#define SET(curl, option, value) \
    do { \
        if (curl_easy_setopt(curl, option, value) != CURLE_OK) \
            fail(#option); \
    } while (0)

static void set_up_handle(struct handle *handle, const struct options *options, const char *url)
{
    CURL *curl = curl_easy_init();

    if (curl == NULL)
        fail("no handle");
    handle->curl = curl;
    SET(curl, CURLOPT_URL, url);
    SET(curl, CURLOPT_POST, 1L);
    SET(curl, CURLOPT_HTTPHEADER, fields);
    SET(curl, CURLOPT_USERAGENT, AGENT);
    SET(curl, CURLOPT_NOSIGNAL, 1L);
    SET(curl, CURLOPT_TIMEOUT_MS, (long)TIMEOUT_MS);
    SET(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    SET(curl, CURLOPT_WRITEFUNCTION, receive);
    SET(curl, CURLOPT_WRITEDATA, handle);
    SET(curl, CURLOPT_ERRORBUFFER, handle->error);
    if (options->ca_file != NULL)
        SET(curl, CURLOPT_CAINFO, options->ca_file);
    if (!options->keep)
        SET(curl, CURLOPT_FORBID_REUSE, 1L);
}

static void set_up(const struct options *options)
{
    static const char *const lines[] = {
        "Content-Type: application/json", "Accept: application/json", "Authorization: Bearer " TOKEN,
        "Expect:", /* else libcurl may wait for leave to send a long task */
    };
    char url[256];
    size_t index;

    if (options->clients != 1)
        fail("CLIENTS must be 1");
    if (snprintf(url, sizeof url, "%s" PATH, options->url) >= (int)sizeof url)
        fail("the URL is too long");
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        fail("no libcurl");
    for (index = 0; index < sizeof lines / sizeof *lines; index++) {
        struct curl_slist *longer = curl_slist_append(fields, lines[index]);

        if (longer == NULL)
            fail("no memory");
        fields = longer;
    }
    handle_count = options->threads;
    handles = memory(handle_count, sizeof *handles);
    for (index = 0; index < handle_count; index++)
        set_up_handle(&handles[index], options, url);
}

static const char *version(void)
{
    const curl_version_info_data *about = curl_version_info(CURLVERSION_NOW);
    static char text[128];

    snprintf(text, sizeof text, "libcurl/%s %s", about->version, about->ssl_version != NULL ? about->ssl_version : "");
    return text;
}

static void call(size_t thread, const char *task, size_t length)
{
    struct handle *handle = &handles[thread];
    CURLcode code;
    long status = 0;

    SET(handle->curl, CURLOPT_POSTFIELDS, task);
    SET(handle->curl, CURLOPT_POSTFIELDSIZE, (long)length);
    handle->length = 0;
    code = curl_easy_perform(handle->curl);
    if (code != CURLE_OK)
        fail("a call failed: %s", *handle->error != '\0' ? handle->error : curl_easy_strerror(code));
    curl_easy_getinfo(handle->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200 || handle->length == 0 || strstr(handle->answer, "\"status\":1") == NULL
        || !has_number(handle->answer))
        fail("no appointment: HTTP %ld: %s", status, handle->length > 0 ? handle->answer : "");
}

static void tear_down(void)
{
    size_t index;

    for (index = 0; index < handle_count; index++) {
        curl_easy_cleanup(handles[index].curl);
        free(handles[index].answer);
    }
    free(handles);
    curl_slist_free_all(fields);
    curl_global_cleanup();
}

int main(int count, char **arguments)
{
    static const struct library library = {set_up, version, call, tear_down};

    return run(&library, count, arguments);
}
