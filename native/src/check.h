// What the functions of cellweave.h demand of their arguments.
#ifndef CELLWEAVE_CHECK_H_
#define CELLWEAVE_CHECK_H_

#include "cellweave.h"

namespace cellweave {

enum class Family { kRnn, kGru, kLstm };
enum class Pass { kForward, kBackward };

// Sizes, options and masks: everything that cw_scratch_bytes reads.
int64_t check_options(const cw_sequence &s, Pass pass);

// Everything else: buffers, lengths. With T or B of 0 only the buffers that are then used.
int64_t check_buffers(const cw_sequence &s, Pass pass);

// Nothing to run.
bool is_empty(const cw_sequence &s);
bool is_family(const cw_sequence &s, Family family);
// Whether rows are normalized, and how many normalizations a step then has.
bool normalizes(const cw_sequence &s);
int norms_of(const cw_sequence &s);

int64_t check_mask_sequence(int64_t dtype, const void *x, const void *out, int64_t T, int64_t B, int64_t N,
                            const cw_mask *masks, int64_t n_masks, const int32_t *lengths, int64_t reverse,
                            int64_t threads);

}  // namespace cellweave
#endif
