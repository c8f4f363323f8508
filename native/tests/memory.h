// The memory of one call: every buffer begins one element past an aligned place and lies between guard zones.
#ifndef CELLWEAVE_TESTS_MEMORY_H_
#define CELLWEAVE_TESTS_MEMORY_H_

#include <cstdint>
#include <cstring>
#include <deque>
#include <limits>
#include <string>
#include <vector>

#include "report.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1  // GCC's name for it
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define CW_POISON(address, size) __asan_poison_memory_region(address, size)
#define CW_UNPOISON(address, size) __asan_unpoison_memory_region(address, size)
#else
#define CW_POISON(address, size) ((void)(address), (void)(size))
#define CW_UNPOISON(address, size) ((void)(address), (void)(size))
#endif

namespace cellweave_tests {

// What an output holds before the call: NaN, so that an element which nobody wrote cannot pass.
template <typename T>
constexpr T poison() {
  return std::numeric_limits<T>::quiet_NaN();
}

class Memory {
 public:
  // A buffer that the call only reads: verify() finds it as it was.
  template <typename T>
  const T *in(const char *name, const std::vector<T> &values) {
    return values.empty() ? nullptr
                          : static_cast<const T *>(place(name, values.data(), values.size(), sizeof(T), false));
  }

  // A buffer that the call changes, starting from these values.
  template <typename T>
  T *inout(const char *name, const std::vector<T> &values) {
    return values.empty() ? nullptr : static_cast<T *>(place(name, values.data(), values.size(), sizeof(T), true));
  }

  template <typename T>
  T *out(const char *name, int64_t size) {
    return inout(name, std::vector<T>(size_t(size), poison<T>()));
  }

  // Exactly this many bytes, aligned to 64, full of NaN.
  void *aligned_out(const char *name, int64_t bytes) {
    const std::vector<unsigned char> nans(size_t(bytes), 0xFF);
    return bytes == 0 ? nullptr : place(name, nans.data(), nans.size(), kAligned, true);
  }
  void *aligned_in(const char *name, const std::vector<unsigned char> &bytes) {
    return bytes.empty() ? nullptr : place(name, bytes.data(), bytes.size(), kAligned, false);
  }

  // From here on the guard zones must not even be read; the address sanitizer watches them.
  void close() {
    for (Block &block : blocks_) {
      CW_POISON(block.raw.data(), size_t(block.data - block.raw.data()));
      CW_POISON(block.data + block.size, size_t(block.raw.data() + block.raw.size() - block.data - block.size));
    }
  }

  void verify(const std::string &where) {
    for (Block &block : blocks_) {
      CW_UNPOISON(block.raw.data(), block.raw.size());
      const unsigned char *const end = block.raw.data() + block.raw.size();
      const bool whole = is_guard(block.raw.data(), block.data) && is_guard(block.data + block.size, end);
      expect(whole, "%s: wrote beside %s", where.c_str(), block.name);
      const bool same = std::memcmp(block.data, block.before.data(), block.size) == 0;
      expect(block.writable || same, "%s: changed its input %s", where.c_str(), block.name);
    }
  }

  // No buffer has changed at all.
  void verify_untouched(const std::string &where) {
    for (Block &block : blocks_) {
      CW_UNPOISON(block.raw.data(), block.raw.size());
      const bool same = std::memcmp(block.data, block.before.data(), block.size) == 0;
      expect(same, "%s: wrote to %s", where.c_str(), block.name);
    }
  }

 private:
  static constexpr size_t kGuard = 192, kAligned = 64;
  static constexpr unsigned char kGuardByte = 0xA5;

  struct Block {
    const char *name;
    std::vector<unsigned char> raw, before;
    unsigned char *data;
    size_t size;
    bool writable;
  };

  static bool is_guard(const unsigned char *from, const unsigned char *to) {
    bool whole = true;
    for (; from < to; ++from) whole = whole && *from == kGuardByte;
    return whole;
  }

  void *place(const char *name, const void *values, size_t count, size_t element, bool writable) {
    const size_t unit = element == kAligned ? 1 : element, size = count * unit;
    blocks_.push_back(
        {name, std::vector<unsigned char>(size + 2 * kGuard + 128, kGuardByte), {}, nullptr, size, writable});
    Block &block = blocks_.back();
    const uintptr_t start = (reinterpret_cast<uintptr_t>(block.raw.data()) + kGuard + 63) / 64 * 64;
    block.data = reinterpret_cast<unsigned char *>(start) + (element == kAligned ? 0 : element);
    std::memcpy(block.data, values, size);
    block.before.assign(block.data, block.data + size);
    return block.data;
  }

  std::deque<Block> blocks_;
};

}  // namespace cellweave_tests
#endif
