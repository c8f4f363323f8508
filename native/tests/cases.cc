#include "cases.h"

#include <cmath>
#include <cstdio>

#include "memory.h"
#include "report.h"

namespace cellweave_tests {

namespace {

const char *const kOps[] = {"rnn", "gru_before", "gru_after", "lstm"};
const char *const kMaskNames[] = {"", "shared", "row", "step", "factors", "row_factors", "expected"};

template <typename Real>
std::vector<Real> uniform(Random &random, int64_t size, double bound) {
  std::vector<Real> found(static_cast<size_t>(size));
  for (Real &value : found) value = Real(random.uniform(-bound, bound));
  return found;
}

// Masks of one place whose counters carry from the low half into the high one early on; rows use N of `width` elements.
template <typename Real>
void add_masks(const Case &c, Masks kind, int64_t place, int64_t N, Random &random, Inputs<Real> &to,
               int64_t width = 0) {
  for (int64_t i = 0; kind != Masks::kNone && i < c.masks_per_place; ++i) {
    const bool factors = kind == Masks::kFactors || kind == Masks::kRowFactors;
    const bool by_row = kind == Masks::kPerRow || kind == Masks::kPerStep || kind == Masks::kRowFactors;
    const double keep = random.uniform(0.5, 0.9);
    cw_mask mask = {};
    mask.key = random.bits();
    mask.high = random.bits();
    mask.low = ~uint64_t(0) - uint64_t(random.below(40));
    mask.width = width;
    mask.first = width == 0 ? 0 : (place - CW_MASK_GATE - c.first_gate()) * N;
    mask.stride = kind == Masks::kPerStep ? uint64_t(256 * c.B * (width == 0 ? N : width)) : 0;
    mask.bits = c.mask_bits;
    mask.threshold = uint64_t(std::ldexp(1 - keep, c.mask_bits ? int(c.mask_bits) : sizeof(Real) == 4 ? 23 : 52));
    mask.scale = 1 / keep;
    mask.rows = by_row ? c.B : 1;
    mask.place = place;
    const bool zone = place == CW_MASK_ZONE_H || place == CW_MASK_ZONE_C;
    if (zone) mask.scale = 1;
    if (kind == Masks::kExpected) mask.threshold = 0, mask.scale = keep;
    to.masks.push_back(mask);
    to.factors.push_back(factors ? uniform<Real>(random, mask.rows * (width == 0 ? N : width), zone ? 1 : 1.5)
                                 : std::vector<Real>());
  }
}

std::vector<int32_t> ragged(const Case &c, Random &random) {
  std::vector<int32_t> lengths(static_cast<size_t>(c.B));
  for (int32_t &length : lengths) length = int32_t(random.below(c.T + 1));
  lengths[0] = int32_t(c.B == 1 && c.T > 0 ? c.T - 1 : c.T);
  if (c.B > 1) lengths[1] = 0;
  return lengths;
}

// Padding may hold anything; it must not spread.
template <typename Real>
void poison_padding(const Case &c, const std::vector<int32_t> &lengths, int64_t N, std::vector<Real> &values) {
  for (size_t i = 0; i < values.size() && !lengths.empty(); ++i) {
    const int64_t row = int64_t(i) / N;
    if (row / c.B >= lengths[size_t(row % c.B)]) values[i] = poison<Real>();
  }
}

}  // namespace

uint64_t Random::bits() {
  // SplitMix64 (Steele, Lea, Flood 2014).
  uint64_t z = state_ += 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

std::string name_of(const Case &c, int64_t dtype) {
  char text[160];
  std::snprintf(text, sizeof text, "%s-%s-T%d-B%d-H%d-P%d-act%d-gate%d-seed%llu", kOps[c.op],
                dtype == CW_FLOAT32 ? "f32" : "f64", int(c.T), int(c.B), int(c.H), int(c.P), int(c.activation),
                int(c.gate_activation), static_cast<unsigned long long>(c.seed));
  std::string name = text;
  const auto add = [&](bool on, const std::string &word) {
    if (on) name += "-" + word;
  };
  add(c.projection, "projection");
  add(c.coupled, "coupled");
  add(c.norm, "norm");
  add(c.peepholes, "peepholes");
  add(c.cell_clip >= 0, c.clip_passes ? "clip_passes" : "clip");
  add(c.clips_projection(), "proj_clip");
  add(c.reverse, "reverse");
  add(c.lengths, "lengths");
  add(c.resets, c.reset_state ? "resets_to_state" : "resets");
  add(!c.save, "nosave");
  add(c.feed != Feed::kGates, (c.feed == Feed::kLoop ? "loop_x" : "x_ahead") + std::to_string(c.I));
  add(c.packed != Packed::kScratch, c.packed == Packed::kFresh ? "packs" : "packed");
  add(c.weights != Weights::kRows, c.weights == Weights::kByUnit ? "by_unit" : "scattered");
  add(c.mask_input != Masks::kNone, std::string("x_") + kMaskNames[int(c.mask_input)]);
  add(c.operands_are_outputs, "hs_is_out");
  add(c.mask_h != Masks::kNone, std::string("h_") + kMaskNames[int(c.mask_h)]);
  add(c.mask_c != Masks::kNone, std::string("c_") + kMaskNames[int(c.mask_c)]);
  add(c.mask_output != Masks::kNone, std::string("out_") + kMaskNames[int(c.mask_output)]);
  add(c.zone_h != Masks::kNone, std::string("zone_h_") + kMaskNames[int(c.zone_h)]);
  add(c.zone_c != Masks::kNone, std::string("zone_c_") + kMaskNames[int(c.zone_c)]);
  add(c.mask_gate != Masks::kNone, std::string("gates_") + kMaskNames[int(c.mask_gate)]);
  add(c.x_gate, "x_of_gates");
  add(c.states != States::kNone, c.states == States::kApart ? "states" : "states_are_operands");
  add(c.masks_per_place > 1, "several_masks");
  add(c.mask_bits != 0, "bits" + std::to_string(c.mask_bits));
  add(c.rounds, "bfloat16");
  add(c.no_d_out, "no_d_out");
  add(c.no_d_last, "no_d_last");
  return name;
}

template <typename Real>
Inputs<Real> make_inputs(const Case &c) {
  Random random(c.seed);
  Inputs<Real> found;
  if (c.lengths) found.lengths = ragged(c, random);
  for (int g = c.first_gate(); g < c.gates(); ++g) {
    found.w[g] = uniform<Real>(random, c.P * c.H, 1.5 / std::sqrt(double(c.P)));
    if (c.feed == Feed::kGates) {
      found.gate[g] = uniform<Real>(random, c.T * c.B * c.H, c.inputs_bound);
      poison_padding(c, found.lengths, c.H, found.gate[g]);
      continue;
    }
    found.gate[g].assign(size_t(c.T * c.B * c.H), poison<Real>());
    found.wx[g] = uniform<Real>(random, c.I * c.H, 2 / std::sqrt(double(c.I)));
    if (c.input_bias) found.bias[g] = uniform<Real>(random, c.H, 0.5);
  }
  if (c.feed != Feed::kGates) {
    for (int g = c.first_gate(); g < (c.x_gate ? c.gates() : c.first_gate() + 1); ++g) {
      std::vector<Real> x = uniform<Real>(random, c.T * c.B * c.I, c.inputs_bound);
      poison_padding(c, found.lengths, c.I, x);
      found.x.insert(found.x.end(), x.begin(), x.end());
    }
    add_masks(c, c.mask_input, CW_MASK_INPUT, c.I, random, found);
  }
  if (c.op == CW_GRU_AFTER && c.recurrent_bias) found.bias_h = uniform<Real>(random, c.H, 0.5);
  for (int i = 0; i < 3 && c.peepholes; ++i)
    if (!c.coupled || i != 1) found.peephole[i] = uniform<Real>(random, c.H, 0.5);
  if (c.projection) found.projection = uniform<Real>(random, c.H * c.P, 1.5 / std::sqrt(double(c.H)));
  for (int k = c.first_gate(); k < c.norms() && c.norm; ++k) {
    found.gamma[k] = uniform<Real>(random, c.H, 1.5);
    found.beta[k] = uniform<Real>(random, c.H, 0.5);
  }
  found.h0 = uniform<Real>(random, c.B * c.P, 0.8);
  if (c.lstm()) found.c0 = uniform<Real>(random, c.B * c.H, 0.8);
  for (int64_t i = 0; i < c.T * c.B && c.resets; ++i) found.resets.push_back(uint8_t(random.below(3) == 0));
  if (c.resets && c.reset_state) {
    found.reset_h = uniform<Real>(random, c.B * c.P, 0.8);
    if (c.lstm()) found.reset_c = uniform<Real>(random, c.B * c.H, 0.8);
  }
  add_masks(c, c.mask_h, CW_MASK_H, c.P, random, found);
  if (c.lstm()) add_masks(c, c.mask_c, CW_MASK_C, c.H, random, found);
  add_masks(c, c.mask_output, CW_MASK_OUTPUT, c.P, random, found);
  if (!c.no_d_out) found.d_out = uniform<Real>(random, c.T * c.B * c.P, 1);
  poison_padding(c, found.lengths, c.P, found.d_out);
  if (!c.no_d_last) found.d_h_last = uniform<Real>(random, c.B * c.P, 1);
  if (!c.no_d_last && c.lstm()) found.d_c_last = uniform<Real>(random, c.B * c.H, 1);
  add_masks(c, c.zone_h, CW_MASK_ZONE_H, c.P, random, found);
  if (c.lstm()) add_masks(c, c.zone_c, CW_MASK_ZONE_C, c.H, random, found);
  for (int g = c.first_gate(); g < c.gates(); ++g)
    add_masks(c, c.mask_gate, CW_MASK_GATE + g, c.P, random, found, (c.gates() - c.first_gate()) * c.P);
  if (c.states != States::kNone) found.d_h_states = uniform<Real>(random, c.T * c.B * c.P, 1);
  if (c.states != States::kNone && c.lstm() && !c.no_d_last)
    found.d_c_states = uniform<Real>(random, c.T * c.B * c.H, 1);
  return found;
}

template <typename Real>
Inputs<Real> without_x(const Inputs<Real> &inputs) {
  Inputs<Real> found = inputs;
  found.x.clear();
  found.masks.clear();
  found.factors.clear();
  for (size_t i = 0; i < inputs.masks.size(); ++i)
    if (inputs.masks[i].place != CW_MASK_INPUT) {
      found.masks.push_back(inputs.masks[i]);
      found.factors.push_back(inputs.factors[i]);
    }
  return found;
}

namespace {

template <typename Real>
std::vector<Real> masked_x(const Case &c, const Inputs<Real> &inputs, int g) {
  std::vector<cw_mask> masks;
  for (size_t i = 0; i < inputs.masks.size(); ++i)
    if (inputs.masks[i].place == CW_MASK_INPUT) {
      masks.push_back(inputs.masks[i]);
      masks.back().factors = inputs.factors[i].empty() ? nullptr : inputs.factors[i].data();
    }
  std::vector<Real> found(size_t(c.T * c.B * c.I));
  cw_set_isa(CW_PLAIN);
  const int32_t *lengths = inputs.lengths.empty() ? nullptr : inputs.lengths.data();
  const int64_t status = cw_mask_sequence(dtype_of<Real>, inputs.x.data() + c.inputs_of(g), found.data(), c.T, c.B, c.I,
                                          masks.data(), int64_t(masks.size()), lengths, c.reverse, 1);
  expect(status == CW_OK, "the inputs of a case cannot be masked: %s", cw_status_text(status));
  return found;
}

}  // namespace

template <typename Real>
Inputs<Real> with_gates(const Case &c, const Inputs<Real> &inputs) {
  Inputs<Real> found = without_x(inputs);
  for (int g = c.first_gate(); g < c.gates(); ++g) {
    const std::vector<Real> x = masked_x(c, inputs, g);
    for (int64_t i = 0; i < c.T * c.B * c.H; ++i) {
      const int64_t row = i / c.H, u = i % c.H;
      double sum = inputs.bias[g].empty() ? 0 : inputs.bias[g][size_t(u)];
      for (int64_t k = 0; k < c.I; ++k) sum += double(x[size_t(row * c.I + k)]) * inputs.wx[g][size_t(k * c.H + u)];
      found.gate[g][size_t(i)] = Real(sum);
    }
  }
  return found;
}

template Inputs<float> make_inputs(const Case &);
template Inputs<double> make_inputs(const Case &);
template Inputs<float> without_x(const Inputs<float> &);
template Inputs<double> without_x(const Inputs<double> &);
template Inputs<float> with_gates(const Case &, const Inputs<float> &);
template Inputs<double> with_gates(const Case &, const Inputs<double> &);

}  // namespace cellweave_tests
