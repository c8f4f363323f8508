// One table of functions per instruction set. abi.cc checks the arguments, then calls the table in use, so a kernel
// may trust every field of its cw_sequence; T, B, H and P are at least 1 there.
#ifndef CELLWEAVE_KERNELS_H_
#define CELLWEAVE_KERNELS_H_

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
};

extern const Kernels kPlain;
// Linked only where CMake found their source and the target machine; see CELLWEAVE_HAVE_* there.
extern const Kernels kPortable;
extern const Kernels kAvx2;
extern const Kernels kAvx512;

}  // namespace cellweave
#endif
