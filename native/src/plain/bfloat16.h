// Rounding to bfloat16: the upper half of a float's bits.
#ifndef CELLWEAVE_PLAIN_BFLOAT16_H_
#define CELLWEAVE_PLAIN_BFLOAT16_H_

#include <cstdint>
#include <cstring>

namespace cellweave {
namespace plain {

// The nearest bfloat16, the even one of two; NaN stays NaN.
inline float rounded_to_bfloat16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  bits = is_nan ? bits | 0x00400000u : bits + 0x7FFFu + (bits >> 16 & 1);
  bits &= 0xFFFF0000u;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace plain
}  // namespace cellweave
#endif
