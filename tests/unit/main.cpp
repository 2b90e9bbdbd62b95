// The unit tests' main: doctest's, with a last line that ./dev test adds up.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

namespace {

int passed, failed;

// Counts test cases; doctest's own summary speaks of assertions too.
struct Counter : doctest::IReporter {
  explicit Counter(const doctest::ContextOptions &) {}
  void report_query(const doctest::QueryData &) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats &stats) override {
    failed = static_cast<int>(stats.numTestCasesFailed);
    passed = static_cast<int>(stats.numTestCasesPassingFilters) - failed;
  }
  void test_case_start(const doctest::TestCaseData &) override {}
  void test_case_reenter(const doctest::TestCaseData &) override {}
  void test_case_end(const doctest::CurrentTestCaseStats &) override {}
  void test_case_exception(const doctest::TestCaseException &) override {}
  void subcase_start(const doctest::SubcaseSignature &) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData &) override {}
  void log_message(const doctest::MessageData &) override {}
  void test_case_skipped(const doctest::TestCaseData &) override {}
};
DOCTEST_REGISTER_LISTENER("counter", 1, Counter);

}  // namespace

int main(int argc, char **argv) {
  doctest::Context context(argc, argv);
  const int result = context.run();
  if (!context.shouldExit()) std::printf("%d passed, %d failed\n", passed, failed);
  return result;
}
