#include "supervisor.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace check {
namespace {

constexpr int kMostChildren = 60;

// What one child came to.
struct Outcome {
  bool complete = false, hung = false;
  int status = 0;
  nlohmann::json open;  // what it had begun and not reported
};

Outcome follow(pid_t child, int from, Session &session) {
  Outcome outcome;
  std::string text;
  char buffer[65536];
  for (;;) {
    pollfd ready = {from, POLLIN, 0};
    const int got = poll(&ready, 1, session.options.timeout * 1000);
    if (got == 0) {
      outcome.hung = true;
      kill(child, SIGKILL);
      break;
    }
    const ssize_t n = read(from, buffer, sizeof buffer);
    if (n <= 0) break;
    text.append(buffer, static_cast<size_t>(n));
    for (size_t line; (line = text.find('\n')) != std::string::npos; text.erase(0, line + 1)) {
      const nlohmann::json message = nlohmann::json::parse(text.substr(0, line), nullptr, false);
      if (message.is_discarded()) continue;  // the library wrote here, or the child was cut off
      const std::string kind = message.value("message", "");
      if (kind == "begin") outcome.open = message;
      if (kind == "row" || kind == "finished") outcome.open = nullptr;
      if (kind == "complete") outcome.complete = true;
      session.heard(message);
    }
  }
  waitpid(child, &outcome.status, 0);
  return outcome;
}

std::string what_happened(const Outcome &outcome, int timeout) {
  if (outcome.hung) {
    return "no answer in " + std::to_string(timeout) + " s: it hangs; its process was ended";
  }
  if (WIFSIGNALED(outcome.status)) {
    const int number = WTERMSIG(outcome.status);
    return "the process died of signal " + std::to_string(number) + " (" + strsignal(number) + ")";
  }
  return "the process ended with status " + std::to_string(WEXITSTATUS(outcome.status));
}

}  // namespace

int supervise(const Options &options, const std::function<void(Session &)> &run) {
  Session session(options);
  for (int number = 0; number < kMostChildren; number++) {
    int ends[2];
    if (pipe(ends) != 0) {
      std::perror("attn-check: pipe");
      return 2;
    }
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child < 0) {
      std::perror("attn-check: fork");
      return 2;
    }
    if (child == 0) {
      close(ends[0]);
      int status = 0;
      try {
        session.report_to(ends[1]);
        run(session);
        session.complete();
      } catch (const LostDevice &) {
        status = kStatusLost;  // already reported
      } catch (const std::exception &e) {
        std::fprintf(stderr, "attn-check: %s\n", e.what());
        status = kStatusFatal;
      }
      std::fflush(nullptr);
      // Without destructors: after a fault they may not come back.
      _exit(status);
    }
    close(ends[1]);
    const Outcome outcome = follow(child, ends[0], session);
    close(ends[0]);
    if (outcome.complete) return session.finish();
    if (WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == kStatusFatal) {
      return kStatusFatal;
    }
    if (outcome.open.is_object()) {
      session.report(outcome.open.value("id", ""), outcome.open.value("implementation", ""),
                     what_happened(outcome, options.timeout));
    } else if (!WIFEXITED(outcome.status) || WEXITSTATUS(outcome.status) != kStatusLost) {
      session.report("attn-check", "", "between cases: " + what_happened(outcome, options.timeout));
    }
  }
  session.report("attn-check", "",
                 "gave up after " + std::to_string(kMostChildren) + " processes ended early");
  return session.finish();
}

}  // namespace check
