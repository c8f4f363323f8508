// Digests of memory: the same everywhere, others after any change.
#include <algorithm>
#include <set>
#include <vector>

#include "cases.h"
#include "report.h"

using namespace cellweave_tests;

namespace {

// Around blocks of 64 bytes and chunks of 32 KiB.
constexpr int64_t kSizes[] = {1, 7, 8, 9, 63, 64, 65, 100, 4096, 32767, 32768, 32769, 65536, 100000};

std::vector<unsigned char> bytes_of(int64_t size, uint64_t seed) {
  Random random(seed);
  std::vector<unsigned char> found(static_cast<size_t>(size));
  for (unsigned char &byte : found) byte = static_cast<unsigned char>(random.bits());
  return found;
}

std::vector<float> weights_of(int64_t size, uint64_t seed) {
  Random random(seed);
  std::vector<float> found(static_cast<size_t>(size));
  for (float &value : found) value = float(random.uniform(-0.1, 0.1));
  return found;
}

uint64_t digest_of(const std::vector<unsigned char> &bytes, int64_t threads = 1) {
  return cw_digest(bytes.data(), int64_t(bytes.size()), threads);
}

uint64_t digest_of(const std::vector<float> &values) {
  return cw_digest(values.data(), int64_t(values.size() * sizeof(float)), 1);
}

void check_sameness(const std::vector<int64_t> &isas) {
  for (const int64_t size : kSizes) {
    // One byte past an aligned place too.
    const std::vector<unsigned char> bytes = bytes_of(size, uint64_t(size));
    std::vector<unsigned char> shifted(1);
    shifted.insert(shifted.end(), bytes.begin(), bytes.end());
    cw_set_isa(CW_PLAIN);
    const uint64_t wanted = digest_of(bytes);
    for (const int64_t isa : isas) {
      cw_set_isa(isa);
      for (const int64_t threads : {1, 2, 3, 4})
        expect(digest_of(bytes, threads) == wanted, "digest of %d bytes on %s, %d threads", int(size), isa_name(isa),
               int(threads));
      expect(cw_digest(shifted.data() + 1, size, 1) == wanted, "digest of shifted %d bytes on %s", int(size),
             isa_name(isa));
    }
  }
  expect(cw_digest(nullptr, 0, 1) == 0, "digest of nothing");
}

void check_bits() {
  for (const int64_t size : {1, 9, 64, 200}) {
    std::vector<unsigned char> bytes = bytes_of(size, 3);
    std::set<uint64_t> seen = {digest_of(bytes)};
    for (size_t i = 0; i < bytes.size(); ++i)
      for (int bit = 0; bit < 8; ++bit) {
        bytes[i] = static_cast<unsigned char>(bytes[i] ^ (1 << bit));
        seen.insert(digest_of(bytes));
        bytes[i] = static_cast<unsigned char>(bytes[i] ^ (1 << bit));
      }
    expect(int64_t(seen.size()) == 8 * size + 1, "digest: %d of %d changed bits seen", int(seen.size()) - 1,
           int(8 * size));
  }
}

// What happens to weights: factors, signs, order, rows that change places.
void check_changes() {
  constexpr int64_t rows = 96, columns = 128;
  const std::vector<float> weights = weights_of(rows * columns, 5);
  std::set<uint64_t> seen = {digest_of(weights)};
  size_t made = 1;
  const auto add = [&](const std::vector<float> &changed) {
    seen.insert(digest_of(changed));
    ++made;
  };
  for (const float factor : {-1.0f, 2.0f, 0.5f, -2.0f, 0.0f, 1.0000001f}) {
    std::vector<float> changed = weights;
    for (float &value : changed) value *= factor;
    add(changed);
  }
  for (int64_t row = 1; row < rows; ++row) {
    std::vector<float> changed = weights;
    std::swap_ranges(changed.begin(), changed.begin() + columns, changed.begin() + row * columns);
    add(changed);
    changed = weights;
    std::rotate(changed.begin(), changed.begin() + row * columns, changed.end());
    add(changed);
    changed = weights;
    for (int64_t i = 0; i < columns; ++i) changed[size_t(row * columns + i)] *= -1;
    add(changed);
  }
  std::vector<float> sorted = weights;
  std::sort(sorted.begin(), sorted.end());
  add(sorted);
  std::reverse(sorted.begin(), sorted.end());
  add(sorted);
  for (int64_t size : {64, 128, 4096}) add(std::vector<float>(size_t(size)));  // zeros of several sizes
  expect(seen.size() == made, "digest: %d of %d changes seen", int(seen.size()), int(made));
}

}  // namespace

int main() {
  const std::vector<int64_t> isas = vector_isas();
  check_sameness(isas);
  for (const int64_t isa : isas) {
    cw_set_isa(isa);
    check_bits();
    check_changes();
  }
  return finish("digest_test");
}
