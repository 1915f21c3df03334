/* Dense product of two square matrices of doubles. */
#include "kernel.h"
#define N 160
static double a[N][N], b[N][N], c[N][N];
u64 kernel(u32 size) {
    random_state = 1;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) a[i][j] = next_unit(), b[i][j] = next_unit(), c[i][j] = 0;
    for (u32 round = 0; round < size; round++)
        for (int i = 0; i < N; i++)
            for (int k = 0; k < N; k++)
                for (int j = 0; j < N; j++) c[i][j] += a[i][k] * b[k][j];
    double sum = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) sum += c[i][j];
    return bits_of(sum);
}
