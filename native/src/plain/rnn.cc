// The plain recurrent network; equations in src/cellweave/ops/rnn/README.md.
#include "plain/activations.h"
#include "plain/norm.h"
#include "plain/plain.h"
#include "plain/sequence.h"

namespace cellweave {
namespace plain {

template <typename Real>
void rnn_forward(const cw_sequence &s) {
  const Sequence<Real> q{s};
  const Norms<Real> norms{q, 1, 1};
  forwards(s, [&](int64_t step, int64_t b) {
    if (q.active(step, b)) {
      q.multiply_inputs(1, step, b);
      Real *gate = q.gate(0, step, b), *out = q.at(s.out, step, b, s.H);
      const Real *h = q.h(step, b);
      for (int64_t u = 0; u < s.H; ++u) gate[u] = q.product(gate[u], h, 0, u, step, b);
      if (norms.any()) norms.normalize(0, gate, step, b);
      for (int64_t u = 0; u < s.H; ++u) {
        out[u] = activate(s.activation, norms.any() ? norms.scaled(0, u, gate[u]) : gate[u]);
        if (!norms.any()) gate[u] = out[u];
      }
    }
    q.finish_h(step, b);
  });
}

template <typename Real>
void rnn_backward(const cw_sequence &s) {
  const Sequence<Real> q{s};
  const Norms<Real> norms{q, 1, 1};
  for (int64_t b = 0; b < s.B; ++b) {
    q.start_backward(b);
    norms.start_backward(b);
  }
  backwards(s, [&](int64_t step, int64_t b) {
    Real *gate = q.gate(0, step, b), *da = norms.any() ? norms.row(0) : gate, *dh = q.d_h(b);
    q.add_state_gradients(step, b);
    q.keep_operands(0, 1, step, b);
    if (!q.active(step, b)) {
      for (int64_t u = 0; u < s.H; ++u) gate[u] = 0;
      return;
    }
    for (int64_t u = 0; u < s.H; ++u) {
      const Real value = norms.any() ? activate(s.activation, norms.scaled(0, u, gate[u])) : gate[u];
      da[u] = q.gradient_of_h(step, b, u) * slope(s.activation, value);
    }
    if (norms.any()) norms.back(0, gate, da, step, b);
    for (int64_t u = 0; u < s.H; ++u) gate[u] = da[u];
    for (int64_t k = 0; k < s.H; ++k) dh[k] = Real(q.back_product(da, 0, k, step, b) + q.gradient_of_old_h(step, b, k));
    q.finish_backward(step, b);
  });
}

template void rnn_forward<float>(const cw_sequence &);
template void rnn_forward<double>(const cw_sequence &);
template void rnn_backward<float>(const cw_sequence &);
template void rnn_backward<double>(const cw_sequence &);

}  // namespace plain
}  // namespace cellweave
