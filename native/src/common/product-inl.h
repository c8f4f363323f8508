// Small matrix products: rows of operands times packed recurrent weights.
// Included once per instruction set, inside its namespace: no include guard.
//
// Weights are packed into panels. A panel covers `vectors` unit vectors of `gates` gates: [k][vector][gate][lane], so
// that one pass over k computes all gates of the same units. Every element is one chain of fused multiply-adds over k
// in order, whichever tile it falls into: results do not depend on the number of threads.

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kMaxRows[5] = {0, 8, 8, 8, 6};  // by vectors per row: accumulators, one row of weights and an operand fit
#else
constexpr int kMaxRows[5] = {0, 8, 5, 3, 2};
#endif

// Rows of one operand: row b at base + b * ld, `depth` columns.
template <class R>
struct Operand {
  const R *base;
  int64_t ld, depth;
};

template <class R, int ROWS, int NV>
__attribute__((noinline)) void tile(const Operand<R> *operands, int count, int64_t row, const R *w, R *z) {
  Vec<R> acc[ROWS][NV];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = zero<R>();
  for (int s = 0; s < count; ++s) {
    const int64_t ld = operands[s].ld, depth = operands[s].depth;
    const R *a = operands[s].base + row * ld;
#pragma GCC unroll 2
    for (int64_t k = 0; k < depth; ++k) {
      Vec<R> x[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        x[v] = *reinterpret_cast<const Vec<R> *>(w + v * kLanes<R>);
      }
      w += NV * kLanes<R>;
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) {
        const Vec<R> y = splat<R>(a[r * ld + k]);
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) acc[r][v] += y * x[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) *reinterpret_cast<Vec<R> *>(z + (r * NV + v) * kLanes<R>) = acc[r][v];
}

// One row times two neighbouring panels of 4 vectors: 8 independent chains hide the latency of the additions.
template <class R>
__attribute__((noinline)) void row_pair(const Operand<R> *operands, int count, int64_t row, const R *w, const R *w2, R *z) {
  Vec<R> acc[8];
#pragma GCC unroll 8
  for (int v = 0; v < 8; ++v) acc[v] = zero<R>();
  for (int s = 0; s < count; ++s) {
    const int64_t depth = operands[s].depth;
    const R *a = operands[s].base + row * operands[s].ld;
#pragma GCC unroll 2
    for (int64_t k = 0; k < depth; ++k) {
      const Vec<R> y = splat<R>(a[k]);
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        acc[v] += y * *reinterpret_cast<const Vec<R> *>(w + v * kLanes<R>);
        acc[4 + v] += y * *reinterpret_cast<const Vec<R> *>(w2 + v * kLanes<R>);
      }
      w += 4 * kLanes<R>, w2 += 4 * kLanes<R>;
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < 8; ++v) *reinterpret_cast<Vec<R> *>(z + v * kLanes<R>) = acc[v];
}

template <class R, int NV>
CW_INLINE void tile_of(int rows, const Operand<R> *operands, int count, int64_t row, const R *w, R *z) {
  switch (rows) {
    case 1: return tile<R, 1, NV>(operands, count, row, w, z);
    case 2: return tile<R, 2, NV>(operands, count, row, w, z);
    case 3: return tile<R, 3, NV>(operands, count, row, w, z);
    case 4: return tile<R, 4, NV>(operands, count, row, w, z);
    case 5: return tile<R, 5, NV>(operands, count, row, w, z);
    case 6: return tile<R, 6, NV>(operands, count, row, w, z);
    case 7: return tile<R, 7, NV>(operands, count, row, w, z);
    default: return tile<R, 8, NV>(operands, count, row, w, z);
  }
}

// Packed weights of `gates` gates over `units` columns and `depth` rows in all.
template <class R>
struct Panels {
  R *data = nullptr;
  int64_t units = 0, depth = 0;
  int gates = 1, vectors = 1;  // unit vectors of a full panel

  void init(int64_t units_, int64_t depth_, int gates_) {
    units = units_, depth = depth_, gates = gates_;
    vectors = 4 / gates;
  }
  int64_t unit_vectors() const { return (units + kLanes<R> - 1) / kLanes<R>; }
  int64_t panels() const { return (unit_vectors() + vectors - 1) / vectors; }
  int64_t elements() const { return unit_vectors() * gates * depth * kLanes<R>; }
  int64_t first_unit(int64_t panel) const { return panel * vectors * kLanes<R>; }
  int vectors_of(int64_t panel) const {
    const int64_t left = unit_vectors() - panel * vectors;
    return int(left < vectors ? left : vectors);
  }
  R *panel(int64_t p) const { return data + p * vectors * gates * depth * kLanes<R>; }
};

// Where element (k, u) of a gate's weights lies: base[k * row + u * column].
template <class R>
struct Matrix {
  const R *base;
  int64_t row, column;
};

// Pack panels [from, to). `parts` matrices per gate lie below each other (their depths sum up to p.depth).
template <class R>
void pack(const Panels<R> &p, int64_t from, int64_t to, const Matrix<R> *weights, const int64_t *depths, int parts) {
  constexpr int L = kLanes<R>;
  for (int64_t i = from; i < to; ++i) {
    const int nv = p.vectors_of(i);
    const int64_t width = int64_t(nv) * p.gates * L;
    R *out = p.panel(i);
    for (int part = 0; part < parts; ++part) {
      for (int v = 0; v < nv; ++v) {
        const int64_t u0 = p.first_unit(i) + v * L;
        const int n = int(p.units - u0 < L ? p.units - u0 : L);
        for (int g = 0; g < p.gates; ++g) {
          const Matrix<R> m = weights[part * p.gates + g];
          R *to_column = out + (v * p.gates + g) * L;
          if (m.column == 1) {
            for (int64_t k = 0; k < depths[part]; ++k) store(to_column + k * width, load(m.base + k * m.row + u0, n));
          } else {
            // transposed: read along k, which is contiguous, in blocks that stay in the cache
            for (int64_t k0 = 0; k0 < depths[part]; k0 += L) {
              const int kn = int(depths[part] - k0 < L ? depths[part] - k0 : L);
              R block[L][L];
              for (int u = 0; u < n; ++u) store(block[u], load(m.base + (u0 + u) * m.column + k0 * m.row, m.row == 1 ? kn : 0));
              for (int k = 0; k < kn; ++k) {
                Vec<R> column = {};
                for (int u = 0; u < n; ++u) column[u] = block[u][k];
                store(to_column + (k0 + k) * width, column);
              }
            }
          }
        }
      }
      out += depths[part] * width;
    }
  }
}

// Products of rows [b0, b1) with panels [from, to); then `finish(b, u, n, z)` for each row and unit vector: n units from
// unit u, z[gate * lanes] the sums of each gate. With SEPARATE the sums of the last operand stand apart, at
// z[kSeparate + gate * lanes]. `prepare(b, u)` comes before the product of that row's units: the place
// to ask for what `finish` will read.
constexpr int kSeparate = 8 * 4 * 16;

template <class R>
CW_INLINE void any_tile(int width, int rows, const Operand<R> *operands, int count, int64_t b, const R *w, R *z) {
  switch (width) {
    case 1: return tile_of<R, 1>(rows, operands, count, b, w, z);
    case 2: return tile_of<R, 2>(rows, operands, count, b, w, z);
    case 3: return tile_of<R, 3>(rows, operands, count, b, w, z);
    default: return tile_of<R, 4>(rows, operands, count, b, w, z);
  }
}

template <class R, bool SEPARATE = false, class Prepare, class Finish>
CW_INLINE void multiply(const Panels<R> &p, int64_t from, int64_t to, const Operand<R> *operands, int count, int64_t b0,
                        int64_t b1, Prepare prepare, Finish finish) {
  constexpr int L = kLanes<R>;
  alignas(64) R z[kSeparate * (SEPARATE ? 2 : 1)];
  for (int64_t i = from; i < to; ++i) {
    const int nv = p.vectors_of(i), width = nv * p.gates, most = kMaxRows[width];
    if (!SEPARATE && b1 - b0 == 1 && width == 4) {
      // One row: first the sums of several panels, then all their gates, whose long chains of operations overlap.
      constexpr int kMany = 8;
      alignas(64) R sums[kMany * 4 * L];
      int64_t j = i;
      for (; j + 1 < to && j < i + kMany && p.vectors_of(j + 1) == nv; j += 2) {
        prepare(b0, p.first_unit(j));
        prepare(b0, p.first_unit(j + 1));
        row_pair<R>(operands, count, b0, p.panel(j), p.panel(j + 1), sums + (j - i) * 4 * L);
      }
      for (int v = 0; v < (j - i) * nv; ++v) {
        const int64_t u = p.first_unit(i) + v * L;
        finish(b0, u, int(p.units - u < L ? p.units - u : L), sums + v * p.gates * L);
      }
      if (j > i) {
        i = j - 1;
        continue;
      }
    }
    const int64_t tiles = (b1 - b0 + most - 1) / most;
    int64_t b = b0;
    for (int64_t t = 0; t < tiles; ++t) {
      const int rows = int((b1 - b + (tiles - t) - 1) / (tiles - t));
      for (int r = 0; r < rows; ++r) prepare(b + r, p.first_unit(i));
      if (SEPARATE) {
        int64_t before = 0;
        for (int k = 0; k + 1 < count; ++k) before += operands[k].depth;
        any_tile<R>(width, rows, operands, count - 1, b, p.panel(i), z);
        any_tile<R>(width, rows, operands + count - 1, 1, b, p.panel(i) + before * width * L, z + kSeparate);
      } else {
        any_tile<R>(width, rows, operands, count, b, p.panel(i), z);
      }
      for (int r = 0; r < rows; ++r)
        for (int v = 0; v < nv; ++v) {
          const int64_t u = p.first_unit(i) + v * L;
          finish(b + r, u, int(p.units - u < L ? p.units - u : L), z + (r * nv + v) * p.gates * L);
        }
      b += rows;
    }
  }
}
