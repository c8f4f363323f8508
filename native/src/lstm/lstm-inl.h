// The long short-term memory: forward and backward time loops. Equations: src/cellweave/ops/lstm/README.md.
// Included once per instruction set, inside its namespace: no include guard.

template <class R>
struct LstmForward {
  Run<R> run;
  Inputs<R> inputs;
  Panels<R> gates, projection;
  R *m = nullptr;  // [B, H] what is projected

  explicit LstmForward(const cw_sequence &s) : run(s), inputs(s, 4) {
    gates.init(run.H, inputs.width + run.P, 4);
    projection.init(run.P, run.H, 1);
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
    const int64_t act = STANDARD ? int64_t(CW_TANH) : s.activation, squash = STANDARD ? int64_t(CW_SIGMOID) : s.gate_activation;
    const R forget_bias = R(s.forget_bias), clip = R(s.cell_clip);
    const bool clipped = !STANDARD && s.cell_clip >= 0;
    const Part own = share.panels(gates), units = share.units(gates);
    const Part own_p = projected ? share.panels(projection) : own, units_p = projected ? share.units(projection) : units;
    const int64_t b0 = share.rows.from, b1 = share.rows.to, H = run.H;
    const Part columns = share.columns(inputs.width);
    const R *pf = static_cast<const R *>(s.peephole[0]), *pi = static_cast<const R *>(s.peephole[1]),
            *po = static_cast<const R *>(s.peephole[2]);
    for (int64_t step = 0; step < run.T; ++step) {
      const int64_t at = run.at(step);
      run.draw(step, b0, b1, units_p, units);
      Operand<R> operands[2];
      const int count = inputs.operands(run, step, run.h_before(step), run.P, operands);
      const R *c_old = run.c_before(step);
      multiply(
          gates, own.from, own.to, operands, count, b0, b1,
          [&](int64_t b, int64_t u) {
            if (run.save || !inputs.inside)
              for (int g = 0; g < 4; ++g) __builtin_prefetch(run.gate(g, at, b, u), 1);
          },
          [&](int64_t b, int64_t u, int n, const R *z) {
            R *gi = run.gate(0, at, b, u), *gj = run.gate(1, at, b, u), *gf = run.gate(2, at, b, u),
              *go = run.gate(3, at, b, u);
            const Vec<R> c0 = load(c_old + b * H + u, n);
            Vec<R> i = load(z) + inputs.base(0, gi, u, n), j = load(z + L) + inputs.base(1, gj, u, n),
                   f = load(z + 2 * L) + inputs.base(2, gf, u, n) + forget_bias, o = load(z + 3 * L) + inputs.base(3, go, u, n);
            if (peepholes) i += load(pi + u, n) * c0, f += load(pf + u, n) * c0;
            i = activate<R>(squash, i), j = activate<R>(act, j), f = activate<R>(squash, f);
            Vec<R> c = f * c0 + i * j;
            if (clipped) c = at_least<R>(at_most<R>(c, clip), -clip);
            if (peepholes) o += load(po + u, n) * c;
            o = activate<R>(squash, o);
            const Vec<R> h_new = o * activate<R>(act, c);
            if (run.save) store(gi, i, n), store(gj, j, n), store(gf, f, n), store(go, o, n);
            run.finish_c(step, at, b, u, n, c);
            if (projected)
              store(m + b * H + u, h_new, n);
            else
              run.finish_h(step, at, b, u, n, h_new);
          });
      inputs.prepare(run, step + 1, b0, b1, columns);
      share.sync();
      if (!projected) continue;
      const Operand<R> rows = {m, H, H};
      const R bound = R(s.proj_clip);
      multiply(
          projection, own_p.from, own_p.to, &rows, 1, b0, b1, [](int64_t, int64_t) {},
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
  }
  void work(const Share &share) const {
    const cw_sequence &s = run.s;
    Matrix<R> weights[8];
    int64_t depths[2];
    const int parts = inputs.weights(0, 4, run.P, weights, depths);
    share.pack_own(gates, weights, depths, parts);
    if (s.projection != nullptr) {
      const Matrix<R> p = projection_weights<R>(s);
      share.pack_own(projection, &p, &run.H, 1);
    }
    share.begin(run, inputs);
    if (s.activation == CW_TANH && s.gate_activation == CW_SIGMOID && s.peephole[0] == nullptr && s.cell_clip < 0)
      steps<true>(share);
    else
      steps<false>(share);
  }
};

template <class R>
struct LstmBackward {
  Run<R> run;
  Panels<R> to_h, to_m;  // from gates to the operand h; from the projected h to what was projected
  R *dh = nullptr, *dc = nullptr;

  explicit LstmBackward(const cw_sequence &s) : run(s) {
    to_h.init(run.P, 4 * run.H, 1);
    to_m.init(run.H, run.P, 1);
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
    const int64_t act = STANDARD ? int64_t(CW_TANH) : s.activation, squash = STANDARD ? int64_t(CW_SIGMOID) : s.gate_activation;
    const bool peepholes = !STANDARD && s.peephole[0] != nullptr;
    const int64_t index = b * run.H + u;
    R *gi = run.gate(0, at, b, u), *gj = run.gate(1, at, b, u), *gf = run.gate(2, at, b, u), *go = run.gate(3, at, b, u);
    Vec<R> d_c = back.of_state(step, b, index, n, load(dc + index, n), s.d_reset_c, s.d_c_states, run.H);
    if (!run.active(at, b)) {
      store(gi, zero<R>(), n), store(gj, zero<R>(), n), store(gf, zero<R>(), n), store(go, zero<R>(), n);
      store(dc + index, d_c, n);
      if (s.proj_in != nullptr) store(static_cast<R *>(s.proj_in) + (at * run.B + b) * run.H + u, zero<R>(), n);
      return;
    }
    if (run.mask_c.any()) d_c = d_c * run.mask_c.at(b, u, n);
    Vec<R> d_old = zero<R>();
    if (run.zone_c.any()) d_old = back.part_of_old(run.zone_c, b, u, n, d_c);
    const Vec<R> i = load(gi, n), j = load(gj, n), f = load(gf, n), o = load(go, n);
    const Vec<R> c0 = load(run.c_before(step) + index, n);
    const Vec<R> raw = f * c0 + i * j;
    Vec<R> c = raw;
    if (!STANDARD && s.cell_clip >= 0) c = at_least<R>(at_most<R>(raw, R(s.cell_clip)), R(-s.cell_clip));
    const Vec<R> y = activate<R>(act, c);
    if (s.proj_in != nullptr) store(static_cast<R *>(s.proj_in) + (at * run.B + b) * run.H + u, o * y, n);
    const Vec<R> d_o = dm * y * slope<R>(squash, o);
    d_c = d_c + dm * o * slope<R>(act, y);
    if (peepholes) d_c += d_o * load(static_cast<const R *>(s.peephole[2]) + u, n);
    if (!STANDARD && s.cell_clip >= 0) d_c = select<R>((raw > R(s.cell_clip)) | (raw < R(-s.cell_clip)), zero<R>(), d_c);
    const Vec<R> d_i = d_c * j * slope<R>(squash, i), d_j = d_c * i * slope<R>(act, j), d_f = d_c * c0 * slope<R>(squash, f);
    d_c = d_c * f;
    if (run.zone_c.any()) d_c += d_old;
    if (peepholes) {
      d_c += d_i * load(static_cast<const R *>(s.peephole[1]) + u, n) + d_f * load(static_cast<const R *>(s.peephole[0]) + u, n);
      R *sum = static_cast<R *>(s.d_peephole) + b * 3 * run.H + u;
      store(sum, load(sum, n) + d_f * c0, n);
      store(sum + run.H, load(sum + run.H, n) + d_i * c0, n);
      store(sum + 2 * run.H, load(sum + 2 * run.H, n) + d_o * c, n);
    }
    store(gi, d_i, n), store(gj, d_j, n), store(gf, d_f, n), store(go, d_o, n);
    store(dc + index, d_c, n);
  }
  template <bool STANDARD>
  void steps(const Share &share) const {
    const cw_sequence &s = run.s;
    constexpr int L = kLanes<R>;
    const Backward<R> back = {run, s};
    const bool projected = s.projection != nullptr;
    const Part own = share.panels(to_h), units = share.units(to_h);  // of h
    const Part own_m = projected ? share.panels(to_m) : own, units_m = projected ? share.units(to_m) : units;
    const int64_t b0 = share.rows.from, b1 = share.rows.to, P = run.P;
    R *d_proj = static_cast<R *>(s.d_proj);
    const R *proj_raw = s.proj_clip >= 0 ? static_cast<const R *>(s.proj_raw) : nullptr;
    const R bound = R(s.proj_clip);
    for (int64_t step = run.T - 1; step >= 0; --step) {
      const int64_t at = run.at(step);
      run.draw(step, b0, b1, units, units_m);
      for (int64_t b = b0; b < b1; ++b) {
        const bool active = run.active(at, b);
        for (int64_t u = units.from; u < units.to; u += L) {
          const int n = int(units.to - u < L ? units.to - u : L);
          const int64_t index = b * P + u;
          Vec<R> d = back.of_state(step, b, index, n, load(dh + index, n), s.d_reset_h, s.d_h_states, P);
          store(dh + index, active ? zero<R>() : d, n);
          d = active ? back.of_h(at, b, u, n, d) : zero<R>();
          if (active && run.zone_h.any()) store(dh + index, back.part_of_old(run.zone_h, b, u, n, d), n);
          if (!projected) {
            gates_of<STANDARD>(step, at, b, u, n, d);
            continue;
          }
          if (proj_raw != nullptr) {
            const Vec<R> raw = load(proj_raw + at * run.B * P + index, n);
            d = select<R>((raw > bound) | (raw < -bound), zero<R>(), d);
          }
          store(d_proj + at * run.B * P + index, d, n);
        }
      }
      share.sync();
      if (projected) {
        const Operand<R> rows = {d_proj + at * run.B * P, P, P};
        multiply(to_m, own_m.from, own_m.to, &rows, 1, b0, b1, [](int64_t, int64_t) {},
                 [&](int64_t b, int64_t u, int n, const R *z) { gates_of<STANDARD>(step, at, b, u, n, load(z)); });
        share.sync();
      }
      Operand<R> operands[4];
      for (int g = 0; g < 4; ++g) operands[g] = run.gate_rows(g, at);
      multiply(to_h, own.from, own.to, operands, 4, b0, b1, [](int64_t, int64_t) {},
               [&](int64_t b, int64_t u, int n, const R *z) {
                 store(dh + b * P + u, load(dh + b * P + u, n) + load(z), n);
               });
    }
  }
  void work(const Share &share) const {
    const cw_sequence &s = run.s;
    Matrix<R> weights[4];
    int64_t depths[4];
    for (int g = 0; g < 4; ++g) weights[g] = recurrent_weights<R>(s, g).transposed(), depths[g] = run.H;
    share.pack_own(to_h, weights, depths, 4);
    if (s.projection != nullptr) {
      const Matrix<R> p = projection_weights<R>(s).transposed();
      share.pack_own(to_m, &p, &run.P, 1);
    }
    share.draw_shared(run);
    if (share.id == 0) {
      copy_or_zero(dh, s.d_h_last, run.B * run.P);
      copy_or_zero(dc, s.d_c_last, run.B * run.H);
      copy_or_zero(static_cast<R *>(s.d_reset_h), nullptr, run.B * run.P);
      copy_or_zero(static_cast<R *>(s.d_reset_c), nullptr, run.B * run.H);
      copy_or_zero(static_cast<R *>(s.d_peephole), nullptr, run.B * 3 * run.H);
    }
    share.barrier.wait();
    if (s.activation == CW_TANH && s.gate_activation == CW_SIGMOID && s.peephole[0] == nullptr && s.cell_clip < 0)
      steps<true>(share);
    else
      steps<false>(share);
    share.barrier.wait();
    if (share.id == 0) {
      copy_or_zero(static_cast<R *>(s.d_h0), dh, run.B * run.P);
      copy_or_zero(static_cast<R *>(s.d_c0), dc, run.B * run.H);
    }
  }
};
