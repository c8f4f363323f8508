// Random masks from Philox4x32-10, many blocks at a time.
// Included once per instruction set, inside its namespace: no include guard.

struct Counter {
  uint64_t high, low;
  Counter plus(uint64_t blocks) const {
    const uint64_t sum = low + blocks;
    return {high + (sum < low ? 1 : 0), sum};
  }
};

typedef uint64_t Words __attribute__((vector_size(CW_BYTES), may_alias));
constexpr int kWordLanes = CW_BYTES / 8;
// Blocks that are computed together: three vectors of each word hide how long a product takes, and fit 16 registers.
constexpr int kBlockVectors = CW_BYTES == 64 ? 2 : 3;
constexpr int kBlocks = kBlockVectors * kWordLanes;

// Products of the low halves of 64-bit lanes; what stands in the high halves does not matter.
CW_INLINE Words multiply_low_halves(Words a, Words b) {
#if CW_BYTES == 64 && defined(__AVX512F__)
  return (Words)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif CW_BYTES == 32 && defined(__AVX2__)
  return (Words)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif CW_BYTES == 16 && defined(__SSE2__)
  return (Words)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

// Lane i of `first` and then of `second`, for each i, to aligned memory. Little endian: a lane's low half comes first.
CW_INLINE void store_in_turn(Words first, Words second, uint32_t *to) {
#if defined(__clang__)
  for (int i = 0; i < kWordLanes; ++i) {
    const uint64_t pair[2] = {first[i], second[i]};
    std::memcpy(to + 4 * i, pair, sizeof pair);
  }
#else
  Words low, high;  // which lane of both a lane of the result is
  for (int i = 0; i < kWordLanes; ++i) low[i] = uint64_t(i / 2 + i % 2 * kWordLanes), high[i] = low[i] + kWordLanes / 2;
  Words *out = reinterpret_cast<Words *>(to);
  out[0] = __builtin_shuffle(first, second, low), out[1] = __builtin_shuffle(first, second, high);
#endif
}

// Words of blocks counter .. counter + kBlocks - 1: words[4 * i + j] is word j of block i. Each block has a 64-bit
// lane, its four words are the low halves of four vectors; what stands in the high halves does not matter. `words` is
// aligned.
inline void philox_blocks(uint64_t key, Counter counter, uint32_t *words) {
  constexpr uint64_t low_half = 0xffffffffu;
  Words c0[kBlockVectors], c1[kBlockVectors], c2[kBlockVectors], c3[kBlockVectors], lane;
  for (int i = 0; i < kWordLanes; ++i) lane[i] = uint64_t(i);
#pragma GCC unroll 8
  for (int v = 0; v < kBlockVectors; ++v) {  // each word takes the carry of the one below it
    c0[v] = lane + ((counter.low & low_half) + uint64_t(v * kWordLanes));
    c1[v] = (c0[v] >> 32) + (counter.low >> 32);
    c2[v] = (c1[v] >> 32) + (counter.high & low_half);
    c3[v] = (c2[v] >> 32) + (counter.high >> 32);
  }
  uint64_t k0 = key & low_half, k1 = key >> 32;
  const Words m0 = Words{} + 0xD2511F53u, m1 = Words{} + 0xCD9E8D57u;
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 8
    for (int v = 0; v < kBlockVectors; ++v) {
      const Words p0 = multiply_low_halves(m0, c0[v]), p1 = multiply_low_halves(m1, c2[v]);
      c0[v] = (p1 >> 32) ^ c1[v] ^ k0, c2[v] = (p0 >> 32) ^ c3[v] ^ k1;
      c1[v] = p1, c3[v] = p0;
    }
    k0 = (k0 + 0x9E3779B9u) & low_half, k1 = (k1 + 0xBB67AE85u) & low_half;
  }
#pragma GCC unroll 8
  for (int v = 0; v < kBlockVectors; ++v)
    store_in_turn((c0[v] & low_half) | (c1[v] << 32), (c2[v] & low_half) | (c3[v] << 32), words + 4 * v * kWordLanes);
}

template <class R>
constexpr int kPerBlock = sizeof(R) == 4 ? 4 : 2;

// Where the N elements that row b uses begin in a mask's stream, or in its factors.
CW_INLINE int64_t start_of(const cw_mask &m, int64_t b, int64_t N) {
  return m.first + (m.rows == 1 ? 0 : b * (m.width == 0 ? N : m.width));
}

// Multiply (or, if `first`, set) factors[0, n) by the mask's elements [flat, flat + n) of step `step`.
template <class R>
void stream_factors(const cw_mask &m, int64_t step, int64_t flat, int64_t n, R *factors, bool first) {
  constexpr int per = kPerBlock<R>, many = kBlocks * per;
  const R scale = R(m.scale);
  const Counter start = Counter{m.high, m.low}.plus(uint64_t(step) * m.stride);
  int64_t block = flat / per;
  int64_t skip = flat - block * per;
  alignas(64) uint32_t words[4 * kBlocks];
  alignas(64) R kept[many];
  while (n > 0) {
    philox_blocks(m.key, start.plus(uint64_t(block)), words);
    if constexpr (sizeof(R) == 4) {
      const int32_t threshold = int32_t(m.threshold);
      const uint32_t mantissa = (uint32_t(1) << (m.bits == 0 ? 23 : m.bits)) - 1;
      for (int i = 0; i < many; ++i) kept[i] = int32_t(words[i] & mantissa) >= threshold ? scale : R(0);
    } else {
      for (int i = 0; i < many; ++i) {
        const uint64_t mantissa = (uint64_t(words[2 * i] & 0xfffffu) << 32) | words[2 * i + 1];
        kept[i] = mantissa >= m.threshold ? scale : R(0);
      }
    }
    const int64_t take = n < many - skip ? n : many - skip;
    if (take == many) {
      for (int i = 0; i < many; ++i) factors[i] = first ? kept[i] : factors[i] * kept[i];
    } else {
      for (int64_t i = 0; i < take; ++i) factors[i] = first ? kept[skip + i] : factors[i] * kept[skip + i];
    }
    factors += take, n -= take, block += kBlocks, skip = 0;
  }
}

// All masks of one place, multiplied together: factor of (row b, unit u) at data[b * ld + u].
template <class R>
struct Factors {
  const cw_mask *masks = nullptr;
  int64_t count = 0;  // of masks of this place
  int64_t all = 0, place = 0, N = 0, rows = 0, ld = 0;
  bool every_step = false;
  R *data = nullptr;

  __attribute__((noinline)) void init(const cw_mask *masks_, int64_t all_, int64_t place_, int64_t B, int64_t N_) {
    masks = masks_, all = all_, place = place_, N = N_, rows = 1;
    for (int64_t i = 0; i < all; ++i) {
      if (masks[i].place != place) continue;
      ++count;
      if (masks[i].rows != 1 || (masks[i].factors == nullptr && masks[i].stride != 0)) rows = B;
      if (masks[i].factors == nullptr && masks[i].stride != 0) every_step = true;
    }
    ld = rows == 1 ? 0 : N;
  }
  bool any() const { return count != 0; }
  int64_t elements() const { return count ? rows * N : 0; }

  // Units [u0, u1) of rows [b0, b1) for one step. `step_of(b)` is the number of the step that row b is at.
  template <class StepOf>
  void fill(int64_t b0, int64_t b1, int64_t u0, int64_t u1, bool one_step, StepOf step_of) const {
    if (rows == 1) b0 = 0, b1 = 1;
    if (u0 >= u1 || b0 >= b1) return;
    bool first = true;
    for (int64_t i = 0; i < all; ++i) {
      const cw_mask &m = masks[i];
      if (m.place != place) continue;
      const bool shared = m.rows == 1;
      const bool dense = m.width == 0 || m.width == N;
      const bool whole_rows =
          u0 == 0 && u1 == N && dense && !shared && m.factors == nullptr && (one_step || m.stride == 0);
      if (whole_rows) {
        stream_factors<R>(m, m.stride == 0 ? 0 : step_of(b0), b0 * N, (b1 - b0) * N, data + b0 * N, first);
      } else {
        for (int64_t b = b0; b < b1; ++b) {
          R *row = data + b * ld + u0;
          const int64_t flat = start_of(m, b, N) + u0;
          if (m.factors != nullptr) {
            const R *given = static_cast<const R *>(m.factors) + flat;
            for (int64_t u = 0; u < u1 - u0; ++u) row[u] = first ? given[u] : row[u] * given[u];
          } else {
            const int64_t step = m.stride == 0 ? 0 : step_of(b);
            if (step >= 0) stream_factors<R>(m, step, flat, u1 - u0, row, first);
          }
        }
      }
      first = false;
    }
  }
  CW_INLINE Vec<R> at(int64_t b, int64_t u, int n) const { return load(data + b * ld + u, n); }
  // Zoneout: the factors are shares of the new value.
  CW_INLINE Vec<R> mix(int64_t b, int64_t u, int n, Vec<R> fresh, Vec<R> old) const {
    const Vec<R> share = at(b, u, n);
    return share * fresh + (R(1) - share) * old;
  }
};

// Elements of a mask that are computed at a time where they are used at once.
constexpr int64_t kChunk = 1024;

template <class R>
CW_INLINE void times(const R *from, const R *factors, R *to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i] * factors[i];
}

// to = from * one mask, for the rows [row0, row1) of a [T * B, N] sequence.
template <class R, class StepOf>
void mask_rows_once(const R *from, R *to, int64_t B, int64_t N, const cw_mask &m, int64_t row0, int64_t row1,
                    bool one_step, StepOf step_of) {
  alignas(64) R f[kChunk];
  const auto chunk_of = [&](const R *given, int64_t step, int64_t flat, int64_t n) -> const R * {
    if (given != nullptr) return given + flat;
    stream_factors<R>(m, step, flat, n, f, true);
    return f;
  };
  const R *given = static_cast<const R *>(m.factors);
  if (given != nullptr || m.stride == 0) {
    for (int64_t b = 0; b < (m.rows == 1 ? 1 : B); ++b)
      for (int64_t u = 0; u < N; u += kChunk) {
        const int64_t n = N - u < kChunk ? N - u : kChunk;
        const R *factors = chunk_of(given, 0, start_of(m, b, N) + u, n);
        const int64_t every = m.rows == 1 ? 1 : B;
        int64_t row = m.rows == 1 ? row0 : row0 + ((b - row0) % B + B) % B;
        for (; row < row1; row += every) times(from + row * N + u, factors, to + row * N + u, n);
      }
    return;
  }
  for (int64_t row = row0; row < row1;) {
    const int64_t t = row / B, b = row % B;
    int64_t rows = one_step && (m.width == 0 || m.width == N) ? B - b : 1;
    if (rows > row1 - row) rows = row1 - row;
    const int64_t step = step_of(t, b);
    if (step >= 0)
      for (int64_t i = 0; i < rows * N; i += kChunk) {
        const int64_t n = rows * N - i < kChunk ? rows * N - i : kChunk;
        times(from + row * N + i, chunk_of(nullptr, step, start_of(m, b, N) + i, n), to + row * N + i, n);
      }
    row += rows;
  }
}

template <class R>
void mask_rows(const R *x, R *out, int64_t T, int64_t B, int64_t N, const cw_mask *masks, int64_t count,
               const int32_t *lengths, bool reverse, int64_t row0, int64_t row1) {
  const bool one_step = !(reverse && lengths != nullptr);
  const auto step_of = [=](int64_t m, int64_t b) {
    return !reverse ? m : (lengths != nullptr ? int64_t(lengths[b]) : T) - 1 - m;
  };
  if (count == 0 && x != out) std::memcpy(out + row0 * N, x + row0 * N, size_t(row1 - row0) * size_t(N) * sizeof(R));
  for (int64_t i = 0; i < count; ++i)
    mask_rows_once<R>(i == 0 ? x : out, out, B, N, masks[i], row0, row1, one_step, step_of);
  if (lengths != nullptr)
    for (int64_t row = row0; row < row1; ++row)
      if (row / B >= lengths[row % B]) std::memset(out + row * N, 0, size_t(N) * sizeof(R));
}
