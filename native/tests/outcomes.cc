// What of a call's results is specified, and how results are compared.
#include <cmath>
#include <cstring>

#include "cases.h"
#include "report.h"

namespace cellweave_tests {

namespace {

template <typename Real>
struct Collector {
  const Case &c;
  const Inputs<Real> &inputs;
  std::vector<Tensor> found;

  void all(const char *name, const std::vector<Real> &values) {
    found.push_back({name, std::vector<double>(values.begin(), values.end())});
  }
  // [T, B, N]: only elements of active rows; what stands at others must be a number if `finite`.
  void active(const char *name, const std::vector<Real> &values, int64_t N, bool finite) {
    std::vector<double> kept(values.begin(), values.end());
    for (int64_t i = 0; i < int64_t(kept.size()); ++i) {
      if (inputs.active(i / (c.B * N), i / N % c.B)) continue;
      kept[size_t(i)] = finite && !std::isfinite(kept[size_t(i)]) ? 1e300 : 0;
    }
    found.push_back({name, kept});
  }
  // [T, B, N] at the memory index of the step before: the last step leaves nothing that a step reads.
  void operands(const char *name, const std::vector<Real> &values, int64_t N) {
    std::vector<double> kept(values.begin(), values.end());
    const int64_t last = c.reverse ? 0 : c.T - 1;
    for (int64_t i = 0; i < int64_t(kept.size()); ++i)
      if (i / (c.B * N) == last) kept[size_t(i)] = 0;
    found.push_back({name, kept});
  }
};

// What the normalizations keep; a coupled cell's first number means nothing.
template <typename Real>
std::vector<Real> without_first(const Case &c, std::vector<Real> kept) {
  for (size_t i = 0; i < kept.size() && c.first_gate() == 1; i += size_t(c.norm_numbers())) kept[i] = 0;
  return kept;
}

const char *const kGateNames[] = {"gate 0", "gate 1", "gate 2", "gate 3"};

}  // namespace

template <typename Real>
std::vector<Tensor> specified(const Case &c, const Inputs<Real> &inputs, const Forward<Real> &found) {
  Collector<Real> to{c, inputs, {}};
  to.all("out", found.out);
  to.all("h_last", found.h_last);
  to.all("c_last", found.c_last);
  to.all("h_states", found.h_states);
  to.all("c_states", found.c_states);
  to.operands("hs", found.hs, c.P);
  to.operands("cs", found.cs, c.H);
  to.active("proj_raw", found.proj_raw, c.P, false);
  to.active("norm_kept", without_first(c, found.norm_kept), c.norm_numbers(), false);
  for (int g = 0; g < 4; ++g) to.active(kGateNames[g], found.gate[g], c.H, false);
  return to.found;
}

template <typename Real>
std::vector<Tensor> specified(const Case &c, const Inputs<Real> &inputs, const Backward<Real> &found) {
  Collector<Real> to{c, inputs, {}};
  for (int g = 0; g < 4; ++g) to.all(kGateNames[g], found.gate[g]);
  to.all("d_h0", found.d_h0);
  to.all("d_c0", found.d_c0);
  to.all("d_reset_h", found.d_reset_h);
  to.all("d_reset_c", found.d_reset_c);
  to.all("d_peephole", found.d_peephole);
  to.active("rh", found.rh, c.H, true);
  to.active("proj_in", found.proj_in, c.H, true);
  to.all("d_proj", found.d_proj);
  to.all("d_norm", found.d_norm);
  to.all("gate_h", found.gate_h);
  return to.found;
}

void expect_close(const std::vector<Tensor> &found, const std::vector<Tensor> &wanted, double tolerance,
                  const std::string &where) {
  for (size_t t = 0; t < wanted.size(); ++t) {
    const std::vector<double> &a = found[t].values, &b = wanted[t].values;
    expect(a.size() == b.size(), "%s: %s has another size", where.c_str(), wanted[t].name);
    double largest = 1, worst = 0;
    size_t at = 0;
    for (double value : b) largest = std::fmax(largest, std::fabs(value));
    for (size_t i = 0; i < b.size() && a.size() == b.size(); ++i) {
      const double difference = std::fabs(a[i] - b[i]);
      if (difference <= worst) continue;  // a NaN goes on
      worst = std::isnan(difference) ? HUGE_VAL : difference;
      at = i;
    }
    expect(worst <= tolerance * largest, "%s: %s[%zu] is %.17g, expected %.17g (%.3g of the largest value)",
           where.c_str(), wanted[t].name, at, a.empty() ? 0 : a[at], b.empty() ? 0 : b[at], worst / largest);
  }
}

void expect_equal(const std::vector<Tensor> &found, const std::vector<Tensor> &wanted, const std::string &where) {
  for (size_t t = 0; t < wanted.size(); ++t) {
    const std::vector<double> &a = found[t].values, &b = wanted[t].values;
    size_t at = 0;
    while (at < b.size() && at < a.size() && std::memcmp(&a[at], &b[at], sizeof(double)) == 0) ++at;
    expect(a.size() == b.size() && at == b.size(), "%s: %s[%zu] is %.17g, expected %.17g bit for bit", where.c_str(),
           wanted[t].name, at, at < a.size() ? a[at] : 0, at < b.size() ? b[at] : 0);
  }
}

template std::vector<Tensor> specified(const Case &, const Inputs<float> &, const Forward<float> &);
template std::vector<Tensor> specified(const Case &, const Inputs<double> &, const Forward<double> &);
template std::vector<Tensor> specified(const Case &, const Inputs<float> &, const Backward<float> &);
template std::vector<Tensor> specified(const Case &, const Inputs<double> &, const Backward<double> &);

}  // namespace cellweave_tests
