/* Escape times in the plane: a chain of dependent float operations with an exit in each step. */
#include "kernel.h"
u64 kernel(u32 size) {
    random_state = 1;
    u64 total = 0;
    for (u32 py = 0; py < 16 * size; py++)
        for (u32 px = 0; px < 256; px++) {
            double cx = px / 100.0 - 2.0, cy = py / (8.0 * size) - 1.0, zx = 0, zy = 0;
            u32 n = 0;
            while (n < 200 && zx * zx + zy * zy < 4) {
                double t = zx * zx - zy * zy + cx;
                zy = 2 * zx * zy + cy, zx = t, n++;
            }
            total += n;
        }
    return total;
}
