/* Federated averaging: the weighted mean of the clients' model updates, in fixed point.
 *
 * Input, little-endian: u32 clients, u32 dimensions, then for each client a u32 weight (its number
 * of examples) and `dimensions` parameters as i32 in Q16.16.
 * Output: `dimensions` means as i32 in Q16.16, rounded to the nearest, halves away from zero.
 *
 * The sum of weights is at most 2^31, so that no sum of weight times parameter leaves 64 bits.
 */
#include "vcp.h"

#define HEADER_BYTES 8u
#define WEIGHTS_MAX (1ull << 31)

VCP_EXPORT(vcp_run) uint64_t vcp_run(const uint8_t *input, uint32_t bytes) {
  vcp_require(bytes >= HEADER_BYTES);
  uint32_t clients = vcp_u32(input), dimensions = vcp_u32(input + 4);
  vcp_require(clients > 0 && dimensions > 0);
  /* Each factor is compared with what the input can hold, so that no product wraps. */
  uint64_t record_bytes = 4ull + 4ull * dimensions;
  vcp_require(record_bytes <= bytes && clients <= bytes / record_bytes);
  vcp_require(bytes == HEADER_BYTES + clients * record_bytes);

  int64_t *sums = vcp_alloc(dimensions * (uint32_t)sizeof(int64_t));
  uint64_t weights = 0;
  const uint8_t *at = input + HEADER_BYTES;
  for (uint32_t client = 0; client < clients; client++) {
    uint32_t weight = vcp_u32(at);
    at += 4;
    weights += weight;
    vcp_require(weights <= WEIGHTS_MAX);
    for (uint32_t i = 0; i < dimensions; i++, at += 4) sums[i] += (int64_t)weight * vcp_i32(at);
  }
  vcp_require(weights > 0);

  int32_t *means = vcp_alloc(dimensions * (uint32_t)sizeof(int32_t));
  int64_t divisor = (int64_t)weights, half = divisor / 2;
  for (uint32_t i = 0; i < dimensions; i++) {
    means[i] = (int32_t)((sums[i] >= 0 ? sums[i] + half : sums[i] - half) / divisor);
  }
  return vcp_output(means, dimensions * (uint32_t)sizeof(int32_t));
}
