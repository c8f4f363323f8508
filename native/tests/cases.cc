#include "cases.h"

#include <cmath>
#include <cstdio>
#include <cstring>

#include "memory.h"
#include "report.h"

namespace cellweave_tests {

namespace {

const char *const kOps[] = {"rnn", "gru_before", "gru_after", "lstm"};
const char *const kMaskNames[] = {"", "shared", "row", "step", "factors", "row_factors"};

template <typename Real>
constexpr int64_t kDtype = sizeof(Real) == 4 ? CW_FLOAT32 : CW_FLOAT64;

template <typename Real>
std::vector<Real> uniform(Random &random, int64_t size, double bound) {
  std::vector<Real> found(static_cast<size_t>(size));
  for (Real &value : found) value = Real(random.uniform(-bound, bound));
  return found;
}

// Masks of one place whose counters carry from the low half into the high one early on.
template <typename Real>
void add_masks(const Case &c, Masks kind, int64_t place, int64_t N, Random &random, Inputs<Real> &to) {
  for (int64_t i = 0; kind != Masks::kNone && i < c.masks_per_place; ++i) {
    const bool factors = kind == Masks::kFactors || kind == Masks::kRowFactors;
    const bool by_row = kind == Masks::kPerRow || kind == Masks::kPerStep || kind == Masks::kRowFactors;
    const double keep = random.uniform(0.5, 0.9);
    cw_mask mask = {};
    mask.key = random.bits();
    mask.high = random.bits();
    mask.low = ~uint64_t(0) - uint64_t(random.below(40));
    mask.stride = kind == Masks::kPerStep ? uint64_t(256 * c.B * N) : 0;
    mask.threshold = uint64_t(std::ldexp(1 - keep, sizeof(Real) == 4 ? 23 : 52));
    mask.scale = 1 / keep;
    mask.rows = by_row ? c.B : 1;
    mask.place = place;
    to.masks.push_back(mask);
    to.factors.push_back(factors ? uniform<Real>(random, mask.rows * N, 1.5) : std::vector<Real>());
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
  add(c.peepholes, "peepholes");
  add(c.cell_clip >= 0, "clip");
  add(c.clips_projection(), "proj_clip");
  add(c.reverse, "reverse");
  add(c.lengths, "lengths");
  add(c.resets, c.reset_state ? "resets_to_state" : "resets");
  add(!c.save, "nosave");
  add(c.feed != Feed::kGates, (c.feed == Feed::kLoop ? "loop_x" : "x_ahead") + std::to_string(c.I));
  add(c.packed != Packed::kScratch, c.packed == Packed::kFresh ? "packs" : "packed");
  add(c.mask_input != Masks::kNone, std::string("x_") + kMaskNames[int(c.mask_input)]);
  add(c.operands_are_outputs, "hs_is_out");
  add(c.mask_h != Masks::kNone, std::string("h_") + kMaskNames[int(c.mask_h)]);
  add(c.mask_c != Masks::kNone, std::string("c_") + kMaskNames[int(c.mask_c)]);
  add(c.mask_output != Masks::kNone, std::string("out_") + kMaskNames[int(c.mask_output)]);
  add(c.masks_per_place > 1, "several_masks");
  add(c.no_d_out, "no_d_out");
  add(c.no_d_last, "no_d_last");
  return name;
}

template <typename Real>
Inputs<Real> make_inputs(const Case &c) {
  Random random(c.seed);
  Inputs<Real> found;
  if (c.lengths) found.lengths = ragged(c, random);
  for (int g = 0; g < c.gates(); ++g) {
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
    found.x = uniform<Real>(random, c.T * c.B * c.I, c.inputs_bound);
    poison_padding(c, found.lengths, c.I, found.x);
    add_masks(c, c.mask_input, CW_MASK_INPUT, c.I, random, found);
  }
  if (c.op == CW_GRU_AFTER && c.recurrent_bias) found.bias_h = uniform<Real>(random, c.H, 0.5);
  for (int i = 0; i < 3 && c.peepholes; ++i) found.peephole[i] = uniform<Real>(random, c.H, 0.5);
  if (c.projection) found.projection = uniform<Real>(random, c.H * c.P, 1.5 / std::sqrt(double(c.H)));
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
  return found;
}

namespace {

// What is left for the rest of the layer once the gates hold the input products.
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

template <typename Real>
std::vector<Real> masked_x(const Case &c, const Inputs<Real> &inputs) {
  std::vector<cw_mask> masks;
  for (size_t i = 0; i < inputs.masks.size(); ++i)
    if (inputs.masks[i].place == CW_MASK_INPUT) {
      masks.push_back(inputs.masks[i]);
      masks.back().factors = inputs.factors[i].empty() ? nullptr : inputs.factors[i].data();
    }
  std::vector<Real> found(inputs.x.size());
  cw_set_isa(CW_PLAIN);
  const int32_t *lengths = inputs.lengths.empty() ? nullptr : inputs.lengths.data();
  const int64_t status = cw_mask_sequence(kDtype<Real>, inputs.x.data(), found.data(), c.T, c.B, c.I, masks.data(),
                                          int64_t(masks.size()), lengths, c.reverse, 1);
  expect(status == CW_OK, "the inputs of a case cannot be masked: %s", cw_status_text(status));
  return found;
}

}  // namespace

template <typename Real>
Inputs<Real> with_gates(const Case &c, const Inputs<Real> &inputs) {
  Inputs<Real> found = without_x(inputs);
  const std::vector<Real> x = masked_x(c, inputs);
  for (int g = 0; g < c.gates(); ++g)
    for (int64_t i = 0; i < c.T * c.B * c.H; ++i) {
      const int64_t row = i / c.H, u = i % c.H;
      double sum = inputs.bias[g].empty() ? 0 : inputs.bias[g][size_t(u)];
      for (int64_t k = 0; k < c.I; ++k) sum += double(x[size_t(row * c.I + k)]) * inputs.wx[g][size_t(k * c.H + u)];
      found.gate[g][size_t(i)] = Real(sum);
    }
  return found;
}

namespace {

// The gates of a call in one buffer with leading dimension, the way a caller has them; unused columns hold NaN.
template <typename Real>
class GateColumns {
 public:
  GateColumns(const Case &c, int used) : c_(c), used_(used), ld_(4 * c.H + 3) {}

  std::vector<Real> joined(const std::vector<Real> *gates) const {
    std::vector<Real> all(size_t(c_.T * c_.B * ld_), poison<Real>());
    for (int g = 0; g < used_; ++g)
      for (size_t i = 0; i < gates[g].size(); ++i) all[index(g, int64_t(i))] = gates[g][i];
    return all;
  }

  void point(cw_sequence &s, Real *buffer) const {
    for (int g = 0; g < used_ && buffer; ++g) {
      s.gate[g] = buffer + column(g);
      s.gate_ld[g] = ld_;
    }
  }

  void split(const Real *buffer, std::vector<Real> *gates) const {
    for (int g = 0; g < used_ && buffer; ++g)
      for (int64_t i = 0; i < c_.T * c_.B * c_.H; ++i) gates[g].push_back(buffer[index(g, i)]);
  }

  void expect_rest_untouched(const Real *buffer, const std::string &where) const {
    bool untouched = true;
    for (int64_t row = 0; row < c_.T * c_.B && buffer; ++row)
      for (int64_t at = 0; at < ld_; ++at)
        if (at >= 4 * c_.H || (at / c_.H + 3) % 4 >= used_) untouched = untouched && std::isnan(buffer[row * ld_ + at]);
    expect(untouched, "%s: wrote between the rows of its gates", where.c_str());
  }

 private:
  // Not in the gates' own order, as in real kernels.
  int64_t column(int g) const { return (g + 1) % 4 * c_.H; }
  size_t index(int g, int64_t i) const { return size_t(i / c_.H * ld_ + column(g) + i % c_.H); }

  const Case &c_;
  int used_;
  int64_t ld_;
};

// Rows of `width` with one column of NaN after each.
template <typename Real>
std::vector<Real> spread(const std::vector<Real> &rows, int64_t width) {
  std::vector<Real> found;
  for (size_t i = 0; i < rows.size(); ++i) {
    found.push_back(rows[i]);
    if (int64_t(i) % width == width - 1) found.push_back(poison<Real>());
  }
  return found;
}

template <typename Real>
void point_to_inputs(const Case &c, const Inputs<Real> &inputs, const Setup &setup, Memory &memory, cw_sequence &s) {
  s = {};
  s.abi_version = CW_ABI_VERSION;
  s.op = c.op;
  s.dtype = kDtype<Real>;
  s.T = c.T, s.B = c.B, s.H = c.H, s.P = c.P;
  s.threads = setup.threads, s.split = setup.split, s.reverse = c.reverse, s.save = c.save;
  s.activation = c.activation, s.gate_activation = c.gate_activation;
  s.forget_bias = c.forget_bias, s.cell_clip = c.cell_clip, s.proj_clip = c.proj_clip;
  for (int g = 0; g < c.gates(); ++g) {
    s.w[g] = memory.in("w", spread(inputs.w[g], c.H));
    s.w_ld[g] = c.H + 1;
    if (c.feed == Feed::kGates || inputs.x.empty()) continue;
    s.wx[g] = memory.in("wx", spread(inputs.wx[g], c.H));
    s.wx_ld[g] = c.H + 1;
    s.bias[g] = memory.in("bias", inputs.bias[g]);
  }
  if (!inputs.x.empty()) {
    s.x = memory.in("x", inputs.x);
    s.I = c.I;
    s.ahead = c.feed == Feed::kAhead;
  }
  s.bias_h = memory.in("bias_h", inputs.bias_h);
  for (int i = 0; i < 3; ++i) s.peephole[i] = memory.in("peephole", inputs.peephole[i]);
  s.projection = memory.in("projection", inputs.projection);
  s.h0 = memory.in("h0", inputs.h0);
  s.c0 = memory.in("c0", inputs.c0);
  s.lengths = memory.in("lengths", inputs.lengths);
  s.resets = memory.in("resets", inputs.resets);
  s.reset_h = memory.in("reset_h", inputs.reset_h);
  s.reset_c = memory.in("reset_c", inputs.reset_c);
  std::vector<cw_mask> masks = inputs.masks;
  for (size_t i = 0; i < masks.size(); ++i) masks[i].factors = memory.in("factors", inputs.factors[i]);
  s.masks = memory.in("masks", masks);
  s.n_masks = int64_t(masks.size());
}

int64_t call(const cw_sequence &s, bool backward) {
  switch (s.op) {
    case CW_RNN: return backward ? cw_rnn_backward(&s) : cw_rnn_forward(&s);
    case CW_LSTM: return backward ? cw_lstm_backward(&s) : cw_lstm_forward(&s);
    default: return backward ? cw_gru_backward(&s) : cw_gru_forward(&s);
  }
}

// The packed weights of another call with other buffers; here they only need to be read.
template <typename Real>
void point_to_packed(const Case &c, const Inputs<Real> &inputs, const Setup &setup, Memory &memory, cw_sequence &s) {
  if (c.packed == Packed::kScratch) return;
  s.packed_ready = c.packed == Packed::kReady;
  if (s.packed_ready) {
    Case first = c;
    first.packed = Packed::kFresh;
    Setup other = setup;
    other.threads = c.seed % 8 == 0 ? 2 : 1;
    s.packed = memory.aligned_in("packed", run_forward(first, inputs, other).packed);
  } else {
    s.packed = memory.aligned_out("packed", cw_packed_bytes(&s));
  }
}

void run(cw_sequence &s, bool backward, Memory &memory, const std::string &where) {
  s.scratch_bytes = cw_scratch_bytes(&s, backward);
  expect(s.scratch_bytes >= 0, "%s: no scratch size", where.c_str());
  s.scratch = memory.aligned_out("scratch", s.scratch_bytes);
  memory.close();
  const int64_t status = call(s, backward);
  expect(status == CW_OK, "%s: %s", where.c_str(), cw_status_text(status));
  memory.verify(where);
}

template <typename Real>
void read(std::vector<Real> &to, const void *from, int64_t size) {
  if (from) to.assign(static_cast<const Real *>(from), static_cast<const Real *>(from) + size);
}

std::string place_of(const Case &c, int64_t dtype, const Setup &setup, const char *act) {
  return name_of(c, dtype) + " " + act + " on " + isa_name(setup.isa) + ", " + std::to_string(setup.threads) +
         " threads, split " + std::to_string(setup.split);
}

}  // namespace

template <typename Real>
Forward<Real> run_forward(const Case &c, const Inputs<Real> &inputs, const Setup &setup) {
  const std::string where = place_of(c, kDtype<Real>, setup, "forward");
  const int64_t operands = c.save ? c.T : 2;
  Memory memory;
  cw_sequence s;
  expect(cw_set_isa(setup.isa) == CW_OK, "%s: cannot set the instruction set", where.c_str());
  point_to_inputs(c, inputs, setup, memory, s);
  point_to_packed(c, inputs, setup, memory, s);
  const GateColumns<Real> columns(c, c.save ? c.saved_gates() : c.gates());
  Real *gates = c.gives_gates() ? memory.inout("gates", columns.joined(inputs.gate)) : nullptr;
  columns.point(s, gates);
  s.out = memory.out<Real>("out", c.T * c.B * c.P);
  s.hs = c.operands_are_outputs ? s.out : memory.out<Real>("hs", operands * c.B * c.P);
  s.h_last = memory.out<Real>("h_last", c.B * c.P);
  if (c.lstm()) s.cs = memory.out<Real>("cs", operands * c.B * c.H);
  if (c.lstm()) s.c_last = memory.out<Real>("c_last", c.B * c.H);
  if (c.clips_projection() && c.save) s.proj_raw = memory.out<Real>("proj_raw", c.T * c.B * c.P);
  run(s, false, memory, where);
  columns.expect_rest_untouched(gates, where);
  Forward<Real> found;
  read(found.out, s.out, c.T * c.B * c.P);
  read(found.h_last, s.h_last, c.B * c.P);
  read(found.c_last, s.c_last, c.B * c.H);
  if (s.packed) read(found.packed, s.packed, cw_packed_bytes(&s));
  if (!c.save) return found;
  read(found.hs, s.hs, c.T * c.B * c.P);
  read(found.cs, s.cs, c.T * c.B * c.H);
  read(found.proj_raw, s.proj_raw, c.T * c.B * c.P);
  columns.split(gates, found.gate);
  return found;
}

template <typename Real>
Backward<Real> run_backward(const Case &c, const Inputs<Real> &inputs, const Forward<Real> &saved, const Setup &setup) {
  const std::string where = place_of(c, kDtype<Real>, setup, "backward");
  Memory memory;
  cw_sequence s;
  expect(cw_set_isa(setup.isa) == CW_OK, "%s: cannot set the instruction set", where.c_str());
  point_to_inputs(c, without_x(inputs), setup, memory, s);
  const GateColumns<Real> columns(c, c.saved_gates());
  Real *gates = memory.inout("gates", columns.joined(saved.gate));
  columns.point(s, gates);
  s.hs = const_cast<Real *>(memory.in("hs", saved.hs));
  s.cs = const_cast<Real *>(memory.in("cs", saved.cs));
  s.proj_raw = const_cast<Real *>(memory.in("proj_raw", saved.proj_raw));
  s.d_out = memory.in("d_out", inputs.d_out);
  s.d_h_last = memory.in("d_h_last", inputs.d_h_last);
  s.d_c_last = memory.in("d_c_last", inputs.d_c_last);
  s.d_h0 = memory.out<Real>("d_h0", c.B * c.P);
  if (c.lstm()) s.d_c0 = memory.out<Real>("d_c0", c.B * c.H);
  if (c.reset_state) s.d_reset_h = memory.out<Real>("d_reset_h", c.B * c.P);
  if (c.reset_state && c.lstm()) s.d_reset_c = memory.out<Real>("d_reset_c", c.B * c.H);
  if (c.peepholes) s.d_peephole = memory.out<Real>("d_peephole", c.B * 3 * c.H);
  if (c.op == CW_GRU_BEFORE) s.rh = memory.out<Real>("rh", c.T * c.B * c.H);
  if (c.projection) s.proj_in = memory.out<Real>("proj_in", c.T * c.B * c.H);
  if (c.projection) s.d_proj = memory.out<Real>("d_proj", c.T * c.B * c.P);
  run(s, true, memory, where);
  columns.expect_rest_untouched(gates, where);
  Backward<Real> found;
  columns.split(gates, found.gate);
  read(found.d_h0, s.d_h0, c.B * c.P);
  read(found.d_c0, s.d_c0, c.B * c.H);
  read(found.d_reset_h, s.d_reset_h, c.B * c.P);
  read(found.d_reset_c, s.d_reset_c, c.B * c.H);
  read(found.d_peephole, s.d_peephole, c.B * 3 * c.H);
  read(found.rh, s.rh, c.T * c.B * c.H);
  read(found.proj_in, s.proj_in, c.T * c.B * c.H);
  read(found.d_proj, s.d_proj, c.T * c.B * c.P);
  return found;
}

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

const char *const kGateNames[] = {"gate 0", "gate 1", "gate 2", "gate 3"};

}  // namespace

template <typename Real>
std::vector<Tensor> specified(const Case &c, const Inputs<Real> &inputs, const Forward<Real> &found) {
  Collector<Real> to{c, inputs, {}};
  to.all("out", found.out);
  to.all("h_last", found.h_last);
  to.all("c_last", found.c_last);
  to.operands("hs", found.hs, c.P);
  to.operands("cs", found.cs, c.H);
  to.active("proj_raw", found.proj_raw, c.P, false);
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

std::vector<int64_t> vector_isas() {
  std::vector<int64_t> found;
  for (int64_t isa = CW_PORTABLE; isa <= CW_AVX512; ++isa)
    if (cw_set_isa(isa) == CW_OK) found.push_back(isa);
  cw_set_isa(cw_best_isa());
  return found;
}

const char *isa_name(int64_t isa) {
  static const char *const names[] = {"plain", "portable", "avx2", "avx512"};
  return isa >= 0 && isa < 4 ? names[isa] : "no instruction set";
}

template Inputs<float> with_gates(const Case &, const Inputs<float> &);
template Inputs<double> with_gates(const Case &, const Inputs<double> &);
template Inputs<float> make_inputs(const Case &);
template Inputs<double> make_inputs(const Case &);
template Forward<float> run_forward(const Case &, const Inputs<float> &, const Setup &);
template Forward<double> run_forward(const Case &, const Inputs<double> &, const Setup &);
template Backward<float> run_backward(const Case &, const Inputs<float> &, const Forward<float> &, const Setup &);
template Backward<double> run_backward(const Case &, const Inputs<double> &, const Forward<double> &, const Setup &);
template std::vector<Tensor> specified(const Case &, const Inputs<float> &, const Forward<float> &);
template std::vector<Tensor> specified(const Case &, const Inputs<double> &, const Forward<double> &);
template std::vector<Tensor> specified(const Case &, const Inputs<float> &, const Backward<float> &);
template std::vector<Tensor> specified(const Case &, const Inputs<double> &, const Backward<double> &);

}  // namespace cellweave_tests
