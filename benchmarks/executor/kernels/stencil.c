/* Jacobi relaxation of a plane of doubles. */
#include "kernel.h"
#define N 160
static double one[N][N], two[N][N];
static void relax(double (*restrict to)[N], double (*restrict from)[N]) {
    for (int i = 1; i < N - 1; i++)
        for (int j = 1; j < N - 1; j++)
            to[i][j] = 0.2 * (from[i][j] + from[i][j - 1] + from[i][j + 1] + from[i - 1][j] + from[i + 1][j]);
}
u64 kernel(u32 size) {
    random_state = 1;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) one[i][j] = two[i][j] = next_unit();
    for (u32 round = 0; round < size; round++) relax(two, one), relax(one, two);
    double sum = 0;
    for (int i = 0; i < N; i++) sum += one[i][i];
    return bits_of(sum);
}
