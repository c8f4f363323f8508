// The plain recurrent network: forward and backward time loops. Equations: src/cellweave/ops/rnn/README.md.
// Included once per instruction set, inside its namespace: no include guard.

template <class R>
struct RnnForward {
  Run<R> run;
  Inputs<R> inputs;
  Panels<R> weights;

  explicit RnnForward(const cw_sequence &s) : run(s), inputs(s, 1) {
    weights.init(run.s, run.H, inputs.width + run.H, 1);
  }
  void layout(Arena &arena, Arena &packed) {
    weights.data = packed.take<R>(weights.elements());
    inputs.take(arena, packed);
    run.take_masks(arena);
  }
  void work(const Share &share) const {
    const cw_sequence &s = run.s;
    Matrix<R> w[2];
    int64_t depths[2];
    const int parts = inputs.weights(0, 1, run.H, w, depths);
    share.pack_own(weights, w, depths, parts);
    const Part own = share.panels(weights), units = share.units(weights), columns = share.columns(inputs.width);
    const int64_t b0 = share.rows.from, b1 = share.rows.to;
    share.begin(run, inputs);
    for (int64_t step = 0; step < run.T; ++step) {
      const int64_t at = run.at(step);
      run.draw(step, b0, b1, units, units);
      share.mask_operands(run, step);
      Operand<R> operands[2];
      const int count = inputs.operands(run, step, run.h_before(step), run.H, operands, 1);
      multiply(
          weights, own.from, own.to, operands, count, b0, b1,
          [&](int64_t b, int64_t u) { __builtin_prefetch(run.gate(0, at, b, u), 1); },
          [&](int64_t b, int64_t u, int n, const R *z) {
            R *gate = run.gate(0, at, b, u);
            const Vec<R> h_new = activate<R>(s.activation, load(z) + inputs.base(0, gate, u, n));
            if (run.save) store(gate, h_new, n);
            run.finish_h(step, at, b, u, n, h_new);
          });
      inputs.prepare(run, step + 1, b0, b1, columns);
      share.sync();
    }
  }
};

template <class R>
struct RnnBackward {
  Run<R> run;
  Panels<R> to_h;
  R *dh = nullptr;

  explicit RnnBackward(const cw_sequence &s) : run(s) { init_to_h(run, to_h, 1); }
  void layout(Arena &arena, Arena &) {
    to_h.data = arena.take<R>(to_h.elements());
    dh = arena.take<R>(run.B * run.H);
    run.take_masks(arena);
  }
  void work(const Share &share) const {
    const cw_sequence &s = run.s;
    constexpr int L = kLanes<R>;
    const Backward<R> back = {run, s};
    const Matrix<R> w = recurrent_weights<R>(s, 0).transposed();
    share.pack_own(to_h, &w, &run.H, 1);
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
      for (int64_t b = b0; b < b1; ++b) {
        const bool active = run.active(at, b);
        for (int64_t u = units.from; u < units.to; u += L) {
          const int n = int(units.to - u < L ? units.to - u : L);
          R *gate = run.gate(0, at, b, u);
          const Vec<R> d = back.of_new_h(step, at, b, u, n, dh, active);
          store(gate, active ? d * slope<R>(s.activation, load(gate, n)) : zero<R>(), n);
        }
      }
      share.sync();
      const Operand<R> rows = run.gate_rows(0, at);
      add_products(run, to_h, share.panels(to_h), &rows, 0, 1, step, share, dh);
    }
    share.barrier.wait();
    if (share.id == 0) copy_or_zero(static_cast<R *>(s.d_h0), dh, run.B * H);
  }
};
