// The long short-term memory: forward and backward time loops. Equations: src/cellweave/ops/lstm/README.md.
// Included once per instruction set, inside its namespace: no include guard.

// tanh and sigmoid, no peepholes, no clip: known to the compiler.
inline bool is_standard_lstm(const cw_sequence &s) {
  return s.activation == CW_TANH && s.gate_activation == CW_SIGMOID && s.peephole[0] == nullptr && s.cell_clip < 0;
}

// What the loops with and without layer normalization share. FIRST: number of the first gate that has weights.

template <class R, int FIRST>
void pack_forward(const Run<R> &run, const Inputs<R> &inputs, const Panels<R> &gates, const Panels<R> &projection,
                  const Share &share) {
  Matrix<R> weights[8];
  int64_t depths[2];
  const int parts = inputs.weights(FIRST, 4 - FIRST, run.P, weights, depths);
  share.pack_own(gates, weights, depths, parts);
  if (run.s.projection == nullptr) return;
  const Matrix<R> p = projection_weights<R>(run.s);
  share.pack_own(projection, &p, &run.H, 1);
}
// From what is projected, m [B, H], to a step's new h.
template <class R>
__attribute__((noinline)) void project(const Run<R> &run, const Panels<R> &projection, const R *m, int64_t step,
                                       const Share &share) {
  const cw_sequence &s = run.s;
  const int64_t at = run.at(step);
  const Part own = share.panels(projection);
  const Operand<R> rows = {m, run.H, run.H};
  const R bound = R(s.proj_clip);
  multiply(
      projection, own.from, own.to, &rows, 1, share.rows.from, share.rows.to, [](int64_t, int64_t) {},
      [&](int64_t b, int64_t u, int n, const R *z) {
        Vec<R> p = load(z);
        if (s.proj_clip >= 0) {
          if (run.save) store(static_cast<R *>(s.proj_raw) + (at * run.B + b) * run.P + u, p, n);
          p = at_least<R>(at_most<R>(p, bound), -bound);
        }
        run.finish_h(step, at, b, u, n, p);
      });
  share.sync();
}

template <class R, int FIRST>
void pack_backward(const Run<R> &run, const Panels<R> &to_h, const Panels<R> &to_m, const Share &share) {
  Matrix<R> weights[4];
  int64_t depths[4];
  for (int g = FIRST; g < 4; ++g)
    weights[g - FIRST] = recurrent_weights<R>(run.s, g).transposed(), depths[g - FIRST] = run.H;
  share.pack_own(to_h, weights, depths, parts_to_h(run, 4 - FIRST));
  if (run.s.projection == nullptr) return;
  const Matrix<R> p = projection_weights<R>(run.s).transposed();
  share.pack_own(to_m, &p, &run.P, 1);
}
// By one thread, before the others begin.
template <class R>
void start_gradients(const Run<R> &run, R *dh, R *dc) {
  const cw_sequence &s = run.s;
  copy_or_zero(dh, s.d_h_last, run.B * run.P);
  copy_or_zero(dc, s.d_c_last, run.B * run.H);
  copy_or_zero(static_cast<R *>(s.d_reset_h), nullptr, run.B * run.P);
  copy_or_zero(static_cast<R *>(s.d_reset_c), nullptr, run.B * run.H);
  copy_or_zero(static_cast<R *>(s.d_peephole), nullptr, run.B * 3 * run.H);
}
template <class R>
void give_first_gradients(const Run<R> &run, const R *dh, const R *dc) {
  copy_or_zero(static_cast<R *>(run.s.d_h0), dh, run.B * run.P);
  copy_or_zero(static_cast<R *>(run.s.d_c0), dc, run.B * run.H);
}
// Gradients of the projected h before its clip, for some of its units.
template <class R>
void gradients_of_projected(const Run<R> &run, int64_t step, Part units, const Share &share, R *dh) {
  const cw_sequence &s = run.s;
  const Backward<R> back = {run, s};
  const int64_t at = run.at(step), first = at * run.B * run.P;
  R *d_proj = static_cast<R *>(s.d_proj) + first;
  const R *raw = s.proj_clip >= 0 ? static_cast<const R *>(s.proj_raw) + first : nullptr;
  const R bound = R(s.proj_clip);
  for (int64_t b = share.rows.from; b < share.rows.to; ++b) {
    const bool active = run.active(at, b);
    for (int64_t u = units.from; u < units.to; u += kLanes<R>) {
      const int n = int(units.to - u < kLanes<R> ? units.to - u : kLanes<R>);
      Vec<R> d = back.of_new_h(step, at, b, u, n, dh, active);
      if (raw != nullptr) {
        const Vec<R> p = load(raw + b * run.P + u, n);
        d = select<R>((p > bound) | (p < -bound), zero<R>(), d);
      }
      store(d_proj + b * run.P + u, d, n);
    }
  }
  share.sync();
}

// COUPLED: the input gate is 1 - f, and has no weights. It is rare enough to do without loops of known functions.
template <class R, bool COUPLED = false>
struct LstmForward {
  static constexpr int kFirst = COUPLED ? 1 : 0, kGates = 4 - kFirst;
  Run<R> run;
  Inputs<R> inputs;
  Panels<R> gates, projection;
  R *m = nullptr;  // [B, H] what is projected

  explicit LstmForward(const cw_sequence &s) : run(s), inputs(s, 4, kFirst) {
    gates.init(run.s, run.H, inputs.width + run.P, kGates, run.by_gate);
    projection.init(run.s, run.P, run.H, 1);
  }
  void layout(Arena &arena, Arena &packed) {
    gates.data = packed.take<R>(gates.elements());
    if (run.s.projection != nullptr) {
      projection.data = packed.take<R>(projection.elements());
      m = arena.take<R>(run.B * run.H);
    }
    inputs.take(arena, packed);
    run.take_masks(arena);
  }
  // STANDARD: tanh and sigmoid, no peepholes, no clip: known to the compiler.
  template <bool STANDARD>
  void steps(const Share &share) const {
    const cw_sequence &s = run.s;
    constexpr int L = kLanes<R>;
    const bool projected = s.projection != nullptr, peepholes = !STANDARD && s.peephole[0] != nullptr;
    const int64_t act = STANDARD ? int64_t(CW_TANH) : s.activation,
                  squash = STANDARD ? int64_t(CW_SIGMOID) : s.gate_activation;
    const R forget_bias = R(s.forget_bias), clip = R(s.cell_clip);
    const bool clipped = !STANDARD && s.cell_clip >= 0;
    const Part own = share.panels(gates), units = share.units(gates);
    const Part units_p = projected ? share.units(projection) : units;
    const int64_t b0 = share.rows.from, b1 = share.rows.to, H = run.H;
    const Part columns = share.columns(inputs.width);
    const R *pf = static_cast<const R *>(s.peephole[0]), *pi = static_cast<const R *>(s.peephole[1]),
            *po = static_cast<const R *>(s.peephole[2]);
    for (int64_t step = 0; step < run.T; ++step) {
      const int64_t at = run.at(step);
      run.draw(step, b0, b1, units_p, units);
      share.mask_operands(run, step);
      Operand<R> operands[kGates];
      const int count = inputs.operands(run, step, run.h_before(step), run.P, operands, kGates);
      const R *c_old = run.c_before(step);
      multiply(
          gates, own.from, own.to, operands, count, b0, b1,
          [&](int64_t b, int64_t u) {
            if (run.save || !inputs.inside)
              for (int g = kFirst; g < 4; ++g) __builtin_prefetch(run.gate(g, at, b, u), 1);
          },
          [&](int64_t b, int64_t u, int n, const R *z) {
            R *gi = run.gate(0, at, b, u), *gj = run.gate(1, at, b, u), *gf = run.gate(2, at, b, u),
              *go = run.gate(3, at, b, u);
            const Vec<R> c0 = load(c_old + b * H + u, n);
            const R *z1 = z + (1 - kFirst) * L;
            Vec<R> i = COUPLED ? zero<R>() : load(z) + inputs.base(0, gi, u, n),
                   j = load(z1) + inputs.base(1, gj, u, n), f = load(z1 + L) + inputs.base(2, gf, u, n) + forget_bias,
                   o = load(z1 + 2 * L) + inputs.base(3, go, u, n);
            if (peepholes && !COUPLED) i += load(pi + u, n) * c0;
            if (peepholes) f += load(pf + u, n) * c0;
            if (!COUPLED) i = activate<R>(squash, i);
            j = activate<R>(act, j), f = activate<R>(squash, f);
            if (COUPLED) i = R(1) - f;
            Vec<R> c = f * c0 + i * j;
            if (clipped) c = at_least<R>(at_most<R>(c, clip), -clip);
            if (peepholes) o += load(po + u, n) * c;
            o = activate<R>(squash, o);
            const Vec<R> h_new = o * activate<R>(act, c);
            if (run.save && !COUPLED) store(gi, i, n);
            if (run.save) store(gj, j, n), store(gf, f, n), store(go, o, n);
            run.finish_c(step, at, b, u, n, c);
            if (projected)
              store(m + b * H + u, h_new, n);
            else
              run.finish_h(step, at, b, u, n, h_new);
          });
      inputs.prepare(run, step + 1, b0, b1, columns);
      share.sync();
      if (projected) project(run, projection, m, step, share);
    }
  }
  void work(const Share &share) const {
    pack_forward<R, kFirst>(run, inputs, gates, projection, share);
    share.begin(run, inputs);
    if (!COUPLED && is_standard_lstm(run.s))
      steps<!COUPLED>(share);
    else
      steps<false>(share);
  }
};

template <class R, bool COUPLED = false>
struct LstmBackward {
  static constexpr int kFirst = COUPLED ? 1 : 0, kGates = 4 - kFirst;
  Run<R> run;
  Panels<R> to_h, to_m;  // from gates to the operand h; from the projected h to what was projected
  R *dh = nullptr, *dc = nullptr;

  explicit LstmBackward(const cw_sequence &s) : run(s) {
    init_to_h(run, to_h, kGates);
    to_m.init(run.s, run.H, run.P, 1);
  }
  void layout(Arena &arena, Arena &) {
    to_h.data = arena.take<R>(to_h.elements());
    if (run.s.projection != nullptr) to_m.data = arena.take<R>(to_m.elements());
    dh = arena.take<R>(run.B * run.P);
    dc = arena.take<R>(run.B * run.H);
    run.take_masks(arena);
  }
  // Gate gradients of row b's units from the gradient `dm` of o * act(c).
  template <bool STANDARD>
  CW_INLINE void gates_of(int64_t step, int64_t at, int64_t b, int64_t u, int n, Vec<R> dm) const {
    const cw_sequence &s = run.s;
    const Backward<R> back = {run, s};
    const int64_t act = STANDARD ? int64_t(CW_TANH) : s.activation,
                  squash = STANDARD ? int64_t(CW_SIGMOID) : s.gate_activation;
    const bool peepholes = !STANDARD && s.peephole[0] != nullptr;
    const int64_t index = b * run.H + u;
    R *gi = run.gate(0, at, b, u), *gj = run.gate(1, at, b, u), *gf = run.gate(2, at, b, u),
      *go = run.gate(3, at, b, u);
    Vec<R> d_c = back.of_state(step, b, index, n, load(dc + index, n), s.d_reset_c, s.d_c_states, run.H);
    if (!run.active(at, b)) {
      if (!COUPLED) store(gi, zero<R>(), n);
      store(gj, zero<R>(), n), store(gf, zero<R>(), n), store(go, zero<R>(), n);
      store(dc + index, d_c, n);
      if (s.proj_in != nullptr) store(static_cast<R *>(s.proj_in) + (at * run.B + b) * run.H + u, zero<R>(), n);
      return;
    }
    if (run.mask_c.any()) d_c = d_c * run.mask_c.at(b, u, n);
    Vec<R> d_old = zero<R>();
    if (run.zone_c.any()) d_old = back.part_of_old(run.zone_c, b, u, n, d_c);
    const Vec<R> j = load(gj, n), f = load(gf, n), o = load(go, n), i = COUPLED ? R(1) - f : load(gi, n);
    const Vec<R> c0 = load(run.c_before(step) + index, n);
    const Vec<R> raw = f * c0 + i * j;
    Vec<R> c = raw;
    if (!STANDARD && s.cell_clip >= 0) c = at_least<R>(at_most<R>(raw, R(s.cell_clip)), R(-s.cell_clip));
    const Vec<R> y = activate<R>(act, c);
    if (s.proj_in != nullptr) store(static_cast<R *>(s.proj_in) + (at * run.B + b) * run.H + u, o * y, n);
    const Vec<R> d_o = dm * y * slope<R>(squash, o);
    d_c = d_c + dm * o * slope<R>(act, y);
    if (peepholes) d_c += d_o * load(static_cast<const R *>(s.peephole[2]) + u, n);
    if (!STANDARD && s.cell_clip >= 0 && s.clip_passes == 0)
      d_c = select<R>((raw > R(s.cell_clip)) | (raw < R(-s.cell_clip)), zero<R>(), d_c);
    const Vec<R> d_j = d_c * i * slope<R>(act, j), d_f = d_c * (COUPLED ? c0 - j : c0) * slope<R>(squash, f);
    const Vec<R> d_i = COUPLED ? zero<R>() : d_c * j * slope<R>(squash, i);
    d_c = d_c * f;
    if (run.zone_c.any()) d_c += d_old;
    if (peepholes) {
      if (!COUPLED) d_c += d_i * load(static_cast<const R *>(s.peephole[1]) + u, n);
      d_c += d_f * load(static_cast<const R *>(s.peephole[0]) + u, n);
      R *sum = static_cast<R *>(s.d_peephole) + b * 3 * run.H + u;
      store(sum, load(sum, n) + d_f * c0, n);
      if (!COUPLED) store(sum + run.H, load(sum + run.H, n) + d_i * c0, n);
      store(sum + 2 * run.H, load(sum + 2 * run.H, n) + d_o * c, n);
    }
    if (!COUPLED) store(gi, d_i, n);
    store(gj, d_j, n), store(gf, d_f, n), store(go, d_o, n);
    store(dc + index, d_c, n);
  }
  template <bool STANDARD>
  void steps(const Share &share) const {
    const cw_sequence &s = run.s;
    constexpr int L = kLanes<R>;
    const Backward<R> back = {run, s};
    const bool projected = s.projection != nullptr;
    const Part units = share.units(to_h);  // of h
    const Part own_m = projected ? share.panels(to_m) : Part{0, 0}, units_m = projected ? share.units(to_m) : units;
    const int64_t b0 = share.rows.from, b1 = share.rows.to, P = run.P;
    for (int64_t step = run.T - 1; step >= 0; --step) {
      const int64_t at = run.at(step);
      run.draw(step, b0, b1, units, units_m);
      run.draw_gates(step, b0, b1, units);
      if (projected) {
        gradients_of_projected(run, step, units, share, dh);
        const Operand<R> rows = {static_cast<const R *>(s.d_proj) + at * run.B * P, P, P};
        multiply(
            to_m, own_m.from, own_m.to, &rows, 1, b0, b1, [](int64_t, int64_t) {},
            [&](int64_t b, int64_t u, int n, const R *z) { gates_of<STANDARD>(step, at, b, u, n, load(z)); });
      } else {
        for (int64_t b = b0; b < b1; ++b) {
          const bool active = run.active(at, b);
          for (int64_t u = units.from; u < units.to; u += L) {
            const int n = int(units.to - u < L ? units.to - u : L);
            gates_of<STANDARD>(step, at, b, u, n, back.of_new_h(step, at, b, u, n, dh, active));
          }
        }
      }
      share.sync();
      Operand<R> operands[kGates];
      for (int g = 0; g < kGates; ++g) operands[g] = run.gate_rows(kFirst + g, at);
      add_products(run, to_h, share.panels(to_h), operands, kFirst, kGates, step, share, dh);
    }
  }
  void work(const Share &share) const {
    pack_backward<R, kFirst>(run, to_h, to_m, share);
    share.draw_shared(run);
    if (share.id == 0) start_gradients(run, dh, dc);
    share.barrier.wait();
    if (!COUPLED && is_standard_lstm(run.s))
      steps<!COUPLED>(share);
    else
      steps<false>(share);
    share.barrier.wait();
    if (share.id == 0) give_first_gradients(run, dh, dc);
  }
};
