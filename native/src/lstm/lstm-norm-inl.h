// The long short-term memory with layer normalization: forward and backward time loops. Equations:
// src/cellweave/ops/lstm/README.md. Included once per instruction set, inside its namespace: no include guard.

// COUPLED: the input gate is 1 - f, and has no weights. It is rare enough to do without rows of known functions.
template <class R, bool COUPLED>
struct LstmNormForward {
  static constexpr int kFirst = COUPLED ? 1 : 0, kGates = 4 - kFirst;
  Run<R> run;
  Inputs<R> inputs;
  Norms<R> norms;
  Panels<R> gates, projection;
  R *m = nullptr;      // [B, H] what is projected
  R *sums = nullptr;   // [4, B, H] gates, where they have no buffer
  R *cells = nullptr;  // [threads, H] a row's c before its normalization

  explicit LstmNormForward(const cw_sequence &s) : run(s), inputs(s, 4, kFirst), norms(s, 5, 6) {
    gates.init(run.s, run.H, inputs.width + run.P, kGates, run.by_gate);
    projection.init(run.s, run.P, run.H, 1);
  }
  void layout(Arena &arena, Arena &packed) {
    gates.data = packed.take<R>(gates.elements());
    if (run.s.projection != nullptr) {
      projection.data = packed.take<R>(projection.elements());
      m = arena.take<R>(run.B * run.H);
    }
    if (inputs.inside && !run.save) sums = arena.take<R>(4 * run.B * run.H);
    cells = arena.take<R>(run.s.threads * run.H);
    inputs.take(arena, packed);
    run.take_masks(arena);
  }
  CW_INLINE R *gate(int g, int64_t at, int64_t b, int64_t u) const {
    return sums == nullptr ? run.gate(g, at, b, u) : sums + (g * run.B + b) * run.H + u;
  }
  CW_INLINE void finish(int64_t step, int64_t at, int64_t b, int64_t u, int n, Vec<R> h) const {
    if (m != nullptr)
      store(m + b * run.H + u, h, n);
    else
      run.finish_h(step, at, b, u, n, h);
  }
  // Row b from the sums of its gates to its new c and h.
  template <bool STANDARD>
  void row(int64_t step, int64_t at, int64_t b, R *cell) const {
    const cw_sequence &s = run.s;
    constexpr int L = kLanes<R>;
    const int64_t H = run.H;
    if (!run.active(at, b)) {
      for (int64_t u = 0; u < H; u += L) {
        run.finish_c(step, at, b, u, lanes_from<R>(u, H), zero<R>());
        finish(step, at, b, u, lanes_from<R>(u, H), zero<R>());
      }
      return;
    }
    const bool peepholes = !STANDARD && s.peephole[0] != nullptr;
    const auto act = [&](Vec<R> x) { return STANDARD ? tanh_of<R>(x) : activate_apart<R>(s.activation, x); };
    const auto squash = [&](Vec<R> x) { return STANDARD ? sigmoid_of<R>(x) : activate_apart<R>(s.gate_activation, x); };
    const R *pf = static_cast<const R *>(s.peephole[0]), *pi = static_cast<const R *>(s.peephole[1]),
            *po = static_cast<const R *>(s.peephole[2]), *c_old = run.c_before(step) + b * H;
    const R forget_bias = R(s.forget_bias), clip = R(s.cell_clip);
    R *z[4];
    for (int g = 0; g < 4; ++g) z[g] = gate(g, at, b, 0);
    Moments<R> of[5];
    moments_of<R, kGates>(z + kFirst, H, norms.epsilon(), of + kFirst);
    for (int64_t u = 0; u < H; u += L) {
      const int n = lanes_from<R>(u, H);
      Vec<R> unit[4];
      for (int g = kFirst; g < 4; ++g) {
        unit[g] = (load(z[g] + u, n) - of[g].mean) * of[g].inverse;
        if (run.save || g == 3) store(z[g] + u, unit[g], n);
      }
      const Vec<R> c0 = load(c_old + u, n);
      Vec<R> i = COUPLED ? zero<R>() : norms.scaled(0, unit[0], u, n), f = norms.scaled(2, unit[2], u, n) + forget_bias;
      if (peepholes && !COUPLED) i += load(pi + u, n) * c0;
      if (peepholes) f += load(pf + u, n) * c0;
      f = squash(f);
      i = COUPLED ? R(1) - f : squash(i);
      store(cell + u, f * c0 + i * act(norms.scaled(1, unit[1], u, n)), n);
    }
    moments_of<R, 1>(&cell, H, norms.epsilon(), of + 4);
    for (int64_t u = 0; u < H; u += L) {
      const int n = lanes_from<R>(u, H);
      Vec<R> c = norms.scaled(4, (load(cell + u, n) - of[4].mean) * of[4].inverse, u, n);
      if (!STANDARD && s.cell_clip >= 0) c = at_least<R>(at_most<R>(c, clip), -clip);
      Vec<R> o = norms.scaled(3, load(z[3] + u, n), u, n);
      if (peepholes) o += load(po + u, n) * c;
      run.finish_c(step, at, b, u, n, c);
      finish(step, at, b, u, n, squash(o) * act(c));
    }
    if (!run.save) return;
    R *kept = norms.kept_of(at, b);
    kept[0] = 0;
    for (int k = kFirst; k < 5; ++k) kept[k] = of[k].inverse;
    kept[5] = of[4].mean;
  }
  void steps(const Share &share) const {
    const cw_sequence &s = run.s;
    constexpr int L = kLanes<R>;
    const bool standard = !COUPLED && is_standard_lstm(s), projected = s.projection != nullptr;
    const Part none = {0, 0}, own = share.panels(gates), rows = share.single_rows(run.B);
    const Part units_p = projected ? share.units(projection) : none;
    const int64_t b0 = share.rows.from, b1 = share.rows.to, H = run.H;
    const Part columns = share.columns(inputs.width);
    for (int64_t step = 0; step < run.T; ++step) {
      const int64_t at = run.at(step);
      run.draw(step, b0, b1, units_p, none);
      run.draw(step, rows.from, rows.to, projected ? none : Part{0, run.P}, {0, H});
      share.mask_operands(run, step);
      Operand<R> operands[kGates];
      const int count = inputs.operands(run, step, run.h_before(step), run.P, operands, kGates);
      multiply(
          gates, own.from, own.to, operands, count, b0, b1,
          [&](int64_t b, int64_t u) {
            for (int g = kFirst; g < 4; ++g) __builtin_prefetch(gate(g, at, b, u), 1);
          },
          [&](int64_t b, int64_t u, int n, const R *z) {
            for (int g = kFirst; g < 4; ++g) {
              R *to = gate(g, at, b, u);
              store(to, load(z + (g - kFirst) * L) + inputs.base(g, to, u, n), n);
            }
          });
      inputs.prepare(run, step + 1, b0, b1, columns);
      share.sync();
      for (int64_t b = rows.from; b < rows.to; ++b)
        standard ? row<!COUPLED>(step, at, b, cells + share.id * H) : row<false>(step, at, b, cells + share.id * H);
      share.sync();
      if (projected) project(run, projection, m, step, share);
    }
  }
  void work(const Share &share) const {
    pack_forward<R, kFirst>(run, inputs, gates, projection, share);
    share.begin(run, inputs);
    steps(share);
  }
};

template <class R, bool COUPLED>
struct LstmNormBackward {
  static constexpr int kFirst = COUPLED ? 1 : 0, kGates = 4 - kFirst;
  Run<R> run;
  Norms<R> norms;
  Panels<R> to_h, to_m;  // from gates to the operand h; from the projected h to what was projected
  R *dh = nullptr, *dc = nullptr, *dm = nullptr;
  R *rows = nullptr;  // [threads, 7, H] what a row hands from one pass over its units to the next

  explicit LstmNormBackward(const cw_sequence &s) : run(s), norms(s, 5, 6) {
    init_to_h(run, to_h, kGates);
    to_m.init(run.s, run.H, run.P, 1);
  }
  void layout(Arena &arena, Arena &) {
    to_h.data = arena.take<R>(to_h.elements());
    if (run.s.projection != nullptr) {
      to_m.data = arena.take<R>(to_m.elements());
      dm = arena.take<R>(run.B * run.H);
    }
    dh = arena.take<R>(run.B * run.P);
    dc = arena.take<R>(run.B * run.H);
    rows = arena.take<R>(run.s.threads * 7 * run.H);
    run.take_masks(arena);
  }
  // The gradient of o * act(c), which is h or what was projected.
  CW_INLINE Vec<R> of_m(int64_t step, int64_t at, int64_t b, int64_t u, int n, bool active) const {
    if (dm != nullptr) return load(dm + b * run.H + u, n);
    return Backward<R>{run, run.s}.of_new_h(step, at, b, u, n, dh, active);
  }
  void inactive_row(int64_t step, int64_t at, int64_t b) const {
    const cw_sequence &s = run.s;
    const Backward<R> back = {run, s};
    for (int64_t u = 0; u < run.H; u += kLanes<R>) {
      const int n = lanes_from<R>(u, run.H);
      const int64_t index = b * run.H + u;
      of_m(step, at, b, u, n, false);
      store(dc + index, back.of_state(step, b, index, n, load(dc + index, n), s.d_reset_c, s.d_c_states, run.H), n);
      for (int g = kFirst; g < 4; ++g) store(run.gate(g, at, b, u), zero<R>(), n);
      if (s.proj_in != nullptr) store(static_cast<R *>(s.proj_in) + at * run.B * run.H + index, zero<R>(), n);
    }
  }
  // Row b from gradients of its new states to those of its gates' sums. The gates hold normalized values.
  template <bool STANDARD>
  void row(int64_t step, int64_t at, int64_t b, R *temporary) const {
    const cw_sequence &s = run.s;
    constexpr int L = kLanes<R>;
    const Backward<R> back = {run, s};
    const int64_t H = run.H;
    const auto act = [&](Vec<R> x) { return STANDARD ? tanh_of<R>(x) : activate_apart<R>(s.activation, x); };
    const auto squash = [&](Vec<R> x) { return STANDARD ? sigmoid_of<R>(x) : activate_apart<R>(s.gate_activation, x); };
    const auto act_slope = [&](Vec<R> y) { return STANDARD ? slope<R>(CW_TANH, y) : slope_apart<R>(s.activation, y); };
    const auto squash_slope = [&](Vec<R> y) {
      return STANDARD ? slope<R>(CW_SIGMOID, y) : slope_apart<R>(s.gate_activation, y);
    };
    const bool peepholes = !STANDARD && s.peephole[0] != nullptr, clipped = !STANDARD && s.cell_clip >= 0;
    const R *pf = static_cast<const R *>(s.peephole[0]), *pi = static_cast<const R *>(s.peephole[1]),
            *po = static_cast<const R *>(s.peephole[2]), *c_old = run.c_before(step) + b * H;
    const R *kept = norms.kept_of(at, b);
    const R forget_bias = R(s.forget_bias), clip = R(s.cell_clip), mean_c = kept[5], inverse_c = kept[4];
    R *z[4], *d_peephole = static_cast<R *>(s.d_peephole) + b * 3 * H;
    for (int g = 0; g < 4; ++g) z[g] = run.gate(g, at, b, 0);
    // The activated i, j, f; then, in their places, gradients; beside them those of o and c, the normalized c, and what
    // zoneout passes to the old c.
    R *const row_i = temporary, *const row_j = row_i + H, *const row_f = row_j + H, *const row_o = row_f + H,
             *const row_dc = row_o + H, *const row_c = row_dc + H, *const row_old = row_c + H;
    BackNorm<R> of_i, of_j, of_f, of_o, of_c;
    for (int64_t u = 0; u < H; u += L) {
      const int n = lanes_from<R>(u, H);
      const int64_t index = b * H + u;
      const Vec<R> c0 = load(c_old + u, n), unit_o = load(z[3] + u, n);
      Vec<R> i = COUPLED ? zero<R>() : norms.scaled(0, load(z[0] + u, n), u, n);
      Vec<R> f = norms.scaled(2, load(z[2] + u, n), u, n) + forget_bias;
      if (peepholes && !COUPLED) i += load(pi + u, n) * c0;
      if (peepholes) f += load(pf + u, n) * c0;
      const Vec<R> j = act(norms.scaled(1, load(z[1] + u, n), u, n));
      f = squash(f);
      i = COUPLED ? R(1) - f : squash(i);
      const Vec<R> unit_c = (f * c0 + i * j - mean_c) * inverse_c, raw = norms.scaled(4, unit_c, u, n);
      const Vec<R> c = clipped ? at_least<R>(at_most<R>(raw, clip), -clip) : raw, y = act(c);
      Vec<R> o = norms.scaled(3, unit_o, u, n);
      if (peepholes) o += load(po + u, n) * c;
      o = squash(o);
      if (s.proj_in != nullptr) store(static_cast<R *>(s.proj_in) + at * run.B * H + index, o * y, n);
      const Vec<R> d_m = of_m(step, at, b, u, n, true), d_o = d_m * y * squash_slope(o);
      Vec<R> d_c = back.of_state(step, b, index, n, load(dc + index, n), s.d_reset_c, s.d_c_states, run.H);
      if (run.mask_c.any()) d_c = d_c * run.mask_c.at(b, u, n);
      if (run.zone_c.any()) store(row_old + u, back.part_of_old(run.zone_c, b, u, n, d_c), n);
      d_c += d_m * o * act_slope(y);
      if (peepholes) {
        d_c += d_o * load(po + u, n);
        store(d_peephole + 2 * H + u, load(d_peephole + 2 * H + u, n) + d_o * c, n);
      }
      if (clipped && s.clip_passes == 0) d_c = select<R>((raw > clip) | (raw < -clip), zero<R>(), d_c);
      const Vec<R> d_unit_o = norms.back(3, b, u, n, d_o, unit_o), d_unit_c = norms.back(4, b, u, n, d_c, unit_c);
      of_o.add(d_unit_o, unit_o), of_c.add(d_unit_c, unit_c);
      store(row_i + u, i, n), store(row_j + u, j, n), store(row_f + u, f, n);
      store(row_o + u, d_unit_o, n), store(row_dc + u, d_unit_c, n), store(row_c + u, unit_c, n);
    }
    of_o.finish(kept[3], H), of_c.finish(inverse_c, H);
    for (int64_t u = 0; u < H; u += L) {
      const int n = lanes_from<R>(u, H);
      const Vec<R> c0 = load(c_old + u, n), i = load(row_i + u, n), j = load(row_j + u, n), f = load(row_f + u, n);
      Vec<R> d_c = of_c.of(load(row_dc + u, n), load(row_c + u, n));
      const Vec<R> d_i = COUPLED ? zero<R>() : d_c * j * squash_slope(i), d_j = d_c * i * act_slope(j),
                   d_f = d_c * (COUPLED ? c0 - j : c0) * squash_slope(f);
      d_c = d_c * f;
      if (run.zone_c.any()) d_c += load(row_old + u, n);
      if (peepholes) {
        if (!COUPLED) {
          d_c += d_i * load(pi + u, n);
          store(d_peephole + H + u, load(d_peephole + H + u, n) + d_i * c0, n);
        }
        d_c += d_f * load(pf + u, n);
        store(d_peephole + u, load(d_peephole + u, n) + d_f * c0, n);
      }
      store(dc + b * H + u, d_c, n);
      const Vec<R> unit_j = load(z[1] + u, n), unit_f = load(z[2] + u, n);
      const Vec<R> d_unit_j = norms.back(1, b, u, n, d_j, unit_j), d_unit_f = norms.back(2, b, u, n, d_f, unit_f);
      of_j.add(d_unit_j, unit_j), of_f.add(d_unit_f, unit_f);
      store(row_j + u, d_unit_j, n), store(row_f + u, d_unit_f, n);
      if (COUPLED) continue;
      const Vec<R> unit_i = load(z[0] + u, n), d_unit_i = norms.back(0, b, u, n, d_i, unit_i);
      of_i.add(d_unit_i, unit_i);
      store(row_i + u, d_unit_i, n);
    }
    of_i.finish(kept[0], H), of_j.finish(kept[1], H), of_f.finish(kept[2], H);
    for (int64_t u = 0; u < H; u += L) {
      const int n = lanes_from<R>(u, H);
      if (!COUPLED) store(z[0] + u, of_i.of(load(row_i + u, n), load(z[0] + u, n)), n);
      store(z[1] + u, of_j.of(load(row_j + u, n), load(z[1] + u, n)), n);
      store(z[2] + u, of_f.of(load(row_f + u, n), load(z[2] + u, n)), n);
      store(z[3] + u, of_o.of(load(row_o + u, n), load(z[3] + u, n)), n);
    }
  }
  // With projection: gradients of the projected h for the thread's own units of it, then those of what was projected.
  void unproject(const Share &share, int64_t step, int64_t at, Part units, Part own_m) const {
    const int64_t b0 = share.rows.from, b1 = share.rows.to, P = run.P;
    gradients_of_projected(run, step, units, share, dh);
    const Operand<R> projected = {static_cast<const R *>(run.s.d_proj) + at * run.B * P, P, P};
    multiply(
        to_m, own_m.from, own_m.to, &projected, 1, b0, b1, [](int64_t, int64_t) {},
        [&](int64_t b, int64_t u, int n, const R *z) { store(dm + b * run.H + u, load(z), n); });
    share.sync();
  }
  void steps(const Share &share) const {
    const cw_sequence &s = run.s;
    const bool standard = !COUPLED && is_standard_lstm(s), projected = s.projection != nullptr;
    const Part none = {0, 0}, units = share.units(to_h), mine = share.single_rows(run.B);
    const Part own_m = projected ? share.panels(to_m) : none;
    const int64_t b0 = share.rows.from, b1 = share.rows.to, P = run.P;
    for (int64_t step = run.T - 1; step >= 0; --step) {
      const int64_t at = run.at(step);
      run.draw(step, b0, b1, projected ? units : none, none);
      run.draw(step, mine.from, mine.to, projected ? none : Part{0, P}, {0, run.H});
      run.draw_gates(step, b0, b1, units);
      if (projected) unproject(share, step, at, units, own_m);
      R *temporary = rows + share.id * 7 * run.H;
      for (int64_t b = mine.from; b < mine.to; ++b) {
        if (!run.active(at, b))
          inactive_row(step, at, b);
        else
          standard ? row<!COUPLED>(step, at, b, temporary) : row<false>(step, at, b, temporary);
      }
      share.sync();
      Operand<R> operands[kGates];
      for (int g = 0; g < kGates; ++g) operands[g] = run.gate_rows(kFirst + g, at);
      add_products(run, to_h, share.panels(to_h), operands, kFirst, kGates, step, share, dh);
      if (!projected) share.sync();  // rows read what other threads' units left in dh
    }
  }
  void work(const Share &share) const {
    pack_backward<R, kFirst>(run, to_h, to_m, share);
    share.draw_shared(run);
    if (share.id == 0) {
      start_gradients(run, dh, dc);
      norms.clear();
    }
    share.barrier.wait();
    steps(share);
    share.barrier.wait();
    if (share.id == 0) give_first_gradients(run, dh, dc);
  }
};
