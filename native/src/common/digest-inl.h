// A number that tells whether memory has changed. The same on every instruction set and for every number of threads.
// Included once per instruction set, inside its namespace: no include guard.

// Sums of 64-bit words and of their running sums, 8 lanes of each: the first see any change of one word, the second its
// place, and the products of halves keep changes from cancelling each other as multiples of powers of two could.
inline uint64_t digest_of_chunk(const unsigned char *from, int64_t bytes) {
  constexpr int vectors = kDigestBlock / CW_BYTES;
  Words sum[vectors] = {}, sums[vectors] = {};
  const auto take = [&](const unsigned char *block) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      Words x;
      std::memcpy(&x, block + v * CW_BYTES, sizeof x);
      const Words product = multiply_low_halves(x, x >> 32);
      sum[v] += x + product;
      sums[v] += sum[v];
    }
  };
  int64_t i = 0;
  for (; i + kDigestBlock <= bytes; i += kDigestBlock) take(from + i);
  if (i < bytes) {
    unsigned char rest[kDigestBlock] = {};
    std::memcpy(rest, from + i, size_t(bytes - i));
    take(rest);
  }
  uint64_t found = uint64_t(bytes);
  for (int lane = 0; lane < kDigestBlock / 8; ++lane) {
    found = mixed(found ^ sum[lane / kWordLanes][lane % kWordLanes]);
    found = mixed(found + sums[lane / kWordLanes][lane % kWordLanes]);
  }
  return found;
}

inline uint64_t digest(const void *data, int64_t bytes, int64_t threads) {
  const unsigned char *from = static_cast<const unsigned char *>(data);
  const int64_t chunks = (bytes + kDigestChunk - 1) / kDigestChunk;
  std::atomic<uint64_t> total{0};
  run_team(threads, [&](int id, int count, Barrier &) {
    const Part own = part_of(chunks, id, count);
    uint64_t mine = 0;
    for (int64_t i = own.from; i < own.to; ++i) {
      const int64_t left = bytes - i * kDigestChunk;
      mine += mixed(digest_of_chunk(from + i * kDigestChunk, left < kDigestChunk ? left : kDigestChunk) + uint64_t(i));
    }
    total.fetch_add(mine, std::memory_order_relaxed);
  });
  return total.load(std::memory_order_relaxed);
}
