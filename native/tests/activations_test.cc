// Accuracy of the activation functions of every instruction set against long double, in units of the last place.
// They are reached through a plain recurrent network of one step whose recurrent weights are 0.
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "cases.h"
#include "report.h"

using namespace cellweave_tests;

namespace {

using Wide = long double;

Wide exact(int64_t activation, Wide x) {
  switch (activation) {
    case CW_TANH: return std::tanh(x);
    case CW_SIGMOID: return 1 / (1 + std::exp(-x));
    case CW_RELU: return x > 0 ? x : 0;
    case CW_SOFTSIGN: return x / (1 + std::fabs(x));
    case CW_SOFTPLUS: return std::fmax(x, Wide(0)) + std::log1p(std::exp(-std::fabs(x)));
    case CW_ELU: return x > 0 ? x : std::expm1(x);
    case CW_SELU: return 1.0507009873554805L * (x > 0 ? x : 1.6732632423543772L * std::expm1(x));
    case CW_HARD_SIGMOID: return std::fmin(std::fmax(0.2L * x + 0.5L, Wide(0)), Wide(1));
    case CW_LEAKY_RELU: return x > 0 ? x : Wide(0.2f) * x;
    case CW_EXPONENTIAL: return std::exp(x);
    case CW_RELU6: return std::fmin(std::fmax(x, Wide(0)), Wide(6));
    default: return x;
  }
}

Wide exact_slope(int64_t activation, Wide y) {
  switch (activation) {
    case CW_TANH: return 1 - y * y;
    case CW_SIGMOID: return y * (1 - y);
    case CW_RELU: return y > 0;
    case CW_SOFTSIGN: return (1 - std::fabs(y)) * (1 - std::fabs(y));
    case CW_SOFTPLUS: return -std::expm1(-y);
    case CW_ELU: return y > 0 ? 1 : y + 1;
    case CW_SELU: return y < 0 ? y + 1.0507009873554805L * 1.6732632423543772L : 1.0507009873554805L;
    case CW_HARD_SIGMOID: return y > 0 && y < 1 ? 0.2L : 0;
    case CW_LEAKY_RELU: return y > 0 ? 1 : Wide(0.2f);
    case CW_EXPONENTIAL: return y;
    case CW_RELU6: return y > 0 && y < 6;
    default: return 1;
  }
}

constexpr int64_t kRows = 2000, kUnits = 19;

// Activations of all x, and their slopes times 1.
template <typename Real>
void evaluate(int64_t activation, const std::vector<Real> &x, std::vector<Real> &y, std::vector<Real> &slopes) {
  const std::vector<Real> zeros(size_t(kUnits * kUnits)), h0(x.size()), ones(x.size(), Real(1));
  std::vector<Real> gate = x, last(x.size()), d_h0(x.size());
  y.assign(x.size(), Real(0));
  cw_sequence s = {};
  s.abi_version = CW_ABI_VERSION;
  s.op = CW_RNN, s.dtype = dtype_of<Real>;
  s.T = 1, s.B = int64_t(x.size()) / kUnits, s.H = s.P = kUnits, s.threads = 1, s.save = 1, s.activation = activation;
  s.cell_clip = s.proj_clip = -1;
  s.gate[0] = gate.data(), s.gate_ld[0] = kUnits, s.w[0] = zeros.data(), s.w_ld[0] = kUnits;
  s.h0 = h0.data(), s.out = s.hs = y.data(), s.h_last = last.data();
  s.d_out = ones.data(), s.d_h0 = d_h0.data();
  for (const bool backward : {false, true}) {
    s.scratch_bytes = cw_scratch_bytes(&s, backward);
    std::vector<unsigned char> scratch(size_t(s.scratch_bytes) + 64);
    s.scratch = reinterpret_cast<void *>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64);
    const int64_t status = backward ? cw_rnn_backward(&s) : cw_rnn_forward(&s);
    expect(status == CW_OK, "activation %d: %s", int(activation), cw_status_text(status));
  }
  slopes = gate;
}

// Distance in units of the last place that a number of this size has; numbers below the normal ones all count as 0.
template <typename Real>
Wide distance(Real found, Wide wanted) {
  if (std::isnan(found)) return HUGE_VALL;
  const Real nearest = std::fmax(std::fabs(Real(wanted)), std::numeric_limits<Real>::min());
  if (nearest == std::numeric_limits<Real>::min() && std::fabs(found) <= nearest) return 0;
  const int exponent = std::ilogb(nearest) - (std::numeric_limits<Real>::digits - 1);
  return std::fabs(Wide(found) - wanted) / std::ldexp(Wide(1), exponent);
}

// Allowed distances, of the vector code and of the plain loops: what was measured, rounded up. CW_PRINT_TABLE=1 prints
// it.
struct Row {
  const char *name;
  int64_t activation;
  double low, high;
  double allowed;
};
const Row kTable[] = {
    {"tanh", CW_TANH, -12, 12, 3},
    {"tanh near 0", CW_TANH, -1e-3, 1e-3, 3},
    {"sigmoid", CW_SIGMOID, -80, 30, 3},
    {"relu", CW_RELU, -9, 9, 0},
    {"linear", CW_LINEAR, -9, 9, 0},
    {"softsign", CW_SOFTSIGN, -50, 50, 2},
    {"softplus", CW_SOFTPLUS, -80, 80, 2},
    {"elu", CW_ELU, -90, 9, 2},
    {"elu near 0", CW_ELU, -1e-3, 1e-3, 1},
    {"selu", CW_SELU, -90, 9, 3},
    {"hard_sigmoid", CW_HARD_SIGMOID, -2.4, 4, 16},  // 0.2 x + 0.5 cancels near -2.5
    {"leaky_relu", CW_LEAKY_RELU, -9, 9, 1},
    {"exponential", CW_EXPONENTIAL, -80, 80, 1},
    {"relu6", CW_RELU6, -9, 9, 0},
};

template <typename Real>
void check_row(const Row &row, int64_t isa) {
  Random random(uint64_t(row.activation + 1));
  std::vector<Real> x(size_t(kRows * kUnits)), y, slopes;
  for (Real &value : x) value = Real(random.uniform(row.low, row.high));
  evaluate(row.activation, x, y, slopes);
  Wide worst = 0, worst_slope = 0;
  size_t at = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const Wide wrong = distance(y[i], exact(row.activation, Wide(x[i])));
    if (wrong > worst) worst = wrong, at = i;
    // A slope such as 1 - y * y cancels: its error counts against the larger of itself and 1.
    const Wide slope = exact_slope(row.activation, Wide(y[i]));
    const Wide off = std::fabs(Wide(slopes[i]) - slope) / std::fmax(Wide(1), std::fabs(slope));
    worst_slope = std::fmax(worst_slope, off / std::numeric_limits<Real>::epsilon());
    if (std::isnan(slopes[i])) worst_slope = HUGE_VALL;
  }
  const int bits = int(sizeof(Real) * 8);
  expect(worst <= row.allowed, "%s in %d bits on %s: f(%.17g) = %.17g is %.1Lf units off, allowed %.1f", row.name, bits,
         isa_name(isa), double(x[at]), double(y[at]), worst, row.allowed);
  expect(worst_slope <= 2, "slope of %s in %d bits on %s: %.1Lf units off", row.name, bits, isa_name(isa), worst_slope);
  if (std::getenv("CW_PRINT_TABLE"))
    std::printf("%-14s %d bits %-9s worst %5.2Lf slope %5.2Lf\n", row.name, bits, isa_name(isa), worst, worst_slope);
}

// Ends of the range, infinities and NaN.
template <typename Real>
void check_special(int64_t activation, int64_t isa) {
  const Real infinity = std::numeric_limits<Real>::infinity(), nan = std::numeric_limits<Real>::quiet_NaN();
  const Real special[] = {infinity, -infinity, Real(1e30), Real(-1e30), Real(1000), Real(-1000), Real(0), nan};
  std::vector<Real> x(size_t(kUnits), Real(0.5)), y, slopes;
  for (size_t i = 0; i < sizeof special / sizeof special[0]; ++i) x[i] = special[i];
  evaluate(activation, x, y, slopes);
  for (size_t i = 0; i < x.size(); ++i) {
    const Real wanted = std::isnan(x[i]) ? nan : Real(exact(activation, Wide(x[i])));
    if (std::isinf(x[i]) && activation == CW_SOFTSIGN) continue;  // inf / inf
    const bool same = std::isnan(wanted)   ? std::isnan(y[i])
                      : std::isinf(wanted) ? y[i] == wanted
                                           : distance(y[i], wanted) <= 4;
    expect(same, "activation %d in %d bits on %s: f(%g) = %.9g, expected %.9g", int(activation), int(sizeof(Real) * 8),
           isa_name(isa), double(x[i]), double(y[i]), double(wanted));
  }
}

}  // namespace

int main() {
  std::vector<int64_t> isas = vector_isas();
  isas.push_back(CW_PLAIN);
  for (const int64_t isa : isas) {
    cw_set_isa(isa);
    for (const Row &row : kTable) {
      check_row<float>(row, isa);
      check_row<double>(row, isa);
    }
    for (int64_t activation = CW_TANH; activation <= CW_RELU6; ++activation) {
      check_special<float>(activation, isa);
      check_special<double>(activation, isa);
    }
  }
  return finish("activations_test");
}
