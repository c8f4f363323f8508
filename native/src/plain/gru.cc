// The gated recurrent unit in both forms; equations in src/cellweave/ops/gru/README.md.
#include "plain/activations.h"
#include "plain/plain.h"
#include "plain/sequence.h"

namespace cellweave {
namespace plain {

namespace {

// The candidate before its activation: x W + b on entry in c[u].
template <typename Real>
Real candidate_before(const Sequence<Real> &q, const Real *h, const Real *r, const Real *c, int64_t u) {
  double sum = c[u];
  for (int64_t k = 0; k < q.s.H; ++k) sum += double(Real(r[k] * h[k])) * q.weight(2, k, u);
  return Real(sum);
}

}  // namespace

template <typename Real>
void gru_forward(const cw_sequence &s) {
  const Sequence<Real> q{s};
  const Real *bias_h = static_cast<const Real *>(s.bias_h);
  forwards(s, [&](int64_t step, int64_t b) {
    if (q.active(step, b)) {
      q.multiply_inputs(3, step, b);
      Real *r = q.gate(0, step, b), *update = q.gate(1, step, b), *c = q.gate(2, step, b);
      Real *out = q.at(s.out, step, b, s.H);
      const Real *h = q.h(step, b);
      for (int64_t u = 0; u < s.H; ++u) {
        r[u] = activate(s.gate_activation, q.product(r[u], h, 0, u));
        update[u] = activate(s.gate_activation, q.product(update[u], h, 1, u));
      }
      for (int64_t u = 0; u < s.H; ++u) {
        if (s.op == CW_GRU_AFTER) {
          const Real from_h = q.product(bias_h ? bias_h[u] : Real(0), h, 2, u);
          if (s.save) q.gate(3, step, b)[u] = from_h;
          c[u] = activate(s.activation, c[u] + r[u] * from_h);
        } else {
          c[u] = activate(s.activation, candidate_before(q, h, r, c, u));
        }
      }
      for (int64_t u = 0; u < s.H; ++u) out[u] = update[u] * h[u] + (Real(1) - update[u]) * c[u];
    }
    q.finish_h(step, b);
  });
}

template <typename Real>
void gru_backward(const cw_sequence &s) {
  const Sequence<Real> q{s};
  const bool after = s.op == CW_GRU_AFTER;
  for (int64_t b = 0; b < s.B; ++b) q.start_backward(b);
  backwards(s, [&](int64_t step, int64_t b) {
    // On entry the activated gates; each is replaced by its gradient before activation.
    Real *r = q.gate(0, step, b), *update = q.gate(1, step, b), *c = q.gate(2, step, b);
    Real *from_h = after ? q.gate(3, step, b) : nullptr, *rh = q.at(s.rh, step, b, s.H), *dh = q.d_h(b);
    q.add_state_gradients(step, b);
    if (!q.active(step, b)) {
      for (int64_t u = 0; u < s.H; ++u) {
        r[u] = update[u] = c[u] = 0;
        (after ? from_h : rh)[u] = 0;
      }
      return;
    }
    const Real *h = q.h(step, b);
    for (int64_t u = 0; u < s.H; ++u) {
      const Real g = q.gradient_of_h(step, b, u);
      const Real d_candidate = g * (Real(1) - update[u]) * slope(s.activation, c[u]);
      const Real d_update = g * (h[u] - c[u]) * slope(s.gate_activation, update[u]);
      dh[u] = g * update[u] + q.gradient_of_old_h(step, b, u);
      update[u] = d_update;
      c[u] = d_candidate;
      if (after) {
        const Real d_from_h = d_candidate * r[u];
        r[u] = d_candidate * from_h[u] * slope(s.gate_activation, r[u]);
        from_h[u] = d_from_h;
      }
    }
    for (int64_t k = 0; k < s.H && !after; ++k) {
      const Real d_rh = Real(q.back_product(c, 2, k));
      rh[k] = r[k] * h[k];
      dh[k] += d_rh * r[k];
      r[k] = d_rh * h[k] * slope(s.gate_activation, r[k]);
    }
    for (int64_t k = 0; k < s.H; ++k) {
      double sum = dh[k] + q.back_product(r, 0, k) + q.back_product(update, 1, k);
      if (after) sum += q.back_product(from_h, 2, k);
      dh[k] = Real(sum);
    }
    q.finish_backward(step, b);
  });
}

template void gru_forward<float>(const cw_sequence &);
template void gru_forward<double>(const cw_sequence &);
template void gru_backward<float>(const cw_sequence &);
template void gru_backward<double>(const cw_sequence &);

}  // namespace plain
}  // namespace cellweave
