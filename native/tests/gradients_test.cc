// The plain loops against finite differences, in double on tiny sizes: gradients of everything that a caller gets
// directly, and of the weights by the products that the interface leaves to the caller.
#include <cmath>
#include <cstdint>
#include <vector>

#include "cases.h"
#include "report.h"

using namespace cellweave_tests;

namespace {

constexpr double kStep = 1e-6, kTolerance = 2e-8;
// Rows of three units curve more under a normalization: measured 2.9e-8.
constexpr double kNormTolerance = 1e-7;

using Numbers = std::vector<double>;

double dot(const Numbers &a, const Numbers &b) {
  double sum = 0;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) sum += b[i] == 0 ? 0 : a[i] * b[i];
  return sum;
}

// What backward differentiates: the upstream gradients times what the call gives.
double loss(const Case &c, const Inputs<double> &inputs) {
  const Forward<double> found = run_forward(c, inputs, Setup());
  Numbers d_out = inputs.d_out;
  for (double &value : d_out) value = std::isnan(value) ? 0 : value;
  return dot(found.out, d_out) + dot(found.h_last, inputs.d_h_last) + dot(found.c_last, inputs.d_c_last) +
         dot(found.h_states, inputs.d_h_states) + dot(found.c_states, inputs.d_c_states);
}

// The sanitizers look at memory and arithmetic, which are the same for every element: one of each tensor shows them.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kMostElements = 1;
#else
constexpr size_t kMostElements = SIZE_MAX;
#endif

// `values` is a member of `inputs`; each of its elements moves a little both ways.
void compare(const Case &c, const Inputs<double> &inputs, const char *name, Numbers &values, const Numbers &gradient) {
  expect(values.size() == gradient.size(), "%s: gradient of %s has another size", name_of(c, CW_FLOAT64).c_str(), name);
  for (size_t i = 0; i < values.size() && i < gradient.size() && i < kMostElements; ++i) {
    const double before = values[i];
    if (std::isnan(before)) {  // padding
      expect(gradient[i] == 0, "%s: gradient of padding in %s[%zu]", name_of(c, CW_FLOAT64).c_str(), name, i);
      continue;
    }
    values[i] = before + kStep;
    const double above = loss(c, inputs);
    values[i] = before - kStep;
    const double below = loss(c, inputs);
    values[i] = before;
    const double slope = (above - below) / (2 * kStep);
    const double tolerance = c.norm ? kNormTolerance : kTolerance;
    expect(std::fabs(slope - gradient[i]) <= tolerance * std::fmax(1, std::fabs(slope)),
           "%s: gradient of %s[%zu] is %.12g, finite differences give %.12g", name_of(c, CW_FLOAT64).c_str(), name, i,
           gradient[i], slope);
  }
}

// Operands of the step at memory index m: what hs or cs hold at the step before, or the first ones.
const double *operands_at(const Case &c, const Numbers &first, const Numbers &later, int64_t m, int64_t row_size) {
  const int64_t before = c.reverse ? m + 1 : m - 1;
  const bool is_first = before < 0 || before >= c.T;
  return is_first ? first.data() : later.data() + before * c.B * row_size;
}

// The gradient of a weight [rows, columns]: the sum over active rows of left[row] * right[column].
void add_outer(Numbers &sum, const double *left, int64_t rows, const double *right, int64_t columns) {
  for (int64_t i = 0; i < rows * columns; ++i) sum[size_t(i)] += left[i / columns] * right[i % columns];
}

Numbers recurrent_gradient(const Case &c, const Inputs<double> &inputs, const Forward<double> &saved,
                           const Backward<double> &found, int g) {
  Numbers sum(size_t(c.P * c.H));
  const bool after_candidate = c.op == CW_GRU_AFTER && g == 2, before_candidate = c.op == CW_GRU_BEFORE && g == 2;
  const Numbers &d_gate = found.gate[after_candidate ? 3 : g];
  for (int64_t m = 0; m < c.T; ++m)
    for (int64_t b = 0; b < c.B; ++b) {
      const int64_t row = m * c.B + b;
      const double *operand = operands_at(c, inputs.h0, saved.hs, m, c.P) + b * c.P;
      if (before_candidate)
        operand = found.rh.data() + row * c.H;
      else if (!found.gate_h.empty())
        operand = found.gate_h.data() + ((g - c.first_gate()) * c.T * c.B + row) * c.P;
      if (inputs.active(m, b)) add_outer(sum, operand, c.P, d_gate.data() + row * c.H, c.H);
    }
  return sum;
}

Numbers projection_gradient(const Case &c, const Backward<double> &found) {
  Numbers sum(size_t(c.H * c.P));
  for (int64_t row = 0; row < c.T * c.B; ++row)
    add_outer(sum, found.proj_in.data() + row * c.H, c.H, found.d_proj.data() + row * c.P, c.P);
  return sum;
}

// Sums a [rows, size] tensor over its rows, from column `first` of `width`.
Numbers row_sum(const Numbers &values, int64_t width, int64_t first, int64_t size) {
  Numbers sum(static_cast<size_t>(size));
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t column = int64_t(i) % width - first;
    if (column >= 0 && column < size) sum[size_t(column)] += values[i];
  }
  return sum;
}

void check(const Case &c) {
  Inputs<double> inputs = make_inputs<double>(c);
  const Forward<double> saved = run_forward(c, inputs, Setup());
  const Backward<double> found = run_backward(c, inputs, saved, Setup());
  for (int g = c.first_gate(); g < c.gates(); ++g) {
    compare(c, inputs, "a gate", inputs.gate[g], found.gate[g]);
    compare(c, inputs, "a recurrent weight", inputs.w[g], recurrent_gradient(c, inputs, saved, found, g));
  }
  compare(c, inputs, "h0", inputs.h0, found.d_h0);
  if (c.lstm()) compare(c, inputs, "c0", inputs.c0, found.d_c0);
  if (c.reset_state) compare(c, inputs, "reset_h", inputs.reset_h, found.d_reset_h);
  if (c.reset_state && c.lstm()) compare(c, inputs, "reset_c", inputs.reset_c, found.d_reset_c);
  if (!inputs.bias_h.empty()) compare(c, inputs, "bias_h", inputs.bias_h, row_sum(found.gate[3], c.H, 0, c.H));
  for (int i = 0; i < 3 && c.peepholes; ++i)
    compare(c, inputs, "a peephole", inputs.peephole[i],
            row_sum(found.d_peephole, 3 * c.H, i * c.H, inputs.peephole[i].empty() ? 0 : c.H));
  for (int k = c.first_gate(); k < c.norms() && c.norm; ++k) {
    const int64_t width = c.norms() * 2 * c.H;
    compare(c, inputs, "gamma", inputs.gamma[k], row_sum(found.d_norm, width, 2 * k * c.H, c.H));
    compare(c, inputs, "beta", inputs.beta[k], row_sum(found.d_norm, width, (2 * k + 1) * c.H, c.H));
  }
  if (c.projection) compare(c, inputs, "projection", inputs.projection, projection_gradient(c, found));
}

// Rows 0 and 1 of a ragged batch have T and 0 steps: three rows show all kinds.
Case tiny(int64_t op, uint64_t seed) {
  Case c;
  c.op = op, c.T = 4, c.B = 3, c.H = c.P = 3, c.seed = seed;
  return c;
}

void add_everything(Case &c, int options) {
  c.lengths = options & 1;
  c.reverse = options & 2;
  c.resets = c.reset_state = options & 4;
  if (options & 8) {
    c.mask_h = Masks::kPerStep, c.mask_output = Masks::kPerRow;
    c.mask_c = c.lstm() ? Masks::kFactors : Masks::kNone;
  }
  if (!c.lstm()) return;
  c.peepholes = options & 16;
  c.cell_clip = options & 16 ? 0.5 : -1;
  c.projection = options & 32;
  c.P = options & 32 ? 2 : 3;
  c.proj_clip = options & 48 ? 0.3 : -1;
}

void add_zones_and_states(Case &c, int options) {
  c.zone_h = options & 1 ? Masks::kPerStep : Masks::kFactors;
  if (c.lstm()) c.zone_c = options & 2 ? Masks::kExpected : Masks::kPerStep;
  c.masks_per_place = options & 8 ? 2 : 1;
  c.states = c.resets ? States::kApart : States::kOperands;
}

void add_gate_masks(Case &c, int options) {
  const Masks kinds[] = {Masks::kPerStep, Masks::kPerRow, Masks::kShared, Masks::kRowFactors};
  c.mask_gate = kinds[options % 4];
}

}  // namespace

int main() {
  for (int64_t op = CW_RNN; op <= CW_LSTM; ++op) {
    for (int options = 0; options < (op == CW_LSTM ? 64 : 16); ++options) {
      Case c = tiny(op, uint64_t(300 + options));
      add_everything(c, options);
      check(c);
      for (const bool zones : {false, true}) {
        if (zones) add_zones_and_states(c, options);
        for (const bool norm : {false, true})
          for (const bool coupled : {false, true}) {
            c.norm = norm, c.coupled = coupled;
            if ((zones || norm || coupled) && (op == CW_LSTM || !coupled)) check(c);
            if ((op != CW_LSTM && coupled) || (options + zones + norm + coupled) % 3 != 0) continue;
            Case masked = c;
            add_gate_masks(masked, options);
            check(masked);
          }
      }
    }
    for (int64_t activation = CW_TANH; activation <= CW_RELU6; ++activation)
      for (const int64_t gate : {activation, int64_t(CW_SIGMOID)}) {
        Case c = tiny(op, uint64_t(900 + activation));
        c.T = gate == CW_EXPONENTIAL || activation == CW_EXPONENTIAL ? 1 : 2, c.inputs_bound = 0.5,
        c.activation = activation, c.gate_activation = gate, c.peepholes = op == CW_LSTM;
        check(c);
      }
  }
  return finish("gradients_test");
}
