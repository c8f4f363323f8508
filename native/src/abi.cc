// The functions of cellweave.h: they check, choose the instruction set and answer with a status.
#include <atomic>
#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "cellweave.h"
#include "check.h"
#include "kernels.h"

namespace cellweave {

namespace {

static_assert(sizeof(cw_mask) == 12 * 8 && sizeof(cw_sequence) == 113 * 8, "a field changed: raise CW_ABI_VERSION");

// The table of an instruction set; NULL where the build or the machine lacks it.
const Kernels *kernels_of(int64_t isa) {
  switch (isa) {
    case CW_PLAIN: return &kPlain;
#if defined(CELLWEAVE_HAVE_PORTABLE)
    case CW_PORTABLE: return &kPortable;
#endif
#if defined(CELLWEAVE_HAVE_AVX2)
    case CW_AVX2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kAvx2 : nullptr;
#endif
#if defined(CELLWEAVE_HAVE_AVX512)
    case CW_AVX512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                     __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                     __builtin_cpu_supports("fma")
                 ? &kAvx512
                 : nullptr;
#endif
    default: return nullptr;
  }
}

int64_t best_isa() {
  for (int64_t isa = CW_AVX512; isa > CW_PLAIN; --isa)
    if (kernels_of(isa)) return isa;
  return CW_PLAIN;
}

// Constant initialisation, so that a call from another library's constructor finds a valid value too.
constexpr int64_t kUndecided = -1;
std::atomic<int64_t> isa_in_use{kUndecided};

int64_t current_isa() {
  int64_t isa = isa_in_use.load(std::memory_order_relaxed);
  if (isa != kUndecided) return isa;
  isa = best_isa();
  isa_in_use.store(isa, std::memory_order_relaxed);
  return isa;
}

const Kernels &kernels() { return *kernels_of(current_isa()); }

// What the checked options ask for and these kernels lack.
bool is_supported(const cw_sequence &s) { return s.products == CW_PRODUCTS_REAL || kernels().has_bfloat16(); }

int64_t element_size(const cw_sequence &s) { return s.dtype == CW_FLOAT32 ? 4 : 8; }

void copy_rows(void *to, const void *from, const cw_sequence &s, int64_t N) {
  const size_t bytes = size_t(s.B * N * element_size(s));
  if (from)
    std::memmove(to, from, bytes);
  else if (to)
    std::memset(to, 0, bytes);
}

// Without steps the state is what it was, and its gradient too.
void pass_state(const cw_sequence &s, Pass pass) {
  if (s.B == 0) return;
  const bool lstm = s.op == CW_LSTM;
  if (pass == Pass::kForward) {
    copy_rows(s.h_last, s.h0, s, s.P);
    if (lstm) copy_rows(s.c_last, s.c0, s, s.H);
    return;
  }
  copy_rows(s.d_h0, s.d_h_last, s, s.P);
  copy_rows(s.d_reset_h, nullptr, s, s.P);
  if (normalizes(s)) copy_rows(s.d_norm, nullptr, s, norms_of(s) * 2 * s.H);
  if (!lstm) return;
  copy_rows(s.d_c0, s.d_c_last, s, s.H);
  copy_rows(s.d_reset_c, nullptr, s, s.H);
  copy_rows(s.d_peephole, nullptr, s, 3 * s.H);
}

int64_t scratch_of(const cw_sequence &s, Pass pass) {
  return is_empty(s) ? 0 : kernels().scratch_bytes(&s, pass == Pass::kBackward);
}

int64_t packed_of(const cw_sequence &s) { return kernels().packed_bytes(&s); }

int64_t run(const cw_sequence *s, Family family, Pass pass) {
  if (!s) return CW_BAD_ARGUMENT;
  int64_t status = check_options(*s, pass);
  if (status == CW_OK && !is_family(*s, family)) status = CW_BAD_ARGUMENT;
  if (status == CW_OK) status = check_buffers(*s, pass);
  if (status == CW_OK && !is_supported(*s)) status = CW_UNSUPPORTED;
  if (status != CW_OK) return status;
  if (is_empty(*s)) {
    pass_state(*s, pass);
    return CW_OK;
  }
  const int64_t needed = scratch_of(*s, pass);
  if (needed > 0) {
    if (s->scratch_bytes < needed) return CW_SCRATCH_TOO_SMALL;
    if (!s->scratch || reinterpret_cast<uintptr_t>(s->scratch) % 64 != 0) return CW_BAD_ARGUMENT;
  }
  return pass == Pass::kForward ? kernels().forward(s) : kernels().backward(s);
}

}  // namespace
}  // namespace cellweave

using cellweave::Family;
using cellweave::Pass;

extern "C" {

int64_t cw_abi_version(void) { return CW_ABI_VERSION; }

int64_t cw_isa(void) { return cellweave::current_isa(); }

int64_t cw_best_isa(void) { return cellweave::best_isa(); }

int64_t cw_set_isa(int64_t isa) {
  if (!cellweave::kernels_of(isa)) return CW_UNSUPPORTED;
  cellweave::isa_in_use.store(isa, std::memory_order_relaxed);
  return CW_OK;
}

int64_t cw_has_bfloat16(void) { return cellweave::kernels().has_bfloat16(); }

int64_t cw_is_intel(void) {
#if defined(__x86_64__)
  return __builtin_cpu_is("intel") != 0;
#else
  return 0;
#endif
}

const char *cw_status_text(int64_t status) {
  switch (status) {
    case CW_OK: return "done";
    case CW_BAD_ARGUMENT: return "an argument is missing, out of its range or misaligned";
    case CW_SCRATCH_TOO_SMALL: return "the scratch memory is smaller than cw_scratch_bytes says";
    case CW_UNSUPPORTED: return "this library or this machine lacks what was asked for";
    default: return "no such status";
  }
}

int64_t cw_scratch_bytes(const cw_sequence *s, int64_t backward) {
  const Pass pass = backward ? Pass::kBackward : Pass::kForward;
  if (!s || cellweave::check_options(*s, pass) != CW_OK || !cellweave::is_supported(*s)) return -1;
  return cellweave::scratch_of(*s, pass);
}

int64_t cw_packed_bytes(const cw_sequence *s) {
  if (!s || cellweave::check_options(*s, Pass::kForward) != CW_OK || !cellweave::is_supported(*s)) return -1;
  return cellweave::packed_of(*s);
}

int64_t cw_rnn_forward(const cw_sequence *s) { return cellweave::run(s, Family::kRnn, Pass::kForward); }
int64_t cw_rnn_backward(const cw_sequence *s) { return cellweave::run(s, Family::kRnn, Pass::kBackward); }
int64_t cw_gru_forward(const cw_sequence *s) { return cellweave::run(s, Family::kGru, Pass::kForward); }
int64_t cw_gru_backward(const cw_sequence *s) { return cellweave::run(s, Family::kGru, Pass::kBackward); }
int64_t cw_lstm_forward(const cw_sequence *s) { return cellweave::run(s, Family::kLstm, Pass::kForward); }
int64_t cw_lstm_backward(const cw_sequence *s) { return cellweave::run(s, Family::kLstm, Pass::kBackward); }

int64_t cw_mask_sequence(int64_t dtype, const void *x, void *out, int64_t T, int64_t B, int64_t N, const cw_mask *masks,
                         int64_t n_masks, const int32_t *lengths, int64_t reverse, int64_t threads) {
  const int64_t status =
      cellweave::check_mask_sequence(dtype, x, out, T, B, N, masks, n_masks, lengths, reverse, threads);
  if (status != CW_OK || T == 0 || B == 0 || N == 0) return status;
  return cellweave::kernels().mask_sequence(dtype, x, out, T, B, N, masks, n_masks, lengths, reverse, threads);
}

uint64_t cw_digest(const void *data, int64_t bytes, int64_t threads) {
  if (!data || bytes <= 0) return 0;
  return cellweave::kernels().digest(data, bytes, threads < 1 ? 1 : threads);
}

void cw_advise_huge_pages(void *memory, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (!memory || bytes <= 0) return;
  const uintptr_t page = uintptr_t(sysconf(_SC_PAGESIZE));
  const uintptr_t first = (reinterpret_cast<uintptr_t>(memory) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + uintptr_t(bytes)) / page * page;
  // Only advice: whether the system takes it changes no result.
  if (first < end) (void)madvise(reinterpret_cast<void *>(first), end - first, MADV_HUGEPAGE);
#else
  (void)memory;
  (void)bytes;
#endif
}

}  // extern "C"
