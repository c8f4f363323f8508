// The gated recurrent unit in both forms: forward and backward time loops. Equations: src/cellweave/ops/gru/README.md.
// Included once per instruction set, inside its namespace: no include guard.

// The panels of `other` that have the units of these panels of `p`, which are as wide or wider.
template <class R>
Part panels_like(Part own, const Panels<R> &p, const Panels<R> &other) {
  const int64_t each = p.vectors / other.vectors, last = other.panels();
  return {own.from * each < last ? own.from * each : last, own.to * each < last ? own.to * each : last};
}

// Reset before the product: gates r and u, then the candidate of r * h. Two products and two waits per step.
template <class R>
struct GruBeforeForward {
  Run<R> run;
  Inputs<R> inputs;
  Panels<R> gates, candidate;
  R *rh = nullptr, *keep = nullptr;  // [B, H] r * h, and u where the gates have no buffer

  explicit GruBeforeForward(const cw_sequence &s) : run(s), inputs(s, 3) {
    gates.init(run.s, run.H, inputs.width + run.H, 2, run.by_gate);
    candidate.init(run.s, run.H, inputs.width + run.H, 1);
  }
  void layout(Arena &arena, Arena &packed) {
    gates.data = packed.take<R>(gates.elements());
    candidate.data = packed.take<R>(candidate.elements());
    rh = arena.take<R>(run.B * run.H);
    if (inputs.inside && !run.save) keep = arena.take<R>(run.B * run.H);
    inputs.take(arena, packed);
    run.take_masks(arena);
  }
  void work(const Share &share) const {
    const cw_sequence &s = run.s;
    constexpr int L = kLanes<R>;
    Matrix<R> w[4];
    int64_t depths[2];
    int parts = inputs.weights(0, 2, run.H, w, depths);
    share.pack_own(gates, w, depths, parts);
    parts = inputs.weights(2, 1, run.H, w, depths);
    share.pack_own(candidate, w, depths, parts);
    const int64_t b0 = share.rows.from, b1 = share.rows.to, H = run.H;
    const Part columns = share.columns(inputs.width);
    share.begin(run, inputs);
    // Both products give a thread the same units.
    const Part own = share.panels(candidate), units = share.units(candidate);
    const Part own_gates = panels_like(own, candidate, gates);
    for (int64_t step = 0; step < run.T; ++step) {
      const int64_t at = run.at(step);
      run.draw(step, b0, b1, units, units);
      share.mask_operands(run, step);
      const R *h_old = run.h_before(step);
      Operand<R> operands[2];
      int count = inputs.operands(run, step, h_old, H, operands, 2);
      multiply(
          gates, own_gates.from, own_gates.to, operands, count, b0, b1,
          [&](int64_t b, int64_t u) {
            __builtin_prefetch(run.gate(0, at, b, u), 1);
            __builtin_prefetch(run.gate(1, at, b, u), 1);
          },
          [&](int64_t b, int64_t u, int n, const R *z) {
            R *gr = run.gate(0, at, b, u), *gu = keep == nullptr ? run.gate(1, at, b, u) : keep + b * H + u;
            const Vec<R> r = activate<R>(s.gate_activation, load(z) + inputs.base(0, gr, u, n));
            store(gu, activate<R>(s.gate_activation, load(z + L) + inputs.base(1, gu, u, n)), n);
            if (run.save) store(gr, r, n);
            store(rh + b * H + u, run.for_gate(2, b, u, n, r * load(h_old + b * H + u, n)), n);
          });
      share.sync();
      count = inputs.operands(run, step, rh, H, operands);
      multiply(
          candidate, own.from, own.to, operands, count, b0, b1,
          [&](int64_t b, int64_t u) { __builtin_prefetch(run.gate(2, at, b, u), 1); },
          [&](int64_t b, int64_t u, int n, const R *z) {
            R *gc = run.gate(2, at, b, u);
            const Vec<R> c = activate<R>(s.activation, load(z) + inputs.base(2, gc, u, n));
            const Vec<R> old = load(keep == nullptr ? run.gate(1, at, b, u) : keep + b * H + u, n);
            if (run.save) store(gc, c, n);
            run.finish_h(step, at, b, u, n, old * load(h_old + b * H + u, n) + (R(1) - old) * c);
          });
      inputs.prepare(run, step + 1, b0, b1, columns);
      share.sync();
    }
  }
};

template <class R>
struct GruBeforeBackward {
  Run<R> run;
  Panels<R> to_h, to_rh;
  R *dh = nullptr;

  explicit GruBeforeBackward(const cw_sequence &s) : run(s) {
    init_to_h(run, to_h, 2);
    to_rh.init(run.s, run.H, run.H, 1);
  }
  void layout(Arena &arena, Arena &) {
    to_h.data = arena.take<R>(to_h.elements());
    to_rh.data = arena.take<R>(to_rh.elements());
    dh = arena.take<R>(run.B * run.H);
    run.take_masks(arena);
  }
  void work(const Share &share) const {
    const cw_sequence &s = run.s;
    constexpr int L = kLanes<R>;
    const Backward<R> back = {run, s};
    Matrix<R> w[3];
    for (int g = 0; g < 3; ++g) w[g] = recurrent_weights<R>(s, g).transposed();
    const int64_t depths[2] = {run.H, run.H};
    share.pack_own(to_h, w, depths, parts_to_h(run, 2));
    share.pack_own(to_rh, w + 2, depths, 1);
    share.draw_shared(run);
    if (share.id == 0) {
      copy_or_zero(dh, s.d_h_last, run.B * run.H);
      copy_or_zero(static_cast<R *>(s.d_reset_h), nullptr, run.B * run.H);
    }
    share.barrier.wait();
    // Both products give a thread the same units.
    const Part own = share.panels(to_rh), units = share.units(to_rh), own_h = panels_like(own, to_rh, to_h);
    const int64_t b0 = share.rows.from, b1 = share.rows.to, H = run.H;
    for (int64_t step = run.T - 1; step >= 0; --step) {
      const int64_t at = run.at(step);
      run.draw(step, b0, b1, units, units);
      run.draw_gates(step, b0, b1, units);
      const R *h_old = run.h_before(step);
      for (int64_t b = b0; b < b1; ++b) {
        const bool active = run.active(at, b);
        for (int64_t u = units.from; u < units.to; u += L) {
          const int n = int(units.to - u < L ? units.to - u : L);
          const int64_t index = b * H + u;
          R *gu = run.gate(1, at, b, u), *gc = run.gate(2, at, b, u);
          Vec<R> d = back.of_state(step, b, index, n, load(dh + index, n), s.d_reset_h, s.d_h_states, H);
          if (!active) {
            store(dh + index, d, n);
            store(gu, zero<R>(), n);
            store(gc, zero<R>(), n);
            continue;
          }
          d = back.of_h(at, b, u, n, d);
          const Vec<R> d_old = run.zone_h.any() ? back.part_of_old(run.zone_h, b, u, n, d) : zero<R>();
          const Vec<R> keep = load(gu, n), c = load(gc, n);
          store(dh + index, d * keep + d_old, n);
          store(gu, d * (load(h_old + index, n) - c) * slope<R>(s.gate_activation, keep), n);
          store(gc, d * (R(1) - keep) * slope<R>(s.activation, c), n);
        }
      }
      share.sync();
      const Operand<R> candidate = run.gate_rows(2, at);
      multiply(
          to_rh, own.from, own.to, &candidate, 1, b0, b1, [](int64_t, int64_t) {},
          [&](int64_t b, int64_t u, int n, const R *z) {
            const int64_t index = b * H + u;
            R *gr = run.gate(0, at, b, u);
            const Vec<R> r = load(gr, n), h = load(h_old + index, n), d = run.for_gate(2, b, u, n, load(z));
            const bool active = run.active(at, b);
            store(static_cast<R *>(s.rh) + at * run.B * H + index, active ? run.for_gate(2, b, u, n, r * h) : zero<R>(),
                  n);
            store(gr, active ? d * h * slope<R>(s.gate_activation, r) : zero<R>(), n);
            store(dh + index, active ? load(dh + index, n) + d * r : load(dh + index, n), n);
          });
      share.sync();
      const Operand<R> ru[2] = {run.gate_rows(0, at), run.gate_rows(1, at)};
      add_products(run, to_h, own_h, ru, 0, 2, step, share, dh);
    }
    share.barrier.wait();
    if (share.id == 0) copy_or_zero(static_cast<R *>(s.d_h0), dh, run.B * H);
  }
};

// Reset after the product: one product of all three gates per step.
template <class R>
struct GruAfterForward {
  Run<R> run;
  Inputs<R> inputs;
  Panels<R> gates;

  explicit GruAfterForward(const cw_sequence &s) : run(s), inputs(s, 3) {
    gates.init(run.s, run.H, inputs.width + run.H, 3, run.by_gate);
  }
  void layout(Arena &arena, Arena &packed) {
    gates.data = packed.take<R>(gates.elements());
    inputs.take(arena, packed);
    run.take_masks(arena);
  }
  void work(const Share &share) const {
    if (inputs.inside)
      steps<true>(share);
    else
      steps<false>(share);
  }
  // X: the input products are made here; they stay apart from the recurrent ones, which the reset gate multiplies.
  template <bool X>
  void steps(const Share &share) const {
    const cw_sequence &s = run.s;
    constexpr int L = kLanes<R>, apart = X ? kSeparate : 0;
    Matrix<R> w[6];
    int64_t depths[2];
    const int parts = inputs.weights(0, 3, run.H, w, depths);
    share.pack_own(gates, w, depths, parts);
    const Part columns = share.columns(inputs.width);
    share.begin(run, inputs);
    const Part own = share.panels(gates), units = share.units(gates);
    const int64_t b0 = share.rows.from, b1 = share.rows.to, H = run.H;
    const R *bias_h = static_cast<const R *>(s.bias_h);
    for (int64_t step = 0; step < run.T; ++step) {
      const int64_t at = run.at(step);
      run.draw(step, b0, b1, units, units);
      share.mask_operands(run, step);
      const R *h_old = run.h_before(step);
      Operand<R> operands[3];
      const int count = inputs.operands(run, step, h_old, H, operands, 3);
      multiply<R, X>(
          gates, own.from, own.to, operands, count, b0, b1,
          [&](int64_t b, int64_t u) {
            for (int g = 0; g < 3; ++g) __builtin_prefetch(run.gate(g, at, b, u), 1);
          },
          [&](int64_t b, int64_t u, int n, const R *z) {
            R *gr = run.gate(0, at, b, u), *gu = run.gate(1, at, b, u), *gc = run.gate(2, at, b, u);
            Vec<R> r = load(z + apart) + inputs.base(0, gr, u, n),
                   keep = load(z + apart + L) + inputs.base(1, gu, u, n);
            Vec<R> from_x = inputs.base(2, gc, u, n), from_h = load(z + apart + 2 * L);
            if (X) r += load(z), keep += load(z + L), from_x += load(z + 2 * L);
            r = activate<R>(s.gate_activation, r);
            keep = activate<R>(s.gate_activation, keep);
            if (bias_h != nullptr) from_h += load(bias_h + u, n);
            const Vec<R> c = activate<R>(s.activation, from_x + r * from_h);
            if (run.save) store(gr, r, n), store(gu, keep, n), store(gc, c, n), store(run.gate(3, at, b, u), from_h, n);
            run.finish_h(step, at, b, u, n, keep * load(h_old + b * H + u, n) + (R(1) - keep) * c);
          });
      inputs.prepare(run, step + 1, b0, b1, columns);
      share.sync();
    }
  }
};

template <class R>
struct GruAfterBackward {
  Run<R> run;
  Panels<R> to_h;
  R *dh = nullptr;

  explicit GruAfterBackward(const cw_sequence &s) : run(s) { init_to_h(run, to_h, 3); }
  void layout(Arena &arena, Arena &) {
    to_h.data = arena.take<R>(to_h.elements());
    dh = arena.take<R>(run.B * run.H);
    run.take_masks(arena);
  }
  void work(const Share &share) const {
    const cw_sequence &s = run.s;
    constexpr int L = kLanes<R>;
    const Backward<R> back = {run, s};
    Matrix<R> w[3];
    for (int g = 0; g < 3; ++g) w[g] = recurrent_weights<R>(s, g).transposed();
    const int64_t depths[3] = {run.H, run.H, run.H};
    share.pack_own(to_h, w, depths, parts_to_h(run, 3));
    share.draw_shared(run);
    if (share.id == 0) {
      copy_or_zero(dh, s.d_h_last, run.B * run.H);
      copy_or_zero(static_cast<R *>(s.d_reset_h), nullptr, run.B * run.H);
    }
    share.barrier.wait();
    const Part units = share.units(to_h);
    const int64_t b0 = share.rows.from, b1 = share.rows.to, H = run.H;
    for (int64_t step = run.T - 1; step >= 0; --step) {
      const int64_t at = run.at(step);
      run.draw(step, b0, b1, units, units);
      run.draw_gates(step, b0, b1, units);
      const R *h_old = run.h_before(step);
      for (int64_t b = b0; b < b1; ++b) {
        const bool active = run.active(at, b);
        for (int64_t u = units.from; u < units.to; u += L) {
          const int n = int(units.to - u < L ? units.to - u : L);
          const int64_t index = b * H + u;
          R *gate[4];
          for (int g = 0; g < 4; ++g) gate[g] = run.gate(g, at, b, u);
          Vec<R> d = back.of_state(step, b, index, n, load(dh + index, n), s.d_reset_h, s.d_h_states, H);
          if (!active) {
            store(dh + index, d, n);
            for (int g = 0; g < 4; ++g) store(gate[g], zero<R>(), n);
            continue;
          }
          d = back.of_h(at, b, u, n, d);
          const Vec<R> d_old = run.zone_h.any() ? back.part_of_old(run.zone_h, b, u, n, d) : zero<R>();
          const Vec<R> r = load(gate[0], n), keep = load(gate[1], n), c = load(gate[2], n), from_h = load(gate[3], n);
          const Vec<R> d_c = d * (R(1) - keep) * slope<R>(s.activation, c);
          store(dh + index, d * keep + d_old, n);
          store(gate[0], d_c * from_h * slope<R>(s.gate_activation, r), n);
          store(gate[1], d * (load(h_old + index, n) - c) * slope<R>(s.gate_activation, keep), n);
          store(gate[2], d_c, n);
          store(gate[3], d_c * r, n);
        }
      }
      share.sync();
      const Operand<R> operands[3] = {run.gate_rows(0, at), run.gate_rows(1, at), run.gate_rows(3, at)};
      add_products(run, to_h, share.panels(to_h), operands, 0, 3, step, share, dh);
    }
    share.barrier.wait();
    if (share.id == 0) copy_or_zero(static_cast<R *>(s.d_h0), dh, run.B * H);
  }
};
