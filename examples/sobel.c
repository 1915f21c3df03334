/* Edges of a gray image by the Sobel operator.
 *
 * Input: a binary PGM file ("P5", width, height, 255, one white space, width x height bytes) with
 * optional comments. Output: a PGM file of the same size; a pixel is (|gx| + |gy|) / 4, and the
 * border, where the operator has no neighbours, is 0.
 */
#include "vcp.h"

#define SIDE_MAX 16384u
/* "P5\n", two numbers of at most five digits, "255" and four separators. */
#define HEADER_BYTES_MAX 24u

typedef struct {
  const uint8_t *at, *end;
} Reader;

static uint8_t next(Reader *reader) {
  vcp_require(reader->at < reader->end);
  return *reader->at++;
}

static int is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* A decimal number of at most SIDE_MAX after white space or comments; takes one byte behind it. */
static uint32_t read_number(Reader *reader) {
  uint8_t c = next(reader);
  vcp_require(is_space(c) || c == '#');
  while (is_space(c) || c == '#') {
    if (c == '#') {
      while (c != '\n') c = next(reader);
    }
    c = next(reader);
  }
  uint32_t number = 0;
  vcp_require(c >= '0' && c <= '9');
  for (; c >= '0' && c <= '9'; c = next(reader)) {
    number = number * 10 + (c - '0');
    vcp_require(number <= SIDE_MAX);
  }
  vcp_require(is_space(c) || c == '#');
  reader->at--; /* the separator belongs to what follows */
  return number;
}

static uint8_t *put_number(uint8_t *out, uint32_t number, char separator) {
  uint8_t digits[10];
  int count = 0;
  do {
    digits[count++] = '0' + number % 10;
    number /= 10;
  } while (number);
  while (count) *out++ = digits[--count];
  *out++ = (uint8_t)separator;
  return out;
}

static int magnitude(int value) { return value < 0 ? -value : value; }

VCP_EXPORT(vcp_run) uint64_t vcp_run(const uint8_t *input, uint32_t bytes) {
  Reader reader = {input, input + bytes};
  vcp_require(next(&reader) == 'P');
  vcp_require(next(&reader) == '5');
  uint32_t width = read_number(&reader), height = read_number(&reader);
  vcp_require(width > 0 && height > 0 && read_number(&reader) == 255);
  vcp_require(is_space(next(&reader)));
  uint32_t pixels = width * height; /* at most 2^28 */
  vcp_require((uint32_t)(reader.end - reader.at) == pixels);

  uint8_t *start = vcp_alloc(HEADER_BYTES_MAX + pixels), *out = start;
  *out++ = 'P';
  *out++ = '5';
  *out++ = '\n';
  out = put_number(out, width, ' ');
  out = put_number(out, height, '\n');
  out = put_number(out, 255, '\n');
  /* The memory is fresh, hence zero: only the inside is written. */
  for (uint32_t y = 1; y + 1 < height; y++) {
    const uint8_t *above = reader.at + (y - 1) * width, *here = above + width,
                  *below = here + width;
    for (uint32_t x = 1; x + 1 < width; x++) {
      int gx = above[x + 1] + 2 * here[x + 1] + below[x + 1] - above[x - 1] - 2 * here[x - 1] -
               below[x - 1];
      int gy = below[x - 1] + 2 * below[x] + below[x + 1] - above[x - 1] - 2 * above[x] -
               above[x + 1];
      int edge = (magnitude(gx) + magnitude(gy)) / 4;
      out[y * width + x] = (uint8_t)(edge > 255 ? 255 : edge);
    }
  }
  return vcp_output(start, (uint32_t)(out - start) + pixels);
}
