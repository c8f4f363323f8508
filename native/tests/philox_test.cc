// Random masks: published Philox vectors, then every instruction set against one block at a time.
#include <vector>

#include "cases.h"
#include "plain/masks.h"
#include "report.h"

using namespace cellweave_tests;
using cellweave::plain::Counter;

namespace {

// Source: Random123's kat_vectors, philox4x32 with 10 rounds.
struct KnownAnswer {
  uint32_t counter[4], key[2], words[4];
};
const KnownAnswer kKnown[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

uint64_t joined(uint32_t low, uint32_t high) { return uint64_t(high) << 32 | low; }

void check_known_answers() {
  for (const KnownAnswer &known : kKnown) {
    const Counter counter =
        Counter(joined(known.counter[2], known.counter[3])) << 64 | joined(known.counter[0], known.counter[1]);
    const auto block = cellweave::plain::philox(joined(known.key[0], known.key[1]), counter);
    for (int i = 0; i < 4; ++i)
      expect(block.word[i] == known.words[i], "philox: word %d is %08x, expected %08x", i, block.word[i],
             known.words[i]);
  }
}

// The mantissa at one place of one step, straight from the words of its block.
template <typename Real>
uint64_t mantissa_at(const cw_mask &mask, int64_t step, int64_t flat) {
  const int64_t draws = sizeof(Real) == 4 ? 4 : 2;
  Counter counter = Counter(mask.high) << 64 | mask.low;
  for (int64_t s = 0; s < step; ++s) counter += mask.stride;
  counter += Counter(flat / draws);
  const auto block = cellweave::plain::philox(mask.key, counter);
  if (sizeof(Real) == 4) return block.word[flat % 4] & 0x7fffff;
  return uint64_t(block.word[flat % 2 * 2] & 0xfffff) << 32 | block.word[flat % 2 * 2 + 1];
}

// A threshold equal to one element's mantissa keeps it, the next one drops it: this sees every bit of the mantissa.
template <typename Real>
void check_thresholds(int64_t isa, const cw_mask &base, int64_t T, int64_t B, int64_t N, Random &random) {
  const std::vector<Real> ones(size_t(T * B * N), Real(1));
  for (int trial = 0; trial < 6; ++trial) {
    const int64_t m = random.below(T), b = random.below(B), n = random.below(N);
    cw_mask mask = base;
    mask.scale = 1.25;
    const uint64_t exact = mantissa_at<Real>(mask, mask.stride ? m : 0, (mask.rows == 1 ? 0 : b) * N + n);
    for (const uint64_t threshold : {exact, exact + 1}) {
      mask.threshold = threshold;
      std::vector<Real> out(ones.size(), Real(-1));
      cw_mask_sequence(dtype_of<Real>, ones.data(), out.data(), T, B, N, &mask, 1, nullptr, 0, 1);
      bool right = true;
      for (int64_t i = 0; i < T * B * N; ++i) {
        const int64_t step = mask.stride ? i / (B * N) : 0, row = mask.rows == 1 ? 0 : i / N % B;
        const bool kept = mantissa_at<Real>(mask, step, row * N + i % N) >= threshold;
        right = right && out[size_t(i)] == (kept ? Real(1.25) : Real(0));
      }
      expect(right, "%s: a mask of %d-bit numbers differs: T%d B%d N%d rows%d stride%llu high%llx low%llx",
             isa_name(isa), int(sizeof(Real) * 8), int(T), int(B), int(N), int(mask.rows),
             (unsigned long long)mask.stride, (unsigned long long)mask.high, (unsigned long long)mask.low);
    }
  }
}

void check_masks(int64_t isa) {
  Random random(7);
  cw_set_isa(isa);
  for (const int64_t B : {1, 2, 5})
    for (const int64_t N : {1, 2, 3, 4, 5, 8, 31, 64, 67, 130})
      for (const uint64_t low : {uint64_t(0), uint64_t(0xfffffffd), ~uint64_t(0) - 20, random.bits()})
        for (const uint64_t high : {uint64_t(0), ~uint64_t(0)})
          for (int kind = 0; kind < 3; ++kind) {
            cw_mask mask = {};
            mask.key = random.bits(), mask.high = high, mask.low = low;
            mask.rows = kind == 0 ? 1 : B;
            mask.stride = kind == 2 ? (random.coin() ? uint64_t(256 * B * N) : uint64_t(1) << 61) : 0;
            check_thresholds<float>(isa, mask, 3, B, N, random);
            check_thresholds<double>(isa, mask, 3, B, N, random);
          }
}

}  // namespace

int main() {
  check_known_answers();
  std::vector<int64_t> isas = vector_isas();
  isas.push_back(CW_PLAIN);
  for (const int64_t isa : isas) check_masks(isa);
  return finish("philox_test");
}
