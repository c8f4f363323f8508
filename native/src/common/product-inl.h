// Small matrix products: rows of operands times packed recurrent weights.
// Included once per instruction set, inside its namespace: no include guard.
//
// Weights are packed into panels. A panel covers `vectors` unit vectors of `gates` gates, so that all gates of the same
// units come out together: columns (vector, gate), cut into strips of kStrip columns, each strip [k][column][lane].
// Every element is one chain of fused multiply-adds over k in order, whichever tile it falls into: results do not
// depend on the number of threads.
//
// Weights for products of bfloat16 are packed column by column into tiles as tiles-inl.h says, the parts that lie below
// each other each to a whole number of tiles.

// A tile is a strip of columns and as many rows, so that accumulators, one row of weights and an operand fit into the
// registers. With 16 of them a strip of all 4 columns would leave 2 rows: too few to pay for reading the weights.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kStrip = 4;
constexpr int kMaxRows[5] = {0, 8, 8, 8, 6};  // by columns of a panel
#else
constexpr int kStrip = 2;
constexpr int kMaxRows[5] = {0, 8, 6, 6, 6};
#endif

// Rows of one operand: row b at base + b * ld, `depth` columns.
template <class R>
struct Operand {
  const R *base;
  int64_t ld, depth;
};

// How far ahead of use the weights are asked for, in bytes, by the first of several tiles that read them.
constexpr int kAhead = 4096;

// Sums of ROWS rows and a strip of NV columns, to z[row][z_ld]. FIRST: other tiles will read the same weights after it.
template <class R, int ROWS, int NV, bool FIRST>
__attribute__((noinline)) void tile(const Operand<R> *operands, int count, int64_t row, const R *w, R *z, int z_ld) {
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
        if (FIRST && v * CW_BYTES % 64 == 0)
          __builtin_prefetch(reinterpret_cast<const char *>(w + v * kLanes<R>) + kAhead);
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
    for (int v = 0; v < NV; ++v) *reinterpret_cast<Vec<R> *>(z + (r * z_ld + v) * kLanes<R>) = acc[r][v];
}

// One row times two neighbouring panels of WIDTH columns: their independent chains hide the latency of the additions.
template <class R, int WIDTH>
__attribute__((noinline)) void row_pair(const Operand<R> *operands, int count, int64_t row, const R *panels,
                                        int64_t panel, int64_t strip, R *z) {
  constexpr int kStrips = (WIDTH + kStrip - 1) / kStrip,
                kLast = WIDTH - (kStrips - 1) * kStrip;  // of a panel; columns of its last
  const R *w[2][kStrips];
#pragma GCC unroll 8
  for (int i = 0; i < 2 * kStrips; ++i)
    w[i / kStrips][i % kStrips] = panels + i / kStrips * panel + i % kStrips * strip;
  Vec<R> acc[2][WIDTH];
#pragma GCC unroll 8
  for (int v = 0; v < 2 * WIDTH; ++v) acc[v / WIDTH][v % WIDTH] = zero<R>();
  for (int s = 0; s < count; ++s) {
    const int64_t depth = operands[s].depth;
    const R *a = operands[s].base + row * operands[s].ld;
#pragma GCC unroll 2
    for (int64_t k = 0; k < depth; ++k) {
      const Vec<R> y = splat<R>(a[k]);
#pragma GCC unroll 8
      for (int v = 0; v < 2 * WIDTH; ++v) {
        const int column = v % WIDTH, i = column / kStrip, width = i + 1 < kStrips ? kStrip : kLast;
        acc[v / WIDTH][column] +=
            y * *reinterpret_cast<const Vec<R> *>(w[v / WIDTH][i] + (k * width + column % kStrip) * kLanes<R>);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 2 * kStrips; ++i)
      w[i / kStrips][i % kStrips] += depth * (i % kStrips + 1 < kStrips ? kStrip : kLast) * kLanes<R>;
  }
#pragma GCC unroll 8
  for (int v = 0; v < 2 * WIDTH; ++v) *reinterpret_cast<Vec<R> *>(z + v * kLanes<R>) = acc[v / WIDTH][v % WIDTH];
}

// Tiles with others after them have more than 2 rows: those share out the rows evenly.
template <class R, int NV, bool FIRST>
CW_INLINE void tile_of(int rows, const Operand<R> *operands, int count, int64_t row, const R *w, R *z, int z_ld) {
  switch (rows) {
    case 1: return tile<R, 1, NV, false>(operands, count, row, w, z, z_ld);
    case 2: return tile<R, 2, NV, false>(operands, count, row, w, z, z_ld);
    case 3: return tile<R, 3, NV, FIRST>(operands, count, row, w, z, z_ld);
    case 4: return tile<R, 4, NV, FIRST>(operands, count, row, w, z, z_ld);
    case 5: return tile<R, 5, NV, FIRST>(operands, count, row, w, z, z_ld);
    case 6: return tile<R, 6, NV, FIRST>(operands, count, row, w, z, z_ld);
    case 7: return tile<R, 7, NV, FIRST>(operands, count, row, w, z, z_ld);
    default: return tile<R, 8, NV, FIRST>(operands, count, row, w, z, z_ld);
  }
}

// Packed weights of `gates` gates over `units` columns and `depth` rows in all.
template <class R>
struct Panels {
  R *data = nullptr;
  int64_t units = 0, depth = 0;
  int gates = 1, vectors = 1;  // gates; unit vectors of a full panel
  int width = kStrip;          // columns of a full strip
  bool apart = false;          // each gate multiplies an operand of its own, of which there are `gates`
  bool in_tiles = false;       // for products of bfloat16

  void init(const cw_sequence &s, int64_t units_, int64_t depth_, int gates_, bool apart_ = false) {
    units = units_, depth = depth_, gates = gates_, apart = apart_ && gates > 1;
    in_tiles = kTiles<R> && rounds(s);
    vectors = in_tiles && gates == 3 ? 2 : 4 / gates;  // tiles like pairs of columns
    width = apart ? 1 : kStrip;
  }
  int64_t unit_vectors() const { return (units + kLanes<R> - 1) / kLanes<R>; }
  int64_t panels() const { return (unit_vectors() + vectors - 1) / vectors; }
  int64_t elements() const { return unit_vectors() * gates * (in_tiles ? tiled_column() / 2 : depth * kLanes<R>); }
  int64_t first_unit(int64_t panel) const { return panel * vectors * kLanes<R>; }
  int vectors_of(int64_t panel) const {
    const int64_t left = unit_vectors() - panel * vectors;
    return int(left < vectors ? left : vectors);
  }
  R *panel(int64_t p) const { return data + p * vectors * gates * depth * kLanes<R>; }
  // In tiles: numbers of a column, with room for up to four parts; and where a panel begins.
  int64_t tiled_column() const { return (rounded_up(depth, kTileDepth) + 3 * kTileDepth) * kTileUnits; }
  uint16_t *tiled_panel(int64_t p) const {
    return reinterpret_cast<uint16_t *>(data) + p * vectors * gates * tiled_column();
  }
  // From the start of a full strip to that of the next one.
  int64_t strip() const { return depth * width * kLanes<R>; }
};

// Where element (k, u) of a gate's weights lies: base[k * row + u * column].
template <class R>
struct Matrix {
  const R *base;
  int64_t row, column;
  Matrix transposed() const { return {base, column, row}; }
};

// Rows [k0, k1) of a column of L units, the first n of which there are, to to[k * width].
template <class R>
CW_INLINE void pack_column(const Matrix<R> &m, int64_t k0, int64_t k1, int64_t u0, int n, R *to, int64_t width) {
  constexpr int L = kLanes<R>;
  if (m.column == 1) {
    for (int64_t k = k0; k < k1; ++k) store(to + k * width, load(m.base + k * m.row + u0, n));
    return;
  }
  // transposed: read along k, which is mostly contiguous, in blocks that stay in the cache
  for (; k0 < k1; k0 += L) {
    const int kn = int(k1 - k0 < L ? k1 - k0 : L);
    R block[L][L];
    for (int u = 0; u < n; ++u) {
      const R *from = m.base + (u0 + u) * m.column + k0 * m.row;
      if (m.row == 1)
        store(block[u], load(from, kn));
      else
        for (int k = 0; k < kn; ++k) block[u][k] = from[k * m.row];
    }
    for (int k = 0; k < kn; ++k) {
      Vec<R> lanes = {};
      for (int u = 0; u < n; ++u) lanes[u] = block[u][k];
      store(to + (k0 + k) * width, lanes);
    }
  }
}

// Rows of a column of units, rounded, as pairs in tiles; rows and units that there are not as zeros.
template <class R>
__attribute__((noinline)) void pack_tiles(const Matrix<R> &m, int64_t depth, int64_t u0, int n, uint16_t *to) {
  for (int64_t k = 0; k < depth; k += kTileDepth, to += kTileDepth * kTileUnits) {
    alignas(64) R rows[kTileDepth * kTileUnits] = {};
    const Matrix<R> below = {m.base + k * m.row, m.row, m.column};
    pack_column<R>(below, 0, depth - k < kTileDepth ? depth - k : kTileDepth, u0, n, rows, kTileUnits);
    for (int row = 0; row < kTileDepth; ++row) {
      uint16_t rounded[kTileDepth];
      round_row(rows + row * kTileUnits, kTileUnits, rounded);
      for (int u = 0; u < kTileUnits; ++u) to[(row / 2 * kTileUnits + u) * 2 + row % 2] = rounded[u];
    }
  }
}
// Panels [from, to) in tiles; arguments as of `pack`.
template <class R>
void pack_in_tiles(const Panels<R> &p, int64_t from, int64_t to, const Matrix<R> *weights, const int64_t *depths,
                   int parts) {
  for (int64_t i = from; i < to; ++i)
    for (int column = 0; column < p.vectors_of(i) * p.gates; ++column) {
      const int64_t u0 = p.first_unit(i) + column / p.gates * kTileUnits;
      const int n = int(p.units - u0 < kTileUnits ? p.units - u0 : kTileUnits);
      uint16_t *at = p.tiled_panel(i) + column * p.tiled_column();
      for (int part = 0; part < parts; ++part) {
        pack_tiles<R>(weights[part * p.gates + column % p.gates], depths[part], u0, n, at);
        at += rounded_up(depths[part], kTileDepth) * kTileUnits;
      }
    }
}

// Pack panels [from, to). `parts` matrices per gate lie below each other (their depths sum up to p.depth).
template <class R>
__attribute__((noinline)) void pack(const Panels<R> &p, int64_t from, int64_t to, const Matrix<R> *weights,
                                    const int64_t *depths, int parts) {
  constexpr int L = kLanes<R>;
  constexpr int64_t kFewRows = 32;  // so many rows of a matrix, one page each, are read side by side
  if (p.in_tiles) return pack_in_tiles(p, from, to, weights, depths, parts);
  int64_t above = 0;
  for (int part = 0; part < parts; ++part) {
    const int64_t depth = depths[part], block = weights[part * p.gates].column == 1 ? kFewRows : depth;
    for (int64_t k = 0; k < depth; k += block)
      for (int64_t i = from; i < to; ++i) {
        const int columns = p.vectors_of(i) * p.gates;
        for (int column = 0; column < columns; ++column) {
          const int64_t u0 = p.first_unit(i) + column / p.gates * L;
          const int n = int(p.units - u0 < L ? p.units - u0 : L);
          const int strip = column / p.width, left = columns - strip * p.width;
          const int64_t width = int64_t(left < p.width ? left : p.width) * L;
          pack_column<R>(weights[part * p.gates + column % p.gates], k, k + block < depth ? k + block : depth, u0, n,
                         p.panel(i) + strip * p.strip() + above * width + column % p.width * L, width);
        }
      }
    above += depth;
  }
}

// Products of rows [b0, b1) with panels [from, to); then `finish(b, u, n, z)` for each row and unit vector: n units
// from unit u, z[gate * lanes] the sums of each gate. With SEPARATE the sums of the last operand stand apart, at
// z[kSeparate + gate * lanes]; not where each gate has an operand of its own, which `count` does not count then.
// `prepare(b, u)` comes before the product of that row's units: the place to ask for what `finish` will read.
constexpr int kSeparate = (CW_BYTES == 64 ? kBlockRows * 6 : 8 * 4) * 16;

// A strip of NV or more columns.
template <class R, int NV>
CW_INLINE void strip_of([[maybe_unused]] int width, int rows, bool leads, const Operand<R> *operands, int count,
                        int64_t b, const R *w, R *z, int z_ld) {
  if constexpr (NV < kStrip) {
    if (width > NV) return strip_of<R, NV + 1>(width, rows, leads, operands, count, b, w, z, z_ld);
  }
  if (leads)
    tile_of<R, NV, true>(rows, operands, count, b, w, z, z_ld);
  else
    tile_of<R, NV, false>(rows, operands, count, b, w, z, z_ld);
}

// One row of each gate's own operand times the columns of a panel: their independent chains run side by side.
template <class R, int COLUMNS>
__attribute__((noinline)) void row_apart(const Operand<R> *operands, int gates, int64_t row, const R *w, int64_t strip,
                                         R *z) {
  const R *a[COLUMNS];
  Vec<R> acc[COLUMNS];
#pragma GCC unroll 4
  for (int c = 0; c < COLUMNS; ++c) {
    const Operand<R> &own = operands[c % gates];
    a[c] = own.base + row * own.ld, acc[c] = zero<R>();
  }
  const int64_t depth = operands->depth;
  for (int64_t k = 0; k < depth; ++k, w += kLanes<R>)
#pragma GCC unroll 4
    for (int c = 0; c < COLUMNS; ++c) acc[c] += splat<R>(a[c][k]) * *reinterpret_cast<const Vec<R> *>(w + c * strip);
#pragma GCC unroll 4
  for (int c = 0; c < COLUMNS; ++c) *reinterpret_cast<Vec<R> *>(z + c * kLanes<R>) = acc[c];
}

// All columns of a panel whose gates have an operand each.
template <class R>
__attribute__((noinline)) void tile_apart(const Panels<R> &p, int64_t panel, int columns, int rows,
                                          const Operand<R> *operands, int64_t b, R *z) {
  const R *w = p.panel(panel);
  if (rows == 1 && columns == 4) return row_apart<R, 4>(operands, p.gates, b, w, p.strip(), z);
  if (rows == 1 && columns == 3) return row_apart<R, 3>(operands, p.gates, b, w, p.strip(), z);
  for (int column = 0; column < columns; ++column, w += p.strip())
    tile_of<R, 1, false>(rows, operands + column % p.gates, 1, b, w, z + column * kLanes<R>, columns);
}

// All columns of a panel, from row `above` of its weights on. `leads`: FIRST of `tile`.
template <class R>
CW_INLINE void any_tile(const Panels<R> &p, int64_t panel, int columns, int rows, bool leads,
                        const Operand<R> *operands, int count, int64_t b, int64_t above, R *z) {
  const R *w = p.panel(panel);
  for (int first = 0; first < columns; first += kStrip, w += p.strip(), z += kStrip * kLanes<R>) {
    const int width = columns - first < kStrip ? columns - first : kStrip;
    const R *from = w + above * width * kLanes<R>;
    strip_of<R, 1>(width, rows, leads, operands, count, b, from, z, columns);
  }
}

// Sums of `rows` rows from row b on with a panel.
template <class R, bool SEPARATE>
CW_INLINE void sums_of(const Panels<R> &p, int64_t panel, int columns, int rows, bool leads, const Operand<R> *operands,
                       int count, int64_t b, R *z) {
  if (SEPARATE) {
    int64_t before = 0;
    for (int k = 0; k + 1 < count; ++k) before += operands[k].depth;
    any_tile<R>(p, panel, columns, rows, leads, operands, count - 1, b, 0, z);
    any_tile<R>(p, panel, columns, rows, leads, operands + count - 1, 1, b, before, z + kSeparate);
  } else if (p.apart) {
    tile_apart<R>(p, panel, columns, rows, operands, b, z);
  } else {
    any_tile<R>(p, panel, columns, rows, leads, operands, count, b, 0, z);
  }
}
// The same by tiles.
template <class R, bool SEPARATE>
__attribute__((noinline)) void tiled_sums_of(const Panels<R> &p, int64_t panel, int columns, const Rounded &rounded,
                                             const Operand<R> *operands, int count, int64_t b, R *sums) {
  if constexpr (!kTiles<R>) return;
  const uint16_t *w = p.tiled_panel(panel);
  const int64_t column = p.tiled_column();
  float *const z = reinterpret_cast<float *>(sums);
  int64_t depth = 0;
  for (int k = 0; k < count - (SEPARATE ? 1 : 0); ++k) depth += rounded_up(operands[k].depth, kTileDepth) / kTileDepth;
  rounded.multiply(b, w, column, columns, 0, depth, p.apart ? p.gates : 0, z);
  if (!SEPARATE) return;
  const int64_t last = rounded_up(operands[count - 1].depth, kTileDepth) / kTileDepth;
  rounded.multiply(b, w, column, columns, depth, last, 0, z + kSeparate);
}

template <class R, bool SEPARATE = false, class Prepare, class Finish>
CW_INLINE void multiply(const Panels<R> &p, int64_t from, int64_t to, const Operand<R> *operands, int count, int64_t b0,
                        int64_t b1, Prepare prepare, Finish finish) {
  constexpr int L = kLanes<R>;
  alignas(64) R z[kSeparate * (SEPARATE ? 2 : 1)];
  if (from >= to) return;
  const Rounded rounded(p.in_tiles, operands, p.apart ? p.gates : count, b0, b1);
  for (int64_t i = from; i < to; ++i) {
    const int nv = p.vectors_of(i), width = nv * p.gates, most = kMaxRows[p.apart || width > 4 ? 1 : width];
    if (!SEPARATE && b1 - b0 == 1 && nv == p.vectors && width >= 3 && !p.apart && !rounded.used) {
      // One row: first the sums of several panels, then all their gates, whose long chains of operations overlap.
      constexpr int kMany = 8;
      alignas(64) R sums[kMany * 4 * L];
      int64_t j = i;
      for (; j + 1 < to && j < i + kMany && p.vectors_of(j + 1) == nv; j += 2) {
        prepare(b0, p.first_unit(j));
        prepare(b0, p.first_unit(j + 1));
        (width == 4 ? row_pair<R, 4> : row_pair<R, 3>)(operands, count, b0, p.panel(j), p.panel(j + 1) - p.panel(j),
                                                       p.strip(), sums + (j - i) * width * L);
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
    for (int64_t t = 0; b < b1; ++t) {
      const int rows = rounded.used ? rounded.rows_at(b) : int((b1 - b + (tiles - t) - 1) / (tiles - t));
      for (int r = 0; r < rows; ++r) prepare(b + r, p.first_unit(i));
      if (rounded.used)
        tiled_sums_of<R, SEPARATE>(p, i, width, rounded, operands, count, b, z);
      else
        sums_of<R, SEPARATE>(p, i, width, rows, t == 0 && tiles > 1, operands, count, b, z);
      for (int r = 0; r < rows; ++r)
        for (int v = 0; v < nv; ++v) {
          const int64_t u = p.first_unit(i) + v * L;
          finish(b + r, u, int(p.units - u < L ? p.units - u : L), z + (r * nv + v) * p.gates * L);
        }
      b += rows;
    }
  }
}
