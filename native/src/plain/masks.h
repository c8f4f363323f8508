// Random masks, one element at a time: Philox4x32-10 at the element's own place in the stream.
#ifndef CELLWEAVE_PLAIN_MASKS_H_
#define CELLWEAVE_PLAIN_MASKS_H_

#include "cellweave.h"

namespace cellweave {
namespace plain {

__extension__ typedef unsigned __int128 Counter;

struct Block {
  uint32_t word[4];
};

// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
inline Block philox(uint64_t key, Counter counter) {
  Block x = {{uint32_t(counter), uint32_t(counter >> 32), uint32_t(counter >> 64), uint32_t(counter >> 96)}};
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53) * x.word[0], p1 = uint64_t(0xCD9E8D57) * x.word[2];
    x = {{uint32_t(p1 >> 32) ^ x.word[1] ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ x.word[3] ^ k1, uint32_t(p0)}};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return x;
}

inline uint64_t mantissa(const Block &block, int64_t place, const cw_mask &mask, float) {
  return block.word[place] & ((uint64_t(1) << (mask.bits == 0 ? 23 : mask.bits)) - 1);
}

inline uint64_t mantissa(const Block &block, int64_t place, const cw_mask &, double) {
  return uint64_t(block.word[2 * place] & 0xFFFFF) << 32 | block.word[2 * place + 1];
}

// `value` times the mask's factor for unit `unit` of N of row `row`, whose step has number `number`.
template <typename Real>
Real masked(const cw_mask &mask, int64_t number, int64_t row, int64_t unit, int64_t N, Real value) {
  const int64_t flat = (mask.rows == 1 ? 0 : row) * (mask.width == 0 ? N : mask.width) + mask.first + unit;
  if (mask.factors) return value * static_cast<const Real *>(mask.factors)[flat];
  constexpr int64_t draws = 16 / (sizeof(Real) == 4 ? 4 : 8);
  const Counter counter =
      (Counter(mask.high) << 64) + mask.low + Counter(uint64_t(number)) * mask.stride + flat / draws;
  const bool kept = mantissa(philox(mask.key, counter), flat % draws, mask, Real()) >= mask.threshold;
  return kept ? value * Real(mask.scale) : Real(0);
}

// Number of the step that a row meets at memory index m, which lies within the row's length.
inline int64_t step_number(int64_t m, int64_t row, int64_t T, const int32_t *lengths, int64_t reverse) {
  return reverse ? (lengths ? lengths[row] : T) - 1 - m : m;
}

}  // namespace plain
}  // namespace cellweave
#endif
