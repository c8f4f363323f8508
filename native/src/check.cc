#include "check.h"

#include <initializer_list>

namespace cellweave {

namespace {

constexpr int64_t kMaxThreads = 1024;
// Keeps every product of sizes below, and the scratch made from them, far inside 64 bits.
constexpr int64_t kMaxElements = int64_t(1) << 48;

bool is_flag(int64_t value) { return value == 0 || value == 1; }

bool between(int64_t value, int64_t low, int64_t high) { return low <= value && value <= high; }

bool sizes_fit(int64_t a, int64_t b, int64_t c) {
  int64_t all;
  if (a < 0 || b < 0 || c < 0 || a > kMaxElements || b > kMaxElements || c > kMaxElements) return false;
  return !__builtin_mul_overflow(a, b, &all) && !__builtin_mul_overflow(all, c, &all) && all <= kMaxElements;
}

int64_t element_size(int64_t dtype) { return dtype == CW_FLOAT32 ? 4 : 8; }

bool aligned(const void *pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % uintptr_t(bytes) == 0;
}

// A mask for rows of N elements.
bool is_mask(const cw_mask &mask, int64_t B, int64_t N, int64_t dtype) {
  if (mask.rows != 1 && mask.rows != B) return false;
  if (mask.first < 0 || mask.width < 0 || !sizes_fit(1, B, mask.width)) return false;
  if (mask.width == 0 ? mask.first != 0 : mask.first > mask.width - N) return false;
  if (!between(mask.bits, 0, dtype == CW_FLOAT32 ? 23 : 0)) return false;
  if (mask.factors) return aligned(mask.factors, element_size(dtype));
  return mask.rows == B || mask.stride == 0;
}

bool lengths_fit(const int32_t *lengths, int64_t T, int64_t B) {
  if (!lengths) return true;
  if (!aligned(lengths, 4)) return false;
  for (int64_t b = 0; b < B; ++b)
    if (!between(lengths[b], 0, T)) return false;
  return true;
}

// A check that goes on until the first failure.
class Demands {
 public:
  explicit Demands(int64_t element) : element_(element) {}
  void present(const void *pointer) { holds(pointer && aligned(pointer, element_)); }
  void present_if(bool condition, const void *pointer) {
    if (condition) present(pointer);
  }
  void optional(const void *pointer) { holds(aligned(pointer, element_)); }
  void holds(bool condition) { met_ = met_ && condition; }
  int64_t status() const { return met_ ? CW_OK : CW_BAD_ARGUMENT; }

 private:
  int64_t element_;
  bool met_ = true;
};

bool is_lstm(const cw_sequence &s) { return s.op == CW_LSTM; }

bool is_gru(const cw_sequence &s) { return s.op == CW_GRU_BEFORE || s.op == CW_GRU_AFTER; }

int gates_of(const cw_sequence &s) { return is_lstm(s) ? 4 : is_gru(s) ? 3 : 1; }

// A coupled LSTM has no gate 0 of its own.
int first_gate(const cw_sequence &s) { return is_lstm(s) && s.coupled ? 1 : 0; }

// gamma and beta of every normalization, or none at all.
void check_norms(const cw_sequence &s, Demands &demands) {
  const bool any = normalizes(s);
  for (int k = 0; k < 5; ++k) {
    const bool there = any && first_gate(s) <= k && k < norms_of(s);
    demands.holds(there || (!s.gamma[k] && !s.beta[k]));
    demands.present_if(there, s.gamma[k]);
    demands.present_if(there, s.beta[k]);
  }
  demands.holds(!any || (s.norm_epsilon >= 0 && sizes_fit(s.B, norms_of(s) * 2, s.H) && sizes_fit(s.T, s.B, 6)));
}

// Rows of H weights do not overlap, unless the distance of units is given too.
bool weights_fit(int64_t rows, int64_t H, int64_t ld, int64_t unit) {
  return unit >= 0 && ld >= (unit == 0 ? H : 1) && sizes_fit(1, rows, ld) && sizes_fit(1, H, unit);
}

bool keeps_candidate_product(const cw_sequence &s) { return s.op == CW_GRU_AFTER && s.save; }

bool clips_projection(const cw_sequence &s) { return is_lstm(s) && s.projection && s.proj_clip >= 0; }

bool has_peepholes(const cw_sequence &s) { return s.peephole[0] || s.peephole[1] || s.peephole[2]; }

bool has_place(const cw_sequence &s, const cw_mask &mask) {
  if (mask.place >= CW_MASK_GATE) {
    const int64_t gate = mask.place - CW_MASK_GATE;
    return first_gate(s) <= gate && gate < gates_of(s) && (is_empty(s) || !s.x || s.ahead);
  }
  switch (mask.place) {
    // Where the inputs are not seen a mask on them would be lost: it belongs to cw_mask_sequence.
    case CW_MASK_INPUT: return is_empty(s) || (s.x && !s.ahead);
    case CW_MASK_C:
    case CW_MASK_ZONE_C: return is_lstm(s);
    default: return mask.place == CW_MASK_H || mask.place == CW_MASK_OUTPUT || mask.place == CW_MASK_ZONE_H;
  }
}

int64_t width_of(const cw_sequence &s, int64_t place) {
  return place == CW_MASK_INPUT ? s.I : place == CW_MASK_C || place == CW_MASK_ZONE_C ? s.H : s.P;
}

bool masks_fit(const cw_sequence &s) {
  if (s.n_masks < 0 || (s.n_masks > 0 && !s.masks)) return false;
  for (int64_t i = 0; i < s.n_masks; ++i)
    if (!has_place(s, s.masks[i]) || !is_mask(s.masks[i], s.B, width_of(s, s.masks[i].place), s.dtype)) return false;
  return true;
}

bool has_gate_masks(const cw_sequence &s) {
  for (int64_t i = 0; i < s.n_masks; ++i)
    if (s.masks[i].place >= CW_MASK_GATE) return true;
  return false;
}

bool has_mask_on_h(const cw_sequence &s) {
  for (int64_t i = 0; i < s.n_masks; ++i)
    if (s.masks[i].place == CW_MASK_H || s.masks[i].place == CW_MASK_OUTPUT) return true;
  return false;
}

void check_empty(const cw_sequence &s, Pass pass, Demands &demands) {
  if (s.B == 0) return;
  demands.present(pass == Pass::kForward ? s.h0 : s.d_h0);
  demands.present_if(pass == Pass::kForward, s.h_last);
  demands.present_if(is_lstm(s), pass == Pass::kForward ? s.c0 : s.d_c0);
  demands.present_if(is_lstm(s) && pass == Pass::kForward, s.c_last);
  demands.present_if(pass == Pass::kBackward && has_peepholes(s), s.d_peephole);
  demands.present_if(pass == Pass::kBackward && normalizes(s), s.d_norm);
}

void check_common(const cw_sequence &s, Demands &demands) {
  const bool gates_needed = !s.x || s.save || s.ahead;
  for (int g = first_gate(s); g < gates_of(s); ++g) {
    demands.present_if(gates_needed, s.gate[g]);
    demands.present(s.w[g]);
    demands.holds(!gates_needed || s.gate_ld[g] >= s.H);
    demands.holds(sizes_fit(s.T, s.B, s.gate_ld[g]) && weights_fit(s.P, s.H, s.w_ld[g], s.w_unit[g]));
  }
  if (keeps_candidate_product(s)) {
    demands.present(s.gate[3]);
    demands.holds(s.gate_ld[3] >= s.H && sizes_fit(s.T, s.B, s.gate_ld[3]));
  }
  demands.present(s.h0);
  demands.present(s.hs);
  demands.present_if(is_lstm(s), s.c0);
  demands.present_if(is_lstm(s), s.cs);
  demands.present_if(s.save && clips_projection(s), s.proj_raw);
  demands.present_if(s.save && normalizes(s), s.norm_kept);
  demands.holds(lengths_fit(s.lengths, s.T, s.B));
}

void check_inputs(const cw_sequence &s, Demands &demands) {
  demands.present(s.x);
  demands.holds(is_flag(s.ahead) && s.I >= 1 && sizes_fit(s.T, s.B, s.I));
  demands.holds(s.x_gate >= 0 && (s.x_gate == 0 || s.ahead) && sizes_fit(1, gates_of(s), s.x_gate));
  for (int g = first_gate(s); g < gates_of(s); ++g) {
    demands.present(s.wx[g]);
    demands.optional(s.bias[g]);
    demands.holds(weights_fit(s.I, s.H, s.wx_ld[g], s.wx_unit[g]));
  }
}

// The states after each step have buffers of their own, or are the operands, which no reset may have replaced.
void check_states(const cw_sequence &s, Demands &demands) {
  demands.optional(s.h_states);
  demands.optional(s.c_states);
  const bool is_h = s.h_states == s.hs, is_c = s.c_states == s.cs;
  demands.holds(!s.resets || (!is_h && !(is_lstm(s) && is_c)));
  if (s.hs == s.out) demands.holds((!s.h_states || is_h) && (!is_lstm(s) || !s.c_states || is_c));
}

void check_forward(const cw_sequence &s, Demands &demands) {
  if (s.x) check_inputs(s, demands);
  demands.optional(s.bias_h);
  demands.holds(aligned(s.packed, 64) && is_flag(s.packed_ready));
  demands.present(s.out);
  demands.present(s.h_last);
  demands.present_if(is_lstm(s), s.c_last);
  demands.optional(s.reset_h);
  demands.optional(s.reset_c);
  check_states(s, demands);
  const bool operand_is_output = !has_mask_on_h(s) && !s.lengths && !s.resets;
  demands.holds(s.hs != s.out || operand_is_output);
}

void check_backward(const cw_sequence &s, Demands &demands) {
  demands.holds(s.save == 1);
  demands.present(s.d_h0);
  demands.present_if(is_lstm(s), s.d_c0);
  demands.present_if(is_lstm(s) && has_peepholes(s), s.d_peephole);
  demands.present_if(s.op == CW_GRU_BEFORE, s.rh);
  demands.present_if(has_gate_masks(s), s.gate_h);
  demands.holds(!has_gate_masks(s) || sizes_fit(gates_of(s) * s.T, s.B, s.P));
  demands.present_if(normalizes(s), s.d_norm);
  demands.present_if(is_lstm(s) && s.projection, s.proj_in);
  demands.present_if(is_lstm(s) && s.projection, s.d_proj);
  for (const void *pointer : {s.d_out, s.d_h_last, s.d_c_last, static_cast<const void *>(s.d_reset_h),
                              static_cast<const void *>(s.d_reset_c), s.d_h_states, s.d_c_states})
    demands.optional(pointer);
}

}  // namespace

bool is_empty(const cw_sequence &s) { return s.T == 0 || s.B == 0; }

bool normalizes(const cw_sequence &s) {
  for (int k = 0; k < 5; ++k)
    if (s.gamma[k] || s.beta[k]) return true;
  return false;
}

int norms_of(const cw_sequence &s) { return is_lstm(s) ? 5 : s.op == CW_GRU_AFTER ? 4 : gates_of(s); }

bool is_family(const cw_sequence &s, Family family) {
  return family == Family::kLstm ? is_lstm(s) : family == Family::kGru ? is_gru(s) : s.op == CW_RNN;
}

int64_t check_options(const cw_sequence &s, Pass pass) {
  if (s.abi_version != CW_ABI_VERSION) return CW_UNSUPPORTED;
  Demands demands(element_size(s.dtype));
  demands.holds(between(s.op, CW_RNN, CW_LSTM) && between(s.dtype, CW_FLOAT32, CW_FLOAT64));
  demands.holds(s.H >= 1 && s.P >= 1 && sizes_fit(s.T, s.B, s.H) && sizes_fit(s.T, s.B, s.P) && sizes_fit(1, s.P, s.H));
  demands.holds(between(s.threads, 1, kMaxThreads) && between(s.split, CW_SPLIT_UNITS, CW_SPLIT_ROWS));
  demands.holds(is_flag(s.reverse) && is_flag(s.clip_passes) && is_flag(s.save) &&
                (pass == Pass::kForward || s.save == 1));
  demands.holds(between(s.activation, CW_TANH, CW_RELU6) && between(s.gate_activation, CW_TANH, CW_RELU6));
  demands.holds(s.forget_bias == s.forget_bias && s.cell_clip == s.cell_clip && s.proj_clip == s.proj_clip);
  if (is_lstm(s)) {
    demands.holds(is_flag(s.coupled) && (!s.coupled || !s.peephole[1]));
    for (int i = 0; i < 3; ++i) demands.present_if(has_peepholes(s) && !(s.coupled && i == 1), s.peephole[i]);
    demands.optional(s.projection);
    const bool dense = s.projection_ld == 0 && s.projection_unit == 0;
    demands.holds(!s.projection || dense || weights_fit(s.H, s.P, s.projection_ld, s.projection_unit));
  }
  demands.holds(between(s.products, CW_PRODUCTS_REAL, s.dtype == CW_FLOAT32 ? CW_PRODUCTS_BFLOAT16 : CW_PRODUCTS_REAL));
  check_norms(s, demands);
  demands.holds(s.P == s.H || (is_lstm(s) && s.projection));
  demands.holds(masks_fit(s));
  return demands.status();
}

int64_t check_buffers(const cw_sequence &s, Pass pass) {
  Demands demands(element_size(s.dtype));
  if (is_empty(s)) {
    check_empty(s, pass, demands);
    return demands.status();
  }
  check_common(s, demands);
  pass == Pass::kForward ? check_forward(s, demands) : check_backward(s, demands);
  return demands.status();
}

int64_t check_mask_sequence(int64_t dtype, const void *x, const void *out, int64_t T, int64_t B, int64_t N,
                            const cw_mask *masks, int64_t n_masks, const int32_t *lengths, int64_t reverse,
                            int64_t threads) {
  Demands demands(element_size(dtype));
  demands.holds(between(dtype, CW_FLOAT32, CW_FLOAT64) && sizes_fit(T, B, N) && is_flag(reverse));
  demands.holds(between(threads, 1, kMaxThreads) && n_masks >= 0 && (n_masks == 0 || masks));
  if (demands.status() != CW_OK || T == 0 || B == 0 || N == 0) return demands.status();
  for (int64_t i = 0; i < n_masks; ++i) demands.holds(is_mask(masks[i], B, N, dtype));
  demands.present(x);
  demands.present(out);
  demands.holds(lengths_fit(lengths, T, B));
  return demands.status();
}

}  // namespace cellweave
