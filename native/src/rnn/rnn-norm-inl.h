// The plain recurrent network with layer normalization: forward and backward time loops. Equations:
// src/cellweave/ops/rnn/README.md. Included once per instruction set, inside its namespace: no include guard.

template <class R>
struct RnnNormForward {
  Run<R> run;
  Inputs<R> inputs;
  Norms<R> norms;
  Panels<R> weights;
  R *sums = nullptr;  // [B, H] the gate, where it has no buffer

  explicit RnnNormForward(const cw_sequence &s) : run(s), inputs(s, 1), norms(s, 1, 1) {
    weights.init(run.s, run.H, inputs.width + run.H, 1);
  }
  void layout(Arena &arena, Arena &packed) {
    weights.data = packed.take<R>(weights.elements());
    if (inputs.inside && !run.save) sums = arena.take<R>(run.B * run.H);
    inputs.take(arena, packed);
    run.take_masks(arena);
  }
  CW_INLINE R *gate(int64_t at, int64_t b, int64_t u) const {
    return sums == nullptr ? run.gate(0, at, b, u) : sums + b * run.H + u;
  }
  void row(int64_t step, int64_t at, int64_t b) const {
    const int64_t H = run.H;
    const bool active = run.active(at, b);
    R *z = gate(at, b, 0);
    Moments<R> of = {};
    if (active) moments_of<R, 1>(&z, H, norms.epsilon(), &of);
    for (int64_t u = 0; u < H; u += kLanes<R>) {
      const int n = lanes_from<R>(u, H);
      if (!active) {
        run.finish_h(step, at, b, u, n, zero<R>());
        continue;
      }
      const Vec<R> unit = (load(z + u, n) - of.mean) * of.inverse;
      if (run.save) store(z + u, unit, n);
      run.finish_h(step, at, b, u, n, activate<R>(run.s.activation, norms.scaled(0, unit, u, n)));
    }
    if (active && run.save) *norms.kept_of(at, b) = of.inverse;
  }
  void work(const Share &share) const {
    Matrix<R> w[2];
    int64_t depths[2];
    const int parts = inputs.weights(0, 1, run.H, w, depths);
    share.pack_own(weights, w, depths, parts);
    const Part own = share.panels(weights), rows = share.single_rows(run.B), columns = share.columns(inputs.width);
    const int64_t b0 = share.rows.from, b1 = share.rows.to;
    share.begin(run, inputs);
    for (int64_t step = 0; step < run.T; ++step) {
      const int64_t at = run.at(step);
      run.draw(step, rows.from, rows.to, {0, run.H}, {0, 0});
      share.mask_operands(run, step);
      Operand<R> operands[2];
      const int count = inputs.operands(run, step, run.h_before(step), run.H, operands, 1);
      multiply(
          weights, own.from, own.to, operands, count, b0, b1,
          [&](int64_t b, int64_t u) { __builtin_prefetch(gate(at, b, u), 1); },
          [&](int64_t b, int64_t u, int n, const R *z) {
            R *to = gate(at, b, u);
            store(to, load(z) + inputs.base(0, to, u, n), n);
          });
      inputs.prepare(run, step + 1, b0, b1, columns);
      share.sync();
      for (int64_t b = rows.from; b < rows.to; ++b) row(step, at, b);
      share.sync();
    }
  }
};

template <class R>
struct RnnNormBackward {
  Run<R> run;
  Norms<R> norms;
  Panels<R> to_h;
  R *dh = nullptr;
  R *rows = nullptr;  // [threads, H] gradients of a row's normalized values

  explicit RnnNormBackward(const cw_sequence &s) : run(s), norms(s, 1, 1) { init_to_h(run, to_h, 1); }
  void layout(Arena &arena, Arena &) {
    to_h.data = arena.take<R>(to_h.elements());
    dh = arena.take<R>(run.B * run.H);
    rows = arena.take<R>(run.s.threads * run.H);
    run.take_masks(arena);
  }
  void row(int64_t step, int64_t at, int64_t b, R *d_units) const {
    const cw_sequence &s = run.s;
    const Backward<R> back = {run, s};
    const int64_t H = run.H;
    const bool active = run.active(at, b);
    R *z = run.gate(0, at, b, 0);
    BackNorm<R> of;
    for (int64_t u = 0; u < H; u += kLanes<R>) {
      const int n = lanes_from<R>(u, H);
      const Vec<R> d = back.of_new_h(step, at, b, u, n, dh, active);
      if (!active) {
        store(z + u, zero<R>(), n);
        continue;
      }
      const Vec<R> unit = load(z + u, n), h = activate<R>(s.activation, norms.scaled(0, unit, u, n));
      const Vec<R> d_unit = norms.back(0, b, u, n, d * slope<R>(s.activation, h), unit);
      of.add(d_unit, unit);
      store(d_units + u, d_unit, n);
    }
    if (!active) return;
    of.finish(*norms.kept_of(at, b), H);
    for (int64_t u = 0; u < H; u += kLanes<R>) {
      const int n = lanes_from<R>(u, H);
      store(z + u, of.of(load(d_units + u, n), load(z + u, n)), n);
    }
  }
  void work(const Share &share) const {
    const cw_sequence &s = run.s;
    const Matrix<R> w = recurrent_weights<R>(s, 0).transposed();
    share.pack_own(to_h, &w, &run.H, 1);
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
      for (int64_t b = mine.from; b < mine.to; ++b) row(step, at, b, rows + share.id * H);
      share.sync();
      const Operand<R> z = run.gate_rows(0, at);
      add_products(run, to_h, share.panels(to_h), &z, 0, 1, step, share, dh);
      share.sync();
    }
    share.barrier.wait();
    if (share.id == 0) copy_or_zero(static_cast<R *>(s.d_h0), dh, run.B * H);
  }
};
