/* Inference with a two-layer perceptron in int8: one class for each image.
 *
 * Input, little-endian:
 *   u32 images, u32 pixels, u32 hidden, u32 classes, u32 shift
 *   i8  weights1[hidden][pixels],  i32 biases1[hidden]
 *   i8  weights2[classes][hidden], i32 biases2[classes]
 *   u8  image[images][pixels]
 * Output: u8 class[images].
 *
 * A hidden unit is clamp((biases1 + weights1 . image) >> shift, 0, 127); the class is the largest
 * output, the first one among equals. With at most 16384 pixels and 1024 hidden units no sum of
 * products leaves 32 bits; biases are bounded by 2^30 for the same reason.
 */
#include "vcp.h"

#define HEADER_BYTES 20u
#define PIXELS_MAX 16384u
#define HIDDEN_MAX 1024u
#define CLASSES_MAX 256u
#define SHIFT_MAX 30u
#define BIAS_MAX (1 << 30)

static int32_t bias(const uint8_t *biases, uint32_t unit) {
  int32_t value = vcp_i32(biases + 4 * unit);
  vcp_require(value >= -BIAS_MAX && value <= BIAS_MAX);
  return value;
}

VCP_EXPORT(vcp_run) uint64_t vcp_run(const uint8_t *input, uint32_t bytes) {
  vcp_require(bytes >= HEADER_BYTES);
  uint32_t images = vcp_u32(input), pixels = vcp_u32(input + 4), hidden = vcp_u32(input + 8);
  uint32_t classes = vcp_u32(input + 12), shift = vcp_u32(input + 16);
  vcp_require(pixels > 0 && pixels <= PIXELS_MAX && hidden > 0 && hidden <= HIDDEN_MAX);
  vcp_require(classes > 0 && classes <= CLASSES_MAX && shift <= SHIFT_MAX);
  uint64_t expected = HEADER_BYTES + (uint64_t)hidden * (pixels + 4) +
                      (uint64_t)classes * (hidden + 4) + (uint64_t)images * pixels;
  vcp_require(bytes == expected);

  const int8_t *weights1 = (const int8_t *)(input + HEADER_BYTES);
  const uint8_t *biases1 = (const uint8_t *)(weights1 + hidden * pixels);
  const int8_t *weights2 = (const int8_t *)(biases1 + 4 * hidden);
  const uint8_t *biases2 = (const uint8_t *)(weights2 + classes * hidden);
  const uint8_t *image = biases2 + 4 * classes;

  int8_t *layer = vcp_alloc(hidden);
  uint8_t *answers = vcp_alloc(images);
  for (uint32_t k = 0; k < images; k++, image += pixels) {
    for (uint32_t i = 0; i < hidden; i++) {
      int32_t sum = bias(biases1, i);
      for (uint32_t j = 0; j < pixels; j++) sum += weights1[i * pixels + j] * image[j];
      sum >>= shift;
      layer[i] = (int8_t)(sum < 0 ? 0 : sum > 127 ? 127 : sum);
    }
    int32_t largest = INT32_MIN;
    for (uint32_t i = 0; i < classes; i++) {
      int32_t sum = bias(biases2, i);
      for (uint32_t j = 0; j < hidden; j++) sum += weights2[i * hidden + j] * layer[j];
      if (sum > largest) {
        largest = sum;
        answers[k] = (uint8_t)i;
      }
    }
  }
  return vcp_output(answers, images);
}
