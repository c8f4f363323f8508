// Layer normalization of one row at a time.
#ifndef CELLWEAVE_PLAIN_NORM_H_
#define CELLWEAVE_PLAIN_NORM_H_

#include <cmath>

#include "plain/sequence.h"

namespace cellweave {
namespace plain {

// Rows of scratch that lie before those of the normalizations: what is projected, and gates without a buffer.
constexpr int64_t kRowsBeforeNorms = 5;
constexpr int64_t kNormRows = 6;

template <typename Real>
struct Norms {
  const Sequence<Real> &q;
  int64_t count;  // N of the header
  int64_t kept;   // numbers that a step of a row keeps

  bool any() const { return q.s.gamma[count - 1]; }

  // Row k of the scratch.
  Real *row(int64_t k) const { return static_cast<Real *>(q.s.scratch) + (kRowsBeforeNorms + k) * q.s.H; }

  Real gamma(int64_t k, int64_t u) const { return static_cast<const Real *>(q.s.gamma[k])[u]; }

  Real scaled(int64_t k, int64_t u, Real unit) const {
    return unit * gamma(k, u) + static_cast<const Real *>(q.s.beta[k])[u];
  }

  Real *kept_of(int64_t step, int64_t b) const { return q.at(q.s.norm_kept, step, b, kept); }

  // `values` become normalized ones, before gamma and beta.
  void normalize(int64_t k, Real *values, int64_t step, int64_t b) const {
    const int64_t H = q.s.H;
    double mean = 0, square = 0;
    for (int64_t u = 0; u < H; ++u) mean += double(values[u]) / double(H);
    for (int64_t u = 0; u < H; ++u) square += (double(values[u]) - mean) * (double(values[u]) - mean);
    const double inverse = 1 / std::sqrt(square / double(H) + q.s.norm_epsilon);
    for (int64_t u = 0; u < H; ++u) values[u] = Real((double(values[u]) - mean) * inverse);
    if (!q.s.save) return;
    kept_of(step, b)[k] = Real(inverse);
    if (kept > count) kept_of(step, b)[count] = Real(mean);  // in the end that of c, which comes last
  }

  // `d`, gradients of unit * gamma + beta, become those of the values before their normalization.
  void back(int64_t k, const Real *unit, Real *d, int64_t step, int64_t b) const {
    const int64_t H = q.s.H;
    Real *d_gamma = static_cast<Real *>(q.s.d_norm) + (b * count + k) * 2 * H, *d_beta = d_gamma + H;
    double mean = 0, slope = 0;
    for (int64_t u = 0; u < H; ++u) {
      d_gamma[u] += d[u] * unit[u];
      d_beta[u] += d[u];
      d[u] *= gamma(k, u);
      mean += double(d[u]) / double(H);
      slope += double(d[u]) * unit[u] / double(H);
    }
    const double inverse = kept_of(step, b)[k];
    for (int64_t u = 0; u < H; ++u) d[u] = Real(inverse * (d[u] - mean - unit[u] * slope));
  }

  void start_backward(int64_t b) const {
    for (int64_t n = 0; any() && n < count * 2 * q.s.H; ++n) q.row(q.s.d_norm, b, count * 2 * q.s.H)[n] = 0;
  }
};

}  // namespace plain
}  // namespace cellweave
#endif
