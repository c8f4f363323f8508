/* The C interface of cellweave's native core: time loops of recurrent layers on a CPU, forward and backward.
 *
 * Rules for every function: the caller owns all memory; nothing is allocated, no exception leaves, no process ends.
 * Tensors are dense and row-major, time first: [T, B, H] means steps, rows, units. "Real" is float or double by
 * `dtype`. A status other than CW_OK means that nothing useful was written; cw_status_text says what was wrong.
 * Functions may be called from several threads at once with different buffers.
 *
 * Division of labour: the caller computes the input products of all steps (`gate` holds x W + b on entry) and, after
 * cw_*_backward, every gradient that is one matrix product over all steps. The core does what is sequential.
 *
 * Source of the recurrences: src/cellweave/ops/{lstm,gru,rnn}/README.md in the same repository.
 */
#ifndef CELLWEAVE_H_
#define CELLWEAVE_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define CW_API __declspec(dllexport)
#else
#define CW_API __attribute__((visibility("default")))
#endif

/* Raised by one whenever a struct below or the meaning of a field changes. */
#define CW_ABI_VERSION 5

enum { CW_OK = 0, CW_BAD_ARGUMENT = 1, CW_SCRATCH_TOO_SMALL = 2, CW_UNSUPPORTED = 3 };
enum { CW_FLOAT32 = 0, CW_FLOAT64 = 1 };
enum { CW_RNN = 0, CW_GRU_BEFORE = 1, CW_GRU_AFTER = 2, CW_LSTM = 3 };
/* Instruction sets; CW_PLAIN is the simple loop that the others are tested against. */
enum { CW_PLAIN = 0, CW_PORTABLE = 1, CW_AVX2 = 2, CW_AVX512 = 3 };
enum {
  CW_TANH = 0, CW_SIGMOID = 1, CW_RELU = 2, CW_LINEAR = 3, CW_SOFTSIGN = 4, CW_SOFTPLUS = 5, CW_ELU = 6, CW_SELU = 7,
  CW_HARD_SIGMOID = 8, CW_LEAKY_RELU = 9, CW_EXPONENTIAL = 10, CW_RELU6 = 11
};
/* A mask on the input, on the states h and c that a step hands on, or on its output multiplies it. Masks of CW_MASK_ZONE_H
 * and _C are zoneout: with their product m, the new h (projected) or c becomes m * new + (1 - m) * operand before the other
 * masks act; h is made from the whole new c, and the output from the mixed h. Masks of CW_MASK_GATE + g act inside a step,
 * the first one too: gate g multiplies the operand h times their product by its weights (a GRU's candidate that resets
 * before: r * h times it); the operand stays as it is. */
enum {
  CW_MASK_INPUT = 0, CW_MASK_H = 1, CW_MASK_C = 2, CW_MASK_OUTPUT = 3, CW_MASK_ZONE_H = 4, CW_MASK_ZONE_C = 5,
  CW_MASK_GATE = 6
};
/* What products are made of. CW_PRODUCTS_BFLOAT16: weights and what they multiply are rounded to bfloat16, to nearest and even,
 * before they meet; sums, states and all else stay float. Numbers below the smallest normal one may count as 0. */
enum { CW_PRODUCTS_REAL = 0, CW_PRODUCTS_BFLOAT16 = 1 };
/* How the work of a step is divided among threads. */
enum { CW_SPLIT_UNITS = 0, CW_SPLIT_ROWS = 1 };

/* One random mask. An element is kept if its 23-bit (float) or 52-bit (double) mantissa is at least `threshold`.
 * Mantissas are TensorFlow's: Philox4x32-10, block number counter = (high << 64) + low + step * stride + flat / n with
 * n = 4 (float; mantissa = word & 0x7fffff) or 2 (double; mantissa = (word[2i] & 0xfffff) << 32 | word[2i + 1]) draws a
 * block, flat = row * width + first + unit (row = 0 for all rows if rows == 1). Additions carry through all 128 bits.
 * With `bits` only so many low bits of a float's mantissa count: 7 for the draws of bfloat16, 10 for those of half.
 * Steps are counted in the order in which a row meets them: with `reverse` and lengths, row b's step at memory index m
 * has number lengths[b] - 1 - m; with `reverse` alone, T - 1 - m. */
typedef struct cw_mask {
  uint64_t key;        /* Philox key */
  uint64_t high, low;  /* counter of the first block of step 0 */
  uint64_t stride;     /* blocks from one step's draw to the next; 0: one draw serves all steps */
  uint64_t threshold;
  double scale;        /* factor of a kept element; others become 0 */
  const void *factors; /* Real [rows, width] to use in place of a stream, or NULL */
  int64_t rows;        /* B, or 1: one mask for all rows (then stride is 0) */
  int64_t place;       /* CW_MASK_* */
  int64_t first, width; /* elements of a row before those that are used, and in all; width 0: those alone */
  int64_t bits;         /* float: 1 to 23; 0: all */
} cw_mask;

/* One layer over one sequence. Fields that an operation does not use are 0 or NULL. All fields have 8 bytes.
 *
 * "Operand": what a step multiplies by the recurrent weights: the state after the step before, masked (CW_MASK_H, _C),
 * kept through steps past the row's length, replaced where `resets` says so.
 * Memory index m of step s: s, or T - 1 - s with `reverse`. Row b is active at m if lengths is NULL or m < lengths[b];
 * an inactive row has output 0 and keeps its state, whatever resets say there; backward gives it gradients of 0, and what
 * stands in its inputs, gates and upstream gradients reaches nothing else.
 * Gates by number: RNN 0; GRU 0 r, 1 u, 2 candidate, 3 (CW_GRU_AFTER, saved only) h R + b' of the candidate;
 * LSTM 0 i, 1 j (candidate), 2 f, 3 o. Element (m, b, u) of gate g is gate[g][(m * B + b) * gate_ld[g] + u].
 */
typedef struct cw_sequence {
  int64_t abi_version;
  int64_t op, dtype;
  int64_t T, B, H, P; /* steps, rows, units, width of h (P = H without projection) */
  int64_t threads, split, reverse;
  int64_t save;       /* 1: keep what backward needs; 0: gates are left undefined, hs and cs may be rings of 2 */
  int64_t activation, gate_activation;
  double forget_bias;
  double cell_clip, proj_clip; /* negative: none */

  void *gate[4];        /* in: x W + b; out with save: activated gates; out of backward: gradients before activation */
  int64_t gate_ld[4];
  const void *w[4];     /* recurrent weights: element (k, u) of gate g is w[g][k * w_ld[g] + u * w_unit[g]], k < P, u < H */
  int64_t w_ld[4];
  const void *bias_h;   /* CW_GRU_AFTER: [H] recurrent bias of the candidate, or NULL */
  const void *peephole[3]; /* LSTM: [H] each for f, i, o, or all NULL */
  const void *projection;  /* LSTM: [H, P] or NULL; element (u, p) is projection[u * projection_ld + p * projection_unit] */

  const void *h0, *c0;  /* operands of the first step, [B, P] and [B, H] */
  void *out;            /* [T, B, P] outputs, masked (CW_MASK_OUTPUT), 0 past a row's length */
  void *hs;             /* operands of later steps: save: [T, B, P] at the memory index of the step before; else [2, B, P]
                           at s mod 2. May be `out` itself, [T, B, P] with or without save, where both are equal: no masks
                           of CW_MASK_H or _OUTPUT, no lengths, no resets. */
  void *cs;             /* LSTM: the same for c, [T, B, H] or [2, B, H] */
  void *h_last, *c_last;   /* [B, P], [B, H]: state after the last step, masked like every state */
  void *proj_raw;          /* LSTM with projection and proj_clip, save: [T, B, P] projected h before the clip */
  const int32_t *lengths;  /* [B] or NULL */
  const uint8_t *resets;   /* [T, B] or NULL: 1 replaces the operand before the step at that memory index. Row of the first
                              step is ignored: the caller has put it into h0 and c0. */
  const void *reset_h, *reset_c; /* [B, P], [B, H] operands after a reset, or NULL: zeros */
  const cw_mask *masks;
  int64_t n_masks;

  /* Backward only. Gradients that are NULL on entry count as zeros. */
  const void *d_out;            /* [T, B, P] */
  const void *d_h_last, *d_c_last; /* [B, P], [B, H] */
  void *d_h0, *d_c0;            /* [B, P], [B, H]: written */
  void *d_reset_h, *d_reset_c;  /* [B, P], [B, H]: written, or NULL */
  void *d_peephole;             /* LSTM with peepholes: [B, 3, H] for f, i, o, per row: written */
  void *rh;                     /* CW_GRU_BEFORE: [T, B, H] r * operand: written */
  void *proj_in;                /* LSTM with projection: [T, B, H] what was projected: written */
  void *d_proj;                 /* LSTM with projection: [T, B, P] gradient of the projected h before the clip: written */

  void *scratch;        /* at least cw_scratch_bytes, aligned to 64 bytes */
  int64_t scratch_bytes;

  /* Forward only: with `x` the core makes the input products itself, and the gates need hold nothing on entry; what stands
     in x past a row's length changes nothing. */
  const void *x;        /* [T, B, I] or NULL: the gates hold x W + b on entry, and there are no masks on the input */
  int64_t I;
  const void *wx[4];    /* input weights: element (k, u) of gate g is wx[g][k * wx_ld[g] + u * wx_unit[g]], k < I */
  int64_t wx_ld[4];
  const void *bias[4];  /* [H] each, or all NULL */
  int64_t ahead;        /* 0: products in the loop, together with the recurrent ones, which suits batches; masks of CW_MASK_INPUT
                           act on x, and without `save` the gates may be NULL. 1: products of all steps ahead of the loop,
                           which suits few rows, or weights too large for the caches; no masks on x. */

  /* Forward only: packed weights that outlive the call. NULL: they are packed into scratch at every call. */
  void *packed;         /* cw_packed_bytes, aligned to 64 bytes; calls with packed_ready only read it */
  int64_t packed_ready; /* 0: pack the weights there; 1: they are there, from a call with these weights, sizes and options;
                           w, wx and projection must still say which weights there are */

  /* Weights of any layout, such as units above inputs: the distance of neighbouring units (columns). 0 counts as 1. */
  int64_t w_unit[4];
  int64_t wx_unit[4];
  int64_t projection_ld, projection_unit; /* both 0: P and 1 */
  /* The state after each step at the step's memory index: masked, before a reset that follows, kept where the row is
     inactive. Forward writes it, or NULL. Without resets it may be hs or cs itself, which then have T steps with or without
     save; where hs is `out`, it must be. */
  void *h_states, *c_states;           /* [T, B, P], [T, B, H]; c: LSTM */
  const void *d_h_states, *d_c_states; /* backward: their gradients, or NULL: zeros; inactive rows have some too */

  /* LSTM variants. */
  int64_t clip_passes;  /* 1: the bound on c lets the whole gradient through; 0: only that of values inside it */
  int64_t coupled;      /* 1: i is 1 - f. Gate 0 then has no weights, buffer, bias or peephole, and its row in d_peephole is 0. */

  /* Layer normalization: a row's H values v become (v - mean) / sqrt(variance + norm_epsilon) * gamma + beta.
     Numbers: that of a gate for its whole sum x W + h R + b, before the forget bias and peepholes; CW_GRU_AFTER 2 for the
     candidate's x W + b and 3 for its h R + b'; LSTM 4 for c before its clip. With `save` the gates hold their normalized
     values before gamma and beta in place of activated ones. N numbers: RNN 1, CW_GRU_BEFORE 3, CW_GRU_AFTER 4, LSTM 5. */
  double norm_epsilon;
  const void *gamma[5], *beta[5]; /* [H] each for all N numbers (none for a coupled LSTM's 0), or all NULL: no normalization */
  void *norm_kept;      /* with save: [T, B, N] of 1 / sqrt(variance + norm_epsilon); LSTM: [T, B, N + 1], the mean of c last */
  void *d_norm;         /* backward: [B, N, 2, H] gradients of gamma and beta, per row: written; 0 for a coupled LSTM's 0 */

  /* Masks of each gate's own. With CW_MASK_GATE the loop makes no input products: `ahead`, or no x. */
  int64_t x_gate;       /* with `ahead`: elements from the inputs x of one gate to those of the next; 0: all multiply the same */
  void *gate_h;         /* backward with CW_MASK_GATE: [gates, T, B, P] what each gate multiplied: written; not that of the
                           candidate of CW_GRU_BEFORE, which is in rh; from gate 1 on for a coupled LSTM */

  int64_t products;     /* CW_PRODUCTS_*; CW_PRODUCTS_BFLOAT16 with float only, where cw_has_bfloat16 says so */
} cw_sequence;

CW_API int64_t cw_abi_version(void);
/* The instruction set in use; the best that the machine has, unless cw_set_isa chose another. */
CW_API int64_t cw_isa(void);
CW_API int64_t cw_best_isa(void);
/* For tests. CW_UNSUPPORTED if the machine or the build lacks it. Not while other calls run. */
CW_API int64_t cw_set_isa(int64_t isa);
/* 1 if the instruction set in use makes products of bfloat16: the plain loops, and AVX-512 where the processor has AMX. */
CW_API int64_t cw_has_bfloat16(void);
/* 1 on Intel's processors, else 0: some libraries have fast code for those only. */
CW_API int64_t cw_is_intel(void);
CW_API const char *cw_status_text(int64_t status);

/* Bytes of scratch that forward (or backward, if `backward`) needs for these sizes, threads, masks and options. */
CW_API int64_t cw_scratch_bytes(const cw_sequence *s, int64_t backward);

/* Bytes that `packed` needs. It depends on the instruction set, sizes and options, not on T or threads. */
CW_API int64_t cw_packed_bytes(const cw_sequence *s);

CW_API int64_t cw_rnn_forward(const cw_sequence *s);
CW_API int64_t cw_rnn_backward(const cw_sequence *s);
CW_API int64_t cw_gru_forward(const cw_sequence *s);
CW_API int64_t cw_gru_backward(const cw_sequence *s);
CW_API int64_t cw_lstm_forward(const cw_sequence *s);
CW_API int64_t cw_lstm_backward(const cw_sequence *s);

/* out[m, b, n] = x[m, b, n] times all masks (place is ignored), 0 where m >= lengths[b]. x and out may be the same.
 * x, out: Real [T, B, N]. */
CW_API int64_t cw_mask_sequence(int64_t dtype, const void *x, void *out, int64_t T, int64_t B, int64_t N,
                                const cw_mask *masks, int64_t n_masks, const int32_t *lengths, int64_t reverse,
                                int64_t threads);
/* A number that tells whether memory has changed: equal bytes give equal numbers, other bytes others but by chance (about
   one in 2^64; no protection against who means to deceive). The same on every instruction set, for any number of threads. */
CW_API uint64_t cw_digest(const void *data, int64_t bytes, int64_t threads);
/* Ask the system for huge pages under this memory; advice only. */
CW_API void cw_advise_huge_pages(void *memory, int64_t bytes);

#ifdef __cplusplus
}
#endif
#endif
