// The gated recurrent unit with layer normalization, in both forms: forward and backward time loops. Equations:
// src/cellweave/ops/gru/README.md. Included once per instruction set, inside its namespace: no include guard.

// What is left of a step once u and the candidate are known, and for rows past their end.
template <class R>
CW_INLINE void finish_gru(const Run<R> &run, int64_t step, int64_t at, int64_t b, int64_t u, int n, Vec<R> keep,
                          Vec<R> c) {
  run.finish_h(step, at, b, u, n, keep * load(run.h_before(step) + b * run.H + u, n) + (R(1) - keep) * c);
}
template <class R>
void pass_row(const Run<R> &run, int64_t step, int64_t at, int64_t b) {
  for (int64_t u = 0; u < run.H; u += kLanes<R>) run.finish_h(step, at, b, u, lanes_from<R>(u, run.H), zero<R>());
}

// Reset before the product: gates r and u, then the candidate of r * h.
template <class R>
struct GruBeforeNormForward {
  Run<R> run;
  Inputs<R> inputs;
  Norms<R> norms;
  Panels<R> gates, candidate;
  R *rh = nullptr, *keep = nullptr;  // [B, H] r * h and u
  R *sums = nullptr;                 // [3, B, H] gates, where they have no buffer

  explicit GruBeforeNormForward(const cw_sequence &s) : run(s), inputs(s, 3), norms(s, 3, 3) {
    gates.init(run.s, run.H, inputs.width + run.H, 2, run.by_gate);
    candidate.init(run.s, run.H, inputs.width + run.H, 1);
  }
  void layout(Arena &arena, Arena &packed) {
    gates.data = packed.take<R>(gates.elements());
    candidate.data = packed.take<R>(candidate.elements());
    rh = arena.take<R>(run.B * run.H);
    keep = arena.take<R>(run.B * run.H);
    if (inputs.inside && !run.save) sums = arena.take<R>(3 * run.B * run.H);
    inputs.take(arena, packed);
    run.take_masks(arena);
  }
  CW_INLINE R *gate(int g, int64_t at, int64_t b, int64_t u) const {
    return sums == nullptr ? run.gate(g, at, b, u) : sums + (g * run.B + b) * run.H + u;
  }
  CW_INLINE Vec<R> unit_of(int g, R *z, int64_t u, int n, const Moments<R> &of) const {
    const Vec<R> unit = (load(z + u, n) - of.mean) * of.inverse;
    if (run.save) store(z + u, unit, n);
    return norms.scaled(g, unit, u, n);
  }
  void gates_row(int64_t step, int64_t at, int64_t b) const {
    const int64_t H = run.H;
    const R *h = run.h_before(step) + b * H;
    R *z[2] = {gate(0, at, b, 0), gate(1, at, b, 0)};
    Moments<R> of[2] = {};
    const bool active = run.active(at, b);
    if (active) moments_of<R, 2>(z, H, norms.epsilon(), of);
    for (int64_t u = 0; u < H; u += kLanes<R>) {
      const int n = lanes_from<R>(u, H);
      if (!active) {
        store(rh + b * H + u, zero<R>(), n);
        continue;
      }
      const Vec<R> r = activate<R>(run.s.gate_activation, unit_of(0, z[0], u, n, of[0]));
      store(keep + b * H + u, activate<R>(run.s.gate_activation, unit_of(1, z[1], u, n, of[1])), n);
      store(rh + b * H + u, run.for_gate(2, b, u, n, r * load(h + u, n)), n);
    }
    if (active && run.save) norms.kept_of(at, b)[0] = of[0].inverse, norms.kept_of(at, b)[1] = of[1].inverse;
  }
  void candidate_row(int64_t step, int64_t at, int64_t b) const {
    const int64_t H = run.H;
    if (!run.active(at, b)) return pass_row(run, step, at, b);
    R *z = gate(2, at, b, 0);
    Moments<R> of;
    moments_of<R, 1>(&z, H, norms.epsilon(), &of);
    for (int64_t u = 0; u < H; u += kLanes<R>) {
      const int n = lanes_from<R>(u, H);
      const Vec<R> c = activate<R>(run.s.activation, unit_of(2, z, u, n, of));
      finish_gru(run, step, at, b, u, n, load(keep + b * H + u, n), c);
    }
    if (run.save) norms.kept_of(at, b)[2] = of.inverse;
  }
  void work(const Share &share) const {
    constexpr int L = kLanes<R>;
    Matrix<R> w[4];
    int64_t depths[2];
    int parts = inputs.weights(0, 2, run.H, w, depths);
    share.pack_own(gates, w, depths, parts);
    parts = inputs.weights(2, 1, run.H, w, depths);
    share.pack_own(candidate, w, depths, parts);
    const int64_t b0 = share.rows.from, b1 = share.rows.to, H = run.H;
    const Part own = share.panels(candidate), own_gates = share.panels(gates), rows = share.single_rows(run.B);
    const Part columns = share.columns(inputs.width);
    share.begin(run, inputs);
    for (int64_t step = 0; step < run.T; ++step) {
      const int64_t at = run.at(step);
      run.draw(step, rows.from, rows.to, {0, H}, {0, 0});
      share.mask_operands(run, step);
      Operand<R> operands[2];
      int count = inputs.operands(run, step, run.h_before(step), H, operands, 2);
      multiply(
          gates, own_gates.from, own_gates.to, operands, count, b0, b1,
          [&](int64_t b, int64_t u) {
            for (int g = 0; g < 2; ++g) __builtin_prefetch(gate(g, at, b, u), 1);
          },
          [&](int64_t b, int64_t u, int n, const R *z) {
            for (int g = 0; g < 2; ++g) {
              R *to = gate(g, at, b, u);
              store(to, load(z + g * L) + inputs.base(g, to, u, n), n);
            }
          });
      share.sync();
      for (int64_t b = rows.from; b < rows.to; ++b) gates_row(step, at, b);
      share.sync();
      count = inputs.operands(run, step, rh, H, operands);
      multiply(
          candidate, own.from, own.to, operands, count, b0, b1,
          [&](int64_t b, int64_t u) { __builtin_prefetch(gate(2, at, b, u), 1); },
          [&](int64_t b, int64_t u, int n, const R *z) {
            R *to = gate(2, at, b, u);
            store(to, load(z) + inputs.base(2, to, u, n), n);
          });
      inputs.prepare(run, step + 1, b0, b1, columns);
      share.sync();
      for (int64_t b = rows.from; b < rows.to; ++b) candidate_row(step, at, b);
      share.sync();
    }
  }
};

template <class R>
struct GruBeforeNormBackward {
  Run<R> run;
  Norms<R> norms;
  Panels<R> to_h, to_rh;
  R *dh = nullptr, *drh = nullptr;
  R *rows = nullptr;  // [threads, 2, H] gradients of a row's normalized values

  explicit GruBeforeNormBackward(const cw_sequence &s) : run(s), norms(s, 3, 3) {
    init_to_h(run, to_h, 2);
    to_rh.init(run.s, run.H, run.H, 1);
  }
  void layout(Arena &arena, Arena &) {
    to_h.data = arena.take<R>(to_h.elements());
    to_rh.data = arena.take<R>(to_rh.elements());
    dh = arena.take<R>(run.B * run.H);
    drh = arena.take<R>(run.B * run.H);
    rows = arena.take<R>(run.s.threads * 2 * run.H);
    run.take_masks(arena);
  }
  // From the new h to u and the candidate.
  void candidate_row(int64_t step, int64_t at, int64_t b, R *temporary) const {
    const cw_sequence &s = run.s;
    const Backward<R> back = {run, s};
    const int64_t H = run.H;
    const bool active = run.active(at, b);
    const R *h_old = run.h_before(step) + b * H;
    R *gu = run.gate(1, at, b, 0), *gc = run.gate(2, at, b, 0), *const row_u = temporary, *const row_c = temporary + H;
    BackNorm<R> of_u, of_c;
    for (int64_t u = 0; u < H; u += kLanes<R>) {
      const int n = lanes_from<R>(u, H);
      const int64_t index = b * H + u;
      Vec<R> d = back.of_state(step, b, index, n, load(dh + index, n), s.d_reset_h, s.d_h_states, run.P);
      if (!active) {
        store(dh + index, d, n);
        store(gu + u, zero<R>(), n);
        store(gc + u, zero<R>(), n);
        continue;
      }
      d = back.of_h(at, b, u, n, d);
      const Vec<R> d_old = run.zone_h.any() ? back.part_of_old(run.zone_h, b, u, n, d) : zero<R>();
      const Vec<R> unit_u = load(gu + u, n), unit_c = load(gc + u, n);
      const Vec<R> keep = activate<R>(s.gate_activation, norms.scaled(1, unit_u, u, n));
      const Vec<R> c = activate<R>(s.activation, norms.scaled(2, unit_c, u, n));
      store(dh + index, d * keep + d_old, n);
      const Vec<R> d_u =
          norms.back(1, b, u, n, d * (load(h_old + u, n) - c) * slope<R>(s.gate_activation, keep), unit_u);
      const Vec<R> d_c = norms.back(2, b, u, n, d * (R(1) - keep) * slope<R>(s.activation, c), unit_c);
      of_u.add(d_u, unit_u), of_c.add(d_c, unit_c);
      store(row_u + u, d_u, n), store(row_c + u, d_c, n);
    }
    if (!active) return;
    of_u.finish(norms.kept_of(at, b)[1], H), of_c.finish(norms.kept_of(at, b)[2], H);
    for (int64_t u = 0; u < H; u += kLanes<R>) {
      const int n = lanes_from<R>(u, H);
      store(gu + u, of_u.of(load(row_u + u, n), load(gu + u, n)), n);
      store(gc + u, of_c.of(load(row_c + u, n), load(gc + u, n)), n);
    }
  }
  // From r * h to r.
  void reset_row(int64_t step, int64_t at, int64_t b, R *temporary) const {
    const cw_sequence &s = run.s;
    const int64_t H = run.H;
    const bool active = run.active(at, b);
    const R *h_old = run.h_before(step) + b * H;
    R *gr = run.gate(0, at, b, 0), *to = static_cast<R *>(s.rh) + (at * run.B + b) * H;
    BackNorm<R> of;
    for (int64_t u = 0; u < H; u += kLanes<R>) {
      const int n = lanes_from<R>(u, H);
      const int64_t index = b * H + u;
      if (!active) {
        store(to + u, zero<R>(), n);
        store(gr + u, zero<R>(), n);
        continue;
      }
      const Vec<R> unit = load(gr + u, n), r = activate<R>(s.gate_activation, norms.scaled(0, unit, u, n));
      const Vec<R> h = load(h_old + u, n), d = load(drh + index, n);
      store(to + u, run.for_gate(2, b, u, n, r * h), n);
      store(dh + index, load(dh + index, n) + d * r, n);
      const Vec<R> d_unit = norms.back(0, b, u, n, d * h * slope<R>(s.gate_activation, r), unit);
      of.add(d_unit, unit);
      store(temporary + u, d_unit, n);
    }
    if (!active) return;
    of.finish(norms.kept_of(at, b)[0], H);
    for (int64_t u = 0; u < H; u += kLanes<R>) {
      const int n = lanes_from<R>(u, H);
      store(gr + u, of.of(load(temporary + u, n), load(gr + u, n)), n);
    }
  }
  void work(const Share &share) const {
    const cw_sequence &s = run.s;
    Matrix<R> w[3];
    for (int g = 0; g < 3; ++g) w[g] = recurrent_weights<R>(s, g).transposed();
    const int64_t depths[2] = {run.H, run.H};
    share.pack_own(to_h, w, depths, parts_to_h(run, 2));
    share.pack_own(to_rh, w + 2, depths, 1);
    share.draw_shared(run);
    if (share.id == 0) {
      copy_or_zero(dh, s.d_h_last, run.B * run.H);
      copy_or_zero(static_cast<R *>(s.d_reset_h), nullptr, run.B * run.H);
      norms.clear();
    }
    share.barrier.wait();
    const Part own = share.panels(to_rh), own_h = panels_like(own, to_rh, to_h), mine = share.single_rows(run.B);
    const int64_t b0 = share.rows.from, b1 = share.rows.to, H = run.H;
    R *temporary = rows + share.id * 2 * H;
    for (int64_t step = run.T - 1; step >= 0; --step) {
      const int64_t at = run.at(step);
      run.draw(step, mine.from, mine.to, {0, H}, {0, 0});
      run.draw_gates(step, b0, b1, share.units(to_rh));
      for (int64_t b = mine.from; b < mine.to; ++b) candidate_row(step, at, b, temporary);
      share.sync();
      const Operand<R> candidate = run.gate_rows(2, at);
      multiply(
          to_rh, own.from, own.to, &candidate, 1, b0, b1, [](int64_t, int64_t) {},
          [&](int64_t b, int64_t u, int n, const R *z) {
            store(drh + b * H + u, run.for_gate(2, b, u, n, load(z)), n);
          });
      share.sync();
      for (int64_t b = mine.from; b < mine.to; ++b) reset_row(step, at, b, temporary);
      share.sync();
      const Operand<R> ru[2] = {run.gate_rows(0, at), run.gate_rows(1, at)};
      add_products(run, to_h, own_h, ru, 0, 2, step, share, dh);
      share.sync();
    }
    share.barrier.wait();
    if (share.id == 0) copy_or_zero(static_cast<R *>(s.d_h0), dh, run.B * H);
  }
};

// Reset after the product: one product of all three gates per step.
template <class R>
struct GruAfterNormForward {
  Run<R> run;
  Inputs<R> inputs;
  Norms<R> norms;
  Panels<R> gates;
  R *sums = nullptr;    // [3, B, H] gates, where they have no buffer
  R *from_h = nullptr;  // [B, H] the candidate's recurrent product, where nothing is saved

  explicit GruAfterNormForward(const cw_sequence &s) : run(s), inputs(s, 3), norms(s, 4, 4) {
    gates.init(run.s, run.H, inputs.width + run.H, 3, run.by_gate);
  }
  void layout(Arena &arena, Arena &packed) {
    gates.data = packed.take<R>(gates.elements());
    if (inputs.inside && !run.save) sums = arena.take<R>(3 * run.B * run.H);
    if (!run.save) from_h = arena.take<R>(run.B * run.H);
    inputs.take(arena, packed);
    run.take_masks(arena);
  }
  CW_INLINE R *gate(int g, int64_t at, int64_t b, int64_t u) const {
    if (g == 3 && from_h != nullptr) return from_h + b * run.H + u;
    return sums == nullptr ? run.gate(g, at, b, u) : sums + (g * run.B + b) * run.H + u;
  }
  void row(int64_t step, int64_t at, int64_t b) const {
    const cw_sequence &s = run.s;
    const int64_t H = run.H;
    if (!run.active(at, b)) return pass_row(run, step, at, b);
    R *z[4];
    for (int g = 0; g < 4; ++g) z[g] = gate(g, at, b, 0);
    Moments<R> of[4];
    moments_of<R, 4>(z, H, norms.epsilon(), of);
    for (int64_t u = 0; u < H; u += kLanes<R>) {
      const int n = lanes_from<R>(u, H);
      Vec<R> value[4];
      for (int g = 0; g < 4; ++g) {
        const Vec<R> unit = (load(z[g] + u, n) - of[g].mean) * of[g].inverse;
        if (run.save) store(z[g] + u, unit, n);
        value[g] = norms.scaled(g, unit, u, n);
      }
      const Vec<R> r = activate<R>(s.gate_activation, value[0]), keep = activate<R>(s.gate_activation, value[1]);
      finish_gru(run, step, at, b, u, n, keep, activate<R>(s.activation, value[2] + r * value[3]));
    }
    for (int g = 0; g < 4 && run.save; ++g) norms.kept_of(at, b)[g] = of[g].inverse;
  }
  void work(const Share &share) const {
    if (inputs.inside)
      steps<true>(share);
    else
      steps<false>(share);
  }
  // X: the input products are made here; that of the candidate stays apart from its recurrent one.
  template <bool X>
  void steps(const Share &share) const {
    const cw_sequence &s = run.s;
    constexpr int L = kLanes<R>, apart = X ? kSeparate : 0;
    Matrix<R> w[6];
    int64_t depths[2];
    const int parts = inputs.weights(0, 3, run.H, w, depths);
    share.pack_own(gates, w, depths, parts);
    const Part own = share.panels(gates), rows = share.single_rows(run.B), columns = share.columns(inputs.width);
    share.begin(run, inputs);
    const int64_t b0 = share.rows.from, b1 = share.rows.to;
    const R *bias_h = static_cast<const R *>(s.bias_h);
    for (int64_t step = 0; step < run.T; ++step) {
      const int64_t at = run.at(step);
      run.draw(step, rows.from, rows.to, {0, run.H}, {0, 0});
      share.mask_operands(run, step);
      Operand<R> operands[3];
      const int count = inputs.operands(run, step, run.h_before(step), run.H, operands, 3);
      multiply<R, X>(
          gates, own.from, own.to, operands, count, b0, b1,
          [&](int64_t b, int64_t u) {
            for (int g = 0; g < 4; ++g) __builtin_prefetch(gate(g, at, b, u), 1);
          },
          [&](int64_t b, int64_t u, int n, const R *z) {
            for (int g = 0; g < 3; ++g) {
              R *to = gate(g, at, b, u);
              Vec<R> sum = inputs.base(g, to, u, n);
              if (X) sum += load(z + g * L);
              if (g < 2) sum += load(z + apart + g * L);
              store(to, sum, n);
            }
            const Vec<R> from = load(z + apart + 2 * L);
            store(gate(3, at, b, u), bias_h == nullptr ? from : from + load(bias_h + u, n), n);
          });
      inputs.prepare(run, step + 1, b0, b1, columns);
      share.sync();
      for (int64_t b = rows.from; b < rows.to; ++b) row(step, at, b);
      share.sync();
    }
  }
};

template <class R>
struct GruAfterNormBackward {
  Run<R> run;
  Norms<R> norms;
  Panels<R> to_h;
  R *dh = nullptr;
  R *rows = nullptr;  // [threads, 4, H] gradients of a row's normalized values

  explicit GruAfterNormBackward(const cw_sequence &s) : run(s), norms(s, 4, 4) { init_to_h(run, to_h, 3); }
  void layout(Arena &arena, Arena &) {
    to_h.data = arena.take<R>(to_h.elements());
    dh = arena.take<R>(run.B * run.H);
    rows = arena.take<R>(run.s.threads * 4 * run.H);
    run.take_masks(arena);
  }
  void row(int64_t step, int64_t at, int64_t b, R *temporary) const {
    const cw_sequence &s = run.s;
    const Backward<R> back = {run, s};
    const int64_t H = run.H;
    const bool active = run.active(at, b);
    const R *h_old = run.h_before(step) + b * H;
    R *z[4];
    for (int g = 0; g < 4; ++g) z[g] = run.gate(g, at, b, 0);
    BackNorm<R> of[4];
    for (int64_t u = 0; u < H; u += kLanes<R>) {
      const int n = lanes_from<R>(u, H);
      const int64_t index = b * H + u;
      Vec<R> d = back.of_state(step, b, index, n, load(dh + index, n), s.d_reset_h, s.d_h_states, run.P);
      if (!active) {
        store(dh + index, d, n);
        for (int g = 0; g < 4; ++g) store(z[g] + u, zero<R>(), n);
        continue;
      }
      d = back.of_h(at, b, u, n, d);
      const Vec<R> d_old = run.zone_h.any() ? back.part_of_old(run.zone_h, b, u, n, d) : zero<R>();
      Vec<R> unit[4], value[4], d_value[4];
      for (int g = 0; g < 4; ++g) unit[g] = load(z[g] + u, n), value[g] = norms.scaled(g, unit[g], u, n);
      const Vec<R> r = activate<R>(s.gate_activation, value[0]), keep = activate<R>(s.gate_activation, value[1]);
      const Vec<R> c = activate<R>(s.activation, value[2] + r * value[3]);
      store(dh + index, d * keep + d_old, n);
      d_value[2] = d * (R(1) - keep) * slope<R>(s.activation, c);
      d_value[0] = d_value[2] * value[3] * slope<R>(s.gate_activation, r);
      d_value[1] = d * (load(h_old + u, n) - c) * slope<R>(s.gate_activation, keep);
      d_value[3] = d_value[2] * r;
      for (int g = 0; g < 4; ++g) {
        const Vec<R> d_unit = norms.back(g, b, u, n, d_value[g], unit[g]);
        of[g].add(d_unit, unit[g]);
        store(temporary + g * H + u, d_unit, n);
      }
    }
    if (!active) return;
    for (int g = 0; g < 4; ++g) of[g].finish(norms.kept_of(at, b)[g], H);
    for (int64_t u = 0; u < H; u += kLanes<R>)
      for (int g = 0; g < 4; ++g) {
        const int n = lanes_from<R>(u, H);
        store(z[g] + u, of[g].of(load(temporary + g * H + u, n), load(z[g] + u, n)), n);
      }
  }
  void work(const Share &share) const {
    const cw_sequence &s = run.s;
    Matrix<R> w[3];
    for (int g = 0; g < 3; ++g) w[g] = recurrent_weights<R>(s, g).transposed();
    const int64_t depths[3] = {run.H, run.H, run.H};
    share.pack_own(to_h, w, depths, parts_to_h(run, 3));
    share.draw_shared(run);
    if (share.id == 0) {
      copy_or_zero(dh, s.d_h_last, run.B * run.H);
      copy_or_zero(static_cast<R *>(s.d_reset_h), nullptr, run.B * run.H);
      norms.clear();
    }
    share.barrier.wait();
    const Part mine = share.single_rows(run.B);
    const int64_t H = run.H;
    for (int64_t step = run.T - 1; step >= 0; --step) {
      const int64_t at = run.at(step);
      run.draw(step, mine.from, mine.to, {0, H}, {0, 0});
      run.draw_gates(step, share.rows.from, share.rows.to, share.units(to_h));
      for (int64_t b = mine.from; b < mine.to; ++b) row(step, at, b, rows + share.id * 4 * H);
      share.sync();
      const Operand<R> operands[3] = {run.gate_rows(0, at), run.gate_rows(1, at), run.gate_rows(3, at)};
      add_products(run, to_h, share.panels(to_h), operands, 0, 3, step, share, dh);
      share.sync();
    }
    share.barrier.wait();
    if (share.id == 0) copy_or_zero(static_cast<R *>(s.d_h0), dh, run.B * H);
  }
};
