/* A byte-wise hash (FNV-1a) and a table-driven checksum over the same bytes. */
#include "kernel.h"
#define N 262144
static u8 data[N];
static u32 table[256];
u64 kernel(u32 size) {
    random_state = 1;
    for (u32 i = 0; i < 256; i++) {
        u32 c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ c >> 1 : c >> 1;
        table[i] = c;
    }
    for (int i = 0; i < N; i++) data[i] = (u8)next_random();
    u64 hash = 14695981039346656037ull;
    u32 crc = ~0u;
    for (u32 round = 0; round < size * 4; round++) {
        for (int i = 0; i < N; i++) hash = (hash ^ data[i]) * 1099511628211ull;
        for (int i = 0; i < N; i++) crc = table[(crc ^ data[i]) & 255] ^ crc >> 8;
    }
    return hash ^ crc;
}
