// Layer normalization of rows: what the recurrences that have it share. A row's statistics need all of its units, so a
// step first makes its products for all units and then goes through the rows, each by one thread: no sum depends on the
// number of threads.
// Included once per instruction set, inside its namespace: no include guard.

// The sum of a vector's lanes: halves added to each other, which takes fewer steps than lane after lane.
template <class R, int BYTES>
struct LanesOf {
  typedef R V __attribute__((vector_size(BYTES), may_alias));
  static CW_INLINE R sum(V v) {
    typename LanesOf<R, BYTES / 2>::V low, high;
    __builtin_memcpy(&low, &v, BYTES / 2);
    __builtin_memcpy(&high, reinterpret_cast<const char *>(&v) + BYTES / 2, BYTES / 2);
    return LanesOf<R, BYTES / 2>::sum(low + high);
  }
};
template <>
struct LanesOf<float, 8> {
  typedef float V __attribute__((vector_size(8), may_alias));
  static CW_INLINE float sum(V v) { return v[0] + v[1]; }
};
template <>
struct LanesOf<double, 16> {
  typedef double V __attribute__((vector_size(16), may_alias));
  static CW_INLINE double sum(V v) { return v[0] + v[1]; }
};
template <class R>
CW_INLINE R sum_of(Vec<R> v) {
  return LanesOf<R, CW_BYTES>::sum(v);
}
template <class R>
CW_INLINE int lanes_from(int64_t u, int64_t units) {
  return int(units - u < kLanes<R> ? units - u : kLanes<R>);
}

// Of a row: its mean, and 1 / sqrt(variance + epsilon).
template <class R>
struct Moments {
  R mean, inverse;
};
// Of COUNT rows at once, whose sums do not wait for each other.
template <class R, int COUNT>
__attribute__((noinline)) void moments_of(R *const *rows, int64_t units, R epsilon, Moments<R> *found) {
  constexpr int L = kLanes<R>;
  Vec<R> sums[COUNT];
  for (int k = 0; k < COUNT; ++k) sums[k] = zero<R>();
  for (int64_t u = 0; u < units; u += L)
    for (int k = 0; k < COUNT; ++k) sums[k] += load(rows[k] + u, lanes_from<R>(u, units));
  for (int k = 0; k < COUNT; ++k) found[k].mean = sum_of<R>(sums[k]) / R(units), sums[k] = zero<R>();
  const int64_t whole = units / L * L;
  for (int64_t u = 0; u < whole; u += L)
    for (int k = 0; k < COUNT; ++k) {
      const Vec<R> d = load(rows[k] + u) - found[k].mean;
      sums[k] += d * d;
    }
  for (int k = 0; k < COUNT; ++k) {
    R square = sum_of<R>(sums[k]);
    for (int64_t u = whole; u < units; ++u) square += (rows[k][u] - found[k].mean) * (rows[k][u] - found[k].mean);
    found[k].inverse = R(1) / std::sqrt(square / R(units) + epsilon);
  }
}

// The normalizations of a call, numbered as in cw_sequence.
template <class R>
struct Norms {
  const cw_sequence &s;
  const int count;  // of normalizations, those that a coupled cell lacks among them
  const int kept;   // of numbers that a row of a step keeps for backward
  const int64_t B, H;

  explicit Norms(const cw_sequence &s_, int count_, int kept_) : s(s_), count(count_), kept(kept_), B(s_.B), H(s_.H) {}
  R epsilon() const { return R(s.norm_epsilon); }
  CW_INLINE Vec<R> scaled(int k, Vec<R> unit, int64_t u, int n) const {
    return unit * load(static_cast<const R *>(s.gamma[k]) + u, n) + load(static_cast<const R *>(s.beta[k]) + u, n);
  }
  R *kept_of(int64_t at, int64_t b) const { return static_cast<R *>(s.norm_kept) + (at * B + b) * kept; }
  // Take the gradient of unit * gamma + beta: sums for gamma and beta; returns the gradient of `unit`.
  CW_INLINE Vec<R> back(int k, int64_t b, int64_t u, int n, Vec<R> d, Vec<R> unit) const {
    R *sum = static_cast<R *>(s.d_norm) + (b * count + k) * 2 * H + u;
    store(sum, load(sum, n) + d * unit, n);
    store(sum + H, load(sum + H, n) + d, n);
    return d * load(static_cast<const R *>(s.gamma[k]) + u, n);
  }
  void clear() const { std::memset(s.d_norm, 0, size_t(B * count * 2 * H) * sizeof(R)); }
};

// The gradient of a row before its normalization, from that of the normalized row: two means over the row come first.
template <class R>
struct BackNorm {
  Vec<R> sum = {}, product = {};
  R inverse = 0, mean = 0, slope = 0;
  CW_INLINE void add(Vec<R> d, Vec<R> unit) { sum += d, product += d * unit; }
  void finish(R inverse_, int64_t units) {
    inverse = inverse_, mean = sum_of<R>(sum) / R(units), slope = sum_of<R>(product) / R(units);
  }
  CW_INLINE Vec<R> of(Vec<R> d, Vec<R> unit) const { return inverse * (d - mean - unit * slope); }
};
