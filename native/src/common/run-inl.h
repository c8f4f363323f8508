// What every recurrence shares: the geometry of a call, and what happens to a new state.
// Included once per instruction set, inside its namespace: no include guard.

// Hands out aligned pieces of the scratch memory; without memory it only counts.
class Arena {
 public:
  Arena(void *base, int64_t bytes) : base_(static_cast<char *>(base)), bytes_(bytes), used_(0) {}
  template <class R>
  R *take(int64_t elements) {
    char *found = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (elements * int64_t(sizeof(R)) + 63) / 64 * 64;
    return reinterpret_cast<R *>(found);
  }
  int64_t used() const { return used_; }
  bool fits() const { return used_ <= bytes_; }

 private:
  char *base_;
  int64_t bytes_, used_;
};

// The weights as products of forward meet them: recurrent ones [P, H], those of inputs [I, H], the projection [H, P].
template <class R>
Matrix<R> recurrent_weights(const cw_sequence &s, int g) {
  return {static_cast<const R *>(s.w[g]), s.w_ld[g], s.w_unit[g] == 0 ? 1 : s.w_unit[g]};
}
template <class R>
Matrix<R> input_weights(const cw_sequence &s, int64_t g) {
  return {static_cast<const R *>(s.wx[g]), s.wx_ld[g], s.wx_unit[g] == 0 ? 1 : s.wx_unit[g]};
}
template <class R>
Matrix<R> projection_weights(const cw_sequence &s) {
  const bool dense = s.projection_ld == 0 && s.projection_unit == 0;
  const int64_t unit = s.projection_unit == 0 ? 1 : s.projection_unit;
  return {static_cast<const R *>(s.projection), dense ? s.P : s.projection_ld, unit};
}

template <class R>
struct Run {
  const cw_sequence &s;
  const int64_t T, B, H, P;
  const bool reverse, save, plain, all_h, all_c;
  R *const out, *const hs, *const cs;
  R *const h_states, *const c_states;  // NULL too where the operands are the states
  Factors<R> mask_h, mask_c, mask_out, zone_h, zone_c;
  Factors<R> of_gate[4];  // what each gate multiplies h by
  bool by_gate = false;   // any of them
  R *masked_h = nullptr;  // [4, B, P] the operands h of a step, masked for each gate
  // What happens to a new state beside being stored. False: nothing, and the loops ask no further.
  bool draws = false, changes_h = false, changes_c = false;

  // Once for all loops, and not in line: they are many, and setting out takes a fifth of their code.
  __attribute__((noinline)) explicit Run(const cw_sequence &s_)
      : s(s_), T(s_.T), B(s_.B), H(s_.H), P(s_.P), reverse(s_.reverse != 0), save(s_.save != 0), plain(s_.hs == s_.out),
        all_h(save || plain || s_.hs == s_.h_states), all_c(save || s_.cs == s_.c_states),
        out(static_cast<R *>(s_.out)), hs(static_cast<R *>(s_.hs)), cs(static_cast<R *>(s_.cs)),
        h_states(s_.hs == s_.h_states ? nullptr : static_cast<R *>(s_.h_states)),
        c_states(s_.cs == s_.c_states ? nullptr : static_cast<R *>(s_.c_states)) {
    mask_h.init(s.masks, s.n_masks, CW_MASK_H, B, P);
    mask_c.init(s.masks, s.n_masks, CW_MASK_C, B, H);
    mask_out.init(s.masks, s.n_masks, CW_MASK_OUTPUT, B, P);
    zone_h.init(s.masks, s.n_masks, CW_MASK_ZONE_H, B, P);
    zone_c.init(s.masks, s.n_masks, CW_MASK_ZONE_C, B, H);
    draws = mask_h.every_step || mask_c.every_step || mask_out.every_step || zone_h.every_step || zone_c.every_step;
    for (int g = 0; g < 4; ++g) {
      of_gate[g].init(s.masks, s.n_masks, CW_MASK_GATE + g, B, P);
      by_gate = by_gate || of_gate[g].any();
    }
    changes_h = !plain || zone_h.any();
    changes_c = s.lengths != nullptr || s.resets != nullptr || mask_c.any() || zone_c.any() || c_states != nullptr;
  }
  __attribute__((noinline)) void take_masks(Arena &arena) {
    mask_h.data = arena.take<R>(mask_h.elements());
    mask_c.data = arena.take<R>(mask_c.elements());
    mask_out.data = arena.take<R>(mask_out.elements());
    zone_h.data = arena.take<R>(zone_h.elements());
    zone_c.data = arena.take<R>(zone_c.elements());
    for (Factors<R> &mask : of_gate) mask.data = arena.take<R>(mask.elements());
    if (by_gate) masked_h = arena.take<R>(4 * B * P);
  }
  int64_t at(int64_t step) const { return reverse ? T - 1 - step : step; }
  bool active(int64_t m, int64_t b) const { return s.lengths == nullptr || m < s.lengths[b]; }
  // A row that is past its length keeps its state, whatever `resets` says there.
  bool reset(int64_t m, int64_t b) const { return s.resets != nullptr && s.resets[m * B + b] != 0 && active(m, b); }
  // NULL where the gates have no buffer: input products in the loop, nothing saved.
  R *gate(int g, int64_t m, int64_t b, int64_t u) const {
    return s.gate[g] == nullptr ? nullptr : static_cast<R *>(s.gate[g]) + (m * B + b) * s.gate_ld[g] + u;
  }
  Operand<R> gate_rows(int g, int64_t m) const { return {gate(g, m, 0, 0), s.gate_ld[g], H}; }
  // Where the operands that step `step` leaves behind lie, and those that it starts from.
  R *h_after(int64_t step) const { return hs + (all_h ? at(step) : step % 2) * B * P; }
  R *c_after(int64_t step) const { return cs + (all_c ? at(step) : step % 2) * B * H; }
  const R *h_before(int64_t step) const { return step == 0 ? static_cast<const R *>(s.h0) : h_after(step - 1); }
  const R *c_before(int64_t step) const { return step == 0 ? static_cast<const R *>(s.c0) : c_after(step - 1); }

  // Draw what the gates multiply h by in a step, for the units p of h, rows [b0, b1).
  __attribute__((noinline)) void draw_gates(int64_t step, int64_t b0, int64_t b1, Part p) const {
    const bool one_step = !(reverse && s.lengths != nullptr);
    const int64_t m = at(step);
    for (const Factors<R> &mask : of_gate)
      if (mask.every_step)
        mask.fill(b0, b1, p.from, p.to, one_step,
                  [&](int64_t b) { return one_step ? step : int64_t(s.lengths[b]) - 1 - m; });
  }
  // Make the operands of each gate ready for a step, for the units p of h, rows [b0, b1).
  __attribute__((noinline)) void mask_operands(int64_t step, int64_t b0, int64_t b1, Part p) const {
    draw_gates(step, b0, b1, p);
    for (int g = 0; g < 4; ++g)
      for (int64_t b = b0; of_gate[g].any() && b < b1; ++b)
        times(h_before(step) + b * P + p.from, of_gate[g].data + b * of_gate[g].ld + p.from,
              masked_h + (g * B + b) * P + p.from, p.to - p.from);
  }
  // What gate g multiplies in a step.
  Operand<R> operand_of(int g, int64_t step) const {
    return {of_gate[g].any() ? masked_h + g * B * P : h_before(step), P, P};
  }
  // A value, or gradient, of gate g's operand times the gate's factors.
  CW_INLINE Vec<R> for_gate(int g, int64_t b, int64_t u, int n, Vec<R> value) const {
    return __builtin_expect(of_gate[g].any(), 0) ? value * of_gate[g].at(b, u, n) : value;
  }
  // Draw the masks of a step for the units p of h and h of c, rows [b0, b1).
  __attribute__((noinline)) void draw(int64_t step, int64_t b0, int64_t b1, Part p, Part h) const {
    if (b0 == b1 || !draws) return;
    const bool one_step = !(reverse && s.lengths != nullptr);
    const int64_t m = at(step);
    const auto step_of = [&](int64_t b) { return one_step ? step : int64_t(s.lengths[b]) - 1 - m; };
    if (mask_h.every_step) mask_h.fill(b0, b1, p.from, p.to, one_step, step_of);
    if (mask_out.every_step) mask_out.fill(b0, b1, p.from, p.to, one_step, step_of);
    if (mask_c.every_step) mask_c.fill(b0, b1, h.from, h.to, one_step, step_of);
    if (zone_h.every_step) zone_h.fill(b0, b1, p.from, p.to, one_step, step_of);
    if (zone_c.every_step) zone_c.fill(b0, b1, h.from, h.to, one_step, step_of);
  }
  // Row b's new h of step `step`, units [u, u + n).
  CW_INLINE void finish_h(int64_t step, int64_t m, int64_t b, int64_t u, int n, Vec<R> h) const {
    const int64_t i = b * P + u;
    R *o = out + m * B * P + i;
    if (__builtin_expect(!changes_h, 1)) {
      store(o, h, n);
    } else {
      Vec<R> state = h;
      if (active(m, b)) {
        if (zone_h.any()) state = h = zone_h.mix(b, u, n, h, load(h_before(step) + i, n));
        store(o, mask_out.any() ? h * mask_out.at(b, u, n) : h, n);
        if (mask_h.any()) state = state * mask_h.at(b, u, n);
      } else {
        store(o, zero<R>(), n);
        state = load(h_before(step) + i, n);
      }
      h = state;
      if (h_states != nullptr) store(h_states + m * B * P + i, h, n);
      if (step + 1 < T && reset(at(step + 1), b))
        state = s.reset_h == nullptr ? zero<R>() : load(static_cast<const R *>(s.reset_h) + i, n);
      store(h_after(step) + i, state, n);
    }
    if (step + 1 == T) store(static_cast<R *>(s.h_last) + i, h, n);
  }
  CW_INLINE void finish_c(int64_t step, int64_t m, int64_t b, int64_t u, int n, Vec<R> c) const {
    const int64_t i = b * H + u;
    if (__builtin_expect(changes_c, 0)) {
      if (!active(m, b)) {
        c = load(c_before(step) + i, n);
      } else {
        if (zone_c.any()) c = zone_c.mix(b, u, n, c, load(c_before(step) + i, n));
        if (mask_c.any()) c = c * mask_c.at(b, u, n);
      }
      if (c_states != nullptr) store(c_states + m * B * H + i, c, n);
    }
    if (step + 1 == T) store(static_cast<R *>(s.c_last) + i, c, n);
    if (changes_c && step + 1 < T && reset(at(step + 1), b))
      c = s.reset_c == nullptr ? zero<R>() : load(static_cast<const R *>(s.reset_c) + i, n);
    store(c_after(step) + i, c, n);
  }
};

// Input products: in the loop together with the recurrent ones, or ahead of it for all steps.
template <class R>
struct Inputs {
  const cw_sequence &s;
  const int64_t gates, width;          // width: columns of x that the loop multiplies, 0 if none
  const int first;                     // number of the first gate that has weights
  const bool ahead, inside, prepared;  // prepared: the loop masks the rows of x that a step reads first
  Factors<R> mask;
  Panels<R> panels[4];  // ahead: the input weights of each gate
  R *rows = nullptr;    // [2, B, I], by the parity of the step

  Inputs(const cw_sequence &s_, int64_t gates_, int first_ = 0)
      : s(s_), gates(gates_), width(s_.x == nullptr || is_ahead(s_) ? 0 : s_.I), first(first_), ahead(is_ahead(s_)),
        inside(s_.x != nullptr && !ahead), prepared(inside && is_masked(s_)) {
    if (inside) mask.init(s.masks, s.n_masks, CW_MASK_INPUT, s.B, s.I);
    if (ahead)
      for (int64_t g = first; g < gates; ++g) panels[g].init(s, s.H, s.I, 1);
  }
  static bool is_masked(const cw_sequence &s) {
    for (int64_t i = 0; i < s.n_masks; ++i)
      if (s.masks[i].place == CW_MASK_INPUT) return true;
    return false;
  }
  static bool is_ahead(const cw_sequence &s) { return s.x != nullptr && s.ahead != 0; }
  // Part `id` of `count` of the products of all steps, with their biases, into the gates.
  __attribute__((noinline)) void multiply_ahead(int id, int count, bool packed_ready) const {
    if (!ahead) return;
    const int64_t each = panels[first].panels();
    const Part own = part_of((gates - first) * each, id, count);
    for (int64_t i = own.from, next; i < own.to; i = next) {
      const int64_t g = first + i / each, p = i % each, end = i - p + each;
      next = end < own.to ? end : own.to;
      const int64_t last = p + next - i;
      const Matrix<R> w = input_weights<R>(s, g);
      const Operand<R> x = {static_cast<const R *>(s.x) + (g - first) * s.x_gate, s.I, s.I};
      if (!packed_ready) pack(panels[g], p, last, &w, &s.I, 1);
      const int64_t rows = s.T * s.B, chunk = panels[g].in_tiles ? chunk_rows(s) : rows;
      for (int64_t row0 = 0; row0 < rows; row0 += chunk)
        multiply(
            panels[g], p, last, &x, 1, row0, row0 + chunk < rows ? row0 + chunk : rows, [](int64_t, int64_t) {},
            [&](int64_t row, int64_t u, int n, const R *z) {
              const R *bias = static_cast<const R *>(s.bias[g]);
              store(static_cast<R *>(s.gate[g]) + row * s.gate_ld[g] + u,
                    bias == nullptr ? load(z) : load(z) + load(bias + u, n), n);
            });
    }
  }
  void take(Arena &arena, Arena &packed) {
    if (ahead)
      for (int64_t g = first; g < gates; ++g) panels[g].data = packed.take<R>(panels[g].elements());
    if (!prepared) return;
    mask.data = arena.take<R>(mask.elements());
    rows = arena.take<R>(2 * s.B * width);
  }
  // Operands [x, h] of a step, or [h] alone; returns how many. Where each of `masked` gates has masks of its own: their
  // h.
  int operands(const Run<R> &run, int64_t step, const R *h, int64_t depth, Operand<R> *found, int masked = 0) const {
    int count = 0;
    if (run.by_gate && masked > 0) {  // then there is no x
      for (int g = 0; g < masked; ++g) found[g] = run.operand_of(first + g, step);
      return 1;
    }
    if (inside) {
      const R *x =
          prepared ? rows + (step % 2) * s.B * width : static_cast<const R *>(s.x) + run.at(step) * s.B * width;
      found[count++] = {x, width, width};
    }
    found[count++] = {h, depth, depth};
    return count;
  }
  // Input and recurrent weights of `count` gates from gate `from` on, one below the other; returns the number of parts.
  int weights(int from, int count, int64_t depth, Matrix<R> *found, int64_t *depths) const {
    int parts = 0;
    if (inside) {
      for (int g = 0; g < count; ++g) found[g] = input_weights<R>(s, from + g);
      depths[parts++] = width;
    }
    for (int g = 0; g < count; ++g) found[parts * count + g] = recurrent_weights<R>(s, from + g);
    depths[parts++] = depth;
    return parts;
  }
  // What is added to the products of gate g: its bias, or the input product that the caller computed.
  CW_INLINE Vec<R> base(int g, const R *gate, int64_t u, int n) const {
    if (!inside) return load(gate, n);
    return s.bias[g] == nullptr ? zero<R>() : load(static_cast<const R *>(s.bias[g]) + u, n);
  }
  // Make ready the columns [from, to) of rows [b0, b1) for a step.
  __attribute__((noinline)) void prepare(const Run<R> &run, int64_t step, int64_t b0, int64_t b1, Part columns) const {
    if (!prepared || step >= run.T || b0 == b1) return;
    const int64_t at = run.at(step);
    const bool one_step = !(run.reverse && s.lengths != nullptr);
    if (mask.every_step)
      mask.fill(b0, b1, columns.from, columns.to, one_step,
                [&](int64_t b) { return one_step ? step : int64_t(s.lengths[b]) - 1 - at; });
    for (int64_t b = b0; b < b1; ++b) {
      const R *from = static_cast<const R *>(s.x) + (at * run.B + b) * width + columns.from;
      R *to = rows + ((step % 2) * run.B + b) * width + columns.from;
      times(from, mask.data + b * mask.ld + columns.from, to, columns.to - columns.from);
    }
  }
};

// The part of the rows and units that a thread owns.
struct Share {
  bool by_rows;
  Part rows;
  template <class R>
  Part panels(const Panels<R> &p) const {
    return by_rows ? Part{0, p.panels()} : part_of(p.panels(), id, count);
  }
  template <class R>
  Part units(const Panels<R> &p) const {
    const Part own = panels(p);
    const int64_t from = p.first_unit(own.from), to = p.first_unit(own.to);
    return {from < p.units ? from : p.units, to < p.units ? to : p.units};
  }
  // Where rows are taken one by one: all of them are shared out, whichever way the products are.
  Part single_rows(int64_t B) const { return by_rows ? rows : part_of(B, id, count); }
  // Of the columns of x, in whole blocks of random numbers.
  Part columns(int64_t I) const {
    if (by_rows) return {0, I};
    const Part blocks = part_of((I + 63) / 64, id, count);
    return {blocks.from * 64 < I ? blocks.from * 64 : I, blocks.to * 64 < I ? blocks.to * 64 : I};
  }
  int id, count;
  Barrier &barrier;
  const bool packed_ready;
  Share(const cw_sequence &s, bool forward, int id_, int count_, Barrier &barrier_)
      : by_rows(s.split == CW_SPLIT_ROWS), rows(by_rows ? part_of(s.B, id_, count_) : Part{0, s.B}), id(id_),
        count(count_), barrier(barrier_), packed_ready(forward && s.packed != nullptr && s.packed_ready != 0) {}
  // Between phases that read what other threads wrote; rows that belong to one thread need no wait.
  void sync() const {
    if (!by_rows) barrier.wait();
  }
  // The factors that all steps share: every thread fills some columns for all rows.
  template <class R>
  __attribute__((noinline)) void draw_shared(const Factors<R> &mask) const {
    if (!mask.any() || mask.every_step) return;
    const Part own = part_of(mask.N, id, count);
    mask.fill(0, mask.rows, own.from, own.to, true, [](int64_t) { return int64_t(0); });
  }
  template <class R>
  void draw_shared(const Run<R> &run) const {
    draw_shared(run.mask_h);
    draw_shared(run.mask_c);
    draw_shared(run.mask_out);
    draw_shared(run.zone_h);
    draw_shared(run.zone_c);
    for (const Factors<R> &mask : run.of_gate) {
      draw_shared(mask);
      // rows that are past their end before they begin have no draw, and are multiplied all the same
      if (mask.every_step && id == 0) std::memset(mask.data, 0, size_t(mask.elements()) * sizeof(R));
    }
  }
  // Before the products of a step whose gates have masks of their own.
  template <class R>
  void mask_operands(const Run<R> &run, int64_t step) const {
    if (__builtin_expect(!run.by_gate, 1)) return;
    run.mask_operands(step, rows.from, rows.to, columns(run.P));
    sync();
  }
  // What the forward loops do before their first step, once the weights are packed.
  template <class R>
  void begin(const Run<R> &run, const Inputs<R> &inputs) const {
    draw_shared(run);
    draw_shared(inputs.mask);
    inputs.multiply_ahead(id, count, packed_ready);
    barrier.wait();
    if (!inputs.prepared) return;
    inputs.prepare(run, 0, rows.from, rows.to, columns(inputs.width));
    sync();
  }
  template <class R>
  void pack_own(const Panels<R> &p, const Matrix<R> *weights, const int64_t *depths, int parts) const {
    if (packed_ready) return;
    const Part own = part_of(p.panels(), id, count);
    pack(p, own.from, own.to, weights, depths, parts);
  }
};

// Add to the gradient dh [B, P] of a step's operand what the gradients of its gates from `first` on give, `operands`;
// where gates have masks of their own through those, and what they multiplied goes to `gate_h`. Panels [own.from,
// own.to).
template <class R>
__attribute__((noinline)) void add_products(const Run<R> &run, const Panels<R> &p, Part own, const Operand<R> *operands,
                                            int first, int gates, int64_t step, const Share &share, R *dh) {
  const int64_t P = run.P, b0 = share.rows.from, b1 = share.rows.to, at = run.at(step);
  const auto prepare = [](int64_t, int64_t) {};
  if (!run.by_gate) {
    multiply(p, own.from, own.to, operands, gates, b0, b1, prepare, [&](int64_t b, int64_t u, int n, const R *z) {
      store(dh + b * P + u, load(dh + b * P + u, n) + load(z), n);
    });
    return;
  }
  multiply(p, own.from, own.to, operands, 1, b0, b1, prepare, [&](int64_t b, int64_t u, int n, const R *z) {
    Vec<R> d = load(dh + b * P + u, n);
    const Vec<R> h = load(run.h_before(step) + b * P + u, n);
    R *kept = static_cast<R *>(run.s.gate_h) + (at * run.B + b) * P + u;
    for (int g = 0; g < gates; ++g, kept += run.T * run.B * P) {
      d += run.for_gate(first + g, b, u, n, load(z + g * kLanes<R>));
      store(kept, run.active(at, b) ? run.for_gate(first + g, b, u, n, h) : zero<R>(), n);
    }
    store(dh + b * P + u, d, n);
  });
}
// The panels for it, from gates to h; the number of parts they are packed of follows.
template <class R>
void init_to_h(const Run<R> &run, Panels<R> &p, int gates) {
  run.by_gate ? p.init(run.s, run.P, run.H, gates, true) : p.init(run.s, run.P, gates * run.H, 1);
}
template <class R>
int parts_to_h(const Run<R> &run, int gates) {
  return run.by_gate ? 1 : gates;
}

template <class R>
__attribute__((noinline)) void copy_or_zero(R *to, const void *from, int64_t n) {
  if (to == nullptr) return;
  if (from == nullptr)
    std::memset(to, 0, size_t(n) * sizeof(R));
  else
    std::memcpy(to, from, size_t(n) * sizeof(R));
}

// Gradients that flow backwards through the states: D [B, width] holds the gradient of a step's operand.
template <class R>
struct Backward {
  const Run<R> &run;
  const cw_sequence &s;

  // Gradient of the state that `step` left in row b, from that of the operand of the step after it: past a reset that
  // stands between, which takes it all, and with what came for the state itself, `d_states` [T, B, N].
  CW_INLINE Vec<R> of_state(int64_t step, int64_t b, int64_t i, int n, Vec<R> d, void *d_reset, const void *d_states,
                            int64_t N) const {
    if (__builtin_expect(s.resets != nullptr, 0) && step + 1 < run.T && run.reset(run.at(step + 1), b)) {
      if (d_reset != nullptr) {
        R *to = static_cast<R *>(d_reset) + i;
        store(to, load(to, n) + d, n);
      }
      d = zero<R>();
    }
    if (__builtin_expect(d_states != nullptr, 0))
      d = d + load(static_cast<const R *>(d_states) + run.at(step) * run.B * N + i, n);
    return d;
  }
  // Gradient of h of an active row: what comes from the next steps (d) and from the output.
  CW_INLINE Vec<R> of_h(int64_t m, int64_t b, int64_t u, int n, Vec<R> d) const {
    if (run.mask_h.any()) d = d * run.mask_h.at(b, u, n);
    if (s.d_out != nullptr) {
      Vec<R> o = load(static_cast<const R *>(s.d_out) + (m * run.B + b) * run.P + u, n);
      if (run.mask_out.any()) o = o * run.mask_out.at(b, u, n);
      d = d + o;
    }
    return d;
  }
  // Gradient of the h that a step made in row b, 0 past the row's end, from that of the operand of the step after it,
  // which lies in dh; there stays what goes past the step to its own operand.
  CW_INLINE Vec<R> of_new_h(int64_t step, int64_t m, int64_t b, int64_t u, int n, R *dh, bool active) const {
    const int64_t i = b * run.P + u;
    Vec<R> d = of_state(step, b, i, n, load(dh + i, n), s.d_reset_h, s.d_h_states, run.P);
    store(dh + i, active ? zero<R>() : d, n);
    if (!active) return zero<R>();
    d = of_h(m, b, u, n, d);
    if (run.zone_h.any()) store(dh + i, part_of_old(run.zone_h, b, u, n, d), n);
    return d;
  }
  // Under zoneout: the operand's part of the gradient `d` of what was mixed; `d` becomes that of the new value.
  CW_INLINE Vec<R> part_of_old(const Factors<R> &zone, int64_t b, int64_t u, int n, Vec<R> &d) const {
    const Vec<R> share = zone.at(b, u, n), old = (R(1) - share) * d;
    d = share * d;
    return old;
  }
};
