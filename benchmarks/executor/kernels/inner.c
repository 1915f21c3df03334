/* Inner products of 32-bit integers: the tightest loop there is. */
#include "kernel.h"
#define N 65536
static i32 a[N], b[N];
u64 kernel(u32 size) {
    random_state = 1;
    u64 total = 0;
    for (int i = 0; i < N; i++) a[i] = (i32)next_random(), b[i] = (i32)next_random();
    for (u32 round = 0; round < size * 20; round++) {
        u32 sum = round;
        for (int i = 0; i < N; i++) sum += (u32)a[i] * (u32)b[i];
        total = total * 31 + sum;
        a[round % N] ^= (i32)sum;
    }
    return total;
}
