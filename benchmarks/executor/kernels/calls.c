/* Fibonacci by its definition: nothing but calls. */
#include "kernel.h"
__attribute__((noinline)) static u32 fib(u32 n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
u64 kernel(u32 size) {
    random_state = 1;
    u64 total = 0;
    for (u32 round = 0; round < size; round++) total += fib(26 + (round & 1));
    return total;
}
