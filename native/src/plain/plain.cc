// The table of the plain loops.
#include "plain/plain.h"

#include <cstring>

#include "check.h"
#include "kernels.h"
#include "plain/masks.h"
#include "plain/norm.h"

namespace cellweave {
namespace plain {

namespace {

// One row before its projection, and one of gates where they have no buffer; behind them those of normalizations.
int64_t scratch_bytes(const cw_sequence *s, int64_t backward) {
  const bool norms = normalizes(*s);
  const int64_t rows = norms || (backward && s->op == CW_LSTM) ? kRowsBeforeNorms + kNormRows
                       : backward                              ? 0
                       : s->x && !s->save && !s->ahead         ? 5
                       : s->projection                         ? 1
                                                               : 0;
  return rows * s->H * (s->dtype == CW_FLOAT32 ? 4 : 8);
}

// The plain loops read the weights where they are.
int64_t packed_bytes(const cw_sequence *) { return 0; }

template <typename Real>
void forward(const cw_sequence &s) {
  if (s.op == CW_RNN) return rnn_forward<Real>(s);
  if (s.op == CW_LSTM) return lstm_forward<Real>(s);
  gru_forward<Real>(s);
}

template <typename Real>
void backward(const cw_sequence &s) {
  if (s.op == CW_RNN) return rnn_backward<Real>(s);
  if (s.op == CW_LSTM) return lstm_backward<Real>(s);
  gru_backward<Real>(s);
}

int64_t forward(const cw_sequence *s) {
  s->dtype == CW_FLOAT32 ? forward<float>(*s) : forward<double>(*s);
  return CW_OK;
}

int64_t backward(const cw_sequence *s) {
  s->dtype == CW_FLOAT32 ? backward<float>(*s) : backward<double>(*s);
  return CW_OK;
}

template <typename Real>
void mask_sequence(const Real *x, Real *out, int64_t T, int64_t B, int64_t N, const cw_mask *masks, int64_t n_masks,
                   const int32_t *lengths, int64_t reverse) {
  for (int64_t m = 0; m < T; ++m)
    for (int64_t b = 0; b < B; ++b)
      for (int64_t n = 0; n < N; ++n) {
        const int64_t at = (m * B + b) * N + n;
        const bool active = !lengths || m < lengths[b];
        Real value = active ? x[at] : Real(0);
        for (int64_t i = 0; i < n_masks && active; ++i)
          value = masked(masks[i], step_number(m, b, T, lengths, reverse), b, n, N, value);
        out[at] = value;
      }
}

int64_t mask_sequence(int64_t dtype, const void *x, void *out, int64_t T, int64_t B, int64_t N, const cw_mask *masks,
                      int64_t n_masks, const int32_t *lengths, int64_t reverse, int64_t) {
  if (dtype == CW_FLOAT32)
    mask_sequence(static_cast<const float *>(x), static_cast<float *>(out), T, B, N, masks, n_masks, lengths, reverse);
  else
    mask_sequence(static_cast<const double *>(x), static_cast<double *>(out), T, B, N, masks, n_masks, lengths,
                  reverse);
  return CW_OK;
}

// Word by word what the vector kernels sum up lane by lane.
uint64_t digest_of_chunk(const unsigned char *from, int64_t bytes) {
  constexpr int64_t lanes = kDigestBlock / 8;
  uint64_t sum[lanes] = {}, sums[lanes] = {};
  for (int64_t i = 0; i < bytes; i += kDigestBlock)
    for (int64_t lane = 0; lane < lanes; ++lane) {
      uint64_t x = 0;
      const int64_t left = bytes - i - lane * 8;
      if (left > 0) std::memcpy(&x, from + i + lane * 8, size_t(left < 8 ? left : 8));
      sum[lane] += x + (x & 0xffffffffu) * (x >> 32);
      sums[lane] += sum[lane];
    }
  uint64_t found = uint64_t(bytes);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    found = mixed(found ^ sum[lane]);
    found = mixed(found + sums[lane]);
  }
  return found;
}

uint64_t digest(const void *data, int64_t bytes, int64_t) {
  uint64_t total = 0;
  for (int64_t i = 0; i * kDigestChunk < bytes; ++i) {
    const int64_t left = bytes - i * kDigestChunk;
    const unsigned char *from = static_cast<const unsigned char *>(data) + i * kDigestChunk;
    total += mixed(digest_of_chunk(from, left < kDigestChunk ? left : kDigestChunk) + uint64_t(i));
  }
  return total;
}

bool has_bfloat16() { return true; }

}  // namespace
}  // namespace plain

const Kernels kPlain = {plain::scratch_bytes, plain::packed_bytes, plain::forward,     plain::backward,
                        plain::mask_sequence, plain::digest,       plain::has_bfloat16};

}  // namespace cellweave
