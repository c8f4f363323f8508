// What the plain loops of all recurrences share: where things lie, and how a step of a row begins and ends.
#ifndef CELLWEAVE_PLAIN_SEQUENCE_H_
#define CELLWEAVE_PLAIN_SEQUENCE_H_

#include "plain/bfloat16.h"
#include "plain/masks.h"

namespace cellweave {
namespace plain {

template <typename Real>
struct Sequence {
  const cw_sequence &s;

  int64_t memory_index(int64_t step) const { return s.reverse ? s.T - 1 - step : step; }

  bool active(int64_t step, int64_t b) const { return !s.lengths || memory_index(step) < s.lengths[b]; }

  // A row that is past its length keeps its state, whatever `resets` says there.
  bool reset(int64_t step, int64_t b) const {
    return step > 0 && step < s.T && s.resets && s.resets[memory_index(step) * s.B + b] && active(step, b);
  }

  // Without a buffer for gates, one row of scratch serves; its first H elements are for what is projected.
  Real *gate(int g, int64_t step, int64_t b) const {
    if (!s.gate[g]) return static_cast<Real *>(s.scratch) + (1 + g) * s.H;
    return static_cast<Real *>(s.gate[g]) + (memory_index(step) * s.B + b) * s.gate_ld[g];
  }

  // Fill the gates of an active row with its input products, where the caller left that to the loop.
  void multiply_inputs(int gates, int64_t step, int64_t b, int first = 0) const {
    if (!s.x) return;
    for (int g = first; g < gates; ++g)
      for (int64_t u = 0; u < s.H; ++u) {
        double sum = s.bias[g] ? static_cast<const Real *>(s.bias[g])[u] : Real(0);
        for (int64_t k = 0; k < s.I; ++k) {
          const Real *own = static_cast<const Real *>(s.x) + (g - first) * s.x_gate;
          const Real x = masked(CW_MASK_INPUT, step, b, k, s.I, at(own, step, b, s.I)[k]);
          sum += double(factor(x)) * factor(element(s.wx[g], k * s.wx_ld[g], u, s.wx_unit[g]));
        }
        gate(g, step, b)[u] = Real(sum);
      }
  }

  // A number as it is multiplied in a product.
  Real factor(Real x) const { return s.products == CW_PRODUCTS_BFLOAT16 ? Real(rounded_to_bfloat16(float(x))) : x; }

  // Recurrent weight of operand k for unit u of gate g, as it is multiplied.
  Real weight(int g, int64_t k, int64_t u) const { return factor(element(s.w[g], k * s.w_ld[g], u, s.w_unit[g])); }

  // Row b at `step` of a [T, B, N] tensor, NULL if there is none.
  template <typename Pointer>
  auto at(Pointer *tensor, int64_t step, int64_t b, int64_t N) const {
    return row(tensor, memory_index(step) * s.B + b, N);
  }

  // Operands of a step, and where those of the next one go.
  const Real *h(int64_t step, int64_t b) const { return step == 0 ? row(s.h0, b, s.P) : next_h(step - 1, b); }
  const Real *c(int64_t step, int64_t b) const { return step == 0 ? row(s.c0, b, s.H) : next_c(step - 1, b); }
  Real *next_h(int64_t step, int64_t b) const {
    return row(s.hs, slot(step, s.save || s.hs == s.out || s.hs == s.h_states) * s.B + b, s.P);
  }
  Real *next_c(int64_t step, int64_t b) const {
    return row(s.cs, slot(step, s.save || s.cs == s.c_states) * s.B + b, s.H);
  }

  // `value` times all masks of one place.
  Real masked(int64_t place, int64_t step, int64_t b, int64_t unit, int64_t N, Real value) const {
    const int64_t number = step_number(memory_index(step), b, s.T, s.lengths, s.reverse);
    for (int64_t i = 0; i < s.n_masks; ++i)
      if (s.masks[i].place == place) value = plain::masked(s.masks[i], number, b, unit, N, value);
    return value;
  }

  // The share of the new value that zoneout leaves; the rest is the operand's.
  Real share_of_new(int64_t place, int64_t step, int64_t b, int64_t unit, int64_t N) const {
    return masked(place, step, b, unit, N, Real(1));
  }

  Real zoned(int64_t place, int64_t step, int64_t b, int64_t unit, int64_t N, Real fresh, Real old) const {
    const Real share = share_of_new(place, step, b, unit, N);
    return share == 1 ? fresh : share * fresh + (Real(1) - share) * old;
  }

  // What gate g multiplies where h[k] is `value`, and the gradient of that, which has the same factor.
  Real of_gate(int g, int64_t step, int64_t b, int64_t k, Real value) const {
    return masked(CW_MASK_GATE + g, step, b, k, s.P, value);
  }

  // `start` plus the sum of h[k] w[k, u]; in double, so that what follows judges faster loops.
  Real product(double start, const Real *h, int g, int64_t u, int64_t step, int64_t b) const {
    for (int64_t k = 0; k < s.P; ++k) start += double(factor(of_gate(g, step, b, k, h[k]))) * weight(g, k, u);
    return Real(start);
  }

  // What the gradient of gate g gives to operand k, from the sum of d[u] w[k, u].
  double back_product(const Real *d, int g, int64_t k, int64_t step, int64_t b) const {
    double sum = 0;
    for (int64_t u = 0; u < s.H; ++u) sum += double(factor(d[u])) * weight(g, k, u);
    for (int64_t i = 0; i < s.n_masks; ++i)
      if (s.masks[i].place == CW_MASK_GATE + g) return of_gate(g, step, b, k, Real(sum));
    return sum;
  }

  // Backward: what gates [first, gates) multiplied in a step of row b, for the gradients of their weights.
  void keep_operands(int first, int gates, int64_t step, int64_t b) const {
    for (int g = first; g < gates && s.gate_h; ++g)
      for (int64_t k = 0; k < s.P; ++k) {
        Real *to = static_cast<Real *>(s.gate_h) + ((g - first) * s.T * s.B + memory_index(step) * s.B + b) * s.P + k;
        *to = active(step, b) ? of_gate(g, step, b, k, h(step, b)[k]) : Real(0);
      }
  }

  // After a step: `out` holds an active row's new h; writes output, next operand and last state.
  void finish_h(int64_t step, int64_t b) const {
    Real *out = at(s.out, step, b, s.P);
    const bool run = active(step, b);
    for (int64_t p = 0; p < s.P; ++p) {
      if (run) out[p] = zoned(CW_MASK_ZONE_H, step, b, p, s.P, out[p], h(step, b)[p]);
      const Real state = run ? masked(CW_MASK_H, step, b, p, s.P, out[p]) : h(step, b)[p];
      out[p] = run ? masked(CW_MASK_OUTPUT, step, b, p, s.P, out[p]) : Real(0);
      pass_on(s.h_last, s.h_states, next_h(step, b), s.reset_h, step, b, p, s.P, state);
    }
  }

  // The same for c, whose new value an active row has in next_c.
  void finish_c(int64_t step, int64_t b) const {
    Real *next = next_c(step, b);
    const bool run = active(step, b);
    for (int64_t u = 0; u < s.H; ++u) {
      if (run) next[u] = zoned(CW_MASK_ZONE_C, step, b, u, s.H, next[u], c(step, b)[u]);
      const Real state = run ? masked(CW_MASK_C, step, b, u, s.H, next[u]) : c(step, b)[u];
      pass_on(s.c_last, s.c_states, next, s.reset_c, step, b, u, s.H, state);
    }
  }

  // Backward keeps the gradient of the state after the current step in d_h0 and d_c0.
  Real *d_h(int64_t b) const { return row(s.d_h0, b, s.P); }
  Real *d_c(int64_t b) const { return row(s.d_c0, b, s.H); }

  void start_backward(int64_t b) const {
    start_gradient(d_h(b), s.d_h_last, s.d_reset_h, b, s.P);
    if (s.op == CW_LSTM) start_gradient(d_c(b), s.d_c_last, s.d_reset_c, b, s.H);
  }

  // Before the backward pass of a step: the state that it left is a result by itself too.
  void add_state_gradients(int64_t step, int64_t b) const {
    for (int64_t p = 0; p < s.P && s.d_h_states; ++p) d_h(b)[p] += at(s.d_h_states, step, b, s.P)[p];
    for (int64_t u = 0; u < s.H && s.d_c_states && s.op == CW_LSTM; ++u) d_c(b)[u] += at(s.d_c_states, step, b, s.H)[u];
  }

  // Gradient of an active row's new h, and what zoneout passes to the operand: from its output and from what came
  // later.
  Real gradient_of_h(int64_t step, int64_t b, int64_t p) const {
    return share_of_new(CW_MASK_ZONE_H, step, b, p, s.P) * gradient_of_zoned_h(step, b, p);
  }
  Real gradient_of_old_h(int64_t step, int64_t b, int64_t p) const {
    return (Real(1) - share_of_new(CW_MASK_ZONE_H, step, b, p, s.P)) * gradient_of_zoned_h(step, b, p);
  }

  Real gradient_of_c(int64_t step, int64_t b, int64_t u) const {
    return share_of_new(CW_MASK_ZONE_C, step, b, u, s.H) * gradient_of_zoned_c(step, b, u);
  }
  Real gradient_of_old_c(int64_t step, int64_t b, int64_t u) const {
    return (Real(1) - share_of_new(CW_MASK_ZONE_C, step, b, u, s.H)) * gradient_of_zoned_c(step, b, u);
  }

  // d_h and d_c now hold the gradients of the step's operands; a reset takes them.
  void finish_backward(int64_t step, int64_t b) const {
    if (!reset(step, b)) return;
    take_gradient(d_h(b), s.d_reset_h, b, s.P);
    if (s.op == CW_LSTM) take_gradient(d_c(b), s.d_reset_c, b, s.H);
  }

  // Column `column` of the row that starts at `row`; a distance of 0 between columns counts as 1.
  static Real element(const void *weights, int64_t row, int64_t column, int64_t distance) {
    return static_cast<const Real *>(weights)[row + column * (distance == 0 ? 1 : distance)];
  }
  static Real *row(void *tensor, int64_t index, int64_t N) {
    return tensor ? static_cast<Real *>(tensor) + index * N : nullptr;
  }
  static const Real *row(const void *tensor, int64_t index, int64_t N) {
    return tensor ? static_cast<const Real *>(tensor) + index * N : nullptr;
  }

 private:
  Real gradient_of_zoned_h(int64_t step, int64_t b, int64_t p) const {
    const Real *d_out = at(s.d_out, step, b, s.P);
    const Real later = masked(CW_MASK_H, step, b, p, s.P, d_h(b)[p]);
    return d_out ? later + masked(CW_MASK_OUTPUT, step, b, p, s.P, d_out[p]) : later;
  }
  Real gradient_of_zoned_c(int64_t step, int64_t b, int64_t u) const {
    return masked(CW_MASK_C, step, b, u, s.H, d_c(b)[u]);
  }

  // Operands of later steps lie at the memory index of the step before, or in a ring of two.
  int64_t slot(int64_t step, bool all) const { return all ? memory_index(step) : step % 2; }

  void pass_on(void *last, void *states, Real *next, const void *fresh, int64_t step, int64_t b, int64_t n, int64_t N,
               Real state) const {
    if (step + 1 == s.T) row(last, b, N)[n] = state;
    if (states) at(states, step, b, N)[n] = state;
    next[n] = !reset(step + 1, b) ? state : fresh ? row(fresh, b, N)[n] : Real(0);
  }

  void start_gradient(Real *d, const void *d_last, void *d_reset, int64_t b, int64_t N) const {
    for (int64_t n = 0; n < N; ++n) {
      d[n] = d_last ? row(d_last, b, N)[n] : Real(0);
      if (d_reset) row(d_reset, b, N)[n] = 0;
    }
  }

  void take_gradient(Real *d, void *d_reset, int64_t b, int64_t N) const {
    for (int64_t n = 0; n < N; ++n) {
      if (d_reset) row(d_reset, b, N)[n] += d[n];
      d[n] = 0;
    }
  }
};

// Calls visit(step, b) for every step and row in the order of time, or against it.
template <typename Visit>
void forwards(const cw_sequence &s, Visit visit) {
  for (int64_t step = 0; step < s.T; ++step)
    for (int64_t b = 0; b < s.B; ++b) visit(step, b);
}

template <typename Visit>
void backwards(const cw_sequence &s, Visit visit) {
  for (int64_t step = s.T - 1; step >= 0; --step)
    for (int64_t b = 0; b < s.B; ++b) visit(step, b);
}

}  // namespace plain
}  // namespace cellweave
#endif
