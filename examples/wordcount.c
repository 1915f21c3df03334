/* Count lines, words and bytes like wc, and list the ten most common words.
 *
 * Input: any bytes.
 * Output: text, one fact a line:
 *   lines 12
 *   words 345
 *   bytes 2100
 *   top 31 the
 *   ... at most ten of these, most frequent first, equals in byte order.
 *
 * "words" counts runs between white space. A common word is a run of ASCII letters and of bytes
 * above 127 (so that UTF-8 letters hold together), in lower case.
 */
#include "vcp.h"

#define TOP 10
#define FNV_OFFSET 2166136261u
#define FNV_PRIME 16777619u

typedef struct {
  uint32_t start; /* offset of the first occurrence in the input */
  uint32_t length;
  uint32_t count; /* 0 marks a free slot */
} Slot;

static int is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static int is_letter(uint8_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 128;
}

static uint8_t lower(uint8_t c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; }

/* Order of two words in lower case: negative, 0 or positive. */
static int compare(const uint8_t *text, const Slot *a, const Slot *b) {
  uint32_t shorter = a->length < b->length ? a->length : b->length;
  for (uint32_t i = 0; i < shorter; i++) {
    int difference = (int)lower(text[a->start + i]) - (int)lower(text[b->start + i]);
    if (difference) return difference;
  }
  return a->length < b->length ? -1 : a->length > b->length;
}

/* Whether `a` stands above `b` in the list. */
static int is_above(const uint8_t *text, const Slot *a, const Slot *b) {
  if (a->count != b->count) return a->count > b->count;
  return compare(text, a, b) < 0;
}

static uint8_t *put_text(uint8_t *out, const char *text) {
  while (*text) *out++ = (uint8_t)*text++;
  return out;
}

static uint8_t *put_number(uint8_t *out, uint32_t number) {
  uint8_t digits[10];
  int count = 0;
  do {
    digits[count++] = '0' + number % 10;
    number /= 10;
  } while (number);
  while (count) *out++ = digits[--count];
  return out;
}

static uint8_t *put_fact(uint8_t *out, const char *name, uint32_t number) {
  return put_text(put_number(put_text(out, name), number), "\n");
}

VCP_EXPORT(vcp_run) uint64_t vcp_run(const uint8_t *text, uint32_t bytes) {
  uint32_t lines = 0, words = 0, runs = 0;
  int in_word = 0, in_run = 0;
  for (uint32_t i = 0; i < bytes; i++) {
    lines += text[i] == '\n';
    words += !is_space(text[i]) && !in_word;
    in_word = !is_space(text[i]);
    runs += is_letter(text[i]) && !in_run;
    in_run = is_letter(text[i]);
  }

  /* Open addressing in a table at most half full: a power of two, at least twice the runs. */
  uint32_t size = 16;
  while (size < 2 * runs) size *= 2;
  Slot *table = vcp_alloc(size * (uint32_t)sizeof(Slot));
  for (uint32_t i = 0; i < bytes;) {
    if (!is_letter(text[i])) {
      i++;
      continue;
    }
    Slot word = {.start = i, .length = 0, .count = 1};
    uint32_t hash = FNV_OFFSET;
    for (; i < bytes && is_letter(text[i]); i++) hash = (hash ^ lower(text[i])) * FNV_PRIME;
    word.length = i - word.start;
    uint32_t at = hash & (size - 1);
    while (table[at].count && compare(text, &table[at], &word)) at = (at + 1) & (size - 1);
    if (table[at].count) {
      table[at].count++;
    } else {
      table[at] = word;
    }
  }

  /* The best ten, kept in order by insertion. */
  Slot best[TOP];
  uint32_t found = 0, letters = 0;
  for (uint32_t i = 0; i < size; i++) {
    if (!table[i].count) continue;
    uint32_t place = found;
    while (place && is_above(text, &table[i], &best[place - 1])) place--;
    if (place == TOP) continue;
    if (found < TOP) found++;
    for (uint32_t j = found - 1; j > place; j--) best[j] = best[j - 1];
    best[place] = table[i];
  }
  for (uint32_t i = 0; i < found; i++) letters += best[i].length;

  /* A fact takes at most 6 + 10 + 1 bytes, a common word 4 + 10 + 1 + 1 and its letters. */
  uint8_t *start = vcp_alloc(3 * 17 + TOP * 16 + letters);
  uint8_t *out = put_fact(start, "lines ", lines);
  out = put_fact(out, "words ", words);
  out = put_fact(out, "bytes ", bytes);
  for (uint32_t i = 0; i < found; i++) {
    out = put_text(put_number(put_text(out, "top "), best[i].count), " ");
    for (uint32_t j = 0; j < best[i].length; j++) *out++ = lower(text[best[i].start + j]);
    out = put_text(out, "\n");
  }
  return vcp_output(start, (uint32_t)(out - start));
}
