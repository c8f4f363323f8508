// The kernels of one instruction set, of which two files are made that compile side by side: one with the loops in
// double, one with those in float and everything else. The including file defines CW_NAMESPACE and CW_BYTES, and
// CW_TABLE (the second file) or not (the first).

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <thread>
#if defined(CELLWEAVE_STD_THREADS)
#include <vector>
#elif defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(CELLWEAVE_HAVE_TILES)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include "cellweave.h"
#include "check.h"
#include "kernels.h"

namespace cellweave {
namespace CW_NAMESPACE {

#include "common/simd-inl.h"

#include "common/activations-inl.h"
#include "common/masks-inl.h"
#include "common/tiles-inl.h"
#include "common/product-inl.h"
#include "common/team-inl.h"
#include "common/digest-inl.h"
#include "common/run-inl.h"
#include "common/norm-inl.h"
#include "gru/gru-inl.h"
#include "gru/gru-norm-inl.h"
#include "lstm/lstm-inl.h"
#include "lstm/lstm-norm-inl.h"
#include "rnn/rnn-inl.h"
#include "rnn/rnn-norm-inl.h"

// What to do with a loop once its type is known: count its scratch, or run it.
struct Count {
  int64_t bytes = 0, packed_bytes = 0;
  const bool apart;  // packed weights lie in memory of their own
  explicit Count(bool apart_) : apart(apart_) {}
  template <class Loop>
  void operator()(const cw_sequence &s) {
    Loop loop(s);
    Arena arena(nullptr, 0), packed(nullptr, 0);
    loop.layout(arena, apart ? packed : arena);
    arena.take<uint16_t>(s.threads * rounded_rows(s));
    bytes = arena.used();
    packed_bytes = packed.used();
  }
};
struct Execute {
  int64_t status = CW_OK;
  const bool forward;
  explicit Execute(bool forward_) : forward(forward_) {}
  template <class Loop>
  void operator()(const cw_sequence &s) {
    Loop loop(s);
    Arena arena(s.scratch, s.scratch_bytes), packed(s.packed, INT64_MAX);
    loop.layout(arena, forward && s.packed != nullptr ? packed : arena);
    const int64_t rounded = rounded_rows(s);
    uint16_t *rows = arena.take<uint16_t>(s.threads * rounded);
    if (!arena.fits()) {
      status = CW_SCRATCH_TOO_SMALL;
      return;
    }
    run_team(s.threads, [&](int id, int count, Barrier &barrier) {
      const Share share(s, forward, id, count, barrier);
      own_rows = rows + id * rounded;
      loop.work(share);
    });
  }
};

template <class R, class Do>
void with_forward(const cw_sequence &s, Do &act) {
  const bool norm = normalizes(s), coupled = s.coupled != 0;
  switch (s.op) {
    case CW_RNN:
      return norm ? act.template operator()<RnnNormForward<R>>(s) : act.template operator()<RnnForward<R>>(s);
    case CW_GRU_BEFORE:
      return norm ? act.template operator()<GruBeforeNormForward<R>>(s)
                  : act.template operator()<GruBeforeForward<R>>(s);
    case CW_GRU_AFTER:
      return norm ? act.template operator()<GruAfterNormForward<R>>(s) : act.template operator()<GruAfterForward<R>>(s);
    default:
      if (coupled)
        return norm ? act.template operator()<LstmNormForward<R, true>>(s)
                    : act.template operator()<LstmForward<R, true>>(s);
      return norm ? act.template operator()<LstmNormForward<R, false>>(s) : act.template operator()<LstmForward<R>>(s);
  }
}
template <class R, class Do>
void with_backward(const cw_sequence &s, Do &act) {
  const bool norm = normalizes(s), coupled = s.coupled != 0;
  switch (s.op) {
    case CW_RNN:
      return norm ? act.template operator()<RnnNormBackward<R>>(s) : act.template operator()<RnnBackward<R>>(s);
    case CW_GRU_BEFORE:
      return norm ? act.template operator()<GruBeforeNormBackward<R>>(s)
                  : act.template operator()<GruBeforeBackward<R>>(s);
    case CW_GRU_AFTER:
      return norm ? act.template operator()<GruAfterNormBackward<R>>(s)
                  : act.template operator()<GruAfterBackward<R>>(s);
    default:
      if (coupled)
        return norm ? act.template operator()<LstmNormBackward<R, true>>(s)
                    : act.template operator()<LstmBackward<R, true>>(s);
      return norm ? act.template operator()<LstmNormBackward<R, false>>(s)
                  : act.template operator()<LstmBackward<R>>(s);
  }
}

// The loops in double are compiled in the file without a table; the one with a table calls them.
#if defined(CW_TABLE)
#define CW_ELSEWHERE extern
#else
#define CW_ELSEWHERE
#endif
CW_ELSEWHERE template void with_forward<double, Count>(const cw_sequence &, Count &);
CW_ELSEWHERE template void with_forward<double, Execute>(const cw_sequence &, Execute &);
CW_ELSEWHERE template void with_backward<double, Count>(const cw_sequence &, Count &);
CW_ELSEWHERE template void with_backward<double, Execute>(const cw_sequence &, Execute &);
#undef CW_ELSEWHERE

#if defined(CW_TABLE)
template <class Do>
void with_loop(const cw_sequence &s, bool backward, Do &act) {
  if (s.dtype == CW_FLOAT32)
    backward ? with_backward<float>(s, act) : with_forward<float>(s, act);
  else
    backward ? with_backward<double>(s, act) : with_forward<double>(s, act);
}

inline int64_t scratch_bytes(const cw_sequence *s, int64_t backward) {
  Count count(backward == 0 && s->packed != nullptr);
  with_loop(*s, backward != 0, count);
  return count.bytes;
}
inline int64_t packed_bytes(const cw_sequence *s) {
  Count count(true);
  with_loop(*s, false, count);
  return count.packed_bytes;
}
inline int64_t forward(const cw_sequence *s) {
  Execute execute(true);
  with_loop(*s, false, execute);
  return execute.status;
}
inline int64_t backward(const cw_sequence *s) {
  Execute execute(false);
  with_loop(*s, true, execute);
  return execute.status;
}
template <class R>
void mask_all(const void *x, void *out, int64_t T, int64_t B, int64_t N, const cw_mask *masks, int64_t n_masks,
              const int32_t *lengths, int64_t reverse, int64_t threads) {
  run_team(threads, [&](int id, int count, Barrier &) {
    const Part rows = part_of(T * B, id, count);
    mask_rows<R>(static_cast<const R *>(x), static_cast<R *>(out), T, B, N, masks, n_masks, lengths, reverse != 0,
                 rows.from, rows.to);
  });
}
inline int64_t mask_sequence(int64_t dtype, const void *x, void *out, int64_t T, int64_t B, int64_t N,
                             const cw_mask *masks, int64_t n_masks, const int32_t *lengths, int64_t reverse,
                             int64_t threads) {
  (dtype == CW_FLOAT32 ? mask_all<float> : mask_all<double>)(x, out, T, B, N, masks, n_masks, lengths, reverse,
                                                             threads);
  return CW_OK;
}
#endif

}  // namespace CW_NAMESPACE

#if defined(CW_TABLE)
const Kernels CW_TABLE = {CW_NAMESPACE::scratch_bytes, CW_NAMESPACE::packed_bytes,  CW_NAMESPACE::forward,
                          CW_NAMESPACE::backward,      CW_NAMESPACE::mask_sequence, CW_NAMESPACE::digest,
                          CW_NAMESPACE::has_tiles};
#endif

}  // namespace cellweave
