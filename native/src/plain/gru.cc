// The gated recurrent unit in both forms; equations in src/cellweave/ops/gru/README.md.
#include "plain/activations.h"
#include "plain/norm.h"
#include "plain/plain.h"
#include "plain/sequence.h"

namespace cellweave {
namespace plain {

namespace {

template <typename Real>
struct Gru : Sequence<Real> {
  using Sequence<Real>::s;
  const Norms<Real> norms;

  explicit Gru(const cw_sequence &s_)
      : Sequence<Real>{s_}, norms{*this, s_.op == CW_GRU_AFTER ? 4 : 3, s_.op == CW_GRU_AFTER ? 4 : 3} {}
  bool after() const { return s.op == CW_GRU_AFTER; }

  // Where the activated values of gate g go: into its buffer, unless that keeps normalized ones.
  Real *values(int g, int64_t step, int64_t b) const { return norms.any() ? norms.row(g) : this->gate(g, step, b); }
  // The candidate's recurrent product has a buffer only where backward needs it.
  Real *from_h(int64_t step, int64_t b) const { return s.save ? this->gate(3, step, b) : norms.row(4); }
};

// Gate g of a row from its sums, in place, to its value before activation.
template <typename Real>
void normalize(const Gru<Real> &q, int g, Real *sums, Real *values, int64_t step, int64_t b) {
  if (!q.norms.any()) return;
  q.norms.normalize(g, sums, step, b);
  for (int64_t u = 0; u < q.s.H; ++u) values[u] = q.norms.scaled(g, u, sums[u]);
}

}  // namespace

template <typename Real>
void gru_forward(const cw_sequence &s) {
  const Gru<Real> q(s);
  const Real *bias_h = static_cast<const Real *>(s.bias_h);
  forwards(s, [&](int64_t step, int64_t b) {
    if (q.active(step, b)) {
      q.multiply_inputs(3, step, b);
      Real *r = q.values(0, step, b), *update = q.values(1, step, b), *c = q.values(2, step, b);
      Real *out = q.at(s.out, step, b, s.H), *sum_c = q.gate(2, step, b);
      const Real *h = q.h(step, b);
      for (int g = 0; g < 2; ++g) {
        Real *sums = q.gate(g, step, b), *values = q.values(g, step, b);
        for (int64_t u = 0; u < s.H; ++u) sums[u] = q.product(sums[u], h, g, u, step, b);
        normalize(q, g, sums, values, step, b);
        for (int64_t u = 0; u < s.H; ++u) values[u] = activate(s.gate_activation, values[u]);
      }
      if (q.after()) {
        const bool kept = s.save || q.norms.any();
        Real *from_h = kept ? q.from_h(step, b) : nullptr, *value_h = q.norms.any() ? q.norms.row(3) : from_h;
        normalize(q, 2, sum_c, c, step, b);
        for (int64_t u = 0; u < s.H && kept; ++u) from_h[u] = q.product(bias_h ? bias_h[u] : Real(0), h, 2, u, step, b);
        normalize(q, 3, from_h, value_h, step, b);
        for (int64_t u = 0; u < s.H; ++u) {
          const Real part = kept ? value_h[u] : q.product(bias_h ? bias_h[u] : Real(0), h, 2, u, step, b);
          c[u] = activate(s.activation, c[u] + r[u] * part);
        }
      } else {
        for (int64_t u = 0; u < s.H; ++u) {
          double sum = sum_c[u];
          for (int64_t k = 0; k < s.H; ++k)
            sum += double(q.factor(q.of_gate(2, step, b, k, r[k] * h[k]))) * q.weight(2, k, u);
          sum_c[u] = Real(sum);
        }
        normalize(q, 2, sum_c, c, step, b);
        for (int64_t u = 0; u < s.H; ++u) c[u] = activate(s.activation, c[u]);
      }
      for (int64_t u = 0; u < s.H; ++u) out[u] = update[u] * h[u] + (Real(1) - update[u]) * c[u];
    }
    q.finish_h(step, b);
  });
}

namespace {

// With normalization: the activated gates and, last, the candidate's normalized recurrent product, in scratch.
template <typename Real>
void activate_again(const Gru<Real> &q, int64_t step, int64_t b) {
  const cw_sequence &s = q.s;
  const auto value = [&](int g, int64_t u) { return q.norms.scaled(g, u, q.gate(g, step, b)[u]); };
  for (int64_t u = 0; u < s.H && q.norms.any(); ++u) {
    q.norms.row(0)[u] = activate(s.gate_activation, value(0, u));
    q.norms.row(1)[u] = activate(s.gate_activation, value(1, u));
    if (q.after()) q.norms.row(3)[u] = value(3, u);
    const Real added = q.after() ? q.norms.row(0)[u] * q.norms.row(3)[u] : Real(0);
    q.norms.row(2)[u] = activate(s.activation, value(2, u) + added);
  }
}

// From gradients of gate g's values to those of its sums, which replace what the gate holds.
template <typename Real>
void back_normalize(const Gru<Real> &q, int g, int64_t step, int64_t b) {
  if (!q.norms.any()) return;
  Real *d = q.norms.row(g), *gate = q.gate(g, step, b);
  q.norms.back(g, gate, d, step, b);
  for (int64_t u = 0; u < q.s.H; ++u) gate[u] = d[u];
}

}  // namespace

template <typename Real>
void gru_backward(const cw_sequence &s) {
  const Gru<Real> q(s);
  const bool after = q.after();
  for (int64_t b = 0; b < s.B; ++b) {
    q.start_backward(b);
    q.norms.start_backward(b);
  }
  backwards(s, [&](int64_t step, int64_t b) {
    Real *rh = q.at(s.rh, step, b, s.H), *dh = q.d_h(b);
    q.add_state_gradients(step, b);
    q.keep_operands(0, after ? 3 : 2, step, b);
    if (!q.active(step, b)) {
      for (int g = 0; g < (after ? 4 : 3); ++g)
        for (int64_t u = 0; u < s.H; ++u) q.gate(g, step, b)[u] = 0;
      for (int64_t u = 0; u < s.H && !after; ++u) rh[u] = 0;
      return;
    }
    activate_again(q, step, b);
    // The activated gates; each is replaced by its gradient before activation.
    Real *r = q.values(0, step, b), *update = q.values(1, step, b), *c = q.values(2, step, b);
    Real *from_h = after ? q.values(3, step, b) : nullptr;
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
    back_normalize(q, 1, step, b);
    back_normalize(q, 2, step, b);
    if (after) back_normalize(q, 3, step, b);
    for (int64_t k = 0; k < s.H && !after; ++k) {
      const Real d_rh = Real(q.back_product(c, 2, k, step, b));
      rh[k] = q.of_gate(2, step, b, k, r[k] * h[k]);
      dh[k] += d_rh * r[k];
      r[k] = d_rh * h[k] * slope(s.gate_activation, r[k]);
    }
    back_normalize(q, 0, step, b);
    for (int64_t k = 0; k < s.H; ++k) {
      double sum = dh[k] + q.back_product(r, 0, k, step, b) + q.back_product(update, 1, k, step, b);
      if (after) sum += q.back_product(from_h, 2, k, step, b);
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
