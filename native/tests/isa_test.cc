// Every instruction set against the plain loops: sizes around the vector widths, all options, both dtypes.
#include <vector>

#include "cases.h"
#include "report.h"

using namespace cellweave_tests;

namespace {

struct Sweep {
  std::vector<int64_t> isas;
  Share share;
};

// Of the largest value of a tensor. Measured: at most 7.3e-6 and 3.7e-14 over all cases below, where a linear function
// in place of the gates' sigmoid lets rounding grow from step to step; 3.1e-6 and 5e-15 with TF1's functions.
constexpr double kFloatTolerance = 2e-5, kDoubleTolerance = 1e-13;
// Sums in another order may fall on the other side of where bfloat16 rounds, which changes a number by 1/256 of it.
constexpr double kRoundedTolerance = 4e-3;

// Those that can run the case.
std::vector<int64_t> isas_for(const Case &c, const Sweep &sweep) {
  std::vector<int64_t> found;
  for (const int64_t isa : sweep.isas)
    if (cw_set_isa(isa) == CW_OK && (!c.rounds || cw_has_bfloat16())) found.push_back(isa);
  return found;
}

// The plain loops' own input products against ones made outside.
template <typename Real>
void compare_input_products(const Case &c, const Inputs<Real> &inputs, const std::vector<Tensor> &found,
                            double tolerance) {
  Case given = c;
  given.feed = Feed::kGates;
  const Inputs<Real> ready = with_gates(c, inputs);
  expect_close(found, specified(given, ready, run_forward(given, ready, Setup())), tolerance,
               name_of(c, dtype_of<Real>) + " input products");
}

template <typename Real>
void compare(Case c, Sweep &sweep) {
  if (!sweep.share.takes_next()) return;
  const std::vector<int64_t> isas = isas_for(c, sweep);
  if (isas.empty()) return;
  const double tolerance = c.rounds ? kRoundedTolerance : sizeof(Real) == 4 ? kFloatTolerance : kDoubleTolerance;
  const Inputs<Real> inputs = make_inputs<Real>(c);
  const Forward<Real> wanted = run_forward(c, inputs, Setup());
  const auto expected = specified(c, inputs, wanted);
  if (!inputs.x.empty() && !c.rounds) compare_input_products(c, inputs, expected, tolerance);
  std::vector<Tensor> gradients;
  if (c.save) gradients = specified(c, inputs, run_backward(c, inputs, wanted, Setup()));
  for (const int64_t isa : isas) {
    const std::string where = name_of(c, dtype_of<Real>) + " on " + isa_name(isa);
    expect_close(specified(c, inputs, run_forward(c, inputs, Setup{isa})), expected, tolerance, where + " forward");
    // Backward starts from the same saved tensors, so that a clip or a kink falls on the same side.
    if (c.save)
      expect_close(specified(c, inputs, run_backward(c, inputs, wanted, Setup{isa})), gradients, tolerance,
                   where + " backward");
  }
}

void compare_both(const Case &c, Sweep &sweep) {
  compare<float>(c, sweep);
  compare<double>(c, sweep);
}

Masks any_mask(Random &random) { return random.coin() ? Masks::kNone : Masks(1 + random.below(5)); }

void choose_options(Case &c, Random &random) {
  c.lengths = random.coin();
  c.resets = random.coin();
  c.reset_state = c.resets && random.coin();
  c.reverse = random.coin();
  c.save = random.below(4) != 0;
  c.mask_h = any_mask(random);
  c.mask_output = any_mask(random);
  c.no_d_out = random.below(8) == 0;
  c.no_d_last = random.below(4) == 0;
  c.recurrent_bias = random.coin();
  // Functions that grow, fed back to themselves for many steps, leave the range in which errors mean something.
  const int64_t bounded[] = {CW_TANH, CW_SIGMOID, CW_SOFTSIGN, CW_HARD_SIGMOID, CW_RELU6};
  if (random.below(3) == 0) c.activation = random.below(CW_EXPONENTIAL);
  if (random.below(3) == 0) c.gate_activation = bounded[random.below(5)];
  if (c.lstm()) {
    c.mask_c = any_mask(random);
    c.peepholes = random.coin();
    c.cell_clip = random.coin() ? 0.6 : -1;
    c.clip_passes = c.cell_clip >= 0 && random.below(3) == 0;
    c.coupled = random.below(3) == 0;
    c.projection = random.coin();
    c.proj_clip = c.projection && random.coin() ? 0.4 : -1;
    if (c.projection) c.P = 1 + random.below(c.H + 3);
  }
  c.norm = random.below(3) == 0;
  if (random.coin()) c.lengths = c.resets = false, c.mask_h = c.mask_output = Masks::kNone;
  c.operands_are_outputs = c.may_share_operands() && random.coin();
  c.feed = Feed(random.below(3));
  const int64_t widths[] = {1, 4, 16, 23, 64};
  c.I = widths[random.below(5)];
  c.input_bias = random.coin();
  c.packed = Packed(random.below(3));
  if (c.feed == Feed::kLoop) c.mask_input = any_mask(random);
}

// Zoneout, and states after each step; `c` has its other options already.
void choose_additions(Case &c, uint64_t seed) {
  Random random(seed);
  c.zone_h = random.coin() ? Masks::kNone : Masks(1 + random.below(6));
  if (c.lstm()) c.zone_c = random.coin() ? Masks::kNone : Masks(1 + random.below(6));
  if (random.coin()) return;
  const bool apart = c.resets || (!c.operands_are_outputs && random.coin());
  c.states = apart ? States::kApart : States::kOperands;
}

void sweep_sizes(Sweep &sweep) {
  Random random(20240229);
  for (int64_t op = CW_RNN; op <= CW_LSTM; ++op)
    for (const int64_t T : {0, 1, 2, 7})
      for (const int64_t B : {1, 3, 17})
        for (const int64_t H : {1, 7, 8, 9, 15, 16, 17, 63, 64, 65}) {
          Case c;
          c.op = op, c.T = T, c.B = B, c.H = c.P = H;
          c.seed = random.bits() % 1000000;
          compare_both(c, sweep);
          choose_options(c, random);
          compare_both(c, sweep);
          choose_additions(c, c.seed + 17);
          compare_both(c, sweep);
        }
}

void sweep_empty_batch(Sweep &sweep) {
  for (int64_t op = CW_RNN; op <= CW_LSTM; ++op) {
    Case c;
    c.op = op, c.B = 0;
    compare_both(c, sweep);
  }
}

void sweep_activations(Sweep &sweep) {
  for (int64_t op = CW_RNN; op <= CW_LSTM; ++op)
    for (int64_t activation = CW_TANH; activation <= CW_RELU6; ++activation)
      for (int64_t gate = CW_TANH; gate <= CW_RELU6; ++gate) {
        if (op == CW_RNN && gate != CW_TANH) continue;
        Case c;
        c.op = op, c.activation = activation, c.gate_activation = gate;
        // Unbounded functions on gates make states grow: few steps keep them in a range where errors mean something.
        c.T = gate == CW_EXPONENTIAL || activation == CW_EXPONENTIAL ? 1 : 2, c.inputs_bound = 0.7, c.H = c.P = 19,
        c.peepholes = op == CW_LSTM, c.seed = uint64_t(7 + activation * 12 + gate);
        compare_both(c, sweep);
      }
}

void sweep_masks(Sweep &sweep) {
  for (int64_t op = CW_RNN; op <= CW_LSTM; ++op)
    for (int place = CW_MASK_H; place <= CW_MASK_OUTPUT; ++place)
      for (int kind = int(Masks::kShared); kind <= int(Masks::kRowFactors); ++kind)
        for (int options = 0; options < 16; ++options) {
          if (place == CW_MASK_C && op != CW_LSTM) continue;
          Case c;
          c.op = op, c.T = 5, c.H = c.P = options & 8 ? 37 : 16;
          c.B = options & 1 ? 1 : 5;
          (place == CW_MASK_H ? c.mask_h : place == CW_MASK_C ? c.mask_c : c.mask_output) = Masks(kind);
          c.reverse = options & 1, c.lengths = options & 2, c.resets = options & 4;
          c.masks_per_place = options & 8 ? 2 : 1;
          c.operands_are_outputs = c.may_share_operands();
          c.seed = uint64_t(1000 + place * 64 + kind * 16 + options);
          compare_both(c, sweep);
        }
}

void sweep_additions(Sweep &sweep) {
  for (int64_t op = CW_RNN; op <= CW_LSTM; ++op)
    for (int place = CW_MASK_ZONE_H; place <= CW_MASK_ZONE_C; ++place)
      for (int kind = int(Masks::kNone); kind <= int(Masks::kExpected); ++kind)
        for (int options = 0; options < 16; ++options) {
          if (place == CW_MASK_ZONE_C && op != CW_LSTM) continue;
          Case c;
          c.op = op, c.T = 5, c.H = c.P = options & 8 ? 37 : 16;
          c.B = options & 1 ? 1 : 5;
          (place == CW_MASK_ZONE_H ? c.zone_h : c.zone_c) = Masks(kind);
          c.reverse = options & 1, c.lengths = options & 2, c.resets = c.reset_state = options & 4;
          c.masks_per_place = options & 8 ? 2 : 1;
          c.mask_h = options & 8 ? Masks::kPerStep : Masks::kNone;
          c.operands_are_outputs = c.may_share_operands();
          c.states = c.resets ? States::kApart : options & 1 ? States::kOperands : States::kNone;
          c.save = (options + kind) % 4 != 0;
          c.projection = op == CW_LSTM && (options + kind) % 2, c.P = c.projection ? c.H - 5 : c.H;
          c.seed = uint64_t(20000 + place * 128 + kind * 16 + options);
          compare_both(c, sweep);
        }
}

// Masks and inputs of each gate's own, with and without layer normalization.
void sweep_gates(Sweep &sweep) {
  for (int64_t op = CW_RNN; op <= CW_LSTM; ++op)
    for (int kind = int(Masks::kShared); kind <= int(Masks::kRowFactors); ++kind)
      for (int options = 0; options < 16; ++options)
        for (const bool norm : {false, true}) {
          Case c;
          c.op = op, c.mask_gate = Masks(kind), c.norm = norm;
          c.feed = options & 1 ? Feed::kAhead : Feed::kGates, c.packed = Packed(options % 3);
          c.x_gate = options & 1, c.T = 4, c.H = c.P = options & 2 ? 37 : 16, c.B = options & 4 ? 9 : 1, c.I = 5;
          c.reverse = options & 8, c.lengths = options & 4, c.resets = c.reset_state = options & 2;
          c.masks_per_place = options & 8 ? 2 : 1;
          c.mask_h = options & 2 ? Masks::kPerStep : Masks::kNone;
          c.coupled = op == CW_LSTM && (options + kind) % 3 == 0, c.peepholes = op == CW_LSTM && options & 4;
          c.projection = op == CW_LSTM && options & 8, c.P = c.projection ? c.H - 5 : c.H;
          c.save = (options + kind) % 4 != 0;
          c.operands_are_outputs = c.may_share_operands();
          c.seed = uint64_t(40000 + kind * 16 + options);
          compare_both(c, sweep);
        }
}

// Who multiplies the inputs, with which masks on them, from which packed weights.
void sweep_inputs(Sweep &sweep) {
  for (int64_t op = CW_RNN; op <= CW_LSTM; ++op)
    for (const Feed feed : {Feed::kGates, Feed::kLoop, Feed::kAhead})
      for (int kind = 0; kind <= (feed == Feed::kLoop ? int(Masks::kRowFactors) : 0); ++kind)
        for (int options = 0; options < 32; ++options) {
          Case c;
          c.op = op, c.feed = feed, c.mask_input = Masks(kind), c.packed = Packed(options % 3);
          c.T = 3, c.B = options & 1 ? 7 : 1, c.H = c.P = options & 2 ? 33 : 8, c.I = options & 4 ? 21 : 3;
          c.save = options & 8;
          c.reverse = c.lengths = options & 16;
          c.masks_per_place = 1 + (options & 1);
          c.projection = op == CW_LSTM && options & 4;
          c.seed = uint64_t(9000 + kind * 32 + options);
          compare<float>(c, sweep);
          c.norm = true;
          compare<float>(c, sweep);
          if (options % 3 == kind % 3) compare<double>(c, sweep);
        }
}

// Weights that lie otherwise than in rows of units, through all ways of packing them.
void sweep_weights(Sweep &sweep) {
  for (int64_t op = CW_RNN; op <= CW_LSTM; ++op)
    for (const Weights weights : {Weights::kByUnit, Weights::kScattered})
      for (const Feed feed : {Feed::kGates, Feed::kLoop, Feed::kAhead})
        for (int options = 0; options < 16; ++options) {
          Case c;
          c.op = op, c.weights = weights, c.feed = feed, c.packed = Packed(options % 3);
          c.T = 3, c.B = options & 1 ? 7 : 1, c.H = c.P = options & 2 ? 33 : 7, c.I = options & 4 ? 21 : 1;
          c.save = options & 8;
          c.projection = op == CW_LSTM && options & 4;
          if (c.projection) c.P = options & 2 ? 19 : 1;
          c.seed = uint64_t(12000 + options);
          compare_both(c, sweep);
        }
}

// All that an LSTM can have at once, and each alone.
void sweep_lstm(Sweep &sweep) {
  for (int options = 0; options < 64; ++options) {
    Case c;
    c.B = 5, c.H = 21, c.P = options & 1 ? (options & 2 ? 30 : 11) : 21;
    c.projection = options & 1;
    c.proj_clip = options & 2 ? 0.3 : -1;
    c.peepholes = options & 4;
    c.cell_clip = options & 8 ? 0.5 : -1;
    c.clip_passes = options & 8 && options & 16;
    c.lengths = c.reverse = options & 16;
    c.resets = c.reset_state = options & 32;
    c.seed = uint64_t(5000 + options);
    compare_both(c, sweep);
    c.coupled = true;
    compare_both(c, sweep);
    c.norm = true;
    compare_both(c, sweep);
    c.coupled = false;
    compare_both(c, sweep);
  }
}

// Products of bfloat16: heights and depths around those of tiles, and all that an operation can have.
void sweep_rounded(Sweep &sweep) {
  Random random(1118);
  for (int64_t op = CW_RNN; op <= CW_LSTM; ++op)
    for (const int64_t B : {1, 2, 15, 16, 17, 31, 32, 33, 49})
      for (const int64_t H : {1, 15, 16, 17, 31, 32, 33, 64, 70})
        for (const bool options : {false, true}) {
          Case c;
          c.op = op, c.T = 3, c.B = B, c.H = c.P = H, c.rounds = true, c.seed = random.bits() % 1000000;
          if (options) {
            choose_options(c, random);
            c.T = 3, c.norm = c.norm && H > 1;
            choose_additions(c, c.seed + 17);
            const int64_t widths[] = {1, 23, 32, 40, 64};
            c.I = widths[random.below(5)];
            if (random.below(4) == 0) {
              c.mask_gate = any_mask(random), c.mask_input = Masks::kNone;
              if (c.feed == Feed::kLoop) c.feed = Feed::kAhead;
              c.x_gate = c.feed == Feed::kAhead && random.coin();
            }
            c.operands_are_outputs = c.may_share_operands() && c.operands_are_outputs;
          }
          compare<float>(c, sweep);
        }
}

// Draws of narrower types.
void sweep_mask_bits(Sweep &sweep) {
  for (int64_t op = CW_RNN; op <= CW_LSTM; ++op)
    for (const int64_t bits : {1, 7, 10})
      for (int kind = int(Masks::kShared); kind <= int(Masks::kPerStep); ++kind) {
        Case c;
        c.op = op, c.H = c.P = 37, c.feed = Feed::kLoop, c.mask_bits = bits, c.seed = uint64_t(700 + bits);
        c.mask_input = c.mask_h = c.mask_output = c.zone_h = Masks(kind);
        compare<float>(c, sweep);
      }
}

}  // namespace

int main(int argc, char **argv) {
  Sweep sweep{vector_isas(), Share(argc, argv)};
  sweep_sizes(sweep);
  sweep_empty_batch(sweep);
  sweep_activations(sweep);
  sweep_masks(sweep);
  sweep_additions(sweep);
  sweep_gates(sweep);
  sweep_inputs(sweep);
  sweep_weights(sweep);
  sweep_lstm(sweep);
  sweep_mask_bits(sweep);
  sweep_rounded(sweep);
  for (const int64_t isa : sweep.isas)
    if (cw_set_isa(isa) == CW_OK)
      std::printf("compared with plain: %s%s\n", isa_name(isa), cw_has_bfloat16() ? ", with products of bfloat16" : "");
  return finish("isa_test");
}
