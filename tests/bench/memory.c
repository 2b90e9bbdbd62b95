/* How fast this machine reads memory: the denominator of the decode bars. Threads sum equal shares
 * of a buffer, 64-byte line by line, in the widest vectors that the compiler may use on this CPU.
 */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_THREADS 1024
#define LINE 8    /* uint64_t in a cache line */
#define STREAMS 4 /* read side by side: hardware prefetchers follow each */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif

typedef struct share {
  const uint64_t *data;
  size_t lines;
  int streams;
  uint64_t sum;
} share;

static inline void add_line(uint64_t sum[LINE], const uint64_t *line) {
  for (int i = 0; i < LINE; i++) sum[i] += line[i];
}

/* One stream, with a prefetch a good way ahead. */
FOR_EACH_CPU uint64_t attn_bench_sum_linear(const uint64_t *data, size_t lines) {
  uint64_t a[LINE] = {0}, b[LINE] = {0}, c[LINE] = {0}, d[LINE] = {0};
  size_t n = 0;
  for (; n + 4 <= lines; n += 4) {
    const uint64_t *at = data + n * LINE;
    for (int i = 0; i < 4; i++) __builtin_prefetch(at + (64 + i) * LINE);
    add_line(a, at);
    add_line(b, at + LINE);
    add_line(c, at + 2 * LINE);
    add_line(d, at + 3 * LINE);
  }
  for (; n < lines; n++) add_line(a, data + n * LINE);
  uint64_t sum = 0;
  for (int i = 0; i < LINE; i++) sum += a[i] + b[i] + c[i] + d[i];
  return sum;
}

/* STREAMS streams, without. */
FOR_EACH_CPU uint64_t attn_bench_sum_streams(const uint64_t *data, size_t lines) {
  uint64_t a[LINE] = {0}, b[LINE] = {0}, c[LINE] = {0}, d[LINE] = {0};
  const size_t part = lines / STREAMS;
  for (size_t n = 0; n < part; n++) {
    const uint64_t *at = data + n * LINE;
    add_line(a, at);
    add_line(b, at + part * LINE);
    add_line(c, at + 2 * part * LINE);
    add_line(d, at + 3 * part * LINE);
  }
  for (size_t n = part * STREAMS; n < lines; n++) add_line(a, data + n * LINE);
  uint64_t sum = 0;
  for (int i = 0; i < LINE; i++) sum += a[i] + b[i] + c[i] + d[i];
  return sum;
}

static void *run(void *argument) {
  share *own = argument;
  own->sum = own->streams > 1 ? attn_bench_sum_streams(own->data, own->lines)
                              : attn_bench_sum_linear(own->data, own->lines);
  return NULL;
}

/* Reads `bytes` (a multiple of 64) at `data` with `threads` threads, each in 1 or several streams.
 * Returns a sum of all that was read, so that no read can be left out; 0 if threads is out of range
 * or one could not be started. */
uint64_t attn_bench_read(const void *data, size_t bytes, int threads, int streams);
uint64_t attn_bench_read(const void *data, size_t bytes, int threads, int streams) {
  static share shares[MAX_THREADS];
  static pthread_t ids[MAX_THREADS];
  if (threads < 1 || threads > MAX_THREADS) return 0;
  const size_t lines = bytes / 64;
  for (int t = 0; t < threads; t++) {
    const size_t begin = lines * (size_t)t / (size_t)threads;
    const size_t end = lines * ((size_t)t + 1) / (size_t)threads;
    shares[t] = (share){(const uint64_t *)data + begin * LINE, end - begin, streams, 0};
  }
  int started = 1;
  for (; started < threads; started++) {
    if (pthread_create(&ids[started], NULL, run, &shares[started]) != 0) break;
  }
  run(&shares[0]);
  uint64_t sum = shares[0].sum;
  for (int t = 1; t < started; t++) {
    pthread_join(ids[t], NULL);
    sum += shares[t].sum;
  }
  return started == threads ? sum : 0;
}
