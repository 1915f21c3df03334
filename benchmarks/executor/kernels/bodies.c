/* Gravity between a few bodies, step by step: scalar doubles, square roots, divisions. */
#include "kernel.h"
#define N 12
static double x[N], y[N], z[N], vx[N], vy[N], vz[N], mass[N];
u64 kernel(u32 size) {
    random_state = 1;
    for (int i = 0; i < N; i++) {
        x[i] = next_unit(), y[i] = next_unit(), z[i] = next_unit();
        vx[i] = vy[i] = vz[i] = 0, mass[i] = next_unit() + 0.1;
    }
    for (u32 step = 0; step < size * 1000; step++) {
        for (int i = 0; i < N; i++)
            for (int j = i + 1; j < N; j++) {
                double dx = x[i] - x[j], dy = y[i] - y[j], dz = z[i] - z[j];
                double d2 = dx * dx + dy * dy + dz * dz + 0.01;
                double pull = 0.001 / (d2 * __builtin_sqrt(d2));
                vx[i] -= dx * mass[j] * pull, vy[i] -= dy * mass[j] * pull, vz[i] -= dz * mass[j] * pull;
                vx[j] += dx * mass[i] * pull, vy[j] += dy * mass[i] * pull, vz[j] += dz * mass[i] * pull;
            }
        for (int i = 0; i < N; i++) x[i] += vx[i] * 0.001, y[i] += vy[i] * 0.001, z[i] += vz[i] * 0.001;
    }
    return bits_of(x[0] + y[1] + z[2]);
}
