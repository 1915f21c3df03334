/* The calling convention of a task, for C without a standard library.
 *
 * A task exports memory, vcp_alloc(i32) -> i32 and vcp_run(i32, i32) -> i64, and imports nothing.
 * The host asks vcp_alloc for room, writes the input there and calls vcp_run with its address and
 * length; vcp_run returns the address and length of the output. Malformed input traps: a trap is a
 * valid result that every host reproduces.
 */
#ifndef VCP_H
#define VCP_H

#include <stddef.h>
#include <stdint.h>

#define VCP_EXPORT(name) __attribute__((export_name(#name)))
#define VCP_PAGE_BYTES 65536u

/* First free address after the program's own data; the linker defines it. */
extern uint8_t __heap_base;

static uintptr_t vcp_top;

/* Bump allocator: `bytes` bytes of fresh zeroed memory, aligned to 16, never freed. */
VCP_EXPORT(vcp_alloc) void *vcp_alloc(uint32_t bytes) {
  if (vcp_top == 0) vcp_top = ((uintptr_t)&__heap_base + 15u) & ~(uintptr_t)15u;
  uintptr_t start = vcp_top;
  uint64_t end = ((uint64_t)start + bytes + 15u) & ~(uint64_t)15u;
  uint64_t pages = (end + VCP_PAGE_BYTES - 1u) / VCP_PAGE_BYTES;
  size_t have = __builtin_wasm_memory_size(0);
  if (pages > have) {
    /* The largest memory has 65536 pages, so the difference fits before it is cut to 32 bits. */
    if (pages > 65536u) __builtin_trap();
    if (__builtin_wasm_memory_grow(0, (size_t)pages - have) == (size_t)-1) __builtin_trap();
  }
  vcp_top = (uintptr_t)end;
  return (void *)start;
}

/* What vcp_run returns: address and length of the output. */
static inline uint64_t vcp_output(const void *start, uint32_t bytes) {
  return (uint64_t)(uintptr_t)start << 32 | bytes;
}

/* Trap unless `condition` holds: the input is not what this task reads. */
static inline void vcp_require(int condition) {
  if (!condition) __builtin_trap();
}

/* Little-endian 32-bit words at any address. */
static inline uint32_t vcp_u32(const uint8_t *at) {
  uint32_t value;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}

static inline int32_t vcp_i32(const uint8_t *at) { return (int32_t)vcp_u32(at); }

#endif
