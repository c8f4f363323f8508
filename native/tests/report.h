// How the test programs say what is wrong: every failure prints a line, main returns finish().
#ifndef CELLWEAVE_TESTS_REPORT_H_
#define CELLWEAVE_TESTS_REPORT_H_

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace cellweave_tests {

constexpr int kMostLines = 40;

struct Report {
  long checks = 0, failures = 0;
};

inline Report &report() {
  static Report the_report;
  return the_report;
}

__attribute__((format(printf, 2, 3))) inline void expect(bool met, const char *format, ...) {
  ++report().checks;
  if (met || ++report().failures > kMostLines) return;
  va_list arguments;
  va_start(arguments, format);
  std::fputs("FAILED  ", stdout);
  std::vprintf(format, arguments);
  std::fputc('\n', stdout);
  va_end(arguments);
}

// The part of a program's cases that its arguments name: "1 4" is the second of four, none is all of them. Two
// processes can share a sweep so, and a sanitized build take some of one. Sweeps count through bits of options, so the
// cases fall to the parts by a hash of their number.
class Share {
 public:
  Share(int argc, char **argv) {
    if (argc == 3) part_ = unsigned(std::atoi(argv[1])), of_ = unsigned(std::atoi(argv[2]));
    if ((argc != 1 && argc != 3) || part_ >= of_)
      std::fputs("expected no argument, or PART OF\n", stderr), std::exit(2);
  }

  bool takes_next() { return (number_++ * 2654435761u >> 16) % of_ == part_; }

 private:
  unsigned part_ = 0, of_ = 1, number_ = 0;
};

inline int finish(const char *name) {
  std::printf("%s: %ld checks, %ld failed\n", name, report().checks, report().failures);
  return report().failures == 0 && report().checks > 0 ? 0 : 1;
}

}  // namespace cellweave_tests
#endif
