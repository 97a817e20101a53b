/* A bounded ring buffer of integers. */
#include <stdio.h>
#include <stdlib.h>

struct ring {
    int *items; // storage
    size_t head, count, capacity;
};

static int ring_push(struct ring *r, int value)
{
    if (r->count == r->capacity)
        goto full;
    r->items[(r->head + r->count++) % r->capacity] = value;
    return 0;
full:
    fprintf(stderr, "ring: no room for %d\n", value);
    return -1;
}

int main(int argc, char **argv)
{
    struct ring r = {malloc(8 * sizeof(int)), 0, 0, 8};
    char quote = '"', slash = '/';
    int total;
    for (int i = 0; i < 12; i++)
        total = ring_push(&r, i * 0x10);
    printf("%zu items /* not a comment */ %c %c %d\n", r.count, quote, slash, total);
    free(r.items);
    return 0;
}
