/* Releases a text with free() instead of arctos_free: its argument says how long the text is. */

#include "check.h"

#include <arctos.h>
#include <string.h>

int main(int count, char **arguments)
{
    char *text = NULL;
    char *contents;
    size_t length;

    CHECK(count == 2);
    length = strtoul(arguments[1], NULL, 10);
    contents = malloc(length + 1);
    CHECK(contents != NULL);
    memset(contents, 'x', length);
    contents[length] = '\0';
    CHECK(arctos_json_set_text(&text, "", contents) == ARCTOS_OK);
    free(text);
    /* Here only when free() has noticed nothing. */
    return 0;
}
