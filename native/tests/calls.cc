// One call through the C interface: its memory, its status, and what it leaves.
#include <cmath>

#include "cases.h"
#include "memory.h"
#include "report.h"

namespace cellweave_tests {

namespace {

// The gates of a call in one buffer with leading dimension, the way a caller has them; unused columns hold NaN.
template <typename Real>
class GateColumns {
 public:
  GateColumns(const Case &c, int used) : c_(c), first_(c.first_gate()), used_(used), ld_(4 * c.H + 3) {}

  std::vector<Real> joined(const std::vector<Real> *gates) const {
    std::vector<Real> all(size_t(c_.T * c_.B * ld_), poison<Real>());
    for (int g = first_; g < used_; ++g)
      for (size_t i = 0; i < gates[g].size(); ++i) all[index(g, int64_t(i))] = gates[g][i];
    return all;
  }

  void point(cw_sequence &s, Real *buffer) const {
    for (int g = first_; g < used_ && buffer; ++g) {
      s.gate[g] = buffer + column(g);
      s.gate_ld[g] = ld_;
    }
  }

  void split(const Real *buffer, std::vector<Real> *gates) const {
    for (int g = first_; g < used_ && buffer; ++g)
      for (int64_t i = 0; i < c_.T * c_.B * c_.H; ++i) gates[g].push_back(buffer[index(g, i)]);
  }

  void expect_rest_untouched(const Real *buffer, const std::string &where) const {
    bool untouched = true;
    for (int64_t row = 0; row < c_.T * c_.B && buffer; ++row)
      for (int64_t at = 0; at < ld_; ++at)
        if (at >= 4 * c_.H || (at / c_.H + 3) % 4 >= used_ || (at / c_.H + 3) % 4 < first_)
          untouched = untouched && std::isnan(buffer[row * ld_ + at]);
    expect(untouched, "%s: wrote between the rows of its gates", where.c_str());
  }

 private:
  // Not in the gates' own order, as in real kernels.
  int64_t column(int g) const { return (g + 1) % 4 * c_.H; }
  size_t index(int g, int64_t i) const { return size_t(i / c_.H * ld_ + column(g) + i % c_.H); }

  const Case &c_;
  int first_, used_;
  int64_t ld_;
};

// Large enough that rows of one unit, which have no variance, do not multiply their rounding.
constexpr double kNormEpsilon = 1e-3;

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

// One weight in memory as the case says, with NaN in between, and the distances of its rows and of its units.
template <typename Real>
const Real *point_to_weight(const Case &c, const char *name, const std::vector<Real> &weight, int64_t units,
                            Memory &memory, int64_t &row, int64_t &unit) {
  if (c.weights == Weights::kRows) {
    row = units + 1;
    return memory.in(name, spread(weight, units));
  }
  const int64_t rows = int64_t(weight.size()) / units;
  row = c.weights == Weights::kByUnit ? 1 : 2, unit = rows * row + 1;
  std::vector<Real> found(size_t(units * unit), poison<Real>());
  for (int64_t k = 0; k < rows; ++k)
    for (int64_t u = 0; u < units; ++u) found[size_t(k * row + u * unit)] = weight[size_t(k * units + u)];
  return memory.in(name, found);
}

template <typename Real>
void point_to_inputs(const Case &c, const Inputs<Real> &inputs, const Setup &setup, Memory &memory, cw_sequence &s) {
  s = {};
  s.abi_version = CW_ABI_VERSION;
  s.op = c.op;
  s.dtype = dtype_of<Real>;
  s.T = c.T, s.B = c.B, s.H = c.H, s.P = c.P;
  s.threads = setup.threads, s.split = setup.split, s.reverse = c.reverse, s.save = c.save;
  s.activation = c.activation, s.gate_activation = c.gate_activation;
  s.forget_bias = c.forget_bias, s.cell_clip = c.cell_clip, s.proj_clip = c.proj_clip;
  s.clip_passes = c.clip_passes, s.coupled = c.coupled, s.products = c.rounds;
  for (int g = c.first_gate(); g < c.gates(); ++g) {
    s.w[g] = point_to_weight(c, "w", inputs.w[g], c.H, memory, s.w_ld[g], s.w_unit[g]);
    if (c.feed == Feed::kGates || inputs.x.empty()) continue;
    s.wx[g] = point_to_weight(c, "wx", inputs.wx[g], c.H, memory, s.wx_ld[g], s.wx_unit[g]);
    s.bias[g] = memory.in("bias", inputs.bias[g]);
  }
  if (!inputs.x.empty()) {
    s.x = memory.in("x", inputs.x);
    s.I = c.I;
    s.ahead = c.feed == Feed::kAhead;
    s.x_gate = c.x_gate ? c.T * c.B * c.I : 0;
  }
  s.bias_h = memory.in("bias_h", inputs.bias_h);
  for (int i = 0; i < 3; ++i) s.peephole[i] = memory.in("peephole", inputs.peephole[i]);
  s.norm_epsilon = kNormEpsilon;
  for (int k = 0; k < 5; ++k) {
    s.gamma[k] = memory.in("gamma", inputs.gamma[k]);
    s.beta[k] = memory.in("beta", inputs.beta[k]);
  }
  if (c.projection && c.weights != Weights::kRows)
    s.projection = point_to_weight(c, "projection", inputs.projection, c.P, memory, s.projection_ld, s.projection_unit);
  else
    s.projection = memory.in("projection", inputs.projection);  // dense, as distances of 0 mean
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
  const std::string where = place_of(c, dtype_of<Real>, setup, "forward");
  const int64_t operands = c.save || c.states == States::kOperands ? c.T : 2;
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
  if (c.norm && c.save) s.norm_kept = memory.out<Real>("norm_kept", c.T * c.B * c.norm_numbers());
  if (c.states == States::kApart) s.h_states = memory.out<Real>("h_states", c.T * c.B * c.P);
  if (c.states == States::kApart && c.lstm()) s.c_states = memory.out<Real>("c_states", c.T * c.B * c.H);
  if (c.states == States::kOperands) s.h_states = s.hs, s.c_states = s.cs;
  run(s, false, memory, where);
  columns.expect_rest_untouched(gates, where);
  Forward<Real> found;
  read(found.out, s.out, c.T * c.B * c.P);
  read(found.h_last, s.h_last, c.B * c.P);
  read(found.c_last, s.c_last, c.B * c.H);
  read(found.h_states, s.h_states, c.T * c.B * c.P);
  read(found.c_states, s.c_states, c.T * c.B * c.H);
  if (s.packed) read(found.packed, s.packed, cw_packed_bytes(&s));
  if (!c.save) return found;
  read(found.hs, s.hs, c.T * c.B * c.P);
  read(found.cs, s.cs, c.T * c.B * c.H);
  read(found.proj_raw, s.proj_raw, c.T * c.B * c.P);
  read(found.norm_kept, s.norm_kept, c.T * c.B * c.norm_numbers());
  columns.split(gates, found.gate);
  return found;
}

template <typename Real>
Backward<Real> run_backward(const Case &c, const Inputs<Real> &inputs, const Forward<Real> &saved, const Setup &setup) {
  const std::string where = place_of(c, dtype_of<Real>, setup, "backward");
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
  s.norm_kept = const_cast<Real *>(memory.in("norm_kept", saved.norm_kept));
  if (c.norm) s.d_norm = memory.out<Real>("d_norm", c.B * c.norms() * 2 * c.H);
  s.d_out = memory.in("d_out", inputs.d_out);
  s.d_h_last = memory.in("d_h_last", inputs.d_h_last);
  s.d_c_last = memory.in("d_c_last", inputs.d_c_last);
  s.d_h_states = memory.in("d_h_states", inputs.d_h_states);
  s.d_c_states = memory.in("d_c_states", inputs.d_c_states);
  s.d_h0 = memory.out<Real>("d_h0", c.B * c.P);
  if (c.lstm()) s.d_c0 = memory.out<Real>("d_c0", c.B * c.H);
  if (c.reset_state) s.d_reset_h = memory.out<Real>("d_reset_h", c.B * c.P);
  if (c.reset_state && c.lstm()) s.d_reset_c = memory.out<Real>("d_reset_c", c.B * c.H);
  if (c.peepholes) s.d_peephole = memory.out<Real>("d_peephole", c.B * 3 * c.H);
  if (c.op == CW_GRU_BEFORE) s.rh = memory.out<Real>("rh", c.T * c.B * c.H);
  if (c.mask_gate != Masks::kNone) s.gate_h = memory.out<Real>("gate_h", c.gates_of_h() * c.T * c.B * c.P);
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
  read(found.d_norm, s.d_norm, c.B * c.norms() * 2 * c.H);
  read(found.gate_h, s.gate_h, c.gates_of_h() * c.T * c.B * c.P);
  return found;
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

template Forward<float> run_forward(const Case &, const Inputs<float> &, const Setup &);
template Forward<double> run_forward(const Case &, const Inputs<double> &, const Setup &);
template Backward<float> run_backward(const Case &, const Inputs<float> &, const Forward<float> &, const Setup &);
template Backward<double> run_backward(const Case &, const Inputs<double> &, const Forward<double> &, const Setup &);

}  // namespace cellweave_tests
