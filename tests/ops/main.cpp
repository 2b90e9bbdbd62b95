// attn-check: runs any case of any family on any backend and implementation, through the public C
// ABI alone, against oracles of its own.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <random>

#include "harness.hpp"
#include "supervisor.hpp"

int main(int argc, char **argv) {
  check::Options options;
  CLI::App app{
      "Checks libattn against naive fp64 formulas: every case on every implementation that serves\n"
      "it, on fresh random data. The error may be at most twice that of the same computation in\n"
      "fp32, rounded once to the storage dtype (and its weights, where a matrix unit takes them)."};
  app.add_option("--backend", options.backend, "cpu, cuda, hip or auto")
      ->check(CLI::IsMember({"auto", "cpu", "cuda", "hip"}))
      ->capture_default_str();
  app.add_option("--implementation", options.implementation,
                 "only this one, such as cpu/sdpa/forward/reference; default: all that serve");
  app.add_option("--filter", options.filters,
                 "only cases whose name contains this, matches this glob, or is what follows '='");
  app.add_option("--seed", options.seed, "seed of all random data; default: a fresh one")
      ->default_str("random");
  app.add_option("--repeat", options.repeat, "rounds over all cases, with new data each time")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--threads", options.threads, "threads of the context; 0: as many as allowed")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--fresh", options.fresh, "random combinations beyond the table, from the seed")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_flag("--quick", options.quick, "a subset for builds with sanitizers");
  app.add_flag("--brief", options.brief,
               "for an interpreted device: cases that are not of the quick subset run twice, and "
               "threads execute once");
  std::string part;
  const auto is_share = [](const std::string &text) {
    int k = 0, n = 0;
    const bool good = std::sscanf(text.c_str(), "%d/%d", &k, &n) == 2 && 1 <= k && k <= n;
    return good ? std::string() : "must be K/N with 1 <= K <= N";
  };
  app.add_option("--part", part,
                 "K/N: of all cases of sdpa only every N-th, from the K-th; the first part has the "
                 "other operations, too")
      ->check(is_share);
  app.add_option(
         "--work", options.work,
         "references run only cases of at most so many multiplications, others, and the quick "
         "subset, of five times as many; 0: all")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--bench", options.bench, "print times too; without --filter: cases made for that");
  app.add_flag("--list", options.list, "only print the names of cases");
  app.add_flag("--in-process", options.in_process,
               "CUDA: no child process, from which the rest goes on after a fault");
  app.add_option("--timeout", options.timeout, "CUDA: seconds after which a silent child is ended")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--separate", options.separate,
               "CUDA: each tensor an allocation by itself, workspaces unwritten, in this process: "
               "for compute-sanitizer");
  app.add_flag("--pretend", options.pretend,
               "CPU: through a copy of all memory, as for a device; tests the tests");
  app.add_option("--json", options.json, "write all results to this file");
  app.set_version_flag("--version", std::string(attn_version_string()));
  CLI11_PARSE(app, argc, argv);
  if (!part.empty()) {
    std::sscanf(part.c_str(), "%d/%d", &options.part, &options.parts);
    options.part--;
  }
  if (app.count("--seed") == 0) options.seed = std::random_device()();

  try {
    const auto run = [&](check::Session &session) {
      if (!session.options.list) session.context();
      if (options.part == 0) {
        check::run_library(session);
        check::run_refusals(session);
        check::run_merge_refusals(session);
        check::run_merge(session);
      }
      check::run_sdpa(session);
    };
    if (!options.list) {
      std::printf("attn-check: libattn %s, seed %llu\n", attn_version_string(),
                  static_cast<unsigned long long>(options.seed));
      std::fflush(stdout);
    }
    const bool device = options.backend == "cuda" || options.backend == "hip" || options.pretend;
    if (device && !options.in_process && !options.separate && !options.list) {
      return check::supervise(options, run);
    }
    check::Session session(options);
    try {
      run(session);
    } catch (const check::LostDevice &) {
      std::fprintf(stderr, "attn-check: the device is lost: what follows was not run\n");
      session.finish();
      return check::kStatusLost;
    }
    return options.list ? 0 : session.finish();
  } catch (const std::exception &e) {
    std::fprintf(stderr, "attn-check: %s\n", e.what());
    return 2;
  }
}
