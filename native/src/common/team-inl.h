// The threads of one call: who does which part, and where they wait for each other.
// Included once per instruction set, inside its namespace (no include guard): a copy that the linker shares among all
// of them could hold instructions that the machine lacks.

// Waits by spinning for some microseconds, then gives the core away: steps are short, but the machine may be busy.
class Barrier {
 public:
  explicit Barrier(int count) : count_(count), waiting_(0), round_(0) {}
  void wait() {
    if (count_ == 1) return;
    const int round = round_.load(std::memory_order_relaxed);
    if (waiting_.fetch_add(1, std::memory_order_acq_rel) == count_ - 1) {
      waiting_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
      if (spins < kSpins) {
#if defined(__x86_64__)
        _mm_pause();
#endif
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  static constexpr int kSpins = 4000;
  const int count_;
  alignas(64) std::atomic<int> waiting_;
  alignas(64) std::atomic<int> round_;
};

struct Part {
  int64_t from, to;
};
// Part `id` of `count` of [0, all).
inline Part part_of(int64_t all, int id, int count) { return {all * id / count, all * (id + 1) / count}; }

// Runs body(id, count, barrier) on `threads` threads; fewer if the system gives fewer.
template <class Body>
void run_team(int64_t threads, const Body &body) {
  if (threads <= 1) {
    Barrier barrier(1);
    body(0, 1, barrier);
    return;
  }
#if defined(CELLWEAVE_STD_THREADS)
  Barrier barrier(static_cast<int>(threads));
  std::vector<std::thread> others;
  for (int id = 1; id < threads; ++id) others.emplace_back([&, id] { body(id, static_cast<int>(threads), barrier); });
  body(0, static_cast<int>(threads), barrier);
  for (auto &other : others) other.join();
#elif defined(_OPENMP)
  std::atomic<Barrier *> shared{nullptr};
  alignas(64) unsigned char memory[sizeof(Barrier)];
#pragma omp parallel num_threads(static_cast<int>(threads))
  {
    const int count = omp_get_num_threads(), id = omp_get_thread_num();
    if (id == 0) shared.store(new (memory) Barrier(count), std::memory_order_release);
#pragma omp barrier
    body(id, count, *shared.load(std::memory_order_acquire));
  }
#else
  Barrier barrier(1);
  body(0, 1, barrier);
#endif
}
