// The worker threads of a CPU context.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace attn::cpu {

// Runs numbered tasks on a fixed set of threads. Which thread runs a task is not fixed, so results
// must depend on the task number alone. Threads take tasks in ascending order: put the long ones
// first.
class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);  // the caller's thread included; >= 1
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  int num_threads() const { return num_threads_; }

  // Calls fn(task, thread) for task in [0, num_tasks), thread in [0, num_threads()), and returns
  // when all are done. Never allocates. If another execute holds the workers, the caller runs all
  // tasks by itself, as thread 0: concurrent executes do not wait for each other. fn must not throw
  // nor call parallel_for.
  template <class Fn>
  void parallel_for(int64_t num_tasks, const Fn &fn) const {
    run({[](const void *f, int64_t task, int thread) {
           (*static_cast<const Fn *>(f))(task, thread);
         },
         &fn, num_tasks});
  }

 private:
  struct Job {
    void (*call)(const void *fn, int64_t task, int thread);
    const void *fn;
    int64_t num_tasks;
  };
  struct Shared;

  void run(const Job &job) const;

  int num_threads_;
  std::unique_ptr<Shared> shared_;
  std::vector<std::thread> workers_;
};

}  // namespace attn::cpu
