/* An interpreter of a small machine: a branch table in a loop, as language runtimes have. */
#include "kernel.h"
static i64 stack[64];
static const u8 program[] = {0, 3, 1, 5, 2, 6, 1, 4, 3, 7, 5, 2, 1, 0, 9, 4, 6, 3, 8};
u64 kernel(u32 size) {
    random_state = 1;
    i64 a = 1, b = 7;
    u32 pc = 0, top = 0;
    for (int i = 0; i < 64; i++) stack[i] = 0;
    for (u32 step = 0; step < size * 1000000; step++) {
        switch (program[pc]) {
            case 0: stack[top++ & 63] = a; break;
            case 1: a += b; break;
            case 2: b ^= a >> 3; break;
            case 3: a = a * 5 + 1; break;
            case 4: if (a & 1) b += 3; break;
            case 5: b = stack[--top & 63]; break;
            case 6: a -= b << 1; break;
            case 7: a = a < b ? b : a; break;
            case 8: pc = (u32)-1; break;
            default: b = (i64)((u64)b >> 1); break;
        }
        pc++;
    }
    return (u64)(a ^ b);
}
