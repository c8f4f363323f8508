// Activation functions on vectors, and their slopes from the activated value.
// Included once per instruction set, inside its namespace: no include guard.

template <class R>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  static constexpr float lowest = -87.0f, highest = 88.0f;  // 2^n stays a normal number
  static constexpr float log2e = 1.44269504f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr float rounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  static constexpr float tanh_end = 9.1f;        // tanh is 1 to the last bit from here on
  static constexpr int mantissa = 23, bias = 127, degree = 7;
};
template <>
struct ExpConstants<double> {
  static constexpr double lowest = -708.0, highest = 709.0;
  static constexpr double log2e = 1.4426950408889634, ln2_high = 0.693147180369123816490,
                          ln2_low = 1.90821492927058770002e-10;
  static constexpr double rounder = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double tanh_end = 19.1;
  static constexpr int mantissa = 52, bias = 1023, degree = 13;
};

// exp(x) = power * (1 + minus_one): power is 2^n, minus_one is exp(r) - 1 for |r| <= ln(2) / 2, a Taylor polynomial
// whose first omitted term is below half a unit of the last place.
template <class R>
CW_INLINE void split_exp(Vec<R> x, Vec<R> &power, Vec<R> &minus_one) {
  using C = ExpConstants<R>;
  x = at_least<R>(at_most<R>(x, C::highest), C::lowest);
  const Vec<R> shifted = x * C::log2e + C::rounder;
  const Vec<R> n = shifted - C::rounder;
  const Vec<R> r = (x - n * C::ln2_high) - n * C::ln2_low;
  constexpr R inverse[14] = {
      R(1),        R(1),         R(1) / 2,      R(1) / 6,       R(1) / 24,       R(1) / 120,       R(1) / 720,
      R(1) / 5040, R(1) / 40320, R(1) / 362880, R(1) / 3628800, R(1) / 39916800, R(1) / 479001600, R(1) / 6227020800.0};
  Vec<R> p = splat<R>(inverse[C::degree]);
#pragma GCC unroll 16
  for (int k = C::degree - 1; k >= 2; --k) p = p * r + inverse[k];
  minus_one = r + (r * r) * p;
  IVec<R> bits;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  const Vec<R> rounder = splat<R>(C::rounder);
  IVec<R> rounder_bits;
  __builtin_memcpy(&rounder_bits, &rounder, sizeof rounder_bits);
  bits = (bits - rounder_bits + C::bias) << C::mantissa;
  __builtin_memcpy(&power, &bits, sizeof bits);
}
template <class R>
CW_INLINE Vec<R> exp_of(Vec<R> x) {
  Vec<R> power, m;
  split_exp<R>(x, power, m);
  return power + power * m;
}
template <class R>
CW_INLINE Vec<R> expm1_of(Vec<R> x) {
  Vec<R> power, m;
  split_exp<R>(x, power, m);
  return power * m + (power - R(1));
}
template <class R>
CW_INLINE Vec<R> sigmoid_of(Vec<R> x) {
  return R(1) / (R(1) + exp_of<R>(-x));
}
template <class R>
CW_INLINE Vec<R> tanh_of(Vec<R> x) {
  const Vec<R> e = expm1_of<R>(R(2) * at_most<R>(absolute<R>(x), ExpConstants<R>::tanh_end));
  return with_sign<R>(e / (e + R(2)), x);
}
constexpr double kSeluScale = 1.0507009873554805, kSeluAlpha = 1.6732632423543772;
// tf.nn.leaky_relu's slope is a float32, whatever it multiplies.
constexpr float kLeakySlope = 0.2f;
// From here on softplus is the identity: what is missing is less than a float64 of this size can show.
constexpr int kSoftplusEnd = 40;

template <class R>
__attribute__((noinline)) Vec<R> rare_activation(int64_t kind, Vec<R> x) {
  switch (kind) {
    case CW_RELU: return select<R>(x <= R(0), zero<R>(), x);
    case CW_RELU6: return at_most<R>(at_least<R>(x, R(0)), R(6));
    case CW_SOFTSIGN: return x / (R(1) + absolute<R>(x));
    case CW_ELU: return select<R>(x > R(0), x, expm1_of<R>(x));
    case CW_SELU: return R(kSeluScale) * select<R>(x > R(0), x, R(kSeluAlpha) * expm1_of<R>(x));
    case CW_HARD_SIGMOID: return at_most<R>(at_least<R>(R(0.2) * x + R(0.5), R(0)), R(1));
    case CW_LEAKY_RELU: return select<R>(x > R(0), x, R(kLeakySlope) * x);
    case CW_EXPONENTIAL:
      for (int i = 0; i < kLanes<R>; ++i) x[i] = std::exp(x[i]);  // overflows to infinity as libm does
      return x;
    case CW_SOFTPLUS:
      for (int i = 0; i < kLanes<R>; ++i) x[i] = x[i] > R(kSoftplusEnd) ? x[i] : std::log1p(std::exp(x[i]));
      return x;
    default: return x;
  }
}
template <class R>
CW_INLINE Vec<R> activate(int64_t kind, Vec<R> x) {
  if (__builtin_expect(kind == CW_TANH, 1)) return tanh_of<R>(x);
  if (__builtin_expect(kind == CW_SIGMOID, 1)) return sigmoid_of<R>(x);
  return rare_activation<R>(kind, x);
}
// Not inlined: for code that is long already.
template <class R>
__attribute__((noinline)) Vec<R> activate_apart(int64_t kind, Vec<R> x) {
  return activate<R>(kind, x);
}
template <class R>
__attribute__((noinline)) Vec<R> rare_slope(int64_t kind, Vec<R> y) {
  const Vec<R> one = splat<R>(R(1)), none = zero<R>();
  switch (kind) {
    case CW_RELU: return select<R>(y > R(0), one, none);
    case CW_RELU6: return select<R>((y > R(0)) & (y < R(6)), one, none);
    case CW_SOFTSIGN: {
      const Vec<R> d = R(1) - absolute<R>(y);
      return d * d;
    }
    case CW_SOFTPLUS: return -expm1_of<R>(-y);
    case CW_ELU: return select<R>(y > R(0), one, y + R(1));
    case CW_SELU: return select<R>(y < R(0), y + R(kSeluScale * kSeluAlpha), splat<R>(R(kSeluScale)));
    case CW_HARD_SIGMOID: return select<R>((y > R(0)) & (y < R(1)), splat<R>(R(0.2)), none);
    case CW_LEAKY_RELU: return select<R>(y > R(0), one, splat<R>(R(kLeakySlope)));
    case CW_EXPONENTIAL: return y;
    default: return one;
  }
}
// Slope of an activation at the point where its value is y.
template <class R>
CW_INLINE Vec<R> slope(int64_t kind, Vec<R> y) {
  if (__builtin_expect(kind == CW_TANH, 1)) return R(1) - y * y;
  if (__builtin_expect(kind == CW_SIGMOID, 1)) return y * (R(1) - y);
  return rare_slope<R>(kind, y);
}
template <class R>
__attribute__((noinline)) Vec<R> slope_apart(int64_t kind, Vec<R> y) {
  return slope<R>(kind, y);
}
