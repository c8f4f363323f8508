// Vectors of one instruction set. Included once per instruction set, inside its namespace: no include guard.
// CW_BYTES is the width of a vector register.

template <class R>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float V __attribute__((vector_size(CW_BYTES), may_alias));
  typedef float Unaligned __attribute__((vector_size(CW_BYTES), aligned(4), may_alias));
  typedef int32_t I __attribute__((vector_size(CW_BYTES), may_alias));
};
template <>
struct VecOf<double> {
  typedef double V __attribute__((vector_size(CW_BYTES), may_alias));
  typedef double Unaligned __attribute__((vector_size(CW_BYTES), aligned(8), may_alias));
  typedef int64_t I __attribute__((vector_size(CW_BYTES), may_alias));
};
template <class R>
using Vec = typename VecOf<R>::V;
template <class R>
using IVec = typename VecOf<R>::I;
template <class R>
constexpr int kLanes = CW_BYTES / int(sizeof(R));

#define CW_INLINE inline __attribute__((always_inline))

template <class R>
CW_INLINE Vec<R> splat(R x) {
  return x - Vec<R>{};  // x - 0 is x even for -0, so that this is one broadcast; 0 + x would be an addition
}
template <class R>
CW_INLINE Vec<R> load(const R *p) {
  return *reinterpret_cast<const typename VecOf<R>::Unaligned *>(p);
}
template <class R>
CW_INLINE void store(R *p, Vec<R> v) {
  *reinterpret_cast<typename VecOf<R>::Unaligned *>(p) = v;
}
template <class R>
__attribute__((noinline)) Vec<R> load_some(const R *p, int n) {
  Vec<R> v = {};
  __builtin_memcpy(&v, p, size_t(n) * sizeof(R));
  return v;
}
template <class R>
__attribute__((noinline)) void store_some(R *p, Vec<R> v, int n) {
  __builtin_memcpy(p, &v, size_t(n) * sizeof(R));
}
// The first n lanes; the others are 0 on loading and left alone on storing.
template <class R>
CW_INLINE Vec<R> load(const R *p, int n) {
  return __builtin_expect(n == kLanes<R>, 1) ? load(p) : load_some<R>(p, n);
}
template <class R>
CW_INLINE void store(R *p, Vec<R> v, int n) {
  if (__builtin_expect(n == kLanes<R>, 1)) return store(p, v);
  store_some<R>(p, v, n);
}
template <class R>
CW_INLINE Vec<R> select(IVec<R> condition, Vec<R> yes, Vec<R> no) {
  return condition ? yes : no;
}
template <class R>
CW_INLINE Vec<R> zero() {
  return Vec<R>{};
}
// Bounds that let NaN through.
template <class R>
CW_INLINE Vec<R> at_most(Vec<R> x, R bound) {
  return select<R>(x > bound, splat<R>(bound), x);
}
template <class R>
CW_INLINE Vec<R> at_least(Vec<R> x, R bound) {
  return select<R>(x < bound, splat<R>(bound), x);
}
template <class R>
CW_INLINE Vec<R> absolute(Vec<R> x) {
  IVec<R> bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  bits &= (IVec<R>{} + ~(decltype(bits[0] + 0)(1) << (8 * sizeof(R) - 1)));
  __builtin_memcpy(&x, &bits, sizeof bits);
  return x;
}
// |magnitude| with the sign of x.
template <class R>
CW_INLINE Vec<R> with_sign(Vec<R> magnitude, Vec<R> x) {
  IVec<R> m, s;
  __builtin_memcpy(&m, &magnitude, sizeof m);
  __builtin_memcpy(&s, &x, sizeof s);
  const IVec<R> sign = IVec<R>{} + (decltype(m[0] + 0)(1) << (8 * sizeof(R) - 1));
  m = (m & ~sign) | (s & sign);
  __builtin_memcpy(&magnitude, &m, sizeof m);
  return magnitude;
}
