#include "kernels/cpu/common/thread_pool.hpp"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace attn::cpu {
namespace {

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// How often a worker looks for the next job before it sleeps: tens of microseconds, so that the
// layers of a model, called one after the other, do not pay a wake-up each.
constexpr int kSpins = 2000;

}  // namespace

// A job is published by raising `epoch`, and may be joined while `gate` is open. The caller closes
// the gate when no task is left and waits for those who joined, so the job's memory (on the
// caller's stack) outlives every look at it; a worker that wakes too late finds the gate closed,
// and nobody waited for it.
struct ThreadPool::Shared {
  static constexpr uint32_t kOpen = 1u << 31;  // the bits below count the workers inside

  alignas(64) std::atomic<uint64_t> epoch{0};
  alignas(64) std::atomic<int64_t> next_task{0};
  alignas(64) std::atomic<uint32_t> gate{0};
  std::atomic<bool> stop{false};
  std::atomic<int> sleepers{0};
  Job job{};
  std::mutex owner;  // held by the execute that uses the workers
  std::mutex sleep;
  std::condition_variable wake;

  bool join() {
    uint32_t state = gate.load(std::memory_order_relaxed);
    while ((state & kOpen) != 0) {
      if (gate.compare_exchange_weak(state, state + 1, std::memory_order_acquire,
                                     std::memory_order_relaxed)) {
        return true;
      }
    }
    return false;
  }

  void work(const Job &j, int thread) {
    for (;;) {
      const int64_t task = next_task.fetch_add(1, std::memory_order_relaxed);
      if (task >= j.num_tasks) return;
      j.call(j.fn, task, thread);
    }
  }

  void worker(int thread) {
    uint64_t seen = 0;
    for (;;) {
      for (int i = 0; i < kSpins && epoch.load(std::memory_order_acquire) == seen; i++) relax();
      if (epoch.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(sleep);
        sleepers.fetch_add(1);
        wake.wait(lock, [&] { return epoch.load(std::memory_order_acquire) != seen; });
        sleepers.fetch_sub(1);
      }
      seen = epoch.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_relaxed)) return;
      if (!join()) continue;
      work(job, thread);
      gate.fetch_sub(1, std::memory_order_release);
    }
  }

  void publish() {
    // sequentially consistent with the sleeper's count: either it sees the new epoch before it
    // waits, or we see that it sleeps.
    epoch.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers.load(std::memory_order_seq_cst) != 0) {
      std::lock_guard lock(sleep);
      wake.notify_all();
    }
  }
};

ThreadPool::ThreadPool(int num_threads)
    : num_threads_(num_threads), shared_(std::make_unique<Shared>()) {
  workers_.reserve(static_cast<size_t>(num_threads - 1));
  try {
    for (int thread = 1; thread < num_threads; thread++) {
      workers_.emplace_back([shared = shared_.get(), thread] { shared->worker(thread); });
    }
  } catch (...) {  // no more threads to be had: end those that started, then report
    shared_->stop = true;
    shared_->publish();
    for (std::thread &worker : workers_) worker.join();
    throw;
  }
}

ThreadPool::~ThreadPool() {
  shared_->stop = true;
  shared_->publish();
  for (std::thread &worker : workers_) worker.join();
}

void ThreadPool::run(const Job &job) const {
  if (job.num_tasks <= 0) return;
  const bool alone = workers_.empty() || job.num_tasks == 1;
  std::unique_lock lock(shared_->owner, std::defer_lock);
  if (alone || !lock.try_lock()) {
    for (int64_t task = 0; task < job.num_tasks; task++) job.call(job.fn, task, 0);
    return;
  }
  shared_->job = job;
  shared_->next_task.store(0, std::memory_order_relaxed);
  shared_->gate.store(Shared::kOpen, std::memory_order_release);
  shared_->publish();
  shared_->work(job, 0);
  shared_->gate.fetch_and(~Shared::kOpen, std::memory_order_relaxed);
  for (int i = 0; shared_->gate.load(std::memory_order_acquire) != 0; i++) {
    // A worker may be off its core (more threads than cores): let it have ours.
    if (i < kSpins) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace attn::cpu
