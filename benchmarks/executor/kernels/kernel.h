/* One kernel: `kernel(size)` does work in proportion to `size` and returns a checksum.
 *
 * As WebAssembly it follows the calling convention: the input is `size` as four bytes, the output
 * the checksum as eight. As native code `kernel` is called directly.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;

u64 kernel(u32 size);

static u32 random_state = 1;

static inline u32 next_random(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

static inline double next_unit(void) { return (double)next_random() / 16777216.0; }

static inline u64 bits_of(double value) {
    union { double d; u64 u; } both;
    both.d = value;
    return both.u;
}

#ifdef __wasm__
static u8 vcp_buffer[64];
__attribute__((export_name("vcp_alloc"))) u8 *vcp_alloc(u32 size) {
    return size <= sizeof vcp_buffer ? vcp_buffer : 0;
}
__attribute__((export_name("vcp_run"))) u64 vcp_run(const u8 *input, u32 length) {
    u32 size = length < 4 ? 1 : input[0] | input[1] << 8 | input[2] << 16 | (u32)input[3] << 24;
    u64 answer = kernel(size);
    for (int i = 0; i < 8; i++) vcp_buffer[i] = (u8)(answer >> 8 * i);
    return (u64)(u32)vcp_buffer << 32 | 8;
}
/* The compiler asks for these by itself. */
void *memset(void *to, int value, unsigned long count) {
    u8 *out = to;
    while (count--) *out++ = (u8)value;
    return to;
}
void *memcpy(void *to, const void *from, unsigned long count) {
    u8 *out = to;
    const u8 *in = from;
    while (count--) *out++ = *in++;
    return to;
}
#endif
