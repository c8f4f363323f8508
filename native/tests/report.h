// How the test programs say what is wrong: every failure prints a line, main returns finish().
#ifndef CELLWEAVE_TESTS_REPORT_H_
#define CELLWEAVE_TESTS_REPORT_H_

#include <cstdarg>
#include <cstdio>

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

inline int finish(const char *name) {
  std::printf("%s: %ld checks, %ld failed\n", name, report().checks, report().failures);
  return report().failures == 0 && report().checks > 0 ? 0 : 1;
}

}  // namespace cellweave_tests
#endif
