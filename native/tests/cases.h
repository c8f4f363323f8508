// A layer call as data: sizes and options, random numbers for all inputs, and what a call gives back.
#ifndef CELLWEAVE_TESTS_CASES_H_
#define CELLWEAVE_TESTS_CASES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cellweave.h"

namespace cellweave_tests {

// Who multiplies the inputs by their weights: the caller, the loop, or the core ahead of the loop.
enum class Feed { kGates, kLoop, kAhead };
// Packed weights: in scratch, in memory of their own, or there already from another call.
enum class Packed { kScratch, kFresh, kReady };
// How weights lie: rows of units; a row for each unit; a row for each unit, with gaps between its elements.
enum class Weights { kRows, kByUnit, kScattered };
// kExpected is for zoneout alone: every element keeps the same share.
enum class Masks { kNone, kShared, kPerRow, kPerStep, kFactors, kRowFactors, kExpected };
// States after each step: nobody asks, in buffers of their own, or in those of the operands.
enum class States { kNone, kApart, kOperands };

struct Case {
  int64_t op = CW_LSTM, T = 7, B = 3, H = 9, P = 9;
  bool projection = false, peepholes = false, recurrent_bias = true, clip_passes = false, coupled = false, norm = false;
  double cell_clip = -1, proj_clip = -1, forget_bias = 0.5;
  int64_t activation = CW_TANH, gate_activation = CW_SIGMOID;
  bool reverse = false, lengths = false, resets = false, reset_state = false;
  bool save = true, operands_are_outputs = false;
  Feed feed = Feed::kGates;
  int64_t I = 6;
  bool input_bias = true;
  Packed packed = Packed::kScratch;
  Weights weights = Weights::kRows;
  Masks mask_input = Masks::kNone, mask_h = Masks::kNone, mask_c = Masks::kNone, mask_output = Masks::kNone;
  Masks zone_h = Masks::kNone, zone_c = Masks::kNone;
  Masks mask_gate = Masks::kNone;  // of each gate's own, parts of one mask; needs input products ahead of the loop
  bool x_gate = false;             // each gate has inputs of its own; likewise
  States states = States::kNone;
  int64_t masks_per_place = 1, mask_bits = 0;
  bool rounds = false;  // products of bfloat16
  bool no_d_out = false, no_d_last = false;
  double inputs_bound = 1.5;  // of the gates' inputs
  uint64_t seed = 1;

  bool lstm() const { return op == CW_LSTM; }
  int gates() const { return lstm() ? 4 : op == CW_RNN ? 1 : 3; }
  // Coupled gates leave gate 0 without weights and buffer.
  int first_gate() const { return lstm() && coupled ? 1 : 0; }
  // Layer normalizations, and how many numbers they keep for backward.
  int norms() const { return lstm() ? 5 : op == CW_GRU_AFTER ? 4 : gates(); }
  int norm_numbers() const { return norms() + (lstm() ? 1 : 0); }
  // Gates that backward reads and writes: a GRU that resets after the product has one more.
  int saved_gates() const { return op == CW_GRU_AFTER ? 4 : gates(); }
  // Gates that multiply the operand h itself.
  int gates_of_h() const { return (op == CW_GRU_BEFORE ? 2 : gates()) - first_gate(); }
  int64_t inputs_of(int g) const { return x_gate ? (g - first_gate()) * T * B * I : 0; }
  // Without them the loop keeps its gates to itself.
  bool gives_gates() const { return save || feed != Feed::kLoop; }
  bool clips_projection() const { return projection && proj_clip >= 0; }
  // What the interface allows: hs may be `out` itself.
  bool may_share_operands() const {
    return mask_h == Masks::kNone && mask_output == Masks::kNone && !lengths && !resets;
  }
};

template <typename Real>
constexpr int64_t dtype_of = sizeof(Real) == 4 ? CW_FLOAT32 : CW_FLOAT64;

std::string name_of(const Case &c, int64_t dtype);

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits();
  double uniform(double low, double high) { return low + (high - low) * double(bits() >> 11) * 0x1p-53; }
  int64_t below(int64_t end) { return int64_t(bits() % uint64_t(end)); }
  bool coin() { return bits() & 1; }

 private:
  uint64_t state_;
};

// Everything that a call reads, each tensor dense by itself.
template <typename Real>
struct Inputs {
  std::vector<Real> gate[4], x, wx[4], bias[4], w[4], bias_h, peephole[3], projection, gamma[5], beta[5];
  std::vector<Real> h0, c0, reset_h, reset_c, d_out, d_h_last, d_c_last, d_h_states, d_c_states;
  std::vector<int32_t> lengths;
  std::vector<uint8_t> resets;
  std::vector<cw_mask> masks;
  std::vector<std::vector<Real>> factors;  // of masks[i], empty: from its stream

  bool active(int64_t m, int64_t b) const { return lengths.empty() || m < lengths[size_t(b)]; }
};

template <typename Real>
Inputs<Real> make_inputs(const Case &c);

// What is left for the rest of the layer once the gates hold the input products: no x, no masks on it.
template <typename Real>
Inputs<Real> without_x(const Inputs<Real> &inputs);

// The same layer with its input products made here.
template <typename Real>
Inputs<Real> with_gates(const Case &c, const Inputs<Real> &inputs);

// What run_forward and run_backward use of the machine.
struct Setup {
  int64_t isa = CW_PLAIN, threads = 1, split = CW_SPLIT_UNITS;
};

template <typename Real>
struct Forward {
  std::vector<Real> out, hs, cs, h_last, c_last, gate[4], proj_raw, norm_kept, h_states, c_states;
  std::vector<unsigned char> packed;
};

template <typename Real>
struct Backward {
  std::vector<Real> gate[4], d_h0, d_c0, d_reset_h, d_reset_c, d_peephole, rh, proj_in, d_proj, d_norm, gate_h;
};

// Run through the C interface; failures of status, guards and inputs are reported here.
template <typename Real>
Forward<Real> run_forward(const Case &c, const Inputs<Real> &inputs, const Setup &setup);

// `saved` is what a forward run with c.save left.
template <typename Real>
Backward<Real> run_backward(const Case &c, const Inputs<Real> &inputs, const Forward<Real> &saved, const Setup &setup);

// A tensor of an outcome in double, NaN where its content is not specified.
struct Tensor {
  const char *name;
  std::vector<double> values;
};

template <typename Real>
std::vector<Tensor> specified(const Case &c, const Inputs<Real> &inputs, const Forward<Real> &found);
template <typename Real>
std::vector<Tensor> specified(const Case &c, const Inputs<Real> &inputs, const Backward<Real> &found);

// Largest difference at most `tolerance` times the largest value (at least 1) of each tensor; NaN fails.
void expect_close(const std::vector<Tensor> &found, const std::vector<Tensor> &wanted, double tolerance,
                  const std::string &where);
// The same bits.
void expect_equal(const std::vector<Tensor> &found, const std::vector<Tensor> &wanted, const std::string &where);

// Instruction sets of this machine and build, without CW_PLAIN.
std::vector<int64_t> vector_isas();
const char *isa_name(int64_t isa);

}  // namespace cellweave_tests
#endif
