// The long short-term memory; equations in src/cellweave/ops/lstm/README.md.
#include "plain/activations.h"
#include "plain/norm.h"
#include "plain/plain.h"
#include "plain/sequence.h"

namespace cellweave {
namespace plain {

namespace {

enum { kIn = 0, kCandidate = 1, kForget = 2, kOut = 3 };

template <typename Real>
struct Lstm : Sequence<Real> {
  using Sequence<Real>::s;

  // Peephole weight of unit u; the order is that of cw_sequence.peephole.
  Real peephole(int which, int64_t u) const {
    return s.peephole[which] ? static_cast<const Real *>(s.peephole[which])[u] : Real(0);
  }
  Real forget_peephole(int64_t u) const { return peephole(0, u); }
  Real in_peephole(int64_t u) const { return peephole(1, u); }
  Real out_peephole(int64_t u) const { return peephole(2, u); }

  Real projection(int64_t u, int64_t p) const {
    const bool dense = s.projection_ld == 0 && s.projection_unit == 0;
    return this->factor(this->element(s.projection, u * (dense ? s.P : s.projection_ld), p, s.projection_unit));
  }

  Real sigma(Real x) const { return activate(s.gate_activation, x); }
  Real act(Real x) const { return activate(s.activation, x); }
  Real sigma_slope(Real y) const { return slope(s.gate_activation, y); }
  Real act_slope(Real y) const { return slope(s.activation, y); }

  bool clips_projection() const { return s.projection && s.proj_clip >= 0; }

  // A coupled cell has no gate 0.
  int first_gate() const { return s.coupled ? kCandidate : kIn; }

  // An active row's gates before activation: the recurrent product is added to what stands there.
  void multiply(int64_t step, int64_t b) const {
    const Real *h = this->h(step, b);
    for (int g = first_gate(); g < 4; ++g) {
      Real *gate = this->gate(g, step, b);
      for (int64_t u = 0; u < s.H; ++u) gate[u] = this->product(gate[u], h, g, u, step, b);
    }
  }
};

// A negative bound clips nothing. A clip passes the gradient inside and on its bounds.
template <typename Real>
Real clipped(Real x, double bound) {
  return bound < 0 ? x : clamp(x, Real(-bound), Real(bound));
}

template <typename Real>
bool inside(Real x, double bound) {
  return bound < 0 || (x >= Real(-bound) && x <= Real(bound));
}

template <typename Real>
void project(const Lstm<Real> &q, int64_t step, int64_t b, const Real *m, Real *out) {
  for (int64_t p = 0; p < q.s.P; ++p) {
    double sum = 0;
    for (int64_t u = 0; u < q.s.H; ++u) sum += double(q.factor(m[u])) * q.projection(u, p);
    if (q.clips_projection() && q.s.save) q.at(q.s.proj_raw, step, b, q.s.P)[p] = Real(sum);
    out[p] = clipped(Real(sum), q.s.proj_clip);
  }
}

}  // namespace

template <typename Real>
void lstm_forward(const cw_sequence &s) {
  const Lstm<Real> q{{s}};
  const Norms<Real> norms{q, 5, 6};
  forwards(s, [&](int64_t step, int64_t b) {
    if (q.active(step, b)) {
      q.multiply_inputs(4, step, b, q.first_gate());
      q.multiply(step, b);
      for (int g = q.first_gate(); g < 4 && norms.any(); ++g) norms.normalize(g, q.gate(g, step, b), step, b);
      Real *out = q.at(s.out, step, b, s.P), *m = s.projection ? static_cast<Real *>(s.scratch) : out;
      Real *next_c = q.next_c(step, b);
      const auto value = [&](int g, int64_t u) {
        const Real sum = q.gate(g, step, b)[u];
        return norms.any() ? norms.scaled(g, u, sum) : sum;
      };
      // The gates keep activated values, or normalized ones.
      const auto keep = [&](int g, int64_t u, Real activated) {
        if (!norms.any()) q.gate(g, step, b)[u] = activated;
        return activated;
      };
      const Real *c = q.c(step, b);
      for (int64_t u = 0; u < s.H; ++u) {
        const Real f = keep(kForget, u, q.sigma(value(kForget, u) + Real(s.forget_bias) + q.forget_peephole(u) * c[u]));
        const Real j = keep(kCandidate, u, q.act(value(kCandidate, u)));
        const Real i = s.coupled ? Real(1) - f : keep(kIn, u, q.sigma(value(kIn, u) + q.in_peephole(u) * c[u]));
        next_c[u] = f * c[u] + i * j;
      }
      if (norms.any()) norms.normalize(4, next_c, step, b);
      for (int64_t u = 0; u < s.H; ++u) {
        next_c[u] = clipped(norms.any() ? norms.scaled(4, u, next_c[u]) : next_c[u], s.cell_clip);
        m[u] = keep(kOut, u, q.sigma(value(kOut, u) + q.out_peephole(u) * next_c[u])) * q.act(next_c[u]);
      }
      if (s.projection) project(q, step, b, m, out);
    }
    q.finish_h(step, b);
    q.finish_c(step, b);
  });
}

namespace {

template <typename Real>
void clear_step(const Lstm<Real> &q, int64_t step, int64_t b) {
  for (int g = q.first_gate(); g < 4; ++g)
    for (int64_t u = 0; u < q.s.H; ++u) q.gate(g, step, b)[u] = 0;
  if (!q.s.projection) return;
  for (int64_t u = 0; u < q.s.H; ++u) q.at(q.s.proj_in, step, b, q.s.H)[u] = 0;
  for (int64_t p = 0; p < q.s.P; ++p) q.at(q.s.d_proj, step, b, q.s.P)[p] = 0;
}

// Gradient of the projected h before its clip, for all p.
template <typename Real>
void unclip_projection(const Lstm<Real> &q, int64_t step, int64_t b) {
  for (int64_t p = 0; p < q.s.P; ++p) {
    const bool passes = !q.clips_projection() || inside(q.at(q.s.proj_raw, step, b, q.s.P)[p], q.s.proj_clip);
    q.at(q.s.d_proj, step, b, q.s.P)[p] = passes ? q.gradient_of_h(step, b, p) : Real(0);
  }
}

// Gradient of m, the value before the projection.
template <typename Real>
Real gradient_of_m(const Lstm<Real> &q, int64_t step, int64_t b, int64_t u) {
  if (!q.s.projection) return q.gradient_of_h(step, b, u);
  double sum = 0;
  for (int64_t p = 0; p < q.s.P; ++p) sum += double(q.factor(q.at(q.s.d_proj, step, b, q.s.P)[p])) * q.projection(u, p);
  return Real(sum);
}

template <typename Real>
void add_peephole_gradients(const Lstm<Real> &q, int64_t b, int64_t u, Real df, Real di, Real c) {
  Real *d = static_cast<Real *>(q.s.d_peephole);
  if (!d) return;
  d += b * 3 * q.s.H + u;
  d[0] += df * c;
  d[q.s.H] += di * c;
}

}  // namespace

template <typename Real>
void lstm_backward(const cw_sequence &s) {
  const Lstm<Real> q{{s}};
  const Norms<Real> norms{q, 5, 6};
  for (int64_t b = 0; b < s.B; ++b) {
    q.start_backward(b);
    norms.start_backward(b);
    for (int64_t n = 0; n < 3 * s.H && s.d_peephole; ++n) q.row(s.d_peephole, b, 3 * s.H)[n] = 0;
  }
  backwards(s, [&](int64_t step, int64_t b) {
    q.add_state_gradients(step, b);
    q.keep_operands(q.first_gate(), 4, step, b);
    if (!q.active(step, b)) return clear_step(q, step, b);
    // The activated gates; each is replaced by its gradient before activation.
    Real *gate[4];
    for (int g = 0; g < 4; ++g) gate[g] = norms.any() ? norms.row(g) : q.gate(g, step, b);
    Real *i = gate[kIn], *j = gate[kCandidate], *f = gate[kForget], *o = gate[kOut];
    Real *unit_c = norms.row(4), *old_c = norms.row(5);  // and what zoneout passes to the old c
    Real *dh = q.d_h(b), *dc = q.d_c(b);
    const Real *c = q.c(step, b);
    if (s.projection) unclip_projection(q, step, b);
    for (int64_t u = 0; u < s.H; ++u) {
      const auto value = [&](int g) { return norms.scaled(g, u, q.gate(g, step, b)[u]); };
      if (norms.any()) {
        f[u] = q.sigma(value(kForget) + Real(s.forget_bias) + q.forget_peephole(u) * c[u]);
        j[u] = q.act(value(kCandidate));
        if (!s.coupled) i[u] = q.sigma(value(kIn) + q.in_peephole(u) * c[u]);
      }
      Real raw_c = f[u] * c[u] + (s.coupled ? Real(1) - f[u] : i[u]) * j[u];
      if (norms.any()) {
        const Real *kept = norms.kept_of(step, b);
        unit_c[u] = (raw_c - kept[5]) * kept[4];
        raw_c = norms.scaled(4, u, unit_c[u]);
      }
      const Real new_c = clipped(raw_c, s.cell_clip), act_c = q.act(new_c);
      if (norms.any()) o[u] = q.sigma(value(kOut) + q.out_peephole(u) * new_c);
      if (s.projection) q.at(s.proj_in, step, b, s.H)[u] = o[u] * act_c;
      const Real dm = gradient_of_m(q, step, b, u);
      const Real d_o = dm * act_c * q.sigma_slope(o[u]);
      const Real d_act = dm * o[u] * q.act_slope(act_c) + d_o * q.out_peephole(u);
      const bool passes = s.clip_passes || inside(raw_c, s.cell_clip);
      old_c[u] = q.gradient_of_old_c(step, b, u);
      dc[u] = passes ? q.gradient_of_c(step, b, u) + d_act : Real(0);
      if (s.d_peephole) q.row(s.d_peephole, b, 3 * s.H)[2 * s.H + u] += d_o * new_c;
      o[u] = d_o;
    }
    if (norms.any()) norms.back(4, unit_c, dc, step, b);
    for (int64_t u = 0; u < s.H; ++u) {
      const Real in = s.coupled ? Real(1) - f[u] : i[u], d_c = dc[u];
      const Real d_i = s.coupled ? Real(0) : d_c * j[u] * q.sigma_slope(in);
      const Real d_j = d_c * in * q.act_slope(j[u]);
      const Real d_f = d_c * (s.coupled ? c[u] - j[u] : c[u]) * q.sigma_slope(f[u]);
      dc[u] = d_c * f[u] + d_i * q.in_peephole(u) + d_f * q.forget_peephole(u) + old_c[u];
      add_peephole_gradients(q, b, u, d_f, d_i, c[u]);
      if (!s.coupled) i[u] = d_i;
      j[u] = d_j;
      f[u] = d_f;
    }
    for (int g = q.first_gate(); g < 4 && norms.any(); ++g) {
      norms.back(g, q.gate(g, step, b), gate[g], step, b);
      for (int64_t u = 0; u < s.H; ++u) q.gate(g, step, b)[u] = gate[g][u];
    }
    for (int64_t k = 0; k < s.P; ++k)
      dh[k] = Real((s.coupled ? 0 : q.back_product(i, kIn, k, step, b)) + q.back_product(j, kCandidate, k, step, b) +
                   q.back_product(f, kForget, k, step, b) + q.back_product(o, kOut, k, step, b) +
                   q.gradient_of_old_h(step, b, k));
    q.finish_backward(step, b);
  });
}

template void lstm_forward<float>(const cw_sequence &);
template void lstm_forward<double>(const cw_sequence &);
template void lstm_backward<float>(const cw_sequence &);
template void lstm_backward<double>(const cw_sequence &);

}  // namespace plain
}  // namespace cellweave
