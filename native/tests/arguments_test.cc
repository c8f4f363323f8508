// Bad arguments give their status and touch nothing; what is allowed at the edges works.
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "cases.h"
#include "memory.h"
#include "report.h"

using namespace cellweave_tests;

namespace {

constexpr int64_t T = 3, B = 2, H = 4, P = 2;

// A valid call with every buffer that an LSTM with all options can have; the other operations use fewer of them.
struct Call {
  Memory memory;
  cw_sequence s = {};
  cw_mask masks[2] = {};
  float *scratch_start = nullptr;

  explicit Call(int64_t op) {
    const bool lstm = op == CW_LSTM;
    const int64_t width = lstm ? P : H;
    const std::vector<float> numbers(size_t(T * B * 4 * H), 0.25f);
    s.abi_version = CW_ABI_VERSION;
    s.op = op, s.dtype = CW_FLOAT32, s.T = T, s.B = B, s.H = H, s.P = width, s.threads = 1, s.save = 1;
    s.gate_activation = CW_SIGMOID, s.cell_clip = 1, s.proj_clip = 1;
    float *gates = memory.inout("gates", numbers);
    for (int g = 0; g < 4; ++g) {
      s.gate[g] = gates + g * H, s.gate_ld[g] = 4 * H;
      s.w[g] = memory.in("w", numbers), s.w_ld[g] = H;
    }
    s.h0 = memory.in("h0", numbers), s.out = memory.out<float>("out", T * B * width);
    s.hs = memory.out<float>("hs", T * B * width), s.h_last = memory.out<float>("h_last", B * width);
    s.d_out = memory.in("d_out", numbers), s.d_h0 = memory.out<float>("d_h0", B * width);
    if (op == CW_GRU_BEFORE) s.rh = memory.out<float>("rh", T * B * H);
    if (lstm) add_lstm(numbers);
    masks[0].rows = 1, masks[0].place = CW_MASK_H, masks[0].scale = 1;
    masks[1].rows = B, masks[1].place = CW_MASK_OUTPUT, masks[1].scale = 1, masks[1].stride = 256 * B * H;
    s.masks = masks, s.n_masks = 2;
    s.lengths = memory.in("lengths", std::vector<int32_t>{3, 1});
    s.scratch_bytes = 1 << 20;
    s.scratch = memory.aligned_out("scratch", s.scratch_bytes);
  }

  void add_x() {
    const std::vector<float> numbers(size_t(T * B * 4 * H), 0.25f);
    s.x = memory.in("x", numbers), s.I = 3;
    for (int g = 0; g < 4; ++g) s.wx[g] = memory.in("wx", numbers), s.wx_ld[g] = H;
  }

  void add_lstm(const std::vector<float> &numbers) {
    for (auto &peephole : s.peephole) peephole = memory.in("peephole", numbers);
    s.projection = memory.in("projection", numbers);
    s.c0 = memory.in("c0", numbers), s.cs = memory.out<float>("cs", T * B * H);
    s.c_last = memory.out<float>("c_last", B * H), s.proj_raw = memory.out<float>("proj_raw", T * B * P);
    s.d_c0 = memory.out<float>("d_c0", B * H), s.d_peephole = memory.out<float>("d_peephole", B * 3 * H);
    s.proj_in = memory.out<float>("proj_in", T * B * H), s.d_proj = memory.out<float>("d_proj", T * B * P);
  }

  int64_t run(bool backward) {
    switch (s.op) {
      case CW_RNN: return backward ? cw_rnn_backward(&s) : cw_rnn_forward(&s);
      case CW_LSTM: return backward ? cw_lstm_backward(&s) : cw_lstm_forward(&s);
      default: return backward ? cw_gru_backward(&s) : cw_gru_forward(&s);
    }
  }
};

using Change = std::function<void(Call &)>;

enum Direction { kForward = 1, kBackward = 2, kBoth = 3 };

void refuses(int64_t op, const char *what, int directions, const Change &change, int64_t wanted = CW_BAD_ARGUMENT) {
  for (const bool backward : {false, true}) {
    if (!(directions & (backward ? kBackward : kForward))) continue;
    Call call(op);
    change(call);
    const int64_t found = call.run(backward);
    const std::string where = "op " + std::to_string(op) + (backward ? " backward, " : " forward, ") + what;
    expect(found == wanted, "%s: status %d, expected %d", where.c_str(), int(found), int(wanted));
    call.memory.verify_untouched(where);
  }
}

void accepts(int64_t op, const char *what, int directions, const Change &change) {
  for (const bool backward : {false, true}) {
    if (!(directions & (backward ? kBackward : kForward))) continue;
    Call call(op);
    change(call);
    const int64_t found = call.run(backward);
    const std::string where = "op " + std::to_string(op) + (backward ? " backward, " : " forward, ") + what;
    expect(found == CW_OK, "%s: status %d", where.c_str(), int(found));
    call.memory.verify(where);
  }
}

template <typename Pointer>
Change clear(Pointer cw_sequence::*field) {
  return [field](Call &call) { call.s.*field = nullptr; };
}

Change set(int64_t cw_sequence::*field, int64_t value) {
  return [field, value](Call &call) { call.s.*field = value; };
}

template <typename Pointer>
Change shift(Pointer cw_sequence::*field) {
  return [field](Call &call) {
    auto *bytes = static_cast<const char *>(static_cast<const void *>(call.s.*field));
    call.s.*field = static_cast<Pointer>(const_cast<void *>(static_cast<const void *>(bytes + 1)));
  };
}

void check_numbers(int64_t op) {
  refuses(op, "abi_version", kBoth, set(&cw_sequence::abi_version, CW_ABI_VERSION + 1), CW_UNSUPPORTED);
  refuses(op, "op", kBoth, set(&cw_sequence::op, -1));
  refuses(op, "op past the last", kBoth, set(&cw_sequence::op, 4));
  refuses(op, "dtype", kBoth, set(&cw_sequence::dtype, 2));
  for (const auto field : {&cw_sequence::T, &cw_sequence::B, &cw_sequence::H, &cw_sequence::P}) {
    refuses(op, "a negative size", kBoth, set(field, -1));
    refuses(op, "a size past memory", kBoth, set(field, int64_t(1) << 62));
  }
  refuses(op, "H of 0", kBoth, set(&cw_sequence::H, 0));
  refuses(op, "P of 0", kBoth, set(&cw_sequence::P, 0));
  refuses(op, "no threads", kBoth, set(&cw_sequence::threads, 0));
  refuses(op, "too many threads", kBoth, set(&cw_sequence::threads, 1 << 20));
  refuses(op, "split", kBoth, set(&cw_sequence::split, 2));
  refuses(op, "reverse", kBoth, set(&cw_sequence::reverse, 2));
  refuses(op, "save", kBoth, set(&cw_sequence::save, -1));
  refuses(op, "clip_passes", kBoth, set(&cw_sequence::clip_passes, 2));
  refuses(op, "save in backward", kBackward, set(&cw_sequence::save, 0));
  refuses(op, "products", kBoth, set(&cw_sequence::products, 2));
  if (!cw_has_bfloat16())
    refuses(op, "products that the machine lacks", kBoth, set(&cw_sequence::products, CW_PRODUCTS_BFLOAT16),
            CW_UNSUPPORTED);
  refuses(op, "products of bfloat16 in double", kBoth,
          [](Call &call) { call.s.dtype = CW_FLOAT64, call.s.products = CW_PRODUCTS_BFLOAT16; });
  refuses(op, "activation", kBoth, set(&cw_sequence::activation, 12));
  refuses(op, "gate_activation", kBoth, set(&cw_sequence::gate_activation, -1));
  refuses(op, "cell_clip", kBoth, [](Call &call) { call.s.cell_clip = poison<double>(); });
  refuses(op, "gate_ld", kBoth, [](Call &call) { call.s.gate_ld[0] = H - 1; });
  refuses(op, "w_ld", kBoth, [](Call &call) { call.s.w_ld[0] = H - 1; });
  refuses(op, "w_unit", kBoth, [](Call &call) { call.s.w_unit[0] = -1; });
  refuses(op, "w_ld of 0 beside w_unit", kBoth, [](Call &call) { call.s.w_ld[0] = 0, call.s.w_unit[0] = H; });
  accepts(op, "weights by unit", kBoth, [](Call &call) { call.s.w_ld[0] = 1, call.s.w_unit[0] = H; });
  if (op == CW_LSTM) {
    refuses(op, "projection_unit", kBoth, set(&cw_sequence::projection_unit, -1));
    refuses(op, "projection_ld", kBoth, set(&cw_sequence::projection_ld, P - 1));
    accepts(op, "a projection by unit", kBoth,
            [](Call &call) { call.s.projection_ld = 1, call.s.projection_unit = H; });
  }
  refuses(op, "a length past T", kBoth,
          [](Call &call) { call.s.lengths = call.memory.in("lengths", std::vector<int32_t>{3, int32_t(T) + 1}); });
  refuses(op, "a negative length", kBoth,
          [](Call &call) { call.s.lengths = call.memory.in("lengths", std::vector<int32_t>{-1, 2}); });
}

void check_pointers(int64_t op) {
  refuses(op, "no gate", kBoth, [](Call &call) { call.s.gate[0] = nullptr; });
  refuses(op, "no w", kBoth, [](Call &call) { call.s.w[0] = nullptr; });
  refuses(op, "no h0", kBoth, clear(&cw_sequence::h0));
  refuses(op, "no hs", kBoth, clear(&cw_sequence::hs));
  refuses(op, "no out", kForward, clear(&cw_sequence::out));
  refuses(op, "no h_last", kForward, clear(&cw_sequence::h_last));
  refuses(op, "no d_h0", kBackward, clear(&cw_sequence::d_h0));
  refuses(op, "h0 between elements", kBoth, shift(&cw_sequence::h0));
  refuses(op, "out between elements", kForward, shift(&cw_sequence::out));
  refuses(op, "d_out between elements", kBackward, shift(&cw_sequence::d_out));
  refuses(op, "hs is out, with lengths", kForward, [](Call &call) {
    call.s.n_masks = 0;
    call.s.hs = call.s.out;
  });
  refuses(op, "hs is out, with masks", kForward, [](Call &call) {
    call.s.lengths = nullptr;
    call.s.hs = call.s.out;
  });
  if (op == CW_GRU_AFTER) refuses(op, "no saved gate", kBoth, [](Call &call) { call.s.gate[3] = nullptr; });
  if (op == CW_GRU_BEFORE) refuses(op, "no rh", kBackward, clear(&cw_sequence::rh));
  if (op != CW_LSTM) return;
  refuses(op, "no c0", kBoth, clear(&cw_sequence::c0));
  refuses(op, "no cs", kBoth, clear(&cw_sequence::cs));
  refuses(op, "no c_last", kForward, clear(&cw_sequence::c_last));
  refuses(op, "no d_c0", kBackward, clear(&cw_sequence::d_c0));
  refuses(op, "one peephole only", kBoth, [](Call &call) { call.s.peephole[1] = nullptr; });
  refuses(op, "coupled gates with a peephole of i", kBoth, set(&cw_sequence::coupled, 1));
  accepts(op, "coupled gates", kBoth, [](Call &call) {
    call.s.coupled = 1;
    call.s.peephole[1] = call.s.gate[0] = nullptr, call.s.w[0] = nullptr, call.s.gate_ld[0] = call.s.w_ld[0] = 0;
  });
  const auto add_norms = [](Call &call) {
    const std::vector<float> numbers(H, 0.5f);
    for (int k = 0; k < 5; ++k) call.s.gamma[k] = call.memory.in("gamma", numbers), call.s.beta[k] = call.s.gamma[k];
    call.s.norm_epsilon = 1e-3;
    call.s.norm_kept = call.memory.out<float>("norm_kept", T * B * 6);
    call.s.d_norm = call.memory.out<float>("d_norm", B * 5 * 2 * H);
  };
  const auto with_norms = [add_norms](const Change &change) {
    return [add_norms, change](Call &call) {
      add_norms(call);
      change(call);
    };
  };
  accepts(op, "normalization", kBoth, with_norms([](Call &) {}));
  refuses(op, "a negative epsilon", kBoth, with_norms([](Call &call) { call.s.norm_epsilon = -1; }));
  refuses(op, "no gamma of c", kBoth, with_norms([](Call &call) { call.s.gamma[4] = nullptr; }));
  refuses(op, "no beta of a gate", kBoth, with_norms([](Call &call) { call.s.beta[1] = nullptr; }));
  refuses(op, "no norm_kept", kBoth, with_norms(clear(&cw_sequence::norm_kept)));
  refuses(op, "no d_norm", kBackward, with_norms(clear(&cw_sequence::d_norm)));
  refuses(op, "coupled gates without f", kBoth, [](Call &call) {
    call.s.coupled = 1;
    call.s.peephole[1] = nullptr, call.s.gate[2] = nullptr;
  });
  refuses(op, "no d_peephole", kBackward, clear(&cw_sequence::d_peephole));
  refuses(op, "no proj_raw", kBoth, clear(&cw_sequence::proj_raw));
  refuses(op, "no proj_in", kBackward, clear(&cw_sequence::proj_in));
  refuses(op, "no d_proj", kBackward, clear(&cw_sequence::d_proj));
  refuses(op, "P without projection", kBoth, clear(&cw_sequence::projection));
}

void check_masks(int64_t op) {
  refuses(op, "no masks", kBoth, clear(&cw_sequence::masks));
  refuses(op, "n_masks", kBoth, set(&cw_sequence::n_masks, -1));
  refuses(op, "a mask on inputs", kBoth, [](Call &call) { call.masks[0].place = CW_MASK_INPUT; });
  refuses(op, "an unknown place", kBoth, [](Call &call) { call.masks[0].place = CW_MASK_GATE + 4; });
  refuses(op, "a place below all", kBoth, [](Call &call) { call.masks[0].place = -1; });
  refuses(op, "elements before the first", kBoth, [](Call &call) { call.masks[0].first = -1; });
  refuses(op, "a first element without a width", kBoth, [](Call &call) { call.masks[0].first = 1; });
  refuses(op, "a width that is too small", kBoth,
          [](Call &call) { call.masks[0].first = 2, call.masks[0].width = call.s.P + 1; });
  accepts(op, "a part of a mask", kBoth,
          [](Call &call) { call.masks[0].first = 2, call.masks[0].width = call.s.P + 2; });
  const auto of_gate = [](Call &call) {
    call.masks[0].place = CW_MASK_GATE;
    call.s.gate_h = call.memory.out<float>("gate_h", 4 * T * B * H);
  };
  accepts(op, "a mask of a gate", kBoth, of_gate);
  refuses(op, "no gate_h", kBackward, [](Call &call) { call.masks[0].place = CW_MASK_GATE; });
  if (op == CW_RNN)
    refuses(op, "a mask of a gate that is none", kBoth, [&](Call &call) { of_gate(call), ++call.masks[0].place; });
  refuses(op, "rows", kBoth, [](Call &call) { call.masks[1].rows = B + 1; });
  refuses(op, "more bits than a mantissa has", kBoth, [](Call &call) { call.masks[1].bits = 24; });
  refuses(op, "steps of a mask for all rows", kBoth, [](Call &call) { call.masks[0].stride = 256; });
  accepts(op, "zoneout on h", kBoth, [](Call &call) { call.masks[0].place = CW_MASK_ZONE_H; });
  if (op != CW_LSTM) refuses(op, "a mask on c", kBoth, [](Call &call) { call.masks[0].place = CW_MASK_C; });
  if (op != CW_LSTM) refuses(op, "zoneout on c", kBoth, [](Call &call) { call.masks[0].place = CW_MASK_ZONE_C; });
}

void check_states(int64_t op) {
  const auto operands = [](Call &call) { call.s.h_states = call.s.hs, call.s.c_states = call.s.cs; };
  const auto with_resets = [](Call &call) { call.s.resets = call.memory.in("resets", std::vector<uint8_t>(T * B)); };
  const auto outputs = [](Call &call) {
    call.s.lengths = nullptr, call.s.masks = nullptr, call.s.n_masks = 0, call.s.hs = call.s.out;
  };
  accepts(op, "states in the operands", kForward, operands);
  accepts(op, "states in buffers of their own", kForward, [&](Call &call) {
    with_resets(call);
    call.s.h_states = call.memory.out<float>("h_states", T * B * H);
    call.s.c_states = call.memory.out<float>("c_states", T * B * H);
  });
  accepts(op, "states in the outputs", kForward, [&](Call &call) { outputs(call), operands(call); });
  refuses(op, "states in operands that resets replace", kForward,
          [&](Call &call) { operands(call), with_resets(call); });
  refuses(op, "states beside operands that are outputs", kForward, [&](Call &call) {
    outputs(call);
    call.s.h_states = call.memory.out<float>("h_states", T * B * H);
  });
  refuses(op, "h_states between elements", kForward,
          [&](Call &call) { call.s.h_states = static_cast<char *>(call.s.hs) + 1; });
  refuses(op, "d_h_states between elements", kBackward,
          [](Call &call) { call.s.d_h_states = static_cast<const char *>(call.s.d_out) + 1; });
}

void check_inputs(int64_t op) {
  const auto with_x = [](const Change &change) {
    return [change](Call &call) {
      call.add_x();
      change(call);
    };
  };
  accepts(op, "x", kForward, with_x([](Call &) {}));
  accepts(op, "x ahead", kForward, with_x(set(&cw_sequence::ahead, 1)));
  accepts(op, "a mask on x", kForward, with_x([](Call &call) { call.masks[0].place = CW_MASK_INPUT; }));
  accepts(op, "x and no gates", kForward, with_x([](Call &call) {
            call.s.save = 0;
            for (auto &gate : call.s.gate) gate = nullptr;
          }));
  accepts(op, "masks on inputs of no steps", kForward, [](Call &call) {
    call.masks[0].place = CW_MASK_INPUT;
    call.s.T = 0;
  });
  refuses(op, "x between elements", kForward, with_x(shift(&cw_sequence::x)));
  refuses(op, "no wx", kForward, with_x([](Call &call) { call.s.wx[0] = nullptr; }));
  refuses(op, "wx_ld", kForward, with_x([](Call &call) { call.s.wx_ld[0] = H - 1; }));
  refuses(op, "wx_unit", kForward, with_x([](Call &call) { call.s.wx_unit[0] = -1; }));
  refuses(op, "I", kForward, with_x(set(&cw_sequence::I, -1)));
  refuses(op, "ahead", kForward, with_x(set(&cw_sequence::ahead, 2)));
  refuses(op, "a mask on x ahead", kForward, with_x([](Call &call) {
            call.s.ahead = 1;
            call.masks[0].place = CW_MASK_INPUT;
          }));
  refuses(op, "x ahead and no gates", kForward, with_x([](Call &call) {
            call.s.ahead = 1;
            call.s.gate[0] = nullptr;
          }));
  accepts(op, "x of each gate", kForward, with_x([](Call &call) { call.s.ahead = 1, call.s.x_gate = 2; }));
  refuses(op, "x of each gate in the loop", kForward, with_x(set(&cw_sequence::x_gate, 2)));
  refuses(op, "x_gate", kForward, with_x([](Call &call) { call.s.ahead = 1, call.s.x_gate = -1; }));
  refuses(op, "masks of gates and x in the loop", kForward,
          with_x([](Call &call) { call.masks[0].place = CW_MASK_GATE; }));
  accepts(op, "masks of gates and x ahead", kForward, with_x([](Call &call) {
            call.s.ahead = 1;
            call.masks[0].place = CW_MASK_GATE;
          }));
  refuses(op, "packed_ready", kForward, set(&cw_sequence::packed_ready, 2));
  refuses(op, "packed off its alignment", kForward,
          [](Call &call) { call.s.packed = static_cast<char *>(call.s.scratch) + 32; });
  Call call(op);
  expect(cw_packed_bytes(&call.s) >= 0, "op %d: no packed size", int(op));
  call.s.H = 0;
  expect(cw_packed_bytes(&call.s) < 0 && cw_packed_bytes(nullptr) < 0, "op %d: a packed size for H of 0", int(op));
}

void check_scratch(int64_t op) {
  for (const bool backward : {false, true}) {
    const int direction = backward ? kBackward : kForward;
    Call call(op);
    const int64_t needed = cw_scratch_bytes(&call.s, backward);
    expect(needed >= 0 && needed <= 1 << 20, "op %d: scratch of %d bytes", int(op), int(needed));
    if (needed == 0) continue;
    refuses(op, "little scratch", direction, set(&cw_sequence::scratch_bytes, needed - 1), CW_SCRATCH_TOO_SMALL);
    refuses(op, "no scratch", direction, clear(&cw_sequence::scratch));
    refuses(op, "scratch off its alignment", direction,
            [](Call &call) { call.s.scratch = static_cast<char *>(call.s.scratch) + 32; });
    accepts(op, "enough scratch", direction, set(&cw_sequence::scratch_bytes, needed));
  }
  Call call(op);
  call.s.activation = 99;
  expect(cw_scratch_bytes(&call.s, 0) < 0, "op %d: a scratch size for a bad activation", int(op));
  expect(cw_scratch_bytes(nullptr, 0) < 0, "a scratch size for nothing");
}

void check_edges(int64_t op) {
  accepts(op, "as it is", kBoth, [](Call &) {});
  accepts(op, "no d_out", kBackward, clear(&cw_sequence::d_out));
  accepts(op, "no masks at all", kBoth, [](Call &call) { call.s.masks = nullptr, call.s.n_masks = 0; });
  accepts(op, "no lengths", kBoth, clear(&cw_sequence::lengths));
  accepts(op, "more threads than rows or units", kBoth, set(&cw_sequence::threads, 64));
  accepts(op, "no rows and no buffers", kBoth, [](Call &call) {
    const cw_sequence old = call.s;
    call.s = {};
    call.s.abi_version = old.abi_version, call.s.op = old.op, call.s.T = T, call.s.H = H, call.s.P = H;
    call.s.threads = call.s.save = 1;
  });
  if (op == CW_LSTM) refuses(CW_LSTM, "another family's op", kBoth, [](Call &call) { call.s.op = 17; });
  Call call(op);
  cw_sequence *const s = &call.s;
  expect((op == CW_RNN ? cw_lstm_forward(s) : cw_rnn_forward(s)) == CW_BAD_ARGUMENT, "op %d ran as another", int(op));
  expect((op == CW_LSTM ? cw_gru_backward(s) : cw_lstm_backward(s)) == CW_BAD_ARGUMENT, "op %d ran as another",
         int(op));
  call.memory.verify_untouched("another family");
}

void check_no_steps(int64_t op) {
  Call call(op);
  call.s.T = 0;
  const int64_t width = call.s.P;
  expect(call.run(false) == CW_OK && call.run(true) == CW_OK, "op %d: no steps", int(op));
  bool same = std::memcmp(call.s.h_last, call.s.h0, size_t(B * width) * 4) == 0;
  const float *d = static_cast<float *>(call.s.d_h0);
  for (int64_t i = 0; i < B * width; ++i) same = same && d[i] == 0;
  expect(same, "op %d: no steps change the state", int(op));
}

void check_mask_sequence() {
  const std::vector<float> x(24, 1.0f);
  std::vector<float> out(24, 7.0f);
  cw_mask mask = {};
  mask.rows = 1, mask.scale = 1;
  const int32_t lengths[] = {0, 4};
  const auto run = [&](int64_t dtype, const void *from, int64_t steps, const cw_mask *masks, int64_t n_masks,
                       const int32_t *ends, int64_t threads) {
    return cw_mask_sequence(dtype, from, out.data(), steps, 2, 4, masks, n_masks, ends, 0, threads);
  };
  expect(run(2, x.data(), 3, &mask, 1, nullptr, 1) == CW_BAD_ARGUMENT, "masks: dtype");
  expect(run(0, nullptr, 3, &mask, 1, nullptr, 1) == CW_BAD_ARGUMENT, "masks: no x");
  expect(run(0, x.data(), -3, &mask, 1, nullptr, 1) == CW_BAD_ARGUMENT, "masks: T");
  expect(run(0, x.data(), 3, nullptr, 1, nullptr, 1) == CW_BAD_ARGUMENT, "masks: no masks");
  expect(run(0, x.data(), 3, &mask, 1, lengths, 1) == CW_BAD_ARGUMENT, "masks: a length past T");
  expect(run(0, x.data(), 3, &mask, 1, nullptr, 0) == CW_BAD_ARGUMENT, "masks: no threads");
  mask.rows = 3;
  expect(run(0, x.data(), 3, &mask, 1, nullptr, 1) == CW_BAD_ARGUMENT, "masks: rows");
  expect(out == std::vector<float>(24, 7.0f), "masks: a bad call wrote");
  expect(run(0, nullptr, 0, nullptr, 0, nullptr, 1) == CW_OK, "masks: no steps");
  expect(run(0, x.data(), 3, nullptr, 0, nullptr, 1) == CW_OK && out == x, "masks: none copies");
}

void check_library() {
  expect(cw_abi_version() == CW_ABI_VERSION, "the library has another version than its header");
  expect(cw_set_isa(4) == CW_UNSUPPORTED && cw_set_isa(-1) == CW_UNSUPPORTED, "an unknown instruction set was taken");
  expect(cw_isa() == cw_best_isa(), "the best instruction set is not the one in use");
  for (int64_t status = -1; status < 6; ++status)
    expect(cw_status_text(status) && *cw_status_text(status), "status %d has no text", int(status));
  cw_advise_huge_pages(nullptr, 100);
  std::vector<char> large(5 << 20, 'x');
  cw_advise_huge_pages(large.data() + 1, int64_t(large.size()) - 1);
  expect(large.front() == 'x' && large.back() == 'x', "advice changed the memory");
  expect(cw_rnn_forward(nullptr) == CW_BAD_ARGUMENT, "no call at all");
}

}  // namespace

int main() {
  check_library();
  std::vector<int64_t> isas = vector_isas();
  isas.push_back(CW_PLAIN);
  for (const int64_t isa : isas) {
    cw_set_isa(isa);
    for (int64_t op = CW_RNN; op <= CW_LSTM; ++op) {
      check_numbers(op);
      check_pointers(op);
      check_masks(op);
      check_states(op);
      check_inputs(op);
      check_scratch(op);
      check_edges(op);
      check_no_steps(op);
    }
    check_mask_sequence();
  }
  return finish("arguments_test");
}
