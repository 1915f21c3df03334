/* The sieve of Eratosthenes: stores with a stride. */
#include "kernel.h"
#define N 1000000
static u8 composite[N];
u64 kernel(u32 size) {
    random_state = 1;
    u64 count = 0;
    for (u32 round = 0; round < size; round++) {
        for (u32 i = 0; i < N; i++) composite[i] = 0;
        for (u32 i = 2; i < N; i++) {
            if (composite[i]) continue;
            count += i ^ round;
            for (u32 j = i * 2; j < N; j += i) composite[j] = 1;
        }
    }
    return count;
}
