// One table of functions per instruction set. abi.cc checks the arguments, then calls the table in use, so a kernel
// may trust every field of its cw_sequence; T, B, H and P are at least 1 there.
#ifndef CELLWEAVE_KERNELS_H_
#define CELLWEAVE_KERNELS_H_

#include <cstdint>

#include "cellweave.h"

namespace cellweave {

struct Kernels {
  int64_t (*scratch_bytes)(const cw_sequence *s, int64_t backward);
  int64_t (*packed_bytes)(const cw_sequence *s);
  int64_t (*forward)(const cw_sequence *s);
  int64_t (*backward)(const cw_sequence *s);
  int64_t (*mask_sequence)(int64_t dtype, const void *x, void *out, int64_t T, int64_t B, int64_t N,
                           const cw_mask *masks, int64_t n_masks, const int32_t *lengths, int64_t reverse,
                           int64_t threads);
  uint64_t (*digest)(const void *data, int64_t bytes, int64_t threads);
  bool (*has_bfloat16)();  // whether this machine makes products of bfloat16 with them
};

// Of a digest: memory is summed up in blocks of as many bytes, and these in chunks that threads share out.
constexpr int64_t kDigestBlock = 64, kDigestChunk = int64_t(1) << 15;
// A number whose every bit depends on every bit of x: the end of SplitMix64 (Steele, Lea, Flood 2014). Not shared among
// instruction sets.
static inline uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

extern const Kernels kPlain;
// Linked only where CMake found their source and the target machine; see CELLWEAVE_HAVE_* there.
extern const Kernels kPortable;
extern const Kernels kAvx2;
extern const Kernels kAvx512;

}  // namespace cellweave
#endif
