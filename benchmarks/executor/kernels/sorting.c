/* Quicksort with recursion: calls, comparisons that nobody can predict. */
#include "kernel.h"
#define N 50000
static u32 data[N];
__attribute__((noinline)) static void sort(u32 *first, u32 *last) {
    while (last - first > 1) {
        u32 pivot = first[(last - first) / 2];
        u32 *low = first, *high = last - 1;
        while (low <= high) {
            while (*low < pivot) low++;
            while (*high > pivot) high--;
            if (low <= high) {
                u32 kept = *low;
                *low++ = *high, *high-- = kept;
            }
        }
        sort(first, high + 1);
        first = low;
    }
}
u64 kernel(u32 size) {
    random_state = 1;
    u64 total = 0;
    for (u32 round = 0; round < size * 2; round++) {
        for (int i = 0; i < N; i++) data[i] = next_random();
        sort(data, data + N);
        total = total * 31 + data[N / 3];
    }
    return total;
}
