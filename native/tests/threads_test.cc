// The same bits for every number of threads and both ways of dividing the work.
#include <vector>

#include "cases.h"
#include "report.h"

using namespace cellweave_tests;

namespace {

// Sanitizers look at exchanges between threads and at memory, not at values: one number of threads shows them all.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int64_t kThreads[] = {1, 3};
#else
constexpr int64_t kThreads[] = {1, 2, 3, 4};
#endif

template <typename Real>
void compare(const Case &c, int64_t isa, Share &share) {
  if (!share.takes_next()) return;
  const Inputs<Real> inputs = make_inputs<Real>(c);
  const Forward<Real> one = run_forward(c, inputs, Setup{isa});
  const auto wanted = specified(c, inputs, one);
  std::vector<Tensor> gradients;
  if (c.save) gradients = specified(c, inputs, run_backward(c, inputs, one, Setup{isa}));
  for (const int64_t split : {CW_SPLIT_UNITS, CW_SPLIT_ROWS})
    for (const int64_t threads : kThreads) {
      const Setup setup{isa, threads, split};
      const std::string where = name_of(c, dtype_of<Real>) + " on " + isa_name(isa) + ", " + std::to_string(threads) +
                                " threads, split " + std::to_string(split);
      expect_equal(specified(c, inputs, run_forward(c, inputs, setup)), wanted, where + " forward");
      if (c.save)
        expect_equal(specified(c, inputs, run_backward(c, inputs, one, setup)), gradients, where + " backward");
    }
}

Case full_case(int64_t op, int64_t B, int64_t H, bool of_gates) {
  Case c;
  c.op = op, c.T = 4, c.B = B, c.H = c.P = H, c.seed = uint64_t(op * 100 + B * 10 + H);
  c.lengths = c.resets = c.reset_state = c.reverse = true;
  c.mask_h = Masks::kPerStep, c.mask_output = Masks::kShared, c.masks_per_place = 2;
  c.zone_h = Masks::kPerStep, c.states = States::kApart;
  if (of_gates)
    c.feed = Feed::kAhead, c.x_gate = true, c.mask_gate = B % 2 ? Masks::kPerRow : Masks::kPerStep;
  else
    c.feed = Feed::kLoop, c.mask_input = B % 2 ? Masks::kShared : Masks::kPerStep;
  if (c.lstm()) {
    c.mask_c = Masks::kPerRow, c.zone_c = Masks::kShared;
    c.peepholes = c.projection = true;
    c.P = H / 2 + 1;
    c.cell_clip = 0.6, c.proj_clip = 0.4;
  }
  return c;
}

template <typename Real>
void compare_masks(int64_t isa) {
  const int64_t T = 3, B = 4, N = 21;
  Case c;
  c.op = CW_RNN, c.T = T, c.B = B, c.H = c.P = N;
  c.mask_output = Masks::kPerStep, c.masks_per_place = 2, c.lengths = true;
  const Inputs<Real> inputs = make_inputs<Real>(c);
  std::vector<Real> wanted;
  cw_set_isa(isa);
  for (const int64_t threads : kThreads) {
    std::vector<Real> out(size_t(T * B * N));
    const int64_t status =
        cw_mask_sequence(dtype_of<Real>, inputs.gate[0].data(), out.data(), T, B, N, inputs.masks.data(),
                         int64_t(inputs.masks.size()), inputs.lengths.data(), 1, threads);
    if (threads == 1) wanted = out;
    expect(status == CW_OK && out == wanted, "cw_mask_sequence on %s with %d threads gives other values", isa_name(isa),
           int(threads));
  }
}

}  // namespace

int main(int argc, char **argv) {
  Share share(argc, argv);
  std::vector<int64_t> isas = vector_isas();
  isas.push_back(CW_PLAIN);
  for (const int64_t isa : isas) {
    for (int64_t op = CW_RNN; op <= CW_LSTM; ++op) {
      for (const int64_t B : {1, 3, 17})
        for (const int64_t H : {1, 64, 130}) {
          Case c;
          c.op = op, c.T = 3, c.B = B, c.H = c.P = H;
          compare<float>(c, isa, share);
          c.save = false;
          c.operands_are_outputs = H == 64;
          c.feed = H == 1 ? Feed::kAhead : Feed::kLoop;
          c.packed = H == 64 ? Packed::kReady : Packed::kFresh;
          compare<float>(c, isa, share);
        }
      for (const int64_t B : {1, 3, 8})
        for (const int64_t H : {1, 9, 70}) {
          Case c = full_case(op, B, H, false);
          compare<float>(c, isa, share);
          compare<double>(c, isa, share);
          c.norm = true;
          compare<float>(c, isa, share);
          if (B == 3) compare<double>(c, isa, share);
          c.norm = !(c.coupled = true) || B == 8;
          if (op == CW_LSTM) compare<float>(c, isa, share);
          c = full_case(op, B, H, true);
          compare<float>(c, isa, share);
          c.norm = true;
          compare<float>(c, isa, share);
        }
      cw_set_isa(isa);
      for (const int64_t B : {3, 33}) {
        if (!cw_has_bfloat16()) break;
        for (const bool of_gates : {false, true}) {
          Case c = full_case(op, B, 70, of_gates);
          c.rounds = true;
          compare<float>(c, isa, share);
          c.norm = true;
          compare<float>(c, isa, share);
        }
      }
    }
    compare_masks<float>(isa);
    compare_masks<double>(isa);
  }
  return finish("threads_test");
}
