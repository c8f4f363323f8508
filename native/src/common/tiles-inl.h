// Products of bfloat16 on AMX tiles: what is multiplied is rounded, sums are floats.
// Included once per instruction set, inside its namespace: no include guard. Without AMX nothing here is ever called.
//
// A tile of weights holds 16 units and 32 rows of weights as pairs: [pair of rows][unit][row of the pair]. A tile of
// operands holds up to 16 rows of 32 columns, a tile of sums as many rows of 16 units.

constexpr int kTileDepth = 32, kTileRows = 16, kTileUnits = 16;
// Rows of sums that are made at a time: two tiles of rows meet two of units, so that each tile that is read is used
// twice.
constexpr int kBlockRows = 2 * kTileRows;
// Of products of all steps ahead of the loop, at least so many rows are rounded at a time.
constexpr int64_t kChunkRows = 256;

#if CW_BYTES == 64 && defined(CELLWEAVE_HAVE_TILES)
template <class R>
constexpr bool kTiles = sizeof(R) == 4;
#else
template <class R>
constexpr bool kTiles = false;
#endif

constexpr int64_t rounded_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
inline bool rounds(const cw_sequence &s) { return s.products == CW_PRODUCTS_BFLOAT16; }

// The rows that a thread multiplies, rounded; one thread's part of the scratch.
static thread_local uint16_t *own_rows = nullptr;
// How many rows are rounded at a time: those of a step, and more of products ahead of the loop.
inline int64_t chunk_rows(const cw_sequence &s) { return s.ahead == 0 || s.B > kChunkRows ? s.B : kChunkRows; }
// Its elements, for any product of a call: the inputs beside h, or what each of four gates multiplies or gives back.
inline int64_t rounded_rows(const cw_sequence &s) {
  if (!rounds(s)) return 0;
  const int64_t width = s.P > s.H ? s.P : s.H, inputs = s.x == nullptr ? 0 : s.I;
  return rounded_up(chunk_rows(s), kTileRows) * (rounded_up(inputs, kTileDepth) + 4 * rounded_up(width, kTileDepth));
}

// What has no tiles is never rounded.
template <class R>
void round_row(const R *, int64_t, uint16_t *, int64_t = 0) {}

#if CW_BYTES == 64 && defined(CELLWEAVE_HAVE_TILES)
#define CW_TILED __attribute__((noinline, target("amx-tile,amx-bf16,avx512bf16")))

// Asks the system for the tiles' registers, which it keeps for those who do.
inline bool has_tiles() {
  static const bool found = [] {
    unsigned a, b, c, d;
    constexpr unsigned kSaved = 1u << 27, kBfloat16 = 1u << 22, kTile = 1u << 24, kVectorBfloat16 = 1u << 5;
    constexpr uint64_t kTileState = 3u << 17;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kSaved)) return false;
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & kTileState) != kTileState) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kBfloat16) || !(d & kTile)) return false;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & kVectorBfloat16)) return false;
#if defined(__linux__)
    constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
    return false;
#endif
  }();
  return found;
}

// n floats, rounded, and zeros up to the next multiple of a tile's depth: every kTileDepth of them go `step` further.
CW_TILED inline void round_row(const float *from, int64_t n, uint16_t *to, int64_t step = kTileDepth) {
  int64_t k = 0;
  for (; k + kTileDepth <= n; k += kTileDepth, to += step) {
    const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + k + 16), _mm512_loadu_ps(from + k));
    std::memcpy(to, &both, sizeof both);
  }
  if (k == n) return;
  const int64_t left = n - k;
  const __mmask16 low = __mmask16(left >= 16 ? 0xFFFF : (1 << left) - 1);
  const __mmask16 high = __mmask16(left <= 16 ? 0 : (1 << (left - 16)) - 1);
  const __m512bh both =
      _mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, from + k + 16), _mm512_maskz_loadu_ps(low, from + k));
  std::memcpy(to, &both, sizeof both);
}

// Every tile of operands and of sums has as many rows.
CW_TILED inline void use_tiles(int rows) {
  struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } layout = {};
  static_assert(sizeof layout == 64, "the layout of tiles has 64 bytes");
  layout.palette = 1;
  for (int i = 0; i < 8; ++i) layout.bytes[i] = 64, layout.rows[i] = uint8_t(i < 6 ? rows : kTileRows);
  __asm__ volatile("" ::"r"(&layout) : "memory");  // GCC 12 thinks that only its first eight bytes are read
  _tile_loadconfig(&layout);
}
CW_TILED inline void leave_tiles() { _tile_release(); }

// Sums over `depth` tiles: ROWS tiles of rows, each of `tile` numbers, `down` and `z_down` elements apart, times one
// or, with PAIR, two columns of weights. z_ld: elements from a row of sums to the next. Asking for weights ahead
// changed nothing here.
template <int ROWS, bool PAIR>
CW_TILED void tiles_of(const uint16_t *a, int64_t tile, int64_t down, const uint16_t *left, const uint16_t *right,
                       int64_t depth, float *z, int64_t z_ld, int64_t z_down) {
  constexpr int64_t kTile = kTileDepth * kTileUnits;
  const int64_t z_stride = z_ld * 4;
  _tile_zero(0);
  if (PAIR) _tile_zero(1);
  if (ROWS == 2) _tile_zero(2);
  if (ROWS == 2 && PAIR) _tile_zero(3);
  for (int64_t k = 0; k < depth; ++k) {
    _tile_loadd(4, a + k * tile, 64);
    _tile_loadd(6, left + k * kTile, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (ROWS == 2) {
      _tile_loadd(5, a + down + k * tile, 64);
      _tile_dpbf16ps(2, 5, 6);
    }
    if (PAIR) {
      _tile_loadd(7, right + k * kTile, 64);
      _tile_dpbf16ps(1, 4, 7);
      if (ROWS == 2) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, z, z_stride);
  if (PAIR) _tile_stored(1, z + kTileUnits, z_stride);
  if (ROWS == 2) _tile_stored(2, z + z_down, z_stride);
  if (ROWS == 2 && PAIR) _tile_stored(3, z + z_down + kTileUnits, z_stride);
}

// The operands of one product, rounded, in this thread's memory.
class Rounded {
 public:
  const bool used;
  // Rows [b0, b1) of `count` operands side by side, if `used`.
  template <class Operands>
  Rounded(bool used_, const Operands *operands, int count, int64_t b0, int64_t b1)
      : used(used_), rows_(b1 - b0), from_(b0), data_(own_rows), ld_(0), height_(0) {
    if (used && rows_ > 0) round_all(operands, count);
  }
  ~Rounded() {
    if (height_ > 0) leave_tiles();
  }
  Rounded(const Rounded &) = delete;
  Rounded &operator=(const Rounded &) = delete;
  // Of those from row b on, how many are multiplied at a time.
  int rows_at(int64_t b) const {
    const int64_t left = rows_ - (b - from_);
    return int(left < 2 * height_ ? left : 2 * height_);
  }
  // Sums of the block from row b on: `columns` columns, `above` tiles of operands and weights left out, `depth` used;
  // `apart`: column c meets what stands c % apart times `depth` tiles further in the rows.
  void multiply(int64_t b, const uint16_t *weights, int64_t column, int columns, int64_t above, int64_t depth,
                int apart, float *z) const {
    const int64_t tile = height_ * kTileDepth, down = height_ * ld_, z_ld = columns * kTileUnits,
                  z_down = height_ * z_ld;
    const uint16_t *a = data_ + (b - from_) * ld_ + above * tile, *w = weights + above * kTileDepth * kTileUnits;
    const bool both = b - from_ + height_ < rows_;
    for (int c = 0, wide; c < columns; c += wide) {
      wide = apart == 0 && c + 1 < columns ? 2 : 1;
      const uint16_t *own = apart == 0 ? a : a + c % apart * depth * tile;
      const uint16_t *left = w + c * column, *right = left + column;
      const auto make =
          wide == 2 ? (both ? tiles_of<2, true> : tiles_of<1, true>) : (both ? tiles_of<2, false> : tiles_of<1, false>);
      make(own, tile, down, left, right, depth, z + c * kTileUnits, z_ld, z_down);
    }
  }

 private:
  const int64_t rows_, from_;
  uint16_t *const data_;
  int64_t ld_;  // numbers of a row in all its tiles, which follow each other by the depth
  int height_;  // rows of a tile

  template <class Operands>
  void round_all(const Operands *operands, int count) {
    for (int s = 0; s < count; ++s) ld_ += rounded_up(operands[s].depth, kTileDepth);
    const int64_t tiles = (rows_ + kTileRows - 1) / kTileRows;
    height_ = int((rows_ + tiles - 1) / tiles);  // so that the last one is about as full
    for (int64_t b = 0; b < rows_; ++b) {
      uint16_t *to = data_ + b / height_ * height_ * ld_ + b % height_ * kTileDepth;
      for (int s = 0; s < count; to += rounded_up(operands[s].depth, kTileDepth) * height_, ++s)
        round_row(operands[s].base + (from_ + b) * operands[s].ld, operands[s].depth, to, height_ * kTileDepth);
    }
    use_tiles(height_);
  }
};
#else
inline bool has_tiles() { return false; }
class Rounded {
 public:
  static constexpr bool used = false;
  template <class Operands>
  Rounded(bool, const Operands *, int, int64_t, int64_t) {}
  int rows_at(int64_t) const { return 0; }
  void multiply(int64_t, const uint16_t *, int64_t, int, int64_t, int64_t, int, float *) const {}
};
#endif
